//! A TLS connection, which ends when its peer's certificate no longer verifies.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use rustls_pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::TlsStream;

use super::open::Lease;

/// Why this member ended a connection: the text of its error.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the peer's certificate no longer verifies: {0}")]
pub(crate) struct NoLongerVerified(Arc<str>);

/// A TLS connection, dialled or accepted. Reads and writes fail once the peer's certificate no longer verifies.
#[derive(Debug)]
pub struct VerifiedStream<T> {
    io: TlsStream<T>,
    /// `None` if the peer presented no certificate.
    lease: Option<Arc<Lease>>,
}

impl<T> VerifiedStream<T> {
    pub(super) fn new(io: TlsStream<T>, lease: Option<Arc<Lease>>) -> Self {
        Self { io, lease }
    }

    /// The underlying connection.
    pub(crate) fn get_ref(&self) -> &T {
        self.io.get_ref().0
    }

    /// The certificate that the peer presented.
    pub(crate) fn certificate(&self) -> Option<&CertificateDer<'static>> {
        self.lease.as_ref().and_then(|lease| lease.seen.chain.first())
    }

    /// Whether this member ended it.
    pub(crate) fn is_over(&self) -> bool {
        self.lease.as_ref().is_some_and(|lease| lease.over().is_some())
    }

    /// Returns an error once the lease is over. Until then, the end of the lease wakes this task.
    fn check<R>(&self, cx: &Context<'_>, outcome: Poll<io::Result<R>>) -> Poll<io::Result<R>> {
        let Some(lease) = &self.lease else { return outcome };
        if outcome.is_pending() {
            lease.wake_at_end(cx.waker());
        }
        match lease.over() {
            Some(why) => {
                Poll::Ready(Err(io::Error::new(io::ErrorKind::PermissionDenied, NoLongerVerified(why.clone()))))
            }
            None => outcome,
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncRead for VerifiedStream<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.is_over() {
            return self.check(cx, Poll::Pending);
        }
        let outcome = Pin::new(&mut self.io).poll_read(cx, buffer);
        self.check(cx, outcome)
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for VerifiedStream<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.is_over() {
            return self.check(cx, Poll::Pending);
        }
        let outcome = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.check(cx, outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.is_over() {
            return self.check(cx, Poll::Pending);
        }
        let outcome = Pin::new(&mut self.io).poll_write_vectored(cx, slices);
        self.check(cx, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.io).poll_flush(cx);
        self.check(cx, outcome)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The peer gets a proper close, whatever its certificate.
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
