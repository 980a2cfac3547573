//! The status of a member's raft, for `/status`, `/readyz` and `/metrics`.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use serde::Serialize;
use tokio::time::Instant;

use super::{incarnations::KnownIncarnation, members::Membership};
use crate::{
    admin::{self, About, Check, RaftView},
    id::{ClusterId, Incarnation, MemberId},
    ledger::{Histogram, Tally},
    metrics,
    telemetry::Events,
    transport::signal::{Signal, Subscription},
};

/// The role of a member in its term.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// It follows a leader, or waits for one.
    #[default]
    Follower,
    /// It asks whether it would be elected, before it stands for election.
    PreCandidate,
    /// It stands for election.
    Candidate,
    /// It is the leader.
    Leader,
}

impl Role {
    /// The name, as it is serialized.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Follower => "follower",
            Self::PreCandidate => "pre_candidate",
            Self::Candidate => "candidate",
            Self::Leader => "leader",
        }
    }
}

/// A snapshot that a leader has sent, and that this member needs to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Needed {
    pub(super) from: MemberId,
    pub(super) index: u64,
}

/// The state of a member's raft, as of its last turn.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RaftStatus {
    /// The member's ID.
    pub id: MemberId,
    /// The ID of its cluster.
    pub cluster: ClusterId,
    /// Its name.
    pub name: String,
    /// The leader that it knows; 0 if there is none.
    pub leader: MemberId,
    /// Its term.
    pub term: u64,
    /// Its role.
    pub role: Role,
    /// Whether it is a learner, which has no vote.
    pub is_learner: bool,
    /// The index of the last entry that it knows to be committed.
    pub commit: u64,
    /// The index of the last entry that it has applied.
    pub applied: u64,
    /// Bytes of all keys and values, which count against the quota.
    pub data_bytes: u64,
    /// The index of the first entry in its log.
    pub first_index: u64,
    /// The index of the last entry in its log.
    pub last_index: u64,
    /// The term of the last entry. The member with the higher term is ahead; if two have equal terms, the one with the
    /// higher index is.
    pub last_term: u64,
    /// The commit index that its leader has announced last.
    #[serde(skip)]
    pub leader_commit: u64,
    /// How often the leader changed.
    pub leader_changes_seen: u64,
    /// Bytes of the entries in its log.
    pub log_bytes: u64,
    /// Snapshots that it has sent, and that were older than its log's first entry when they arrived.
    #[serde(skip)]
    pub snapshots_overtaken: u64,
    /// Proposals of its clients that have no outcome yet.
    pub proposals_pending: u64,
    /// Proposals of its clients that ended without an outcome.
    pub proposals_failed: u64,
    /// Why it takes no part any more. `None` while it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub halted: Option<String>,
    /// The part of this member's history that another member contradicts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub two_histories: Option<String>,
    /// When it last followed a leader, or was one.
    #[serde(skip)]
    pub(super) followed: Option<Instant>,
    /// The snapshot that it needs to follow its leader, and has not taken.
    #[serde(skip)]
    pub(super) needed: Option<Needed>,
    /// How long that counts: longer than an election takes.
    #[serde(skip)]
    pub(super) patience: Duration,
    /// Why it takes no part for now: its disk cannot be written. `None` while it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suspended: Option<String>,
}

impl RaftStatus {
    /// Whether the member takes part, and whether it can serve. `not_taken` says why the last snapshot of a member
    /// failed, if it did.
    pub(super) fn checks(&self, not_taken: impl FnOnce(MemberId) -> Option<String>) -> [Check; 4] {
        let has_leader = self.leader.0 != 0;
        let behind = self.leader_commit.saturating_sub(self.applied);
        let since = self.followed.map(|followed| followed.elapsed());
        let caught_up = since.is_some_and(|since| since <= self.patience);
        let not_followed = match since {
            Some(since) => format!("has not followed its leader for {:.1} s", since.as_secs_f64()),
            None => "has not followed a leader yet".to_owned(),
        };
        let lacks = match self.needed.filter(|_| !caught_up) {
            Some(Needed { from, index }) => {
                let why = not_taken(from).map(|why| format!(": {why}")).unwrap_or_default();
                format!("needs the snapshot at index {index} that {from} sends, and has not taken it{why}")
            }
            None => format!("{behind} entries behind"),
        };
        let histories = self.two_histories.as_deref();
        let why_not = self.halted.as_deref().or(self.suspended.as_deref());
        let check = |name, ok: bool, why: &str| if ok { Check::ok(name) } else { Check::failed(name, why) };
        [
            check("takes_part", why_not.is_none(), why_not.unwrap_or_default()),
            check("leader", has_leader, "no leader"),
            check("caught_up", caught_up, &format!("{not_followed}, {lacks}")),
            check("one_history", histories.is_none(), histories.unwrap_or_default()),
        ]
    }

