//! Errors in what a member answers.

use http::StatusCode;

use crate::id::{ClusterId, MemberId};

/// An error in an answer, in one line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum WatchFault {
    /// There was no answer.
    #[error("{path}: {why}")]
    NoAnswer { path: &'static str, why: String },
    /// The request went to a client URL.
    #[error("/members answered 404 Not Found, as a client URL does: expected a peer URL")]
    ClientUrl,
    /// The status of the answer is not 200.
    #[error("{path} answered {status}")]
    Status { path: &'static str, status: StatusCode },
    /// The answer names no cluster.
    #[error("the answer to /members has no cluster ID")]
    NoCluster,
    /// The member belongs to another cluster. `role` says what the cluster `wanted` is to us.
    #[error("answers for another cluster: {cluster}, {role} is {wanted}")]
    Foreign { cluster: ClusterId, wanted: ClusterId, role: &'static str },
    /// The list of members cannot be parsed.
    #[error("the answer to /members is not a list of members: {0}")]
    NoList(String),
    /// The list has no members, or too many.
    #[error("the answer to /members has {told} members: expected 1 to {most}")]
    Members { told: usize, most: usize },
    /// The list contains IDs that no real list has.
    #[error("the answer to /members has member {0} twice, or a member without an ID")]
    Twice(MemberId),
    /// A member in the list has more URLs or a longer name than any real member.
    #[error(
        "the answer to /members has member {member} with more than {urls} URLs or a name of more than {name} bytes"
    )]
    TooMuch { member: MemberId, urls: usize, name: usize },
    /// The version cannot be parsed.
    #[error("the answer to /version has no version")]
    NoVersion,
}

impl WatchFault {
    /// The error in the words for a seed. A seed is asked only for its members, so the path is left out.
    pub(super) fn of_a_seed(self) -> String {
        match self {
            Self::NoAnswer { why, .. } => why,
            fault => fault.to_string(),
        }
    }
}
