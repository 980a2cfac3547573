//! Metrics of the spans that are to be exported.

use prometheus::core::Collector;

use super::{
    family::MetricKind,
    singles::{Single, singles_collector},
};
use crate::ledger::TraceExportStatus;

static FAMILIES: &[Single<TraceExportStatus, u64>] = &[
    (
        "rafthttp_trace_spans_exported_total",
        "Spans that the trace collector accepted.",
        MetricKind::Counter,
        |status| status.exported,
    ),
    (
        "rafthttp_trace_spans_dropped_total",
        "Spans dropped because the queue was full or their batch could not be exported.",
        MetricKind::Counter,
        |status| status.dropped,
    ),
    (
        "rafthttp_trace_export_failures_total",
        "Batches of spans that the trace collector did not accept.",
        MetricKind::Counter,
        |status| status.failures,
    ),
    (
        "rafthttp_trace_spans_waiting",
        "Spans that are neither exported nor dropped yet, including those on their way.",
        MetricKind::Gauge,
        |status| status.waiting,
    ),
];

/// A collector of the four `rafthttp_trace_…` series for a `prometheus::Registry`. It reads the state from `source`
/// once per scrape.
pub fn trace_collector(source: impl Fn() -> TraceExportStatus + Send + Sync + 'static) -> Box<dyn Collector> {
    singles_collector(FAMILIES, source)
}