    /// The form that the admin endpoints show.
    pub(super) fn about(&self) -> About {
        let role = match self.role {
            Role::Leader => admin::Role::Leader,
            Role::Candidate => admin::Role::Candidate,
            Role::PreCandidate => admin::Role::PreCandidate,
            Role::Follower if self.is_learner => admin::Role::Learner,
            Role::Follower => admin::Role::Follower,
        };
        let leader = Some(self.leader).filter(|leader| leader.0 != 0);
        let raft = RaftView { role, term: self.term, leader, commit: self.commit, applied: self.applied };
        About { name: self.name.clone(), raft: Some(raft) }
    }

    /// The form of etcd's metrics.
    pub(super) fn metrics(&self) -> metrics::RaftStatus {
        metrics::RaftStatus {
            has_leader: self.leader.0 != 0,
            is_leader: self.role == Role::Leader,
            leader_changes: self.leader_changes_seen,
            proposals_committed: self.commit,
            proposals_applied: self.applied,
            proposals_pending: self.proposals_pending,
            proposals_failed: self.proposals_failed,
        }
    }
}

/// The state that the raft task shares with all others.
#[derive(Debug)]
pub(super) struct NodeState {
    status: Mutex<RaftStatus>,
    pub(super) membership: ArcSwap<Membership>,
    /// The newest incarnation that was met of each member, as stored on the disk.
    pub(super) met: ArcSwap<BTreeMap<MemberId, Incarnation>>,
    leader: Signal,
    events: Events,
    nobody_vouches: AtomicBool,
    /// Messages that were not given to raft, by cause.
    refused: Mutex<Tally<&'static str>>,
    /// How late each tick came.
    ticks: Mutex<Histogram>,
}

impl NodeState {
    pub(super) fn new(status: RaftStatus, membership: Membership, events: Events) -> Arc<Self> {
        let membership = ArcSwap::from_pointee(membership);
        Arc::new(Self {
            status: Mutex::new(status),
            membership,
            met: ArcSwap::default(),
            leader: Signal::default(),
            events,
            nobody_vouches: AtomicBool::new(false),
            refused: Mutex::default(),
            ticks: Mutex::default(),
        })
    }

    pub(super) fn status(&self) -> RaftStatus {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn update(&self, change: impl FnOnce(&mut RaftStatus)) {
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        let before = (status.leader, status.role);
        change(&mut status);
        let (leader, role, term) = (status.leader, status.role, status.term);
        drop(status);
        if leader != before.0 {
            self.events.leader_changed((leader.0 != 0).then_some(leader), term);
        }
        if role != before.1 {
            self.events.role_changed(role.label(), term);
        }
        if leader != before.0 {
            self.leader.notify();
        }
    }

    /// The form of the store's metrics.
    pub(super) fn store_metrics(
        &self,
        file_bytes: Option<u64>,
        quota_bytes: Option<u64>,
        log_limit_bytes: u64,
    ) -> metrics::StoreStatus {
        let status = self.status();
        metrics::StoreStatus {
            data_bytes: status.data_bytes,
            file_bytes,
            quota_bytes,
            no_space: !self.membership.load().over_quota().is_empty(),
            suspended: status.suspended.is_some(),
            log_bytes: status.log_bytes,
            log_limit_bytes,
            snapshots_overtaken: status.snapshots_overtaken,
        }
    }

    /// As [`RaftStatus::checks`], with what is known about failed snapshots.
    pub(super) fn checks(&self) -> [Check; 4] {
        self.status().checks(|from| self.events.snapshot_not_taken(from))
    }

    pub(super) fn events(&self) -> &Events {
        &self.events
    }

    /// This member takes no part until its disk can be written.
    pub(super) fn suspended(&self, why: &str) {
        self.update(|status| {
            (status.leader, status.role) = (MemberId(0), Role::Follower);
            status.suspended = Some(why.to_owned());
        });
        self.events.suspended(why);
    }

    /// This member takes part again.
    pub(super) fn resumed(&self, applied: u64) {
        self.update(|status| status.suspended = None);
        self.events.resumed(applied);
    }

    /// What is known of a member's incarnations.
    pub(super) fn known(&self, id: MemberId) -> KnownIncarnation {
        KnownIncarnation { met: self.met.load().get(&id).copied(), directory: self.membership.load().directory(id) }
    }

    /// A message was not given to raft, for this cause.
    pub(super) fn refused(&self, cause: &'static str) {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).add(cause, 1);
    }

    /// Raft has ticked, this long after the tick was due.
    pub(super) fn ticked(&self, late: Duration) {
        self.ticks.lock().unwrap_or_else(PoisonError::into_inner).observe(late);
    }

    /// How late the ticks came until now.
    pub(super) fn tick_delays(&self) -> Histogram {
        self.ticks.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The history of another member contradicts that of this one.
    pub(super) fn two_histories(&self, with: MemberId, words: &str) {
        self.events.two_histories(with, words);
    }

    /// The form of the metrics of histories.
    pub(super) fn histories(&self) -> metrics::HistoriesStatus {
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner).clone();
        metrics::HistoriesStatus { two: self.status().two_histories.is_some(), refused }
    }

    /// Whether no known member answered when they were last asked about an unknown sender.
    pub(super) fn nobody_vouches(&self) -> bool {
        self.nobody_vouches.load(Ordering::Relaxed)
    }

    pub(super) fn set_nobody_vouches(&self, so: bool) {
        self.nobody_vouches.store(so, Ordering::Relaxed);
    }

    /// Whether this member knows a leader.
    pub(super) fn has_leader(&self) -> bool {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).leader.0 != 0
    }

