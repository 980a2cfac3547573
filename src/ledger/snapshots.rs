//! Counts of snapshots.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

use super::{Histogram, RestartReason, Tally};

/// The time over which the rate is measured, and its resolution.
const RATE_OVER: Duration = Duration::from_secs(10);
const RATE_STEP: Duration = Duration::from_secs(1);

/// The rate at which a transport may send its snapshots, all of them together.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct SnapshotPace {
    /// The rate in bytes per second. `None`: no limit.
    pub limit: Option<f64>,
    /// How often the rate was reduced because heartbeats were late.
    pub yields: u64,
}

/// Counts of the snapshots in one direction.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Snapshots {
    /// Snapshots that succeeded.
    pub ok: u64,
    /// Snapshots that failed.
    pub failed: u64,
    /// Incoming snapshots that broke off, and of which a part is kept so that the sender can go on.
    pub broken_off: u64,
    /// Snapshots that had broken off and started over, by reason.
    pub restarts: Tally<RestartReason>,
    /// Bytes that were there already, summed over all times that a snapshot went on where it had broken off.
    pub resumed: u64,
    /// Bytes of outgoing snapshots that were sent, but were not there when the snapshot went on.
    pub resent: u64,
    /// Snapshots in progress.
    pub in_flight: u64,
    /// Bytes of bodies that have passed.
    pub bytes: u64,
    /// How long the successful snapshots took.
    pub seconds: Histogram,
    /// The total body length of the snapshots under way whose length is known, in bytes.
    pub promised: u64,
    /// How many of the `promised` bytes have passed.
    pub passed: u64,
    /// How many of the snapshots under way have an unknown length.
    pub unmeasured: u64,
    /// Times, with the bytes that had passed by then, the newest last. The rate is measured between them.
    marks: VecDeque<(Instant, u64)>,
}

impl Snapshots {
    /// The progress of the snapshots under way, 0 to 1. `None` if there is none, or if one has an unknown length.
    pub fn progress(&self) -> Option<f64> {
        let known = self.in_flight > 0 && self.unmeasured == 0 && self.passed <= self.promised;
        // An empty body has nothing left to pass.
        known.then(|| if self.promised == 0 { 1.0 } else { self.passed as f64 / self.promised as f64 })
    }

    /// How many bytes the snapshots under way still have to pass. `None` if there is none, or if one has an unknown
    /// length.
    pub fn left(&self) -> Option<u64> {
        self.progress().map(|_| self.promised - self.passed)
    }

    /// The bytes per second that passed in the last ten seconds. `None` if there is no snapshot, or none has been under
    /// way for a second yet.
    pub fn rate(&self) -> Option<f64> {
        let now = Instant::now();
        let (newest, oldest) = (self.marks.back()?, self.marks.front()?);
        let long_ago = self.marks.iter().rev().find(|(then, _)| now.saturating_duration_since(*then) >= RATE_OVER);
        let (since, passed) = long_ago.unwrap_or(oldest);
        let time = now.saturating_duration_since(*since);
        (self.in_flight > 0 && time >= RATE_STEP).then(|| (newest.1 - passed) as f64 / time.as_secs_f64())
    }

    /// How long the snapshots under way will still take at this rate. `None` if nothing passes, or if one has an
    /// unknown length.
    pub fn time_left(&self) -> Option<Duration> {
        let seconds = self.left()? as f64 / self.rate()?;
        Duration::try_from_secs_f64(seconds).ok()
    }

    /// A snapshot begins. `length` is the length of its body, if known.
    pub(super) fn begin(&mut self, length: Option<u64>, now: Instant) {
        if self.in_flight == 0 {
            self.marks = [(now, self.bytes)].into();
        }
        self.in_flight += 1;
        match length {
            Some(length) => self.promised = self.promised.saturating_add(length),
            None => self.unmeasured += 1,
        }
    }

