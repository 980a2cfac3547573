//! A signal that tasks wait for: something has happened again.
//!
//! It is a smaller `tokio::sync::watch`. `watch` wakes waiting tasks in a random order, and its random numbers do not
//! come from [`World`](crate::world::World). This one wakes them in the order in which they began to wait, so that a
//! simulated member does the same each time. It counts, so a task that was
//! busy still learns that it was given.

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::Notify;

/// The sending side. Cheap to clone: all clones are one signal.
#[derive(Clone, Debug, Default)]
pub(crate) struct Signal(Arc<Counter>);

#[derive(Debug, Default)]
struct Counter {
    count: AtomicU64,
    waiting: Notify,
}

/// The receiving side of a [`Signal`].
#[derive(Clone, Debug)]
pub(crate) struct Subscription {
    signal: Signal,
    /// The count that was seen last.
    seen: u64,
}

impl Signal {
    /// It has happened once more: wakes everyone who waits.
    pub(crate) fn notify(&self) {
        self.0.count.fetch_add(1, Ordering::Release);
        self.0.waiting.notify_waiters();
    }

    /// Subscribes to it, from now on.
    pub(crate) fn subscribe(&self) -> Subscription {
        Subscription { signal: self.clone(), seen: self.count() }
    }

    fn count(&self) -> u64 {
        self.0.count.load(Ordering::Acquire)
    }
}

impl Subscription {
    /// Whether it has happened since [`Self::changed`] last returned.
    pub(crate) fn has_changed(&self) -> bool {
        self.signal.count() != self.seen
    }

    /// Waits until it has happened since this last returned.
    pub(crate) async fn changed(&mut self) {
        loop {
            let signal = self.signal.clone();
            let mut again = pin!(signal.0.waiting.notified());
            // From here on no signal is missed.
            again.as_mut().enable();
            if self.has_changed() {
                self.seen = self.signal.count();
                return;
            }
            again.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[tokio::test]
    async fn who_waits_is_woken_in_the_order_of_waiting() {
        // With a watch, one of these rounds would differ, but for a chance of 1 in 8 to the power of 28.
        for _ in 0..4 {
            let (signal, order) = (Signal::default(), Arc::new(Mutex::new(Vec::new())));
            let waiting: Vec<_> = (0..8)
                .map(|number| {
                    let (mut subscription, order) = (signal.subscribe(), order.clone());
                    tokio::spawn(async move {
                        subscription.changed().await;
                        order.lock().expect("nobody panics").push(number);
                    })
                })
                .collect();
            tokio::task::yield_now().await;
            signal.notify();
            for task in waiting {
                task.await.expect("it ends");
            }
            assert_eq!(*order.lock().expect("nobody panics"), (0..8).collect::<Vec<_>>());
        }
    }

    #[tokio::test]
    async fn what_has_happened_before_the_wait_ends_it() {
        let signal = Signal::default();
        signal.notify();
        let mut subscription = signal.subscribe();
        assert!(!subscription.has_changed());
        signal.notify();
        signal.notify();
        assert!(subscription.has_changed());
        subscription.changed().await;
        assert!(!subscription.has_changed());
    }
}
