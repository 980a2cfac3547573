//! Which start of a peer is heard, and whether a start was refused.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use super::signal::{Signal, Subscription};
use crate::id::{Impostor, Incarnation, Succession};

/// After a newer start was met, messages that the older start had under way may still arrive for this long. They are
/// dropped, but are no sign that somebody runs an old copy.
const REMAINS: Duration = Duration::from_secs(1);

/// The state of a peer's incarnation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum PeerIncarnation {
    /// The peer has not answered a dial yet.
    #[default]
    Unknown,
    /// The peer sends no incarnation, as etcd's members do not. A lost or an old disk cannot be detected.
    Untold,
    /// The peer is heard, with this incarnation.
    Met(Incarnation),
    /// The peer is not heard, because its incarnation cannot follow the one that was met.
    Refused(Refused),
}

/// A start of a peer that is not heard.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Refused {
    /// Its incarnation.
    pub told: Incarnation,
    /// Why it cannot be the member that was met.
    pub why: Impostor,
    /// When it was first refused.
    pub since: SystemTime,
}

/// Which start of one peer is heard.
#[derive(Default)]
pub(super) struct IncarnationState {
    state: Mutex<State>,
    /// Counts how often another start was met.
    news: Signal,
}

#[derive(Default)]
struct State {
    /// The newest incarnation that answered a dial and is heard, and when it was met.
    met: Option<(Incarnation, Instant)>,
    /// Whether the last answer had no incarnation.
    untold: bool,
    refused: Option<Refused>,
}

/// What an answer to a dial means for the peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Meeting {
    /// It is another start than before. Messages of the earlier one no longer count.
    pub(super) is_another: bool,
    /// The peer was refused until now.
    pub(super) was_refused: bool,
}

impl IncarnationState {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A dial was answered by a start that is heard. Calls `then` with the meaning of this, before anyone else can meet
    /// the peer.
    pub(super) fn meet<T>(&self, told: Option<Incarnation>, then: impl FnOnce(Meeting) -> T) -> T {
        let mut state = self.lock();
        let before = state.met.map(|(met, _)| met);
        let is_known = before.is_some() || state.untold;
        let is_another = told.is_some() && told != before;
        let was_refused = state.refused.take().is_some();
        if let Some(told) = told.filter(|_| is_another) {
            state.met = Some((told, Instant::now()));
        }
        state.untold = told.is_none();
        let outcome = then(Meeting { is_another: is_another && is_known, was_refused });
        if is_another {
            self.news.notify();
        }
        outcome
    }

    /// A start is refused. Returns whether that is news. It is none if the start has only just been replaced, and these
    /// are its last messages.
    pub(super) fn refuse(&self, told: Incarnation, why: Impostor, since: SystemTime) -> bool {
        let mut state = self.lock();
        let is_remains = state.met.is_some_and(|(met, at)| met != told && at.elapsed() < REMAINS);
        if is_remains || state.refused.is_some() {
            return false;
        }
        state.refused = Some(Refused { told, why, since });
        true
    }

    /// Whether something from this start counts, as far as the dials have shown.
    pub(super) fn judge(&self, told: Option<Incarnation>) -> Result<(), Impostor> {
        let state = self.lock();
        let (Some(told), Some((met, _))) = (told, state.met) else { return Ok(()) };
        match told.after(&met) {
            Succession::Impossible(why) => Err(why),
            Succession::Same | Succession::Later => Ok(()),
        }
    }

    /// A channel that says when another start is met.
    pub(super) fn news(&self) -> Subscription {
        self.news.subscribe()
    }

    pub(super) fn status(&self) -> PeerIncarnation {
        let state = self.lock();
        match (&state.refused, state.untold, state.met) {
            (Some(refused), ..) => PeerIncarnation::Refused(refused.clone()),
            (None, true, _) => PeerIncarnation::Untold,
            (None, false, Some((met, _))) => PeerIncarnation::Met(met),
            (None, false, None) => PeerIncarnation::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::DirectoryId;

    fn start(boot: u64) -> Incarnation {
        Incarnation { directory: DirectoryId(1), boot, nonce: boot }
    }

    #[tokio::test(start_paused = true)]
    async fn the_remains_of_an_older_start_are_dropped_and_an_old_copy_is_told_of() {
        let state = IncarnationState::default();
        let meet = |told| state.meet(told, |meeting| meeting.is_another);
        assert!(!meet(Some(start(5))), "nothing was there before");
        assert!(!meet(Some(start(5))), "its other stream");
        assert!(meet(Some(start(6))), "what start 5 has sent does not count any more");
        assert!(!state.refuse(start(5), Impostor::Boot, SystemTime::UNIX_EPOCH));
        assert_eq!(state.status(), PeerIncarnation::Met(start(6)));
        tokio::time::advance(REMAINS).await;
        assert!(state.refuse(start(5), Impostor::Boot, SystemTime::UNIX_EPOCH));
        assert!(!state.refuse(start(5), Impostor::Boot, SystemTime::UNIX_EPOCH), "once");
        assert!(matches!(state.status(), PeerIncarnation::Refused(Refused { why: Impostor::Boot, .. })));
        assert!(state.meet(Some(start(6)), |meeting| meeting.was_refused));
        assert_eq!(state.status(), PeerIncarnation::Met(start(6)));
    }

    #[tokio::test(start_paused = true)]
    async fn what_answers_requests_is_held_against_what_answered_the_dials() {
        let state = IncarnationState::default();
        assert_eq!(state.judge(Some(start(1))), Ok(()), "nobody was met");
        state.meet(Some(start(5)), drop);
        assert_eq!(state.judge(None), Ok(()));
        assert_eq!(state.judge(Some(start(6))), Ok(()), "it is met by the next dial");
        assert_eq!(state.judge(Some(start(4))), Err(Impostor::Boot));
    }

    #[test]
    fn who_does_not_tell_cannot_be_checked() {
        let state = IncarnationState::default();
        assert_eq!(state.status(), PeerIncarnation::Unknown);
        state.meet(None, drop);
        assert_eq!(state.status(), PeerIncarnation::Untold);
        assert!(state.meet(Some(start(1)), |meeting| meeting.is_another), "a newer binary");
    }
}
