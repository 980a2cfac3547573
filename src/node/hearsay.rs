//! Peers that this member knows from others, and not from its own log: those that it was told when it joined, and those
//! that another member vouched for. Each is either confirmed by the membership or dropped. A removed member is dropped
//! at once, and any other once this member has applied everything that its leader has committed since.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use super::members::{Membership, PeerChange};
use crate::id::MemberId;

/// The list. The tasks that learn of peers write it, and the raft task checks it.
#[derive(Clone, Debug, Default)]
pub(super) struct Hearsay(Arc<Mutex<BTreeMap<MemberId, Option<u64>>>>);

impl Hearsay {
    /// Adds a peer that is known by hearsay. Call this after the peer was added to the transport: only the list takes
    /// it away again.
    pub(super) fn add(&self, id: MemberId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id, None);
    }

    /// Compares the list with `membership`, and returns the peers that the transport has to drop. `heard` counts how
    /// often leaders have announced a commit index. `knows_all` says whether this member has applied everything up to
    /// it.
    pub(super) fn reconcile(&self, membership: &Membership, heard: u64, knows_all: bool) -> Vec<PeerChange> {
        let mut peers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut gone = Vec::new();
        peers.retain(|id, since| {
            if membership.get(*id).is_some() {
                return false;
            }
            let since = *since.get_or_insert(heard);
            let goes = membership.is_removed(*id) || (knows_all && heard > since);
            gone.extend(goes.then_some(PeerChange::Remove(*id)));
            !goes
        });
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A membership with member 1, in which 2 was removed.
    fn membership() -> Membership {
        let json = br#"{"members":[{"id":1,"peerURLs":["http://h:1"]}],"removed":[2]}"#;
        Membership::parse(json).expect("valid")
    }

    #[test]
    fn who_is_a_member_stays_and_who_was_removed_goes_at_once() {
        let hearsay = Hearsay::default();
        (1..=3).for_each(|id| hearsay.add(MemberId(id)));
        let nobody = Membership::default();
        assert_eq!(hearsay.reconcile(&nobody, 7, false), []);
        assert_eq!(hearsay.reconcile(&membership(), 7, false), [PeerChange::Remove(MemberId(2))]);
        assert_eq!(hearsay.reconcile(&membership(), 8, false), [], "3 may be added by what is not applied yet");
        assert_eq!(hearsay.reconcile(&nobody, 9, true), [PeerChange::Remove(MemberId(3))], "1 was confirmed");
        assert_eq!(hearsay.reconcile(&nobody, 10, true), []);
    }

    #[test]
    fn who_was_told_of_just_now_waits_for_the_next_word_of_a_leader() {
        let hearsay = Hearsay::default();
        hearsay.add(MemberId(3));
        assert_eq!(hearsay.reconcile(&membership(), 7, true), []);
        assert_eq!(hearsay.reconcile(&membership(), 7, true), []);
        assert_eq!(hearsay.reconcile(&membership(), 8, true), [PeerChange::Remove(MemberId(3))]);
    }
}
