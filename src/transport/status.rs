//! What the transport says about itself: the source of `/metrics` and `/api/peers`.

use std::time::{Duration, SystemTime};

use crate::{
    id::{ClusterId, MemberId},
    metrics::{Incoming, Link, Outgoing, Tally},
    tls::TlsStatus,
    transport::urls::PeerUrl,
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
}

/// The state of the whole transport.
#[derive(Clone, Debug, Default)]
pub struct TransportStatus {
    /// This member.
    pub local: MemberId,
    /// Its cluster, where it is known.
    pub cluster: Option<ClusterId>,
    /// When it started.
    pub started: Option<SystemTime>,
    /// How often its peers are probed, and how long a probe may take; none where they are not.
    pub probe: Option<(Duration, Duration)>,
    /// Peers and remotes by ID.
    pub peers: Vec<PeerStatus>,
    /// What came from members that are neither peer nor remote: the label `other`.
    pub strangers: Incoming,
    /// Messages to nobody (`no_destination`) or to whom we do not know (`unknown_peer`).
    pub unroutable: Tally<&'static str>,
    /// How its certificates do; none without TLS.
    pub tls: Option<TlsStatus>,
}
