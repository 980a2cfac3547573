package main

import (
	"encoding/json"
	"errors"
	"sort"
	"time"
)

// A run with `rafthttp bench` at the other end, which speaks by raft's own messages: the source tells its plan and, at
// the end, its sum in the context of a heartbeat, and the sink answers both; appends are acknowledged by MsgAppResp with
// the last index, pings by MsgHeartbeatResp with their number.

type outline struct {
	Work   string `json:"work"`
	Size   int    `json:"size"`
	Window int    `json:"window"`
}

type notice struct {
	Begin *outline `json:"begin,omitempty"`
	End   *int     `json:"end,omitempty"`
}

func (b *bench) sink() error {
	count, began, ended, done := 0, newClock(), false, make(chan struct{})
	var end clock
	b.node.take = func(m message) error {
		switch typeOf(m) {
		case appendType:
			count++
			if count%b.acknowledgeEvery() == 0 || count == b.n {
				b.member.Send([]message{other(appendResp, sink, source, uint64(count), nil)})
			}
		case heartbeat:
			if indexOf(m) > 0 {
				count++
				b.member.Send([]message{other(heartbeatResp, sink, source, indexOf(m), nil)})
				return nil
			}
			var told notice
			if json.Unmarshal(contextOf(m), &told) != nil {
				return nil
			}
			b.member.Send([]message{other(heartbeatResp, sink, source, uint64(count), contextOf(m))})
			if told.Begin != nil {
				count, began = 0, newClock()
			}
			if told.End != nil && !ended {
				ended, end = true, newClock()
				close(done)
			}
		case snapshotType:
			count = b.n
		}
		return nil
	}
	b.connect(source)
	<-done
	if count != b.n {
		return errors.New("messages were lost")
	}
	b.reportUntil("sink", began, end, nil)
	time.Sleep(300 * time.Millisecond)
	return nil
}

func (b *bench) source() error {
	taken, pong, heard := make(chan uint64, 8192), make(chan struct{}, 1), make(chan struct{}, 1)
	b.node.take = func(m message) error {
		switch {
		case typeOf(m) == appendResp:
			taken <- indexOf(m)
		case typeOf(m) == heartbeatResp && len(contextOf(m)) > 0:
			heard <- struct{}{}
		case typeOf(m) == heartbeatResp:
			pong <- struct{}{}
		}
		return nil
	}
	b.connect(sink)
	time.Sleep(streamsOpen)
	tell := func(n notice) error {
		context, err := json.Marshal(n)
		if err != nil {
			return err
		}
		b.member.Send([]message{other(heartbeat, source, sink, 0, context)})
		select {
		case <-heard:
			return nil
		case <-time.After(10 * time.Second):
			return errors.New("the sink does not answer")
		}
	}
	work := map[string]string{"app": "append", "ping": "ping", "snap": "snapshot"}[b.mode]
	if err := tell(notice{Begin: &outline{work, b.size, b.window}}); err != nil {
		return err
	}
	began := newClock()
	times := b.load(sink, func() uint64 { return <-taken }, func() { <-pong })
	end := newClock()
	sort.Float64s(times)
	if err := tell(notice{End: &b.n}); err != nil {
		return err
	}
	b.reportUntil("source", began, end, times)
	return nil
}
