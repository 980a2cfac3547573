// Command linearizability reads a history of reads and writes as JSON lines from standard input and says whether it is
// linearizable: exit status 0 if it is, 1 with the first offending key if not, 2 if that cannot be told.
//
// A line is {"op":"put|delete|get","key":"k","value":"v","call":1,"return":2}. A get without a value found nothing.
// A put or delete without a return may take effect at any time after its call, or never.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"sort"
	"time"

	"github.com/anishathalye/porcupine"
)

// patience bounds the search for one key.
const patience = 60 * time.Second

type operation struct {
	Op     string  `json:"op"`
	Key    string  `json:"key"`
	Value  *string `json:"value"`
	Call   int64   `json:"call"`
	Return *int64  `json:"return"`
}

type input struct {
	op    string
	value string
}

// absent is the value of a key that is not there; no writer writes it.
const absent = "\x00"

// register is one key: what was written last, or nothing.
var register = porcupine.Model{
	Init: func() interface{} { return absent },
	Step: func(state, in, out interface{}) (bool, interface{}) {
		switch in := in.(input); in.op {
		case "put":
			return true, in.value
		case "delete":
			return true, absent
		default:
			return out == state, state
		}
	},
	DescribeOperation: func(in, out interface{}) string { return fmt.Sprintf("%v -> %q", in, out) },
}

func main() {
	keys, err := read()
	if err != nil {
		fmt.Fprintln(os.Stderr, "cannot read the history:", err)
		os.Exit(2)
	}
	names := make([]string, 0, len(keys))
	count := 0
	for key, operations := range keys {
		names = append(names, key)
		count += len(operations)
	}
	sort.Strings(names)
	for _, key := range names {
		switch porcupine.CheckOperationsTimeout(register, keys[key], patience) {
		case porcupine.Illegal:
			fmt.Printf("not linearizable: key %s\n", key)
			for _, operation := range keys[key] {
				fmt.Printf("  %20d %20d %v -> %q\n", operation.Call, operation.Return, operation.Input, operation.Output)
			}
			os.Exit(1)
		case porcupine.Unknown:
			fmt.Printf("cannot be told in %v: key %s, %d operations\n", patience, key, len(keys[key]))
			os.Exit(2)
		}
	}
	fmt.Printf("linearizable: %d operations on %d keys\n", count, len(names))
}

func read() (map[string][]porcupine.Operation, error) {
	keys := map[string][]porcupine.Operation{}
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var one operation
		if err := json.Unmarshal(lines.Bytes(), &one); err != nil {
			return nil, fmt.Errorf("%w: %s", err, lines.Text())
		}
		value := absent
		if one.Value != nil {
			value = *one.Value
		}
		switch one.Op {
		case "put", "delete", "get":
		default:
			return nil, fmt.Errorf("unknown op %q", one.Op)
		}
		end := int64(math.MaxInt64)
		if one.Return != nil {
			end = *one.Return
		} else if one.Op == "get" {
			continue
		}
		keys[one.Key] = append(keys[one.Key], porcupine.Operation{
			ClientId: len(keys[one.Key]),
			Input:    input{one.Op, value},
			Call:     one.Call,
			Output:   value,
			Return:   end,
		})
	}
	return keys, lines.Err()
}
