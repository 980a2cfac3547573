//! What every request to a peer says about this member.

use crate::{
    dial::urls::PeerUrl,
    id::{ClusterId, Incarnation, MemberId},
    wire::version::Version,
};

/// The identity of this member towards its peers.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Identity {
    /// This member.
    pub member: MemberId,
    /// Its cluster.
    pub cluster: ClusterId,
    /// Its own peer URLs, sent in `X-PeerURLs`.
    pub urls: Vec<PeerUrl>,
    /// Which start of the member this is, sent in `X-Rafthttp-Incarnation`. `None`: not sent.
    pub incarnation: Option<Incarnation>,
    /// The etcd version that it claims to be: 3.6.0 by default, and never the version of this crate.
    pub server_version: Version,
}
