//! Which trace shows what an observation was made of.

use std::time::{Duration, SystemTime};

use crate::id::trace::TraceContext;

/// An observation of a [`Histogram`](super::Histogram), and the span of the message for which it was made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Exemplar {
    /// The message's place in its trace.
    pub context: TraceContext,
    /// What was observed, in seconds.
    pub seconds: f64,
    /// When.
    pub time: SystemTime,
}

impl Exemplar {
    /// A message at this place was observed to take this long, at `time`.
    pub fn new(context: TraceContext, took: Duration, time: SystemTime) -> Self {
        Self { context, seconds: took.as_secs_f64(), time }
    }
}
