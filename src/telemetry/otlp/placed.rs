//! Builds spans at the place that their fields name: trace, ID, parent, link and start.

use std::{
    cell::Cell,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use opentelemetry::{
    Context, KeyValue, Value,
    trace::{Link, SpanBuilder, SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState, Tracer},
};
use opentelemetry_sdk::trace::{IdGenerator, SdkTracer, Span};

use crate::world::World;

/// A tracer that builds spans at the place that their fields name.
#[derive(Clone, Debug)]
pub(super) struct PlacedTracer(pub(super) SdkTracer);

impl Tracer for PlacedTracer {
    type Span = Span;

    fn build_with_context(&self, mut builder: SpanBuilder, context: &Context) -> Span {
        let place = SpanFields::take(&mut builder);
        if place.start.is_some() {
            builder.start_time = place.start;
        }
        builder.links = place.link.map(|link| vec![Link::with_context(link)]);
        let (Some(trace), Some(span)) = (place.trace, place.span) else {
            return self.0.build_with_context(builder, context);
        };
        let context = place
            .parent
            .map_or_else(Context::new, |parent| Context::new().with_remote_span_context(elsewhere(trace, parent)));
        NEXT_IDS.set(Some((trace, span)));
        let span = self.0.build_with_context(builder, &context);
        NEXT_IDS.set(None);
        span
    }
}

/// The place of a span.
#[derive(Default)]
struct SpanFields {
    trace: Option<TraceId>,
    span: Option<SpanId>,
    parent: Option<SpanId>,
    link: Option<SpanContext>,
    start: Option<SystemTime>,
}

/// The context of a span of another process, or of one that is not built here.
pub(super) fn elsewhere(trace: TraceId, span: SpanId) -> SpanContext {
    SpanContext::new(trace, span, TraceFlags::SAMPLED, true, TraceState::default())
}

impl SpanFields {
    /// Removes the fields that name the place from the span's attributes, and returns the place.
    fn take(builder: &mut SpanBuilder) -> Self {
        let mut place = Self::default();
        if let Some(attributes) = &mut builder.attributes {
            attributes.retain(|attribute| !place.set(attribute));
        }
        place
    }

    /// Sets the part of the place that the attribute names. Returns whether it names one.
    fn set(&mut self, KeyValue { key, value, .. }: &KeyValue) -> bool {
        match (key.as_str(), value) {
            ("trace_id", Value::String(text)) => self.trace = TraceId::from_hex(text.as_str()).ok(),
            ("span_id", Value::String(text)) => self.span = SpanId::from_hex(text.as_str()).ok(),
            ("parent_id", Value::String(text)) => self.parent = SpanId::from_hex(text.as_str()).ok(),
            ("link", Value::String(text)) => self.link = linked(text.as_str()),
            ("start_unix_nano", Value::I64(nanos)) => {
                let since = u64::try_from(*nanos).map(Duration::from_nanos);
                self.start = since.ok().map(|since| UNIX_EPOCH + since);
            }
            _ => return false,
        }
        true
    }
}

/// Parses a place in the form that `TraceContext` prints.
fn linked(text: &str) -> Option<SpanContext> {
    let (trace, span) = text.split_once('-')?;
    Some(elsewhere(TraceId::from_hex(trace).ok()?, SpanId::from_hex(span).ok()?))
}

thread_local! {
    /// The IDs of the span that this thread is building. The SDK takes IDs only from its generator.
    static NEXT_IDS: Cell<Option<(TraceId, SpanId)>> = const { Cell::new(None) };
}

/// Gives a span the IDs that its fields name, or random ones.
#[derive(Debug)]
pub(super) struct PlacedIds(pub(super) World);

impl IdGenerator for PlacedIds {
    fn new_trace_id(&self) -> TraceId {
        NEXT_IDS.get().map_or_else(|| crate::telemetry::TraceId::random(&self.0).0.into(), |(trace, _)| trace)
    }

    fn new_span_id(&self) -> SpanId {
        NEXT_IDS.get().map_or_else(|| self.0.number().into(), |(_, span)| span)
    }
}
