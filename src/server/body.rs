//! Bodies of requests, read within limits: of time, of bytes, and of the memory that all bodies hold together.

use std::{
    io,
    num::NonZeroU64,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use http_body::Body as _;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, Sleep, sleep},
};

use crate::{
    transport::{
        pace::deadline::{Deadline, WINDOW},
        sender::SenderKind,
    },
    wire::{
        gather::make_room,
        raftpb::{Entry, Message},
    },
};

/// How long to wait for the next bytes of a body: etcd's `DefaultConnReadTimeout`.
const READ_DEADLINE: Duration = Duration::from_secs(5);
/// How long to wait for a body in total, in addition to the time that its bytes earn at [`SLOWEST`].
const PATIENCE: Duration = Duration::from_secs(10);
/// The slowest rate, in bytes per second, at which a body does not use up [`PATIENCE`]. No peer sends more slowly.
const SLOWEST: u64 = 1 << 10;
/// Why a body could not be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    /// The connection broke, or the body is not HTTP.
    #[error("reading the body: {0}")]
    Broken(axum::Error),
    /// No byte came for [`READ_DEADLINE`].
    #[error("no byte of the body for {READ_DEADLINE:?}")]
    Stalled,
    /// The body came more slowly than [`SLOWEST`].
    #[error("the body is too slow: less than {SLOWEST} bytes a second")]
    Slow,
    /// The body of a snapshot came more slowly than its deadline demands, in bytes per second.
    #[error("the body is too slow: less than {0} bytes a second for {WINDOW:?}")]
    BehindDeadline(u64),
    /// The body ended too early.
    #[error("the body ended early")]
    Truncated,
    /// The body is longer than its limit.
    #[error("the body is longer than its limit")]
    TooLarge,
    /// Bodies on other connections use up the memory limit.
    #[error("too many request bodies are in progress")]
    Busy,
}

impl ReadError {
    /// The value of the label `kind`.
    pub(super) const fn label(&self) -> &'static str {
        match self {
            Self::Broken(_) | Self::Truncated => "truncated",
            Self::Stalled | Self::Slow | Self::BehindDeadline(_) => "timeout",
            Self::TooLarge => "too_large",
            Self::Busy => "busy",
        }
    }
}

impl From<ReadError> for io::Error {
    fn from(error: ReadError) -> Self {
        let kind = match error {
            ReadError::Stalled | ReadError::Slow | ReadError::BehindDeadline(_) => io::ErrorKind::TimedOut,
            _ => io::ErrorKind::UnexpectedEof,
        };
        Self::new(kind, error)
    }
}

/// A body in pieces. Its deadlines run only while this task waits for the next piece: the time that the application
/// takes for a piece does not count against the sender.
pub(super) struct BodyReader {
    body: Body,
    deadline: Pin<Box<Sleep>>,
    /// When the wait for the next piece began.
    waiting: Option<Instant>,
    /// The total time of the earlier waits.
    waited: Duration,
    received: u64,
    /// The deadline by progress of a snapshot, which may take any time while it makes progress.
    progress: Option<Deadline>,
}

impl BodyReader {
    pub(super) fn new(body: Body) -> Self {
        let deadline = Box::pin(sleep(READ_DEADLINE));
        Self { body, deadline, waiting: None, waited: Duration::ZERO, received: 0, progress: None }
    }

    /// A reader for a snapshot. `rate` is how fast the members of this cluster may send them, in bytes per second.
    pub(super) fn of_snapshot(body: Body, rate: Option<NonZeroU64>) -> Self {
        Self { progress: Some(Deadline::new(rate)), ..Self::new(body) }
    }

    /// The whole body in one piece, of at most `limit` bytes. `share` pays for the bytes as they come.
    pub(super) async fn whole(mut self, limit: u64, share: &mut Share) -> Result<Bytes, ReadError> {
        // The length in the request's head, if any. It is trusted only for one step of the allocation.
        let announced = self.body.size_hint().exact();
        if announced.is_some_and(|length| length > limit) {
            return Err(ReadError::TooLarge);
        }
        let Some(first) = self.next().await.transpose()? else { return Ok(Bytes::new()) };
        share.take(first.len())?;
        if announced == Some(first.len() as u64) {
            return Ok(first);
        }
        let announced = announced.and_then(|length| usize::try_from(length).ok());
        let mut whole = Vec::new();
        let mut piece = first;
        loop {
            if (whole.len() + piece.len()) as u64 > limit {
                return Err(ReadError::TooLarge);
            }
            // A body of unknown length may be as long as its limit.
            make_room(&mut whole, piece.len(), announced.unwrap_or(usize::try_from(limit).unwrap_or(usize::MAX)));
            whole.extend_from_slice(&piece);
            match self.next().await.transpose()? {
                Some(next) => piece = next,
                None => return Ok(whole.into()),
            }
            share.take(piece.len())?;
        }
    }

