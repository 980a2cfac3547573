//! What is known of a snapshot while it arrives.

use std::sync::Arc;

use tokio::time::Instant;

use crate::{
    ledger::Direction,
    telemetry::{self, EventSpan, Events, Origin, SnapshotPoint},
    transport::peer::Peer,
    wire::raftpb::Message,
};

/// Why a snapshot was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SnapshotError {
    /// Its body could not be read or saved.
    #[error("{0}")]
    Save(String),
    /// The application did not take it.
    #[error("{0}")]
    Process(String),
}

/// A snapshot that arrives. Counts as failed when it is dropped before its end: the connection broke.
pub(crate) struct Receiving {
    peer: Option<Arc<Peer>>,
    index: u64,
    /// How many bytes there will be, as the sender says.
    length: Option<u64>,
    bytes: u64,
    since: Instant,
    /// None for a stranger's: anyone can send many.
    span: Option<EventSpan>,
    events: Events,
    ended: bool,
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
            length,
            bytes: 0,
            since: Instant::now(),
            span,
            events: events.clone(),
            ended: false,
        }
    }

    /// The index that it stands for.
    pub(crate) fn index(&self) -> u64 {
        self.index
    }

    /// How long its sender says that its body is.
    pub(crate) fn length(&self) -> Option<u64> {
        self.length
    }

    /// More of its body has arrived.
    pub(crate) fn progressed(&mut self, bytes: u64) {
        self.bytes += bytes;
        if let Some(peer) = &self.peer {
            peer.link(|link| link.snapshot_progressed(Direction::In, bytes));
        }
    }

    /// It was taken, or not.
    pub(crate) fn end(&mut self, outcome: &Result<(), SnapshotError>) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let took = self.since.elapsed();
        if let Some(peer) = &self.peer {
            let took = outcome.is_ok().then_some(took);
            peer.link(|link| link.snapshot_ended(Direction::In, self.length, self.bytes, took));
        }
        let why = outcome.as_ref().err().map(ToString::to_string);
        if let (Some(why), Some(span)) = (&why, &self.span) {
            span.failed("failed", why);
        }
        // A stranger's is no event: whoever sends many must not wash away what happened to the members.
        if let Some(peer) = &self.peer {
            self.events.snapshot_ended(Some(peer.id), Direction::In, self.bytes, took, why.as_deref());
        }
    }
}

impl Drop for Receiving {
    fn drop(&mut self) {
        self.end(&Err(SnapshotError::Save("the connection broke".to_owned())));
    }
}
