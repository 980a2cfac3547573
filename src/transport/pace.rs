//! The rate at which bodies of snapshots go out: one token bucket for all of them, which yields to heartbeats.
//!
//! A snapshot takes the link and the cores that raft's own messages need, and a member that misses its heartbeats elects.
//! So each heartbeat that leaves its queue tells the pace how long it was queued. A late one makes snapshots slower at
//! once. While none is late, they become faster step by step. The pace does not see what delays a heartbeat after it was
//! given to its connection.

use std::{
    io,
    num::NonZeroU64,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream, stream::BoxStream};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{Instant, sleep_until},
};

use crate::ledger::SnapshotPace;

pub(crate) mod deadline;

use deadline::LEAST;

/// How often the rate is adjusted. The bucket holds the bytes of this time, so at most these go out at once.
const TURN: Duration = Duration::from_millis(100);
/// A heartbeat is late only if it was queued for at least this long, half of etcd's default interval.
const LATE: Duration = Duration::from_millis(50);
/// A heartbeat is late only if it was queued for this many times as long as is usual while no snapshot goes out,
/// because a peer that is always slow is no reason to yield.
const UNUSUAL: u32 = 4;
/// However late heartbeats are, snapshots keep this fraction of the rate that was possible before. Otherwise one link
/// that is bad for another reason could keep members behind.
const LEAST_PART: f64 = 1.0 / 8.0;
/// How much faster snapshots become in each turn without a late heartbeat: from the least rate to the full rate in two
/// seconds.
const FASTER: f64 = 1.1;
/// If no rate is configured, a limit that is this many times the rate that passes is lifted.
const BEYOND: f64 = 4.0;
/// The least rate of each snapshot, in bytes per second: twice what its receiver demands.
const EACH: u64 = 2 * LEAST;

/// The pace of all snapshots that a transport sends.
#[derive(Debug)]
pub(crate) struct Pace {
    /// The configured rate, in bytes per second. `None`: as fast as possible.
    set: Option<NonZeroU64>,
    /// If the configured rate is too low for several snapshots at a time, they go one after the other.
    slots: Option<Semaphore>,
    under_way: AtomicU64,
    /// Whether a heartbeat was late since the last turn.
    late: AtomicBool,
    yields: AtomicU64,
    bucket: Mutex<Bucket>,
}

#[derive(Debug)]
struct Bucket {
    /// The rate in bytes per second. `None`: no limit.
    rate: Option<f64>,
    /// The rate that was possible before the bucket yielded. `None` while it does not yield.
    full: Option<f64>,
    /// When the bytes that were let through last are used up.
    lasts_until: Instant,
    turn_began: Instant,
    /// Bytes that were let through in this turn.
    passed: u64,
}

/// A snapshot that may be sent. Others get its share when this is dropped.
#[derive(Debug)]
pub(crate) struct Slot<'a> {
    pace: &'a Pace,
    _permit: Option<SemaphorePermit<'a>>,
}

impl Pace {
    /// A pace with a configured rate in bytes per second, for all snapshots together.
    pub(crate) fn new(set: Option<NonZeroU64>) -> Self {
        let slots = set.map(|set| usize::try_from(set.get() / EACH).unwrap_or(usize::MAX));
        let now = Instant::now();
        let bucket =
            Bucket { rate: set.map(|set| set.get() as f64), full: None, lasts_until: now, turn_began: now, passed: 0 };
        Self {
            set,
            slots: slots.map(|slots| Semaphore::new(slots.clamp(1, Semaphore::MAX_PERMITS))),
            under_way: AtomicU64::new(0),
            late: AtomicBool::new(false),
            yields: AtomicU64::new(0),
            bucket: Mutex::new(bucket),
        }
    }

    /// The current rate, and how often the bucket has yielded.
    pub(crate) fn status(&self) -> SnapshotPace {
        SnapshotPace { limit: self.rate(), yields: self.yields.load(Relaxed) }
    }

