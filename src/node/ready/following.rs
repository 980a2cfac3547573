//! Whether this member follows its leader: hears it, and takes what it sends.

use std::time::Duration;

use tokio::time::Instant;

/// Words of a leader after which one that sends no append has none to send: what is missing is sent at the answer to the
/// first.
const SETTLED: u32 = 2;

/// What is known of that.
#[derive(Debug, Default)]
pub(super) struct Following {
    /// Whom it is about: leader and term.
    of: (u64, u64),
    /// Appends and heartbeats that raft took, and the last one.
    words: u32,
    last: Option<Instant>,
    /// Whether an append of this leader continued our log.
    continued: bool,
    /// Whether one was not taken, since the last that was.
    refused: bool,
    /// When this member last followed.
    pub(super) since: Option<Instant>,
}

impl Following {
    /// Raft took a word of its leader, an append or a heartbeat: of an append, whether it continues our log.
    pub(super) fn heard(&mut self, leader: u64, term: u64, append: Option<bool>, now: Instant) {
        if self.of != (leader, term) {
            *self = Self { of: (leader, term), since: self.since, ..Self::default() };
        }
        self.words = self.words.saturating_add(1);
        self.last = Some(now);
        if let Some(continues) = append {
            self.continued |= continues;
            self.refused = !continues;
        }
    }

    /// An append of its leader was not taken.
    pub(super) fn refused(&mut self) {
        self.refused = true;
    }

    /// Notes that it follows now, if it does; `behind` says whether it lacks too much of what is committed.
    pub(super) fn look(&mut self, leader: u64, term: u64, behind: bool, patience: Duration, now: Instant) {
        let of_it = leader != 0 && self.of == (leader, term);
        let hears = self.last.is_some_and(|last| now.saturating_duration_since(last) <= patience);
        if of_it && hears && !behind && !self.refused && (self.continued || self.words >= SETTLED) {
            self.since = Some(now);
        }
    }

    /// It leads.
    pub(super) fn leads(&mut self, now: Instant) {
        self.since = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(1);

    fn follows(following: &mut Following, leader: u64, behind: bool, now: Instant) -> bool {
        following.since = None;
        following.look(leader, 5, behind, PATIENCE, now);
        following.since.is_some()
    }

    #[test]
    fn who_hears_its_leader_and_takes_what_it_sends_follows() {
        let (start, mut following) = (Instant::now(), Following::default());
        assert!(!follows(&mut following, 2, false, start), "it has heard nothing");
        following.heard(2, 5, None, start);
        assert!(!follows(&mut following, 2, false, start), "what it lacks comes after the first heartbeat");
        following.heard(2, 5, None, start);
        assert!(follows(&mut following, 2, false, start));
        assert!(!follows(&mut following, 2, true, start), "it is too far behind");
        assert!(!follows(&mut following, 3, false, start), "that was another leader");
        assert!(!follows(&mut following, 0, false, start));
        assert!(!follows(&mut following, 2, false, start + 2 * PATIENCE), "it is silent");
    }

    #[test]
    fn heartbeats_alone_do_not_help_where_appends_are_not_taken() {
        let (start, mut following) = (Instant::now(), Following::default());
        following.heard(2, 5, Some(true), start);
        assert!(follows(&mut following, 2, false, start));
        following.refused();
        for _ in 0..10 {
            following.heard(2, 5, None, start);
        }
        assert!(!follows(&mut following, 2, false, start));
        following.heard(2, 5, Some(false), start);
        assert!(!follows(&mut following, 2, false, start), "nor where they do not continue the log");
        following.heard(2, 5, Some(true), start);
        assert!(follows(&mut following, 2, false, start));
    }
}
