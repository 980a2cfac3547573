//! The HTTP interface for clients.
//!
//! | method, path | answers |
//! |---|---|
//! | `PUT /kv/{key}` | 204 once it is applied here |
//! | `GET /kv/{key}` | 200 and the value, linearizable; with `?consistency=local` as this member has it; 404 |
//! | `DELETE /kv/{key}` | 204 once it is applied here, 404 if there was nothing |
//! | `GET /members` | 200, JSON, linearizable; with `?consistency=local` as this member has it |
//! | `POST /members` | 201: `{"peerURLs":[…], "name":"…", "isLearner":true}` makes a member, a voter unless it says so |
//! | `PUT /members/{id}` | 200: `{"peerURLs":[…]}` |
//! | `DELETE /members/{id}` | 204 |
//! | `POST /members/{id}/promote` | 200 |
//! | `GET /status` | 200, JSON |
//!
//! Every answer about members names the cluster (`X-Etcd-Cluster-ID`), as on the peer port.
//!
//! Every member takes every request. A refusal says why in one line: 400, 404, 409, 413, or 507 (no space). It is 503
//! with `Retry-After` only if nothing was proposed. It is 504 `outcome unknown` if something was proposed, because that
//! may still be committed, now or later. Nothing is proposed twice.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    http::{HeaderMap, StatusCode, header},
    middleware::map_response_with_state,
    response::{IntoResponse, Response},
    routing::{get, post, put},
};
use bytes::Bytes;
use http_body_util::BodyExt as _;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    time::{Instant, timeout, timeout_at},
};

use super::{
    config::Config,
    members::{ConfRefusal, MemberRecord},
    proposals::{Payload, Proposal, ProposalOutcome, ProposeError},
    ready::CLEARED_AT_PER_CENT,
    request::{Command, MAX_KEY_BYTES, Request, RequestIds},
    status::NodeState,
    storage::StoreReader,
    task::Input,
};
use crate::{id::DirectoryId, telemetry::Repeats, transport::Transport, wire::raftpb::ConfChangeType, world::World};

mod keys;
mod membership;

/// The most requests under way. A request beyond them is refused, and was not proposed.
const REQUESTS: usize = 4096;
/// The most bytes of values that are being written. A request beyond them is refused, too.
const VALUE_BYTES: usize = 64 << 20;
/// The unit in which values are counted, in bytes.
const PERMIT_BYTES: usize = 1 << 10;
/// How long a request's body may take.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// The time and the amount within which a body that is too large is read and discarded, before the request is refused.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(1);
const DISCARD_BYTES: usize = 16 << 20;
/// The longest body that is not a value, in bytes.
const JSON_BYTES: usize = 64 << 10;

/// The routes of a client URL.
pub(super) fn router(client: ClientHandler) -> Router {
    let members = Router::new()
        .route("/members", get(membership::list).post(membership::add))
        .route("/members/{id}", put(membership::update).delete(membership::remove))
        .route("/members/{id}/promote", post(membership::promote))
        .layer(map_response_with_state(client.clone(), membership::with_cluster));
    Router::new()
        .route("/kv/{key}", get(keys::read).put(keys::write).delete(keys::delete))
        .merge(members)
        .route("/status", get(membership::status))
        .fallback(|| async { ClientRefusal::NotFound("404 page not found") })
        .with_state(client)
}

/// Passes clients' requests to raft.
#[derive(Clone)]
pub(super) struct ClientHandler {
    ids: RequestIds,
    reader: StoreReader,
    shared: Arc<NodeState>,
    inbox: mpsc::Sender<Input>,
    requests: Arc<Semaphore>,
    values: Arc<Semaphore>,
    /// How long a client waits (etcd's `ReqTimeout`: 5 s for the disk, and two elections).
    patience: Duration,
    max_value_bytes: usize,
    token: Arc<str>,
    strict: bool,
    transport: Transport,
    /// Values that could not be read.
    unreadable: Arc<Repeats>,
    world: World,
}

