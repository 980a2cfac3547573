//! Two histories, of which nothing is silent.
//!
//! Of a member whose leader contradicts it, nobody can say which of the two is right, so it takes no part any more, and
//! keeps what it has. A leader that a member contradicts goes on: one member alone could end it, else.

use raft::StateRole;

use super::Core;
use crate::{
    id::MemberId,
    node::{
        guard::Refusal,
        history::{self, TWO_HISTORIES},
    },
    wire::raftpb::Message,
};

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
}
