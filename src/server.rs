//! The HTTP side: the answers of a member on its peer URLs.
//!
//! **The receiver dials**: a member that opens `GET /raft/stream/…` here wants to hear this one, and the endless body
//! of the answer carries our messages to it. Requests bring in single messages (`POST /raft`), snapshots, and
//! questions.
//!
//! [`router`] has the handlers, and [`Server`] is the listener, with the limits that a port open to strangers needs.
//! The paths, the checks, their order and the text of every refusal are etcd's (`rafthttp/http.go`,
//! `etcdhttp/peer.go`).

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
use guard::RequestRefusal;

/// The state that the handlers share.
#[derive(Clone)]
struct Endpoint {
    transport: Transport,
    /// Limits the bytes of bodies that are in memory at a time.
    budget: Budget,
}

/// Makes the routes of a peer URL: `/raft…`, `/version` and `/members`.
///
/// Every other path is answered as Go's `ServeMux` does, so the router belongs at the root of a listener of its own.
/// More routes can be added to it.
pub fn router(transport: &Transport) -> Router {
    let budget = Budget::new(transport.limits().message_bytes);
    let endpoint = Endpoint { transport: transport.clone(), budget };
    // The handlers check the method, because their 405 has etcd's text and headers.
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

/// Answers any other path: a redirect to the clean path, or 404.
async fn unknown(State(_): State<Endpoint>, request: Request) -> Response {
    path::redirect(&request).unwrap_or_else(|| RequestRefusal::PageNotFound.into_response())
}
