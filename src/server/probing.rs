//! `/raft/probing`: whether we are there, and what time it is here (`xiang90/probing`).

use axum::{
    extract::{Request, State},
    http::header,
    response::{IntoResponse, Response},
};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    server::{Endpoint, guard},
    telemetry,
    wire::headers::TEXT_PLAIN,
};

/// Any method, no checks: a prober that is wrong about everything else still learns that somebody answers. A peer's
/// probe says that the peer is there, and its connection is the peer's; the answer is the same for all.
pub(super) async fn answer(State(endpoint): State<Endpoint>, request: Request) -> Response {
    let transport = &endpoint.transport;
    if guard::is_same_cluster(transport, request.headers())
        && let Some(peer) = guard::identify(transport, &request).filter(|id| transport.is_peer(*id))
    {
        transport.admit(peer, None);
        telemetry::probed(peer, &guard::origin(&request));
    }
    let now = OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default();
    ([(header::CONTENT_TYPE, TEXT_PLAIN)], format!("{{\"OK\":true,\"Now\":\"{now}\"}}\n")).into_response()
}
