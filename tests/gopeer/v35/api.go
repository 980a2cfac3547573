package main

import (
	"io"

	"go.etcd.io/etcd/raft/v3"
	"go.etcd.io/etcd/raft/v3/raftpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/rafthttp"
	"go.etcd.io/etcd/server/v3/etcdserver/api/snap"
	stats "go.etcd.io/etcd/server/v3/etcdserver/api/v2stats"
	"go.uber.org/zap"
)

// What differs between the versions; the files of the other two have the same names.

type message = raftpb.Message
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

func decode(b []byte) (m message, err error) { return m, m.Unmarshal(b) }
func encode(m message) ([]byte, error)       { return m.Marshal() }
func typeOf(m message) raftpb.MessageType    { return m.Type }
func fromOf(m message) uint64                { return m.From }
func indexOf(m message) uint64               { return m.Index }
func contextOf(m message) []byte             { return m.Context }

func appendOf(from, to, i uint64, data []byte) message {
	return message{Type: raftpb.MsgApp, From: from, To: to, Term: 1, LogTerm: 1, Index: i - 1, Commit: i - 1, Entries: []raftpb.Entry{{Term: 1, Index: i, Data: data}}}
}

func other(t raftpb.MessageType, from, to, index uint64, context []byte) message {
	return message{Type: t, From: from, To: to, Term: 1, Index: index, Context: context}
}

func snapshotOf(from, to, index uint64) message {
	return message{Type: raftpb.MsgSnap, From: from, To: to, Term: 1, Snapshot: raftpb.Snapshot{Data: []byte("x"), Metadata: raftpb.SnapshotMetadata{Index: index, Term: 1}}}
}

func sendSnapshot(tr *rafthttp.Transport, m message, body io.ReadCloser, size int64) {
	tr.SendSnapshot(*snap.NewMessage(m, body, size))
}
