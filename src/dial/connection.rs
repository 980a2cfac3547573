//! A connection to a peer. Its owner polls it: no task runs it.

use std::{
    future::{Future, poll_fn},
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::{Fuse, FusedFuture};
use http_body_util::{BodyExt, Empty, Full, combinators::UnsyncBoxBody};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;

use crate::dial::io::{ANSWER_HEAD, IoStatus, PeerIo};

/// The body of a request: nothing, bytes, or a stream.
pub(crate) type Body = UnsyncBoxBody<Bytes, io::Error>;
/// The future that moves a connection. Its owner polls it, beside whatever the owner waits for. It is fused: once the
/// connection has ended, it is never ready again.
pub(crate) type ConnectionDriver = Fuse<http1::Connection<TokioIo<PeerIo>, Body>>;

/// A body without bytes.
pub(crate) fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// A body of these bytes.
pub(crate) fn full(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

/// A connection that its owner polls: no task runs it.
pub(crate) struct DialledConnection {
    /// Takes the requests.
    pub(crate) sender: http1::SendRequest<Body>,
    /// Must be polled for anything to move. It ends when the connection does.
    pub(crate) driver: ConnectionDriver,
    /// The address that answered.
    pub(crate) remote: SocketAddr,
    /// How the connection ended, and how much was written to it.
    pub(crate) io: Arc<IoStatus>,
}

/// How a connection was opened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dialled {
    /// The address that answered.
    pub(crate) remote: SocketAddr,
    /// Our own address.
    pub(crate) local: Option<SocketAddr>,
    /// How long opening it took.
    pub(crate) phases: DialPhases,
}

/// The durations of a dial.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct DialPhases {
    /// The look-up. `None` for an IP address.
    pub(crate) dns: Option<Duration>,
    /// TCP, including addresses that failed.
    pub(crate) connect: Duration,
    /// The TLS handshake. `None` for `http`.
    pub(crate) tls: Option<Duration>,
}

/// Polls a connection's driver beside a future that needs it. The future gets in the same turn what the connection has
/// just read. It also gets what the connection read before it ended, because an answer may have come together with the
/// close.
pub(crate) async fn drive<D, F>(driver: &mut D, future: F) -> F::Output
where
    D: FusedFuture + Unpin,
    F: Future,
{
    let mut future = pin!(future);
    poll_fn(|cx| {
        if let Poll::Ready(output) = future.as_mut().poll(cx) {
            return Poll::Ready(output);
        }
        if driver.is_terminated() {
            return Poll::Pending;
        }
        match Pin::new(&mut *driver).poll(cx) {
            Poll::Pending | Poll::Ready(_) => future.as_mut().poll(cx),
        }
    })
    .await
}

/// Why a request that went out got no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoAnswer {
    /// The connection broke, or the answer is not HTTP.
    #[error(transparent)]
    Broken(#[from] hyper::Error),
    /// The head of the answer, with the informational answers before it, is longer than its limit.
    #[error("the head of its answer is longer than {ANSWER_HEAD} bytes")]
    Head,
}

/// As [`drive`], until the head of an answer. At most [`ANSWER_HEAD`] is read for it.
pub(crate) async fn drive_to_head<D, F, T>(driver: &mut D, io: &IoStatus, answer: F) -> Result<T, NoAnswer>
where
    D: FusedFuture + Unpin,
    F: Future<Output = hyper::Result<T>>,
{
    io.await_head();
    let mut answer = pin!(drive(driver, answer));
    let outcome = poll_fn(|cx| match answer.as_mut().poll(cx) {
        Poll::Ready(outcome) => Poll::Ready(outcome.map_err(NoAnswer::Broken)),
        Poll::Pending if io.is_head_too_long() => Poll::Ready(Err(NoAnswer::Head)),
        Poll::Pending => Poll::Pending,
    });
    let outcome = outcome.await;
    io.head_is_there();
    outcome
}
