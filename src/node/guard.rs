//! What comes from the network is checked before raft-rs sees it, since raft-rs panics on what it does not expect.
//!
//! Each check names what raft-rs 0.7 would do without it. The types of entries and the payloads of ConfChanges are
//! checked where they are translated (`convert`), the body of a snapshot where it is read (`snapshot`).

use raft::{Raft, StateRole, Storage};

use super::{
    members::MAX_MEMBERS,
    request::{Request, RequestError},
};
use crate::{
    id::MemberId,
    wire::raftpb::{EntryType, Message, MessageType, Snapshot},
};

/// Terms and indexes beyond this are nobody's: raft-rs adds to both without looking.
const MAX_NUMBER: u64 = u64::MAX / 4;
/// A term that is this much ahead of ours is not one that elections led to.
const MAX_TERM_LEAP: u64 = 1 << 32;
/// The context of a read index. etcd's has 8 bytes, ours 24; it goes to every member with the next heartbeat.
const MAX_READ_CONTEXT: usize = 256;
/// Read indexes that a leader has not confirmed yet, whoever asked.
const MAX_PENDING_READS: usize = 4096;
/// Room in a proposal beyond the largest value: key and head.
const PROPOSAL_OVERHEAD: usize = 8192;

/// Why a message is not given to raft.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("it is for {0}")]
    NotForUs(MemberId),
    #[error("it is from {from}, and came from {peer}")]
    NotFromPeer { from: MemberId, peer: MemberId },
    #[error("message type {0} does not belong on the wire")]
    Type(i32),
    #[error("term {0} cannot be")]
    Term(u64),
    #[error("entry {0} does not continue the message")]
    Entry(u64),
    #[error("entry {0} contradicts one that is committed")]
    Contradicts(u64),
    #[error("commit {commit} is beyond our last index {last}")]
    Commit { commit: u64, last: u64 },
    #[error("acknowledges {index}, our last index is {last}")]
    Acknowledges { index: u64, last: u64 },
    #[error("{0}")]
    Proposal(&'static str),
    #[error("{0}")]
    Request(#[from] RequestError),
    #[error("a read index needs one entry with a context of 1 to {MAX_READ_CONTEXT} bytes")]
    ReadIndex,
    #[error("too many read indexes wait already")]
    Reads,
    #[error("only the leader takes a transfer")]
    NotLeader,
    #[error("snapshot: {0}")]
    Snapshot(&'static str),
    /// The leader knows that we had what we have not got.
    #[error("the log is shorter than what was committed: it ends at {last}, the leader knows that we had {commit}")]
    LostData { commit: u64, last: u64 },
}

/// Whether raft may step `message`, which came from `peer`.
pub(super) fn check<S: Storage>(
    raft: &Raft<S>,
    peer: MemberId,
    message: &Message,
    max_request_bytes: usize,
) -> Result<(), Refusal> {
    if message.to != raft.id {
        return Err(Refusal::NotForUs(MemberId(message.to)));
    }
    let kind = MessageType::try_from(message.r#type).map_err(|_| Refusal::Type(message.r#type))?;
    check_origin(peer, message, kind)?;
    check_term(raft, message, kind)?;
    match kind {
        MessageType::MsgProp => check_proposal(message, max_request_bytes),
        MessageType::MsgApp => check_append(raft, message),
        MessageType::MsgAppResp => check_append_response(raft, message),
        MessageType::MsgSnap => check_snapshot(raft, message),
        MessageType::MsgHeartbeat => check_heartbeat(raft, message),
        MessageType::MsgReadIndex => check_read_index(raft, message),
        MessageType::MsgReadIndexResp => check_read_index_response(message),
        // A follower that passes on one with a term: "term should not be set when sending".
        MessageType::MsgTransferLeader if raft.state != StateRole::Leader => Err(Refusal::NotLeader),
        MessageType::MsgTransferLeader
        | MessageType::MsgVote
        | MessageType::MsgVoteResp
        | MessageType::MsgHeartbeatResp
        | MessageType::MsgTimeoutNow
        | MessageType::MsgPreVote
        | MessageType::MsgPreVoteResp => Ok(()),
        MessageType::MsgHup
        | MessageType::MsgBeat
        | MessageType::MsgUnreachable
        | MessageType::MsgSnapStatus
        | MessageType::MsgCheckQuorum
        | MessageType::MsgStorageAppend
        | MessageType::MsgStorageAppendResp
        | MessageType::MsgStorageApply
        | MessageType::MsgStorageApplyResp
        | MessageType::MsgForgetLeader => Err(Refusal::Type(message.r#type)),
    }
}

/// Followers forward three types unchanged; all else is from who sent it.
fn check_origin(peer: MemberId, message: &Message, kind: MessageType) -> Result<(), Refusal> {
    let forwarded =
        matches!(kind, MessageType::MsgProp | MessageType::MsgReadIndex | MessageType::MsgTransferLeader);
    let from = MemberId(message.from);
    if from.0 == 0 || (from != peer && !forwarded) {
        return Err(Refusal::NotFromPeer { from, peer });
    }
    Ok(())
}

/// Term 0 makes a message a local one, whose answer has no term: "term should be set when sending". A term on a
/// forwarded proposal: "term should not be set when sending".
fn check_term<S: Storage>(raft: &Raft<S>, message: &Message, kind: MessageType) -> Result<(), Refusal> {
    let highest = raft.term.saturating_add(MAX_TERM_LEAP).min(MAX_NUMBER);
    let fits = match kind {
        MessageType::MsgProp | MessageType::MsgReadIndex => message.term == 0,
        MessageType::MsgTransferLeader => message.term <= highest,
        _ => (1..=highest).contains(&message.term),
    };
    if fits { Ok(()) } else { Err(Refusal::Term(message.term)) }
}

/// "stepped empty MsgProp"; and what our state machine could not read must not get into the log.
fn check_proposal(message: &Message, max_request_bytes: usize) -> Result<(), Refusal> {
    if message.entries.is_empty() {
        return Err(Refusal::Proposal("a proposal without entries"));
    }
    for entry in &message.entries {
        if entry.data.len() > max_request_bytes + PROPOSAL_OVERHEAD {
            return Err(Refusal::Proposal("a proposal larger than max-request-bytes"));
        }
        if entry.r#type == EntryType::EntryNormal as i32 {
            Request::decode(entry.data.clone())?;
        }
    }
    Ok(())
}

/// Entries follow each other from `index` + 1, in terms that do not fall: else "slice out of bound", or entries that
/// are taken for known ones. An index that is not 0 with term 0 is taken for one that matches, however far ahead.
fn check_append<S: Storage>(raft: &Raft<S>, message: &Message) -> Result<(), Refusal> {
    if message.index > MAX_NUMBER || (message.index == 0) != (message.log_term == 0) {
        return Err(Refusal::Entry(message.index));
    }
    let mut term = message.log_term.max(1);
    for (index, entry) in (message.index + 1..).zip(&message.entries) {
        if entry.index != index || !(term..=message.term).contains(&entry.term) {
            return Err(Refusal::Entry(entry.index));
        }
        term = entry.term;
        check_committed(raft, index, entry.term)?;
    }
    if message.log_term > message.term {
        return Err(Refusal::Entry(message.index));
    }
    Ok(())
}

/// "entry conflict with committed entry". One that the log does not have any more cannot be compared; raft-rs does
/// not look at it either.
fn check_committed<S: Storage>(raft: &Raft<S>, index: u64, term: u64) -> Result<(), Refusal> {
    if index > raft.raft_log.committed || index < raft.raft_log.first_index() {
        return Ok(());
    }
    match raft.raft_log.term(index) {
        Ok(known) if known != term => Err(Refusal::Contradicts(index)),
        _ => Ok(()),
    }
}

/// "to_commit is out of range". A leader says at most what we acknowledged; it if it is more than we have, then we
/// have lost it, and must not vote or acknowledge on a log that is not what it was.
fn check_heartbeat<S: Storage>(raft: &Raft<S>, message: &Message) -> Result<(), Refusal> {
    let (commit, last) = (message.commit, raft.raft_log.last_index());
    // raft-rs does not look into one of an earlier term.
    if commit <= last || message.term < raft.term {
        return Ok(());
    }
    let leader = message.from == raft.leader_id
        || raft.leader_id == 0 && raft.prs().conf().voters().contains(message.from);
    if message.term == raft.term && leader && raft.state != StateRole::Leader {
        return Err(Refusal::LostData { commit, last });
    }
    Err(Refusal::Commit { commit, last })
}

/// A leader would go on from an index that it has not got, and `hint + 1` would overflow. One of another term is not
/// looked into: from an earlier term, it may know of entries that were never committed.
fn check_append_response<S: Storage>(raft: &Raft<S>, message: &Message) -> Result<(), Refusal> {
    let (index, last) = (message.index, raft.raft_log.last_index());
    let ours = message.term == raft.term && raft.state == StateRole::Leader;
    if ours && index > last || message.reject_hint > MAX_NUMBER {
        return Err(Refusal::Acknowledges { index: index.max(message.reject_hint), last });
    }
    Ok(())
}

/// "unable to restore config", "invalid restore".
fn check_snapshot<S: Storage>(raft: &Raft<S>, message: &Message) -> Result<(), Refusal> {
    let metadata = message.snapshot.as_ref().and_then(|snapshot: &Snapshot| snapshot.metadata.as_ref());
    let metadata = metadata.ok_or(Refusal::Snapshot("no metadata"))?;
    if !(1..=MAX_NUMBER).contains(&metadata.index) || !(1..=message.term).contains(&metadata.term) {
        return Err(Refusal::Snapshot("index or term cannot be"));
    }
    check_committed(raft, metadata.index, metadata.term)?;
    let state = metadata.conf_state.as_ref().ok_or(Refusal::Snapshot("no membership"))?;
    if !state.voters_outgoing.is_empty() || !state.learners_next.is_empty() || state.auto_leave {
        return Err(Refusal::Snapshot("a joint membership, which etcd never has"));
    }
    let mut ids = [&state.voters[..], &state.learners[..]].concat();
    if state.voters.is_empty() || ids.len() > MAX_MEMBERS {
        return Err(Refusal::Snapshot("no voter, or too many members"));
    }
    ids.sort_unstable();
    if ids[0] == 0 || ids.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(Refusal::Snapshot("a member twice, or none"));
    }
    Ok(())
}

/// `entries[0]` of a message without entries; and an empty context is never confirmed.
fn check_read_index<S: Storage>(raft: &Raft<S>, message: &Message) -> Result<(), Refusal> {
    check_read_index_response(message)?;
    if raft.pending_read_count() >= MAX_PENDING_READS { Err(Refusal::Reads) } else { Ok(()) }
}

fn check_read_index_response(message: &Message) -> Result<(), Refusal> {
    match message.entries.as_slice() {
        [entry] if (1..=MAX_READ_CONTEXT).contains(&entry.data.len()) => Ok(()),
        _ => Err(Refusal::ReadIndex),
    }
}
