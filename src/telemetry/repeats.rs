//! Log lines about repeated things: the first comes at once, and then sums come less and less often while it goes on.

use std::{
    future,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

/// The shortest time between two lines about the same thing.
pub(crate) const SOONEST: Duration = Duration::from_secs(1);
/// The longest time between two lines about the same thing.
const RAREST: Duration = Duration::from_secs(60);

/// Decides when the next line about a continuing thing may come: after one second, two, four, and so on, up to a
/// minute. It starts again at one second after a pause of that length.
#[derive(Debug)]
pub(crate) struct RepeatPace {
    next: Option<Instant>,
    interval: Duration,
}

impl Default for RepeatPace {
    fn default() -> Self {
        Self { next: None, interval: SOONEST }
    }
}

impl RepeatPace {
    /// Whether it is time for a line. `news` says whether there is anything to report.
    pub(crate) fn is_due(&mut self, news: bool, now: Instant) -> bool {
        if self.next.is_some_and(|next| now < next) {
            return false;
        }
        if !news {
            self.interval = SOONEST;
            return false;
        }
        self.next = Some(now + self.interval);
        self.interval = (self.interval * 2).min(RAREST);
        true
    }
}

/// Counts something that could be a log line each time, and says when to write one.
#[derive(Debug, Default)]
pub(crate) struct Repeats(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    pace: RepeatPace,
    untold: u64,
}

impl Repeats {
    /// Counts one occurrence. Returns `Some` if it is time for a line, with the number of occurrences to report.
    pub(crate) fn note(&self) -> Option<u64> {
        let (mut state, now) = (self.lock(), Instant::now());
        if state.untold == 0 {
            // If nothing was withheld, it was quiet in between.
            state.pace.is_due(false, now);
        }
        state.untold += 1;
        state.pace.is_due(true, now).then(|| std::mem::take(&mut state.untold))
    }

    /// Waits until the withheld occurrences have to be reported, and returns their number. Waits for ever while there
    /// are none.
    pub(crate) async fn due(&self) -> u64 {
        let next = {
            let state = self.lock();
            state.pace.next.filter(|_| state.untold > 0)
        };
        match next {
            Some(next) => sleep_until(next).await,
            None => future::pending().await,
        }
        let mut state = self.lock();
        state.pace.is_due(true, Instant::now());
        std::mem::take(&mut state.untold)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{advance, timeout};

    use super::*;

    /// How many lines come out of `seconds` of repetitions.
    fn lines(pace: &mut RepeatPace, from: Instant, seconds: u64) -> usize {
        (0..seconds).filter(|second| pace.is_due(true, from + Duration::from_secs(*second))).count()
    }

    #[test]
    fn what_goes_on_is_told_more_and_more_rarely() {
        let (mut pace, start) = (RepeatPace::default(), Instant::now());
        assert_eq!(lines(&mut pace, start, 1), 1, "the first within a second");
        // Lines come after 1, 3, 7, 15, 31 and 63 s, and then each minute.
        assert_eq!(lines(&mut pace, start, 60), 5);
        assert_eq!(lines(&mut pace, start + Duration::from_secs(60), 3600), 60);
    }

    #[test]
    fn what_ended_and_begins_again_is_told_at_once() {
        let (mut pace, start) = (RepeatPace::default(), Instant::now());
        lines(&mut pace, start, 10);
        let later = start + Duration::from_secs(100);
        assert!(!pace.is_due(false, later));
        assert_eq!(lines(&mut pace, later + SOONEST, 2), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn what_repeats_is_told_at_once_and_the_rest_in_sums() {
        let repeats = Repeats::default();
        assert_eq!(repeats.note(), Some(1));
        assert_eq!((0..5).filter_map(|_| repeats.note()).count(), 0);
        assert_eq!(repeats.due().await, 5, "a second later");
        assert!(timeout(Duration::from_secs(600), repeats.due()).await.is_err(), "there is no more to tell");

        let mut told = Vec::new();
        for _ in 0..200 {
            told.extend(repeats.note());
            advance(Duration::from_millis(50)).await;
        }
        assert_eq!(told, [1, 20, 40, 80], "of ten seconds: at once, after 1, 3 and 7 s");
    }
}