    /// Waits until one more snapshot may go out.
    pub(crate) async fn slot(&self) -> Slot<'_> {
        // The semaphore is never closed.
        let permit = match &self.slots {
            Some(slots) => slots.acquire().await.ok(),
            None => None,
        };
        self.begin(permit)
    }

    /// A slot, if one more snapshot may go out now.
    pub(crate) fn try_slot(&self) -> Option<Slot<'_>> {
        let permit = match &self.slots {
            Some(slots) => Some(slots.try_acquire().ok()?),
            None => None,
        };
        Some(self.begin(permit))
    }

    fn begin<'a>(&'a self, permit: Option<SemaphorePermit<'a>>) -> Slot<'a> {
        if self.under_way.fetch_add(1, Relaxed) == 0 {
            // Earlier late heartbeats have nothing to do with this snapshot.
            self.late.store(false, Relaxed);
            self.bucket().begin(self.set);
        }
        Slot { pace: self, _permit: permit }
    }

    /// A heartbeat has left its queue after `waited`. `usual` is how long heartbeats to its peer are queued while no
    /// snapshot is sent.
    #[inline]
    pub(crate) fn heartbeat_left(&self, waited: Duration, usual: &mut Duration) {
        if self.under_way.load(Relaxed) == 0 {
            *usual = (*usual * 7 + waited) / 8;
        } else if waited > LATE.max(*usual * UNUSUAL) {
            self.late.store(true, Relaxed);
        }
    }

    /// Passes on the pieces of a body at this pace. `ours` counts how long they were waited for.
    pub(crate) fn paced(
        self: Arc<Self>,
        pieces: BoxStream<'static, io::Result<Bytes>>,
        ours: Arc<Ours>,
    ) -> impl Stream<Item = io::Result<Bytes>> + Send + Unpin + 'static {
        let slices = stream::unfold((self, pieces, Bytes::new()), |(pace, mut pieces, mut rest)| async {
            if rest.is_empty() {
                match pieces.next().await? {
                    Ok(piece) => rest = piece,
                    Err(error) => return Some((Err(error), (pace, pieces, rest))),
                }
            }
            let slice = rest.split_to(pace.slice().min(rest.len()));
            if let Some(time) = pace.reserve(slice.len(), Instant::now()) {
                sleep_until(time).await;
            }
            Some((Ok(slice), (pace, pieces, rest)))
        });
        TimedBody { pieces: slices.boxed(), ours }
    }

    /// The rate in bytes per second. `None`: no limit.
    fn rate(&self) -> Option<f64> {
        self.bucket().rate
    }

    fn bucket(&self) -> MutexGuard<'_, Bucket> {
        self.bucket.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The most bytes that are let through at once. Small slices keep the pauses between them short.
    fn slice(&self) -> usize {
        let Some(rate) = self.rate() else { return usize::MAX };
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it saturates, and a rate is above zero"
        )]
        let bytes = (rate * TURN.as_secs_f64()) as usize;
        bytes.max(1)
    }

    /// Takes bytes out of the bucket, and returns when they may go. `None` means at once.
    fn reserve(&self, bytes: usize, now: Instant) -> Option<Instant> {
        let mut bucket = self.bucket();
        if now - bucket.turn_began >= TURN {
            let late = self.late.swap(false, Relaxed);
            let began_to_yield = bucket.turn(now, late, self.set, self.under_way.load(Relaxed));
            self.yields.fetch_add(u64::from(began_to_yield), Relaxed);
        }
        bucket.passed += bytes as u64;
        let rate = bucket.rate?;
        let from = now.checked_sub(TURN).map_or(now, |full| bucket.lasts_until.max(full));
        bucket.lasts_until = from + Duration::from_secs_f64(bytes as f64 / rate);
        (from > now).then_some(from)
    }
}

impl Bucket {
    /// The first snapshot after a pause goes out.
    fn begin(&mut self, set: Option<NonZeroU64>) {
        (self.rate, self.full) = (set.map(|set| set.get() as f64), None);
        (self.turn_began, self.passed) = (Instant::now(), 0);
    }

