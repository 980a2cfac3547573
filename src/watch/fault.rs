//! What is wrong with what a member answers.

use http::StatusCode;

use crate::id::{ClusterId, MemberId};

/// What is wrong with an answer, in one line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    /// No answer came.
    #[error("{path}: {why}")]
    NoAnswer { path: &'static str, why: String },
    /// A client URL was asked.
    #[error("/members answered 404 Not Found, as a client URL does: peer URLs are asked")]
    ClientUrl,
    /// The answer says no.
    #[error("{path} answered {status}")]
    Status { path: &'static str, status: StatusCode },
    /// The answer does not say of which cluster it is.
    #[error("/members told no cluster ID")]
    NoCluster,
    /// The member is of another cluster. `role` says what `wanted` is to us.
    #[error("answers for another cluster: {cluster}, {role} is {wanted}")]
    Foreign { cluster: ClusterId, wanted: ClusterId, role: &'static str },
    /// The answer cannot be read.
    #[error("/members told no list of members: {0}")]
    NoList(String),
    /// Nobody, or too many.
    #[error("/members told of {told} members: expected 1 to {most}")]
    Members { told: usize, most: usize },
    /// IDs that no list of members has.
    #[error("/members told of a member {0} twice, or of nobody")]
    Twice(MemberId),
    /// A member with more than a member has.
    #[error("/members told of {member} with more than {urls} URLs or {name} bytes of a name")]
    TooMuch { member: MemberId, urls: usize, name: usize },
    /// The answer cannot be read.
    #[error("/version told no version")]
    NoVersion,
}

impl Fault {
    /// As it is told of a seed: that is asked for nothing but its members, so the path says nothing.
    pub(super) fn of_a_seed(self) -> String {
        match self {
            Self::NoAnswer { why, .. } => why,
            fault => fault.to_string(),
        }
    }
}
