//! Metrics of the messages that a node did not give to its raft, and of contradicting histories.

use prometheus::{
    core::{Collector, Desc},
    proto::MetricFamily,
};

use super::{
    collector::{Metrics, describe},
    family::{MetricKind, Samples},
    singles::single,
};
use crate::ledger::Tally;

const HISTORIES: (&str, &str) = (
    "rafthttp_raft_two_histories",
    "Whether this member's history contradicts another member's. 1 if so, 0 otherwise.",
);
const REFUSED: (&str, &str) = (
    "rafthttp_raft_messages_refused_total",
    "Received messages that were kept from raft, or that raft did not accept.",
);

/// The state that is shown.
#[derive(Clone, Debug, Default)]
pub(crate) struct HistoriesStatus {
    /// Whether an entry from a leader, or an acknowledgement of a member, contradicts the log of this member.
    pub(crate) two: bool,
    /// Messages that were not given to raft, by cause.
    pub(crate) refused: Tally<&'static str>,
}

/// A collector of the two families. It reads the state from `source` once per scrape. `causes` is the set of all
/// causes: each is shown from the start.
pub(crate) fn histories_collector(
    causes: &'static [&'static str],
    source: impl Fn() -> HistoriesStatus + Send + Sync + 'static,
) -> Box<dyn Collector> {
    let descriptions = vec![describe(HISTORIES.0, HISTORIES.1, &[]), describe(REFUSED.0, REFUSED.1, &["reason"])];
    Box::new(HistoriesCollector { causes, source: Box::new(source), descriptions })
}

struct HistoriesCollector {
    causes: &'static [&'static str],
    source: Box<dyn Fn() -> HistoriesStatus + Send + Sync>,
    descriptions: Vec<Desc>,
}

impl Collector for HistoriesCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let status = (self.source)();
        let mut refused = Metrics::new(MetricKind::Counter, &["reason"]);
        for cause in self.causes {
            refused.count(&[cause], status.refused.of(cause));
        }
        let two = single(HISTORIES.0, HISTORIES.1, MetricKind::Gauge, status.two.into());
        vec![two, refused.into_family(REFUSED.0, REFUSED.1)]
    }
}
