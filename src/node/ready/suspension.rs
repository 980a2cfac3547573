//! A member whose disk is full or fails. It takes no part until its store can be opened again, and then continues from
//! what is on the disk, as after a crash.
//!
//! Raft's memory may then be ahead of the disk, with entries, a vote or a term that could not be written. None of that
//! was promised to anyone, because everything is written before it is promised. So raft is made anew from the store.
//! Only waiting clients notice: the outcome of their proposals is unknown.

use super::{Core, CoreError, Flow, TurnOutput};
use crate::node::proposals::ProposeError;

impl Core {
    /// Whether raft sends and receives.
    pub(super) fn takes_part(&self) -> bool {
        !self.is_halted() && !self.suspended
    }

    /// The error for a proposal that raft does not get.
    pub(super) fn why_not(&self) -> ProposeError {
        if self.suspended && !self.is_halted() { ProposeError::Suspended } else { ProposeError::Halted }
    }

    /// Takes no part until [`Self::resume`] succeeds.
    pub(in crate::node) fn suspend(&mut self, why: &CoreError) {
        self.suspended = true;
        self.let_go();
        self.leader = 0;
        self.shared.suspended(&format!("the disk cannot be written: {why}"));
    }

    /// Ends what waits, and drops what only a member that takes part needs: it may have gigabytes.
    pub(super) fn let_go(&mut self) {
        self.end_waiting();
        self.discard_received();
        let (spooled, outgoing) = (self.raw.store().give_up_spool(), self.raw.store().give_up_outgoing());
        self.discard(Some((spooled, outgoing)));
        self.unsent.clear();
    }

    /// Opens the store again, and continues from it. It fails with an error of the disk while the disk still cannot be
    /// used.
    pub(in crate::node) fn resume(&mut self) -> Result<Flow, CoreError> {
        let store = self.raw.store().reopen()?;
        let membership = store.membership()?;
        if membership.is_removed(self.settings.member) {
            return Ok(Flow::Removed);
        }
        self.raw = self.settings.raft(store)?;
        // The changes that were written, but not passed on because of the error.
        for change in membership.peer_changes(&self.shared.membership.load(), self.settings.member) {
            (self.outbox)(TurnOutput::Peer(change));
        }
        self.membership = membership;
        self.asked_of_space = None;
        // The appends that were refused meanwhile may not come again: an idle leader sends only heartbeats.
        self.following.forget();
        self.share_membership();
        self.suspended = false;
        self.publish();
        self.shared.resumed(self.raw.store().applied());
        Ok(Flow::Continue)
    }
}
