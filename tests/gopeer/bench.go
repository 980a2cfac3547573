package main

import (
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"sort"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.uber.org/zap"
)

// A run. Between two of etcd's, acknowledgements go by a connection of their own beside the transport; see interop.go
// for a run with ours at the other end.
type bench struct {
	mode, peer, side string
	size, n, window  int
	peers            int

	member    *member
	node      *node
	snapshots chan struct{}
	given     atomic.Int64
}

func benchFlags() *bench {
	var b bench
	flag.StringVar(&b.mode, "mode", "app", "app, ping or snap")
	flag.StringVar(&b.peer, "peer", "", "host:port of the other end")
	flag.StringVar(&b.side, "side", "", "host:port of the acknowledgements (recv listens)")
	flag.IntVar(&b.size, "size", 128, "bytes of a message's payload")
	flag.IntVar(&b.n, "n", 100000, "messages; of a snapshot, how many times the size")
	flag.IntVar(&b.window, "win", 2048, "messages sent and not acknowledged, at most")
	flag.IntVar(&b.peers, "peers", 0, "idle: number of peers, all of them at -peer, IDs from 100")
	return &b
}

const source, sink = 1, 2

func (b *bench) run(role string, c config) error {
	time.AfterFunc(100*time.Second, func() { fmt.Fprintln(os.Stderr, "no end within 100 s"); os.Exit(9) })
	// Where memory is a file system, the disk is not what is measured.
	dir, err := os.MkdirTemp("/dev/shm", "gopeer")
	if err != nil {
		dir, err = os.MkdirTemp("", "gopeer")
	}
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b.snapshots = make(chan struct{}, 1)
	b.node = &node{
		take:        func(message) error { return nil },
		removed:     func(uint64) bool { return false },
		unreachable: func(uint64) { b.given.Add(1) },
		snapshot: func(_ uint64, delivered bool) {
			if !delivered {
				fmt.Fprintln(os.Stderr, "snapshot failed")
				os.Exit(3)
			}
			b.snapshots <- struct{}{}
		},
	}
	c.logger, c.node, c.dir, c.id = zap.NewNop(), b.node, dir, source
	if role == "recv" || role == "sink" {
		c.id = sink
	}
	if b.member, err = start(c); err != nil {
		return err
	}
	switch role {
	case "send":
		return b.send()
	case "recv":
		return b.receive()
	case "idle":
		return b.idle()
	case "source":
		return b.source()
	case "sink":
		return b.sink()
	}
	return fmt.Errorf("no role %q", role)
}

func (b *bench) connect(id types.ID) {
	b.member.serve()
	b.member.AddPeer(id, []string{b.member.scheme + "://" + b.peer})
}

func (b *bench) idle() error {
	b.member.serve()
	before := rss()
	for i := 0; i < b.peers; i++ {
		b.member.AddPeer(types.ID(100+i), []string{b.member.scheme + "://" + b.peer})
	}
	time.Sleep(20 * time.Second)
	runtime.GC()
	used := cpu()
	time.Sleep(10 * time.Second)
	fmt.Printf("{\"impl\":\"go\",\"mode\":\"idle\",\"peers\":%d,\"rss0_kb\":%d,\"rss_kb\":%d,\"goroutines\":%d,\"cpu_10s\":%.3f}\n", b.peers, before, rss(), runtime.NumGoroutine(), cpu()-used)
	return nil
}

// How often the receiving end acknowledges: eight times in a window.
func (b *bench) acknowledgeEvery() int { return max(b.window/8, 1) }

func (b *bench) receive() error {
	listener, err := net.Listen("tcp", b.side)
	if err != nil {
		return err
	}
	var side net.Conn
	var buf [8]byte
	count, done, clock := 0, make(chan struct{}), newClock()
	b.node.take = func(m message) error {
		if count == 0 && b.mode != "snap" {
			clock = newClock()
		}
		count++
		switch b.mode {
		case "app":
			if count%b.acknowledgeEvery() == 0 || count == b.n {
				binary.BigEndian.PutUint64(buf[:], uint64(count))
				side.Write(buf[:])
			}
		case "ping":
			b.member.Send([]message{other(heartbeatResp, sink, source, 0, nil)})
		case "snap":
			count = b.n
		}
		if count == b.n {
			close(done)
		}
		return nil
	}
	b.connect(source)
	if side, err = listener.Accept(); err != nil {
		return err
	}
	side.Read(buf[:1])
	side.Write(buf[:1])
	if b.mode == "snap" {
		clock = newClock()
	}
	<-done
	b.report("recv", clock, nil)
	time.Sleep(300 * time.Millisecond)
	return nil
}

