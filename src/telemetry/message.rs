//! The spans around a traced message.

use std::net::SocketAddr;

use http::HeaderValue;
use tracing::{Level, Span, field};

use super::{MESSAGE_TARGET, Origin, SpanId, TraceContext, TraceId, event::record_address};
use crate::{
    id::MemberId,
    ledger::{Channel, MessageKind},
    wire::raftpb::Message,
    world::World,
};

/// A traced message's span, from its creation to its drop. One pointer wide, to be kept beside what is queued.
#[derive(Debug)]
pub struct MessageSpan(Box<Inner>);

#[derive(Debug)]
struct Inner {
    span: Span,
    context: TraceContext,
}

/// The span of a message on its way out (`raft.send`): made at `send`, dropped when the message is written or given
/// up. `size` is the message's encoded length in bytes.
pub fn send_span(trace: TraceId, message: &Message, size: usize) -> MessageSpan {
    let context = TraceContext { trace, span: trace.send_span_id() };
    open("raft.send", "producer", "send", Place { context, parent: None, link: None }, message, size)
}

/// The span of a message on its way in (`raft.receive`): made when the message is decoded, dropped when the
/// application has taken it or it is rejected. Its parent is the sender's span. `origin` is where it came from: a span
/// that its request names and that is not the sender's by the rule becomes a link, since the rule is what both ends agree
/// on.
pub fn receive_span(world: &World, trace: TraceId, message: &Message, size: usize, origin: &Origin) -> MessageSpan {
    let sender = TraceContext { trace, span: trace.send_span_id() };
    let place = Place {
        context: TraceContext { trace, span: SpanId::random(world) },
        parent: Some(sender.span),
        link: origin.span.filter(|span| *span != sender),
    };
    let span = open("raft.receive", "consumer", "process", place, message, size);
    if let Some(address) = origin.address {
        span.address(address);
    }
    span
}

impl MessageSpan {
    /// Says on which channel the message goes. Call it once.
    pub fn channel(&self, channel: Channel) {
        self.0.span.record("messaging.destination.name", channel.label());
    }

    /// Says where the other end of the connection is that carries the message. Call it once.
    pub fn address(&self, address: SocketAddr) {
        record_address(&self.0.span, address);
    }

    /// Says that the message did not get there, and why: the label of a [`crate::ledger::DropReason`] or
    /// [`crate::ledger::RejectReason`]. Call it once; the span still ends when it is dropped.
    pub fn failed(&self, reason: &'static str) {
        self.0.span.record("otel.status_code", "ERROR");
        self.0.span.record("error.type", reason);
    }

    /// The message's place in its trace. None when nobody looks at spans: there is no such trace to be found then.
    pub(crate) fn context(&self) -> Option<TraceContext> {
        (!self.0.span.is_disabled()).then_some(self.0.context)
    }

    /// The header `traceparent` for a request that carries the message. None when nobody looks at spans.
    pub fn traceparent(&self) -> Option<HeaderValue> {
        self.context().map(|context| context.traceparent(true))
    }
}

/// Where a message's span is to be.
struct Place {
    context: TraceContext,
    parent: Option<SpanId>,
    link: Option<TraceContext>,
}

fn open(
    name: &'static str,
    kind: &'static str,
    operation: &'static str,
    Place { context, parent, link }: Place,
    message: &Message,
    size: usize,
) -> MessageSpan {
    // Integers are i64 because that is what OpenTelemetry has; tracing would turn a u64 into text.
    let span = tracing::span!(
        target: MESSAGE_TARGET,
        parent: None,
        Level::TRACE,
        "raft.message",
        otel.name = name,
        otel.kind = kind,
        otel.status_code = field::Empty,
        trace_id = %context.trace,
        span_id = %context.span,
        parent_id = parent.map(field::display),
        link = link.map(field::display),
        messaging.system = "raft",
        messaging.operation.type = operation,
        messaging.destination.name = field::Empty,
        messaging.message.body.size = size as i64,
        network.peer.address = field::Empty,
        network.peer.port = field::Empty,
        raft.message.type = MessageKind::of(message.r#type).label(),
        raft.from = %MemberId(message.from),
        raft.to = %MemberId(message.to),
        raft.term = message.term as i64,
        raft.index = message.index as i64,
        raft.entries = message.entries.len() as i64,
        error.type = field::Empty,
    );
    MessageSpan(Box::new(Inner { span, context }))
}
