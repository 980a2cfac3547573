//! `/raft/probing`: says that this member is there, and its time (`xiang90/probing`). A known member also gets how far
//! its streams were read, and how this member reaches its peers ([the fields](crate::wire::probing)).

use axum::{
    extract::{Request, State},
    http::header,
    response::{IntoResponse, Response},
};

use crate::{
    server::{Endpoint, binding::RequestKind, guard},
    telemetry,
    transport::sender::SenderClaim,
    wire::{headers::TEXT_PLAIN, probing::ProbeAnswer},
};

/// Accepts any method, without checks, so that a prober that is wrong about everything else still learns that somebody
/// answers. A peer's probe shows that the peer is there, and its connection becomes the peer's.
pub(super) async fn answer(State(endpoint): State<Endpoint>, request: Request) -> Response {
    let transport = &endpoint.transport;
    let same_cluster = guard::is_same_cluster(transport, request.headers());
    let from = guard::server_from(request.headers());
    // A client that is not the member that it claims to be gets the answer for a stranger.
    let is_itself = same_cluster && guard::bind(transport, &request, from, RequestKind::Probing).is_ok();
    let asker = is_itself.then(|| guard::identify(transport, &request)).flatten();
    if let Some(peer) = asker.filter(|id| transport.is_peer(*id)) {
        transport.admit(Some(peer), SenderClaim::default());
        telemetry::probed(transport.world(), peer, &guard::origin(&request));
    }
    let report = asker.and_then(|asker| transport.report(asker));
    let answer = ProbeAnswer { now: transport.world().now().into(), report };
    let mut response = ([(header::CONTENT_TYPE, TEXT_PLAIN)], answer.encode()).into_response();
    guard::tell_incarnation(transport, &mut response);
    response
}
