//! A client of members, at their client URLs.

use std::{error::Error, time::Duration};

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
/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(2);
/// Bytes of an answer that are read: values and lists here are short.
const ANSWER_BYTES: usize = 64 << 10;

/// Talks to members over kept connections.
#[derive(Clone, Debug)]
pub(crate) struct Client(legacy::Client<HttpConnector, Full<Bytes>>);

impl Client {
    pub(crate) fn new() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT));
        Self(legacy::Client::builder(TokioExecutor::new()).build(connector))
    }

    /// One request; the status and the body of its answer.
    pub(crate) async fn ask(&self, method: Method, url: String, body: Bytes) -> Result<(StatusCode, Bytes), AskError> {
        let request = Request::builder().method(method).uri(url).body(Full::new(body));
        let request = request.map_err(|error| AskError::NotAsked(error.to_string()))?;
        let exchange = async {
            let answer = self.0.request(request).await.map_err(AskError::of)?;
            let (head, body) = answer.into_parts();
            let body = Limited::new(body, ANSWER_BYTES).collect().await;
            let body = body.map_err(|error| AskError::NoAnswer(error.to_string()))?.to_bytes();
            Ok((head.status, body))
        };
        let late = || AskError::NoAnswer(format!("none within {} s", ANSWER.as_secs()));
        timeout(ANSWER, exchange).await.unwrap_or_else(|_| Err(late()))
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    /// Nobody was asked: another member may be.
    #[error("cannot be reached: {0}")]
    NotAsked(String),
    /// It was asked; nobody knows what it did.
    #[error("no answer: {0}")]
    NoAnswer(String),
}

impl AskError {
    fn of(error: legacy::Error) -> Self {
        let connect = error.is_connect();
        let mut innermost: &dyn Error = &error;
        while let Some(source) = innermost.source() {
            innermost = source;
        }
        let why = innermost.to_string();
        if connect { Self::NotAsked(why) } else { Self::NoAnswer(why) }
    }
}
