package main

import (
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"sort"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.uber.org/zap"
)

// A run. Between two of etcd's, acknowledgements go by a connection of their own beside the transport; see interop.go
// for a run with ours at the other end. One send may have several recv, all of them in one process: each has a transport
// with an address of its own, and is sent the whole load by a goroutine of its own.
type bench struct {
	mode, peer, side, hold string
	size, n, window        int
	peers                  int

	member    *member
	node      *node
	snapshots chan struct{}
	given     atomic.Int64
}

func benchFlags() *bench {
	var b bench
	flag.StringVar(&b.mode, "mode", "app", "app, ping or snap")
	flag.StringVar(&b.peer, "peer", "", "host:port of the other end; of send: of every recv, with commas between")
	flag.StringVar(&b.side, "side", "", "host:port of the acknowledgements (recv listens), one for each recv")
	flag.StringVar(&b.hold, "hold", "", "after the load, keep the streams open; send serves /metrics at this host:port")
	flag.IntVar(&b.size, "size", 128, "bytes of a message's payload")
	flag.IntVar(&b.n, "n", 100000, "messages; of a snapshot, how many times the size")
	flag.IntVar(&b.window, "win", 2048, "messages sent and not acknowledged, at most")
	flag.IntVar(&b.peers, "peers", 0, "idle: number of peers, all of them at -peer, IDs from 100")
	return &b
}

// Who sends, and the first who receives: the others have the IDs after it.
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
	c.logger, c.dir, c.id = zap.NewNop(), dir, source
	if role == "recv" {
		return b.receive(c)
	}
	if role == "sink" {
		c.id = sink
	}
	c.node = b.newNode()
	b.node = c.node
	if b.member, err = start(c); err != nil {
		return err
	}
	switch role {
	case "send":
		return b.send()
	case "idle":
		return b.idle()
	case "source":
		return b.source()
	case "sink":
		return b.sink()
	}
	return fmt.Errorf("no role %q", role)
}

func (b *bench) newNode() *node {
	return &node{
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

// Runs a member at each local address until each has received everything, and reports what all of them took together:
// since the first message of any.
func (b *bench) receive(c config) error {
	locals, sides := strings.Split(c.local, ","), strings.Split(b.side, ",")
	if len(locals) != len(sides) {
		return errors.New("-local and -side differ in length")
	}
	ended := make(chan clock, len(locals))
	failed := make(chan error, len(locals))
	for i := range locals {
		id, n := sink+uint64(i), b.newNode()
		c.local, c.id, c.node = locals[i], id, n
		m, err := start(c)
		if err != nil {
			return err
		}
		go func() {
			began, err := b.receiveAs(m, n, id, sides[i])
			if err != nil {
				failed <- err
				return
			}
			ended <- began
		}()
	}
	var first clock
	for range locals {
		select {
		case err := <-failed:
			return err
		case began := <-ended:
			if first.at.IsZero() || began.at.Before(first.at) {
				first = began
			}
		}
	}
	b.report("recv", first, nil)
	if b.hold != "" {
		select {}
	}
	time.Sleep(300 * time.Millisecond)
	return nil
}

// One member's part of that. Returns when its part began.
func (b *bench) receiveAs(m *member, n *node, id uint64, at string) (clock, error) {
	listener, err := net.Listen("tcp", at)
	if err != nil {
		return clock{}, err
	}
	var side net.Conn
	var buf [8]byte
	count, done, clock := 0, make(chan struct{}), newClock()
	n.take = func(got message) error {
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
			m.Send([]message{other(heartbeatResp, id, source, 0, nil)})
		case "snap":
			count = b.n
		}
		if count == b.n {
			close(done)
		}
		return nil
	}
	m.serve()
	m.AddPeer(source, []string{m.scheme + "://" + b.peer})
	if side, err = listener.Accept(); err != nil {
		return clock, err
	}
	side.Read(buf[:1])
	side.Write(buf[:1])
	if b.mode == "snap" {
		clock = newClock()
	}
	<-done
	return clock, nil
}

func (b *bench) send() error {
	peers, sides := strings.Split(b.peer, ","), strings.Split(b.side, ",")
	if len(peers) != len(sides) {
		return errors.New("-peer and -side differ in length")
	}
	pongs := make([]chan struct{}, len(peers))
	for i := range pongs {
		pongs[i] = make(chan struct{}, 1)
	}
	b.node.take = func(m message) error { pongs[fromOf(m)-sink] <- struct{}{}; return nil }
	b.member.serve()
	for i, peer := range peers {
		b.member.AddPeer(types.ID(sink+i), []string{b.member.scheme + "://" + peer})
	}
	connections := make([]net.Conn, len(sides))
	for i, side := range sides {
		var err error
		if connections[i], err = dialSide(side); err != nil {
			return err
		}
	}
	time.Sleep(streamsOpen + time.Duration(len(peers)-1)*streamsOpenOfEach)
	for i, side := range connections {
		var buf [1]byte
		side.Write(buf[:])
		side.Read(buf[:])
		if b.member.ActiveSince(types.ID(sink + i)).IsZero() {
			return errors.New("not active")
		}
	}
	clock := newClock()
	loads := make(chan []float64, len(peers))
	for i, side := range connections {
		go func() {
			var buf [8]byte
			acknowledged := func() uint64 {
				io.ReadFull(side, buf[:])
				return binary.BigEndian.Uint64(buf[:])
			}
			loads <- b.load(sink+uint64(i), acknowledged, func() { <-pongs[i] })
		}()
	}
	var times []float64
	for range peers {
		times = append(times, <-loads...)
	}
	sort.Float64s(times)
	b.report("send", clock, times)
	if b.hold != "" {
		http.Handle("/metrics", promhttp.Handler())
		return http.ListenAndServe(b.hold, nil)
	}
	return nil
}

func dialSide(at string) (side net.Conn, err error) {
	for range 100 {
		if side, err = net.Dial("tcp", at); err == nil {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	return side, err
}

// How long the streams may take to open; the transport does not tell.
const streamsOpen = 1500 * time.Millisecond

// And with each further peer.
const streamsOpenOfEach = 10 * time.Millisecond

// Sends what is to be sent to one member, and returns the round trips of a ping.
func (b *bench) load(to uint64, acknowledged func() uint64, answered func()) (times []float64) {
	data := make([]byte, b.size)
	switch b.mode {
	case "app":
		var taken uint64
		for i := uint64(1); i <= uint64(b.n); i++ {
			for i-1-taken >= uint64(b.window) {
				taken = acknowledged()
			}
			b.member.Send([]message{appendOf(source, to, i, data)})
		}
		for taken < uint64(b.n) {
			taken = acknowledged()
		}
	case "ping":
		for i := 1; i <= b.n; i++ {
			sent := time.Now()
			b.member.Send([]message{other(heartbeat, source, to, uint64(i), nil)})
			answered()
			times = append(times, float64(time.Since(sent).Nanoseconds())/1e3)
		}
	case "snap":
		total := int64(b.n) * int64(b.size)
		sendSnapshot(b.member.Transport, snapshotOf(source, to, 10), &zeros{total}, total)
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
