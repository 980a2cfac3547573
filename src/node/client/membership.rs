//! `/members` and `/status`.

use axum::{
    Json,
    body::Body,
    extract::{Path, Query, State},
    http::{HeaderMap, HeaderValue, StatusCode},
    response::Response,
};
use serde::{Deserialize, Serialize};

use super::{ClientHandler, ClientRefusal, JSON_BYTES, keys::Consistency};
use crate::{
    dial::urls::PeerUrl,
    id::MemberId,
    node::{
        members::{ConfRefusal, MemberRecord},
        proposals::{Payload, ProposalOutcome},
        reconfiguration::{self, Connectivity},
        status::RaftStatus,
    },
    transport::raft::Member,
    wire::{
        headers::X_ETCD_CLUSTER_ID,
        raftpb::{ConfChange, ConfChangeType},
    },
};

/// A member in answers to clients: its ID is printed in hexadecimal.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct MemberJson {
    id: MemberId,
    name: String,
    #[serde(rename = "peerURLs")]
    peer_urls: Vec<PeerUrl>,
    #[serde(rename = "clientURLs")]
    client_urls: Vec<String>,
    is_learner: bool,
}

impl From<&Member> for MemberJson {
    fn from(member: &Member) -> Self {
        let Member { id, name, peer_urls, client_urls, is_learner } = member.clone();
        Self { id, name, peer_urls, client_urls, is_learner }
    }
}

#[derive(Serialize)]
pub(super) struct MembersJson {
    members: Vec<MemberJson>,
}

/// The URLs and settings of a member that is to be added or changed.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct MemberRequest {
    #[serde(rename = "peerURLs")]
    peer_urls: Vec<String>,
    #[serde(default)]
    name: String,
    #[serde(default)]
    is_learner: bool,
}

impl MemberRequest {
    async fn read(client: &ClientHandler, headers: &HeaderMap, body: Body) -> Result<Self, ClientRefusal> {
        let (body, _room) = client.body(headers, body, JSON_BYTES).await?;
        let mut asked: Self = serde_json::from_slice(&body).map_err(|error| ClientRefusal::Bad(error.to_string()))?;
        for url in &mut asked.peer_urls {
            // It must be the same text for the same URL, because an ID is derived from it.
            *url = url.parse::<PeerUrl>().map_err(|error| ClientRefusal::Bad(error.to_string()))?.to_string();
        }
        if asked.peer_urls.is_empty() {
            return Err(ClientRefusal::Bad("peerURLs: expected at least one URL".to_owned()));
        }
        Ok(asked)
    }
}

pub(super) async fn status(State(client): State<ClientHandler>) -> Json<RaftStatus> {
    Json(client.shared.status())
}

/// Names the cluster in an answer. A member without data asks at URLs that may lead to another cluster by now.
pub(super) async fn with_cluster(State(client): State<ClientHandler>, mut response: Response) -> Response {
    let cluster = client.transport.identity().cluster.to_string();
    let cluster = HeaderValue::try_from(cluster).expect("hexadecimal digits are a header value");
    response.headers_mut().insert(X_ETCD_CLUSTER_ID, cluster);
    response
}

pub(super) async fn list(
    State(client): State<ClientHandler>,
    Query(consistency): Query<Consistency>,
) -> Result<Json<MembersJson>, ClientRefusal> {
    let _permit = client.admit()?;
    if !consistency.is_local()? {
        client.catch_up().await?;
    }
    let members = client.shared.membership.load().iter().map(MemberJson::from).collect();
    Ok(Json(MembersJson { members }))
}

pub(super) async fn add(
    State(client): State<ClientHandler>,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<MemberJson>), ClientRefusal> {
    let _permit = client.admit()?;
    let asked = MemberRequest::read(&client, &headers, body).await?;
    let id = MemberId::derive(&asked.peer_urls, &client.token, Some(client.world.now()));
    let kind = match asked.is_learner {
        true => ConfChangeType::ConfChangeAddLearnerNode,
        false => ConfChangeType::ConfChangeAddNode,
    };
    let record = MemberRecord {
        id: id.0,
        peer_urls: asked.peer_urls,
        is_learner: asked.is_learner,
        name: asked.name,
        ..MemberRecord::default()
    };
    client.change(kind, &record).await?;
    Ok((StatusCode::CREATED, Json(client.member(id)?)))
}

pub(super) async fn update(
    State(client): State<ClientHandler>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<MemberJson>, ClientRefusal> {
    let _permit = client.admit()?;
    let id = parse_id(&id)?;
    let asked = MemberRequest::read(&client, &headers, body).await?;
    let record = MemberRecord { id: id.0, peer_urls: asked.peer_urls, ..MemberRecord::default() };
    client.change(ConfChangeType::ConfChangeUpdateNode, &record).await?;
    Ok(Json(client.member(id)?))
}

pub(super) async fn remove(
    State(client): State<ClientHandler>,
    Path(id): Path<String>,
) -> Result<StatusCode, ClientRefusal> {
    let _permit = client.admit()?;
    let record = MemberRecord { id: parse_id(&id)?.0, ..MemberRecord::default() };
    client.change(ConfChangeType::ConfChangeRemoveNode, &record).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn promote(
    State(client): State<ClientHandler>,
    Path(id): Path<String>,
) -> Result<Json<MemberJson>, ClientRefusal> {
    let _permit = client.admit()?;
    let id = parse_id(&id)?;
    let record = MemberRecord { id: id.0, is_promote: true, ..MemberRecord::default() };
    client.change(ConfChangeType::ConfChangeAddNode, &record).await?;
    Ok(Json(client.member(id)?))
}

fn parse_id(text: &str) -> Result<MemberId, ClientRefusal> {
    let id =
        text.parse().map_err(|_| ClientRefusal::Bad(format!("{text:?} is not a member's ID: expected hexadecimal")))?;
    if id == MemberId(0) { Err(ClientRefusal::NotFound("no such member")) } else { Ok(id) }
}

impl ClientHandler {
    pub(in crate::node) async fn change(
        &self,
        kind: ConfChangeType,
        record: &MemberRecord,
    ) -> Result<(), ClientRefusal> {
        let id = self.ids.next().conf_change_id();
        let change = ConfChange { id, r#type: kind as i32, node_id: record.id, context: record.to_json() };
        if self.strict {
            self.check_reconfiguration(&change)?;
        }
        match self.propose(Payload::ConfChange(change)).await? {
            ProposalOutcome::Refused(why) => Err(why.into()),
            ProposalOutcome::Membership | ProposalOutcome::Written { .. } => Ok(()),
        }
    }

    /// As in etcd, checks the change by this member's membership, and by the members that it is connected to.
    fn check_reconfiguration(&self, change: &ConfChange) -> Result<(), ConfRefusal> {
        let own = self.transport.identity().member;
        let connection = |id| Connectivity::lasting(self.transport.connected_for(id));
        reconfiguration::check_as_asked(&self.shared.membership.load(), own, change, connection)
    }

    fn member(&self, id: MemberId) -> Result<MemberJson, ClientRefusal> {
        let membership = self.shared.membership.load();
        membership.get(id).map(MemberJson::from).ok_or_else(|| ConfRefusal::NotFound.into())
    }
}