    /// More of a body has passed.
    pub(super) fn progressed(&mut self, bytes: u64, now: Instant) {
        self.bytes += bytes;
        self.passed += bytes;
        // The newest mark moves on until it is one step away from the mark before it.
        let place = self.marks.len().wrapping_sub(2);
        if self.marks.get(place).is_some_and(|(before, _)| now.saturating_duration_since(*before) < RATE_STEP) {
            self.marks.pop_back();
        }
        self.marks.push_back((now, self.bytes));
        while self.marks.get(1).is_some_and(|(next, _)| now.saturating_duration_since(*next) >= RATE_OVER) {
            self.marks.pop_front();
        }
    }

    /// A snapshot goes on at this offset. `passed` bytes of it had passed before.
    pub(super) fn resume(&mut self, passed: u64, offset: u64) {
        self.resumed += offset;
        self.resent += passed.saturating_sub(offset);
        self.passed = self.passed - passed + offset;
    }

    /// A snapshot has broken off. It began with this length, and this many bytes are there.
    pub(super) fn break_off(&mut self, length: Option<u64>, bytes: u64) {
        self.leave(length, bytes);
        self.broken_off += 1;
    }

    /// A snapshot is no longer in progress. It began with this length, and this many bytes are there.
    pub(super) fn leave(&mut self, length: Option<u64>, bytes: u64) {
        self.in_flight -= 1;
        self.passed -= bytes;
        match length {
            Some(length) => self.promised = self.promised.saturating_sub(length),
            None => self.unmeasured -= 1,
        }
    }

    /// A snapshot ended. `length` is the length that it began with, and `bytes` is how much of its body has passed.
    /// `took` is the duration if it succeeded, and `None` if it failed.
    pub(super) fn end(&mut self, length: Option<u64>, bytes: u64, took: Option<Duration>) {
        self.leave(length, bytes);
        match took {
            Some(took) => {
                self.ok += 1;
                self.seconds.observe(took);
            }
            None => self.failed += 1,
        }
    }
}

impl Default for Snapshots {
    fn default() -> Self {
        Self {
            ok: 0,
            failed: 0,
            broken_off: 0,
            restarts: Tally::default(),
            resumed: 0,
            resent: 0,
            in_flight: 0,
            bytes: 0,
            seconds: Histogram::for_snapshots(),
            promised: 0,
            passed: 0,
            unmeasured: 0,
            marks: VecDeque::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_left_and_how_long_it_takes_is_told_while_something_passes() {
        let mut snapshots = Snapshots::default();
        assert_eq!((snapshots.rate(), snapshots.left(), snapshots.time_left()), (None, None, None));
        snapshots.begin(Some(1_000_000), Instant::now());
        assert_eq!((snapshots.rate(), snapshots.left()), (None, Some(1_000_000)));
        for _ in 0..200 {
            advance(Duration::from_millis(100)).await;
            snapshots.progressed(100, Instant::now());
        }
        assert_eq!((snapshots.rate(), snapshots.left()), (Some(1000.0), Some(980_000)));
        assert_eq!(snapshots.time_left(), Some(Duration::from_secs(980)));
        assert!(snapshots.marks.len() < 15, "{}", snapshots.marks.len());
        // A doubled rate shows within ten seconds.
        for _ in 0..110 {
            advance(Duration::from_millis(100)).await;
            snapshots.progressed(200, Instant::now());
        }
        assert!(snapshots.rate().is_some_and(|rate| (1999.9..2000.1).contains(&rate)), "{:?}", snapshots.rate());
        advance(Duration::from_secs(5)).await;
        assert!(snapshots.rate().is_some_and(|rate| (900.0..1100.0).contains(&rate)), "{:?}", snapshots.rate());
        advance(Duration::from_secs(5)).await;
        assert_eq!((snapshots.rate(), snapshots.time_left()), (Some(0.0), None), "it is stuck");
        snapshots.end(Some(1_000_000), 42_000, None);
        assert_eq!((snapshots.rate(), snapshots.left()), (None, None));
        // The next snapshot has no marks of the one before.
        snapshots.begin(None, Instant::now());
        advance(Duration::from_secs(2)).await;
        snapshots.progressed(10, Instant::now());
        assert_eq!((snapshots.rate(), snapshots.left(), snapshots.time_left()), (Some(5.0), None, None));
    }
}
