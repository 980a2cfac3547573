//! Checks what comes from the network before raft-rs sees it, because raft-rs panics on what it does not expect.
//!
//! Each check names what raft-rs 0.7 would do without it. The types of entries and the payloads of ConfChanges are
//! checked where they are converted (`raft_rs`), and the body of a snapshot where it is read (`snapshot`).

use prost::Message as _;
use raft::{Raft, StateRole, Storage};

use super::{
    members::MAX_MEMBERS,
    request::{Request, RequestError},
};
use crate::{
    id::MemberId,
    transport::raft::Source,
    wire::raftpb::{ConfChange, ConfChangeType, Entry, EntryType, Message, MessageType},
};

/// The largest term and index that are accepted: raft-rs adds to both without checks.
const MAX_NUMBER: u64 = u64::MAX / 4;
/// A term that is further ahead of ours than this did not come from elections. Anyone who can reach the peer port may
/// repeat the leap, and would need 2^42 requests to use up all terms.
const MAX_TERM_LEAP: u64 = 1 << 20;
/// The longest context, in bytes. A read index of etcd has 8 bytes and ours has 24, and it goes to every member with
/// the next heartbeat. A campaign has 16.
const MAX_READ_CONTEXT: usize = 256;
/// The most read indexes that a leader has not confirmed yet, from all members together.
const MAX_PENDING_READS: usize = 4096;
/// The most that a proposal takes in addition to the largest value, in bytes: its key and its head.
const PROPOSAL_OVERHEAD: usize = 8192;

