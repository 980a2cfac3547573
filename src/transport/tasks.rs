//! Starts a peer's tasks. The peer itself is state and names none of them; whoever changes it in a way that calls for a
//! task says so by what it returns.
//!
//! A peer has two readers and a prober for as long as it is one; workers of its pipeline, senders of snapshots and those
//! who empty its receive queues (`drain`) only while there is something to do. All of them end with the peer's `stop`,
//! and the transport waits for them. Since [`Transport::send`](super::Transport::send) is called from any thread, they
//! are started on the transport's own runtime.

use std::sync::Arc;

use super::{
    peer::Peer,
    pipeline,
    prober::Prober,
    reader::Reader,
    snapshot::{self, SnapshotBody},
};
use crate::{
    telemetry::MessageSpan,
    wire::{raftpb::Message, stream::StreamKind},
};

/// Starts what keeps a peer connected: its readers and its prober.
pub(super) fn connect(peer: &Arc<Peer>) {
    for kind in StreamKind::ALL {
        peer.spawn(Reader::new(peer.clone(), kind).run());
    }
    if peer.shared.probe.is_on() {
        peer.spawn(Prober::new(peer.clone()).run());
    }
}

/// Starts so many workers of a peer's pipeline.
pub(super) fn post(peer: &Arc<Peer>, workers: usize) {
    for _ in 0..workers {
        peer.spawn(pipeline::work(peer.clone()));
    }
}

/// Starts the sender of a snapshot that the peer's outbox has taken.
pub(super) fn send_snapshot(peer: Arc<Peer>, message: Message, body: SnapshotBody, span: Option<MessageSpan>) {
    peer.spawn(snapshot::sender::send(peer.clone(), message, body, span));
}
