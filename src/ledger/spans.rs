//! What became of the spans that were to be exported.

/// What became of the spans that were to be exported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TraceExportStatus {
    /// Spans that the collector took.
    pub exported: u64,
    /// Spans given up: the queue was full, their batch could not be exported, or the end came before.
    pub dropped: u64,
    /// Spans that have not ended in either way yet, those on their way to the collector included.
    pub waiting: u64,
    /// Batches that could not be exported.
    pub failures: u64,
}
