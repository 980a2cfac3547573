//! Counts of the spans that are to be exported.

/// Counts of the spans that are to be exported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TraceExportStatus {
    /// Spans that the collector took.
    pub exported: u64,
    /// Spans given up: the queue was full, their batch could not be exported, or the process ended first.
    pub dropped: u64,
    /// Spans that are neither exported nor dropped yet, including those on their way to the collector.
    pub waiting: u64,
    /// Batches that could not be exported.
    pub failures: u64,
}
