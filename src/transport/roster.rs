//! The known members: peers and remotes are added, changed and removed.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    Inner, Transport, TransportError,
    peer::Peer,
    remote::{Remote, RemoteUrls},
    tasks,
};
use crate::{
    dial::urls::{PeerUrl, PeerUrlError, UrlPicker},
    id::MemberId,
    ledger::DropReason,
};

/// All known members, by ID.
#[derive(Clone, Default)]
pub(super) struct Roster {
    pub(super) peers: BTreeMap<MemberId, Arc<Peer>>,
    pub(super) remotes: BTreeMap<MemberId, Arc<Remote>>,
}

/// A known member.
#[derive(Clone)]
pub(super) enum KnownMember {
    /// A configured peer.
    Peer(Arc<Peer>),
    /// A member known only from its requests.
    Remote(Arc<Remote>),
}

impl KnownMember {
    pub(super) fn close(&self, reason: DropReason) {
        match self {
            Self::Peer(peer) => peer.close(reason),
            Self::Remote(remote) => remote.close(reason),
        }
    }
}

impl Roster {
    pub(super) fn get(&self, id: MemberId) -> Option<KnownMember> {
        let remote = || self.remotes.get(&id).cloned().map(KnownMember::Remote);
        self.peers.get(&id).cloned().map(KnownMember::Peer).or_else(remote)
    }

    pub(super) fn all(&self) -> Vec<KnownMember> {
        let remotes = self.remotes.values().cloned().map(KnownMember::Remote);
        self.peers.values().cloned().map(KnownMember::Peer).chain(remotes).collect()
    }
}

/// The state that applies to all of them.
#[derive(Default)]
pub(super) struct Changes {
    pub(super) paused: bool,
    pub(super) stopped: bool,
}

impl Transport {
    /// Adds a peer and begins to dial it. If the peer is known, its URLs are updated. A remote becomes a peer, and the
    /// peer gets the messages that were queued for the remote (etcd's `Transport.AddPeer`).
    ///
    /// # Errors
    /// There is no URL, or the ID is zero or this member's own.
    pub fn add_peer(&self, id: MemberId, urls: Vec<PeerUrl>) -> Result<(), TransportError> {
        self.check(id, &urls)?;
        let changes = self.changes();
        if changes.stopped {
            return Ok(());
        }
        if let Some(peer) = self.peer(id) {
            self.events().peer_updated(id, &urls);
            peer.urls.update(urls);
            peer.redial.up();
            return Ok(());
        }
        self.events().peer_added(id, &urls);
        let inner = &self.inner;
        let peer = Peer::new(id, urls, inner.stop.child_token(), inner.shared.clone());
        // This comes before anyone can send to the peer, because the waiting messages go first.
        let waiting = inner.known.load().remotes.get(&id).map_or_else(Vec::new, |remote| remote.promoted());
        let workers = peer.send(&waiting, Instant::now());
        peer.set_paused(changes.paused);
        self.change(&changes, |roster| {
            roster.remotes.remove(&id);
            roster.peers.insert(id, peer.clone());
        });
        tasks::connect(&peer);
        tasks::post(&peer, workers);
        Ok(())
    }

    /// Adds a remote, a member that is known only from its requests. It is reached by POST alone, and forgotten some
    /// time after its last request (etcd's `Transport.AddRemote`). Does nothing for a known peer or remote.
    ///
    /// # Errors
    /// There is no URL, or the ID is zero or this member's own.
    pub fn add_remote(&self, id: MemberId, urls: Vec<PeerUrl>) -> Result<(), TransportError> {
        self.add_remote_at(id, urls, None)
    }

    /// As [`Self::add_remote`], but the remote is dialled at no other address than `only`.
    pub(super) fn add_remote_at(
        &self,
        id: MemberId,
        urls: Vec<PeerUrl>,
        only: Option<IpAddr>,
    ) -> Result<(), TransportError> {
        self.check(id, &urls)?;
        let changes = self.changes();
        if changes.stopped || self.known(id).is_some() {
            return Ok(());
        }
        let mut remotes: Vec<_> = self.inner.known.load().remotes.values().cloned().collect();
        // Each key is computed once. The remotes may send requests meanwhile, and an order that changes during a sort
        // makes it panic.
        remotes.sort_by_cached_key(|remote| std::cmp::Reverse(remote.silent_for()));
        // The remotes that have been silent for longest are removed, so a member that goes on asking stays.
        let surplus = (remotes.len() + 1).saturating_sub(self.inner.shared.limits.remotes.max(1));
        remotes.truncate(surplus);
        for remote in &remotes {
            self.events().remote_removed(remote.id, "there are too many");
        }
        self.events().remote_added(id, &urls);
        let (inner, shared) = (&self.inner, self.inner.shared.clone());
        let place = RemoteUrls { urls: UrlPicker::new(urls), only };
        let remote = Remote::new(id, place, inner.others.clone(), inner.stop.child_token(), shared);
        self.change(&changes, |roster| {
            roster.remotes.retain(|id, _| !remotes.iter().any(|gone| gone.id == *id));
            roster.remotes.insert(id, remote);
        });
        drop(changes);
        remotes.iter().for_each(|remote| remote.close(DropReason::PeerRemoved));
        Ok(())
    }

