//! What a quorum knows of a member without data. It is asked at client URLs, where reads of the members are
//! linearizable. The answer of one member at its peer URL is what that member has applied, which may be old.

use bytes::Bytes;
use http::Method;
use serde::Deserialize;

use super::{Joined, Seeker, cluster_of, ours};
use crate::{
    dial::urls::PeerUrl,
    id::{ClusterId, MemberId},
    node::{config::same_urls, members::MemberRecord},
    wire::headers::MEMBERS,
};

/// The members as the asked one has them.
const LOCAL_MEMBERS: &str = "/members?consistency=local";
/// Why nobody was asked.
const NOBODY: &str = "no member has a client URL";

/// What a quorum knows of the member with our peer URLs.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum MemberStatus {
    /// There is none.
    Unknown,
    /// It was added, and has not told its client URLs yet.
    Added(MemberId),
    /// It was started.
    Started(MemberId),
}

/// A member in the answer to a client.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct QuorumMember {
    id: MemberId,
    #[serde(rename = "peerURLs")]
    peer_urls: Vec<String>,
    #[serde(rename = "clientURLs")]
    client_urls: Vec<String>,
}

#[derive(Deserialize)]
struct QuorumMembers {
    members: Vec<QuorumMember>,
}

impl QuorumMember {
    fn has_urls(&self, own: &[PeerUrl]) -> bool {
        let urls: Vec<PeerUrl> = self.peer_urls.iter().filter_map(|url| url.parse().ok()).collect();
        same_urls(&urls, own)
    }
}

impl Seeker<'_> {
    /// What a quorum of a cluster knows of us, and the client URL that says so. They are asked one after the other.
    ///
    /// # Errors
    /// None of the members of the cluster at these client URLs reaches a quorum.
    pub(super) async fn status<'a>(
        &self,
        cluster: ClusterId,
        through: &'a [PeerUrl],
    ) -> Result<(MemberStatus, &'a PeerUrl), String> {
        let mut why = NOBODY.to_owned();
        for url in through {
            match self.status_at(url, cluster).await {
                Ok(status) => return Ok((status, url)),
                Err(error) => why = error,
            }
        }
        Err(why)
    }

    async fn status_at(&self, url: &PeerUrl, cluster: ClusterId) -> Result<MemberStatus, String> {
        let body = self.ask(Method::GET, url, MEMBERS, None, cluster).await?;
        let QuorumMembers { members } = serde_json::from_slice(&body)
            .map_err(|error| format!("{url}: the answer is not a list of members: {error}"))?;
        Ok(match members.into_iter().find(|listed| listed.has_urls(self.own)) {
            None => MemberStatus::Unknown,
            Some(us) if us.client_urls.is_empty() => MemberStatus::Added(us.id),
            Some(us) => MemberStatus::Started(us.id),
        })
    }

    /// Has the membership of a cluster changed, by the first member of it at these client URLs that does so.
    pub(super) async fn change(
        &self,
        method: Method,
        path: &str,
        body: Option<&str>,
        cluster: ClusterId,
        through: &[PeerUrl],
    ) -> Result<(), String> {
        let mut why = NOBODY.to_owned();
        for url in through {
            // Whoever is there now must not be asked for a change before it is known to be in this cluster.
            let found = self.ask(Method::GET, url, LOCAL_MEMBERS, None, cluster).await;
            let changed = match found {
                Ok(_) => self.ask(method.clone(), url, path, body, cluster).await,
                Err(error) => Err(error),
            };
            match changed {
                Ok(_) => return Ok(()),
                Err(error) => why = error,
            }
        }
        Err(why)
    }

    /// Sends a request to a client URL. The answer of a member of another cluster does not count: a URL of an old list
    /// may lead there by now. A member that names no cluster is believed.
    async fn ask(
        &self,
        method: Method,
        url: &PeerUrl,
        path: &str,
        body: Option<&str>,
        cluster: ClusterId,
    ) -> Result<Bytes, String> {
        let answer = self.client.exchange(method.clone(), url, path, body.map(str::to_owned)).await;
        let (head, body) = answer.map_err(|error| format!("{url}: {error}"))?;
        if let Some(other) = cluster_of(&head).filter(|other| *other != cluster) {
            return Err(format!("{url} is in cluster {other}, not in {cluster}"));
        }
        if head.status.is_success() {
            return Ok(body);
        }
        Err(format!("{url}: {method} {path}: {}: {}", head.status, String::from_utf8_lossy(&body).trim()))
    }
}

/// The list that has us as this member, as which a quorum has added us.
pub(super) fn listed_as(id: MemberId, lists: impl IntoIterator<Item = Joined>) -> Result<Joined, String> {
    let joined = lists.into_iter().find(|joined| joined.member == id);
    joined.ok_or_else(|| format!("this is member {id}, of whom no member that answers has heard"))
}

/// The client URLs of the started members of these lists, which take requests of clients. Ours are left out.
pub(super) fn client_urls<'a>(own: &[PeerUrl], lists: impl IntoIterator<Item = &'a Vec<MemberRecord>>) -> Vec<PeerUrl> {
    let mut urls = Vec::new();
    for members in lists {
        let us = ours(own, members).map(|record| record.id);
        let others = members.iter().filter(|record| Some(record.id) != us);
        for url in others.flat_map(|record| &record.client_urls).filter_map(|url| url.parse().ok()) {
            if !urls.contains(&url) {
                urls.push(url);
            }
        }
    }
    urls
}
