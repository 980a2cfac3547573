//! What became of the spans that were to be exported.

use prometheus::{
    core::{Collector, Desc},
    proto::MetricFamily,
};

use super::{collector::describe, family::Kind, raft::single};
use crate::ledger::TraceExportStatus;

type Field = fn(&TraceExportStatus) -> u64;

static FAMILIES: &[(&str, &str, Kind, Field)] = &[
    ("rafthttp_trace_spans_exported_total", "Spans that the trace collector took.", Kind::Counter, |status| {
        status.exported
    }),
    (
        "rafthttp_trace_spans_dropped_total",
        "Spans given up because the queue was full or their batch could not be exported.",
        Kind::Counter,
        |status| status.dropped,
    ),
    (
        "rafthttp_trace_export_failures_total",
        "Batches of spans that the trace collector did not take.",
        Kind::Counter,
        |status| status.failures,
    ),
    (
        "rafthttp_trace_spans_waiting",
        "Spans that were neither exported nor dropped yet, those on their way included.",
        Kind::Gauge,
        |status| status.waiting,
    ),
];

/// A collector of the four `rafthttp_trace_…` series for a `prometheus::Registry`; reads the state from `source` once
/// a scrape.
pub fn trace_collector(source: impl Fn() -> TraceExportStatus + Send + Sync + 'static) -> Box<dyn Collector> {
    let descriptions = FAMILIES.iter().map(|(name, help, ..)| describe(name, help, &[])).collect();
    Box::new(TraceCollector { source: Box::new(source), descriptions })
}

struct TraceCollector {
    source: Box<dyn Fn() -> TraceExportStatus + Send + Sync>,
    descriptions: Vec<Desc>,
}

impl Collector for TraceCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let status = (self.source)();
        FAMILIES.iter().map(|(name, help, kind, field)| single(name, help, *kind, field(&status))).collect()
    }
}
