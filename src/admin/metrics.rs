//! `/metrics`, in the requested format.

use axum::{
    body::Bytes,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};

use super::{Admin, pieces::Gate};
use crate::metrics::{Exposition, Format};

/// The registry's families, then the transport's.
pub(super) fn answer(admin: &Admin, gate: &Gate, headers: &HeaderMap) -> Response {
    let Admin { registry, transport, options, .. } = admin;
    let format = Format::asked_for(headers);
    let first = match format.encode(&registry.gather()) {
        Ok(text) => Bytes::from(text),
        Err(error) => return (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    };
    let mut answer = gate.answer(format.content_type(), || {
        let exposition = transport.as_ref().map(|source| Exposition::new(source(), options).format(format));
        let end = Bytes::from_static(format.end().as_bytes());
        let pieces = std::iter::once(first).chain(exposition.into_iter().flatten()).chain(std::iter::once(end));
        pieces.filter(|piece| !piece.is_empty())
    });
    answer.headers_mut().insert(header::VARY, HeaderValue::from_static("accept"));
    answer
}
