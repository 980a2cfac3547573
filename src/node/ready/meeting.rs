//! Keeps which starts of the other members this one has met.

use std::sync::Arc;

use super::{Core, CoreError};
use crate::{
    id::{Incarnation, MemberId},
    node::{incarnations::IncarnationVerdict, members::MAX_MEMBERS},
    transport::raft::Unheard,
};

impl Core {
    /// Decides whether a start of a member that has answered our dial may be heard. If it was not met before, it is on
    /// the disk when this returns.
    pub(in crate::node) fn meet(&mut self, id: MemberId, told: &Incarnation) -> Result<Result<(), Unheard>, CoreError> {
        Ok(match self.shared.known(id).judge(told) {
            IncarnationVerdict::Met => Ok(()),
            IncarnationVerdict::Refused(why) => Err(why.into()),
            IncarnationVerdict::New if self.suspended => Err(Unheard::Failed("the disk cannot be written".to_owned())),
            IncarnationVerdict::New => {
                let gone = self.too_many();
                self.raw.mut_store().meet(id, *told, &gone)?;
                tracing::info!(peer = %id, incarnation = %told, "met a start of a member");
                self.share_met();
                Ok(())
            }
        })
    }

    /// The members that this one has met and that have been removed since, if the membership has changed.
    pub(super) fn gone(&self, has_changed: bool) -> Vec<MemberId> {
        if !has_changed {
            return Vec::new();
        }
        self.raw.store().met().keys().filter(|id| self.membership.is_removed(**id)).copied().collect()
    }

    /// The members to forget before one more is kept. That is none, unless there are too many: then it is those that no
    /// log has made members, which are peers by hearsay for a while.
    fn too_many(&self) -> Vec<MemberId> {
        let met = self.raw.store().met();
        if met.len() < 2 * MAX_MEMBERS {
            return Vec::new();
        }
        met.keys().filter(|id| self.membership.get(**id).is_none()).copied().collect()
    }

    /// Shares the membership, and what is known about each member's incarnation.
    pub(super) fn share_membership(&self) {
        self.share_met();
        self.publish_membership();
    }

    /// Shares the incarnations with those that read them without waiting.
    pub(super) fn share_met(&self) {
        self.shared.met.store(Arc::new(self.raw.store().met().clone()));
    }
}
