//! Who this member is: what its transport does not know of itself.

use std::sync::Arc;

use serde::Serialize;

use crate::id::MemberId;

/// Says who this member is. Called once for every request, so it only looks at what is known already.
pub type AboutSource = Arc<dyn Fn() -> About + Send + Sync>;

/// A member, beside what its transport knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct About {
    /// Its name; empty where it has none.
    pub name: String,
    /// Its raft; none where it runs none.
    pub raft: Option<RaftView>,
}

/// The state of a member's raft, as of its last turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct RaftView {
    /// Its role.
    pub role: Role,
    /// Its term.
    pub term: u64,
    /// Whom it follows, itself where it leads; none while nobody leads.
    pub leader: Option<MemberId>,
    /// The last entry that it knows to be committed.
    pub commit: u64,
    /// The last entry that it has applied.
    pub applied: u64,
}

/// The role of a member in its term.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// It leads.
    Leader,
    /// It follows a leader, or waits for one.
    Follower,
    /// It stands for election.
    Candidate,
    /// It asks whether it would be elected.
    PreCandidate,
    /// It has no vote.
    Learner,
}
