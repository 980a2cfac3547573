//! The queue of spans before their export.

use std::time::Duration;

/// Spans that wait for their export, at most: two members' worth of ten thousand traced messages. The specification's
/// 2048 are gone in a few milliseconds of a busy raft.
pub(super) const QUEUE_SPANS: usize = 32 << 10;
/// What `OTEL_BSP_MAX_QUEUE_SIZE` may be at most; a span takes about a kilobyte.
pub(super) const MOST_QUEUE_SPANS: usize = 128 << 10;
/// Spans in one request, at most; a collector takes four megabytes by default.
pub(super) const BATCH_SPANS: usize = 512;
/// How long a batch waits to be filled.
pub(super) const SCHEDULE_DELAY: Duration = Duration::from_secs(5);
/// How long the export of a batch may take, retries included.
pub(super) const EXPORT_TIMEOUT: Duration = Duration::from_secs(30);

/// What waits, and how it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::telemetry::otlp) struct Queue {
    pub(in crate::telemetry::otlp) spans: usize,
    pub(in crate::telemetry::otlp) batch: usize,
    pub(in crate::telemetry::otlp) delay: Duration,
    pub(in crate::telemetry::otlp) timeout: Duration,
}

impl Default for Queue {
    fn default() -> Self {
        Self { spans: QUEUE_SPANS, batch: BATCH_SPANS, delay: SCHEDULE_DELAY, timeout: EXPORT_TIMEOUT }
    }
}
