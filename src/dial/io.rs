//! A connection that knows how it ended, and that does not wait for ever for a peer that stopped reading.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use rustls_pki_types::CertificateDer;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf},
    time::{Instant, Sleep},
};

use crate::{tls::VerifiedStream, world::Socket};

/// How long a write may make no progress: etcd's `DefaultConnWriteTimeout`.
pub(crate) const WRITE_DEADLINE: Duration = Duration::from_secs(5);

/// The longest head of an answer, including the informational answers before it.
pub(crate) const ANSWER_HEAD: usize = 64 << 10;
/// No head is expected.
const NO_HEAD: usize = usize::MAX;

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConnectionEnd {
    /// No byte could be written for the write deadline.
    Stalled,
    /// The connection broke: a reset, an alert, any error of the socket.
    Broken,
    /// The other end closed it. hyper knows whether the body was complete by then.
    Eof,
    /// This member ended it, because the peer's certificate no longer verifies.
    Unverified,
}

/// The state of a connection that hyper owns, shared with others.
#[derive(Debug)]
pub(crate) struct IoStatus {
    born: Instant,
    end: AtomicU8,
    write_deadline_millis: AtomicU64,
    written: AtomicU64,
    last_write_millis: AtomicU64,
    /// How many bytes may still be read while the head of an answer is expected.
    head_left: AtomicUsize,
    is_head_too_long: AtomicBool,
}

impl IoStatus {
    /// The state of a connection that has just begun, with this write deadline.
    pub(crate) fn new(write_deadline: Duration) -> Arc<Self> {
        let status = Self {
            born: Instant::now(),
            end: AtomicU8::new(0),
            write_deadline_millis: AtomicU64::new(0),
            written: AtomicU64::new(0),
            last_write_millis: AtomicU64::new(0),
            head_left: AtomicUsize::new(NO_HEAD),
            is_head_too_long: AtomicBool::new(false),
        };
        status.set_write_deadline(write_deadline);
        Arc::new(status)
    }

    /// How the connection ended; the first cause counts. `None` while it is open, or when this member closed it.
    pub(crate) fn end(&self) -> Option<ConnectionEnd> {
        match self.end.load(Relaxed) {
            1 => Some(ConnectionEnd::Stalled),
            2 => Some(ConnectionEnd::Broken),
            3 => Some(ConnectionEnd::Eof),
            4 => Some(ConnectionEnd::Unverified),
            _ => None,
        }
    }

    /// The head of an answer is expected, until [`Self::head_is_there`]: at most [`ANSWER_HEAD`] is read meanwhile. The
    /// limit is needed because hyper skips any number of informational answers.
    pub(crate) fn await_head(&self) {
        self.is_head_too_long.store(false, Relaxed);
        self.head_left.store(ANSWER_HEAD, Relaxed);
    }

    /// The head has been read: the bytes that follow do not count as a head.
    pub(crate) fn head_is_there(&self) {
        self.head_left.store(NO_HEAD, Relaxed);
    }

    /// Whether the head reached its limit before its end.
    pub(crate) fn is_head_too_long(&self) -> bool {
        self.is_head_too_long.load(Relaxed)
    }

    /// Sets the write deadline. It holds from the next write that has to wait.
    pub(crate) fn set_write_deadline(&self, deadline: Duration) {
        self.write_deadline_millis.store(u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX), Relaxed);
    }

    /// Bytes given to the socket so far, including TLS and heads.
    pub(crate) fn written(&self) -> u64 {
        self.written.load(Relaxed)
    }

    /// When the socket last took bytes, or when the connection began if it never did.
    pub(crate) fn last_write(&self) -> Instant {
        self.born + Duration::from_millis(self.last_write_millis.load(Relaxed))
    }

    fn write_deadline(&self) -> Duration {
        Duration::from_millis(self.write_deadline_millis.load(Relaxed))
    }

    fn note_written(&self, bytes: usize) {
        self.written.fetch_add(bytes as u64, Relaxed);
        let millis = u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_write_millis.store(millis, Relaxed);
    }

    fn note_end(&self, end: ConnectionEnd) {
        let value = match end {
            ConnectionEnd::Stalled => 1,
            ConnectionEnd::Broken => 2,
            ConnectionEnd::Eof => 3,
            ConnectionEnd::Unverified => 4,
        };
        // Only the first cause counts. Later ones follow from it.
        let _ = self.end.compare_exchange(0, value, Relaxed, Relaxed);
    }

    fn note_read(&self, outcome: &io::Result<()>, room: usize, bytes: usize) {
        match outcome {
            Ok(()) if bytes == 0 && room > 0 => self.note_end(ConnectionEnd::Eof),
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => self.note_end(ConnectionEnd::Eof),
            Err(_) => self.note_end(ConnectionEnd::Broken),
        }
    }
}

