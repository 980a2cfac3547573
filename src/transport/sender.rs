//! Who sent a request.

use std::{net::IpAddr, sync::Arc};

use super::{inbox::Inbox, peer::Peer, roster::Known};
use crate::{id::MemberId, ledger::Channel};

/// Who sent a request, looked up once, when the request has passed its checks: what is counted of it stands in one
/// ledger, whoever comes or goes while it is read.
pub(crate) struct Sender {
    /// As the request says; none when it does not.
    id: Option<MemberId>,
    /// A peer, or a remote; none: a stranger.
    known: Option<Known>,
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

/// What a request says of its sender's URLs, and what is known of where it came from.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Told<'a> {
    /// `X-PeerURLs`, if it is there and says something.
    pub(crate) urls: Option<&'a str>,
    /// The address that asked; none on a listener that does not say it.
    pub(crate) address: Option<IpAddr>,
    /// Whether its connection was opened with a certificate of the CA.
    pub(crate) authenticated: bool,
}

impl Sender {
    pub(super) fn new(id: Option<MemberId>, known: Option<Known>) -> Self {
        Self { id, known }
    }

    /// What it was to us when its request came.
    pub(crate) fn standing(&self) -> Standing {
        match &self.known {
            Some(Known::Peer(_)) => Standing::Peer,
            Some(Known::Remote(_)) => Standing::Remote,
            None => Standing::Stranger,
        }
    }

    /// Its ID; 0 when the request does not say it.
    pub(super) fn id(&self) -> MemberId {
        self.id.unwrap_or_default()
    }

    /// The peer, if it is one.
    pub(super) fn peer(&self) -> Option<&Arc<Peer>> {
        match &self.known {
            Some(Known::Peer(peer)) => Some(peer),
            Some(Known::Remote(_)) | None => None,
        }
    }

    /// The inbox that its messages go to: a peer's own, or that of everyone else.
    pub(super) fn inbox<'a>(&'a self, strangers: &'a Inbox) -> &'a Inbox {
        self.peer().map_or(strangers, |peer| &peer.inbox)
    }

    /// Counts what it sent and could not be read.
    pub(super) fn unreadable(&self, strangers: &Inbox, channel: Channel, kind: &'static str) {
        match self.peer() {
            Some(peer) => peer.unreadable(channel, kind),
            None => strangers.unreadable(channel, kind),
        }
    }
}
