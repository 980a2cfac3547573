//! Serves the admin endpoints.

use std::time::Duration;

use axum::Router;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::server::{ConnectionLimits, Server};

/// Connections at a time; the oldest makes room for the newest. A few scrapers, probes and browsers need no more.
const CONNECTIONS: usize = 64;
/// How long a request's head may take, and how long a connection may be idle.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of a request's head.
const HEAD_BYTES: usize = 16 << 10;
/// How long answers under way may take once we stop.
const GRACE: Duration = Duration::from_secs(2);

/// Serves `router` on `listener` until `stop`; returns when every connection has ended. [`server`] without TLS.
pub async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) {
    server(router).serve(listener, stop).await;
}

/// A server of `router` within the bounds of a port that a few look at: 64 connections, 16 of them from one address, the
/// length of a request's head and the time for it; a client that does not read its answer is cut off. With
/// [`Server::tls`] it speaks TLS alone, and says so to who does not.
pub fn server(router: Router) -> Server {
    let limits = ConnectionLimits {
        total: CONNECTIONS,
        head_bytes: HEAD_BYTES,
        head_timeout: HEAD_TIMEOUT,
        grace: GRACE,
        ..ConnectionLimits::default()
    };
    Server::new(router).limits(limits).answer_plain()
}