    fn ready(&mut self, piece: &Bytes) -> Result<(), ReadError> {
        if let Some(since) = self.waiting.take() {
            self.waited += since.elapsed();
        }
        self.received += piece.len() as u64;
        let earned = Duration::from_millis(self.received.saturating_mul(1000) / SLOWEST);
        if self.waited > PATIENCE + earned {
            return Err(ReadError::Slow);
        }
        if let Some(progress) = &mut self.progress
            && progress.is_missed(self.waited, self.received)
        {
            return Err(ReadError::BehindDeadline(progress.least()));
        }
        Ok(())
    }

    fn pending(&mut self, context: &mut Context<'_>) -> Poll<ReadError> {
        if self.waiting.is_none() {
            let now = Instant::now();
            self.waiting = Some(now);
            self.deadline.as_mut().reset(now + READ_DEADLINE);
        }
        self.deadline.as_mut().poll(context).map(|()| ReadError::Stalled)
    }
}

impl Stream for BodyReader {
    type Item = Result<Bytes, ReadError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(context) else {
                return Poll::Ready(Some(Err(ready!(this.pending(context)))));
            };
            let Some(frame) = frame else { return Poll::Ready(None) };
            // Trailers are ignored.
            let piece = frame.map_err(ReadError::Broken)?.into_data().unwrap_or_default();
            this.ready(&piece)?;
            if !piece.is_empty() {
                return Poll::Ready(Some(Ok(piece)));
            }
        }
    }
}

/// Limits the bytes that bodies, and the messages decoded from them, may hold at a time, on all connections together.
/// Peers, remotes and strangers have separate limits: anyone can become a remote, and must not use up what peers need;
/// nor may strangers use up what remotes need.
#[derive(Clone)]
pub(super) struct Budget {
    peers: Arc<Semaphore>,
    remotes: Arc<Semaphore>,
    strangers: Arc<Semaphore>,
}

/// Strangers together may hold the size of the largest message divided by this.
const STRANGERS_PART: u64 = 8;

/// The bytes that one permit stands for, because a semaphore counts in `u32`.
const UNIT: u64 = 1 << 10;

impl Budget {
    /// A budget for messages of at most `message` bytes: two of the largest for peers, one for remotes, and an eighth
    /// of one for strangers.
    pub(super) fn new(message: u64) -> Self {
        let permits = |bytes: u64| {
            let units = usize::try_from(bytes / UNIT).unwrap_or(usize::MAX);
            Arc::new(Semaphore::new(units.saturating_add(1).min(Semaphore::MAX_PERMITS)))
        };
        Self {
            peers: permits(message.saturating_mul(2)),
            remotes: permits(message),
            strangers: permits(message / STRANGERS_PART),
        }
    }

    /// A share for one body, which holds nothing yet.
    pub(super) fn share(&self, sender: SenderKind) -> Share {
        let pool = match sender {
            SenderKind::Peer => &self.peers,
            SenderKind::Remote => &self.remotes,
            SenderKind::Stranger => &self.strangers,
        };
        Share { pool: Arc::clone(pool), held: None, spare: 0 }
    }
}

/// The part of the [`Budget`] that one body holds, until it is dropped.
pub(super) struct Share {
    pool: Arc<Semaphore>,
    held: Option<OwnedSemaphorePermit>,
    /// Bytes that are paid for and not used yet.
    spare: u64,
}

impl Share {
    /// Pays for the decoded form of a message whose bytes are paid for already. The decoded form can be much larger: an
    /// empty entry is two bytes on the wire.
    pub(super) fn take_decoded(&mut self, message: &Message) -> Result<(), ReadError> {
        self.take(size_of::<Message>() + message.entries.capacity() * size_of::<Entry>())
    }

