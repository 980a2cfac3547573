//! Which members answer this one while it leads.

use std::collections::BTreeMap;

use crate::{
    id::MemberId,
    wire::raftpb::{Message, MessageType},
};

/// When each member last answered, in ticks of raft's clock. raft-rs forgets this at the end of each election timeout,
/// when it checks for a quorum, and it takes a member that was just added for one that answers.
#[derive(Debug, Default)]
pub(super) struct Answers {
    /// The term of the answers.
    term: u64,
    now: u64,
    last: BTreeMap<MemberId, u64>,
}

impl Answers {
    pub(super) fn tick(&mut self) {
        self.now += 1;
    }

    /// Records a message that raft took in `term`, if it is an answer to its leader. Only members are recorded, so
    /// there are never more entries than members.
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

    /// Whether a member has answered in this term, within this many ticks.
    pub(super) fn within(&self, ticks: usize, term: u64, id: MemberId) -> bool {
        let last = self.last.get(&id).filter(|_| self.term == term);
        last.is_some_and(|last| self.now - last <= ticks as u64)
    }
}
