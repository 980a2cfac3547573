//! The writer of a stream: the endless body of the answer to `GET /raft/stream/…`.
//!
//! There is no task and no channel in between. The HTTP connection polls the body when it can take more bytes, and the
//! body takes the queued bytes from the peer's [`Outbox`](super::outbox::Outbox) (etcd's `streamWriter`).

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame};
use tokio::time::{Instant, Sleep, sleep};

use crate::{
    dial::io::{ConnectionEnd, IoStatus},
    ledger::LossReason,
    telemetry::Origin,
    transport::{outbox::Turn, peer::Peer},
    wire::stream::{StreamId, StreamKind},
};

/// How often a link heartbeat goes out on each stream: a third of the reader's deadline (etcd's `ConnReadTimeout / 3`).
pub(crate) const HEARTBEAT_INTERVAL: Duration = Duration::from_nanos(5_000_000_000 / 3);

/// The body of one answered stream. The connection drops it when the stream is over.
pub(crate) struct StreamBody {
    peer: Arc<Peer>,
    kind: StreamKind,
    attachment: u64,
    heartbeat: Pin<Box<Sleep>>,
    connection: Option<Arc<IoStatus>>,
}

impl StreamBody {
    /// Makes a new stream the peer's outgoing one for this kind. `name` is the stream ID that its reader sent. `None`
    /// if the peer is closed.
    pub(crate) fn attach(
        peer: Arc<Peer>,
        kind: StreamKind,
        id: Option<StreamId>,
        connection: Option<Arc<IoStatus>>,
        origin: &Origin,
    ) -> Option<Self> {
        let attachment = peer.attach(kind, id, origin)?;
        Some(Self { peer, kind, attachment, heartbeat: Box::pin(sleep(HEARTBEAT_INTERVAL)), connection })
    }
}

impl Body for StreamBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let this = &mut *self;
        let heartbeat_due = this.heartbeat.as_mut().poll(context).is_ready();
        if heartbeat_due {
            this.heartbeat.as_mut().reset(Instant::now() + HEARTBEAT_INTERVAL);
            // This registers the next heartbeat with this task, because a reset alone wakes nobody.
            let _ = this.heartbeat.as_mut().poll(context);
        }
        this.peer.outbox.poll(this.kind, this.attachment, heartbeat_due, context).map(|turn| match turn {
            Turn::Write(bytes) => Some(Ok(Frame::data(bytes))),
            Turn::End => None,
        })
    }
}

impl Drop for StreamBody {
    fn drop(&mut self) {
        let reason = match self.connection.as_ref().and_then(|status| status.end()) {
            Some(ConnectionEnd::Stalled) => LossReason::Stalled,
            Some(ConnectionEnd::Eof) => LossReason::Eof,
            Some(ConnectionEnd::Unverified) => LossReason::Certificate,
            Some(ConnectionEnd::Broken) | None => LossReason::Error,
        };
        self.peer.detach(self.kind, self.attachment, reason);
    }
}
