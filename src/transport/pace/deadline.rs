//! The deadline of a snapshot, which depends on its progress: a peer that is too slow for too long loses its place.

use std::{collections::VecDeque, num::NonZeroU64, time::Duration};

/// The least rate at which a peer must take or send, in bytes per second. A slower peer would need days for a large
/// store, and would hold one of few places all the time.
pub(crate) const LEAST: u64 = 64 << 10;
/// The time over which the rate is measured. Only the time spent waiting for the peer counts.
pub(crate) const WINDOW: Duration = Duration::from_secs(60);
/// The resolution of the measurement.
const STEP: Duration = Duration::from_secs(1);

/// Measures whether a peer keeps the deadline.
#[derive(Debug)]
pub(crate) struct Deadline {
    least: u64,
    /// Marks of the total time spent waiting for the peer, with the bytes that had passed by then: one mark per step,
    /// back to the beginning of the window.
    marks: VecDeque<(Duration, u64)>,
    /// The time spent on earlier connections, and the bytes that passed on them.
    earlier: (Duration, u64),
    /// The time until the last look.
    looked: Duration,
}

impl Deadline {
    /// A deadline for a cluster whose members send snapshots at `rate`, in bytes per second. No more than half of it is
    /// demanded, so that a peer that keeps to the rate keeps the deadline.
    pub(crate) fn new(rate: Option<NonZeroU64>) -> Self {
        let least = rate.map_or(LEAST, |rate| LEAST.min(rate.get().div_ceil(2)));
        let marks = [(Duration::ZERO, 0)].into();
        Self { least, marks, earlier: (Duration::ZERO, 0), looked: Duration::ZERO }
    }

    /// The demanded rate, in bytes per second.
    pub(crate) fn least(&self) -> u64 {
        self.least
    }

    /// The same body goes on, on another connection, behind the first `there` bytes. The time that was spent waiting for
    /// the peer on earlier connections counts. Bytes that were sent and did not arrive do not.
    pub(crate) fn goes_on(&mut self, there: u64) {
        self.earlier = (self.looked, there);
        self.marks.iter_mut().for_each(|(_, passed)| *passed = there.min(*passed));
    }

    /// Whether the deadline is missed. `waited` is the time spent waiting for the peer on this connection until now, and
    /// `bytes` is how many bytes have passed on it.
    pub(crate) fn is_missed(&mut self, waited: Duration, bytes: u64) -> bool {
        let (waited, bytes) = (self.earlier.0 + waited, self.earlier.1.saturating_add(bytes));
        self.looked = waited;
        if self.marks.back().is_none_or(|(last, _)| waited.saturating_sub(*last) >= STEP) {
            self.marks.push_back((waited, bytes));
        }
        while self.marks.get(1).is_some_and(|(next, _)| waited.saturating_sub(*next) >= WINDOW) {
            self.marks.pop_front();
        }
        self.marks.front().is_some_and(|(then, passed)| {
            let time = waited.saturating_sub(*then);
            time >= WINDOW && (bytes.saturating_sub(*passed) as f64) < self.least as f64 * time.as_secs_f64()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The second in which a peer misses the deadline that passes `bytes(second)` in each second. `None` if it keeps it
    /// for two hours.
    fn missed(rate: Option<u64>, bytes: impl Fn(u64) -> u64) -> Option<u64> {
        let mut deadline = Deadline::new(rate.and_then(NonZeroU64::new));
        let mut passed = 0;
        (1..7200).find(|second| {
            passed += bytes(*second);
            deadline.is_missed(Duration::from_secs(*second), passed)
        })
    }

    #[test]
    fn whoever_is_below_64_kib_a_second_for_a_minute_misses_it() {
        assert_eq!(missed(None, |_| 0), Some(60));
        assert_eq!(missed(None, |second| u64::from(second.is_multiple_of(29)) * 7), Some(60));
        assert_eq!(missed(None, |_| LEAST - 1), Some(60));
        assert_eq!(missed(None, |_| LEAST), None);
        assert_eq!(missed(None, |second| u64::from(second.is_multiple_of(20)) * 20 * LEAST), None);
        // A fast beginning is no credit for later.
        assert_eq!(missed(None, |second| if second < 1000 { 100 * LEAST } else { LEAST / 2 }), Some(1059));
    }

    #[test]
    fn no_more_is_demanded_than_half_of_the_rate_that_is_set() {
        assert_eq!(missed(Some(1000), |_| 500), None);
        assert_eq!(missed(Some(1000), |_| 499), Some(60));
        assert_eq!(missed(Some(1 << 30), |_| LEAST - 1), Some(60));
        assert_eq!(missed(Some(1), |_| 1), None);
    }

    #[test]
    fn a_peer_that_takes_too_little_misses_it_however_often_its_connection_breaks() {
        // A connection of four seconds, on which this much is sent each second. Some of it is lost with the connection.
        let missed = |sent: u64, arrives: u64| {
            let mut deadline = Deadline::new(None);
            (0..1000_u64).find(|connection| {
                deadline.goes_on(connection * 4 * arrives);
                (1..=4).any(|second| deadline.is_missed(Duration::from_secs(second), second * sent))
            })
        };
        assert_eq!(missed(LEAST, LEAST), None);
        assert_eq!(missed(LEAST - 1, LEAST - 1), Some(14), "after a minute");
        // 4 MiB that lie between the two do not count, neither for the peer nor against it.
        assert_eq!(missed(LEAST + (1 << 20), LEAST), None);
        assert!(missed(LEAST + (1 << 20), LEAST / 2).is_some());
        // It has lost everything.
        let mut deadline = Deadline::new(None);
        assert!(!deadline.is_missed(Duration::from_secs(30), 100 << 20));
        deadline.goes_on(0);
        assert!(!deadline.is_missed(Duration::from_secs(29), 0));
        assert!(!deadline.is_missed(Duration::from_secs(30), 60 * LEAST));
    }

    #[test]
    fn what_is_kept_is_bounded_however_often_it_is_asked() {
        let mut deadline = Deadline::new(None);
        for millis in 0..1_000_000 {
            assert!(!deadline.is_missed(Duration::from_millis(millis), millis * 1000));
        }
        assert!(deadline.marks.len() <= 62, "{}", deadline.marks.len());
    }
}