    /// Pays for more bytes.
    pub(super) fn take(&mut self, bytes: usize) -> Result<(), ReadError> {
        let short = (bytes as u64).saturating_sub(self.spare);
        let units = u32::try_from(short.div_ceil(UNIT)).map_err(|_| ReadError::Busy)?;
        if units > 0 {
            let more = Arc::clone(&self.pool).try_acquire_many_owned(units).map_err(|_| ReadError::Busy)?;
            match &mut self.held {
                Some(held) => held.merge(more),
                None => self.held = Some(more),
            }
        }
        self.spare = self.spare + u64::from(units) * UNIT - bytes as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;

    fn budget() -> Share {
        Budget::new(1 << 20).share(SenderKind::Peer)
    }

    /// A body that sends `piece` every `interval`, and ends after `pieces` pieces.
    fn dripping(piece: &'static [u8], interval: Duration, pieces: usize) -> BodyReader {
        let pieces = stream::unfold(0, move |sent| async move {
            sleep(interval).await;
            (sent < pieces).then_some((Ok::<_, io::Error>(Bytes::from_static(piece)), sent + 1))
        });
        BodyReader::new(Body::from_stream(pieces))
    }

    #[tokio::test]
    async fn a_body_of_one_piece_is_not_copied() {
        let piece = Bytes::from(vec![7; 1000]);
        let whole = BodyReader::new(Body::from(piece.clone())).whole(1000, &mut budget()).await.unwrap();
        assert_eq!(whole.as_ptr(), piece.as_ptr());
    }

    #[tokio::test]
    async fn pieces_are_put_together() {
        let pieces = (0..100u8).map(|number| Ok::<_, io::Error>(Bytes::from(vec![number; 100])));
        let body = Body::from_stream(stream::iter(pieces));
        let whole = BodyReader::new(body).whole(10_000, &mut budget()).await.unwrap();
        assert_eq!(whole, (0..100u8).flat_map(|number| [number; 100]).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn a_body_over_its_limit_is_refused_whether_it_says_so_or_not() {
        let announced = BodyReader::new(Body::from(vec![0; 11])).whole(10, &mut budget()).await;
        assert!(matches!(announced, Err(ReadError::TooLarge)));
        let unannounced = dripping(b"012345", Duration::ZERO, 2).whole(10, &mut budget()).await;
        assert!(matches!(unannounced, Err(ReadError::TooLarge)));
        let within = dripping(b"01234", Duration::ZERO, 2).whole(10, &mut budget()).await;
        assert_eq!(within.unwrap(), "0123401234");
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_may_pause_for_less_than_five_seconds() {
        let steady = dripping(&[0; 8 << 10], Duration::from_millis(4900), 20);
        assert_eq!(steady.whole(1 << 20, &mut budget()).await.unwrap().len(), 160 << 10);
        let stalled = dripping(b"x", Duration::from_millis(5100), 1).whole(10, &mut budget()).await;
        assert!(matches!(stalled, Err(ReadError::Stalled)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_drips_runs_out_of_patience() {
        let start = Instant::now();
        let dripped = dripping(b"x", Duration::from_secs(4), 1000).whole(1000, &mut budget()).await;
        assert!(matches!(dripped, Err(ReadError::Slow)));
        assert_eq!(start.elapsed(), Duration::from_secs(12));
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_that_the_application_takes_is_not_the_senders() {
        let mut reader = dripping(b"x", Duration::from_secs(1), 5);
        while let Some(piece) = reader.next().await {
            piece.unwrap();
            sleep(Duration::from_secs(60)).await;
        }
    }

    #[test]
    fn bodies_share_a_budget_and_give_it_back() {
        let budget = Budget::new(10 * UNIT * STRANGERS_PART);
        let (mut first, mut second) = (budget.share(SenderKind::Stranger), budget.share(SenderKind::Stranger));
        for _ in 0..10 {
            first.take(1000).unwrap();
        }
        assert!(matches!(second.take(2 * 1024), Err(ReadError::Busy)), "ten of eleven units are held");
        budget.share(SenderKind::Remote).take(80 << 10).unwrap();
        budget.share(SenderKind::Peer).take(160 << 10).unwrap();
        drop(first);
        second.take(11 << 10).unwrap();
    }

    #[test]
    fn a_message_is_paid_for_by_what_it_takes_in_memory() {
        let budget = Budget::new(1 << 20);
        let empty = Message { entries: vec![Entry::default(); 30_000], ..Message::default() };
        budget.share(SenderKind::Peer).take_decoded(&empty).unwrap();
        assert!(matches!(budget.share(SenderKind::Remote).take_decoded(&empty), Err(ReadError::Busy)));
    }
}
