package main

import (
	"io"

	"go.etcd.io/etcd/server/v3/etcdserver/api/rafthttp"
	"go.etcd.io/etcd/server/v3/etcdserver/api/snap"
	stats "go.etcd.io/etcd/server/v3/etcdserver/api/v2stats"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"
)

// What differs between the versions; the files of the other two have the same names.

type message = *raftpb.Message
type snapshotStatus = raft.SnapshotStatus

const (
	snapshotFinish = raft.SnapshotFinish

	appendType    = raftpb.MsgApp
	appendResp    = raftpb.MsgAppResp
	heartbeat     = raftpb.MsgHeartbeat
	heartbeatResp = raftpb.MsgHeartbeatResp
	snapshotType  = raftpb.MsgSnap
)

func newLeaderStats() *stats.LeaderStats { return stats.NewLeaderStats(zap.NewNop(), "1") }

func decode(b []byte) (message, error) {
	m := &raftpb.Message{}
	return m, proto.Unmarshal(b, m)
}
func encode(m message) ([]byte, error)    { return proto.Marshal(m) }
func typeOf(m message) raftpb.MessageType { return m.GetType() }
func fromOf(m message) uint64             { return m.GetFrom() }
func indexOf(m message) uint64            { return m.GetIndex() }
func contextOf(m message) []byte          { return m.GetContext() }

func p(v uint64) *uint64 { return &v }

func appendOf(from, to, i uint64, data []byte) message {
	return &raftpb.Message{Type: raftpb.MsgApp.Enum(), From: p(from), To: p(to), Term: p(1), LogTerm: p(1), Index: p(i - 1), Commit: p(i - 1), Entries: []*raftpb.Entry{{Term: p(1), Index: p(i), Data: data}}}
}

func other(t raftpb.MessageType, from, to, index uint64, context []byte) message {
	return &raftpb.Message{Type: t.Enum(), From: p(from), To: p(to), Term: p(1), Index: p(index), Context: context}
}

func snapshotOf(from, to, index uint64) message {
	return &raftpb.Message{Type: raftpb.MsgSnap.Enum(), From: p(from), To: p(to), Term: p(1), Snapshot: &raftpb.Snapshot{Data: []byte("x"), Metadata: &raftpb.SnapshotMetadata{Index: p(index), Term: p(1)}}}
}

func sendSnapshot(tr *rafthttp.Transport, m message, body io.ReadCloser, size int64) {
	tr.SendSnapshot(snap.NewMessage(m, body, size))
}