/// Why a request fails.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientRefusal {
    #[error("{0}")]
    Bad(String),
    #[error("{0}")]
    NotFound(&'static str),
    #[error("{0}")]
    Conflict(ConfRefusal),
    #[error("{0}")]
    TooLarge(String),
    #[error("the request's body did not come in time")]
    Slow,
    #[error("{0}, nothing was proposed")]
    Unavailable(&'static str),
    #[error("outcome unknown")]
    Unknown,
    #[error("the store cannot be read")]
    Store,
    #[error("{0}")]
    NoSpace(String),
}

impl IntoResponse for ClientRefusal {
    fn into_response(self) -> Response {
        let status = match self {
            Self::Bad(_) => StatusCode::BAD_REQUEST,
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::Conflict(_) => StatusCode::CONFLICT,
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Slow => StatusCode::REQUEST_TIMEOUT,
            Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Unknown => StatusCode::GATEWAY_TIMEOUT,
            Self::Store => StatusCode::INTERNAL_SERVER_ERROR,
            Self::NoSpace(_) => StatusCode::INSUFFICIENT_STORAGE,
        };
        let mut response = (status, format!("{self}\n")).into_response();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from_static("1"));
        }
        response
    }
}

impl From<ProposeError> for ClientRefusal {
    fn from(error: ProposeError) -> Self {
        match error {
            ProposeError::NoLeader => Self::Unavailable("there is no leader"),
            ProposeError::Busy => Self::Unavailable("too many requests are in progress"),
            ProposeError::Halted => Self::Unavailable("this member takes no part any more"),
            ProposeError::Suspended => Self::Unavailable("this member's disk cannot be written"),
            ProposeError::Unknown => Self::Unknown,
        }
    }
}

impl From<ConfRefusal> for ClientRefusal {
    fn from(refusal: ConfRefusal) -> Self {
        match refusal {
            ConfRefusal::Pending => Self::Unavailable("another change of the membership is in progress"),
            ConfRefusal::Unhealthy => Self::Unavailable(
                "etcdserver: unhealthy cluster: of the voters after this change, no quorum has been connected for 5 s",
            ),
            ConfRefusal::Malformed => Self::Bad(refusal.to_string()),
            ConfRefusal::NotFound | ConfRefusal::Removed => Self::NotFound("no such member"),
            ConfRefusal::Exists
            | ConfRefusal::UrlTaken
            | ConfRefusal::NotLearner
            | ConfRefusal::NotReady
            | ConfRefusal::LastVoter
            | ConfRefusal::TooMany
            | ConfRefusal::NotStarted
            | ConfRefusal::Raft => Self::Conflict(refusal),
        }
    }
}

impl ClientHandler {
    pub(super) fn new(
        config: &Config,
        ids: RequestIds,
        reader: StoreReader,
        shared: Arc<NodeState>,
        inbox: mpsc::Sender<Input>,
        transport: Transport,
    ) -> Self {
        Self {
            ids,
            reader,
            shared,
            inbox,
            requests: Arc::new(Semaphore::new(REQUESTS)),
            values: Arc::new(Semaphore::new(VALUE_BYTES / PERMIT_BYTES)),
            patience: Duration::from_secs(5) + 2 * config.election_timeout,
            max_value_bytes: config.max_request_bytes,
            token: config.initial_cluster_token.as_str().into(),
            strict: config.strict_reconfig_check,
            transport,
            unreadable: Arc::default(),
            world: config.world.clone(),
        }
    }

    /// Reserves a place for one more request.
    fn admit(&self) -> Result<OwnedSemaphorePermit, ClientRefusal> {
        let permit = self.requests.clone().try_acquire_owned();
        permit.map_err(|_| ClientRefusal::Unavailable("too many requests are in progress"))
    }

    /// Checks that puts are accepted, which means that no member's data exceed its quota.
    fn has_space(&self) -> Result<(), ClientRefusal> {
        let membership = self.shared.membership.load();
        let Some((member, quota)) = membership.over_quota().first_key_value() else { return Ok(()) };
        let bytes = self.shared.status().data_bytes;
        let most = u128::from(*quota) * u128::from(CLEARED_AT_PER_CENT) / 100;
        Err(ClientRefusal::NoSpace(format!(
            "no space: the data have {bytes} bytes, and member {member} has a quota of {quota} (--quota-backend-bytes): \
             puts are refused until there are {most} at most, deletes are taken"
        )))
    }

    /// Proposes once, and waits for the outcome.
    async fn propose(&self, payload: Payload) -> Result<ProposalOutcome, ClientRefusal> {
        let deadline = Instant::now() + self.patience;
        let (reply, answer) = oneshot::channel();
        let place = timeout_at(deadline, self.inbox.reserve()).await;
        let place = place.map_err(|_| ClientRefusal::Unavailable("too many requests are in progress"))?;
        let place = place.map_err(|_| ClientRefusal::Unavailable("this member has stopped"))?;
        place.send(Input::Propose(Proposal { payload, reply }));
        match timeout_at(deadline, answer).await {
            Ok(Ok(outcome)) => Ok(outcome?),
            // The raft task is gone or too slow, so it is unknown how far the proposal got.
            Ok(Err(_)) | Err(_) => Err(ClientRefusal::Unknown),
        }
    }

