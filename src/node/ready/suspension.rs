//! A member whose disk is full, or fails: it takes no part until its store can be opened again, and goes on from what the
//! disk has, as after a crash.
//!
//! What raft has in memory may be ahead of the disk then: entries, a vote or a term that could not be written. Nothing of
//! that was promised to anyone, since what is promised is written first. So raft is made anew from the store, and only who
//! waits for an answer notices: what was proposed has an unknown outcome.

use super::{Core, CoreError, Flow, Outgoing};
use crate::node::proposals::ProposeError;

impl Core {
    /// Whether raft hears and says anything.
    pub(super) fn takes_part(&self) -> bool {
        !self.is_halted() && !self.suspended
    }

    /// What a proposal is told that raft does not get.
    pub(super) fn why_not(&self) -> ProposeError {
        if self.suspended && !self.is_halted() { ProposeError::Suspended } else { ProposeError::Halted }
    }

    /// Takes no part until [`Self::resume`] succeeds.
    pub(in crate::node) fn suspend(&mut self, why: &CoreError) {
        self.suspended = true;
        self.end_waiting();
        self.discard_received();
        let spooled = self.raw.store().give_up_spool();
        self.discard(spooled);
        self.unsent.clear();
        self.leader = 0;
        self.shared.suspended(&format!("the disk cannot be written: {why}"));
    }

    /// Opens the store again, and goes on from what is in it. An error that is the disk's: not yet.
    pub(in crate::node) fn resume(&mut self) -> Result<Flow, CoreError> {
        let store = self.raw.store().reopen()?;
        let membership = store.membership()?;
        if membership.is_removed(self.settings.member) {
            return Ok(Flow::Removed);
        }
        self.raw = self.settings.raft(store)?;
        // What was written, and not told for the error.
        for change in membership.peer_changes(&self.shared.membership.load(), self.settings.member) {
            (self.outbox)(Outgoing::Peer(change));
        }
        self.membership = membership;
        self.asked_of_space = None;
        self.share_membership();
        self.suspended = false;
        self.publish();
        self.shared.resumed(self.raw.store().applied());
        Ok(Flow::Continue)
    }
}
