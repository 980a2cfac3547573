//! Who is to be told of what once the outbox's lock is released: telling raft may call back.

use std::task::Waker;

use crate::{
    ledger::{MessageKind, PerStream},
    wire::raftpb::MessageType,
};

/// What came of messages that were handed over.
#[derive(Default)]
pub(crate) struct Handover {
    /// So many found their queue full.
    pub(crate) queue_full: u64,
    /// So many workers of the pipeline are to be started.
    pub(crate) workers: usize,
    pub(crate) notices: Notices,
}

/// Who is to be told of what, once the lock is released.
#[derive(Default)]
pub(crate) struct Notices {
    /// At least one message was given up.
    pub(crate) unreachable: bool,
    /// So many of them were snapshots.
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
