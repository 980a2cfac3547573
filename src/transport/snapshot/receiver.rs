//! The state of a snapshot while it arrives.

use std::sync::Arc;

use tokio::time::Instant;

use crate::{
    ledger::{Direction, RestartReason},
    telemetry::{self, EventSpan, Events, Origin, SnapshotPoint},
    transport::peer::Peer,
    wire::raftpb::Message,
};

/// Why a snapshot was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ReceiveError {
    /// Its body could not be read or saved.
    #[error("{0}")]
    Save(String),
    /// The application did not take it.
    #[error("{0}")]
    Process(String),
    /// No more bytes came. This many are kept, so that the sender can go on.
    #[error("{why}; {kept} bytes are kept")]
    BrokeOff {
        /// How many are kept.
        kept: u64,
        /// Why no more came.
        why: String,
    },
    /// Its body does not begin where the snapshot broke off, after this many bytes.
    #[error("{0} bytes of it are there")]
    OtherOffset(u64),
    /// The received bytes differ from those of its sender.
    #[error("{0}")]
    Checksum(String),
    /// It cannot be taken now, for this reason. The sender tries again.
    #[error("{0}")]
    Busy(&'static str),
    /// This member stopped before the application answered. What there is of it is kept.
    #[error("stopped")]
    Stopped,
}

impl ReceiveError {
    /// An older connection's bytes of it are still being written.
    pub(super) const BEING_WRITTEN: Self = Self::Busy("it is still being written");
    /// Raft was asked about it by another connection, and has given no answer.
    pub(crate) const UNANSWERED: Self = Self::Busy("raft has not answered");
    /// Every place for snapshots is taken, or every part of one is being written.
    pub(crate) const TOO_MANY: Self = Self::Busy("too many snapshots at a time");
}

/// A snapshot that is arriving. It counts as failed if it is dropped before its end, because the connection broke.
pub(crate) struct Receiving {
    peer: Option<Arc<Peer>>,
    index: u64,
    term: u64,
    /// The length of the body, as the sender says.
    length: Option<u64>,
    /// How many bytes were there before.
    resumed: u64,
    bytes: u64,
    since: Instant,
    /// `None` for a stranger's snapshot: anyone can send many.
    span: Option<EventSpan>,
    events: Events,
    ended: bool,
    /// Its outcome was counted for another connection.
    counted: bool,
}

impl Receiving {
    pub(crate) fn begin(
        peer: Option<Arc<Peer>>,
        message: &Message,
        length: Option<u64>,
        origin: &Origin,
        events: &Events,
    ) -> Self {
        let point = SnapshotPoint::of(message);
        let from = peer.as_ref().map(|peer| peer.id);
        if let Some(peer) = &peer {
            peer.link(|link| link.snapshot_started(Direction::In, length));
            events.snapshot_started(from, Direction::In, point);
        }
        let span = peer.as_ref().map(|peer| {
            let trace = peer.shared.sampler.trace_id(message);
            telemetry::snapshot_span(&peer.shared.world, peer.id, Direction::In, point, trace, origin)
        });
        Self {
            peer,
            index: point.index,
            term: message.term,
            length,
            resumed: 0,
            bytes: 0,
            since: Instant::now(),
            span,
            events: events.clone(),
            ended: false,
            counted: false,
        }
    }

    /// The index of the snapshot.
    pub(crate) fn index(&self) -> u64 {
        self.index
    }

    /// The term of its message.
    pub(crate) fn term(&self) -> u64 {
        self.term
    }

    /// The length of the body, as its sender says.
    pub(crate) fn length(&self) -> Option<u64> {
        self.length
    }

    /// `offset` bytes of it are there already, so it goes on where it broke off. If `instead_of` is given, a part of
    /// another snapshot of the sender, with this many bytes, was dropped for it.
    pub(crate) fn goes_on(&mut self, offset: u64, instead_of: Option<u64>) {
        let Some(peer) = &self.peer else { return };
        if let Some(had) = instead_of {
            peer.link(|link| link.snapshot_restarted(Direction::In, RestartReason::Another));
            self.events.snapshot_restarted(peer.id, Direction::In, RestartReason::Another, had);
        }
        if offset > 0 {
            self.resumed = offset;
            peer.link(|link| link.snapshot_resumed(Direction::In, 0, offset));
            self.events.snapshot_resumed(peer.id, Direction::In, offset, self.length.unwrap_or(offset));
        }
    }

    /// Another connection brought it, and its outcome was counted there.
    pub(crate) fn was_counted(&mut self) {
        self.counted = true;
    }

    /// More of its body has arrived.
    pub(crate) fn progressed(&mut self, bytes: u64) {
        self.bytes += bytes;
        if let Some(peer) = &self.peer {
            peer.link(|link| link.snapshot_progressed(Direction::In, bytes));
        }
    }

    /// It was taken or refused.
    pub(crate) fn end(&mut self, outcome: &Result<(), ReceiveError>) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let took = self.since.elapsed();
        let there = self.resumed + self.bytes;
        if let (Some(peer), Err(ReceiveError::BrokeOff { kept, why })) = (&self.peer, outcome) {
            peer.link(|link| link.snapshot_broke_off(self.length, there));
            if let Some(span) = &self.span {
                span.failed("broken_off", why);
            }
            return self.events.snapshot_broke_off(peer.id, *kept, why);
        }
        if let Some(peer) = self.peer.as_ref().filter(|_| self.counted) {
            peer.link(|link| link.snapshot_left(self.length, there));
        } else if let Some(peer) = &self.peer {
            let took = outcome.is_ok().then_some(took);
            if let Err(ReceiveError::Checksum(_)) = outcome {
                peer.link(|link| link.snapshot_restarted(Direction::In, RestartReason::Checksum));
                self.events.snapshot_restarted(peer.id, Direction::In, RestartReason::Checksum, there);
            }
            peer.link(|link| link.snapshot_ended(Direction::In, self.length, there, took));
        }
        let why = outcome.as_ref().err().map(ToString::to_string);
        if let (Some(why), Some(span)) = (&why, &self.span) {
            span.failed("failed", why);
        }
        // There is no event for a stranger's snapshot: a stranger that sends many must not push out the events of the
        // members. Nor is there a second one for an outcome that another connection has counted.
        if let Some(peer) = self.peer.as_ref().filter(|_| !self.counted) {
            self.events.snapshot_ended(Some(peer.id), Direction::In, there, took, why.as_deref());
        }
    }
}

impl Drop for Receiving {
    fn drop(&mut self) {
        self.end(&Err(ReceiveError::Save("the connection broke".to_owned())));
    }
}
