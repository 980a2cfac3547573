//! The open connections, each with the certificates that its peer presented. They are kept to find the connections
//! whose peer's certificate no longer verifies.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak},
    task::Waker,
    time::SystemTime,
};

use futures_util::task::AtomicWaker;
use rustls_pki_types::{CertificateDer, ServerName};

use crate::ledger::Direction;

/// How a peer's certificate was verified.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum VerifiedAs {
    /// As a server's, for the name that was dialled.
    Server(ServerName<'static>),
    /// As a client's.
    Client,
}

/// The certificates that a peer presented.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct PeerChain {
    /// The chain, the leaf first. Never empty.
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) verified_as: VerifiedAs,
}

impl PeerChain {
    pub(super) fn direction(&self) -> Direction {
        match self.verified_as {
            VerifiedAs::Server(_) => Direction::Out,
            VerifiedAs::Client => Direction::In,
        }
    }
}

/// The permission of a connection to go on. The connection ends when its lease is over.
#[derive(Debug)]
pub(super) struct Lease {
    pub(super) seen: PeerChain,
    /// When the chain has to be verified again, even if nothing else changes.
    due: Mutex<Option<SystemTime>>,
    over: OnceLock<Arc<str>>,
    /// The task that polls the connection.
    waker: AtomicWaker,
}

impl Lease {
    /// Why the connection must end. `None` while it may go on.
    pub(super) fn over(&self) -> Option<&Arc<str>> {
        self.over.get()
    }

    /// Ends the lease. Returns false if it was over already.
    pub(super) fn end(&self, why: Arc<str>) -> bool {
        let first = self.over.set(why).is_ok();
        self.waker.wake();
        first
    }

    /// Wakes this task when the lease is over. Call [`Self::over`] after this, not before.
    pub(super) fn wake_at_end(&self, waker: &Waker) {
        self.waker.register(waker);
    }

    /// The chain was verified again, and has to be verified next at `due`.
    pub(super) fn verified(&self, due: Option<SystemTime>) {
        *self.due() = due;
    }

    fn due(&self) -> MutexGuard<'_, Option<SystemTime>> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The leases of all open connections.
#[derive(Debug, Default)]
pub(super) struct OpenConnections(Mutex<Leases>);

#[derive(Debug, Default)]
struct Leases {
    all: Vec<Weak<Lease>>,
    /// At this number of leases, those of closed connections are removed.
    clear_at: usize,
}

impl OpenConnections {
    /// A connection was opened. Its chain has to be verified again at `due`.
    pub(super) fn add(&self, seen: PeerChain, due: Option<SystemTime>) -> Arc<Lease> {
        let lease = Arc::new(Lease { seen, due: Mutex::new(due), over: OnceLock::new(), waker: AtomicWaker::new() });
        let mut leases = self.lock();
        if leases.all.len() >= leases.clear_at {
            leases.all.retain(|lease| lease.strong_count() > 0);
            leases.clear_at = 2 * leases.all.len() + 16;
        }
        leases.all.push(Arc::downgrade(&lease));
        lease
    }

    /// The connections, grouped by the certificates of their peers: all of them, or those that are due.
    pub(super) fn to_verify(&self, all: bool) -> HashMap<PeerChain, Vec<Arc<Lease>>> {
        let now = SystemTime::now();
        let mut found: HashMap<PeerChain, Vec<Arc<Lease>>> = HashMap::new();
        for lease in self.lock().all.iter().filter_map(Weak::upgrade) {
            let is_due = lease.due().is_some_and(|due| due <= now);
            if lease.over().is_none() && (all || is_due) {
                found.entry(lease.seen.clone()).or_default().push(lease);
            }
        }
        found
    }

    fn lock(&self) -> MutexGuard<'_, Leases> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(byte: u8) -> PeerChain {
        PeerChain { chain: vec![CertificateDer::from(vec![byte])], verified_as: VerifiedAs::Client }
    }

    #[test]
    fn those_who_have_shown_the_same_are_found_together() {
        let open = OpenConnections::default();
        let leases = [open.add(seen(1), None), open.add(seen(1), None), open.add(seen(2), None)];
        let found = open.to_verify(true);
        assert_eq!(found.get(&seen(1)).map(Vec::len), Some(2));
        assert_eq!(found.get(&seen(2)).map(Vec::len), Some(1));
        assert!(open.to_verify(false).is_empty(), "none is due");
        drop((found, leases));
        assert!(open.to_verify(true).is_empty());
    }

    #[test]
    fn connections_that_closed_take_no_memory_for_long() {
        let open = OpenConnections::default();
        let kept: Vec<_> = (0..10).map(|_| open.add(seen(1), None)).collect();
        for _ in 0..10_000 {
            drop(open.add(seen(2), None));
        }
        assert!(open.lock().all.len() <= 2 * kept.len() + 16);
    }
}
