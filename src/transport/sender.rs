//! Who sent a request.

use std::sync::Arc;

use super::{inbox::Inbox, peer::Peer};
use crate::{id::MemberId, ledger::Channel};

/// Who sent a request, looked up once, when the request has passed its checks: what is counted of it stands in one
/// ledger, whoever is removed while it is read.
pub(crate) struct Sender {
    /// As the request says; none when it does not.
    id: Option<MemberId>,
    /// None: a stranger.
    peer: Option<Arc<Peer>>,
}

/// What a sender is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// A configured peer.
    Peer,
    /// A member that its requests made known.
    Remote,
    /// Anyone else.
    Stranger,
}

impl Sender {
    pub(super) fn new(id: Option<MemberId>, peer: Option<Arc<Peer>>) -> Self {
        Self { id, peer }
    }

    /// What it is to us by now: a remote may become a peer while its request is read.
    pub(crate) fn standing(&self) -> Standing {
        match &self.peer {
            Some(peer) if peer.is_remote() => Standing::Remote,
            Some(_) => Standing::Peer,
            None => Standing::Stranger,
        }
    }

    /// Its ID; 0 when the request does not say it.
    pub(super) fn id(&self) -> MemberId {
        self.id.unwrap_or_default()
    }

    /// Peer or remote; none for a stranger.
    pub(super) fn peer(&self) -> Option<&Arc<Peer>> {
        self.peer.as_ref()
    }

    /// The inbox that its messages go to: its own, or that of all strangers.
    pub(super) fn inbox<'a>(&'a self, strangers: &'a Inbox) -> &'a Inbox {
        self.peer.as_ref().map_or(strangers, |peer| &peer.inbox)
    }

    /// Counts what it sent and could not be read.
    pub(super) fn unreadable(&self, strangers: &Inbox, channel: Channel, kind: &'static str) {
        match &self.peer {
            Some(peer) => peer.unreadable(channel, kind),
            None => strangers.unreadable(channel, kind),
        }
    }
}
