//! Contradicting histories, which are always reported.
//!
//! If a leader contradicts a member, nobody can say which of the two is right, so the member takes no part any more,
//! and keeps its data. If a member contradicts its leader, the leader goes on: otherwise one member alone could stop
//! it.

use raft::StateRole;

use super::Core;
use crate::{
    id::MemberId,
    node::{
        guard::MessageRefusal,
        history::{self, TWO_HISTORIES},
    },
    wire::raftpb::Message,
};

impl Core {
    /// An entry that our leader sent on a stream contradicts ours.
    pub(super) fn contradicted(&mut self, by: MemberId, term: u64, refusal: &MessageRefusal) {
        let words = format!("{TWO_HISTORIES}in what leader {by} sends in term {term}, {refusal}");
        self.shared.two_histories(by, &words);
        self.halt(&words);
    }

    /// A member has more entries than this one, although this one is its leader. Reported once for each member, until
    /// it is removed or this member no longer leads.
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

    /// Describes the contradictions of this member's history.
    pub(super) fn two_histories(&mut self) -> Option<String> {
        if self.raw.raft.state != StateRole::Leader {
            self.contradicting.clear();
        }
        self.contradicting.retain(|id, _| self.membership.get(*id).is_some());
        self.contradicting.values().next().cloned()
    }
}
