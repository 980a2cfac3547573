//! `/metrics`.

use axum::{
    body::Bytes,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use prometheus::{TEXT_FORMAT, TextEncoder};

use super::{Admin, pieces::Gate};
use crate::metrics::Exposition;

/// What the registry has, then the transport's families.
pub(super) fn answer(admin: &Admin, gate: &Gate) -> Response {
    let Admin { registry, transport, options, .. } = admin;
    let first = match TextEncoder::new().encode_to_string(&registry.gather()) {
        Ok(text) => Bytes::from(text),
        Err(error) => return (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    };
    gate.answer(TEXT_FORMAT, || {
        let exposition = transport.as_ref().map(|source| Exposition::new(source(), options));
        std::iter::once(first).filter(|text| !text.is_empty()).chain(exposition.into_iter().flatten())
    })
}
