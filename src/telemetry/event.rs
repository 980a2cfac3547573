//! The spans of rare events: always made, whatever the ratio of traced messages.

use std::{
    fmt,
    time::{SystemTime, UNIX_EPOCH},
};

use http::HeaderValue;
use tracing::{Level, Span, field};

use super::{EVENT_TARGET, TraceContext};
use crate::{
    id::MemberId,
    metrics::{Channel, Direction, LossReason, ProbeResult},
};

/// The span of something rare that takes time, from its creation to its drop.
#[derive(Debug)]
pub struct EventSpan {
    span: Span,
    context: TraceContext,
}

impl EventSpan {
    /// Says that it failed: `reason` from a closed set (the label of an [`crate::metrics::AttemptResult`], …),
    /// `detail` in words. Call it once.
    pub fn failed(&self, reason: &'static str, detail: impl fmt::Display) {
        self.span.record("otel.status_code", "ERROR");
        self.span.record("error.type", reason);
        self.span.record("error.message", field::display(detail));
    }

    /// The header `traceparent` for the request that it is about. None when nobody looks at spans.
    pub fn traceparent(&self) -> Option<HeaderValue> {
        (!self.span.is_disabled()).then(|| self.context.traceparent(true))
    }
}

/// The dial of a stream: made before it, dropped when it is answered or has failed.
pub fn dial_span(peer: MemberId, channel: Channel, url: &str) -> EventSpan {
    let context = TraceContext::random();
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
        error.type = field::Empty,
        error.message = field::Empty,
    );
    EventSpan { span, context }
}

/// A snapshot on its way to or from a peer: made when it begins, dropped when it has ended.
pub fn snapshot_span(peer: MemberId, direction: Direction, term: u64, index: u64) -> EventSpan {
    let context = TraceContext::random();
    let span = tracing::span!(
        target: EVENT_TARGET,
        parent: None,
        Level::DEBUG,
        "raft.snapshot",
        otel.kind = if direction == Direction::Out { "client" } else { "server" },
        otel.status_code = field::Empty,
        trace_id = %context.trace,
        span_id = %context.span,
        raft.peer = %peer,
        raft.direction = direction.label(),
        raft.term = term as i64,
        raft.index = index as i64,
        error.type = field::Empty,
        error.message = field::Empty,
    );
    EventSpan { span, context }
}

/// Notes that a stream is open: `Out` for one that a peer asked for, `In` for one that we dialled.
pub fn stream_attached(peer: MemberId, channel: Channel, direction: Direction) {
    tracing::span!(
        target: EVENT_TARGET,
        parent: None,
        Level::DEBUG,
        "raft.stream.attached",
        raft.peer = %peer,
        raft.channel = channel.label(),
        raft.direction = direction.label(),
    );
}

/// Notes that an open stream ended.
pub fn stream_lost(peer: MemberId, channel: Channel, direction: Direction, reason: LossReason) {
    tracing::span!(
        target: EVENT_TARGET,
        parent: None,
        Level::DEBUG,
        "raft.stream.lost",
        otel.status_code = if reason == LossReason::Stopped { "OK" } else { "ERROR" },
        raft.peer = %peer,
        raft.channel = channel.label(),
        raft.direction = direction.label(),
        error.type = reason.label(),
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

/// The trace of a probe. Probes are many, failed ones are rare: the span is made only when one has failed, as if it had
/// been there from the start.
#[derive(Clone, Copy, Debug)]
pub struct ProbeTrace {
    context: TraceContext,
    started: SystemTime,
}

impl ProbeTrace {
    /// Call it when the probe starts.
    pub fn start() -> Self {
        Self { context: TraceContext::random(), started: SystemTime::now() }
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
