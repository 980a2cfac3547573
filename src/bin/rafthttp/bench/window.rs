//! The messages that the source has sent and the sink has not yet acknowledged.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use rafthttp::SnapshotStatus;
use tokio::sync::Notify;

/// The sink's last acknowledgement, and the task that waits for the next one.
#[derive(Debug, Default)]
pub(super) struct Window {
    acknowledged: AtomicU64,
    notices: AtomicU64,
    snapshot: Mutex<Option<SnapshotStatus>>,
    changed: Notify,
}

impl Window {
    /// The sink took everything up to `number`. An acknowledgement that a later one has overtaken changes nothing.
    pub(super) fn acknowledge(&self, number: u64) {
        self.acknowledged.fetch_max(number, Ordering::AcqRel);
        self.changed.notify_one();
    }

    /// The sink has received a notice.
    pub(super) fn hear_notice(&self) {
        self.notices.fetch_add(1, Ordering::AcqRel);
        self.changed.notify_one();
    }

    /// How many notices the sink has received.
    pub(super) fn notices(&self) -> u64 {
        self.notices.load(Ordering::Acquire)
    }

    /// The result of the snapshot is known.
    pub(super) fn snapshot_ended(&self, status: SnapshotStatus) {
        *self.snapshot.lock().unwrap_or_else(PoisonError::into_inner) = Some(status);
        self.changed.notify_one();
    }

    /// The last message that the sink is known to have taken; 0 if there is none.
    pub(super) fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Acquire)
    }

    /// The result of the snapshot, once it is known.
    pub(super) fn snapshot(&self) -> Option<SnapshotStatus> {
        *self.snapshot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the next change. A change since the last wait counts, so read the state after it, and wait again.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_acknowledgement_before_the_wait_is_not_missed() {
        let window = Window::default();
        window.acknowledge(3);
        window.changed().await;
        assert_eq!(window.acknowledged(), 3);
    }

    #[test]
    fn an_overtaken_acknowledgement_changes_nothing() {
        let window = Window::default();
        window.acknowledge(3);
        window.acknowledge(2);
        assert_eq!(window.acknowledged(), 3);
    }
}
