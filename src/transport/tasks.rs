//! Starts a peer's tasks. The peer itself is state and knows none of them. A method of the peer that calls for a task
//! says so by what it returns.
//!
//! A peer has two readers and a prober for as long as it is a peer. It has workers of its pipeline, senders of
//! snapshots, and tasks that empty its receive queues (`drain`) only while there is something to do. All of them end
//! with the peer's `stop`, and the transport waits for them. They are started on the transport's own runtime, because
//! [`Transport::send`](super::Transport::send) may be called from any thread.

use std::sync::Arc;

use super::{
    peer::Peer,
    pipeline,
    prober::Prober,
    reader::StreamReader,
    snapshot::{self, SnapshotBody},
};
use crate::{
    telemetry::MessageSpan,
    wire::{raftpb::Message, stream::StreamKind},
};

/// Starts the tasks that keep a peer connected: its readers and its prober.
pub(super) fn connect(peer: &Arc<Peer>) {
    for kind in StreamKind::ALL {
        peer.spawn(StreamReader::new(peer.clone(), kind).run());
    }
    if peer.shared.probe.is_on() {
        peer.spawn(Prober::new(peer.clone()).run());
    }
}

/// Starts this many workers of a peer's pipeline.
pub(super) fn post(peer: &Arc<Peer>, workers: usize) {
    for _ in 0..workers {
        peer.spawn(pipeline::work(peer.clone()));
    }
}

/// Starts the sender of a snapshot that the peer's outbox has accepted.
pub(super) fn send_snapshot(peer: Arc<Peer>, message: Message, body: SnapshotBody, span: Option<MessageSpan>) {
    peer.spawn(snapshot::sender::send(peer.clone(), message, body, span));
}
