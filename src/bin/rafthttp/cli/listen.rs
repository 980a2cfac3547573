//! Binding what the flags say.

use std::{io, net::TcpListener};

use super::Failure;
use crate::config::HttpUrl;

/// Binds a listener for each URL of a flag.
pub(super) fn listen(flag: &'static str, urls: &[HttpUrl]) -> Result<Vec<TcpListener>, Failure> {
    let bind = |url: &HttpUrl| {
        let failed = |error: io::Error| Failure::failed(format!("cannot listen on {url} (--{flag}): {error}"));
        TcpListener::bind(url.authority()).map_err(failed)
    };
    urls.iter().map(bind).collect()
}