    /// Follows the changes of the leader.
    pub(super) fn leader_changes(&self) -> Subscription {
        self.leader.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn healthy() -> RaftStatus {
        let (followed, patience) = (Some(Instant::now()), Duration::from_secs(3));
        RaftStatus { leader: MemberId(2), applied: 10, leader_commit: 10, followed, patience, ..RaftStatus::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn the_checks_say_what_is_wrong() {
        let long_ago = healthy();
        let failures = |status: RaftStatus| {
            status.checks(|_| None).into_iter().filter_map(|check| check.failure).collect::<Vec<_>>()
        };
        assert_eq!(failures(healthy()), Vec::<String>::new());
        tokio::time::advance(Duration::from_secs(4)).await;
        let behind = RaftStatus { leader_commit: 6000, ..long_ago };
        assert_eq!(failures(behind), ["has not followed its leader for 4.0 s, 5990 entries behind"]);
        let two = RaftStatus { two_histories: Some("two histories: …".into()), ..healthy() };
        assert_eq!(failures(two), ["two histories: …"]);
        let halted = RaftStatus { halted: Some("lost data".into()), ..healthy() };
        assert_eq!(failures(halted), ["lost data"]);
        let suspended = RaftStatus { suspended: Some("no room".into()), ..healthy() };
        assert_eq!(failures(suspended), ["no room"]);
        let electing = RaftStatus { leader: MemberId(0), ..healthy() };
        assert_eq!(failures(electing), ["no leader"], "it is caught up all the same");
        let needed = Some(Needed { from: MemberId(2), index: 87 });
        let needs = RaftStatus { followed: None, needed, ..healthy() };
        let words =
            needs.checks(|from| Some(format!("{from} is too long"))).into_iter().find_map(|check| check.failure);
        let expected =
            "has not followed a leader yet, needs the snapshot at index 87 that 2 sends, and has not taken it";
        assert_eq!(words, Some(format!("{expected}: 2 is too long")));
        assert_eq!(failures(needs), [expected]);
        assert_eq!(failures(RaftStatus { needed, ..healthy() }), Vec::<String>::new(), "it may be on its way");
        let new = RaftStatus { followed: None, ..healthy() };
        assert_eq!(failures(new), ["has not followed a leader yet, 0 entries behind"]);
    }

    #[test]
    fn a_follower_without_a_vote_is_a_learner_and_nobody_is_no_leader() {
        let raft = |status: RaftStatus| status.about().raft.expect("a member of a cluster runs raft");
        assert_eq!(raft(healthy()).role, admin::Role::Follower);
        assert_eq!(raft(healthy()).leader, Some(MemberId(2)));
        assert_eq!(raft(RaftStatus { is_learner: true, ..healthy() }).role, admin::Role::Learner);
        assert_eq!(raft(RaftStatus { leader: MemberId(0), ..healthy() }).leader, None);
    }

    #[tokio::test]
    async fn who_follows_the_leader_hears_of_each_change_once() {
        let shared = NodeState::new(RaftStatus::default(), Membership::default(), Events::default());
        let mut leader = shared.leader_changes();
        shared.update(|status| status.leader = MemberId(3));
        shared.update(|status| status.term = 9);
        leader.changed().await;
        assert!(shared.has_leader() && !leader.has_changed());
    }
}
