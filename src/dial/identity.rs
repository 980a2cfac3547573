//! Who asks: what every request to a peer says of this member.

use crate::{
    dial::urls::PeerUrl,
    id::{ClusterId, Incarnation, MemberId},
    wire::version::Version,
};

/// Who we are towards our peers.
#[derive(Clone, Debug)]
pub struct Identity {
    /// This member.
    pub member: MemberId,
    /// Its cluster.
    pub cluster: ClusterId,
    /// Its own peer URLs, told in `X-PeerURLs`.
    pub urls: Vec<PeerUrl>,
    /// Which start of the member this is, told in `X-Rafthttp-Incarnation`; none: not told.
    pub incarnation: Option<Incarnation>,
    /// The etcd version that it speaks as; 3.6.0 unless told otherwise, and never this crate's own.
    pub server_version: Version,
}
