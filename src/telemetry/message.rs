//! The spans of traced messages.

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

/// The span of a traced message, from its creation to its drop. It is one pointer wide, because it is kept in the
/// queues.
#[derive(Debug)]
pub struct MessageSpan(Box<Inner>);

#[derive(Debug)]
struct Inner {
    span: Span,
    context: TraceContext,
}

/// The span of sending a message (`raft.send`). It is made at `send`, and dropped when the message is written or given
/// up. `size` is the message's encoded length in bytes.
pub fn send_span(trace: TraceId, message: &Message, size: usize) -> MessageSpan {
    let context = TraceContext { trace, span: trace.send_span_id() };
    open("raft.send", "producer", "send", SpanPosition { context, parent: None, link: None }, message, size)
}

/// The span of receiving a message (`raft.receive`). It is made when the message is decoded, and dropped when the
/// application has taken or rejected the message. Its parent is the sender's span. `origin` is where the message came
/// from. If its request names another span than the derived one of the sender, that span becomes a link, because both
/// ends agree on the derived one only.
pub fn receive_span(world: &World, trace: TraceId, message: &Message, size: usize, origin: &Origin) -> MessageSpan {
    let sender = TraceContext { trace, span: trace.send_span_id() };
    let place = SpanPosition {
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
    /// Records the channel of the message. Call it once.
    pub fn channel(&self, channel: Channel) {
        self.0.span.record("messaging.destination.name", channel.label());
    }

    /// Records the address of the other end of the connection. Call it once.
    pub fn address(&self, address: SocketAddr) {
        record_address(&self.0.span, address);
    }

    /// Records that the message was not delivered, and why: the label of a [`crate::ledger::DropReason`] or
    /// [`crate::ledger::RejectReason`]. Call it once. The span still ends when it is dropped.
    pub fn failed(&self, reason: &'static str) {
        self.0.span.record("otel.status_code", "ERROR");
        self.0.span.record("error.type", reason);
    }

    /// The trace and ID of the span. `None` if no subscriber takes spans, because then there is no such trace to be
    /// found.
    pub(crate) fn context(&self) -> Option<TraceContext> {
        (!self.0.span.is_disabled()).then_some(self.0.context)
    }

    /// The header `traceparent` for a request that carries the message. `None` if no subscriber takes spans.
    pub fn traceparent(&self) -> Option<HeaderValue> {
        self.context().map(|context| context.traceparent(true))
    }
}

/// The place of a message's span.
struct SpanPosition {
    context: TraceContext,
    parent: Option<SpanId>,
    link: Option<TraceContext>,
}

fn open(
    name: &'static str,
    kind: &'static str,
    operation: &'static str,
    SpanPosition { context, parent, link }: SpanPosition,
    message: &Message,
    size: usize,
) -> MessageSpan {
    // Integers are i64 because OpenTelemetry has only those. tracing would turn a u64 into text.
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