    /// Ends a turn, and sets the rate of the next one. Returns whether the bucket has begun to yield.
    fn turn(&mut self, now: Instant, late: bool, set: Option<NonZeroU64>, under_way: u64) -> bool {
        let elapsed = now - self.turn_began;
        let passing = self.passed as f64 / elapsed.as_secs_f64();
        (self.turn_began, self.passed) = (now, 0);
        let set = set.map(|set| set.get() as f64);
        if late {
            let began = self.full.is_none();
            let full = *self.full.get_or_insert(set.unwrap_or(passing));
            let least = (full * LEAST_PART).max((under_way * EACH) as f64).min(set.unwrap_or(f64::INFINITY));
            self.rate = Some((self.rate.unwrap_or(passing).min(passing) / 2.0).max(least));
            return began;
        }
        if let (Some(rate), Some(_)) = (self.rate, self.full) {
            let turns = (elapsed.as_secs_f64() / TURN.as_secs_f64()).min(100.0);
            let faster = rate * FASTER.powf(turns);
            let is_over = faster >= set.unwrap_or(passing * BEYOND);
            self.rate = if is_over { set } else { Some(faster) };
            self.full = self.full.filter(|_| !is_over);
        }
        false
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.pace.under_way.fetch_sub(1, Relaxed);
    }
}

/// How long a connection has waited for the pieces of a body: because of their source or of the pace, and not because of
/// the receiver.
#[derive(Debug, Default)]
pub(crate) struct Ours(Mutex<Waits>);

#[derive(Debug, Default)]
struct Waits {
    total: Duration,
    /// When the wait for the next piece began.
    since: Option<Instant>,
}

impl Ours {
    /// The total of all waits so far.
    pub(crate) fn total(&self) -> Duration {
        let waits = self.waits();
        waits.total + waits.since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    fn waits(&self) -> MutexGuard<'_, Waits> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, is_there: bool) {
        let mut waits = self.waits();
        if !is_there {
            waits.since.get_or_insert_with(Instant::now);
        } else if let Some(since) = waits.since.take() {
            waits.total += since.elapsed();
        }
    }
}

struct TimedBody {
    pieces: BoxStream<'static, io::Result<Bytes>>,
    ours: Arc<Ours>,
}

impl Stream for TimedBody {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = self.pieces.poll_next_unpin(context);
        self.ours.note(next.is_ready());
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(rate: u64) -> Arc<Pace> {
        Arc::new(Pace::new(NonZeroU64::new(rate)))
    }

