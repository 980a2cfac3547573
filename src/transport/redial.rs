//! Decides when a peer may be dialled: at a limited rate, with jitter, and while it is down by only one of its tasks.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, Semaphore, SemaphorePermit},
    time::sleep,
};

use crate::world::World;

/// The wait before the first redial. It doubles with each failure. etcd redials every 100 ms.
const FIRST: Duration = Duration::from_millis(100);
/// The longest wait.
const LONGEST: Duration = Duration::from_secs(1);

/// How long dialling is left to the prober at least. After that, others may dial again: a peer that answers more slowly
/// than a probe may take would otherwise never be found.
const LEFT_TO_PROBER: Duration = Duration::from_secs(10);

/// A wait that doubles from [`FIRST`] to [`LONGEST`], with full jitter, so that a thousand peers that went down
/// together are not dialled together.
pub(crate) fn wait_after(failures: u32, world: &World) -> Duration {
    // The exponent is limited so that the shift cannot overflow.
    let bound = FIRST.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(LONGEST);
    // It is never quite zero, so the rate stays limited whatever the random number.
    FIRST / 10 + bound.mul_f64(world.fraction())
}

/// The dial state of one peer, shared by its two readers, its pipeline and its prober.
pub(crate) struct Redial {
    state: Mutex<State>,
    /// The holder may dial while the peer is down. The others wait for news.
    turn: Semaphore,
    news: Notify,
    /// Whether there is a prober. It dials once per interval anyway, so dialling is left to it when the wait has
    /// reached its longest.
    probed: bool,
    world: World,
}

#[derive(Default)]
struct State {
    /// The number of dials in a row that reached nobody; 0 while the peer is up.
    failures: u32,
    /// How often the peer was found reachable.
    ups: u64,
}

/// The permission to dial once.
pub(crate) struct Permit<'a> {
    _turn: Option<SemaphorePermit<'a>>,
}

impl Redial {
    pub(crate) fn new(probed: bool, world: &World) -> Self {
        Self { state: Mutex::default(), turn: Semaphore::new(1), news: Notify::new(), probed, world: world.clone() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the peer may be dialled: at once while it is up, and otherwise in turn and after a wait.
    pub(crate) async fn permit(&self) -> Permit<'_> {
        loop {
            let news = self.news.notified();
            tokio::pin!(news);
            news.as_mut().enable();
            if !self.is_down() {
                return Permit { _turn: None };
            }
            let turn = tokio::select! {
                biased;
                () = &mut news => continue,
                turn = self.turn.acquire() => turn.ok(),
            };
            let failures = self.lock().failures;
            if failures == 0 {
                continue;
            }
            let at_longest = FIRST.saturating_mul(1 << failures.min(10)) > LONGEST;
            let wait = if self.probed && at_longest {
                LEFT_TO_PROBER.mul_f64(1.0 + self.world.fraction())
            } else {
                wait_after(failures, &self.world)
            };
            tokio::select! {
                biased;
                () = &mut news => {}
                () = sleep(wait) => return Permit { _turn: turn },
            }
        }
    }

    /// Whether the last dials reached nobody.
    pub(crate) fn is_down(&self) -> bool {
        self.lock().failures > 0
    }

    /// The peer is reachable: it sent a request, or answered a probe or a dial. Ends every wait at once.
    pub(crate) fn up(&self) {
        {
            let mut state = self.lock();
            state.ups += 1;
            state.failures = 0;
        }
        self.news.notify_waiters();
    }

    /// Waits after a dial that gave no stream, or after the end of a stream. The wait is always at least short, so that
    /// the rate stays limited. It is longer only until there is news of the peer.
    pub(crate) async fn rest(&self, failures: u32) {
        let news = self.news.notified();
        let wait = wait_after(failures, &self.world);
        let brief = wait.min(wait_after(1, &self.world));
        sleep(brief).await;
        tokio::select! {
            biased;
            () = news => {}
            () = sleep(wait - brief) => {}
        }
    }

    /// A dial was answered, perhaps by a refusal. This does not end the waits of other tasks, because the peer did not
    /// come to us.
    pub(crate) fn answered(&self) {
        let was_down = {
            let mut state = self.lock();
            state.ups += 1;
            std::mem::take(&mut state.failures) > 0
        };
        if was_down {
            self.news.notify_waiters();
        }
    }

    /// A dial reached nobody. `since` is [`Self::ups`] before the dial: if it has grown meanwhile, that news is newer.
    pub(crate) fn down(&self, since: u64) {
        let mut state = self.lock();
        if state.ups == since {
            state.failures = state.failures.saturating_add(1);
        }
    }

    /// How often the peer was found reachable.
    pub(crate) fn ups(&self) -> u64 {
        self.lock().ups
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use tokio::time::{Instant, timeout};

    use super::*;

    fn down(redial: &Redial, times: u32) {
        for _ in 0..times {
            redial.down(redial.ups());
        }
    }

    #[test]
    fn waits_double_up_to_a_second_and_never_vanish() {
        let world = World::default();
        for failures in 0..100 {
            let wait = wait_after(failures, &world);
            assert!(wait >= Duration::from_millis(10) && wait <= Duration::from_millis(1010), "{wait:?}");
        }
        let longest = |failures| (0..500).map(|_| wait_after(failures, &world)).max();
        assert!(longest(1) < Some(Duration::from_millis(111)));
        assert!(longest(2) > Some(Duration::from_millis(120)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_is_up_is_dialled_at_once() {
        let start = Instant::now();
        Redial::new(true, &World::default()).permit().await;
        assert_eq!(start.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn only_one_task_dials_a_peer_that_is_down() {
        let redial = Redial::new(false, &World::default());
        down(&redial, 1);
        let first = redial.permit().await;
        assert!(timeout(Duration::from_secs(60), redial.permit()).await.is_err());
        drop(first);
        redial.permit().await;
    }

    #[tokio::test(start_paused = true)]
    async fn news_of_the_peer_end_every_wait_at_once() {
        let redial = Arc::new(Redial::new(true, &World::default()));
        down(&redial, 20);
        let waiting = [1, 2].map(|_| {
            let redial = redial.clone();
            tokio::spawn(async move {
                let start = Instant::now();
                redial.permit().await;
                start.elapsed()
            })
        });
        tokio::time::sleep(Duration::from_millis(5)).await;
        redial.up();
        for task in waiting {
            assert!(task.await.is_ok_and(|waited| waited < Duration::from_millis(10)));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn when_the_wait_is_longest_dialling_is_left_to_the_prober() {
        let probed = Redial::new(true, &World::default());
        down(&probed, 10);
        assert!(timeout(LEFT_TO_PROBER, probed.permit()).await.is_err());
        assert!(timeout(LEFT_TO_PROBER * 3, probed.permit()).await.is_ok());
        let unprobed = Redial::new(false, &World::default());
        down(&unprobed, 10);
        assert!(timeout(Duration::from_secs(2), unprobed.permit()).await.is_ok());
    }

    #[test]
    fn a_failure_that_is_older_than_good_news_counts_for_nothing() {
        let redial = Redial::new(true, &World::default());
        let before = redial.ups();
        redial.up();
        redial.down(before);
        assert!(!redial.is_down());
    }
}
