//! Who answers this member while it leads.

use std::collections::BTreeMap;

use crate::{
    id::MemberId,
    wire::raftpb::{Message, MessageType},
};

/// When members last answered, in ticks of raft's clock. raft-rs forgets it at the end of each election timeout, when it
/// looks whether a quorum is there, and takes a member that was just added for one that answers.
#[derive(Debug, Default)]
pub(super) struct Answers {
    /// The term in which they did.
    term: u64,
    now: u64,
    last: BTreeMap<MemberId, u64>,
}

impl Answers {
    pub(super) fn tick(&mut self) {
        self.now += 1;
    }

    /// Notes a message that raft took in `term`, if it is an answer to its leader. Of members alone, so that there are no
    /// more of them than members.
    pub(super) fn note(&mut self, term: u64, from: MemberId, message: &Message) {
        let kinds = [MessageType::MsgAppResp as i32, MessageType::MsgHeartbeatResp as i32];
        if message.term != term || !kinds.contains(&message.r#type) {
            return;
        }
        if self.term != term {
            self.term = term;
            self.last.clear();
        }
        self.last.insert(from, self.now);
    }

    /// Whether a member has answered in this term, and within so many ticks.
    pub(super) fn within(&self, ticks: usize, term: u64, id: MemberId) -> bool {
        let last = self.last.get(&id).filter(|_| self.term == term);
        last.is_some_and(|last| self.now - last <= ticks as u64)
    }
}
