//! `/raft/probing`: whether we are there, and what time it is here (`xiang90/probing`).

use axum::{
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{server::Endpoint, wire::headers::TEXT_PLAIN};

/// Any method, no checks: a prober that is wrong about everything else still learns that somebody answers.
pub(super) async fn answer(State(_): State<Endpoint>) -> Response {
    let now = OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default();
    ([(header::CONTENT_TYPE, TEXT_PLAIN)], format!("{{\"OK\":true,\"Now\":\"{now}\"}}\n")).into_response()
}
