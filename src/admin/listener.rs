//! Serves the admin endpoints.

use std::time::Duration;

use axum::Router;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::server::{ConnectionLimits, Server};

/// The most connections at a time. A new connection replaces the oldest one. A few scrapers, probes and browsers need
/// no more.
const CONNECTIONS: usize = 64;
/// How long a request's head may take, and how long a connection may be idle.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest head of a request, in bytes.
const HEAD_BYTES: usize = 16 << 10;
/// How long answers under way may take after the stop.
const GRACE: Duration = Duration::from_secs(2);

/// Serves `router` on `listener` until `stop`, and returns when every connection has ended. It is [`server`] without
/// TLS.
pub async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) {
    server(router).serve(listener, stop).await;
}

/// A server of `router` with the limits of a port that has few users: 64 connections, of which 16 from one address, and
/// limits on the length of a request's head and the time for it. A client that does not read its answer is
/// disconnected. With [`Server::tls`] it speaks TLS alone, and says so to clients that do not.
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
