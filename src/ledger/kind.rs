//! The types of messages.

use crate::wire::raftpb::MessageType;

/// The type of a message, as it is counted: one of raftpb's types, or any other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageKind(u8);

impl MessageKind {
    /// Every kind: etcd's 24, and one for all unknown types.
    pub const ALL: [Self; 25] = {
        let mut all = [Self(0); 25];
        let mut place = 0;
        while place < 25 {
            all[place as usize] = Self(place);
            place += 1;
        }
        all
    };
    /// Any type that raftpb does not know.
    pub const OTHER: Self = Self::ALL[Self::ALL.len() - 1];

    /// The kind of a message's `type`.
    #[inline]
    pub fn of(message_type: i32) -> Self {
        u8::try_from(message_type).ok().map(Self).filter(|kind| *kind < Self::OTHER).unwrap_or(Self::OTHER)
    }

    /// Its place in [`Self::ALL`].
    #[inline]
    pub(super) const fn index(self) -> usize {
        self.0 as usize
    }

    /// The value of the label `type`, as raftpb writes it (`MsgApp`), or `other`.
    pub const fn label(self) -> &'static str {
        const LABELS: [&str; MessageKind::ALL.len()] = [
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
        LABELS[self.index()]
    }
}

const _: () = assert!(MessageKind::ALL.len() == MessageType::MsgForgetLeader as usize + 2, "each type has a kind");

impl From<MessageType> for MessageKind {
    #[inline]
    fn from(message_type: MessageType) -> Self {
        Self::of(message_type as i32)
    }
}

impl PartialEq<MessageType> for MessageKind {
    #[inline]
    fn eq(&self, other: &MessageType) -> bool {
        *self == Self::from(*other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_type_has_its_name_and_what_is_no_type_is_other() {
        for message_type in 0..24 {
            let known = MessageType::try_from(message_type).expect("raftpb knows it");
            assert_eq!(MessageKind::from(known).label(), format!("{known:?}"));
        }
        for unknown in [-1, 24, 25, 280, i32::MIN, i32::MAX] {
            assert_eq!(MessageKind::of(unknown), MessageKind::OTHER);
        }
        assert_eq!(MessageKind::OTHER.label(), "other");
    }
}
