//! Why raft does not take a message. Each such message is counted by its cause.

use super::Core;
use crate::{
    id::MemberId,
    node::guard::MessageRefusal,
    transport::raft::{RejectionKind, Source},
    wire::raftpb::MessageType,
};

/// Why raft did not take a message.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::node) struct NotTaken {
    pub(in crate::node) kind: RejectionKind,
    /// One of [`CAUSES`].
    pub(super) cause: &'static str,
    pub(in crate::node) why: String,
}

/// All causes, as the metrics name them.
pub(in crate::node) static CAUSES: [&str; 24] = [
    "not_for_us",
    "not_from_peer",
    "type",
    "term",
    "entry",
    "contradicts_committed",
    "differs",
    "commit",
    "acknowledges",
    "proposal",
    "read_index",
    "context",
    "not_leader",
    "snapshot",
    "removed_member",
    "removal",
    "lost_data",
    "halted",
    "suspended",
    "without_body",
    "unreadable",
    "not_a_member",
    "dropped",
    "raft",
];

impl NotTaken {
    pub(super) fn refused(cause: &'static str, why: &impl ToString) -> Self {
        Self { kind: RejectionKind::Refused, cause, why: why.to_string() }
    }

    pub(super) fn failed(cause: &'static str, why: &impl ToString) -> Self {
        Self { kind: RejectionKind::Failed, cause, why: why.to_string() }
    }
}

impl From<&MessageRefusal> for NotTaken {
    fn from(refusal: &MessageRefusal) -> Self {
        Self::refused(refusal.cause(), refusal)
    }
}

impl Core {
    /// Passes on the result for a message. If raft did not take the message, it is counted by its cause.
    pub(super) fn counted<T>(
        &mut self,
        peer: MemberId,
        source: Source,
        kind: i32,
        outcome: Result<T, NotTaken>,
    ) -> Result<T, NotTaken> {
        outcome.inspect_err(|not_taken| self.note(peer, source, kind, not_taken))
    }

    /// A message on a member's stream that is not taken is also logged.
    fn note(&mut self, peer: MemberId, source: Source, kind: i32, not_taken: &NotTaken) {
        let NotTaken { cause, why, .. } = not_taken;
        self.shared.refused(cause);
        if source != Source::Member {
            return;
        }
        if kind == MessageType::MsgApp as i32 && peer.0 == self.raw.raft.leader_id {
            self.following.refused();
        }
        if let Some(times) = self.refusals.note() {
            let kind = MessageType::try_from(kind).map_or("unknown", |kind| kind.as_str_name());
            tracing::warn!(%peer, kind, cause, why, times, "messages of a member are not taken");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_has_one_name() {
        let mut names = CAUSES.to_vec();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), CAUSES.len());
        for refusal in [
            MessageRefusal::Removal,
            MessageRefusal::Reads,
            MessageRefusal::Differs(1),
            MessageRefusal::LostData { commit: 2, last: 1 },
        ] {
            assert!(CAUSES.contains(&NotTaken::from(&refusal).cause), "{refusal}");
        }
    }
}
