//! Closes a connection in such a way that the client can read the last answer on it.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

/// How long to wait for the client to close its side too (Go's `rstAvoidanceDelay`).
const LINGER: Duration = Duration::from_millis(500);

/// Closing a socket that holds unread bytes resets it. The reset destroys what the client has not read yet, such as the
/// answer that says why we do not read on. So a shutdown ends our side first, and then discards the bytes that still
/// come.
pub(super) struct Lingering<T> {
    io: T,
    /// Runs since our side ended.
    closing: Option<Pin<Box<Sleep>>>,
}

impl<T> Lingering<T> {
    pub(super) fn new(io: T) -> Self {
        Self { io, closing: None }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Lingering<T> {
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let closing = match &mut this.closing {
            Some(closing) => closing,
            None => {
                ready!(Pin::new(&mut this.io).poll_shutdown(context))?;
                this.closing.insert(Box::pin(sleep(LINGER)))
            }
        };
        // A client that keeps sending is polled again only as the runtime's budget for this task allows.
        while closing.as_mut().poll(context).is_pending() {
            let mut space = [0; 4096];
            let mut buffer = ReadBuf::new(&mut space);
            match ready!(Pin::new(&mut this.io).poll_read(context, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => {}
                _ => break,
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Lingering<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, duplex},
        time::Instant,
    };

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_still_comes_is_discarded_until_the_other_end_closes() {
        let (ours, mut theirs) = duplex(16);
        let start = Instant::now();
        let sending = async {
            theirs.write_all(&[7; 100_000]).await.unwrap();
            let mut answer = Vec::new();
            theirs.read_to_end(&mut answer).await.unwrap();
            drop(theirs);
            answer
        };
        let closing = async {
            let mut ours = Lingering::new(ours);
            ours.write_all(b"no").await.unwrap();
            ours.shutdown().await.unwrap();
        };
        assert_eq!(tokio::join!(sending, closing).0, b"no");
        assert!(start.elapsed() < LINGER);
    }

    #[tokio::test(start_paused = true)]
    async fn an_end_that_does_not_close_is_left_after_half_a_second() {
        let (ours, _theirs) = duplex(16);
        let start = Instant::now();
        Lingering::new(ours).shutdown().await.unwrap();
        assert_eq!(start.elapsed().as_millis(), LINGER.as_millis());
    }
}