/// A socket whose writes fail with [`io::ErrorKind::TimedOut`] when nothing could be written for the write deadline.
/// Reads have no deadline here, because a stream carries data in one direction only.
#[derive(Debug)]
pub(crate) struct DeadlineIo<T> {
    inner: T,
    status: Arc<IoStatus>,
    /// Armed only while a write waits. Boxed once, at the first write that has to wait.
    patience: Option<Pin<Box<Option<Sleep>>>>,
    ahead: Ahead,
}

/// A TLS record has this many bytes before its content. They tell it from a request in plain text.
pub(crate) const FIRST_BYTES: usize = 5;

/// The first bytes, which were read ahead and which the next read has to return.
#[derive(Debug, Default)]
struct Ahead {
    bytes: [u8; FIRST_BYTES],
    taken: u8,
    filled: u8,
}

impl Ahead {
    fn rest(&self) -> &[u8] {
        &self.bytes[usize::from(self.taken)..usize::from(self.filled)]
    }

    fn take(&mut self, buffer: &mut ReadBuf<'_>) {
        let count = self.rest().len().min(buffer.remaining());
        buffer.put_slice(&self.rest()[..count]);
        self.taken += u8::try_from(count).unwrap_or(u8::MAX);
    }
}

impl<T> DeadlineIo<T> {
    /// Wraps a socket.
    pub(crate) fn new(inner: T, status: Arc<IoStatus>) -> Self {
        Self { inner, status, patience: None, ahead: Ahead::default() }
    }

    /// The shared state.
    pub(crate) fn status(&self) -> &Arc<IoStatus> {
        &self.status
    }

    fn watch<R>(&mut self, cx: &mut Context<'_>, outcome: Poll<io::Result<R>>) -> Poll<io::Result<R>> {
        match outcome {
            Poll::Ready(outcome) => {
                if let Some(patience) = &mut self.patience {
                    patience.as_mut().set(None);
                }
                if outcome.is_err() {
                    self.status.note_end(ConnectionEnd::Broken);
                }
                Poll::Ready(outcome)
            }
            Poll::Pending => {
                ready!(self.wait(cx));
                self.status.note_end(ConnectionEnd::Stalled);
                Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "no write progress within the deadline")))
            }
        }
    }

    fn wait(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let patience = self.patience.get_or_insert_with(|| Box::pin(None));
        if patience.is_none() {
            patience.as_mut().set(Some(tokio::time::sleep(self.status.write_deadline())));
        }
        match patience.as_mut().as_pin_mut() {
            Some(sleep) => sleep.poll(cx),
            None => Poll::Pending,
        }
    }

    fn wrote(&mut self, cx: &mut Context<'_>, outcome: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = &outcome {
            self.status.note_written(*bytes);
        }
        self.watch(cx, outcome)
    }
}

impl<T: AsyncRead + Unpin> DeadlineIo<T> {
    /// The first bytes of the connection, before anything else reads it. They are fewer than [`FIRST_BYTES`] if the
    /// other end closed. The next read returns them too.
    pub(crate) async fn first_bytes(&mut self) -> io::Result<&[u8]> {
        while usize::from(self.ahead.filled) < FIRST_BYTES {
            let read = self.inner.read(&mut self.ahead.bytes[usize::from(self.ahead.filled)..]).await?;
            if read == 0 {
                break;
            }
            self.ahead.filled += u8::try_from(read).unwrap_or(u8::MAX);
        }
        Ok(self.ahead.rest())
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for DeadlineIo<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.ahead.rest().is_empty() {
            self.ahead.take(buffer);
            return Poll::Ready(Ok(()));
        }
        let (room, before) = (buffer.remaining(), buffer.filled().len());
        let outcome = ready!(Pin::new(&mut self.inner).poll_read(cx, buffer));
        self.status.note_read(&outcome, room, buffer.filled().len() - before);
        Poll::Ready(outcome)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for DeadlineIo<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.wrote(cx, outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.inner).poll_write_vectored(cx, slices);
        self.wrote(cx, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.inner).poll_flush(cx);
        self.watch(cx, outcome)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.inner).poll_shutdown(cx);
        self.watch(cx, outcome)
    }
}

/// A connection between two members, plain or TLS, dialled or accepted. The deadline lies below TLS, so that progress
/// means bytes that the socket took.
#[derive(Debug)]
pub(crate) enum PeerIo<T = Socket> {
    /// `http`.
    Plain(DeadlineIo<T>),
    /// `https`.
    Tls(Box<VerifiedStream<DeadlineIo<T>>>),
}

impl<T> PeerIo<T> {
    /// The certificate that the peer presented.
    pub(crate) fn certificate(&self) -> Option<&CertificateDer<'static>> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(io) => io.certificate(),
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> PeerIo<T> {
    fn status(&self) -> &IoStatus {
        match self {
            Self::Plain(io) => io.status(),
            Self::Tls(io) => io.get_ref().status(),
        }
    }

    fn poll_bytes(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(io) => Pin::new(io).poll_read(cx, buffer),
            Self::Tls(io) => {
                let (room, before) = (buffer.remaining(), buffer.filled().len());
                let outcome = ready!(Pin::new(&mut *io).poll_read(cx, buffer));
                let status = io.get_ref().status();
                if io.is_over() {
                    status.note_end(ConnectionEnd::Unverified);
                }
                // Only this layer sees an end by `close_notify` or an alert.
                status.note_read(&outcome, room, buffer.filled().len() - before);
                Poll::Ready(outcome)
            }
        }
    }

