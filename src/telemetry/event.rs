//! The spans of rare events. They are always made, whatever the ratio of traced messages.

use std::{
    fmt,
    net::SocketAddr,
    time::{SystemTime, UNIX_EPOCH},
};

use http::HeaderValue;
use tracing::{Level, Span, field};

use super::{EVENT_TARGET, Origin, TraceContext, TraceId};
use crate::{
    id::MemberId,
    ledger::{Channel, Direction, LossReason, ProbeResult},
    wire::raftpb::Message,
    world::World,
};

/// The span of a rare event that takes time, from its creation to its drop.
#[derive(Debug)]
pub struct EventSpan {
    span: Span,
    context: TraceContext,
}

impl EventSpan {
    /// Records that the event failed. `reason` is from a closed set (such as the label of an
    /// [`crate::ledger::AttemptResult`]), `detail` is free text. Call it once.
    pub fn failed(&self, reason: &'static str, detail: impl fmt::Display) {
        self.span.record("otel.status_code", "ERROR");
        self.span.record("error.type", reason);
        self.span.record("error.message", field::display(detail));
    }

    /// Records the address of the other end of the connection. Call it once.
    pub fn address(&self, address: SocketAddr) {
        record_address(&self.span, address);
    }

    /// The trace and ID of the span.
    pub fn context(&self) -> TraceContext {
        self.context
    }

    /// The header `traceparent` for the request that the span is about. `None` if no subscriber takes spans.
    pub fn traceparent(&self) -> Option<HeaderValue> {
        (!self.span.is_disabled()).then(|| self.context.traceparent(true))
    }
}

/// Records the two attributes by which OpenTelemetry's conventions name the other end of a connection.
pub(super) fn record_address(span: &Span, address: SocketAddr) {
    span.record("network.peer.address", field::display(address.ip().to_canonical()));
    span.record("network.peer.port", i64::from(address.port()));
}

/// The span of dialling a stream. Make it before the dial, and drop it when the dial is answered or has failed.
pub fn dial_span(world: &World, peer: MemberId, channel: Channel, url: &str) -> EventSpan {
    let context = TraceContext::random(world);
    let span = tracing::span!(
        target: EVENT_TARGET,
        parent: None,
        Level::DEBUG,
        "raft.dial",
        otel.kind = "client",
        otel.status_code = field::Empty,
        trace_id = %context.trace,
        span_id = %context.span,
        raft.peer = %peer,
        raft.channel = channel.label(),
        url.full = url,
        network.peer.address = field::Empty,
        network.peer.port = field::Empty,
        error.type = field::Empty,
        error.message = field::Empty,
    );
    EventSpan { span, context }
}

/// The last entry whose effect a snapshot contains. It identifies the snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SnapshotPoint {
    /// The entry's index.
    pub index: u64,
    /// The entry's term.
    pub term: u64,
}

impl SnapshotPoint {
    /// The point of the snapshot that a message carries. Zeros if the message carries none, or does not say.
    pub fn of(message: &Message) -> Self {
        let metadata = message.snapshot.as_ref().and_then(|snapshot| snapshot.metadata.as_ref());
        metadata.map_or_else(Self::default, |metadata| Self { index: metadata.index, term: metadata.term })
    }
}

/// The span of a snapshot on its way to or from a peer. Make it when the transfer begins, and drop it when the transfer
/// has ended. The span is in `trace`, the trace of the snapshot's message, so that both ends meet there. On the
/// receiving side, the span that the request names becomes the parent, or, if it is in another trace, a link.
pub fn snapshot_span(
    world: &World,
    peer: MemberId,
    direction: Direction,
    point: SnapshotPoint,
    trace: TraceId,
    origin: &Origin,
) -> EventSpan {
    let context = TraceContext { trace, ..TraceContext::random(world) };
    let (parent, link) = match origin.span {
        Some(sender) if sender.trace == trace => (Some(sender.span), None),
        other => (None, other),
    };
    let span = tracing::span!(
        target: EVENT_TARGET,
        parent: None,
        Level::DEBUG,
        "raft.snapshot",
        otel.kind = if direction == Direction::Out { "client" } else { "server" },
        otel.status_code = field::Empty,
        trace_id = %context.trace,
        span_id = %context.span,
        parent_id = parent.map(field::display),
        link = link.map(field::display),
        raft.peer = %peer,
        raft.direction = direction.label(),
        raft.term = point.term as i64,
        raft.index = point.index as i64,
        network.peer.address = field::Empty,
        network.peer.port = field::Empty,
        error.type = field::Empty,
        error.message = field::Empty,
    );
    let span = EventSpan { span, context };
    if let Some(address) = origin.address {
        span.address(address);
    }
    span
}

