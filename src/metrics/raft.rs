//! Metrics of a node's raft, under etcd's names.

use prometheus::core::Collector;

use super::{
    family::MetricKind,
    singles::{Single, singles_collector},
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

/// Names, help and types are as in etcd's `etcdserver/metrics.go`, where committed and applied are gauges.
static FAMILIES: &[Single<RaftStatus, u64>] = &[
    (
        "etcd_server_has_leader",
        "Whether or not a leader exists. 1 is existence, 0 is not.",
        MetricKind::Gauge,
        |raft| u64::from(raft.has_leader),
    ),
    (
        "etcd_server_is_leader",
        "Whether or not this member is a leader. 1 if is, 0 otherwise.",
        MetricKind::Gauge,
        |raft| u64::from(raft.is_leader),
    ),
    ("etcd_server_leader_changes_seen_total", "The number of leader changes seen.", MetricKind::Counter, |raft| {
        raft.leader_changes
    }),
    (
        "etcd_server_proposals_committed_total",
        "The total number of consensus proposals committed.",
        MetricKind::Gauge,
        |raft| raft.proposals_committed,
    ),
    (
        "etcd_server_proposals_applied_total",
        "The total number of consensus proposals applied.",
        MetricKind::Gauge,
        |raft| raft.proposals_applied,
    ),
    (
        "etcd_server_proposals_pending",
        "The current number of pending proposals to commit.",
        MetricKind::Gauge,
        |raft| raft.proposals_pending,
    ),
    ("etcd_server_proposals_failed_total", "The total number of failed proposals seen.", MetricKind::Counter, |raft| {
        raft.proposals_failed
    }),
];

/// A collector of the seven `etcd_server_…` series for a `prometheus::Registry`. It reads the state from `source` once
/// per scrape.
pub fn raft_collector(source: impl Fn() -> RaftStatus + Send + Sync + 'static) -> Box<dyn Collector> {
    singles_collector(FAMILIES, source)
}