    fn body(pieces: usize, size: usize) -> BoxStream<'static, io::Result<Bytes>> {
        stream::iter((0..=u8::MAX).cycle().take(pieces).map(move |number| Ok(Bytes::from(vec![number; size])))).boxed()
    }

    /// Sends a snapshot of this many pieces. Returns how many bytes it had, and how long it took.
    async fn send(pace: &Arc<Pace>, pieces: usize, size: usize) -> (usize, Duration) {
        let begun = Instant::now();
        let _slot = pace.slot().await;
        let slices = pace.clone().paced(body(pieces, size), Arc::default());
        let bytes = slices.fold(0, async |bytes, slice| bytes + slice.expect("a slice").len());
        (bytes.await, begun.elapsed())
    }

    fn about(time: Duration, seconds: f64) {
        assert!((seconds * 0.97..=seconds * 1.03).contains(&time.as_secs_f64()), "{time:?}, not {seconds} s");
    }

    #[tokio::test(start_paused = true)]
    async fn snapshots_share_the_rate_that_is_set_and_are_what_they_were() {
        let pace = pace(1 << 20);
        let (one, two) = tokio::join!(send(&pace, 40, 256 << 10), send(&pace, 40, 256 << 10));
        assert_eq!((one.0, two.0), (10 << 20, 10 << 20));
        about(one.1, 20.0);
        about(two.1, 20.0);
        about(send(&pace, 10, 1 << 20).await.1, 10.0);
        let slices = pace.clone().paced(body(7, 300_000), Arc::default());
        let whole = slices.map(|slice| slice.expect("a slice")).collect::<Vec<_>>().await.concat();
        assert!(whole == (0..7).flat_map(|number| vec![number; 300_000]).collect::<Vec<u8>>());
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_rate_pieces_go_as_they_come() {
        let pace = pace(0);
        assert_eq!(send(&pace, 1000, 1 << 20).await, (1000 << 20, Duration::ZERO));
        let mut slices = pace.clone().paced(body(1, 5 << 20), Arc::default());
        assert_eq!(slices.next().await.expect("a slice").expect("it is there").len(), 5 << 20);
    }

    #[tokio::test(start_paused = true)]
    async fn where_the_rate_is_too_low_for_two_they_go_one_after_the_other() {
        let pace = pace(LEAST);
        let (one, two) = tokio::join!(send(&pace, 10, 64 << 10), send(&pace, 10, 64 << 10));
        about(one.1, 10.0);
        about(two.1, 20.0);
        // Byte by byte, so that nobody waits long for the next one.
        about(send(&self::pace(3), 1, 10).await.1, 3.0);
    }

    #[tokio::test(start_paused = true)]
    async fn snapshots_go_slower_while_heartbeats_are_late_and_faster_when_they_are_not() {
        const RATE: u64 = 80 << 20;
        let pace = pace(RATE);
        let sending = tokio::spawn({
            let pace = pace.clone();
            async move { send(&pace, 1 << 20, 256 << 10).await }
        });
        let mut usual = Duration::ZERO;
        let mut heartbeats = async |times, waited| {
            for _ in 0..times {
                tokio::time::sleep(TURN).await;
                pace.heartbeat_left(waited, &mut usual);
            }
            pace.rate().expect("a rate") / RATE as f64
        };
        assert_eq!(heartbeats(50, LATE).await, 1.0, "none is late");
        assert_eq!(pace.status().yields, 0);
        let slower = heartbeats(3, LATE * 2).await;
        assert!(slower < 0.6, "{slower}");
        assert_eq!(heartbeats(50, LATE * 2).await, LEAST_PART, "however late they are");
        assert_eq!(pace.status().yields, 1);
        assert_eq!(heartbeats(30, Duration::ZERO).await, 1.0, "it is over");
        heartbeats(3, LATE * 2).await;
        assert_eq!(pace.status().yields, 2);
        sending.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_rate_what_passes_is_what_is_made_less() {
        let pace = pace(0);
        let passing = stream::unfold((), async |()| {
            tokio::time::sleep(TURN / 10).await;
            Some((Ok(Bytes::from_static(&[0; 1 << 20])), ()))
        });
        // A hundred megabytes a second.
        let mut slices = pace.clone().paced(passing.boxed(), Arc::default());
        let _slot = pace.slot().await;
        let mut late = Duration::ZERO;
        let mut passed = async |time: Duration, waited| {
            let (begun, mut bytes) = (Instant::now(), 0);
            while begun.elapsed() < time {
                bytes += slices.next().await.expect("a slice").expect("it is there").len();
                pace.heartbeat_left(waited, &mut late);
            }
            bytes as f64 / begun.elapsed().as_secs_f64() / f64::from(100 << 20)
        };
        assert!(passed(TURN * 10, LATE).await > 0.98);
        passed(TURN * 10, LATE * 2).await;
        let least = passed(TURN * 100, LATE * 2).await;
        assert!((0.8 * LEAST_PART..1.2 * LEAST_PART).contains(&least), "{least}");
        passed(TURN * 60, Duration::ZERO).await;
        assert!(passed(TURN * 10, Duration::ZERO).await > 0.98);
        assert_eq!(pace.rate(), None, "there is no bound any more");
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_whose_heartbeats_are_always_late_is_no_reason_to_yield() {
        let pace = pace(1 << 30);
        let mut usual = Duration::ZERO;
        for _ in 0..100 {
            pace.heartbeat_left(LATE * 3, &mut usual);
        }
        let _slot = pace.slot().await;
        pace.heartbeat_left(LATE * 6, &mut usual);
        assert!(!pace.late.load(Relaxed));
        pace.heartbeat_left(LATE * 13, &mut usual);
        assert!(pace.late.load(Relaxed), "that is late even for it");
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_in_which_the_body_is_waited_for_is_ours() {
        let ours: Arc<Ours> = Arc::default();
        let mut slices = pace(1000).paced(body(1, 1100), ours.clone());
        while slices.next().await.is_some() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        assert_eq!(ours.total(), Duration::ZERO, "who takes a tenth of it a second need not wait");
        let mut slices = pace(1000).paced(body(1, 1100), ours.clone());
        while slices.next().await.is_some() {}
        about(ours.total(), 1.0);
    }
}
