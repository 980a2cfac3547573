//! The identity of this member: what its transport does not know.

use std::sync::Arc;

use serde::Serialize;

use crate::id::MemberId;

/// Returns the identity of this member. It is called once for every request, so it must only look at what is known
/// already.
pub type AboutSource = Arc<dyn Fn() -> About + Send + Sync>;

/// The state of a member that its transport does not know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct About {
    /// Its name. Empty if it has none.
    pub name: String,
    /// The state of its raft. `None` if it runs none.
    pub raft: Option<RaftView>,
}

/// The state of a member's raft, as of its last turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct RaftView {
    /// Its role.
    pub role: Role,
    /// Its term.
    pub term: u64,
    /// The leader that it knows, which may be itself. `None` while there is none.
    pub leader: Option<MemberId>,
    /// The index of the last entry that it knows to be committed.
    pub commit: u64,
    /// The index of the last entry that it has applied.
    pub applied: u64,
}

/// The role of a member in its term.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// It is the leader.
    Leader,
    /// It follows a leader, or waits for one.
    Follower,
    /// It stands for election.
    Candidate,
    /// It asks whether it would be elected, before it stands for election.
    PreCandidate,
    /// It has no vote.
    Learner,
}