func (b *bench) send() error {
	pong := make(chan struct{}, 1)
	b.node.take = func(message) error { pong <- struct{}{}; return nil }
	b.connect(sink)
	var side net.Conn
	var err error
	for range 100 {
		if side, err = net.Dial("tcp", b.side); err == nil {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	if err != nil {
		return err
	}
	time.Sleep(streamsOpen)
	var buf [8]byte
	side.Write(buf[:1])
	side.Read(buf[:1])
	if b.member.ActiveSince(sink).IsZero() {
		return errors.New("not active")
	}
	clock := newClock()
	acknowledged := func() uint64 {
		io.ReadFull(side, buf[:])
		return binary.BigEndian.Uint64(buf[:])
	}
	times := b.load(acknowledged, func() { <-pong })
	b.report("send", clock, times)
	return nil
}

// How long the streams may take to open; the transport does not tell.
const streamsOpen = 1500 * time.Millisecond

// Sends what is to be sent, and returns the round trips of a ping.
func (b *bench) load(acknowledged func() uint64, answered func()) (times []float64) {
	data := make([]byte, b.size)
	switch b.mode {
	case "app":
		var taken uint64
		for i := uint64(1); i <= uint64(b.n); i++ {
			for i-1-taken >= uint64(b.window) {
				taken = acknowledged()
			}
			b.member.Send([]message{appendOf(source, sink, i, data)})
		}
		for taken < uint64(b.n) {
			taken = acknowledged()
		}
	case "ping":
		for i := 1; i <= b.n; i++ {
			sent := time.Now()
			b.member.Send([]message{other(heartbeat, source, sink, uint64(i), nil)})
			answered()
			times = append(times, float64(time.Since(sent).Nanoseconds())/1e3)
		}
		sort.Float64s(times)
	case "snap":
		total := int64(b.n) * int64(b.size)
		sendSnapshot(b.member.Transport, snapshotOf(source, sink, 10), &zeros{total}, total)
		<-b.snapshots
	}
	return times
}

type clock struct {
	at   time.Time
	used float64
}

func newClock() clock { return clock{time.Now(), cpu()} }

func (b *bench) report(role string, since clock, times []float64) {
	b.reportUntil(role, since, newClock(), times)
}

func (b *bench) reportUntil(role string, since, until clock, times []float64) {
	percentiles := ""
	if len(times) > 0 {
		percentiles = fmt.Sprintf(",\"p50_us\":%.1f,\"p99_us\":%.1f", times[len(times)/2], times[len(times)*99/100])
	}
	fmt.Printf("{\"impl\":\"go\",\"role\":\"%s\",\"mode\":\"%s\",\"size\":%d,\"n\":%d,\"secs\":%.3f,\"cpu\":%.3f,\"rss_mb\":%d,\"unreach\":%d%s}\n",
		role, b.mode, b.size, b.n, until.at.Sub(since.at).Seconds(), until.used-since.used, maxrss(), b.given.Load(), percentiles)
}

type zeros struct{ left int64 }

func (z *zeros) Read(p []byte) (int, error) {
	if z.left == 0 {
		return 0, io.EOF
	}
	n := min(int64(len(p)), z.left)
	z.left -= n
	return int(n), nil
}
func (z *zeros) Close() error { return nil }

func cpu() float64 {
	var r syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &r)
	return float64(r.Utime.Sec+r.Stime.Sec) + float64(r.Utime.Usec+r.Stime.Usec)/1e6
}

func maxrss() int64 {
	var r syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &r)
	return r.Maxrss / 1024
}

func rss() int64 {
	b, _ := os.ReadFile("/proc/self/status")
	for _, l := range strings.Split(string(b), "\n") {
		if strings.HasPrefix(l, "VmRSS:") {
			var k int64
			fmt.Sscanf(strings.TrimSpace(l[6:]), "%d", &k)
			return k
		}
	}
	return 0
}
