//! The HTTP side: what a member answers on its peer URLs.
//!
//! **The receiver dials**: whoever opens `GET /raft/stream/…` here wants to hear us, and the answer's endless body is
//! our way out to it. What comes in by request are single messages (`POST /raft`), snapshots, and questions.
//!
//! [`router`] is the handlers, [`Server`] the listener with the bounds that a port open to strangers needs. The paths,
//! the checks and the words of every refusal are etcd's (`rafthttp/http.go`, `etcdhttp/peer.go`), in etcd's order.

use axum::{
    Router,
    extract::{Request, State},
    response::{IntoResponse, Response},
    routing::any,
};

use crate::{
    transport::Transport,
    wire::headers::{MEMBERS, RAFT, RAFT_PROBING, RAFT_SNAPSHOT, RAFT_STREAM, VERSION},
};

mod bind;
mod binding;
mod body;
mod connections;
mod guard;
mod head;
mod linger;
mod listener;
mod members;
mod metrics;
mod names;
mod path;
mod pipeline;
mod plain;
mod probing;
mod snapshot;
mod stream;
mod version;

pub use bind::{BindError, Bound, bind};
pub use connections::ConnectionLimits;
pub use listener::{Server, serve};
pub use metrics::ConnectionMetrics;

use body::Budget;
use guard::Refusal;

/// What the handlers stand on.
#[derive(Clone)]
struct Endpoint {
    transport: Transport,
    /// Bytes of bodies that are held at a time.
    budget: Budget,
}

/// The routes of a peer URL: `/raft…`, `/version` and `/members`.
///
/// Every other path is answered as Go's `ServeMux` does, so this belongs at the root of a listener of its own; more
/// routes can be added to it.
pub fn router(transport: &Transport) -> Router {
    let budget = Budget::new(transport.limits().message_bytes);
    let endpoint = Endpoint { transport: transport.clone(), budget };
    // Methods are the handlers' to judge: their 405 carries etcd's words and headers.
    Router::new()
        .route(RAFT, any(pipeline::answer))
        .route(RAFT_SNAPSHOT, any(snapshot::answer))
        .route(RAFT_PROBING, any(probing::answer))
        .route(RAFT_STREAM, any(path::add_slash))
        .route("/raft/stream/", any(stream::answer))
        .route("/raft/stream/{*rest}", any(stream::answer))
        .route(VERSION, any(version::answer))
        .route(MEMBERS, any(members::answer))
        .fallback(unknown)
        .with_state(endpoint)
}

/// Any other path: cleaned, or 404.
async fn unknown(State(_): State<Endpoint>, request: Request) -> Response {
    path::redirect(&request).unwrap_or_else(|| Refusal::PageNotFound.into_response())
}
