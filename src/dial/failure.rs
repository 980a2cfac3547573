//! Why a dial failed, or a POST got no answer, and how each failure is counted.

use std::{
    error::Error,
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use crate::{
    dial::{io::ANSWER_HEAD, resolver::LookupError, urls::PeerUrl},
    ledger::{AttemptResult, ProbeResult},
    tls::{HandshakeError, HandshakeReason},
};

/// How long a POST waits for its answer once its body is written.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a peer could not be dialled.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    /// The name could not be resolved.
    #[error(transparent)]
    Dns(#[from] LookupError),
    /// No address accepted the connection. This is the reason of the last one.
    #[error("connect to {address}: {error}")]
    Connect {
        /// The address.
        address: SocketAddr,
        /// The socket's error.
        error: io::Error,
    },
    /// No connection within the timeout, over all addresses.
    #[error("connect to {address}: no answer within {after:?}")]
    Timeout {
        /// The address that was being tried when the time ran out.
        address: SocketAddr,
        /// How much time that address had: with several addresses, its share of the timeout.
        after: Duration,
    },
    /// The URL was reported by a request from another address than its host has.
    #[error(
        "{url} is not dialled: its host does not have the address {only}, from which the request with this URL came"
    )]
    Elsewhere {
        /// The reported URL.
        url: PeerUrl,
        /// The address that the request came from.
        only: IpAddr,
    },
    /// The TLS handshake with this peer failed.
    #[error("TLS with {address}: {error}")]
    Tls {
        /// The address.
        address: SocketAddr,
        /// Why it failed.
        error: HandshakeError,
    },
    /// The URL is `https`, and there is no trusted CA to verify the peer by.
    #[error("{0} needs TLS: no trusted CA is configured to verify it by")]
    NoTls(PeerUrl),
    /// The HTTP connection could not be set up.
    #[error("HTTP with {address}: {error}")]
    Http {
        /// The address.
        address: SocketAddr,
        /// hyper's error.
        error: hyper::Error,
    },
}

impl DialError {
    /// The result under which the dial of a stream is counted.
    pub(crate) fn attempt_result(&self) -> AttemptResult {
        match self {
            Self::Dns(_) | Self::Connect { .. } | Self::Elsewhere { .. } | Self::Http { .. } => {
                AttemptResult::Unreachable
            }
            Self::Timeout { .. } => AttemptResult::Timeout,
            Self::Tls { error, .. } if error.reason() == HandshakeReason::Timeout => AttemptResult::Timeout,
            Self::Tls { .. } | Self::NoTls(_) => AttemptResult::Tls,
        }
    }

    /// The result under which a probe is counted.
    pub(crate) fn probe_result(&self) -> ProbeResult {
        match self {
            Self::Dns(_) => ProbeResult::Dns,
            Self::Connect { .. } | Self::Elsewhere { .. } | Self::Http { .. } => ProbeResult::Connect,
            Self::Timeout { .. } => ProbeResult::Timeout,
            Self::Tls { error, .. } if error.reason() == HandshakeReason::Timeout => ProbeResult::Timeout,
            Self::Tls { .. } | Self::NoTls(_) => ProbeResult::Tls,
        }
    }
}

/// Why a POST got no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PostError {
    /// The dial failed.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The request cannot be built: the URL does not fit into a header.
    #[error("request to {url}: {error}")]
    Request {
        /// The URL of the request.
        url: PeerUrl,
        /// Why it cannot be built.
        error: http::Error,
    },
    /// The peer stopped reading.
    #[error("the peer took no byte within the write deadline")]
    Stalled,
    /// The peer took the request and did not answer.
    #[error("no answer within {ANSWER_TIMEOUT:?}")]
    NoAnswer,
    /// The head of the answer is too long.
    #[error("no answer: its head is longer than {ANSWER_HEAD} bytes")]
    Head,
    /// The connection broke.
    #[error("no answer: {}", innermost(.0))]
    Broken(hyper::Error),
}

/// The last cause of an error. hyper's own text says only in which step it happened.
pub(crate) fn innermost(error: &(dyn Error + 'static)) -> String {
    causes(error).last().map(ToString::to_string).unwrap_or_default()
}

fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    let mut next = Some(error);
    std::iter::from_fn(move || {
        let cause = next?;
        next = cause.source();
        Some(cause)
    })
}
