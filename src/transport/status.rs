//! What the transport says about itself: the source of `/metrics` and `/api/peers`.

use std::time::{Duration, SystemTime};

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
    /// Whether it is known only from its requests.
    pub remote: bool,
    /// Its name, where the application knows it.
    pub name: String,
    /// Its URLs.
    pub urls: Vec<PeerUrl>,
    /// Whether it is paused or cut.
    pub paused: bool,
    /// The ledger of what goes to it.
    pub outgoing: Outgoing,
    /// The ledger of what comes from it.
    pub incoming: Incoming,
    /// How the link does.
    pub link: Link,
    /// What it says of itself, if it is a member that is only watched: probed, neither written to nor heard.
    pub watched: Option<Watched>,
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
    /// When it started.
    pub started: Option<SystemTime>,
    /// How often its peers are probed, and how long a probe may take; none where they are not.
    pub probe: Option<(Duration, Duration)>,
    /// Peers and remotes by ID.
    pub peers: Vec<PeerStatus>,
    /// What came from members that are neither peer nor remote: the label `other`. None for who listens to nobody.
    pub strangers: Option<Incoming>,
    /// Messages to nobody (`no_destination`) or to whom we do not know (`unknown_peer`).
    pub unroutable: Tally<&'static str>,
    /// How its certificates do; none without TLS.
    pub tls: Option<TlsStatus>,
}
