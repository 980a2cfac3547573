//! What a quorum knows of a member without data. It is asked at client URLs, where reads of the members are
//! linearizable. The answer of one member at its peer URL is what that member has applied, which may be old.

use bytes::Bytes;
use http::Method;
use serde::Deserialize;

use super::{Seeker, ours};
use crate::{
    dial::urls::PeerUrl,
    id::MemberId,
    node::{config::same_urls, members::MemberRecord},
    wire::headers::MEMBERS,
};

/// What a quorum knows of the member with our peer URLs.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// There is none.
    Unknown,
    /// It was added, and has not told its client URLs yet.
    Added(MemberId),
    /// It was started, as the member at this client URL says.
    Started(MemberId, PeerUrl),
}

/// A member in the answer to a client.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Listed {
    id: MemberId,
    #[serde(rename = "peerURLs")]
    peer_urls: Vec<String>,
    #[serde(rename = "clientURLs")]
    client_urls: Vec<String>,
}

#[derive(Deserialize)]
struct List {
    members: Vec<Listed>,
}

impl Listed {
    fn has_urls(&self, own: &[PeerUrl]) -> bool {
        let urls: Vec<PeerUrl> = self.peer_urls.iter().filter_map(|url| url.parse().ok()).collect();
        same_urls(&urls, own)
    }
}

impl Seeker<'_> {
    /// What a quorum knows of us.
    ///
    /// # Errors
    /// None of the members at these client URLs reaches a quorum.
    pub(super) async fn standing(&self, through: &[PeerUrl]) -> Result<Standing, String> {
        let (url, listed) = self.listed(through).await?;
        let us = listed.into_iter().find(|listed| listed.has_urls(self.own));
        Ok(match us {
            None => Standing::Unknown,
            Some(us) if us.client_urls.is_empty() => Standing::Added(us.id),
            Some(us) => Standing::Started(us.id, url.clone()),
        })
    }

    /// Whether a member has told its client URLs.
    pub(super) async fn was_started(&self, id: MemberId, through: &[PeerUrl]) -> Result<bool, String> {
        let (_, listed) = self.listed(through).await?;
        let us = listed.into_iter().find(|listed| listed.id == id);
        us.map(|us| !us.client_urls.is_empty()).ok_or_else(|| format!("member {id} is not a member any more"))
    }

    async fn listed<'a>(&self, through: &'a [PeerUrl]) -> Result<(&'a PeerUrl, Vec<Listed>), String> {
        let (url, body) = self.request(Method::GET, MEMBERS, None, through).await?;
        let list: List = serde_json::from_slice(&body)
            .map_err(|error| format!("{url}: the answer is not a list of members: {error}"))?;
        Ok((url, list.members))
    }

    /// Sends a request to members at their client URLs, one after the other, until one accepts it. Returns its URL and
    /// its answer.
    pub(super) async fn request<'a>(
        &self,
        method: Method,
        path: &str,
        body: Option<&str>,
        through: &'a [PeerUrl],
    ) -> Result<(&'a PeerUrl, Bytes), String> {
        let mut why = "no member has a client URL".to_owned();
        for url in through {
            match self.client.exchange(method.clone(), url, path, body.map(str::to_owned)).await {
                Ok((head, body)) if head.status.is_success() => return Ok((url, body)),
                Ok((head, body)) => {
                    why = format!("{url}: {method} {path}: {}: {}", head.status, String::from_utf8_lossy(&body).trim());
                }
                Err(error) => why = format!("{url}: {error}"),
            }
        }
        Err(why)
    }
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
