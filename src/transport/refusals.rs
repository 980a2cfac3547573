//! Requests that were not taken, until the log has told of them.

use std::{
    net::SocketAddr,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::{id::MemberId, ledger::Tally};

/// Requests that were not taken since the last look, by reason, and who made the last of them, as far as it said.
#[derive(Clone, Debug, Default)]
pub(super) struct Refusals {
    pub(super) counts: Tally<&'static str>,
    pub(super) last: Option<(Option<MemberId>, Option<SocketAddr>)>,
}

/// The refusals that are still to be told.
#[derive(Default)]
pub(super) struct Untold(Mutex<Refusals>);

impl Untold {
    fn lock(&self) -> MutexGuard<'_, Refusals> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn note(&self, reason: &'static str, from: Option<MemberId>, address: Option<SocketAddr>) {
        let mut refusals = self.lock();
        refusals.counts.add(reason, 1);
        refusals.last = Some((from, address));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lock().last.is_none()
    }

    pub(super) fn take(&self) -> Refusals {
        std::mem::take(&mut *self.lock())
    }
}
