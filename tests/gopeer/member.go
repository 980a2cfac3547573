package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"sync"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// A command is a line of JSON on standard input, with `bytes` bytes behind it where there is a body; the answer has the
// same shape. Messages in a body are framed as on etcd's message stream: 8 bytes of length, then raftpb.
type command struct {
	Do    string   `json:"do"`
	ID    uint64   `json:"id"`
	URLs  []string `json:"urls"`
	On    bool     `json:"on"`
	Size  int64    `json:"size"`
	Cut   int64    `json:"cut"`
	Seed  uint64   `json:"seed"`
	Bytes int      `json:"bytes"`
}

type answer struct {
	Bytes       int            `json:"bytes"`
	Error       string         `json:"error,omitempty"`
	URL         string         `json:"url,omitempty"`
	Received    int            `json:"received"`
	Active      []uint64       `json:"active"`
	Unreachable map[uint64]int `json:"unreachable,omitempty"`
	Snapshots   []report       `json:"snapshots"`
	Critical    []string       `json:"critical"`
	Attached    int            `json:"attached"`
}

type report struct {
	ID        uint64 `json:"id"`
	Delivered bool   `json:"delivered"`
}

// What the driven member has seen.
type record struct {
	sync.Mutex
	received    []message
	removed     map[uint64]bool
	refuses     bool
	unreachable map[uint64]int
	snapshots   []report
	critical    []string
	log         bytes.Buffer
	attached    int
	peers       map[uint64]bool
}

func (r *record) locked(f func()) {
	r.Lock()
	defer r.Unlock()
	f()
}

func (r *record) Write(line []byte) (int, error) {
	r.Lock()
	defer r.Unlock()
	return r.log.Write(line)
}

// A writer says this when it has taken over a stream, which is after the 200 that the other side has seen.
func (r *record) countAttached(entry zapcore.Entry) error {
	if entry.Message == "set message encoder" {
		r.locked(func() { r.attached++ })
	}
	return nil
}

func (r *record) node() *node {
	return &node{
		take: func(m message) (err error) {
			r.locked(func() {
				if r.refuses {
					err = errors.New("not taken")
				} else {
					r.received = append(r.received, m)
				}
			})
			return err
		},
		removed:     func(id uint64) (is bool) { r.locked(func() { is = r.removed[id] }); return is },
		unreachable: func(id uint64) { r.locked(func() { r.unreachable[id]++ }) },
		snapshot: func(id uint64, delivered bool) {
			r.locked(func() { r.snapshots = append(r.snapshots, report{id, delivered}) })
		},
	}
}

func drive(c config) error {
	r := &record{removed: map[uint64]bool{}, unreachable: map[uint64]int{}, peers: map[uint64]bool{}}
	encoder := zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig())
	warnings := zapcore.NewCore(encoder, zapcore.AddSync(r), zap.WarnLevel)
	everything := zapcore.NewCore(encoder, zapcore.AddSync(io.Discard), zap.InfoLevel)
	c.logger = zap.New(zapcore.NewTee(warnings, zapcore.RegisterHooks(everything, r.countAttached)))
	c.node = r.node()
	m, err := start(c)
	if err != nil {
		return err
	}
	go func() {
		for err := range m.critical {
			r.locked(func() { r.critical = append(r.critical, err.Error()) })
		}
	}()
	m.serve()
	in, out := bufio.NewReader(os.Stdin), bufio.NewWriter(os.Stdout)
	if err := reply(out, answer{URL: m.url}, nil); err != nil {
		return err
	}
	for {
		line, err := in.ReadBytes('\n')
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		var c command
		if err := json.Unmarshal(line, &c); err != nil {
			return err
		}
		body := make([]byte, c.Bytes)
		if _, err := io.ReadFull(in, body); err != nil {
			return err
		}
		a, body, err := r.obey(m, c, body)
		if err != nil {
			a.Error = err.Error()
		}
		if err := reply(out, a, body); err != nil {
			return err
		}
	}
}

func reply(out *bufio.Writer, a answer, body []byte) error {
	a.Bytes = len(body)
	line, err := json.Marshal(a)
	if err != nil {
		return err
	}
	out.Write(append(line, '\n'))
	out.Write(body)
	return out.Flush()
}

