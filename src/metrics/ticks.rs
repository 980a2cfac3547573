//! The metric that shows how late a node's raft ticks.

use prometheus::{
    core::{Collector, Desc},
    proto::MetricFamily,
};

use super::{
    collector::{Metrics, describe},
    family::{MetricKind, Samples},
};
use crate::ledger::Histogram;

const NAME: &str = "rafthttp_raft_tick_delay_seconds";
const HELP: &str =
    "How late each tick of raft came. While it waits, a leader sends no heartbeat, and nothing is written.";

/// A collector of the family. It reads the delays from `source` once per scrape.
pub(crate) fn ticks_collector(source: impl Fn() -> Histogram + Send + Sync + 'static) -> Box<dyn Collector> {
    Box::new(TicksCollector { source: Box::new(source), description: describe(NAME, HELP, &[]) })
}

struct TicksCollector {
    source: Box<dyn Fn() -> Histogram + Send + Sync>,
    description: Desc,
}

impl Collector for TicksCollector {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.description]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut delays = Metrics::single(MetricKind::Histogram);
        delays.histogram(&[], &(self.source)(), &Histogram::BOUNDS);
        vec![delays.into_family(NAME, HELP)]
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_delay_is_in_the_buckets_from_its_own_on() {
        let mut delays = Histogram::default();
        [3, 3, 700].into_iter().for_each(|millis| delays.observe(Duration::from_millis(millis)));
        let families = ticks_collector(move || delays.clone()).collect();
        let shown = families[0].get_metric()[0].get_histogram();
        let below = |edge: f64| {
            shown.get_bucket().iter().find(|bucket| bucket.upper_bound() == edge).map(|b| b.cumulative_count())
        };
        assert_eq!(
            (shown.get_sample_count(), below(0.0016), below(0.0032), below(0.8192)),
            (3, Some(0), Some(2), Some(3))
        );
    }
}
