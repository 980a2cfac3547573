//! What becomes of the spans that are to be exported: each ends as exported or dropped, or waits.

use std::{
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::ledger::TraceExportStatus;

/// Between two log lines about exports that fail, whether or not some came through in between.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// The count of all spans, behind one lock: their sum holds whenever it is read.
#[derive(Debug)]
pub(super) struct Account {
    room: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    status: TraceExportStatus,
    closed: bool,
    /// Whether the log told that exports fail, and not yet that they do no more.
    failing: bool,
    /// When the log last told that they fail.
    told: Option<Instant>,
}

impl Account {
    /// An account of which `room` spans may wait, those on their way included.
    pub(super) fn new(room: usize) -> Self {
        Self { room: room as u64, state: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn status(&self) -> TraceExportStatus {
        self.lock().status
    }

    /// Whether one more span may wait. If not, it is dropped.
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

    /// The collector took these.
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

    /// These are given up. The log tells of it when it begins, and once a minute while it goes on.
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

    /// Nothing is exported any more: what waits is dropped. Says how much.
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
        // An export that was under way comes back.
        account.exported(3);
        assert!(!account.admit());
        assert_eq!(account.status(), TraceExportStatus { exported: 3, dropped: 13, waiting: 0, failures: 1 });
    }
}
