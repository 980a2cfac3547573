//! Notices that have to be given once the outbox's lock is released, because telling raft may call back.

use std::task::Waker;

use crate::{
    ledger::{MessageKind, PerStream},
    wire::raftpb::MessageType,
};

/// The result of queuing messages.
#[derive(Default)]
pub(crate) struct Handover {
    /// How many messages found their queue full.
    pub(crate) queue_full: u64,
    /// How many workers of the pipeline have to be started.
    pub(crate) workers: usize,
    pub(crate) notices: Notices,
}

/// Whom to tell what, once the lock is released.
#[derive(Default)]
pub(crate) struct Notices {
    /// At least one message was given up, so raft is told that the peer is unreachable.
    pub(crate) unreachable: bool,
    /// How many of them were snapshots.
    pub(crate) snapshots_failed: usize,
    /// The streams that have something to write, or have ended.
    pub(super) wakers: PerStream<Option<Waker>>,
}

impl Notices {
    /// A message of this kind was given up.
    pub(crate) fn given_up(&mut self, kind: MessageKind) {
        self.unreachable = true;
        self.snapshots_failed += usize::from(kind == MessageType::MsgSnap);
    }

    /// Wakes the streams that have something to write, or have ended.
    pub(crate) fn wake(&mut self) {
        for waker in self.wakers.values_mut().filter_map(Option::take) {
            waker.wake();
        }
    }
}
