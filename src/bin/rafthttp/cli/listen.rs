//! Binds the listeners of the flags.

use rafthttp::{
    Tls,
    server::{BindError, bind},
};

use super::Failure;
use crate::{config::ListenUrl, serving::MetricsListener};

/// The flag of the clients' URLs.
pub(super) const CLIENTS: &str = "listen-client-urls";
/// The flag of the metrics' URLs.
pub(super) const METRICS: &str = "listen-metrics-urls";

/// Binds a metrics listener for each socket that the URLs mean. `tls` has the certificates for the https ones.
pub(super) fn listen_for_metrics(urls: &[ListenUrl], tls: Option<Tls>) -> Result<Vec<MetricsListener>, Failure> {
    let urls: Vec<_> = urls.iter().map(|url| url.as_peer_url().clone()).collect();
    let failed = |BindError { url, error, .. }: BindError| {
        Failure::failed(format!("cannot listen on {url} (--{METRICS}): {error}"))
    };
    let listener = |bound: rafthttp::server::Bound| {
        let is_tls = |url: &&rafthttp::PeerUrl| url.is_tls();
        match (bound.urls.iter().find(is_tls), bound.urls.iter().find(|url| !url.is_tls())) {
            (Some(one), Some(other)) => {
                Err(Failure::failed(format!("{one} and {other} (--{METRICS}) are one socket: expected one scheme")))
            }
            (one, _) => Ok(MetricsListener { tls: tls.clone().filter(|_| one.is_some()), listener: bound.listener }),
        }
    };
    bind(&urls).map_err(failed)?.into_iter().map(listener).collect()
}
