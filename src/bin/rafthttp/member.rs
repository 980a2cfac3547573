//! Reads and changes the membership of a cluster of nodes, at a member's client URL.

use std::fmt::Write as _;

use bytes::Bytes;
use http::{Method, StatusCode};
use rafthttp::{MemberId, PeerUrl};
use serde::{Deserialize, Serialize};

use crate::client::{AskError, MemberClient};

mod shrink;

pub(crate) use shrink::shrink;

/// A member, as in `GET /members`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct MemberEntry {
    pub(crate) id: MemberId,
    pub(crate) name: String,
    #[serde(rename = "peerURLs")]
    pub(crate) peer_urls: Vec<String>,
    #[serde(rename = "clientURLs")]
    pub(crate) client_urls: Vec<String>,
    pub(crate) is_learner: bool,
}

/// All members.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct MembersAnswer {
    pub(crate) members: Vec<MemberEntry>,
}

/// Why the membership could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MemberError {
    /// None of the endpoints can be reached.
    #[error("no endpoint can be reached: {0}")]
    Unreachable(String),
    /// A member was asked and did not answer, so it is unknown whether the change was made.
    #[error("{url}: {error}")]
    NoAnswer {
        /// The member's URL.
        url: String,
        /// The error.
        error: AskError,
    },
    /// The member refused.
    #[error("{url}: {status}: {said}")]
    Refused {
        /// The member's URL.
        url: String,
        /// The status.
        status: StatusCode,
        /// The text of its answer.
        said: String,
    },
    /// The member gave another answer.
    #[error("{url} returned no list of members: {error}")]
    Malformed {
        /// The member's URL.
        url: String,
        /// The error in it.
        error: serde_json::Error,
    },
    /// No member has this ID or name.
    #[error("no member has the ID or the name {0:?}")]
    Unknown(String),
    /// A quorum would be lost.
    #[error("{0}")]
    Quorum(String),
}

/// A client for the membership, which knows some client URLs.
pub(crate) struct MembershipClient {
    client: MemberClient,
    endpoints: Vec<String>,
}

impl MembershipClient {
    pub(crate) fn new(client: MemberClient, endpoints: Vec<String>) -> Self {
        Self { client, endpoints }
    }

    /// The members of the cluster, linearizable.
    pub(crate) async fn list(&self) -> Result<MembersAnswer, MemberError> {
        let (url, body) = self.ask(Method::GET, "/members", Bytes::new()).await?;
        serde_json::from_slice(&body).map_err(|error| MemberError::Malformed { url, error })
    }

    pub(crate) async fn add(&self, name: &str, urls: &[PeerUrl], learner: bool) -> Result<MemberEntry, MemberError> {
        let asked = serde_json::json!({ "name": name, "peerURLs": urls, "isLearner": learner });
        let (url, body) = self.ask(Method::POST, "/members", asked.to_string().into()).await?;
        serde_json::from_slice(&body).map_err(|error| MemberError::Malformed { url, error })
    }

    pub(crate) async fn remove(&self, id: MemberId) -> Result<(), MemberError> {
        self.ask(Method::DELETE, &format!("/members/{id}"), Bytes::new()).await.map(drop)
    }

    pub(crate) async fn promote(&self, id: MemberId) -> Result<(), MemberError> {
        self.ask(Method::POST, &format!("/members/{id}/promote"), Bytes::new()).await.map(drop)
    }

    /// The member with this ID, or else with this name.
    pub(crate) async fn find(&self, text: &str) -> Result<MemberId, MemberError> {
        let MembersAnswer { members } = self.list().await?;
        let id = text.parse::<MemberId>().ok();
        let found = members.iter().find(|member| Some(member.id) == id);
        let found = found.or_else(|| members.iter().find(|member| member.name == text));
        found.map(|member| member.id).ok_or_else(|| MemberError::Unknown(text.to_owned()))
    }

    /// Whether the member at one of these client URLs works and has a leader.
    async fn is_healthy(&self, client_urls: &[String]) -> bool {
        #[derive(Deserialize)]
        struct Status {
            leader: MemberId,
            halted: Option<String>,
        }
        for url in client_urls {
            if let Ok((StatusCode::OK, body)) =
                self.client.ask(Method::GET, format!("{url}/status"), Bytes::new()).await
                && let Ok(Status { leader, halted }) = serde_json::from_slice(&body)
            {
                return leader != MemberId(0) && halted.is_none();
            }
        }
        false
    }

    /// Asks the first endpoint that can be reached. Only an endpoint that the request was not sent to is skipped.
    /// Returns its URL and its answer.
    async fn ask(&self, method: Method, path: &str, body: Bytes) -> Result<(String, Bytes), MemberError> {
        let mut why = String::new();
        for url in &self.endpoints {
            match self.client.ask(method.clone(), format!("{url}{path}"), body.clone()).await {
                Ok((status, body)) if status.is_success() => return Ok((url.clone(), body)),
                Ok((status, body)) => {
                    let said = String::from_utf8_lossy(&body).trim().to_owned();
                    return Err(MemberError::Refused { url: url.clone(), status, said });
                }
                Err(error @ AskError::NotAsked(_)) => why = format!("{url} {error}"),
                Err(error @ AskError::NoAnswer(_)) => return Err(MemberError::NoAnswer { url: url.clone(), error }),
            }
        }
        Err(MemberError::Unreachable(why))
    }
}

impl MembersAnswer {
    /// A table for people.
    pub(crate) fn table(&self) -> String {
        let name = self.members.iter().map(|member| member.name.len()).chain([4]).max().unwrap_or_default();
        let peer = self.members.iter().map(|member| member.peer_urls.join(",").len()).chain([9]).max();
        let peer = peer.unwrap_or_default();
        let mut text = format!("{:<16}  {:<name$}  {:<7}  {:<peer$}  CLIENT URLS\n", "ID", "NAME", "VOTE", "PEER URLS");
        for member in &self.members {
            let MemberEntry { id, name: called, peer_urls, client_urls, is_learner } = member;
            let vote = if *is_learner { "learner" } else { "voter" };
            let (id, peers, clients) = (id.to_string(), peer_urls.join(","), client_urls.join(","));
            let clients = if clients.is_empty() { "not started yet" } else { &clients };
            writeln!(text, "{id:<16}  {called:<name$}  {vote:<7}  {peers:<peer$}  {clients}")
                .expect("a string takes what is written to it");
        }
        text
    }

    pub(crate) fn json(&self) -> String {
        serde_json::to_string(self).expect("our own types always serialize")
    }
}
