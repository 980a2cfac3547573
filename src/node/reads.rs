//! Linearizable reads by ReadIndex. After a quorum has confirmed that it still leads, the leader returns the commit
//! index of the time when it was asked. A member that has applied all entries up to that index may answer.
//!
//! All reads that come while one round is under way share the next round (etcd's `linearizableReadLoop`).

use std::time::Duration;

use tokio::{sync::oneshot, time::Instant};

use super::request::RequestIds;

/// Wakes a client once this member may answer its read.
pub(super) type Waiter = oneshot::Sender<()>;

/// A round that raft was asked for.
#[derive(Debug)]
struct Round {
    context: [u8; 24],
    asked: Instant,
    waiters: Vec<Waiter>,
}

/// The reads of this member. Their number is limited by the number of requests that `ClientHandler` admits.
#[derive(Debug)]
pub(super) struct Reads {
    ids: RequestIds,
    /// After this time, a round is requested again with another context, because a message may have been lost.
    retry: Duration,
    waiting: Vec<Waiter>,
    round: Option<Round>,
    /// Confirmed reads, whose index is not applied yet.
    confirmed: Vec<(u64, Vec<Waiter>)>,
}

impl Reads {
    pub(super) fn new(ids: RequestIds, retry: Duration) -> Self {
        Self { ids, retry, waiting: Vec::new(), round: None, confirmed: Vec::new() }
    }

    pub(super) fn ask(&mut self, waiter: Waiter) {
        self.waiting.push(waiter);
    }

    /// The context of the next round for raft, if it is time for one.
    pub(super) fn next_round(&mut self, now: Instant) -> Option<Vec<u8>> {
        if let Some(round) = &mut self.round {
            if now.duration_since(round.asked) < self.retry {
                return None;
            }
            self.waiting.append(&mut round.waiters);
        }
        self.round = None;
        self.waiting.retain(|waiter| !waiter.is_closed());
        if self.waiting.is_empty() {
            return None;
        }
        let context = self.ids.next().to_bytes();
        self.round = Some(Round { context, asked: now, waiters: std::mem::take(&mut self.waiting) });
        Some(context.to_vec())
    }

    /// The leader changed, and the one before will not answer any more.
    pub(super) fn leader_changed(&mut self) {
        if let Some(mut round) = self.round.take() {
            self.waiting.append(&mut round.waiters);
        }
    }

    /// Raft confirmed a round: its readers may be answered once `index` is applied.
    pub(super) fn confirmed(&mut self, context: &[u8], index: u64) {
        if self.round.as_ref().is_some_and(|round| round.context == context)
            && let Some(round) = self.round.take()
        {
            self.confirmed.push((index, round.waiters));
        }
    }

    /// The entries up to this index are applied.
    pub(super) fn applied(&mut self, applied: u64) {
        let mut place = 0;
        while place < self.confirmed.len() {
            if self.confirmed[place].0 > applied {
                place += 1;
                continue;
            }
            for waiter in self.confirmed.swap_remove(place).1 {
                // The client may have stopped waiting.
                let _ = waiter.send(());
            }
        }
    }

    /// Removes the readers that no longer wait.
    pub(super) fn expire(&mut self) {
        self.waiting.retain(|waiter| !waiter.is_closed());
        for (_, waiters) in &mut self.confirmed {
            waiters.retain(|waiter| !waiter.is_closed());
        }
        self.confirmed.retain(|(_, waiters)| !waiters.is_empty());
    }

    /// Ends all reads without an answer.
    pub(super) fn halt(&mut self) {
        self.waiting.clear();
        self.round = None;
        self.confirmed.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RETRY: Duration = Duration::from_millis(500);

    fn reads() -> Reads {
        Reads::new(RequestIds::new(1, 1), RETRY)
    }

    fn ask(reads: &mut Reads) -> oneshot::Receiver<()> {
        let (waiter, answer) = oneshot::channel();
        reads.ask(waiter);
        answer
    }

    #[test]
    fn a_read_is_answered_when_confirmed_and_applied() {
        let (now, mut reads) = (Instant::now(), reads());
        let mut answer = ask(&mut reads);
        let context = reads.next_round(now).expect("a round");
        reads.applied(9);
        assert!(answer.try_recv().is_err(), "not confirmed yet");
        reads.confirmed(&context, 10);
        reads.applied(9);
        assert!(answer.try_recv().is_err(), "not applied yet");
        reads.applied(10);
        assert!(answer.try_recv().is_ok());
    }

    #[test]
    fn who_comes_after_a_round_was_asked_for_waits_for_the_next() {
        let (now, mut reads) = (Instant::now(), reads());
        let _first = ask(&mut reads);
        let context = reads.next_round(now).expect("a round");
        let mut late = ask(&mut reads);
        assert_eq!(reads.next_round(now), None, "one at a time");
        reads.confirmed(&context, 1);
        reads.applied(1);
        assert!(late.try_recv().is_err(), "the commit may have moved before it asked");
        let context = reads.next_round(now).expect("the next round");
        reads.confirmed(&context, 1);
        reads.applied(1);
        assert!(late.try_recv().is_ok());
    }

    #[test]
    fn a_round_that_was_lost_is_asked_for_again_under_another_name() {
        let (now, mut reads) = (Instant::now(), reads());
        let mut answer = ask(&mut reads);
        let lost = reads.next_round(now).expect("a round");
        assert_eq!(reads.next_round(now + RETRY / 2), None);
        let again = reads.next_round(now + RETRY).expect("again");
        assert_ne!(lost, again);
        reads.leader_changed();
        let third = reads.next_round(now + RETRY).expect("at once, of the new leader");
        for stale in [&lost, &again] {
            reads.confirmed(stale, 1);
            reads.applied(1);
        }
        assert!(answer.try_recv().is_err());
        reads.confirmed(&third, 1);
        reads.applied(1);
        assert!(answer.try_recv().is_ok());
    }

    #[test]
    fn no_round_is_asked_for_when_nobody_waits() {
        let mut reads = reads();
        drop(ask(&mut reads));
        assert_eq!(reads.next_round(Instant::now()), None);
    }
}
