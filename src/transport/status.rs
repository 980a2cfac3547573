//! What the transport says about itself: the source of `/metrics` and `/api/peers`.

use std::time::{Duration, SystemTime};

use super::standing::{PeerIncarnation, Refused};
use crate::{
    dial::urls::PeerUrl,
    id::{ClusterId, MemberId},
    ledger::{Incoming, Link, Outgoing, Tally},
    tls::TlsStatus,
    wire::version::Version,
};

/// The state of one peer or remote, read in one go.
#[derive(Clone, Debug)]
pub struct PeerStatus {
    /// Who it is.
    pub id: MemberId,
    /// What it is to us.
    pub role: PeerRole,
    /// Its name, where the application knows it.
    pub name: String,
    /// Its URLs.
    pub urls: Vec<PeerUrl>,
    /// Whether it is paused or cut.
    pub paused: bool,
    /// The ledger of what goes to it. Empty of a remote, which is counted in [`TransportStatus::others`].
    pub outgoing: Outgoing,
    /// The ledger of what comes from it. Empty of a remote, which is counted in [`TransportStatus::strangers`].
    pub incoming: Incoming,
    /// How the link does. Nothing is known of a remote's.
    pub link: Link,
    /// Which start of it is heard.
    pub incarnation: PeerIncarnation,
}

impl PeerStatus {
    /// Whether it is a configured peer: its streams are dialled, and it dials ours.
    pub fn is_peer(&self) -> bool {
        matches!(self.role, PeerRole::Peer)
    }

    /// The start of it that is not heard, if there is one.
    pub fn refused(&self) -> Option<&Refused> {
        match &self.incarnation {
            PeerIncarnation::Refused(refused) => Some(refused),
            PeerIncarnation::Unknown | PeerIncarnation::Untold | PeerIncarnation::Met(_) => None,
        }
    }

    /// Whether it is known only from its requests.
    pub fn is_remote(&self) -> bool {
        matches!(self.role, PeerRole::Remote)
    }

    /// What it says of itself, if it is only watched.
    pub fn watched(&self) -> Option<&Watched> {
        match &self.role {
            PeerRole::Watched(watched) => Some(watched),
            PeerRole::Peer | PeerRole::Remote => None,
        }
    }
}

/// What a member is to the one that tells of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PeerRole {
    /// A configured peer: written to, heard and probed.
    #[default]
    Peer,
    /// A member that only its requests made known: reached by POST alone, not probed.
    Remote,
    /// A member that is watched from outside its cluster: probed, neither written to nor heard.
    Watched(Watched),
}

/// A member that is watched from outside its cluster. What it said is there while it answers, and no longer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Watched {
    /// The cluster that it answers for.
    pub cluster: Option<ClusterId>,
    /// Whether that is another cluster than the one that is watched.
    pub is_foreign: Option<bool>,
    /// The version of its server.
    pub version: Option<Version>,
    /// The version that its cluster has agreed on.
    pub cluster_version: Option<Version>,
    /// Whether it is a learner, as the members say.
    pub is_learner: bool,
    /// Whether it was ever started: until then it has no name.
    pub is_started: bool,
}

/// The state of the whole transport.
#[derive(Clone, Debug, Default)]
pub struct TransportStatus {
    /// This member; 0 for who only watches.
    pub local: MemberId,
    /// Its cluster, where it is known.
    pub cluster: Option<ClusterId>,
    /// When this was read, by the clock that all its other times are of.
    pub time: Option<SystemTime>,
    /// When it started.
    pub started: Option<SystemTime>,
    /// How often its peers are probed, and how long a probe may take; none where they are not.
    pub probe: Option<(Duration, Duration)>,
    /// Peers and remotes by ID.
    pub peers: Vec<PeerStatus>,
    /// What came from who is no peer, remotes included: the label `other`. None for who listens to nobody.
    pub strangers: Option<Incoming>,
    /// What went to remotes: the label `other`. None for who writes to nobody.
    pub others: Option<Outgoing>,
    /// Messages to nobody (`no_destination`) or to whom we do not know (`unknown_peer`).
    pub unroutable: Tally<&'static str>,
    /// How its certificates do; none without TLS.
    pub tls: Option<TlsStatus>,
}
