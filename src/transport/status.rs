//! The status of a transport: the source of `/metrics` and `/api/peers`.

use std::time::{Duration, SystemTime};

use super::incarnation::{PeerIncarnation, Refused};
use crate::{
    dial::urls::PeerUrl,
    id::{ClusterId, MemberId},
    ledger::{Incoming, Link, Outgoing, SnapshotPace, Tally},
    tls::TlsStatus,
    wire::version::Version,
};

/// The state of one peer or remote, read in one go.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct PeerStatus {
    /// Its ID.
    pub id: MemberId,
    /// What it is to this member.
    pub role: PeerRole,
    /// Its name, if the application knows it.
    pub name: String,
    /// Its URLs.
    pub urls: Vec<PeerUrl>,
    /// Whether it is paused or cut.
    pub paused: bool,
    /// The ledger of the messages to it. Empty for a remote, which is counted in [`TransportStatus::others`].
    pub outgoing: Outgoing,
    /// The ledger of the messages from it. Empty for a remote, which is counted in [`TransportStatus::strangers`].
    pub incoming: Incoming,
    /// The state of the link. Empty for a remote.
    pub link: Link,
    /// Which incarnation of it is heard.
    pub incarnation: PeerIncarnation,
}

impl PeerStatus {
    /// Whether it is a configured peer, so that both members dial each other's streams.
    pub fn is_peer(&self) -> bool {
        matches!(self.role, PeerRole::Peer)
    }

    /// The refused start of it, if there is one.
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

    /// What it said about itself, if it is only watched.
    pub fn watched(&self) -> Option<&Watched> {
        match &self.role {
            PeerRole::Watched(watched) => Some(watched),
            PeerRole::Peer | PeerRole::Remote => None,
        }
    }
}

/// What a member is to the one that reports it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum PeerRole {
    /// A configured peer: messages are sent and received, and it is probed.
    #[default]
    Peer,
    /// A member known only from its requests: reached by POST alone, and not probed.
    Remote,
    /// A member that is watched from outside its cluster: it is probed, and no messages are sent or received.
    Watched(Watched),
}

/// A member that is watched from outside its cluster. What it said is kept only while it answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Watched {
    /// The cluster that it answers for.
    pub cluster: Option<ClusterId>,
    /// Whether that is another cluster than the watched one.
    pub is_foreign: Option<bool>,
    /// The version of its server.
    pub version: Option<Version>,
    /// The version that its cluster has agreed on.
    pub cluster_version: Option<Version>,
    /// Whether it is a learner, as the list of members says.
    pub is_learner: bool,
    /// Whether it was ever started. Until then it has no name.
    pub is_started: bool,
}

/// The state of the whole transport.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct TransportStatus {
    /// This member; 0 for a watch.
    pub local: MemberId,
    /// Its cluster, if known.
    pub cluster: Option<ClusterId>,
    /// When this was read, by the same clock as all its other times.
    pub time: Option<SystemTime>,
    /// When the transport started.
    pub started: Option<SystemTime>,
    /// How often its peers are probed, and how long a probe may take. `None` if they are not probed.
    pub probe: Option<(Duration, Duration)>,
    /// Peers and remotes, ordered by ID.
    pub peers: Vec<PeerStatus>,
    /// Messages from senders that are no peers, including remotes: the label `other`. `None` for a watch, which
    /// receives none.
    pub strangers: Option<Incoming>,
    /// Messages to remotes: the label `other`. `None` for a watch, which sends none.
    pub others: Option<Outgoing>,
    /// Messages to 0 (`no_destination`) or to an unknown member (`unknown_peer`).
    pub unroutable: Tally<&'static str>,
    /// How fast snapshots may be sent. `None` for a watch, which sends none.
    pub pace: Option<SnapshotPace>,
    /// The state of its certificates. `None` without TLS.
    pub tls: Option<TlsStatus>,
}
