//! The questions to a member beside the probe: who the members are, which cluster it belongs to, and which version it
//! runs.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use serde::Deserialize;

use super::fault::WatchFault;
use crate::{
    dial::{
        client::Client,
        urls::{PeerUrl, UrlPicker},
    },
    id::ClusterId,
    transport::probe::Probe,
    wire::{headers, reply::Reply, version::Version},
};

/// The longest answer to `GET /members`, in bytes: ten thousand members with two URLs each.
const MEMBERS_BYTES: usize = 4 << 20;
/// The longest answer to `GET /version`, in bytes.
const VERSION_BYTES: usize = 4096;

/// A question: the member, the connection, and the time limit.
pub(super) struct MemberQuestion<'a> {
    pub(super) probe: &'a mut Probe,
    pub(super) client: &'a Client,
    pub(super) urls: &'a UrlPicker,
    pub(super) timeout: Duration,
}

/// A list of members, and the cluster that they belong to.
#[derive(Clone, Debug)]
pub(super) struct ToldMembers {
    pub(super) cluster: ClusterId,
    /// The list, not parsed yet.
    pub(super) body: Bytes,
}

/// The cluster that a member should belong to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    /// `None` until a member has answered: then any cluster is right.
    pub(super) cluster: Option<ClusterId>,
    /// How messages about another cluster call this one.
    pub(super) role: &'static str,
}

/// The versions that `GET /version` answers: the server's, and the cluster's once the cluster has agreed on one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Versions {
    pub(super) server: Version,
    pub(super) cluster: Option<Version>,
}

/// Asks a seed `GET /members`, over a separate connection.
pub(super) async fn ask_seed(client: &Client, seed: &PeerUrl, timeout: Duration) -> Result<ToldMembers, WatchFault> {
    let (mut probe, urls) = (Probe::default(), UrlPicker::new(vec![seed.clone()]));
    MemberQuestion { probe: &mut probe, client, urls: &urls, timeout }.members().await
}

impl MemberQuestion<'_> {
    /// Asks `GET /members`.
    pub(super) async fn members(self) -> Result<ToldMembers, WatchFault> {
        let reply = self.get(headers::MEMBERS, MEMBERS_BYTES).await?;
        match reply.status {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Err(WatchFault::ClientUrl),
            status => return Err(WatchFault::Status { path: "/members", status }),
        }
        let cluster = reply.cluster.ok_or(WatchFault::NoCluster)?;
        Ok(ToldMembers { cluster, body: reply.body })
    }

    /// Asks `GET /version`.
    pub(super) async fn versions(self) -> Result<Versions, WatchFault> {
        #[derive(Deserialize)]
        struct Text {
            etcdserver: String,
            #[serde(default)]
            etcdcluster: String,
        }
        let reply = self.get(headers::VERSION, VERSION_BYTES).await?;
        if reply.status != StatusCode::OK {
            return Err(WatchFault::Status { path: "/version", status: reply.status });
        }
        let Text { etcdserver, etcdcluster } =
            serde_json::from_slice(&reply.body).map_err(|_| WatchFault::NoVersion)?;
        let read = |text: &str| Version::from_header(Some(text).filter(|text| !text.is_empty())).ok();
        let server = read(&etcdserver).filter(|_| !etcdserver.is_empty()).ok_or(WatchFault::NoVersion)?;
        Ok(Versions { server, cluster: read(&etcdcluster).filter(|_| !etcdcluster.is_empty()) })
    }

    async fn get(self, path: &'static str, bytes: usize) -> Result<Reply, WatchFault> {
        let Self { probe, client, urls, timeout } = self;
        let reply = probe.get(client, urls, timeout, path, bytes).await;
        reply.map_err(|failure| WatchFault::NoAnswer { path, why: failure.why })
    }
}

impl Wanted {
    /// Checks that an answer is from the wanted cluster.
    pub(super) fn check(self, cluster: ClusterId) -> Result<(), WatchFault> {
        match self.cluster {
            Some(wanted) if wanted != cluster => Err(WatchFault::Foreign { cluster, wanted, role: self.role }),
            _ => Ok(()),
        }
    }
}