    /// Replaces a peer's URLs (etcd's `Transport.UpdatePeer`).
    ///
    /// # Errors
    /// There is no URL, or no such peer.
    pub fn update_peer(&self, id: MemberId, urls: Vec<PeerUrl>) -> Result<(), TransportError> {
        self.check(id, &urls)?;
        let peer = self.peer(id).ok_or(TransportError::UnknownPeer(id))?;
        self.events().peer_updated(id, &urls);
        peer.urls.update(urls);
        peer.redial.up();
        Ok(())
    }

    /// Removes a peer or remote: its streams end, its queued messages are dropped, and its series end (etcd's
    /// `Transport.RemovePeer`).
    pub fn remove_peer(&self, id: MemberId) {
        let changes = self.changes();
        let Some(known) = self.known(id) else { return };
        self.change(&changes, |roster| {
            roster.peers.remove(&id);
            roster.remotes.remove(&id);
        });
        drop(changes);
        self.removed(&known);
        known.close(DropReason::PeerRemoved);
    }

    fn removed(&self, known: &KnownMember) {
        match known {
            KnownMember::Peer(peer) => {
                self.events().peer_removed(peer.id);
                if let Some(store) = &self.inner.snapshots {
                    store.parts().forsake(peer.id);
                }
            }
            KnownMember::Remote(remote) => self.events().remote_removed(remote.id, "it was removed"),
        }
    }

    /// As [`Self::remove_peer`], for all of them (etcd's `Transport.RemoveAllPeers`).
    pub fn remove_all_peers(&self) {
        let taken = {
            let _changes = self.changes();
            self.inner.known.swap(Arc::default()).all()
        };
        for known in &taken {
            self.removed(known);
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

    /// Changes the roster. The caller closes the removed members only after it has released `changes`, because closing
    /// tells raft, which may call back.
    fn change(&self, _changes: &Changes, change: impl FnOnce(&mut Roster)) {
        let mut roster = Roster::clone(&self.inner.known.load());
        change(&mut roster);
        self.inner.known.store(Arc::new(roster));
    }

    /// Removes the remotes that have been silent for too long.
    fn forget_remotes(&self) {
        let age = self.inner.shared.limits.remote_age;
        let is_old = |remote: &Remote| remote.silent_for() > age;
        let changes = self.changes();
        let remotes = self.inner.known.load().remotes.values().cloned().collect::<Vec<_>>();
        let old: Vec<_> = remotes.into_iter().filter(|remote| is_old(remote)).collect();
        if old.is_empty() {
            return;
        }
        self.change(&changes, |roster| roster.remotes.retain(|id, _| !old.iter().any(|gone| gone.id == *id)));
        drop(changes);
        for remote in old {
            self.events().remote_removed(remote.id, "it has been silent for long");
            remote.close(DropReason::PeerRemoved);
        }
    }
}

pub(super) fn close_all(known: &[KnownMember], reason: DropReason) {
    for one in known {
        one.close(reason);
    }
}

/// How often remotes are checked for their age.
const AGING_INTERVAL: Duration = Duration::from_secs(5);

pub(super) async fn age_remotes(inner: Weak<Inner>, stop: CancellationToken) {
    let aging = async {
        loop {
            tokio::time::sleep(AGING_INTERVAL).await;
            let Some(inner) = inner.upgrade() else { return };
            let (parts, limits) = (inner.snapshots.clone(), inner.shared.limits.clone());
            Transport { inner }.forget_remotes();
            if let Some(store) = parts {
                store.parts().age(limits.snapshot_part_age, limits.snapshot_parts).await;
            }
        }
    };
    stop.run_until_cancelled(aging).await;
}
