//! Whether what a leader sends has the same history as what this member has.
//!
//! Raft promises that it has: what is committed is in the log of every later leader, and an index and a term name one
//! entry. A disk that was lost, or put back, breaks the promise. raft-rs looks at terms alone, and not at all below what
//! is committed: it would end the process, answer that all is well, or keep another entry than its leader, for good.

use raft::{GetEntriesContext, Raft, Storage};

use super::guard::Refusal;
use crate::{
    raft_rs,
    wire::raftpb::{Entry, Message, MessageType},
};

/// How much longer than its data an entry of ours may be, at most.
const HEAD_BYTES: u64 = 96;

/// What every text about it begins with: by it, a member that is started again knows why it halted.
pub(super) const TWO_HISTORIES: &str = "two histories: ";

/// Whether the entries of an append are ours, where ours have the same index and term. What is compared is no more than
/// what the message has.
pub(super) fn check_entries<S: Storage>(raft: &Raft<S>, message: &Message) -> Result<(), Refusal> {
    if message.r#type != MessageType::MsgApp as i32 || message.term < raft.term {
        return Ok(());
    }
    let (first, last) = (raft.raft_log.first_index(), raft.raft_log.last_index());
    let theirs = message.entries.iter().skip_while(|entry| entry.index < first).take_while(|entry| entry.index <= last);
    let theirs: Vec<&Entry> = theirs.collect();
    let (Some(from), Some(to)) = (theirs.first(), theirs.last()) else { return Ok(()) };
    let bytes = theirs.iter().map(|entry| entry.data.len() as u64 + HEAD_BYTES).sum::<u64>();
    // What cannot be read cannot be compared, and is no reason to end: raft comes upon it by itself.
    let context = GetEntriesContext::empty(true);
    let Ok(ours) = raft.raft_log.slice(from.index, to.index + 1, bytes, context) else { return Ok(()) };
    let mut ours = ours.iter();
    for theirs in theirs {
        match ours.next() {
            // Where terms differ, both may be: what is not committed is overwritten.
            Some(ours) if ours.term != theirs.term => return Ok(()),
            Some(ours) if raft_rs::is_same_entry(ours, theirs) => {}
            // One that is missing is longer than theirs.
            _ => return Err(Refusal::Differs(theirs.index)),
        }
    }
    Ok(())
}

/// What a member's answer in our term says, if we lead and it has more than our log: what it has committed, or
/// acknowledges, which a leader has.
pub(super) fn beyond_ours<S: Storage>(raft: &Raft<S>, message: &Message) -> Option<u64> {
    let kinds = [MessageType::MsgAppResp as i32, MessageType::MsgHeartbeatResp as i32];
    let to_us = raft.state == raft::StateRole::Leader && message.term == raft.term && kinds.contains(&message.r#type);
    let acknowledged =
        if message.r#type == MessageType::MsgAppResp as i32 && !message.reject { message.index } else { 0 };
    let most = message.commit.max(acknowledged);
    (to_us && most > raft.raft_log.last_index()).then_some(most)
}