/// Why a message is not given to raft.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum MessageRefusal {
    #[error("it is for member {0}")]
    NotForUs(MemberId),
    #[error("it names {from} as its sender, but came from {peer}")]
    NotFromPeer { from: MemberId, peer: MemberId },
    #[error("message type {0} does not belong on the wire")]
    Type(i32),
    #[error("term {0} is impossible")]
    Term(u64),
    #[error("entry {0} does not continue the message")]
    Entry(u64),
    #[error("entry {0} contradicts one that is committed")]
    Contradicts(u64),
    #[error("entry {0} differs from ours with the same index and term")]
    Differs(u64),
    #[error("commit {commit} is beyond our last index {last}")]
    Commit { commit: u64, last: u64 },
    #[error("it acknowledges {index}, but our last index is {last}")]
    Acknowledges { index: u64, last: u64 },
    #[error("{0}")]
    Proposal(&'static str),
    #[error("{0}")]
    Request(#[from] RequestError),
    #[error("a read index must have one entry with a context of 1 to {MAX_READ_CONTEXT} bytes")]
    ReadIndex,
    #[error("too many read indexes wait already")]
    Reads,
    #[error("its context is too long: {0} bytes")]
    Context(usize),
    #[error("only the leader accepts a transfer of leadership")]
    NotLeader,
    #[error("snapshot: {0}")]
    Snapshot(&'static str),
    #[error("cannot process message from removed member {0}")]
    Removed(MemberId),
    #[error("it removes a member, but did not come on a member's stream")]
    Removal,
    /// The leader knows that this member had entries which it no longer has.
    #[error("the log is shorter than what was committed: it ends at {last}, the leader knows that we had {commit}")]
    LostData { commit: u64, last: u64 },
}

impl MessageRefusal {
    /// The name of the cause, for metrics.
    pub(super) fn cause(&self) -> &'static str {
        match self {
            Self::NotForUs(_) => "not_for_us",
            Self::NotFromPeer { .. } => "not_from_peer",
            Self::Type(_) => "type",
            Self::Term(_) => "term",
            Self::Entry(_) => "entry",
            Self::Contradicts(_) => "contradicts_committed",
            Self::Differs(_) => "differs",
            Self::Commit { .. } => "commit",
            Self::Acknowledges { .. } => "acknowledges",
            Self::Proposal(_) | Self::Request(_) => "proposal",
            Self::ReadIndex | Self::Reads => "read_index",
            Self::Context(_) => "context",
            Self::NotLeader => "not_leader",
            Self::Snapshot(_) => "snapshot",
            Self::Removed(_) => "removed_member",
            Self::Removal => "removal",
            Self::LostData { .. } => "lost_data",
        }
    }
}

/// The sender of a message, and how far it is believed.
#[derive(Clone, Copy, Debug)]
pub(super) struct MessageSender {
    pub(super) peer: MemberId,
    pub(super) source: Source,
    /// No known member answers any more, so nobody can vouch for a sender (`vouching`).
    pub(super) nobody_vouches: bool,
}

/// Whether raft may step `message`, which came from `sender`.
pub(super) fn check<S: Storage>(
    raft: &Raft<S>,
    sender: MessageSender,
    message: &Message,
    max_request_bytes: usize,
) -> Result<(), MessageRefusal> {
    if message.to != raft.id {
        return Err(MessageRefusal::NotForUs(MemberId(message.to)));
    }
    let kind = MessageType::try_from(message.r#type).map_err(|_| MessageRefusal::Type(message.r#type))?;
    check_origin(sender.peer, message, kind)?;
    // Raft returns the context in its answer, and the receiver of the answer may not accept a long one.
    if message.context.len() > MAX_READ_CONTEXT {
        return Err(MessageRefusal::Context(message.context.len()));
    }
    check_term(raft, sender.source, message, kind)?;
    check_membership(sender, message, kind)?;
    match kind {
        MessageType::MsgProp => check_proposal(message, max_request_bytes),
        MessageType::MsgApp => check_append(raft, message),
        MessageType::MsgAppResp => check_append_response(raft, message),
        MessageType::MsgSnap => check_snapshot(raft, message),
        MessageType::MsgHeartbeat => check_heartbeat(raft, sender.source, message),
        MessageType::MsgReadIndex => check_read_index(raft, message),
        MessageType::MsgReadIndexResp => check_read_index_response(message),
        // A follower that forwards this with a term panics: "term should not be set when sending".
        MessageType::MsgTransferLeader if raft.state != StateRole::Leader => Err(MessageRefusal::NotLeader),
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
        | MessageType::MsgForgetLeader => Err(MessageRefusal::Type(message.r#type)),
    }
}

/// Followers forward three types unchanged. All other messages must come from the member that sent them.
fn check_origin(peer: MemberId, message: &Message, kind: MessageType) -> Result<(), MessageRefusal> {
    let forwarded = matches!(kind, MessageType::MsgProp | MessageType::MsgReadIndex | MessageType::MsgTransferLeader);
    let from = MemberId(message.from);
    if from.0 == 0 || (from != peer && !forwarded) {
        return Err(MessageRefusal::NotFromPeer { from, peer });
    }
    Ok(())
}

/// A message of term 0 is a local one for raft-rs, and its answer would have no term: "term should be set when
/// sending". A forwarded proposal must not have a term: "term should not be set when sending".
///
/// A member's own term is believed, however high. A stranger may have raised it step by step, and the member comes back
/// only when the others follow. A member that joins begins far behind the others.
fn check_term<S: Storage>(
    raft: &Raft<S>,
    source: Source,
    message: &Message,
    kind: MessageType,
) -> Result<(), MessageRefusal> {
    let highest = match source {
        Source::Member => MAX_NUMBER,
        Source::Anyone => raft.term.saturating_add(MAX_TERM_LEAP).min(MAX_NUMBER),
    };
    let fits = match kind {
        MessageType::MsgProp | MessageType::MsgReadIndex => message.term == 0,
        MessageType::MsgTransferLeader => message.term <= highest,
        _ => (1..=highest).contains(&message.term),
    };
    if fits { Ok(()) } else { Err(MessageRefusal::Term(message.term)) }
}

/// Whether a message may change the membership. Anyone who can reach the peer port can POST in any member's name, and a
/// removal is for good. So a change may be proposed only over a stream, and a removal is read only on a stream. If no
/// known member is left, a removal of others is accepted from anyone; otherwise, a member that was away while all
/// others were replaced could never return. A removal of this member is still not accepted.
fn check_membership(sender: MessageSender, message: &Message, kind: MessageType) -> Result<(), MessageRefusal> {
    match (sender.source, kind) {
        (Source::Anyone, MessageType::MsgProp) if message.entries.iter().any(is_change) => {
            Err(MessageRefusal::Proposal("a change of the membership is proposed over a stream"))
        }
        (_, MessageType::MsgApp) if first_unbelieved(sender, message) == Some(0) => Err(MessageRefusal::Removal),
        _ => Ok(()),
    }
}

/// Cuts off an append's entries from the first removal on that is not believed. They come again on a stream, once a
/// known member has vouched for the sender (`vouching`).
pub(super) fn without_removals(sender: MessageSender, message: &mut Message) {
    if let Some(first) = first_unbelieved(sender, message) {
        message.entries.truncate(first);
    }
}

fn first_unbelieved(sender: MessageSender, message: &Message) -> Option<usize> {
    if sender.source != Source::Anyone || message.r#type != MessageType::MsgApp as i32 {
        return None;
    }
    let believed = |removed: u64| sender.nobody_vouches && removed != message.to;
    message.entries.iter().position(|entry| removed(entry).is_some_and(|id| !believed(id)))
}

/// Whether an append contains a removal.
pub(super) fn tells_a_removal(message: &Message) -> bool {
    message.r#type == MessageType::MsgApp as i32 && message.entries.iter().any(|entry| removed(entry).is_some())
}

fn is_change(entry: &Entry) -> bool {
    entry.r#type == EntryType::EntryConfChange as i32
}

/// The member that an entry removes.
fn removed(entry: &Entry) -> Option<u64> {
    let change = is_change(entry).then(|| ConfChange::decode(entry.data.as_ref()).ok())??;
    (change.r#type == ConfChangeType::ConfChangeRemoveNode as i32).then_some(change.node_id)
}

/// Prevents "stepped empty MsgProp". Also, an entry that our state machine could not decode must not get into the log.
fn check_proposal(message: &Message, max_request_bytes: usize) -> Result<(), MessageRefusal> {
    if message.entries.is_empty() {
        return Err(MessageRefusal::Proposal("a proposal without entries"));
    }
    for entry in &message.entries {
        if entry.data.len() > max_request_bytes.saturating_add(PROPOSAL_OVERHEAD) {
            return Err(MessageRefusal::Proposal("a proposal larger than max-request-bytes"));
        }
        if entry.r#type == EntryType::EntryNormal as i32 {
            Request::decode(entry.data.clone())?;
        }
    }
    Ok(())
}

/// Entries must follow each other from `index` + 1, in terms that do not decrease. Otherwise there is "slice out of
/// bound", or entries are mistaken for known ones. An index other than 0 with term 0 would be taken for a match,
/// however far ahead it is.
fn check_append<S: Storage>(raft: &Raft<S>, message: &Message) -> Result<(), MessageRefusal> {
    if message.index > MAX_NUMBER || (message.index == 0) != (message.log_term == 0) {
        return Err(MessageRefusal::Entry(message.index));
    }
    // raft-rs ignores a message of an earlier term, whose leader may have had entries that were never committed.
    let counts = message.term >= raft.term;
    if counts {
        check_committed(raft, message.index, message.log_term)?;
    }
    let mut term = message.log_term.max(1);
    for (index, entry) in (message.index + 1..).zip(&message.entries) {
        if entry.index != index || !(term..=message.term).contains(&entry.term) {
            return Err(MessageRefusal::Entry(entry.index));
        }
        term = entry.term;
        if counts {
            check_committed(raft, index, entry.term)?;
        }
    }
    if message.log_term > message.term {
        return Err(MessageRefusal::Entry(message.index));
    }
    Ok(())
}

/// Prevents "entry conflict with committed entry". For the entry before an append, raft-rs would report a match. For
/// the compacted part of the log, only its last term is known; raft-rs does not check the rest either.
fn check_committed<S: Storage>(raft: &Raft<S>, index: u64, term: u64) -> Result<(), MessageRefusal> {
    if index > raft.raft_log.committed || index + 1 < raft.raft_log.first_index() {
        return Ok(());
    }
    match raft.raft_log.term(index) {
        Ok(known) if known != term => Err(MessageRefusal::Contradicts(index)),
        _ => Ok(()),
    }
}

/// Prevents "to_commit is out of range". A leader sends at most the commit index that we acknowledged. If that is more
/// than we have, then we have lost entries, and must not vote or acknowledge with a log that is not what it was. That
/// is for good, so it is believed only from a member. It is believed in whatever term the message is: the member knows
/// it because we told it in that term, when the entries were on our disk.
fn check_heartbeat<S: Storage>(raft: &Raft<S>, source: Source, message: &Message) -> Result<(), MessageRefusal> {
    let (commit, last) = (message.commit, raft.raft_log.last_index());
    // raft-rs does not look into a message of an earlier term.
    if commit <= last || message.term < raft.term {
        return Ok(());
    }
    let leads = raft.state == StateRole::Leader && message.term == raft.term;
    match source {
        Source::Member if !leads => Err(MessageRefusal::LostData { commit, last }),
        _ => Err(MessageRefusal::Commit { commit, last }),
    }
}

/// A leader would continue from an index that it does not have, and `hint + 1` would overflow. An answer of another
/// term is not checked: with an earlier term, it may be about entries that were never committed.
fn check_append_response<S: Storage>(raft: &Raft<S>, message: &Message) -> Result<(), MessageRefusal> {
    let (index, last) = (message.index, raft.raft_log.last_index());
    let ours = message.term == raft.term && raft.state == StateRole::Leader;
    if ours && index > last || message.reject_hint > MAX_NUMBER {
        return Err(MessageRefusal::Acknowledges { index: index.max(message.reject_hint), last });
    }
    Ok(())
}

/// Prevents "unable to restore config" and "invalid restore".
fn check_snapshot<S: Storage>(raft: &Raft<S>, message: &Message) -> Result<(), MessageRefusal> {
    let metadata = message.snapshot.as_ref().and_then(|snapshot| snapshot.metadata.as_ref());
    let metadata = metadata.ok_or(MessageRefusal::Snapshot("no metadata"))?;
    if !(1..=MAX_NUMBER).contains(&metadata.index) || !(1..=message.term).contains(&metadata.term) {
        return Err(MessageRefusal::Snapshot("its index or term is impossible"));
    }
    check_committed(raft, metadata.index, metadata.term)?;
    let state = metadata.conf_state.as_ref().ok_or(MessageRefusal::Snapshot("no membership"))?;
    if !state.voters_outgoing.is_empty() || !state.learners_next.is_empty() || state.auto_leave {
        return Err(MessageRefusal::Snapshot("it has a joint membership, which etcd never has"));
    }
    let mut ids = [&state.voters[..], &state.learners[..]].concat();
    if state.voters.is_empty() || ids.len() > MAX_MEMBERS {
        return Err(MessageRefusal::Snapshot("it has no voter, or too many members"));
    }
    ids.sort_unstable();
    if ids[0] == 0 || ids.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(MessageRefusal::Snapshot("it has a member twice, or none"));
    }
    Ok(())
}

/// Whether raft would install a snapshot that passed [`check`]. It does not install one of an earlier term, one whose
/// entries are in the log already, or one without this member (raft-rs's `restore`).
pub(super) fn would_install<S: Storage>(raft: &Raft<S>, message: &Message) -> bool {
    let metadata = message.snapshot.as_ref().and_then(|snapshot| snapshot.metadata.as_ref());
    let Some((metadata, state)) = metadata.and_then(|one| Some((one, one.conf_state.as_ref()?))) else { return false };
    let of_now = message.term > raft.term || message.term == raft.term && raft.state != StateRole::Leader;
    let log = &raft.raft_log;
    let is_new = metadata.index >= log.committed && !log.match_term(metadata.index, metadata.term);
    of_now && is_new && state.voters.iter().chain(&state.learners).any(|id| *id == raft.id)
}

/// Prevents `entries[0]` on a message without entries. A read index with an empty context is never confirmed.
fn check_read_index<S: Storage>(raft: &Raft<S>, message: &Message) -> Result<(), MessageRefusal> {
    check_read_index_response(message)?;
    if raft.pending_read_count() >= MAX_PENDING_READS { Err(MessageRefusal::Reads) } else { Ok(()) }
}

fn check_read_index_response(message: &Message) -> Result<(), MessageRefusal> {
    match message.entries.as_slice() {
        [entry] if (1..=MAX_READ_CONTEXT).contains(&entry.data.len()) => Ok(()),
        _ => Err(MessageRefusal::ReadIndex),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use raft::{RawNode, storage::MemStorage};

    use super::*;
    use crate::{
        node::request::{Command, RequestId},
        raft_rs,
        wire::raftpb::{ConfState, Entry, Snapshot, SnapshotMetadata},
    };

    /// Member 1 of three, in term 3, with entries 1 to 5 of terms 1, 1, 2, 3, 3, of which 3 are committed.
    fn follower() -> RawNode<MemStorage> {
        let storage = MemStorage::new_with_conf_state((vec![1, 2, 3], vec![]));
        let entries = [1, 1, 2, 3, 3].into_iter().zip(1..).map(|(term, index)| {
            raft_rs::entry_from_raftpb(Entry { term, index, ..Entry::default() }).expect("a normal entry")
        });
        storage.wl().append(&entries.collect::<Vec<_>>()).expect("they follow each other");
        storage.wl().mut_hard_state().term = 3;
        storage.wl().mut_hard_state().commit = 3;
        let config = raft::Config { id: 1, election_tick: 10, heartbeat_tick: 1, ..raft::Config::default() };
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        RawNode::new(&config, storage, &logger).expect("a good config")
    }

    fn leader() -> RawNode<MemStorage> {
        let mut raw = follower();
        raw.raft.become_candidate();
        raw.raft.become_leader();
        raw
    }

    fn message(kind: MessageType) -> Message {
        Message { r#type: kind as i32, from: 2, to: 1, term: 3, ..Message::default() }
    }

    fn sender(source: Source) -> MessageSender {
        MessageSender { peer: MemberId(2), source, nobody_vouches: false }
    }

    fn asked(raw: &RawNode<MemStorage>, message: &Message) -> Result<(), MessageRefusal> {
        check(&raw.raft, sender(Source::Member), message, 1000)
    }

    fn posted(raw: &RawNode<MemStorage>, message: &Message) -> Result<(), MessageRefusal> {
        check(&raw.raft, sender(Source::Anyone), message, 1000)
    }

    fn entry(index: u64, term: u64) -> Entry {
        Entry { index, term, ..Entry::default() }
    }

    fn append(index: u64, log_term: u64, entries: Vec<Entry>) -> Message {
        Message { index, log_term, entries, commit: 99, ..message(MessageType::MsgApp) }
    }

    #[test]
    fn what_is_not_for_us_or_not_from_who_sent_it_is_refused() {
        let (raw, good) = (follower(), message(MessageType::MsgHeartbeat));
        assert_eq!(asked(&raw, &good), Ok(()));
        for to in [0, 3] {
            assert_eq!(asked(&raw, &Message { to, ..good.clone() }), Err(MessageRefusal::NotForUs(MemberId(to))));
        }
        for from in [0, 1, 3] {
            let (from, peer) = (MemberId(from), MemberId(2));
            assert_eq!(
                asked(&raw, &Message { from: from.0, ..good.clone() }),
                Err(MessageRefusal::NotFromPeer { from, peer })
            );
        }
    }

    #[test]
    fn a_context_is_a_read_indexs_or_a_campaigns() {
        let heartbeat = |length| Message { context: vec![0; length].into(), ..message(MessageType::MsgHeartbeat) };
        assert_eq!(asked(&follower(), &heartbeat(MAX_READ_CONTEXT)), Ok(()));
        let long = MAX_READ_CONTEXT + 1;
        assert_eq!(asked(&follower(), &heartbeat(long)), Err(MessageRefusal::Context(long)));
    }

    #[test]
    fn followers_forward_what_is_anothers_but_never_nobodys() {
        let read = |from| Message { from, term: 0, entries: vec![data("ctx")], ..message(MessageType::MsgReadIndex) };
        assert_eq!(asked(&follower(), &read(3)), Ok(()));
        assert!(matches!(asked(&follower(), &read(0)), Err(MessageRefusal::NotFromPeer { .. })));
    }

    fn data(text: &'static str) -> Entry {
        Entry { data: text.into(), ..Entry::default() }
    }

    #[test]
    fn types_that_are_local_or_unknown_are_refused() {
        for kind in [0, 1, 10, 11, 12, 19, 20, 21, 22, 23, 24, -1] {
            let message = Message { r#type: kind, ..message(MessageType::MsgHup) };
            assert_eq!(asked(&follower(), &message), Err(MessageRefusal::Type(kind)));
        }
    }

    #[test]
    fn a_term_is_there_where_etcd_has_one_and_nowhere_else() {
        let raw = follower();
        let with = |kind, term| asked(&raw, &Message { term, entries: vec![data("ctx")], ..message(kind) });
        for kind in
            [MessageType::MsgVote, MessageType::MsgPreVote, MessageType::MsgHeartbeat, MessageType::MsgTimeoutNow]
        {
            assert_eq!(with(kind, 0), Err(MessageRefusal::Term(0)), "{kind:?}");
            assert_eq!(with(kind, 4), Ok(()), "{kind:?}");
            assert_eq!(with(kind, u64::MAX), Err(MessageRefusal::Term(u64::MAX)), "{kind:?}");
        }
        let far = Message { term: raw.raft.term + MAX_TERM_LEAP + 1, ..message(MessageType::MsgHeartbeat) };
        assert_eq!((posted(&raw, &far), asked(&raw, &far)), (Err(MessageRefusal::Term(far.term)), Ok(())));
        assert_eq!(with(MessageType::MsgReadIndex, 3), Err(MessageRefusal::Term(3)));
        assert_eq!(with(MessageType::MsgProp, 3), Err(MessageRefusal::Term(3)));
    }

    #[test]
    fn entries_follow_each_other_and_contradict_nothing_committed() {
        let raw = follower();
        for good in [
            append(5, 3, vec![entry(6, 3), entry(7, 3)]),
            append(5, 3, vec![]),
            append(0, 0, vec![entry(1, 1), entry(2, 1)]),
            append(3, 2, vec![entry(4, 3)]),
            append(99, 3, vec![]),
        ] {
            assert_eq!(asked(&raw, &good), Ok(()), "{good:?}");
        }
        for (bad, at) in [
            (append(5, 3, vec![entry(7, 3)]), 7),
            (append(5, 3, vec![entry(6, 3), entry(6, 3)]), 6),
            (append(5, 3, vec![entry(6, 2)]), 6),
            (append(5, 3, vec![entry(6, 0)]), 6),
            (append(5, 3, vec![entry(6, 4)]), 6),
            (append(9, 0, vec![entry(10, 3)]), 9),
            (append(0, 1, vec![]), 0),
            (append(5, 4, vec![]), 5),
            (append(u64::MAX, 3, vec![]), u64::MAX),
        ] {
            assert_eq!(asked(&raw, &bad), Err(MessageRefusal::Entry(at)), "{bad:?}");
        }
        let contradicting = append(0, 0, vec![entry(1, 1), entry(2, 2)]);
        assert_eq!(asked(&raw, &contradicting), Err(MessageRefusal::Contradicts(2)));
        // The same holds for the entry before an append: below the commit index, raft-rs reports a match for any.
        for (index, term) in [(3, 3), (2, 2)] {
            assert_eq!(asked(&raw, &append(index, term, vec![])), Err(MessageRefusal::Contradicts(index)));
        }
        assert_eq!(asked(&raw, &append(5, 2, vec![])), Ok(()), "what is not committed may be another");
        let earlier = Message { term: 2, ..append(2, 2, vec![entry(3, 2)]) };
        assert_eq!(asked(&raw, &earlier), Ok(()), "whoever led before may have had what was never committed");
    }

    #[test]
    fn a_commit_beyond_our_log_is_lost_data_on_a_members_stream_and_a_lie_by_post() {
        let heartbeat = |term, commit| Message { term, commit, ..message(MessageType::MsgHeartbeat) };
        let (lost, lie) =
            (MessageRefusal::LostData { commit: 6, last: 5 }, MessageRefusal::Commit { commit: 6, last: 5 });
        let mut raw = follower();
        for leader in [0, 2, 3] {
            raw.raft.become_follower(3, leader);
            assert_eq!(asked(&raw, &heartbeat(3, 5)), Ok(()));
            assert_eq!(asked(&raw, &heartbeat(2, 6)), Ok(()), "an earlier term's is not looked into");
            for term in [3, 4] {
                assert_eq!(asked(&raw, &heartbeat(term, 6)), Err(lost.clone()), "in whatever term");
                assert_eq!(posted(&raw, &heartbeat(term, 6)), Err(lie.clone()));
            }
        }
        let raw = leader();
        let (term, last) = (raw.raft.term, raw.raft.raft_log.last_index());
        assert_eq!(asked(&raw, &heartbeat(term, 99)), Err(MessageRefusal::Commit { commit: 99, last }), "we lead");
    }

    #[test]
    fn by_post_nobody_is_removed_and_no_membership_proposed() {
        let change = |kind: ConfChangeType, index| {
            let change = ConfChange { id: 1, r#type: kind as i32, node_id: 3, context: "{}".into() };
            let r#type = EntryType::EntryConfChange as i32;
            Entry { r#type, index, term: 3, data: change.encode_to_vec().into() }
        };
        let (add, remove) = (ConfChangeType::ConfChangeAddNode, ConfChangeType::ConfChangeRemoveNode);
        let raw = follower();
        let removal = append(5, 3, vec![change(remove, 6)]);
        assert_eq!((asked(&raw, &removal), posted(&raw, &removal)), (Ok(()), Err(MessageRefusal::Removal)));
        let mut replaced = append(5, 3, vec![change(add, 6), entry(7, 3), change(remove, 8), change(add, 9)]);
        assert_eq!(posted(&raw, &replaced), Ok(()));
        let whole = replaced.clone();
        without_removals(sender(Source::Member), &mut replaced);
        assert_eq!(replaced, whole);
        without_removals(sender(Source::Anyone), &mut replaced);
        assert_eq!(replaced.entries.len(), 2, "up to the removal");
        let alone = MessageSender { nobody_vouches: true, ..sender(Source::Anyone) };
        assert_eq!(check(&raw.raft, alone, &removal, 1000), Ok(()), "nobody else can say it");
        let ours = Message { to: 3, ..removal };
        assert!(first_unbelieved(alone, &ours).is_some(), "our own is not believed even so");
        let proposal = Message { term: 0, entries: vec![change(add, 0)], ..message(MessageType::MsgProp) };
        assert_eq!(asked(&leader(), &proposal), Ok(()));
        assert!(matches!(posted(&leader(), &proposal), Err(MessageRefusal::Proposal(_))));
    }

    #[test]
    fn nobody_acknowledges_to_a_leader_what_it_has_not_got() {
        let raw = leader();
        let (term, last) = (raw.raft.term, raw.raft.raft_log.last_index());
        let response = |index, reject_hint| Message { term, index, reject_hint, ..message(MessageType::MsgAppResp) };
        assert_eq!(asked(&raw, &response(last, 0)), Ok(()));
        let index = last + 1;
        assert_eq!(asked(&raw, &response(index, 0)), Err(MessageRefusal::Acknowledges { index, last }));
        assert!(asked(&raw, &Message { reject: true, ..response(last, u64::MAX) }).is_err());
        assert_eq!(asked(&raw, &Message { term: term - 1, ..response(99, 0) }), Ok(()), "of an earlier leader's");
        assert_eq!(asked(&follower(), &Message { term: 3, ..response(99, 0) }), Ok(()), "nobody looks");
    }

    #[test]
    fn a_proposal_has_entries_that_can_be_read_and_are_not_too_large() {
        let proposal = |entries| Message { term: 0, entries, ..message(MessageType::MsgProp) };
        let put = |length: usize| {
            let id = RequestId { member: 2, boot: 1, counter: 1 };
            let command = Command::Put { key: "k".into(), value: vec![0; length].into() };
            Entry { data: Request { id, command }.encode(), ..Entry::default() }
        };
        assert_eq!(asked(&leader(), &proposal(vec![put(1000)])), Ok(()));
        assert!(matches!(asked(&leader(), &proposal(vec![])), Err(MessageRefusal::Proposal(_))));
        assert!(matches!(asked(&leader(), &proposal(vec![put(10_000)])), Err(MessageRefusal::Proposal(_))));
        for garbage in [Entry::default(), data("garbage")] {
            assert!(matches!(asked(&leader(), &proposal(vec![put(1), garbage])), Err(MessageRefusal::Request(_))));
        }
    }

    #[test]
    fn a_read_index_has_one_context_and_there_are_not_too_many() {
        let mut raw = leader();
        let read = |entries| Message { term: 0, entries, ..message(MessageType::MsgReadIndex) };
        assert_eq!(asked(&raw, &read(vec![data("ctx")])), Ok(()));
        let long = Entry { data: vec![0; MAX_READ_CONTEXT + 1].into(), ..Entry::default() };
        for bad in [vec![], vec![data("")], vec![data("a"), data("b")], vec![long]] {
            assert_eq!(asked(&raw, &read(bad.clone())), Err(MessageRefusal::ReadIndex));
            let response = Message { entries: bad, ..message(MessageType::MsgReadIndexResp) };
            assert_eq!(asked(&raw, &response), Err(MessageRefusal::ReadIndex));
        }
        for number in 0..MAX_PENDING_READS {
            let entry = Entry { data: Bytes::from(number.to_string()), ..Entry::default() };
            let request = raft_rs::message_from_raftpb(read(vec![entry])).expect("it was checked");
            raw.raft.read_only.add_request(1, request, 1);
        }
        assert_eq!(asked(&raw, &read(vec![data("one more")])), Err(MessageRefusal::Reads));
    }

    #[test]
    fn only_a_leader_is_asked_to_hand_over() {
        let transfer = |term| Message { term, ..message(MessageType::MsgTransferLeader) };
        assert_eq!(asked(&follower(), &transfer(3)), Err(MessageRefusal::NotLeader));
        assert_eq!(asked(&leader(), &transfer(0)), Ok(()));
    }

    #[test]
    fn a_snapshot_carries_a_membership_that_can_be_restored() {
        let raw = follower();
        let with = |index, term, conf_state| {
            let metadata = Some(SnapshotMetadata { conf_state, index, term });
            let snapshot = Some(Snapshot { data: Bytes::new(), metadata }.into());
            asked(&raw, &Message { snapshot, ..message(MessageType::MsgSnap) })
        };
        let state = |voters: &[u64], learners: &[u64]| {
            Some(ConfState { voters: voters.to_vec(), learners: learners.to_vec(), ..ConfState::default() })
        };
        assert_eq!(with(9, 3, state(&[1, 2, 3], &[4])), Ok(()));
        assert_eq!(with(2, 1, state(&[1, 2, 3], &[])), Ok(()), "a late one is legal");
        assert_eq!(with(2, 2, state(&[1], &[])), Err(MessageRefusal::Contradicts(2)));
        let joint = |change: fn(&mut ConfState)| {
            let mut joint = ConfState { voters: vec![1, 2], ..ConfState::default() };
            change(&mut joint);
            Some(joint)
        };
        for (index, term, state) in [
            (0, 3, state(&[1], &[])),
            (u64::MAX, 3, state(&[1], &[])),
            (9, 0, state(&[1], &[])),
            (9, 4, state(&[1], &[])),
            (9, 3, None),
            (9, 3, state(&[], &[1])),
            (9, 3, state(&[1, 1], &[])),
            (9, 3, state(&[1, 2], &[2])),
            (9, 3, state(&[0, 1], &[])),
            (9, 3, state(&(1..=65).collect::<Vec<_>>(), &[])),
            (9, 3, joint(|state| state.voters_outgoing = vec![1])),
            (9, 3, joint(|state| state.learners_next = vec![3])),
            (9, 3, joint(|state| state.auto_leave = true)),
        ] {
            assert!(
                matches!(with(index, term, state.clone()), Err(MessageRefusal::Snapshot(_))),
                "{index} {term} {state:?}"
            );
        }
        assert!(matches!(asked(&raw, &message(MessageType::MsgSnap)), Err(MessageRefusal::Snapshot(_))));
    }

    #[test]
    fn raft_installs_a_snapshot_that_is_ahead_and_of_a_membership_with_us() {
        let with = |raw: &RawNode<MemStorage>, message_term, index, term, voters: &[u64]| {
            let conf_state = Some(ConfState { voters: voters.to_vec(), ..ConfState::default() });
            let metadata = Some(SnapshotMetadata { conf_state, index, term });
            let snapshot = Some(Snapshot { data: Bytes::new(), metadata }.into());
            would_install(&raw.raft, &Message { snapshot, term: message_term, ..message(MessageType::MsgSnap) })
        };
        let raw = follower();
        assert!(with(&raw, 3, 9, 3, &[1, 2, 3]) && with(&raw, 4, 9, 3, &[1]));
        assert!(with(&raw, 3, 4, 2, &[1]), "what the log has there is another's");
        assert!(!with(&raw, 3, 2, 1, &[1, 2, 3]), "it is committed");
        assert!(!with(&raw, 3, 4, 3, &[1, 2, 3]), "the log has it");
        assert!(!with(&raw, 2, 9, 2, &[1, 2, 3]), "an earlier term");
        assert!(!with(&raw, 3, 9, 3, &[2, 3]), "a membership without us");
        let raw = leader();
        let term = raw.raft.term;
        assert!(!with(&raw, term, 99, term, &[1]) && with(&raw, term + 1, 99, term, &[1]), "we lead in this term");
    }
}
