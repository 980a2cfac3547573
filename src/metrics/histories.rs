//! What a node says about what its raft was not given, and about two histories.

use prometheus::{
    core::{Collector, Desc},
    proto::MetricFamily,
};

use super::{
    collector::{Metrics, describe},
    family::{Kind, Samples},
    singles::single,
};
use crate::ledger::Tally;

const HISTORIES: (&str, &str) =
    ("rafthttp_raft_two_histories", "Whether this member and another have two histories. 1 if so, 0 otherwise.");
const REFUSED: (&str, &str) =
    ("rafthttp_raft_messages_refused_total", "Messages that came and that raft was not given, or did not take.");

/// What is shown.
#[derive(Clone, Debug, Default)]
pub(crate) struct HistoriesStatus {
    /// Whether what a leader sent, or a member acknowledged, contradicts what this member has.
    pub(crate) two: bool,
    /// Messages that raft did not take, by cause.
    pub(crate) refused: Tally<&'static str>,
}

/// A collector of two families; reads the state from `source` once a scrape. `causes` are all that there are: each is
/// shown from the start.
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
        let mut refused = Metrics::new(Kind::Counter, &["reason"]);
        for cause in self.causes {
            refused.count(&[cause], status.refused.of(cause));
        }
        let two = single(HISTORIES.0, HISTORIES.1, Kind::Gauge, status.two.into());
        vec![two, refused.into_family(REFUSED.0, REFUSED.1)]
    }
}
