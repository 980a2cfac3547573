//! Listeners for URLs: one for all that mean the same socket.

use std::{io, net::TcpListener};

use crate::{dial::urls::PeerUrl, world};

/// A listener that is bound, and the URLs that it is for: at least one.
#[derive(Debug)]
pub struct Bound {
    /// The socket.
    pub listener: TcpListener,
    /// What it listens for.
    pub urls: Vec<PeerUrl>,
}

/// Why a URL cannot be listened on: its address is in use, or not this machine's.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {url}: {error}")]
pub struct BindError {
    /// Where.
    pub url: PeerUrl,
    /// Why.
    pub error: io::Error,
}

/// Listens on `urls`, without serving anybody yet. `0.0.0.0` and `[::]` both are every address of the machine, of both
/// families where the kernel has them, as in Go; URLs that mean the same socket get one.
///
/// # Errors
/// With the first URL that cannot be listened on.
pub fn bind(urls: &[PeerUrl]) -> Result<Vec<Bound>, BindError> {
    let wanted: Vec<_> = urls.iter().map(|url| (url.host(), url.port())).collect();
    let taken = world::take(&wanted).map_err(|(place, error)| BindError { url: urls[place].clone(), error })?;
    let bound = |taken: world::Taken| Bound {
        listener: taken.listener,
        urls: taken.of.into_iter().map(|place| urls[place].clone()).collect(),
    };
    Ok(taken.into_iter().map(bound).collect())
}
