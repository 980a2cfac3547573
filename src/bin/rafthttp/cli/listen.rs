//! Binding what the flags say.

use std::net::TcpListener;

use rafthttp::server::{BindError, Bound, bind};

use super::Failure;
use crate::config::HttpUrl;

/// Binds a listener for each socket that the URLs of a flag mean.
pub(super) fn listen(flag: &'static str, urls: &[HttpUrl]) -> Result<Vec<TcpListener>, Failure> {
    let urls: Vec<_> = urls.iter().map(|url| url.as_peer_url().clone()).collect();
    let failed =
        |BindError { url, error }: BindError| Failure::failed(format!("cannot listen on {url} (--{flag}): {error}"));
    let bound = bind(&urls).map_err(failed)?;
    Ok(bound.into_iter().map(|Bound { listener, .. }| listener).collect())
}
