//! What is known of a snapshot while it arrives.

use std::sync::Arc;

use tokio::time::Instant;

use crate::{
    metrics::Direction,
    telemetry::{self, Origin, TraceId},
    transport::{SnapshotError, peer::Peer},
    wire::raftpb::Message,
};

/// A snapshot that arrives. Counts as failed when it is dropped before its end: the connection broke.
pub(crate) struct Receiving {
    peer: Option<Arc<Peer>>,
    index: u64,
    bytes: u64,
    since: Instant,
    span: telemetry::EventSpan,
    ended: bool,
}

impl Receiving {
    pub(crate) fn begin(peer: Option<Arc<Peer>>, message: &Message, trace: TraceId, origin: &Origin) -> Self {
        let metadata = message.snapshot.as_ref().and_then(|snapshot| snapshot.metadata.as_ref());
        let (term, index) = metadata.map_or((0, 0), |metadata| (metadata.term, metadata.index));
        let from = peer.as_ref().map(|peer| peer.id).unwrap_or_default();
        if let Some(peer) = &peer {
            peer.link(|link| link.snapshots[Direction::In as usize].in_flight += 1);
        }
        tracing::info!(peer = %from, index, term, "receiving snapshot");
        let span = telemetry::snapshot_span(from, Direction::In, (term, index), trace, origin);
        Self { peer, index, bytes: 0, since: Instant::now(), span, ended: false }
    }

    /// The index that it stands for.
    pub(crate) fn index(&self) -> u64 {
        self.index
    }

    /// More of its body has arrived.
    pub(crate) fn progressed(&mut self, bytes: u64) {
        self.bytes += bytes;
        if let Some(peer) = &self.peer {
            peer.link(|link| link.snapshots[Direction::In as usize].bytes += bytes);
        }
    }

    /// It was taken, or not.
    pub(crate) fn end(&mut self, outcome: &Result<(), SnapshotError>) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let took = self.since.elapsed();
        if let Some(peer) = &self.peer {
            peer.link(|link| {
                let snapshots = &mut link.snapshots[Direction::In as usize];
                snapshots.in_flight -= 1;
                match outcome {
                    Ok(()) => {
                        snapshots.ok += 1;
                        snapshots.seconds.observe(took);
                    }
                    Err(_) => {
                        snapshots.failed += 1;
                        link.received_failures += 1;
                    }
                }
            });
        }
        match outcome {
            Ok(()) => tracing::info!(index = self.index, bytes = self.bytes, ?took, "snapshot received"),
            Err(error) => {
                tracing::warn!(index = self.index, bytes = self.bytes, %error, "snapshot not taken");
                self.span.failed("failed", error);
            }
        }
    }
}

impl Drop for Receiving {
    fn drop(&mut self) {
        self.end(&Err(SnapshotError::Save("the connection broke".to_owned())));
    }
}
