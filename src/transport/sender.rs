//! The sender of a request.

use std::{net::IpAddr, sync::Arc};

use super::{inbox::Inbox, peer::Peer, roster::KnownMember};
use crate::{id::MemberId, ledger::Channel};

/// The sender of a request. It is looked up once, when the request has passed its checks, so that everything in the
/// request is counted in one ledger, even if the member is added or removed while it is read.
#[derive(Clone)]
pub(crate) struct Sender {
    /// The ID in the request. `None` if it has none.
    id: Option<MemberId>,
    /// The peer or remote. `None` for a stranger.
    known: Option<KnownMember>,
}

/// What a sender is to this member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SenderKind {
    /// A configured peer.
    Peer,
    /// A member known only from its requests.
    Remote,
    /// Anyone else.
    Stranger,
}

/// What a request says about its sender's URLs, and what is known about its origin.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SenderClaim<'a> {
    /// The text of `X-PeerURLs`, if it is present and not empty.
    pub(crate) urls: Option<&'a str>,
    /// The address that the request came from. `None` on a listener that does not provide it.
    pub(crate) address: Option<IpAddr>,
    /// Whether the client presented a certificate of the CA.
    pub(crate) authenticated: bool,
}

impl Sender {
    pub(super) fn new(id: Option<MemberId>, known: Option<KnownMember>) -> Self {
        Self { id, known }
    }

    /// What the sender was to this member when its request came.
    pub(crate) fn kind(&self) -> SenderKind {
        match &self.known {
            Some(KnownMember::Peer(_)) => SenderKind::Peer,
            Some(KnownMember::Remote(_)) => SenderKind::Remote,
            None => SenderKind::Stranger,
        }
    }

    /// The sender's ID; 0 if the request has none.
    pub(super) fn id(&self) -> MemberId {
        self.id.unwrap_or_default()
    }

    /// The peer, if it is one.
    pub(super) fn peer(&self) -> Option<&Arc<Peer>> {
        match &self.known {
            Some(KnownMember::Peer(peer)) => Some(peer),
            Some(KnownMember::Remote(_)) | None => None,
        }
    }

    /// The inbox for its messages: a peer's own, or the one for all others.
    pub(super) fn inbox<'a>(&'a self, strangers: &'a Inbox) -> &'a Inbox {
        self.peer().map_or(strangers, |peer| &peer.inbox)
    }

    /// Counts something that the sender sent and that could not be read.
    pub(super) fn unreadable(&self, strangers: &Inbox, channel: Channel, kind: &'static str) {
        match self.peer() {
            Some(peer) => peer.unreadable(channel, kind),
            None => strangers.unreadable(channel, kind),
        }
    }
}
