//! The account of the spans that are to be exported: each is exported, dropped, or waiting.

use std::{
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::ledger::TraceExportStatus;

/// The time between two log lines about failing exports, whether or not some succeeded in between.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// The counts of all spans, behind one lock, so that their sum is right whenever they are read.
#[derive(Debug)]
pub(super) struct Account {
    room: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    status: TraceExportStatus,
    closed: bool,
    /// Whether the log says that exports fail, and not yet that they succeed again.
    failing: bool,
    /// When the log last said that exports fail.
    told: Option<Instant>,
}

impl Account {
    /// An account with room for `room` waiting spans, including those on their way.
    pub(super) fn new(room: usize) -> Self {
        Self { room: room as u64, state: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn status(&self) -> TraceExportStatus {
        self.lock().status
    }

    /// Whether one more span may wait. If not, the span is dropped.
    pub(super) fn admit(&self) -> bool {
        let mut state = self.lock();
        let admitted = !state.closed && state.status.waiting < self.room;
        if admitted {
            state.status.waiting += 1;
        } else {
            state.status.dropped += 1;
        }
        admitted
    }

    /// The collector took this many spans.
    pub(super) fn exported(&self, spans: u64) {
        let again = {
            let mut state = self.lock();
            if !state.closed {
                state.status.waiting -= spans;
                state.status.exported += spans;
            }
            std::mem::take(&mut state.failing)
        };
        if again {
            tracing::info!("spans are exported again");
        }
    }

    /// This many spans are dropped. Logs it when it begins, and once a minute while it goes on.
    pub(super) fn failed(&self, spans: u64, error: &dyn fmt::Display) {
        let status = {
            let mut state = self.lock();
            if !state.closed {
                state.status.waiting -= spans;
                state.status.dropped += spans;
            }
            state.status.failures += 1;
            if state.told.is_some_and(|told| told.elapsed() < LOG_INTERVAL) {
                return;
            }
            (state.told, state.failing) = (Some(Instant::now()), true);
            state.status
        };
        let TraceExportStatus { dropped, failures, .. } = status;
        tracing::warn!(why = %error, failures, dropped, "spans cannot be exported");
    }

    /// Ends the account: the waiting spans are dropped. Returns how many.
    pub(super) fn close(&self) -> u64 {
        let mut state = self.lock();
        state.closed = true;
        let left = std::mem::take(&mut state.status.waiting);
        state.status.dropped += left;
        left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_span_ends_once_whatever_comes_after_the_end() {
        let account = Account::new(10);
        let admitted = (0..15).filter(|_| account.admit()).count();
        assert_eq!(admitted, 10);
        account.exported(3);
        account.failed(4, &"refused");
        assert_eq!(account.status(), TraceExportStatus { exported: 3, dropped: 9, waiting: 3, failures: 1 });
        assert_eq!(account.close(), 3);
        // The result of an export that was under way arrives.
        account.exported(3);
        assert!(!account.admit());
        assert_eq!(account.status(), TraceExportStatus { exported: 3, dropped: 13, waiting: 0, failures: 1 });
    }
}
