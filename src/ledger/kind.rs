//! The types of messages that are told apart.

/// How many kinds of messages are told apart: etcd's 24 and one for those that it does not know.
pub const KINDS: usize = 25;

/// The index of a message's type in the ledger's arrays; types that raftpb does not know share the last.
pub fn kind_index(message_type: i32) -> usize {
    usize::try_from(message_type).unwrap_or(KINDS - 1).min(KINDS - 1)
}

/// The label `type` for an index of the ledger's arrays, as raftpb writes it (`MsgApp`), or `other`.
pub fn kind_label(index: usize) -> &'static str {
    const LABELS: [&str; KINDS] = [
        "MsgHup",
        "MsgBeat",
        "MsgProp",
        "MsgApp",
        "MsgAppResp",
        "MsgVote",
        "MsgVoteResp",
        "MsgSnap",
        "MsgHeartbeat",
        "MsgHeartbeatResp",
        "MsgUnreachable",
        "MsgSnapStatus",
        "MsgCheckQuorum",
        "MsgTransferLeader",
        "MsgTimeoutNow",
        "MsgReadIndex",
        "MsgReadIndexResp",
        "MsgPreVote",
        "MsgPreVoteResp",
        "MsgStorageAppend",
        "MsgStorageAppendResp",
        "MsgStorageApply",
        "MsgStorageApplyResp",
        "MsgForgetLeader",
        "other",
    ];
    LABELS[index.min(KINDS - 1)]
}
