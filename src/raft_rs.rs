//! Conversions between etcd's `raftpb` and raft-rs's `eraftpb`, which are nearly the same. The only file that imports
//! both.
//!
//! These parts differ on the wire, and are therefore translated field by field and never by bytes:
//!
//! | | etcd `raftpb` | raft-rs `eraftpb` |
//! |---|---|---|
//! | `ConfChangeType` | AddNode 0, RemoveNode 1, UpdateNode 2, AddLearnerNode 3 | AddNode 0, RemoveNode 1, AddLearnerNode 2 |
//! | `Message` 13, 14 | vote, responses | request_snapshot, deprecated_priority |
//! | `Message` 15, 16 | | commit_term, priority |
//! | `Entry` 5, 6 | | sync_log, context |
//!
//! A ConfChange is the payload of an entry, in appends *and* in forwarded proposals; both are translated. raft-rs does
//! not know UpdateNode. It becomes an AddNode of node 0, which raft-rs's `Changer` skips, and the real member stands in
//! front of the context:
//!
//! | bytes of `context` | content |
//! |---|---|
//! | 0 | 0: not JSON, so no context of etcd's |
//! | 1..9 | the member's ID, big-endian |
//! | 9.. | etcd's context |

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message as _;
use protobuf::Message as _;
use raft::eraftpb;

use crate::wire::raftpb;

/// A part of an etcd message that has no counterpart in raft-rs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConvertError {
    /// A message type that never leaves a process, or that is unknown.
    #[error("message type {0} does not belong on the wire")]
    MessageType(i32),
    /// An unknown entry type.
    #[error("entry {index} has the unknown type {kind}")]
    EntryType {
        /// The entry's index.
        index: u64,
        /// Its type.
        kind: i32,
    },
    /// A ConfChangeV2. An etcd server panics on one, so none is ever accepted or sent.
    #[error("entry {0} is a ConfChangeV2, which etcd's servers do not know")]
    ConfChangeV2(u64),
    /// A ConfChange that cannot be decoded.
    #[error("entry {index}: not a ConfChange: {why}")]
    ConfChange {
        /// The entry's index.
        index: u64,
        /// The decoder's error.
        why: String,
    },
    /// A ConfChange of an unknown type.
    #[error("entry {index} has the unknown ConfChange type {kind}")]
    ConfChangeType {
        /// The entry's index.
        index: u64,
        /// Its type.
        kind: i32,
    },
    /// A ConfChange of member 0.
    #[error("entry {0} is a ConfChange of member 0")]
    NobodysConfChange(u64),
}

