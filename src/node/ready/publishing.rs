//! Publishes the state after a turn.

use std::sync::Arc;

use raft::StateRole;

use super::Core;
use crate::{
    id::MemberId,
    node::status::{RaftStatus, Role},
};

impl Core {
    /// Publishes the state of raft.
    pub(super) fn publish(&mut self) {
        self.look_at_following();
        let two_histories = self.two_histories();
        let (raft, store) = (&self.raw.raft, self.raw.store());
        let (first_index, last_index) = store.first_and_last_index();
        let leader_commit = self.leader_commit.max(raft.raft_log.committed);
        let is_learner = self.membership.get(self.settings.member).is_some_and(|member| member.is_learner);
        self.shared.update(|status| {
            *status = RaftStatus {
                leader: MemberId(raft.leader_id),
                term: raft.term,
                role: role(raft.state),
                is_learner,
                commit: raft.raft_log.committed,
                applied: store.applied(),
                data_bytes: store.data_bytes(),
                first_index,
                last_index,
                last_term: raft.raft_log.last_term(),
                leader_commit,
                followed: self.following.since,
                needed: self.following.needed,
                patience: self.settings.election_timeout * 3,
                two_histories,
                log_bytes: store.bytes_up_to(last_index),
                snapshots_overtaken: self.handed.overtaken(),
                proposals_pending: self.proposals.pending() as u64,
                proposals_failed: self.proposals.failed,
                ..std::mem::take(status)
            };
        });
    }

    /// Publishes the membership, and which members' space has changed with it.
    pub(super) fn publish_membership(&self) {
        let before = self.shared.membership.swap(Arc::new(self.membership.clone()));
        let (before, now) = (before.over_quota(), self.membership.over_quota());
        for (member, quota) in now.iter().filter(|(member, quota)| before.get(member) != Some(quota)) {
            self.shared.events().no_space(*member, self.raw.store().data_bytes(), *quota);
        }
        for member in before.keys().filter(|member| !now.contains_key(member)) {
            self.shared.events().space_again(*member, self.raw.store().data_bytes());
        }
    }
}

fn role(state: StateRole) -> Role {
    match state {
        StateRole::Follower => Role::Follower,
        StateRole::PreCandidate => Role::PreCandidate,
        StateRole::Candidate => Role::Candidate,
        StateRole::Leader => Role::Leader,
    }
}
