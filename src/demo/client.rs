//! A client of the members.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::{
    client::legacy::{self, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::time::timeout;

/// How long an answer may take. A member gives up earlier, and says then what it knows of the outcome.
const ANSWER: Duration = Duration::from_secs(15);
/// Bytes of an answer that are read: values here are short.
const ANSWER_BYTES: usize = 64 << 10;

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

/// Talks to members over kept connections.
#[derive(Clone, Debug)]
pub(super) struct Client(legacy::Client<HttpConnector, Full<Bytes>>);

impl Client {
    pub(super) fn new() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        Self(legacy::Client::builder(TokioExecutor::new()).build(connector))
    }

    /// Writes a value through the member at `url`.
    pub(super) async fn put(&self, url: &str, key: &str, value: String) -> Outcome {
        match self.ask(Method::PUT, format!("{url}/kv/{key}"), value.into()).await {
            Some((StatusCode::NO_CONTENT, _)) => Outcome::Committed,
            Some((StatusCode::SERVICE_UNAVAILABLE, _)) => Outcome::Refused,
            Some(_) | None => Outcome::Unknown,
        }
    }

    /// The value that the member at `url` itself holds, without asking the others; none when it holds none.
    pub(super) async fn local_value(&self, url: &str, key: &str) -> Option<Bytes> {
        let answer = self.ask(Method::GET, format!("{url}/kv/{key}?consistency=local"), Bytes::new()).await;
        answer.and_then(|(status, body)| (status == StatusCode::OK).then_some(body))
    }

    async fn ask(&self, method: Method, url: String, body: Bytes) -> Option<(StatusCode, Bytes)> {
        let request = Request::builder().method(method).uri(url).body(Full::new(body)).ok()?;
        let exchange = async {
            let (head, body) = self.0.request(request).await.ok()?.into_parts();
            let body = Limited::new(body, ANSWER_BYTES).collect().await.ok()?.to_bytes();
            Some((head.status, body))
        };
        timeout(ANSWER, exchange).await.ok().flatten()
    }
}
