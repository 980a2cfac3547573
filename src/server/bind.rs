//! Listeners for URLs: one listener for all URLs that mean the same socket.

use std::{io, net::TcpListener};

use crate::{dial::urls::PeerUrl, world};

/// A bound listener, and the URLs that it serves: at least one.
#[derive(Debug)]
#[non_exhaustive]
pub struct Bound {
    /// The socket.
    pub listener: TcpListener,
    /// The URLs that it serves.
    pub urls: Vec<PeerUrl>,
}

/// A URL cannot be listened on: its address is in use, or does not belong to this machine.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {url}: {error}")]
#[non_exhaustive]
pub struct BindError {
    /// The URL.
    pub url: PeerUrl,
    /// The reason.
    pub error: io::Error,
}

/// Listens on `urls`, without serving anybody yet. `0.0.0.0` and `[::]` both mean every address of the machine, of both
/// families if the kernel has them, as in Go. URLs that mean the same socket share one.
///
/// # Errors
/// Returns the first URL that cannot be listened on.
pub fn bind(urls: &[PeerUrl]) -> Result<Vec<Bound>, BindError> {
    let wanted: Vec<_> = urls.iter().map(|url| (url.host(), url.port())).collect();
    let taken = world::take(&wanted).map_err(|(place, error)| BindError { url: urls[place].clone(), error })?;
    let bound = |taken: world::TakenSocket| Bound {
        listener: taken.listener,
        urls: taken.of.into_iter().map(|place| urls[place].clone()).collect(),
    };
    Ok(taken.into_iter().map(bound).collect())
}
