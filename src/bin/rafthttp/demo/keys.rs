//! Writes and reads keys at one member or another.

use bytes::Bytes;
use http::{Method, StatusCode};

use crate::client::MemberClient;

/// The outcome of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WriteOutcome {
    /// The write is committed and applied.
    Committed,
    /// The write certainly did not happen: there is no leader, or there were too many requests.
    Refused,
    /// The write may or may not have happened.
    Unknown,
}

/// Writes and reads keys.
#[derive(Clone, Debug)]
pub(super) struct Keys(MemberClient);

impl Keys {
    pub(super) fn new(client: MemberClient) -> Self {
        Self(client)
    }

    /// Writes a value through the member at `url`.
    pub(super) async fn put(&self, url: &str, key: &str, value: String) -> WriteOutcome {
        match self.0.ask(Method::PUT, format!("{url}/kv/{key}"), value.into()).await {
            Ok((StatusCode::NO_CONTENT, _)) => WriteOutcome::Committed,
            Ok((StatusCode::SERVICE_UNAVAILABLE, _)) => WriteOutcome::Refused,
            Ok(_) | Err(_) => WriteOutcome::Unknown,
        }
    }

    /// The value that the member at `url` holds itself, without asking the others. `None` if it holds none.
    pub(super) async fn local_value(&self, url: &str, key: &str) -> Option<Bytes> {
        let answer = self.0.ask(Method::GET, format!("{url}/kv/{key}?consistency=local"), Bytes::new()).await;
        answer.ok().and_then(|(status, body)| (status == StatusCode::OK).then_some(body))
    }
}
