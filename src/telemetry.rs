//! What is traced, and how both ends of a message meet in one trace with no byte added to the wire.
//!
//! The library makes `tracing` spans and nothing else; the feature `otlp` exports them (`telemetry/otlp`, the one
//! module that names OpenTelemetry). Whether a message is traced is decided from its own fields ([`Sampler`]) before a
//! span is made, alike on both ends. Spans carry the IDs that they must have as fields; the exporter takes them from
//! there.

use std::{fmt, net::SocketAddr};

use http::HeaderValue;

use crate::world::World;

mod damper;
mod event;
mod events;
#[cfg(feature = "otlp")]
mod logging;
mod message;
#[cfg(feature = "otlp")]
pub mod otlp;
mod repeats;
mod sampler;
mod traceparent;
mod transitions;

pub use event::{
    EventSpan, ProbeTrace, SnapshotPoint, dial_span, probed, snapshot_span, stream_attached, stream_lost, tls_reloaded,
};
pub(crate) use events::WeakEvents;
pub use events::{Event, EventKind, Events};
#[cfg(feature = "otlp")]
pub use logging::{InitError, LogFormat, Telemetry, init};
pub use message::{MessageSpan, receive_span, send_span};
pub(crate) use repeats::{Pace, Repeats, SOONEST};
pub use sampler::Sampler;

/// Target of the spans around single messages: `raft.send` and `raft.receive`.
pub const MESSAGE_TARGET: &str = "rafthttp::message";

/// Target of the spans around rare events: dials, streams that come and go, snapshots, failed probes, TLS reloads.
pub const EVENT_TARGET: &str = "rafthttp::event";

/// A W3C trace ID.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceId(pub u128);

impl TraceId {
    /// The ID that the sending span of this trace has: the xxh3-64 of the trace ID's 16 bytes, big-endian. So the
    /// receiver can name its parent without being told.
    pub fn send_span_id(self) -> SpanId {
        SpanId(xxhash_rust::xxh3::xxh3_64(&self.0.to_be_bytes()))
    }

    fn random(world: &World) -> Self {
        Self(u128::from(world.number()) << 64 | u128::from(world.number()))
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A W3C span ID.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpanId(pub u64);

impl SpanId {
    fn random(world: &World) -> Self {
        Self(world.number())
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A span's place: its trace and its own ID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace.
    pub trace: TraceId,
    /// The span.
    pub span: SpanId,
}

impl TraceContext {
    fn random(world: &World) -> Self {
        Self { trace: TraceId::random(world), span: SpanId::random(world) }
    }

    /// The value of the header `traceparent` (W3C Trace Context, version 00).
    fn traceparent(self, sampled: bool) -> HeaderValue {
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        hex(self.trace.0, &mut text[3..35]);
        hex(self.span.0.into(), &mut text[36..52]);
        text[54] += u8::from(sampled);
        HeaderValue::from_bytes(&text).expect("hexadecimal digits and hyphens are a header value")
    }
}

/// Without `fmt`: a thousand probes a second carry one each.
fn hex(mut value: u128, digits: &mut [u8]) {
    for digit in digits.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(value & 0xf) as usize];
        value >>= 4;
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.trace, self.span)
    }
}

/// Where a request came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// The other end of its connection, where that is known.
    pub address: Option<SocketAddr>,
    /// The span that it was made in, where it names one that is kept.
    pub span: Option<TraceContext>,
}
