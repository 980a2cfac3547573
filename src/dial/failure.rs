//! Why a peer could not be dialled, or a POST has no answer; and how each is counted.

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

/// How long a POST waits for its answer once its body is out.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a peer could not be dialled.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    /// The name has no address.
    #[error(transparent)]
    Dns(#[from] LookupError),
    /// No address took the connection; the last one's reason.
    #[error("connect to {address}: {error}")]
    Connect {
        /// The address.
        address: SocketAddr,
        /// The socket's error.
        error: io::Error,
    },
    /// No connection within the time-out, over all addresses.
    #[error("connect to {address}: no answer within {after:?}")]
    Timeout {
        /// The address that was tried when time ran out.
        address: SocketAddr,
        /// The time that it had: with several addresses, its share of the time-out.
        after: Duration,
    },
    /// The host is not at the address that told of it.
    #[error("{url} is not dialled: its host is not at {only}, where the one who told of it asked from")]
    Elsewhere {
        /// What was told.
        url: PeerUrl,
        /// Where the request came from that told it.
        only: IpAddr,
    },
    /// No TLS with this peer.
    #[error("TLS with {address}: {error}")]
    Tls {
        /// The address.
        address: SocketAddr,
        /// What went wrong.
        error: HandshakeError,
    },
    /// `https`, and we have nothing to verify the peer by.
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
    /// As the attempt of a stream counts it.
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

    /// As a probe counts it.
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

/// Why a POST has no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PostError {
    /// No connection.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The request cannot be written down: a URL that is no header value.
    #[error("request to {url}: {error}")]
    Request {
        /// Where it should go.
        url: PeerUrl,
        /// What is wrong with it.
        error: http::Error,
    },
    /// The peer stopped reading.
    #[error("the peer took no byte within the write deadline")]
    Stalled,
    /// The peer took it and did not answer.
    #[error("no answer within {ANSWER_TIMEOUT:?}")]
    NoAnswer,
    /// The head of the answer has no end.
    #[error("no answer: its head is longer than {ANSWER_HEAD} bytes")]
    Head,
    /// The connection broke.
    #[error("no answer: {}", innermost(.0))]
    Broken(hyper::Error),
}

/// The last cause of an error: hyper's own text says only in which step it happened.
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