/// Records that a stream is open: `Out` for one that a peer asked for, `In` for one that this member dialled. The span
/// belongs to the dial: its parent is the span that the request named, or the one of this member's dial. Returns its
/// place, for [`stream_lost`].
pub fn stream_attached(
    world: &World,
    peer: MemberId,
    channel: Channel,
    direction: Direction,
    origin: &Origin,
) -> TraceContext {
    let mut context = TraceContext::random(world);
    if let Some(dial) = origin.span {
        context.trace = dial.trace;
    }
    let span = tracing::span!(
        target: EVENT_TARGET,
        parent: None,
        Level::DEBUG,
        "raft.stream.attached",
        otel.kind = if direction == Direction::Out { "server" } else { "internal" },
        trace_id = %context.trace,
        span_id = %context.span,
        parent_id = origin.span.map(|dial| field::display(dial.span)),
        raft.peer = %peer,
        raft.channel = channel.label(),
        raft.direction = direction.label(),
        network.peer.address = field::Empty,
        network.peer.port = field::Empty,
    );
    if let Some(address) = origin.address {
        record_address(&span, address);
    }
    context
}

/// Records that an open stream ended. The stream may have been open for days, so the span is in a trace of its own,
/// linked to the place where the stream was `attached`.
pub fn stream_lost(
    peer: MemberId,
    channel: Channel,
    direction: Direction,
    reason: LossReason,
    attached: Option<TraceContext>,
) {
    let clean = matches!(reason, LossReason::Stopped | LossReason::Eof | LossReason::Replaced);
    tracing::span!(
        target: EVENT_TARGET,
        parent: None,
        Level::DEBUG,
        "raft.stream.lost",
        otel.status_code = if clean { "OK" } else { "ERROR" },
        link = attached.map(field::display),
        raft.peer = %peer,
        raft.channel = channel.label(),
        raft.direction = direction.label(),
        raft.reason = reason.label(),
        error.type = (!clean).then_some(reason.label()),
    );
}

/// Records that the certificate files were read again. `error` says what was wrong with them, if anything.
pub fn tls_reloaded(error: Option<&dyn fmt::Display>) {
    tracing::span!(
        target: EVENT_TARGET,
        parent: None,
        Level::DEBUG,
        "raft.tls.reload",
        otel.status_code = if error.is_some() { "ERROR" } else { "OK" },
        error.type = error.map(|_| "failed"),
        error.message = error.map(field::display),
    );
}

/// Records that a peer probed this member, if its request names a span that is sampled. Not all probes are recorded,
/// because they are many.
pub fn probed(world: &World, peer: MemberId, origin: &Origin) {
    let Some(asker) = origin.span else { return };
    let span = tracing::span!(
        target: EVENT_TARGET,
        parent: None,
        Level::DEBUG,
        "raft.probed",
        otel.kind = "server",
        trace_id = %asker.trace,
        span_id = %TraceContext::random(world).span,
        parent_id = %asker.span,
        raft.peer = %peer,
        network.peer.address = field::Empty,
        network.peer.port = field::Empty,
    );
    if let Some(address) = origin.address {
        record_address(&span, address);
    }
}

/// The trace of a probe. Probes are many and failed ones are rare, so the span is made only when a probe has failed,
/// with the start that it would have had.
#[derive(Clone, Copy, Debug)]
pub struct ProbeTrace {
    context: TraceContext,
    started: SystemTime,
}

impl ProbeTrace {
    /// Call it when the probe starts.
    pub fn start(world: &World) -> Self {
        Self { context: TraceContext::random(world), started: world.now() }
    }

    /// The header `traceparent` for the probe. It is not marked as sampled, because that is not known yet.
    pub fn traceparent(&self) -> HeaderValue {
        self.context.traceparent(false)
    }

    /// Makes the span of a probe that failed, and ends it.
    pub fn failed(self, peer: MemberId, url: &str, result: ProbeResult) {
        let started = self.started.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
        tracing::span!(
            target: EVENT_TARGET,
            parent: None,
            Level::DEBUG,
            "raft.probe",
            otel.kind = "client",
            otel.status_code = "ERROR",
            trace_id = %self.context.trace,
            span_id = %self.context.span,
            start_unix_nano = i64::try_from(started).unwrap_or(0),
            raft.peer = %peer,
            url.full = url,
            error.type = result.label(),
        );
    }
}