func (r *record) obey(m *member, c command, body []byte) (a answer, out []byte, err error) {
	id := types.ID(c.ID)
	switch c.Do {
	case "add peer":
		m.AddPeer(id, c.URLs)
		r.locked(func() { r.peers[c.ID] = true })
	case "add remote":
		m.AddRemote(id, c.URLs)
	case "update peer":
		m.UpdatePeer(id, c.URLs)
	case "remove peer":
		m.RemovePeer(id)
		r.locked(func() { delete(r.peers, c.ID) })
	case "is removed":
		r.locked(func() { r.removed[c.ID] = c.On })
	case "refuse":
		r.locked(func() { r.refuses = c.On })
	case "pause":
		m.Pause()
	case "resume":
		m.Resume()
	case "cut":
		m.CutPeer(id)
	case "mend":
		m.MendPeer(id)
	case "send":
		messages, err := unframe(body)
		if err == nil {
			m.Send(messages)
		}
		return a, nil, err
	case "send snapshot":
		messages, err := unframe(body)
		if err == nil {
			sendSnapshot(m.Transport, messages[0], newPattern(c.Seed, c.Size, c.Cut), c.Size)
		}
		return a, nil, err
	case "take received":
		r.locked(func() { out, err = frame(r.received); r.received = nil })
	case "take log":
		r.locked(func() { out = append(out, r.log.Bytes()...); r.log.Reset() })
	case "metrics":
		recorder := httptest.NewRecorder()
		request := httptest.NewRequest(http.MethodGet, "/metrics", nil)
		promhttp.Handler().ServeHTTP(recorder, request)
		out = recorder.Body.Bytes()
	case "state":
		r.locked(func() {
			a.Received, a.Unreachable, a.Attached = len(r.received), r.unreachable, r.attached
			a.Snapshots = append([]report{}, r.snapshots...)
			a.Critical = append([]string{}, r.critical...)
			a.Active = []uint64{}
			for peer := range r.peers {
				if !m.ActiveSince(types.ID(peer)).IsZero() {
					a.Active = append(a.Active, peer)
				}
			}
			r.unreachable = map[uint64]int{}
			for id, times := range a.Unreachable {
				r.unreachable[id] = times
			}
		})
	default:
		err = fmt.Errorf("no command %q", c.Do)
	}
	return a, out, err
}

func unframe(b []byte) (messages []message, err error) {
	for len(b) > 0 {
		length := binary.BigEndian.Uint64(b)
		m, err := decode(b[8 : 8+length])
		if err != nil {
			return nil, err
		}
		messages, b = append(messages, m), b[8+length:]
	}
	return messages, nil
}

func frame(messages []message) (b []byte, err error) {
	for _, m := range messages {
		encoded, err := encode(m)
		if err != nil {
			return nil, err
		}
		b = append(binary.BigEndian.AppendUint64(b, uint64(len(encoded))), encoded...)
	}
	return b, nil
}

// The body of a snapshot, the same that the tests make: blocks of 1 MiB of xorshift64 from a seed, each with its number
// in its first 8 bytes.
type pattern struct {
	block    []byte
	at, size int64
	cut      int64
}

const blockSize = 1 << 20

func newPattern(seed uint64, size, cut int64) io.ReadCloser {
	block := make([]byte, blockSize)
	for i := 0; i < blockSize; i += 8 {
		seed ^= seed << 13
		seed ^= seed >> 7
		seed ^= seed << 17
		binary.LittleEndian.PutUint64(block[i:], seed)
	}
	return &pattern{block: block, size: size, cut: cut}
}

func (p *pattern) Read(b []byte) (int, error) {
	if p.cut > 0 && p.at >= p.cut {
		return 0, errors.New("the source is cut")
	}
	if p.at == p.size {
		return 0, io.EOF
	}
	start := p.at % blockSize
	if start == 0 {
		binary.BigEndian.PutUint64(p.block, uint64(p.at/blockSize))
	}
	n := copy(b, p.block[start:min(blockSize, start+p.size-p.at)])
	p.at += int64(n)
	return n, nil
}

func (p *pattern) Close() error { return nil }
