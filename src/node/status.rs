//! What a member says about its raft: `/status`, `/readyz`, and etcd's names on `/metrics`.

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use prometheus::{
    IntCounter, IntGauge,
    core::{Collector, Desc},
    proto::MetricFamily,
};
use serde::Serialize;
use tokio::sync::watch;

use super::members::Membership;
use crate::id::{ClusterId, MemberId};

/// Entries that a member may be behind its leader and still be called caught up.
const CAUGHT_UP: u64 = 5000;

/// The role of a member in its term.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// It follows a leader, or waits for one.
    #[default]
    Follower,
    /// It asks whether it would be elected.
    PreCandidate,
    /// It stands for election.
    Candidate,
    /// It leads.
    Leader,
}

/// The state of a member's raft, as of its last turn.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RaftStatus {
    /// The member.
    pub id: MemberId,
    /// Its cluster.
    pub cluster: ClusterId,
    /// Its name.
    pub name: String,
    /// Whom it follows; 0 is nobody.
    pub leader: MemberId,
    /// Its term.
    pub term: u64,
    /// Its role.
    pub role: Role,
    /// Whether it has no vote.
    pub is_learner: bool,
    /// The last entry that it knows to be committed.
    pub commit: u64,
    /// The last entry that it has applied.
    pub applied: u64,
    /// The first entry that it still has.
    pub first_index: u64,
    /// The last entry that it has.
    pub last_index: u64,
    /// The last entry that its leader has said to be committed.
    #[serde(skip)]
    pub leader_commit: u64,
    /// How often another leader was seen.
    pub leader_changes_seen: u64,
    /// Proposals of its clients without an outcome yet.
    pub proposals_pending: u64,
    /// Proposals of its clients that ended without an outcome.
    pub proposals_failed: u64,
    /// Why it takes no part any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub halted: Option<String>,
}

/// Whether a member can serve.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Health {
    /// Whether it knows its leader.
    pub has_leader: bool,
    /// Whether it has applied nearly all that its leader has committed.
    pub caught_up: bool,
    /// What is wrong; empty when nothing is.
    pub reasons: Vec<String>,
}

impl Health {
    /// Whether nothing is wrong.
    pub fn is_ready(&self) -> bool {
        self.reasons.is_empty()
    }
}

impl RaftStatus {
    /// Whether the member can serve, and why not.
    pub fn health(&self) -> Health {
        let has_leader = self.leader.0 != 0;
        let behind = self.leader_commit.saturating_sub(self.applied);
        // Who has applied nothing has not even learnt who the members are.
        let caught_up = has_leader && self.applied > 0 && behind <= CAUGHT_UP;
        let mut reasons: Vec<String> = self.halted.iter().cloned().collect();
        if !has_leader {
            reasons.push("no leader".to_owned());
        } else if !caught_up {
            reasons.push(format!("{behind} entries behind the leader"));
        }
        Health { has_leader, caught_up, reasons }
    }
}

/// What the raft task tells everyone else.
#[derive(Debug)]
pub(super) struct Shared {
    status: Mutex<RaftStatus>,
    pub(super) membership: ArcSwap<Membership>,
    leader: watch::Sender<MemberId>,
}

impl Shared {
    pub(super) fn new(status: RaftStatus, membership: Membership) -> Arc<Self> {
        let (leader, _) = watch::channel(MemberId(0));
        Arc::new(Self { status: Mutex::new(status), membership: ArcSwap::from_pointee(membership), leader })
    }

    pub(super) fn status(&self) -> RaftStatus {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn update(&self, change: impl FnOnce(&mut RaftStatus)) {
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut status);
        let leader = status.leader;
        drop(status);
        self.leader.send_if_modified(|known| std::mem::replace(known, leader) != leader);
    }

    /// Follows who leads; 0 is nobody.
    pub(super) fn leader(&self) -> watch::Receiver<MemberId> {
        self.leader.subscribe()
    }
}

/// etcd's metrics of its raft (`etcdserver/metrics.go`): names, help and kinds are etcd's.
pub(super) struct RaftMetrics {
    shared: Arc<Shared>,
    has_leader: IntGauge,
    is_leader: IntGauge,
    committed: IntGauge,
    applied: IntGauge,
    pending: IntGauge,
    leader_changes: IntCounter,
    failed: IntCounter,
}

