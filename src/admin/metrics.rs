//! `/metrics`.

use std::{convert::Infallible, sync::Arc};

use axum::{
    body::{Body, Bytes},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use futures_util::stream;
use prometheus::{TEXT_FORMAT, TextEncoder};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Admin;
use crate::metrics::Exposition;

/// Scrapes under way at a time. Each holds a copy of every peer's ledger (4 KB a peer) until its client has read the
/// text, so the clients' patience must not decide how many there are.
const SCRAPES: usize = 3;

pub(super) struct Metrics {
    admin: Admin,
    scrapes: Arc<Semaphore>,
}

impl Metrics {
    pub(super) fn new(admin: Admin) -> Self {
        Self {
            admin,
            scrapes: Arc::new(Semaphore::new(SCRAPES)),
        }
    }
}

pub(super) async fn answer(metrics: Arc<Metrics>) -> Response {
    let Ok(permit) = metrics.scrapes.clone().try_acquire_owned() else {
        return (StatusCode::SERVICE_UNAVAILABLE, "too many scrapes under way\n").into_response();
    };
    let Admin {
        registry,
        transport,
        options,
        ..
    } = &metrics.admin;
    let first = match TextEncoder::new().encode_to_string(&registry.gather()) {
        Ok(text) => text,
        Err(error) => return (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    };
    let exposition = transport.as_ref().map(|source| Exposition::new(source(), options));
    let pieces = Pieces {
        first: Some(first),
        exposition,
        _permit: permit,
    };
    let body = Body::from_stream(stream::iter(pieces.map(Ok::<Bytes, Infallible>)));
    ([(header::CONTENT_TYPE, TEXT_FORMAT)], body).into_response()
}

/// The text of a scrape: what the registry has, then the transport's.
struct Pieces {
    first: Option<String>,
    exposition: Option<Exposition>,
    _permit: OwnedSemaphorePermit,
}

impl Iterator for Pieces {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        match self.first.take() {
            Some(text) if !text.is_empty() => Some(Bytes::from(text)),
            _ => self.exposition.as_mut()?.next(),
        }
    }
}
