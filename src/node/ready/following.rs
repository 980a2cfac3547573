//! Whether this member follows its leader, which means that it hears the leader and has the leader's entries.
//!
//! Heartbeats alone do not show it: a leader that waits for a snapshot to arrive sends nothing else, nor does a leader
//! whose cluster is idle. It is shown by an append that continues our log, or by a read that this member requests: a
//! member that may answer the read has applied everything that the leader had committed.

use std::time::Duration;

use raft::StateRole;
use tokio::{
    sync::oneshot::{self, error::TryRecvError},
    time::Instant,
};

use super::Core;
use crate::{
    id::MemberId,
    node::{reads::Waiter, status::Needed},
    wire::raftpb::Message,
};

/// How many entries a member may be behind its leader and still count as caught up.
const CAUGHT_UP: u64 = 5000;

/// A read that was requested.
#[derive(Debug)]
struct RequestedRead {
    answer: oneshot::Receiver<()>,
    /// Whether there was no reason for doubt since.
    holds: bool,
}

/// What is known about following the leader.
#[derive(Debug, Default)]
pub(super) struct Following {
    /// The leader and term that this is about.
    of: (u64, u64),
    /// When raft last took an append or a heartbeat.
    last: Option<Instant>,
    /// Whether our log was found to be the leader's, without a reason for doubt since.
    confirmed: bool,
    asked: Option<RequestedRead>,
    /// The snapshot that the leader has sent since.
    pub(super) needed: Option<Needed>,
    /// Whether an append was refused since the last one that was taken.
    refused: bool,
    /// When this member last followed its leader.
    pub(super) since: Option<Instant>,
}

impl Following {
    /// Raft took an append or a heartbeat of its leader. For an append, `append` says whether it continues our log.
    pub(super) fn heard(&mut self, leader: u64, term: u64, append: Option<bool>, now: Instant) {
        if self.of != (leader, term) {
            self.forget();
            self.of = (leader, term);
        }
        self.last = Some(now);
        if let Some(continues) = append {
            self.refused = !continues;
            if continues {
                self.confirm();
            }
        }
    }

    /// Forgets everything but when this member last followed its leader.
    pub(super) fn forget(&mut self) {
        *self = Self { since: self.since, ..Self::default() };
    }

    /// An append of the leader was refused.
    pub(super) fn refused(&mut self) {
        self.refused = true;
    }

    /// The leader has sent a snapshot that our log needs. Anyone may have sent it in the leader's name, so a read
    /// decides.
    pub(super) fn needs(&mut self, needed: Needed) {
        self.needed = Some(needed);
        self.doubt();
    }

    /// Records that this member follows its leader now, if it does. `behind` says whether it lacks too many committed
    /// entries. Returns `Some` if a read has to be requested to find out.
    pub(super) fn look(
        &mut self,
        leader: u64,
        term: u64,
        behind: bool,
        patience: Duration,
        now: Instant,
    ) -> Option<Waiter> {
        let of_it = leader != 0 && self.of == (leader, term);
        let hears = self.last.is_some_and(|last| now.saturating_duration_since(last) <= patience);
        if !hears {
            self.doubt();
        }
        // The answer to a read that was requested before a doubt says nothing about the time after the doubt.
        let answered = self.answered();
        if answered == Some(true) {
            self.confirm();
        }
        if of_it && hears && !behind && !self.refused && (self.confirmed || answered.is_some()) {
            self.since = Some(now);
        }
        (of_it && hears && !self.confirmed && self.asked.is_none()).then(|| self.ask())
    }

    /// This member leads.
    pub(super) fn leads(&mut self, now: Instant) {
        *self = Self { since: Some(now), ..Self::default() };
    }

    fn confirm(&mut self) {
        (self.confirmed, self.asked, self.needed) = (true, None, None);
    }

    /// The pending read is still waited for: frequent doubts must not keep every answer away.
    fn doubt(&mut self) {
        self.confirmed = false;
        if let Some(asked) = &mut self.asked {
            asked.holds = false;
        }
    }

    fn ask(&mut self) -> Waiter {
        let (waiter, answer) = oneshot::channel();
        self.asked = Some(RequestedRead { answer, holds: true });
        waiter
    }

    /// `Some` if the read was answered, with whether the answer still counts.
    fn answered(&mut self) -> Option<bool> {
        let asked = self.asked.as_mut()?;
        let (answer, holds) = (asked.answer.try_recv(), asked.holds);
        if answer != Err(TryRecvError::Empty) {
            self.asked = None;
        }
        answer.is_ok().then_some(holds)
    }
}

impl Core {
    /// Whether raft will take this append as one that continues our log.
    pub(super) fn continues(&self, message: &Message) -> bool {
        let log = &self.raw.raft.raft_log;
        message.index < log.committed || log.match_term(message.index, message.log_term)
    }

