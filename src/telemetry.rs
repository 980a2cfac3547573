//! Traces and logs, and how both ends of a message meet in one trace without an added byte on the wire.
//!
//! The library makes `tracing` spans and nothing else. The feature `otlp` exports them (`telemetry/otlp` is the only
//! module that names OpenTelemetry). The message's own fields decide whether it is traced ([`Sampler`]), before a span
//! is made, and with the same result on both ends. Spans carry the IDs that they must have as fields, from which the
//! exporter takes them.

use std::net::SocketAddr;

use http::HeaderValue;

use crate::world::World;

mod damper;
mod event;
mod events;
#[cfg(feature = "otlp")]
mod logging;
pub(crate) mod message;
#[cfg(feature = "otlp")]
pub mod otlp;
mod repeats;
mod sampler;
mod traceparent;
mod transitions;

pub(crate) use event::{
    EventSpan, ProbeTrace, SnapshotPoint, dial_span, probed, snapshot_span, stream_attached, stream_lost, tls_reloaded,
};
pub(crate) use events::WeakEvents;
pub use events::{Event, EventKind, Events};
#[cfg(feature = "otlp")]
pub use logging::{InitError, LogFormat, Telemetry, init};
pub(crate) use message::{MessageSpan, receive_span, send_span};
pub(crate) use repeats::{RepeatPace, Repeats, SOONEST};
pub use sampler::Sampler;

pub use crate::id::trace::{SpanId, TraceContext, TraceId};

/// The target of the spans of single messages: `raft.send` and `raft.receive`.
pub const MESSAGE_TARGET: &str = "rafthttp::message";

/// The target of the spans of rare events: dials, streams that open and end, snapshots, failed probes, TLS reloads.
pub const EVENT_TARGET: &str = "rafthttp::event";

impl TraceId {
    fn random(world: &World) -> Self {
        Self(u128::from(world.number()) << 64 | u128::from(world.number()))
    }
}

impl SpanId {
    fn random(world: &World) -> Self {
        Self(world.number())
    }
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

/// Written without `fmt`, because a thousand probes a second carry one each.
fn hex(mut value: u128, digits: &mut [u8]) {
    for digit in digits.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(value & 0xf) as usize];
        value >>= 4;
    }
}

/// Where a request came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Origin {
    /// The address of the other end of the connection, if known.
    pub(crate) address: Option<SocketAddr>,
    /// The span that the request was made in, if the request names a span that is sampled.
    pub(crate) span: Option<TraceContext>,
}