    async fn command(&self, command: Command) -> Result<ProposalOutcome, ClientRefusal> {
        let request = Request { id: self.ids.next(), command };
        self.propose(Payload::Request(request.id, request.encode())).await
    }

    /// Waits until this member has applied everything that was committed when this was called.
    async fn catch_up(&self) -> Result<(), ClientRefusal> {
        let (waiter, answer) = oneshot::channel();
        let asked = async {
            self.inbox.send(Input::Read(waiter)).await.ok()?;
            answer.await.ok()
        };
        let answered = timeout(self.patience, asked).await;
        answered.ok().flatten().ok_or(ClientRefusal::Unavailable("no leader confirmed the read"))
    }

    /// Tells the cluster this member's name, client URLs and data directory, unless it knows them. Returns whether it
    /// knew them already.
    pub(super) async fn publish(&self, name: &str, client_urls: &[String], directory: DirectoryId) -> bool {
        let id = self.shared.status().id;
        let known = self.shared.membership.load();
        // A member that has not applied its own addition yet would only be refused as unknown.
        let Some(member) = known.get(id) else { return false };
        if member.name == name && member.client_urls == client_urls && known.directory(id) == Some(directory) {
            return true;
        }
        let record = MemberRecord {
            name: name.to_owned(),
            client_urls: client_urls.to_vec(),
            directory: Some(directory.to_string()),
            ..MemberRecord::from(member)
        };
        matches!(self.command(Command::Attributes { member: record.to_json() }).await, Ok(ProposalOutcome::Membership))
    }

    /// Asks for a vote for this member, unless it has one. Returns whether it has one. The leader grants it once the
    /// member has caught up.
    pub(super) async fn promoted(&self) -> bool {
        let id = self.shared.status().id;
        let known = self.shared.membership.load();
        let Some(member) = known.get(id) else { return false };
        let record = MemberRecord { id: id.0, is_promote: true, ..MemberRecord::default() };
        // If this is refused or its outcome is unknown, the entries that are applied here will show the result.
        let asked = member.is_learner && self.change(ConfChangeType::ConfChangeAddNode, &record).await.is_ok();
        asked || !member.is_learner
    }

    /// Reads a body of at most `limit` bytes, and holds room for it until it is no longer needed.
    async fn body(
        &self,
        headers: &HeaderMap,
        body: Body,
        limit: usize,
    ) -> Result<(Bytes, OwnedSemaphorePermit), ClientRefusal> {
        let too_large = || ClientRefusal::TooLarge(format!("the body is larger than {limit} bytes"));
        let told = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        let length: usize = told.unwrap_or(limit);
        if length > limit {
            // A client that is still writing when the connection closes may not be able to read the answer.
            let _ = timeout(DISCARD_TIMEOUT, discard(body)).await;
            return Err(too_large());
        }
        let permits = u32::try_from(length / PERMIT_BYTES + 1).unwrap_or(u32::MAX);
        let permit = self.values.clone().try_acquire_many_owned(permits);
        let permit = permit.map_err(|_| ClientRefusal::Unavailable("too many bytes are in progress"))?;
        match timeout(BODY_TIMEOUT, axum::body::to_bytes(body, limit)).await {
            Ok(Ok(bytes)) => Ok((bytes, permit)),
            Ok(Err(error)) if is_too_long(&error) => Err(too_large()),
            Ok(Err(error)) => Err(ClientRefusal::Bad(format!("the body cannot be read: {error}"))),
            Err(_) => Err(ClientRefusal::Slow),
        }
    }
}

async fn discard(mut body: Body) {
    let mut left = DISCARD_BYTES;
    while let Some(Ok(frame)) = body.frame().await {
        let length = frame.data_ref().map_or(0, Bytes::len);
        match left.checked_sub(length) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}

fn is_too_long(error: &axum::Error) -> bool {
    std::error::Error::source(error).is_some_and(|source| source.is::<http_body_util::LengthLimitError>())
}

/// Checks that clients may use a key.
fn checked_key(key: String) -> Result<Bytes, ClientRefusal> {
    if key.len() > MAX_KEY_BYTES {
        return Err(ClientRefusal::TooLarge(format!("the key is larger than {MAX_KEY_BYTES} bytes")));
    }
    Ok(key.into())
}
