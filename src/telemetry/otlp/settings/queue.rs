//! The queue of spans before their export.

use std::time::Duration;

/// The most spans that wait for their export: enough for two members with ten thousand traced messages. A busy raft
/// uses up the specification's 2048 in a few milliseconds.
pub(super) const QUEUE_SPANS: usize = 32 << 10;
/// The largest `OTEL_BSP_MAX_QUEUE_SIZE`. A span takes about a kilobyte.
pub(super) const MOST_QUEUE_SPANS: usize = 128 << 10;
/// The most spans in one request. A collector takes four megabytes by default.
pub(super) const BATCH_SPANS: usize = 512;
/// How long a batch waits for more spans.
pub(super) const SCHEDULE_DELAY: Duration = Duration::from_secs(5);
/// How long the export of a batch may take, including retries.
pub(super) const EXPORT_TIMEOUT: Duration = Duration::from_secs(30);

/// The size of the queue and of its batches, and their times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::telemetry::otlp) struct SpanQueue {
    pub(in crate::telemetry::otlp) spans: usize,
    pub(in crate::telemetry::otlp) batch: usize,
    pub(in crate::telemetry::otlp) delay: Duration,
    pub(in crate::telemetry::otlp) timeout: Duration,
}

impl Default for SpanQueue {
    fn default() -> Self {
        Self { spans: QUEUE_SPANS, batch: BATCH_SPANS, delay: SCHEDULE_DELAY, timeout: EXPORT_TIMEOUT }
    }
}
