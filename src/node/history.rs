//! Checks whether a leader's entries have the same history as this member's.
//!
//! Raft guarantees it: committed entries are in the log of every later leader, and an index and a term identify one
//! entry. A disk that was lost or restored from a copy breaks the guarantee. raft-rs compares only terms, and nothing
//! below the commit index. It would end the process, report a match, or keep another entry than its leader, for good.

use raft::{GetEntriesContext, Raft, Storage};

use super::guard::MessageRefusal;
use crate::{
    raft_rs,
    wire::raftpb::{Entry, Message, MessageType},
};

/// The most by which an entry of ours may be longer than its data, in bytes.
const HEAD_BYTES: u64 = 96;

/// The prefix of every text about this. By it, a restarted member recognizes why it halted.
pub(super) const TWO_HISTORIES: &str = "two histories: ";

/// Checks that the entries of an append equal ours with the same index and term. It reads no more of our log than the
/// message has.
pub(super) fn check_entries<S: Storage>(raft: &Raft<S>, message: &Message) -> Result<(), MessageRefusal> {
    if message.r#type != MessageType::MsgApp as i32 || message.term < raft.term {
        return Ok(());
    }
    let (first, last) = (raft.raft_log.first_index(), raft.raft_log.last_index());
    let theirs = message.entries.iter().skip_while(|entry| entry.index < first).take_while(|entry| entry.index <= last);
    let theirs: Vec<&Entry> = theirs.collect();
    let (Some(from), Some(to)) = (theirs.first(), theirs.last()) else { return Ok(()) };
    let bytes = theirs.iter().map(|entry| entry.data.len() as u64 + HEAD_BYTES).sum::<u64>();
    // An entry that cannot be read cannot be compared. That is no reason to end here: raft will run into it by itself.
    let context = GetEntriesContext::empty(true);
    let Ok(ours) = raft.raft_log.slice(from.index, to.index + 1, bytes, context) else { return Ok(()) };
    let mut ours = ours.iter();
    for theirs in theirs {
        match ours.next() {
            // If the terms differ, both entries may be valid: an uncommitted entry is overwritten.
            Some(ours) if ours.term != theirs.term => return Ok(()),
            Some(ours) if raft_rs::is_same_entry(ours, theirs) => {}
            // A missing entry is longer than theirs.
            _ => return Err(MessageRefusal::Differs(theirs.index)),
        }
    }
    Ok(())
}

/// The index in a member's answer in our term that is beyond our log, if we lead: it has committed or acknowledged an
/// entry there, which a leader must have.
pub(super) fn beyond_ours<S: Storage>(raft: &Raft<S>, message: &Message) -> Option<u64> {
    let kinds = [MessageType::MsgAppResp as i32, MessageType::MsgHeartbeatResp as i32];
    let to_us = raft.state == raft::StateRole::Leader && message.term == raft.term && kinds.contains(&message.r#type);
    let acknowledged =
        if message.r#type == MessageType::MsgAppResp as i32 && !message.reject { message.index } else { 0 };
    let most = message.commit.max(acknowledged);
    (to_us && most > raft.raft_log.last_index()).then_some(most)
}
