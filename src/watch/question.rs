//! What a member is asked beside the probe: who the members are, of which cluster it is, and which version runs.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use serde::Deserialize;

use super::fault::Fault;
use crate::{
    dial::{
        client::Client,
        urls::{PeerUrl, UrlPicker},
    },
    id::ClusterId,
    transport::probe::Probe,
    wire::{headers, reply::Reply, version::Version},
};

/// Bytes of the answer to `GET /members`: ten thousand members with two URLs each.
const MEMBERS_BYTES: usize = 4 << 20;
/// Bytes of the answer to `GET /version`.
const VERSION_BYTES: usize = 4096;

/// Who is asked, over which connection, and for how long.
pub(super) struct Question<'a> {
    pub(super) probe: &'a mut Probe,
    pub(super) client: &'a Client,
    pub(super) urls: &'a UrlPicker,
    pub(super) timeout: Duration,
}

/// A list of members, and the cluster whose they are.
#[derive(Clone, Debug)]
pub(super) struct Told {
    pub(super) cluster: ClusterId,
    /// Not read yet.
    pub(super) body: Bytes,
}

/// The cluster that a member is to be of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    /// None until somebody told: then any is right.
    pub(super) cluster: Option<ClusterId>,
    /// What that cluster is to us, for what is told of a foreign one.
    pub(super) role: &'static str,
}

/// The versions that `GET /version` tells: the server's, and the cluster's once it has agreed on one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Versions {
    pub(super) server: Version,
    pub(super) cluster: Option<Version>,
}

/// Asks a seed `GET /members`, over a connection of its own.
pub(super) async fn ask_seed(client: &Client, seed: &PeerUrl, timeout: Duration) -> Result<Told, Fault> {
    let (mut probe, urls) = (Probe::default(), UrlPicker::new(vec![seed.clone()]));
    Question { probe: &mut probe, client, urls: &urls, timeout }.members().await
}

impl Question<'_> {
    /// `GET /members`.
    pub(super) async fn members(self) -> Result<Told, Fault> {
        let reply = self.get(headers::MEMBERS, MEMBERS_BYTES).await?;
        match reply.status {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Err(Fault::ClientUrl),
            status => return Err(Fault::Status { path: "/members", status }),
        }
        let cluster = reply.cluster.ok_or(Fault::NoCluster)?;
        Ok(Told { cluster, body: reply.body })
    }

    /// `GET /version`.
    pub(super) async fn versions(self) -> Result<Versions, Fault> {
        #[derive(Deserialize)]
        struct Text {
            etcdserver: String,
            #[serde(default)]
            etcdcluster: String,
        }
        let reply = self.get(headers::VERSION, VERSION_BYTES).await?;
        if reply.status != StatusCode::OK {
            return Err(Fault::Status { path: "/version", status: reply.status });
        }
        let Text { etcdserver, etcdcluster } = serde_json::from_slice(&reply.body).map_err(|_| Fault::NoVersion)?;
        let read = |text: &str| Version::from_header(Some(text).filter(|text| !text.is_empty())).ok();
        let server = read(&etcdserver).filter(|_| !etcdserver.is_empty()).ok_or(Fault::NoVersion)?;
        Ok(Versions { server, cluster: read(&etcdcluster).filter(|_| !etcdcluster.is_empty()) })
    }

    async fn get(self, path: &'static str, bytes: usize) -> Result<Reply, Fault> {
        let Self { probe, client, urls, timeout } = self;
        let reply = probe.get(client, urls, timeout, path, bytes).await;
        reply.map_err(|failure| Fault::NoAnswer { path, why: failure.why })
    }
}

impl Wanted {
    /// Whether an answer for `cluster` is one of ours.
    pub(super) fn check(self, cluster: ClusterId) -> Result<(), Fault> {
        match self.cluster {
            Some(wanted) if wanted != cluster => Err(Fault::Foreign { cluster, wanted, role: self.role }),
            _ => Ok(()),
        }
    }
}