impl RaftMetrics {
    pub(super) fn new(shared: Arc<Shared>) -> prometheus::Result<Self> {
        let gauge = |name: &str, help: &str| IntGauge::new(format!("etcd_server_{name}"), help);
        let counter = |name: &str, help: &str| IntCounter::new(format!("etcd_server_{name}"), help);
        Ok(Self {
            shared,
            has_leader: gauge("has_leader", "Whether or not a leader exists. 1 is existence, 0 is not.")?,
            is_leader: gauge("is_leader", "Whether or not this member is a leader. 1 if is, 0 otherwise.")?,
            committed: gauge("proposals_committed_total", "The total number of consensus proposals committed.")?,
            applied: gauge("proposals_applied_total", "The total number of consensus proposals applied.")?,
            pending: gauge("proposals_pending", "The current number of pending proposals to commit.")?,
            leader_changes: counter("leader_changes_seen_total", "The number of leader changes seen.")?,
            failed: counter("proposals_failed_total", "The total number of failed proposals seen.")?,
        })
    }

    fn collectors(&self) -> [&dyn Collector; 7] {
        [
            &self.has_leader,
            &self.is_leader,
            &self.committed,
            &self.applied,
            &self.pending,
            &self.leader_changes,
            &self.failed,
        ]
    }
}

impl Collector for RaftMetrics {
    fn desc(&self) -> Vec<&Desc> {
        self.collectors().into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let status = self.shared.status();
        let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        self.has_leader.set(i64::from(status.leader.0 != 0));
        self.is_leader.set(i64::from(status.role == Role::Leader));
        self.committed.set(signed(status.commit));
        self.applied.set(signed(status.applied));
        self.pending.set(signed(status.proposals_pending));
        self.leader_changes.inc_by(status.leader_changes_seen.saturating_sub(self.leader_changes.get()));
        self.failed.inc_by(status.proposals_failed.saturating_sub(self.failed.get()));
        self.collectors().into_iter().flat_map(Collector::collect).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn healthy() -> RaftStatus {
        RaftStatus { leader: MemberId(2), applied: 10, leader_commit: 10, ..RaftStatus::default() }
    }

    #[test]
    fn health_says_what_is_wrong() {
        assert!(healthy().health().is_ready());
        let reasons = |status: RaftStatus| status.health().reasons;
        assert_eq!(reasons(RaftStatus { leader: MemberId(0), ..healthy() }), ["no leader"]);
        assert_eq!(reasons(RaftStatus { leader_commit: 6000, ..healthy() }), ["5990 entries behind the leader"]);
        assert_eq!(reasons(RaftStatus { halted: Some("lost data".into()), ..healthy() }), ["lost data"]);
        assert!(!RaftStatus { applied: 0, leader_commit: 0, ..healthy() }.health().is_ready());
    }

    #[test]
    fn the_seven_names_of_etcd_are_there_and_true() {
        let shared = Shared::new(RaftStatus::default(), Membership::default());
        let registry = prometheus::Registry::new();
        registry.register(Box::new(RaftMetrics::new(shared.clone()).expect("good names"))).expect("new names");
        shared.update(|status| {
            *status = RaftStatus { role: Role::Leader, leader_changes_seen: 2, commit: 7, ..healthy() };
        });
        for _ in 0..2 {
            let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).expect("text");
            for line in [
                "etcd_server_has_leader 1",
                "etcd_server_is_leader 1",
                "etcd_server_leader_changes_seen_total 2",
                "etcd_server_proposals_committed_total 7",
                "etcd_server_proposals_applied_total 10",
                "etcd_server_proposals_pending 0",
                "etcd_server_proposals_failed_total 0",
            ] {
                assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
            }
        }
    }

    #[tokio::test]
    async fn who_follows_the_leader_hears_of_each_change_once() {
        let shared = Shared::new(RaftStatus::default(), Membership::default());
        let mut leader = shared.leader();
        shared.update(|status| status.leader = MemberId(3));
        shared.update(|status| status.term = 9);
        leader.changed().await.expect("the sender lives");
        assert_eq!(*leader.borrow_and_update(), MemberId(3));
        assert!(!leader.has_changed().expect("the sender lives"));
    }
}