    /// Reads a head up to what is left of its limit. The task that waits for the head checks in the same turn whether
    /// it is too long, so nobody needs to be woken here.
    fn poll_head(&mut self, left: usize, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let room = left.min(buffer.remaining());
        if room == 0 && buffer.remaining() > 0 {
            self.status().is_head_too_long.store(true, Relaxed);
            return Poll::Pending;
        }
        let mut head = ReadBuf::new(buffer.initialize_unfilled_to(room));
        ready!(self.poll_bytes(cx, &mut head))?;
        let read = head.filled().len();
        buffer.advance(read);
        // If `head_is_there` was called meanwhile, these bytes no longer belong to a head.
        let _ = self.status().head_left.compare_exchange(left, left - read, Relaxed, Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncRead for PeerIo<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match this.status().head_left.load(Relaxed) {
            NO_HEAD => this.poll_bytes(cx, buffer),
            left => this.poll_head(left, cx, buffer),
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for PeerIo<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_write(cx, bytes),
            Self::Tls(io) => Pin::new(io).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_write_vectored(cx, slices),
            Self::Tls(io) => Pin::new(io).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(io) => io.is_write_vectored(),
            Self::Tls(io) => io.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_flush(cx),
            Self::Tls(io) => Pin::new(io).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_shutdown(cx),
            Self::Tls(io) => Pin::new(io).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn pair(deadline: Duration) -> (DeadlineIo<tokio::io::DuplexStream>, tokio::io::DuplexStream, Arc<IoStatus>) {
        let (near, far) = tokio::io::duplex(16);
        let status = IoStatus::new(deadline);
        (DeadlineIo::new(near, status.clone()), far, status)
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_without_progress_ends_after_the_deadline_and_says_so() {
        let (mut io, _far, status) = pair(WRITE_DEADLINE);
        let begin = Instant::now();
        let error = io.write_all(&[0; 17]).await.expect_err("only 16 bytes fit");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(begin.elapsed().as_secs(), 5);
        assert_eq!((status.end(), status.written()), (Some(ConnectionEnd::Stalled), 16));
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_reader_keeps_the_connection_alive() {
        let (mut io, mut far, status) = pair(WRITE_DEADLINE);
        let reader = async {
            let mut taken = [0; 16];
            for _ in 0..4 {
                tokio::time::sleep(Duration::from_secs(4)).await;
                far.read_exact(&mut taken).await.expect("there is more");
            }
        };
        let (written, ()) = tokio::join!(io.write_all(&[0; 64]), reader);
        written.expect("there was progress every 4 s");
        assert_eq!(status.end(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn the_deadline_can_be_set_from_outside() {
        let (mut io, _far, status) = pair(WRITE_DEADLINE);
        status.set_write_deadline(Duration::from_secs(30));
        let begin = Instant::now();
        io.write_all(&[0; 17]).await.expect_err("only 16 bytes fit");
        assert_eq!(begin.elapsed().as_secs(), 30);
    }

    #[tokio::test(start_paused = true)]
    async fn no_timer_runs_while_no_write_waits() {
        let (mut io, mut far, _) = pair(WRITE_DEADLINE);
        let mut taken = [0; 32];
        let (written, _) = tokio::join!(io.write_all(&[0; 32]), far.read_exact(&mut taken));
        written.expect("it was read");
        assert!(io.patience.as_ref().is_some_and(|patience| patience.is_none()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_reader_side_has_no_deadline() {
        let (mut io, _far, status) = pair(WRITE_DEADLINE);
        let silence = tokio::time::timeout(Duration::from_secs(3600), io.read_u8()).await;
        assert!(silence.is_err());
        assert_eq!(status.end(), None);
    }

    #[tokio::test]
    async fn a_close_by_the_other_end_is_its_end() {
        let (mut io, far, status) = pair(WRITE_DEADLINE);
        drop(far);
        io.read_u8().await.expect_err("it is closed");
        assert_eq!(status.end(), Some(ConnectionEnd::Eof));
    }

    #[tokio::test]
    async fn a_reset_is_a_break() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("it is bound");
        let (near, far) = tokio::join!(tokio::net::TcpStream::connect(address), listener.accept());
        let (far, _) = far.expect("it was dialled");
        far.set_zero_linger().expect("a socket option");
        drop(far);
        let status = IoStatus::new(WRITE_DEADLINE);
        let mut io = DeadlineIo::new(near.expect("it listens"), status.clone());
        io.read_u8().await.expect_err("it was reset");
        assert_eq!(status.end(), Some(ConnectionEnd::Broken));
        assert!(io.is_write_vectored());
    }
}
