//! The spans of rare events: always made, whatever the ratio of traced messages.

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

/// The span of something rare that takes time, from its creation to its drop.
#[derive(Debug)]
pub struct EventSpan {
    span: Span,
    context: TraceContext,
}

impl EventSpan {
    /// Says that it failed: `reason` from a closed set (the label of an [`crate::ledger::AttemptResult`], …),
    /// `detail` in words. Call it once.
    pub fn failed(&self, reason: &'static str, detail: impl fmt::Display) {
        self.span.record("otel.status_code", "ERROR");
        self.span.record("error.type", reason);
        self.span.record("error.message", field::display(detail));
    }

    /// Says where the other end of its connection is. Call it once.
    pub fn address(&self, address: SocketAddr) {
        record_address(&self.span, address);
    }

    /// Where it is among the others.
    pub fn context(&self) -> TraceContext {
        self.context
    }

    /// The header `traceparent` for the request that it is about. None when nobody looks at spans.
    pub fn traceparent(&self) -> Option<HeaderValue> {
        (!self.span.is_disabled()).then(|| self.context.traceparent(true))
    }
}

/// The two attributes by which OpenTelemetry's conventions name the other end of a connection.
pub(super) fn record_address(span: &Span, address: SocketAddr) {
    span.record("network.peer.address", field::display(address.ip().to_canonical()));
    span.record("network.peer.port", i64::from(address.port()));
}

/// The dial of a stream: made before it, dropped when it is answered or has failed.
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

/// The last entry of which a snapshot holds the effect: what a snapshot is known by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SnapshotPoint {
    /// The entry's index.
    pub index: u64,
    /// The entry's term.
    pub term: u64,
}

impl SnapshotPoint {
    /// Of the snapshot that a message carries; zeros where it carries none, or does not say.
    pub fn of(message: &Message) -> Self {
        let metadata = message.snapshot.as_ref().and_then(|snapshot| snapshot.metadata.as_ref());
        metadata.map_or_else(Self::default, |metadata| Self { index: metadata.index, term: metadata.term })
    }
}

/// A snapshot on its way to or from a peer: made when it begins, dropped when it has ended. It is in `trace`, that of
/// its message, so that both ends meet there; on the receiving side the span that the request names is its parent, or,
/// of another trace, a link.
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

/// Notes that a stream is open: `Out` for one that a peer asked for, `In` for one that we dialled. It belongs to the
/// dial: the span that the request named, or our own. Says where it is, for [`stream_lost`].
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

/// Notes that an open stream ended. It may have been open for days: a trace of its own, linked to where it was
/// `attached`.
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

/// Notes that the certificate files were read again: what was wrong with them, or nothing.
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

/// Notes that a peer probed us, where its request names a span that it keeps: probes are many.
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

/// The trace of a probe. Probes are many, failed ones are rare: the span is made only when one has failed, as if it had
/// been there from the start.
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

    /// The header `traceparent` for the probe. Not marked as sampled, since that is not known yet.
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
