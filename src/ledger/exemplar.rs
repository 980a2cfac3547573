//! Exemplars: the trace of one observation.

use std::time::{Duration, SystemTime};

use crate::id::trace::TraceContext;

/// An observation of a [`Histogram`](super::Histogram), and the span of the observed message.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Exemplar {
    /// The message's place in its trace.
    pub context: TraceContext,
    /// The observed time, in seconds.
    pub seconds: f64,
    /// When the observation was made.
    pub time: SystemTime,
}

impl Exemplar {
    /// Makes an exemplar for a message with this trace context, which took `took`, observed at `time`.
    pub fn new(context: TraceContext, took: Duration, time: SystemTime) -> Self {
        Self { context, seconds: took.as_secs_f64(), time }
    }
}
