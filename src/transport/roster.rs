//! Who there is: peers and remotes come, change and go.

use std::{
    collections::HashMap,
    sync::{Arc, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use tokio_util::sync::CancellationToken;

use super::{Inner, Transport, TransportError, peer::Peer, tasks};
use crate::{
    dial::urls::{PeerUrl, PeerUrlError},
    id::MemberId,
    ledger::DropReason,
};

/// What holds for all of them, whoever comes and goes.
#[derive(Default)]
pub(super) struct Changes {
    pub(super) paused: bool,
    pub(super) stopped: bool,
}

impl Transport {
    /// Adds a peer and begins to dial it. Of a known peer the URLs are updated; a remote becomes a peer and keeps its
    /// counters and its queue (etcd's `Transport.AddPeer`).
    ///
    /// # Errors
    /// When there is no URL, or the ID is zero or this member's own.
    pub fn add_peer(&self, id: MemberId, urls: Vec<PeerUrl>) -> Result<(), TransportError> {
        self.check(id, &urls)?;
        let changes = self.changes();
        if changes.stopped {
            return Ok(());
        }
        let peer = match self.peer(id) {
            Some(peer) => {
                if !peer.is_remote() {
                    self.events().peer_updated(id, &urls);
                }
                peer.urls.update(urls);
                peer.redial.up();
                peer
            }
            None => self.insert(&changes, id, urls),
        };
        if peer.is_remote() {
            self.events().peer_added(id, &peer.urls.all());
        }
        if peer.promote() {
            tasks::connect(&peer);
        }
        Ok(())
    }

    /// Adds a remote: a member that only its requests made known, reached by POST alone and forgotten some time after
    /// its last request (etcd's `Transport.AddRemote`). Does nothing for a known peer or remote.
    ///
    /// # Errors
    /// When there is no URL, or the ID is zero or this member's own.
    pub fn add_remote(&self, id: MemberId, urls: Vec<PeerUrl>) -> Result<(), TransportError> {
        self.check(id, &urls)?;
        let changes = self.changes();
        if changes.stopped || self.peer(id).is_some() {
            return Ok(());
        }
        let mut remotes: Vec<_> = self.inner.peers.load().values().filter(|peer| peer.is_remote()).cloned().collect();
        remotes.sort_by_key(|remote| std::cmp::Reverse(remote.silent_for()));
        // A member that goes on asking is not the one that has been silent for longest.
        let surplus = (remotes.len() + 1).saturating_sub(self.inner.shared.limits.remotes.max(1));
        let taken: Vec<_> = remotes.iter().take(surplus).filter_map(|remote| self.take(&changes, remote.id)).collect();
        for remote in &taken {
            self.events().remote_removed(remote.id, "there are too many");
        }
        self.events().remote_added(id, &urls);
        self.insert(&changes, id, urls);
        drop(changes);
        close_all(&taken, DropReason::PeerRemoved);
        Ok(())
    }

    /// Replaces a peer's URLs (etcd's `Transport.UpdatePeer`).
    ///
    /// # Errors
    /// When there is no URL, or no such peer.
    pub fn update_peer(&self, id: MemberId, urls: Vec<PeerUrl>) -> Result<(), TransportError> {
        self.check(id, &urls)?;
        let peer = self.peer(id).ok_or(TransportError::UnknownPeer(id))?;
        self.events().peer_updated(id, &urls);
        peer.urls.update(urls);
        peer.redial.up();
        Ok(())
    }

    /// Removes a peer or remote: its streams end, its queue is dropped, its series go (etcd's `Transport.RemovePeer`).
    pub fn remove_peer(&self, id: MemberId) {
        let taken = self.take(&self.changes(), id);
        if let Some(peer) = taken {
            self.removed(&peer);
            peer.close(DropReason::PeerRemoved);
        }
    }

    fn removed(&self, peer: &Peer) {
        if peer.is_remote() {
            self.events().remote_removed(peer.id, "it was removed");
        } else {
            self.events().peer_removed(peer.id);
        }
    }

    /// [`Self::remove_peer`] for all of them (etcd's `Transport.RemoveAllPeers`).
    pub fn remove_all_peers(&self) {
        let taken: Vec<_> = {
            let _changes = self.changes();
            self.inner.peers.swap(Arc::default()).values().cloned().collect()
        };
        for peer in &taken {
            self.removed(peer);
        }
        close_all(&taken, DropReason::PeerRemoved);
    }

    pub(super) fn changes(&self) -> MutexGuard<'_, Changes> {
        self.inner.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check(&self, id: MemberId, urls: &[PeerUrl]) -> Result<(), TransportError> {
        if id.0 == 0 || id == self.inner.shared.identity.member {
            return Err(TransportError::NotAPeer(id));
        }
        if urls.is_empty() { Err(PeerUrlError::Empty.into()) } else { Ok(()) }
    }

    fn insert(&self, changes: &Changes, id: MemberId, urls: Vec<PeerUrl>) -> Arc<Peer> {
        let peer = Peer::remote(id, urls, self.inner.stop.child_token(), self.inner.shared.clone());
        peer.set_paused(changes.paused);
        let mut peers = HashMap::clone(&self.inner.peers.load());
        peers.insert(id, peer.clone());
        self.inner.peers.store(Arc::new(peers));
        peer
    }

    /// Takes a peer off the list. It is closed once `changes` is released: closing tells raft, which may call back.
    fn take(&self, _changes: &Changes, id: MemberId) -> Option<Arc<Peer>> {
        let mut peers = HashMap::clone(&self.inner.peers.load());
        let peer = peers.remove(&id)?;
        self.inner.peers.store(Arc::new(peers));
        Some(peer)
    }

    /// Forgets the remotes that have been silent for too long.
    fn forget_remotes(&self) {
        let age = self.inner.shared.limits.remote_age;
        let taken: Vec<_> = {
            // Under the lock, so that one that is a peer by now is not taken for a remote.
            let changes = self.changes();
            let peers = self.inner.peers.load_full();
            let old = peers.values().filter(|peer| peer.is_remote() && peer.silent_for() > age);
            old.filter_map(|peer| self.take(&changes, peer.id)).collect()
        };
        for peer in &taken {
            self.events().remote_removed(peer.id, "it has been silent for long");
        }
        close_all(&taken, DropReason::PeerRemoved);
    }
}

pub(super) fn close_all(peers: &[Arc<Peer>], reason: DropReason) {
    for peer in peers {
        peer.close(reason);
    }
}

/// How often remotes are looked through for those that are too old.
const AGING_INTERVAL: Duration = Duration::from_secs(5);

pub(super) async fn age_remotes(inner: Weak<Inner>, stop: CancellationToken) {
    let aging = async {
        loop {
            tokio::time::sleep(AGING_INTERVAL).await;
            let Some(inner) = inner.upgrade() else { return };
            Transport { inner }.forget_remotes();
        }
    };
    stop.run_until_cancelled(aging).await;
}
