//! How often something has happened, for tasks that wait for the next time.
//!
//! It is a smaller `tokio::sync::watch`. `watch` wakes waiting tasks in a random order, and its random numbers do not
//! come from [`World`](crate::world::World). This one wakes them in the order in which they began to wait, so that a
//! simulated member does the same each time.

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::Notify;

/// Counts the times. Cheap to clone: all clones are one counter.
#[derive(Clone, Debug, Default)]
pub(crate) struct Times(Arc<Counted>);

#[derive(Debug, Default)]
struct Counted {
    count: AtomicU64,
    again: Notify,
}

/// Follows [`Times`], from the count that it has last seen.
#[derive(Clone, Debug)]
pub(crate) struct Following {
    times: Times,
    seen: u64,
}

impl Times {
    /// It has happened once more.
    pub(crate) fn again(&self) {
        self.0.count.fetch_add(1, Ordering::Release);
        self.0.again.notify_waiters();
    }

    /// Follows it from now on.
    pub(crate) fn follow(&self) -> Following {
        Following { times: self.clone(), seen: self.count() }
    }

    fn count(&self) -> u64 {
        self.0.count.load(Ordering::Acquire)
    }
}

impl Following {
    /// Whether it has happened since [`Self::changed`] last returned.
    pub(crate) fn has_changed(&self) -> bool {
        self.times.count() != self.seen
    }

    /// Waits until it has happened since this last returned.
    pub(crate) async fn changed(&mut self) {
        loop {
            let times = self.times.clone();
            let mut again = pin!(times.0.again.notified());
            // From here on no time is missed.
            again.as_mut().enable();
            if self.has_changed() {
                self.seen = self.times.count();
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
            let (times, order) = (Times::default(), Arc::new(Mutex::new(Vec::new())));
            let waiting: Vec<_> = (0..8)
                .map(|number| {
                    let (mut following, order) = (times.follow(), order.clone());
                    tokio::spawn(async move {
                        following.changed().await;
                        order.lock().expect("nobody panics").push(number);
                    })
                })
                .collect();
            tokio::task::yield_now().await;
            times.again();
            for task in waiting {
                task.await.expect("it ends");
            }
            assert_eq!(*order.lock().expect("nobody panics"), (0..8).collect::<Vec<_>>());
        }
    }

    #[tokio::test]
    async fn what_has_happened_before_the_wait_ends_it() {
        let times = Times::default();
        times.again();
        let mut following = times.follow();
        assert!(!following.has_changed());
        times.again();
        times.again();
        assert!(following.has_changed());
        following.changed().await;
        assert!(!following.has_changed());
    }
}