/// Converts a message of etcd's for raft-rs. Fields that only raft-rs has are left at zero. etcd's `vote` is ignored
/// (in 3.6 it is only used between a member and its own storage).
pub fn message_from_raftpb(message: raftpb::Message) -> Result<eraftpb::Message, ConvertError> {
    let entries: Vec<_> = message.entries.into_iter().map(entry_from_raftpb).collect::<Result<_, _>>()?;
    let mut out = eraftpb::Message {
        msg_type: type_from_raftpb(message.r#type)?,
        to: message.to,
        from: message.from,
        term: message.term,
        log_term: message.log_term,
        index: message.index,
        entries: entries.into(),
        commit: message.commit,
        reject: message.reject,
        reject_hint: message.reject_hint,
        context: message.context,
        ..Default::default()
    };
    if let Some(snapshot) = message.snapshot.filter(|_| out.msg_type == eraftpb::MessageType::MsgSnapshot) {
        out.set_snapshot(snapshot_from_raftpb(*snapshot));
    }
    Ok(out)
}

/// Converts a message of raft-rs's for etcd. It fails only on an entry that no conversion has made.
pub fn message_to_raftpb(mut message: eraftpb::Message) -> Result<raftpb::Message, ConvertError> {
    use eraftpb::MessageType as T;
    // raft-rs sends its commit index with votes, together with a term that etcd's message has no field for.
    let vote = matches!(
        message.msg_type,
        T::MsgRequestVote | T::MsgRequestVoteResponse | T::MsgRequestPreVote | T::MsgRequestPreVoteResponse
    );
    Ok(raftpb::Message {
        r#type: type_to_raftpb(message.msg_type) as i32,
        to: message.to,
        from: message.from,
        term: message.term,
        log_term: message.log_term,
        index: message.index,
        entries: message.take_entries().into_iter().map(entry_to_raftpb).collect::<Result<_, _>>()?,
        commit: if vote { 0 } else { message.commit },
        snapshot: message.snapshot.take().map(|snapshot| snapshot_to_raftpb(snapshot).into()),
        reject: message.reject,
        reject_hint: message.reject_hint,
        context: message.context,
        vote: 0,
    })
}

/// Converts several messages, as [`message_to_raftpb`].
pub fn messages_to_raftpb(messages: Vec<eraftpb::Message>) -> Result<Vec<raftpb::Message>, ConvertError> {
    messages.into_iter().map(message_to_raftpb).collect()
}

fn type_from_raftpb(kind: i32) -> Result<eraftpb::MessageType, ConvertError> {
    use eraftpb::MessageType as To;
    use raftpb::MessageType as From;
    let unknown = ConvertError::MessageType(kind);
    Ok(match From::try_from(kind).map_err(|_| unknown.clone())? {
        From::MsgHup => To::MsgHup,
        From::MsgBeat => To::MsgBeat,
        From::MsgProp => To::MsgPropose,
        From::MsgApp => To::MsgAppend,
        From::MsgAppResp => To::MsgAppendResponse,
        From::MsgVote => To::MsgRequestVote,
        From::MsgVoteResp => To::MsgRequestVoteResponse,
        From::MsgSnap => To::MsgSnapshot,
        From::MsgHeartbeat => To::MsgHeartbeat,
        From::MsgHeartbeatResp => To::MsgHeartbeatResponse,
        From::MsgUnreachable => To::MsgUnreachable,
        From::MsgSnapStatus => To::MsgSnapStatus,
        From::MsgCheckQuorum => To::MsgCheckQuorum,
        From::MsgTransferLeader => To::MsgTransferLeader,
        From::MsgTimeoutNow => To::MsgTimeoutNow,
        From::MsgReadIndex => To::MsgReadIndex,
        From::MsgReadIndexResp => To::MsgReadIndexResp,
        From::MsgPreVote => To::MsgRequestPreVote,
        From::MsgPreVoteResp => To::MsgRequestPreVoteResponse,
        From::MsgStorageAppend
        | From::MsgStorageAppendResp
        | From::MsgStorageApply
        | From::MsgStorageApplyResp
        | From::MsgForgetLeader => return Err(unknown),
    })
}

fn type_to_raftpb(kind: eraftpb::MessageType) -> raftpb::MessageType {
    use eraftpb::MessageType as From;
    use raftpb::MessageType as To;
    match kind {
        From::MsgHup => To::MsgHup,
        From::MsgBeat => To::MsgBeat,
        From::MsgPropose => To::MsgProp,
        From::MsgAppend => To::MsgApp,
        From::MsgAppendResponse => To::MsgAppResp,
        From::MsgRequestVote => To::MsgVote,
        From::MsgRequestVoteResponse => To::MsgVoteResp,
        From::MsgSnapshot => To::MsgSnap,
        From::MsgHeartbeat => To::MsgHeartbeat,
        From::MsgHeartbeatResponse => To::MsgHeartbeatResp,
        From::MsgUnreachable => To::MsgUnreachable,
        From::MsgSnapStatus => To::MsgSnapStatus,
        From::MsgCheckQuorum => To::MsgCheckQuorum,
        From::MsgTransferLeader => To::MsgTransferLeader,
        From::MsgTimeoutNow => To::MsgTimeoutNow,
        From::MsgReadIndex => To::MsgReadIndex,
        From::MsgReadIndexResp => To::MsgReadIndexResp,
        From::MsgRequestPreVote => To::MsgPreVote,
        From::MsgRequestPreVoteResponse => To::MsgPreVoteResp,
    }
}

/// Converts an entry of etcd's for raft-rs, including its ConfChange.
pub fn entry_from_raftpb(entry: raftpb::Entry) -> Result<eraftpb::Entry, ConvertError> {
    use raftpb::EntryType;
    let mut out = eraftpb::Entry::default();
    out.term = entry.term;
    out.index = entry.index;
    out.data = match EntryType::try_from(entry.r#type) {
        Ok(EntryType::EntryNormal) => entry.data,
        Ok(EntryType::EntryConfChange) => {
            out.entry_type = eraftpb::EntryType::EntryConfChange;
            conf_change_from_raftpb(entry.index, &entry.data)?
        }
        Ok(EntryType::EntryConfChangeV2) => return Err(ConvertError::ConfChangeV2(entry.index)),
        Err(_) => {
            return Err(ConvertError::EntryType { index: entry.index, kind: entry.r#type });
        }
    };
    Ok(out)
}

/// Converts an entry of raft-rs's for etcd, including its ConfChange. It fails only on an entry that no conversion has
/// made.
pub fn entry_to_raftpb(entry: eraftpb::Entry) -> Result<raftpb::Entry, ConvertError> {
    let (kind, data) = match entry.entry_type {
        eraftpb::EntryType::EntryNormal => (raftpb::EntryType::EntryNormal, entry.data),
        eraftpb::EntryType::EntryConfChange => {
            let change = conf_change_to_raftpb(entry.index, &entry.data)?;
            (raftpb::EntryType::EntryConfChange, change.encode_to_vec().into())
        }
        eraftpb::EntryType::EntryConfChangeV2 => return Err(ConvertError::ConfChangeV2(entry.index)),
    };
    Ok(raftpb::Entry { r#type: kind as i32, term: entry.term, index: entry.index, data })
}

/// Whether a received entry has the same content as one of ours. The caller compares index and term.
#[cfg(feature = "node")]
pub(crate) fn is_same_entry(ours: &eraftpb::Entry, theirs: &raftpb::Entry) -> bool {
    entry_from_raftpb(theirs.clone())
        .is_ok_and(|theirs| (ours.get_entry_type(), &ours.data) == (theirs.get_entry_type(), &theirs.data))
}

fn conf_change_from_raftpb(index: u64, data: &[u8]) -> Result<Bytes, ConvertError> {
    use raftpb::ConfChangeType as From;
    let change =
        raftpb::ConfChange::decode(data).map_err(|error| ConvertError::ConfChange { index, why: error.to_string() })?;
    if change.node_id == 0 {
        return Err(ConvertError::NobodysConfChange(index));
    }
    let mut out = eraftpb::ConfChange::default();
    out.id = change.id;
    out.node_id = change.node_id;
    out.context = change.context;
    out.change_type = match From::try_from(change.r#type) {
        Ok(From::ConfChangeAddNode) => eraftpb::ConfChangeType::AddNode,
        Ok(From::ConfChangeRemoveNode) => eraftpb::ConfChangeType::RemoveNode,
        Ok(From::ConfChangeAddLearnerNode) => eraftpb::ConfChangeType::AddLearnerNode,
        Ok(From::ConfChangeUpdateNode) => {
            out.context = mark_update(out.node_id, &out.context);
            out.node_id = 0;
            eraftpb::ConfChangeType::AddNode
        }
        Err(_) => {
            return Err(ConvertError::ConfChangeType { index, kind: change.r#type });
        }
    };
    let bytes = out.write_to_bytes().map_err(|error| ConvertError::ConfChange { index, why: error.to_string() })?;
    Ok(bytes.into())
}

/// Decodes the ConfChange in raft-rs's entry at `index` into etcd's form, which the state machine applies.
pub fn conf_change_to_raftpb(index: u64, data: &[u8]) -> Result<raftpb::ConfChange, ConvertError> {
    use eraftpb::ConfChangeType as From;
    use raftpb::ConfChangeType as To;
    let mut change = eraftpb::ConfChange::default();
    change.merge_from_bytes(data).map_err(|error| ConvertError::ConfChange { index, why: error.to_string() })?;
    let (kind, node_id, context) = match change.change_type {
        From::AddNode if change.node_id == 0 => {
            let (id, context) = unmark_update(&change.context).ok_or(ConvertError::NobodysConfChange(index))?;
            (To::ConfChangeUpdateNode, id, context)
        }
        From::AddNode => (To::ConfChangeAddNode, change.node_id, change.context),
        From::RemoveNode => (To::ConfChangeRemoveNode, change.node_id, change.context),
        From::AddLearnerNode => (To::ConfChangeAddLearnerNode, change.node_id, change.context),
    };
    Ok(raftpb::ConfChange { id: change.id, r#type: kind as i32, node_id, context })
}

/// Converts a ConfChange of etcd's, from a committed entry, for `RawNode::apply_conf_change`. `None` for an update,
/// which changes nothing that raft-rs knows, and for an unknown type.
pub fn conf_change_to_apply(change: &raftpb::ConfChange) -> Option<eraftpb::ConfChange> {
    use raftpb::ConfChangeType as From;
    let change_type = match From::try_from(change.r#type).ok()? {
        From::ConfChangeAddNode => eraftpb::ConfChangeType::AddNode,
        From::ConfChangeRemoveNode => eraftpb::ConfChangeType::RemoveNode,
        From::ConfChangeAddLearnerNode => eraftpb::ConfChangeType::AddLearnerNode,
        From::ConfChangeUpdateNode => return None,
    };
    Some(eraftpb::ConfChange { change_type, node_id: change.node_id, ..Default::default() })
}

/// The first byte of a marked context. A context of etcd's is JSON, so none begins with it.
const UPDATE: u8 = 0;

fn mark_update(id: u64, context: &Bytes) -> Bytes {
    let mut marked = BytesMut::with_capacity(9 + context.len());
    marked.put_u8(UPDATE);
    marked.put_u64(id);
    marked.put_slice(context);
    marked.freeze()
}

fn unmark_update(marked: &Bytes) -> Option<(u64, Bytes)> {
    let id: [u8; 8] = marked.get(1..9)?.try_into().ok()?;
    (marked[0] == UPDATE).then(|| (u64::from_be_bytes(id), marked.slice(9..)))
}

pub(crate) fn snapshot_from_raftpb(snapshot: raftpb::Snapshot) -> eraftpb::Snapshot {
    let mut out = eraftpb::Snapshot { data: snapshot.data, ..Default::default() };
    if let Some(metadata) = snapshot.metadata {
        let to = out.mut_metadata();
        to.index = metadata.index;
        to.term = metadata.term;
        to.set_conf_state(conf_state_from_raftpb(metadata.conf_state.unwrap_or_default()));
    }
    out
}

fn snapshot_to_raftpb(mut snapshot: eraftpb::Snapshot) -> raftpb::Snapshot {
    let metadata = snapshot.metadata.take().map(|mut metadata| raftpb::SnapshotMetadata {
        conf_state: metadata.conf_state.take().map(conf_state_to_raftpb),
        index: metadata.index,
        term: metadata.term,
    });
    raftpb::Snapshot { data: snapshot.data, metadata }
}

/// Converts the configuration of raft for raft-rs.
pub fn conf_state_from_raftpb(state: raftpb::ConfState) -> eraftpb::ConfState {
    eraftpb::ConfState {
        voters: state.voters,
        learners: state.learners,
        voters_outgoing: state.voters_outgoing,
        learners_next: state.learners_next,
        auto_leave: state.auto_leave,
        ..Default::default()
    }
}

/// Converts the configuration of raft for etcd.
pub fn conf_state_to_raftpb(state: eraftpb::ConfState) -> raftpb::ConfState {
    raftpb::ConfState {
        voters: state.voters,
        learners: state.learners,
        voters_outgoing: state.voters_outgoing,
        learners_next: state.learners_next,
        auto_leave: state.auto_leave,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conf_change(kind: raftpb::ConfChangeType) -> raftpb::Entry {
        let change = raftpb::ConfChange { id: 7, r#type: kind as i32, node_id: 0xab, context: "{\"id\":171}".into() };
        raftpb::Entry {
            r#type: raftpb::EntryType::EntryConfChange as i32,
            term: 3,
            index: 9,
            data: change.encode_to_vec().into(),
        }
    }

    #[test]
    fn a_conf_change_of_every_type_survives_the_way_there_and_back() {
        for kind in [
            raftpb::ConfChangeType::ConfChangeAddNode,
            raftpb::ConfChangeType::ConfChangeRemoveNode,
            raftpb::ConfChangeType::ConfChangeUpdateNode,
            raftpb::ConfChangeType::ConfChangeAddLearnerNode,
        ] {
            let entry = conf_change(kind);
            let there = entry_from_raftpb(entry.clone()).expect("a valid ConfChange");
            assert_eq!(entry_to_raftpb(there), Ok(entry), "{kind:?}");
        }
    }

    #[test]
    fn raft_rs_reads_a_learner_as_a_learner_and_an_update_as_nothing() {
        let applied = |kind| {
            let entry = entry_from_raftpb(conf_change(kind)).expect("a valid ConfChange");
            let mut change = eraftpb::ConfChange::default();
            change.merge_from_bytes(&entry.data).expect("raft-rs's own bytes");
            (change.change_type, change.node_id)
        };
        use raftpb::ConfChangeType as T;
        assert_eq!(applied(T::ConfChangeAddLearnerNode), (eraftpb::ConfChangeType::AddLearnerNode, 0xab));
        assert_eq!(applied(T::ConfChangeUpdateNode), (eraftpb::ConfChangeType::AddNode, 0));
    }

    #[test]
    fn what_is_applied_is_what_raft_rs_knows_of_a_change() {
        use raftpb::ConfChangeType as T;
        let applied = |kind: i32| {
            let change = raftpb::ConfChange { id: 7, r#type: kind, node_id: 0xab, context: Bytes::new() };
            conf_change_to_apply(&change).map(|change| (change.change_type, change.node_id))
        };
        use eraftpb::ConfChangeType as Applied;
        assert_eq!(applied(T::ConfChangeAddNode as i32), Some((Applied::AddNode, 0xab)));
        assert_eq!(applied(T::ConfChangeRemoveNode as i32), Some((Applied::RemoveNode, 0xab)));
        assert_eq!(applied(T::ConfChangeAddLearnerNode as i32), Some((Applied::AddLearnerNode, 0xab)));
        assert_eq!(applied(T::ConfChangeUpdateNode as i32), None);
        assert_eq!(applied(4), None);
    }

    #[test]
    fn a_conf_change_in_a_proposal_is_translated_too() {
        let message = raftpb::Message {
            r#type: raftpb::MessageType::MsgProp as i32,
            from: 1,
            to: 2,
            entries: vec![conf_change(raftpb::ConfChangeType::ConfChangeAddLearnerNode)],
            ..Default::default()
        };
        let there = message_from_raftpb(message.clone()).expect("a valid proposal");
        assert_ne!(there.entries[0].data, message.entries[0].data);
        assert_eq!(message_to_raftpb(there), Ok(message));
    }

    #[test]
    fn what_raft_rs_would_panic_on_or_misread_is_refused() {
        let with = |change: fn(&mut raftpb::Entry)| {
            let mut entry = conf_change(raftpb::ConfChangeType::ConfChangeAddNode);
            change(&mut entry);
            entry_from_raftpb(entry).expect_err("must be refused")
        };
        assert!(matches!(with(|entry| entry.data = "\u{7f}garbage".into()), ConvertError::ConfChange { index: 9, .. }));
        assert_eq!(with(|entry| entry.data = Bytes::new()), ConvertError::NobodysConfChange(9));
        assert_eq!(with(|entry| entry.r#type = 2), ConvertError::ConfChangeV2(9));
        assert_eq!(with(|entry| entry.r#type = 3), ConvertError::EntryType { index: 9, kind: 3 });
        let unknown = raftpb::ConfChange { r#type: 4, node_id: 1, ..Default::default() }.encode_to_vec();
        let entry = raftpb::Entry { r#type: 1, index: 5, data: unknown.into(), term: 1 };
        assert_eq!(entry_from_raftpb(entry), Err(ConvertError::ConfChangeType { index: 5, kind: 4 }));
    }

    #[test]
    fn message_types_that_never_leave_a_process_are_refused() {
        for kind in 19..40 {
            let message = raftpb::Message { r#type: kind, ..Default::default() };
            assert_eq!(message_from_raftpb(message), Err(ConvertError::MessageType(kind)));
        }
    }

    #[test]
    fn every_message_type_of_the_wire_has_its_counterpart() {
        for kind in 0..19 {
            let message = raftpb::Message { r#type: kind, from: 1, to: 2, term: 3, ..Default::default() };
            let there = message_from_raftpb(message.clone()).expect("a type of the wire");
            assert_eq!(message_to_raftpb(there), Ok(message));
        }
    }

    #[test]
    fn what_only_raft_rs_knows_does_not_reach_the_wire() {
        let vote = eraftpb::Message {
            msg_type: eraftpb::MessageType::MsgRequestVote,
            commit: 5,
            commit_term: 6,
            priority: 7,
            deprecated_priority: 8,
            ..Default::default()
        };
        let sent = message_to_raftpb(vote).expect("no entries");
        assert_eq!(sent, raftpb::Message { r#type: 5, ..Default::default() });
    }

    #[test]
    fn a_snapshot_keeps_its_membership() {
        let conf_state = raftpb::ConfState { voters: vec![1, 2], learners: vec![3], ..Default::default() };
        let metadata = raftpb::SnapshotMetadata { conf_state: Some(conf_state), index: 11, term: 4 };
        let message = raftpb::Message {
            r#type: raftpb::MessageType::MsgSnap as i32,
            snapshot: Some(raftpb::Snapshot { data: "x".into(), metadata: Some(metadata) }.into()),
            ..Default::default()
        };
        let there = message_from_raftpb(message.clone()).expect("a snapshot");
        assert_eq!(message_to_raftpb(there), Ok(message));
    }
}
