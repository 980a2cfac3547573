//! What a node that runs raft says about it, under etcd's names.

use prometheus::{
    core::{Collector, Desc},
    proto::MetricFamily,
};

use super::{
    collector::{Metrics, describe},
    family::{Kind, Samples},
};

/// The state of a node's raft.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RaftStatus {
    /// Whether a leader is known.
    pub has_leader: bool,
    /// Whether this member is the leader.
    pub is_leader: bool,
    /// How often the leader changed.
    pub leader_changes: u64,
    /// The commit index.
    pub proposals_committed: u64,
    /// The applied index.
    pub proposals_applied: u64,
    /// Proposals that wait for their commit.
    pub proposals_pending: u64,
    /// Proposals that failed.
    pub proposals_failed: u64,
}

type Field = fn(&RaftStatus) -> u64;

/// Names, help and types as in etcd's `etcdserver/metrics.go`, where committed and applied are gauges.
static FAMILIES: &[(&str, &str, Kind, Field)] = &[
    ("etcd_server_has_leader", "Whether or not a leader exists. 1 is existence, 0 is not.", Kind::Gauge, |raft| {
        u64::from(raft.has_leader)
    }),
    ("etcd_server_is_leader", "Whether or not this member is a leader. 1 if is, 0 otherwise.", Kind::Gauge, |raft| {
        u64::from(raft.is_leader)
    }),
    ("etcd_server_leader_changes_seen_total", "The number of leader changes seen.", Kind::Counter, |raft| {
        raft.leader_changes
    }),
    (
        "etcd_server_proposals_committed_total",
        "The total number of consensus proposals committed.",
        Kind::Gauge,
        |raft| raft.proposals_committed,
    ),
    ("etcd_server_proposals_applied_total", "The total number of consensus proposals applied.", Kind::Gauge, |raft| {
        raft.proposals_applied
    }),
    ("etcd_server_proposals_pending", "The current number of pending proposals to commit.", Kind::Gauge, |raft| {
        raft.proposals_pending
    }),
    ("etcd_server_proposals_failed_total", "The total number of failed proposals seen.", Kind::Counter, |raft| {
        raft.proposals_failed
    }),
];

/// A collector of the seven `etcd_server_…` series for a `prometheus::Registry`; reads the state from `source` once a
/// scrape.
pub fn raft_collector(source: impl Fn() -> RaftStatus + Send + Sync + 'static) -> Box<dyn Collector> {
    let descriptions = FAMILIES.iter().map(|(name, help, ..)| describe(name, help, &[])).collect();
    Box::new(RaftCollector { source: Box::new(source), descriptions })
}

struct RaftCollector {
    source: Box<dyn Fn() -> RaftStatus + Send + Sync>,
    descriptions: Vec<Desc>,
}

impl Collector for RaftCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let status = (self.source)();
        FAMILIES.iter().map(|(name, help, kind, field)| single(name, help, *kind, field(&status))).collect()
    }
}

/// A family of one sample without labels.
pub(super) fn single(name: &str, help: &str, kind: Kind, value: u64) -> MetricFamily {
    let mut metrics = Metrics::single(kind);
    match kind {
        Kind::Counter => metrics.count(&[], value),
        Kind::Gauge | Kind::Histogram => metrics.gauge(&[], value as f64),
    }
    metrics.into_family(name, help)
}
