//! The library's families as a collector for a `prometheus::Registry`.

use std::collections::HashMap;

use prometheus::{
    core::Desc,
    proto::{Bucket, Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType},
};

use super::{
    Options,
    family::{Family, MetricKind, Samples},
    options,
};
use crate::{ledger::Histogram, transport::status::TransportStatus};

/// Shows a transport in a `prometheus::Registry`.
///
/// Each scrape reads the status once, so the ledger's laws hold in it. All of a scrape is in memory at once: some 40 KB
/// for each peer, and 30 KB more as text. With hundreds of peers, serve [`Exposition`](super::Exposition) instead, as
/// `admin::router` does. The model of `prometheus` has no exemplars, so [`Format::encode`](super::Format::encode) shows
/// none for gathered families; `Exposition` does. A registry takes one of these collectors: two transports in one
/// process need two registries.
pub struct Collector {
    source: Box<dyn Fn() -> Option<TransportStatus> + Send + Sync>,
    options: Options,
    descriptions: Vec<Desc>,
}

impl Collector {
    /// A collector that reads the status from `source`. `source` holds its transport weakly, because the registry may
    /// outlive it; the collector then shows nothing of the transport.
    pub fn new(source: impl Fn() -> Option<TransportStatus> + Send + Sync + 'static, options: Options) -> Self {
        let descriptions = options::all(&options).map(description).collect();
        Self { source: Box::new(source), options, descriptions }
    }
}

impl prometheus::core::Collector for Collector {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let Some(status) = (self.source)() else { return Vec::new() };
        options::all(&self.options).map(|family| collect(family, &status)).collect()
    }
}

fn collect(family: &'static Family, status: &TransportStatus) -> MetricFamily {
    let mut metrics = Metrics::new(family.kind, family.labels);
    for turn in 0..family.turns(status) {
        family.write(status, turn, &mut metrics);
    }
    metrics.into_family(family.name, family.help)
}

fn description(family: &Family) -> Desc {
    describe(family.name, family.help, family.labels)
}

/// The description of a family.
pub(super) fn describe(name: &str, help: &str, labels: &[&str]) -> Desc {
    let labels = labels.iter().map(|label| (*label).to_owned()).collect();
    Desc::new(name.to_owned(), help.to_owned(), labels, HashMap::new())
        .expect("the names of our families and labels are valid and differ")
}

/// Collects the samples of one family.
pub(super) struct Metrics {
    labels: &'static [&'static str],
    kind: MetricKind,
    metrics: Vec<Metric>,
}

impl Metrics {
    pub(super) fn single(kind: MetricKind) -> Self {
        Self::new(kind, &[])
    }

    pub(super) fn new(kind: MetricKind, labels: &'static [&'static str]) -> Self {
        Self { labels, kind, metrics: Vec::new() }
    }

    pub(super) fn into_family(self, name: &str, help: &str) -> MetricFamily {
        let mut family = MetricFamily::default();
        family.set_name(name.to_owned());
        family.set_help(help.to_owned());
        family.set_field_type(match self.kind {
            MetricKind::Counter => MetricType::COUNTER,
            MetricKind::Gauge => MetricType::GAUGE,
            MetricKind::Histogram => MetricType::HISTOGRAM,
        });
        family.set_metric(self.metrics);
        family
    }

    fn add(&mut self, labels: &[&str], set: impl FnOnce(&mut Metric)) {
        let pairs = self.labels.iter().zip(labels).map(|(name, value)| {
            let mut pair = LabelPair::default();
            pair.set_name((*name).to_owned());
            pair.set_value((*value).to_owned());
            pair
        });
        let mut metric = Metric::from_label(pairs.collect());
        set(&mut metric);
        self.metrics.push(metric);
    }
}

impl Samples for Metrics {
    fn count(&mut self, labels: &[&str], value: u64) {
        let mut counter = Counter::default();
        counter.set_value(value as f64);
        self.add(labels, |metric| metric.set_counter(counter));
    }

    fn gauge(&mut self, labels: &[&str], value: f64) {
        let mut gauge = Gauge::default();
        gauge.set_value(value);
        self.add(labels, |metric| metric.set_gauge(gauge));
    }

    fn histogram(&mut self, labels: &[&str], histogram: &Histogram, bounds: &[f64]) {
        let buckets = histogram.cumulative().filter(|(bound, _)| bounds.contains(bound)).map(|(bound, count)| {
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(bound);
            bucket.set_cumulative_count(count);
            bucket
        });
        let mut shown = prometheus::proto::Histogram::default();
        shown.set_bucket(buckets.collect());
        shown.set_sample_count(histogram.count());
        shown.set_sample_sum(histogram.sum());
        self.add(labels, |metric| metric.set_histogram(shown));
    }
}
