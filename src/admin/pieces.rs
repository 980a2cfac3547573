//! Answers that are written in pieces, as fast as the client reads.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    body::{Body, Bytes},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use futures_util::stream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The most answers of one kind at a time. Each holds a copy of every peer's ledger (4 KB per peer) until its client
/// has read it, so slow clients must not decide how many there are.
const ANSWERS: usize = 3;
/// How long an answer may take. Prometheus gives up after 10 s itself, but a client that reads byte by byte would not.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Limits how many answers are under way at a time.
pub(super) struct Gate(Arc<Semaphore>);

impl Gate {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(ANSWERS)))
    }

    /// An answer made of the pieces that `make` returns, or 503 if too many answers are under way.
    pub(super) fn answer<P>(&self, content_type: &'static str, make: impl FnOnce() -> P) -> Response
    where
        P: Iterator<Item = Bytes> + Send + 'static,
    {
        let Ok(permit) = self.0.clone().try_acquire_owned() else {
            return (StatusCode::SERVICE_UNAVAILABLE, "too many requests are in progress\n").into_response();
        };
        let pieces = TimedPieces { pieces: make(), deadline: Instant::now() + TIMEOUT, _permit: permit };
        ([(header::CONTENT_TYPE, content_type)], Body::from_stream(stream::iter(pieces))).into_response()
    }
}

struct TimedPieces<P> {
    pieces: P,
    deadline: Instant,
    _permit: OwnedSemaphorePermit,
}

/// An error cuts the connection, so that no client takes half an answer for a whole one.
impl<P: Iterator<Item = Bytes>> Iterator for TimedPieces<P> {
    type Item = io::Result<Bytes>;

    fn next(&mut self) -> Option<Self::Item> {
        let late = Instant::now() > self.deadline;
        if late { Some(Err(io::ErrorKind::TimedOut.into())) } else { self.pieces.next().map(Ok) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_answers_are_under_way_than_there_is_memory_for() {
        let gate = Gate::new();
        let answer = || gate.answer("text/plain", || std::iter::once(Bytes::from_static(b"piece")));
        let under_way: Vec<Response> = (0..ANSWERS).map(|_| answer()).collect();
        assert!(under_way.iter().all(|answer| answer.status() == StatusCode::OK));
        assert_eq!(answer().status(), StatusCode::SERVICE_UNAVAILABLE);
        drop(under_way);
        assert_eq!(answer().status(), StatusCode::OK);
    }
}
