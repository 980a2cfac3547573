//! Passes the messages in a peer's receive queues to the application.

use std::sync::Arc;

use tokio::time::Instant;

use crate::{
    ledger::{Channel, MessageKind, RejectReason},
    telemetry::{MessageSpan, Origin},
    transport::{
        inbox::{InboxBatch, QueueKind},
        peer::Peer,
        raft::{Rejected, Source},
    },
    wire::message::Decoded,
};

/// Puts messages of a stream into the peer's receive queues, and starts a task for each queue that has none.
pub(super) fn received(peer: &Arc<Peer>, channel: Channel, source: Source, decoded: &mut Decoded, origin: Origin) {
    for queue in peer.received(channel, source, decoded, origin) {
        peer.spawn(process(peer.clone(), queue));
    }
}

/// Passes the batches of a queue to the application until the queue is empty, and then ends, so that a silent peer
/// costs no task.
async fn process(peer: Arc<Peer>, queue: QueueKind) {
    while let Some(batch) = peer.inbox.next(queue) {
        let source = batch.source();
        let InboxBatch { messages, kinds, spans, .. } = batch;
        let mut abandoned = Abandoned { peer: &peer, queue, kinds: &kinds, spans: &spans, armed: true };
        let since = Instant::now();
        let outcome = tokio::select! {
            biased;
            // Once the peer has ended, nothing more of it is passed on.
            () = peer.stop.cancelled() => return,
            outcome = peer.shared.raft.process(peer.id, source, messages) => outcome,
        };
        abandoned.armed = false;
        if let Err(Rejected(rejections)) = &outcome {
            for rejection in rejections {
                tracing::trace!(peer = %peer.id, why = rejection.why, "message refused");
                if let Some((_, span)) = spans.iter().find(|(position, _)| *position == rejection.position) {
                    span.failed(RejectReason::from(rejection.kind).label());
                }
            }
        }
        peer.inbox.processed(queue, &kinds, &spans, since.elapsed(), outcome);
    }
}

/// Counts a batch as rejected if the task that holds it is dropped before the application took the batch.
struct Abandoned<'a> {
    peer: &'a Peer,
    queue: QueueKind,
    kinds: &'a [MessageKind],
    spans: &'a [(usize, MessageSpan)],
    armed: bool,
}

impl Drop for Abandoned<'_> {
    fn drop(&mut self) {
        if self.armed {
            self.peer.inbox.abandoned(self.queue, self.kinds);
            for (_, span) in self.spans {
                span.failed(RejectReason::Stopped.label());
            }
        }
    }
}