    /// Raft took an append or a heartbeat.
    pub(super) fn heard(&mut self, from: MemberId, append: Option<bool>) {
        let raft = &self.raw.raft;
        if raft.leader_id == from.0 && raft.state == StateRole::Follower {
            self.following.heard(from.0, raft.term, append, self.now);
        }
    }

    /// Checks whether this member follows its leader now.
    pub(super) fn look_at_following(&mut self) {
        let (raft, applied) = (&self.raw.raft, self.raw.store().applied());
        if raft.state == StateRole::Leader {
            return self.following.leads(self.now);
        }
        // A member that has applied nothing does not even know the members yet.
        let behind = applied == 0 || self.leader_commit.saturating_sub(applied) > CAUGHT_UP;
        let (leader, term) = (raft.leader_id, raft.term);
        let asks = self.following.look(leader, term, behind, self.settings.election_timeout, self.now);
        if let Some(waiter) = asks {
            self.read(waiter);
        }
    }

    /// A snapshot came that our log needs.
    pub(super) fn needs_snapshot(&mut self, from: MemberId, message: &Message) {
        let raft = &self.raw.raft;
        let index = message.snapshot.as_ref().and_then(|snapshot| snapshot.metadata.as_ref()).map(|one| one.index);
        if let (Some(index), true) = (index, raft.leader_id == from.0) {
            self.following.needs(Needed { from, index });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(1);

    fn follows(following: &mut Following, leader: u64, behind: bool, now: Instant) -> (bool, Option<Waiter>) {
        following.since = None;
        let asks = following.look(leader, 5, behind, PATIENCE, now);
        (following.since.is_some(), asks)
    }

    #[test]
    fn who_hears_its_leader_and_takes_what_it_sends_follows() {
        let (start, mut following) = (Instant::now(), Following::default());
        assert!(!follows(&mut following, 2, false, start).0, "it has heard nothing");
        following.heard(2, 5, Some(true), start);
        assert!(follows(&mut following, 2, false, start).0);
        assert!(!follows(&mut following, 2, true, start).0, "it is too far behind");
        assert!(!follows(&mut following, 3, false, start).0, "that was another leader");
        assert!(!follows(&mut following, 0, false, start).0);
        assert!(!follows(&mut following, 2, false, start + 2 * PATIENCE).0, "it is silent");
        following.heard(2, 5, None, start + 2 * PATIENCE);
        assert!(!follows(&mut following, 2, false, start + 2 * PATIENCE).0, "it may have been cut off");
    }

    #[test]
    fn heartbeats_alone_do_not_help_where_appends_are_not_taken() {
        let (start, mut following) = (Instant::now(), Following::default());
        following.heard(2, 5, Some(true), start);
        assert!(follows(&mut following, 2, false, start).0);
        following.refused();
        for _ in 0..10 {
            following.heard(2, 5, None, start);
        }
        assert!(!follows(&mut following, 2, false, start).0);
        following.heard(2, 5, Some(false), start);
        assert!(!follows(&mut following, 2, false, start).0, "nor where they do not continue the log");
        following.heard(2, 5, Some(true), start);
        assert!(follows(&mut following, 2, false, start).0);
    }

    #[test]
    fn where_only_heartbeats_come_a_read_tells() {
        let (now, mut following) = (Instant::now(), Following::default());
        for _ in 0..10 {
            following.heard(2, 5, None, now);
        }
        let (so, asks) = follows(&mut following, 2, false, now);
        assert!(!so, "a leader that waits for a snapshot sends no more");
        let waiter = asks.expect("it asks");
        assert!(follows(&mut following, 2, false, now).1.is_none(), "once");
        waiter.send(()).expect("it waits");
        assert!(follows(&mut following, 2, false, now).0);
        let (so, asks) = follows(&mut following, 2, false, now);
        assert!(so && asks.is_none(), "it goes on");
    }

    #[test]
    fn who_needs_a_snapshot_does_not_follow_until_a_read_or_an_append_tells() {
        let (now, mut following, needed) =
            (Instant::now(), Following::default(), Needed { from: MemberId(2), index: 9 });
        following.heard(2, 5, Some(true), now);
        following.needs(needed);
        following.heard(2, 5, None, now);
        let (so, asks) = follows(&mut following, 2, false, now);
        assert!(!so && following.needed == Some(needed));
        // Strangers may send one at any moment, in the leader's name.
        following.needs(needed);
        asks.expect("it asks").send(()).expect("it waits");
        let (so, asks) = follows(&mut following, 2, false, now);
        assert!(so, "it had all when it asked");
        let (still, _) = follows(&mut following, 2, false, now);
        assert!(!still && following.needed.is_some(), "that tells nothing of what came since");
        drop(asks);
        let (_, asks) = follows(&mut following, 2, false, now);
        assert!(asks.is_some(), "a read that nobody will answer is asked for again");
        following.heard(2, 5, Some(true), now);
        assert!(follows(&mut following, 2, false, now).0 && following.needed.is_none());
    }
}
