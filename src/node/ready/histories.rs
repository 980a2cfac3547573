//! Two histories, and messages that raft does not take: nothing of it is silent.
//!
//! Of a member whose leader contradicts it, nobody can say which of the two is right, so it takes no part any more, and
//! keeps what it has. A leader that a member contradicts goes on: one member alone could end it, else.

use raft::StateRole;

use super::{Core, NotTaken};
use crate::{
    id::MemberId,
    node::{
        guard::Refusal,
        history::{self, TWO_HISTORIES},
        status::Needed,
    },
    transport::raft::Source,
    wire::raftpb::{Message, MessageType},
};

/// Entries that a member may be behind its leader and still be called caught up.
const CAUGHT_UP: u64 = 5000;

impl Core {
    /// What our leader sent on a stream of its contradicts what we have.
    pub(super) fn contradicted(&mut self, by: MemberId, term: u64, refusal: &Refusal) {
        let words = format!("{TWO_HISTORIES}in what leader {by} sends in term {term}, {refusal}");
        self.shared.two_histories(by, &words);
        self.halt(&words);
    }

    /// A member has more than we, its leader, have: said once for each member, until it goes or we lead no more.
    pub(super) fn note_beyond_ours(&mut self, peer: MemberId, message: &Message) {
        let Some(most) = history::beyond_ours(&self.raw.raft, message) else { return };
        if self.membership.get(peer).is_none() || self.contradicting.contains_key(&peer) {
            return;
        }
        let last = self.raw.raft.raft_log.last_index();
        let words = format!(
            "{TWO_HISTORIES}member {peer} has entries up to {most} that are committed, and the log of this leader ends at {last}"
        );
        self.shared.two_histories(peer, &words);
        self.contradicting.insert(peer, words);
    }

    /// What is wrong with this member's history, in words.
    pub(super) fn two_histories(&mut self) -> Option<String> {
        if self.raw.raft.state != StateRole::Leader {
            self.contradicting.clear();
        }
        self.contradicting.retain(|id, _| self.membership.get(*id).is_some());
        self.contradicting.values().next().cloned()
    }

    /// Counts it by its cause. What a member sends on its streams and is not taken is told, too.
    pub(super) fn note_not_taken(&mut self, peer: MemberId, source: Source, kind: i32, not_taken: &NotTaken) {
        let NotTaken { cause, why, .. } = not_taken;
        self.shared.refused(cause);
        if source != Source::Member {
            return;
        }
        if kind == MessageType::MsgApp as i32 && peer.0 == self.raw.raft.leader_id {
            self.following.refused();
        }
        if let Some(times) = self.refusals.note() {
            let kind = MessageType::try_from(kind).map_or("unknown", |kind| kind.as_str_name());
            tracing::warn!(%peer, kind, cause, why, times, "messages of a member are not taken");
        }
    }

    /// Whether raft will take an append for one that continues our log.
    pub(super) fn continues(&self, message: &Message) -> bool {
        let log = &self.raw.raft.raft_log;
        message.index < log.committed || log.match_term(message.index, message.log_term)
    }

    /// Raft took an append or a heartbeat.
    pub(super) fn heard(&mut self, from: MemberId, append: Option<bool>) {
        let raft = &self.raw.raft;
        if raft.leader_id == from.0 && raft.state == StateRole::Follower {
            self.following.heard(from.0, raft.term, append, self.now);
        }
    }

    /// Whether this member follows its leader, now.
    pub(super) fn look_at_following(&mut self) {
        let (raft, applied) = (&self.raw.raft, self.raw.store().applied());
        if raft.state == StateRole::Leader {
            return self.following.leads(self.now);
        }
        // Who has applied nothing has not even learnt who the members are.
        let behind = applied == 0 || self.leader_commit.saturating_sub(applied) > CAUGHT_UP;
        let (leader, term) = (raft.leader_id, raft.term);
        let asks = self.following.look(leader, term, behind, self.settings.election_timeout, self.now);
        if let Some(waiter) = asks {
            self.read(waiter);
        }
    }

    /// A snapshot came that our log needs.
    pub(super) fn needs_snapshot(&mut self, from: MemberId, message: &Message) {
        let raft = &self.raw.raft;
        let index = message.snapshot.as_ref().and_then(|snapshot| snapshot.metadata.as_ref()).map(|one| one.index);
        if let (Some(index), true) = (index, raft.leader_id == from.0) {
            self.following.needs(Needed { from, index });
        }
    }
}
