//! Families of one sample without labels, read from one status per scrape.

use prometheus::{
    core::{Collector, Desc},
    proto::MetricFamily,
};

use super::{
    collector::{Metrics, describe},
    family::{MetricKind, Samples},
};

/// A family: its name, its help, its type, and its value in a status. If the value is `None`, there is no sample.
pub(super) type Single<S, V> = (&'static str, &'static str, MetricKind, fn(&S) -> V);

/// A collector of such families for a `prometheus::Registry`. It reads the status from `source` once per scrape.
pub(super) fn singles_collector<S: 'static, V: Into<Option<u64>> + 'static>(
    families: &'static [Single<S, V>],
    source: impl Fn() -> S + Send + Sync + 'static,
) -> Box<dyn Collector> {
    let descriptions = families.iter().map(|(name, help, ..)| describe(name, help, &[])).collect();
    Box::new(Singles { families, source: Box::new(source), descriptions })
}

struct Singles<S: 'static, V: 'static> {
    families: &'static [Single<S, V>],
    source: Box<dyn Fn() -> S + Send + Sync>,
    descriptions: Vec<Desc>,
}

impl<S, V: Into<Option<u64>>> Collector for Singles<S, V> {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let status = (self.source)();
        let told = self.families.iter().filter_map(|(name, help, kind, value)| {
            let value = value(&status).into()?;
            Some(single(name, help, *kind, value))
        });
        told.collect()
    }
}

/// A family of one sample without labels.
pub(super) fn single(name: &str, help: &str, kind: MetricKind, value: u64) -> MetricFamily {
    let mut metrics = Metrics::single(kind);
    match kind {
        MetricKind::Counter => metrics.count(&[], value),
        MetricKind::Gauge | MetricKind::Histogram => metrics.gauge(&[], value as f64),
    }
    metrics.into_family(name, help)
}
