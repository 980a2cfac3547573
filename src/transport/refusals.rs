//! Refused requests that the log has not reported yet.

use std::{
    net::SocketAddr,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::{id::MemberId, ledger::Tally};

/// The refused requests since the last look, by reason, and the sender of the last of them, as far as the request says.
#[derive(Clone, Debug, Default)]
pub(super) struct Refusals {
    pub(super) counts: Tally<&'static str>,
    pub(super) last: Option<(Option<MemberId>, Option<SocketAddr>)>,
}

/// The refusals that the log has not reported yet.
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
