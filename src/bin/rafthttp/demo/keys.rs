//! Keys, written and read at one member or another.

use bytes::Bytes;
use http::{Method, StatusCode};

use crate::client::Client;

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Committed and applied.
    Committed,
    /// Certainly not written: no leader, or too many requests.
    Refused,
    /// It may or may not be written.
    Unknown,
}

/// Writes and reads keys.
#[derive(Clone, Debug)]
pub(super) struct Keys(Client);

impl Keys {
    pub(super) fn new(client: Client) -> Self {
        Self(client)
    }

    /// Writes a value through the member at `url`.
    pub(super) async fn put(&self, url: &str, key: &str, value: String) -> Outcome {
        match self.0.ask(Method::PUT, format!("{url}/kv/{key}"), value.into()).await {
            Ok((StatusCode::NO_CONTENT, _)) => Outcome::Committed,
            Ok((StatusCode::SERVICE_UNAVAILABLE, _)) => Outcome::Refused,
            Ok(_) | Err(_) => Outcome::Unknown,
        }
    }

    /// The value that the member at `url` itself holds, without asking the others; none when it holds none.
    pub(super) async fn local_value(&self, url: &str, key: &str) -> Option<Bytes> {
        let answer = self.0.ask(Method::GET, format!("{url}/kv/{key}?consistency=local"), Bytes::new()).await;
        answer.ok().and_then(|(status, body)| (status == StatusCode::OK).then_some(body))
    }
}
