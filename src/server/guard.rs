//! The checks before a request is accepted, and the form of a refusal.

use std::net::SocketAddr;

use axum::{
    extract::Request,
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};

use crate::{
    dial::identity::Identity,
    id::{Impostor, Incarnation, MemberId},
    server::{
        binding::{self, RequestKind},
        connections::AcceptedConnection,
    },
    telemetry::{Origin, TraceContext},
    transport::{
        Transport,
        raft::Unheard,
        sender::{Sender, SenderClaim},
    },
    wire::{
        headers::{
            self, CHECKSUM_MISMATCH, CLUSTER_ID_MISMATCH, DECODING_ENVELOPE, INCARNATION_NOT_MET, INCARNATION_REFUSED,
            INCOMPATIBLE_VERSION, INVALID_FROM, INVALID_INCARNATION, INVALID_PATH, INVALID_RESUMPTION,
            METHOD_NOT_ALLOWED, OTHER_OFFSET, PAGE_NOT_FOUND, PROCESSING_MESSAGE, PROCESSING_SNAPSHOT, READING_MESSAGE,
            REMOVED_MEMBER, SAVING_SNAPSHOT, SENDER_NOT_FOUND, TEXT_PLAIN, TO_FIELD_MISMATCH, UNMARSHALLING_MESSAGE,
            WRONG_MESSAGE_TYPE, X_ETCD_CLUSTER_ID, X_MIN_CLUSTER_VERSION, X_PEER_URLS, X_RAFTHTTP_INCARNATION,
            X_RAFTHTTP_OFFSET, X_SERVER_FROM, X_SERVER_VERSION,
        },
        resumption::RestError,
        version::{MIN_CLUSTER, Version, compatible},
    },
};

/// A refused request. Status and text are etcd's, except where etcd has no limit or no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum RequestRefusal {
    #[error("{METHOD_NOT_ALLOWED}")]
    MethodNotAllowed { allow: &'static str },
    #[error("{PAGE_NOT_FOUND}")]
    PageNotFound,
    #[error("{INCOMPATIBLE_VERSION}")]
    IncompatibleVersion,
    #[error("{CLUSTER_ID_MISMATCH}")]
    ClusterIdMismatch,
    #[error("{INVALID_PATH}")]
    InvalidPath,
    #[error("{INVALID_FROM}")]
    InvalidFrom,
    #[error("{REMOVED_MEMBER}")]
    RemovedMember,
    #[error("{SENDER_NOT_FOUND}")]
    SenderNotFound,
    #[error("{TO_FIELD_MISMATCH}")]
    ToFieldMismatch,
    /// Not in etcd: the request's certificate is not for the member that it claims to be from.
    #[error("certificate is not the sender's")]
    NotItsCertificate,
    /// Not in etcd: the sender is not the member that was met under its ID.
    #[error("{INCARNATION_REFUSED}: {0}")]
    IncarnationRefused(Impostor),
    /// Not in etcd: the sender is a start of a member that none of our dials has met yet.
    #[error("{INCARNATION_NOT_MET}")]
    IncarnationNotMet,
    /// Not in etcd: the incarnation cannot be parsed.
    #[error("{INVALID_INCARNATION}")]
    InvalidIncarnation,
    /// Not in etcd: the transport is stopping.
    #[error("server stopped")]
    Stopped,
    #[error("{READING_MESSAGE}")]
    ReadingMessage,
    #[error("{UNMARSHALLING_MESSAGE}")]
    UnmarshallingMessage,
    /// Not in etcd, which reads a body of any length.
    #[error("raft message too large")]
    MessageTooLarge,
    /// Not in etcd, which holds any number of bodies.
    #[error("too many raft messages under way")]
    Busy,
    /// etcd answers 500, after which a member of ours would give the snapshot up.
    #[error("{SAVING_SNAPSHOT} ({0})")]
    BusyWithSnapshots(&'static str),
    #[error("{PROCESSING_MESSAGE}")]
    ProcessingMessage,
    #[error("{DECODING_ENVELOPE} ({0})")]
    DecodingEnvelope(String),
    #[error("{WRONG_MESSAGE_TYPE}")]
    WrongMessageType,
    #[error("{SAVING_SNAPSHOT} ({0})")]
    SavingSnapshot(String),
    #[error("{PROCESSING_SNAPSHOT} ({0})")]
    ProcessingSnapshot(String),
    /// Not in etcd: the headers that name a snapshot are invalid.
    #[error("{INVALID_RESUMPTION} ({0})")]
    InvalidResumption(RestError),
    /// Not in etcd: this many bytes of the snapshot are there.
    #[error("{OTHER_OFFSET}")]
    OtherOffset(u64),
    /// Not in etcd: the received bytes of a snapshot differ from those sent.
    #[error("{CHECKSUM_MISMATCH} ({0})")]
    ChecksumMismatch(String),
}

impl RequestRefusal {
    fn status(&self) -> StatusCode {
        match self {
            Self::MethodNotAllowed { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::PageNotFound | Self::InvalidPath | Self::InvalidFrom | Self::SenderNotFound => StatusCode::NOT_FOUND,
            Self::IncompatibleVersion | Self::ClusterIdMismatch | Self::ToFieldMismatch => {
                StatusCode::PRECONDITION_FAILED
            }
            Self::RemovedMember => StatusCode::GONE,
            Self::NotItsCertificate => StatusCode::FORBIDDEN,
            Self::IncarnationRefused(_) | Self::OtherOffset(_) => StatusCode::CONFLICT,
            Self::ChecksumMismatch(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Stopped | Self::Busy | Self::BusyWithSnapshots(_) | Self::IncarnationNotMet => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::MessageTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::ReadingMessage
            | Self::UnmarshallingMessage
            | Self::DecodingEnvelope(_)
            | Self::WrongMessageType
            | Self::InvalidIncarnation
            | Self::InvalidResumption(_) => StatusCode::BAD_REQUEST,
            Self::ProcessingMessage | Self::SavingSnapshot(_) | Self::ProcessingSnapshot(_) => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
        }
    }

    /// The name under which the log counts it.
    fn label(&self) -> &'static str {
        match self {
            Self::IncompatibleVersion => "incompatible_version",
            Self::ClusterIdMismatch => "cluster_id_mismatch",
            Self::RemovedMember => "removed",
            Self::SenderNotFound => "not_found",
            Self::ToFieldMismatch => "to_mismatch",
            Self::NotItsCertificate => "certificate",
            Self::IncarnationRefused(_) => "incarnation_refused",
            Self::IncarnationNotMet => "incarnation_not_met",
            Self::ReadingMessage
            | Self::UnmarshallingMessage
            | Self::DecodingEnvelope(_)
            | Self::WrongMessageType
            | Self::InvalidIncarnation
            | Self::InvalidResumption(_) => "unreadable",
            Self::MessageTooLarge => "too_large",
            Self::Busy | Self::BusyWithSnapshots(_) => "busy",
            Self::ProcessingMessage
            | Self::SavingSnapshot(_)
            | Self::ProcessingSnapshot(_)
            | Self::OtherOffset(_)
            | Self::ChecksumMismatch(_) => "not_taken",
            Self::MethodNotAllowed { .. }
            | Self::PageNotFound
            | Self::InvalidPath
            | Self::InvalidFrom
            | Self::Stopped => "other",
        }
    }

    /// Whether the connection is closed after the answer. etcd's `pipelineHandler` panics after a message that raft
    /// refused, which closes it.
    fn closes(&self) -> bool {
        matches!(self, Self::ProcessingMessage | Self::Stopped | Self::Busy | Self::MessageTooLarge)
    }
}

/// As Go's `http.Error`: the text, a newline, and two headers.
impl IntoResponse for RequestRefusal {
    fn into_response(self) -> Response {
        let mut response = (self.status(), format!("{self}\n")).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(TEXT_PLAIN));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        if let Self::MethodNotAllowed { allow } = self {
            headers.insert(header::ALLOW, HeaderValue::from_static(allow));
        }
        if let Self::OtherOffset(offset) = self {
            headers.insert(X_RAFTHTTP_OFFSET, offset.into());
        }
        if self.closes() {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

/// Runs the checks that every request of a member has to pass, in etcd's order: method, versions, cluster. Then checks
/// whether its certificate is the sender's.
///
/// Returns the sender, from `X-Server-From`. `None` if that is missing or no ID. If the sender is a configured peer,
/// the connection belongs to that peer from then on.
pub(super) fn check(
    transport: &Transport,
    request: &Request,
    allow: &'static Method,
    kind: RequestKind,
) -> Result<Option<MemberId>, RequestRefusal> {
    check_method(request, allow)?;
    let (identity, headers) = (transport.identity(), request.headers());
    check_versions(identity, headers)?;
    if !is_same_cluster(transport, headers) {
        return Err(RequestRefusal::ClusterIdMismatch);
    }
    bind(transport, request, server_from(request.headers()), kind)?;
    Ok(identify(transport, request))
}

/// Checks whether the certificate of a request may belong to the claimed sender.
pub(super) fn bind(
    transport: &Transport,
    request: &Request,
    from: Option<MemberId>,
    kind: RequestKind,
) -> Result<(), RequestRefusal> {
    let bound = binding::check(transport, request.extensions(), from, peer_urls(request.headers()), kind);
    bound.map_err(|_| RequestRefusal::NotItsCertificate)
}

/// As [`check`], for a request that brings something. The sender is recorded, and looked up once for everything that
/// the request brings. The caller still has to judge the incarnation that the request sends.
pub(super) fn admit(
    transport: &Transport,
    request: &Request,
    kind: RequestKind,
) -> Result<(Sender, Option<Incarnation>), RequestRefusal> {
    let from = check(transport, request, &Method::POST, kind)?;
    let incarnation = incarnation(request)?;
    Ok((transport.admit(from, told(request)), incarnation))
}

/// The incarnation that a request sends, if any.
pub(super) fn incarnation(request: &Request) -> Result<Option<Incarnation>, RequestRefusal> {
    headers::incarnation(request.headers()).map_err(|_| RequestRefusal::InvalidIncarnation)
}

impl From<Unheard> for RequestRefusal {
    fn from(unheard: Unheard) -> Self {
        match unheard {
            Unheard::Refused(why) => Self::IncarnationRefused(why),
            Unheard::NotMet => Self::IncarnationNotMet,
            Unheard::Failed(error) => {
                tracing::debug!(error, "cannot decide whether a member's start is heard");
                Self::Busy
            }
        }
    }
}

/// Whether the sender belongs to this cluster. The IDs are compared as text, as in etcd, so a padded ID does not match.
pub(super) fn is_same_cluster(transport: &Transport, headers: &HeaderMap) -> bool {
    text(headers, &X_ETCD_CLUSTER_ID).unwrap_or_default() == transport.identity().cluster.to_string()
}

/// The sender of a request of this cluster, from `X-Server-From`. If it is a peer, the connection belongs to that peer
/// from now on.
pub(super) fn identify(transport: &Transport, request: &Request) -> Option<MemberId> {
    let id = server_from(request.headers());
    if let Some(peer) = id.filter(|id| transport.is_peer(*id)) {
        AcceptedConnection::identify(request.extensions(), peer);
    }
    id
}

/// The origin of a request: its connection, and the span that it names.
pub(super) fn origin(request: &Request) -> Origin {
    Origin {
        address: AcceptedConnection::address(request.extensions()),
        span: TraceContext::of_request(request.headers()),
    }
}

/// The first check of every path except `/raft/probing`.
pub(super) fn check_method(request: &Request, allow: &'static Method) -> Result<(), RequestRefusal> {
    if request.method() == allow { Ok(()) } else { Err(RequestRefusal::MethodNotAllowed { allow: allow.as_str() }) }
}

fn check_versions(identity: &Identity, headers: &HeaderMap) -> Result<(), RequestRefusal> {
    let version = |name| Version::from_header(text(headers, name)).map_err(|_| RequestRefusal::IncompatibleVersion);
    let (server, min_cluster) = (version(&X_SERVER_VERSION)?, version(&X_MIN_CLUSTER_VERSION)?);
    compatible(identity.server_version, MIN_CLUSTER, server, min_cluster).map_err(|error| {
        tracing::debug!(%error, "the versions are not compatible");
        RequestRefusal::IncompatibleVersion
    })
}

/// The ID in `X-Server-From`, if it is present and valid.
pub(super) fn server_from(headers: &HeaderMap) -> Option<MemberId> {
    text(headers, &X_SERVER_FROM)?.parse().ok()
}

/// The text of `X-PeerURLs`, if it is present and not empty.
pub(super) fn peer_urls(headers: &HeaderMap) -> Option<&str> {
    text(headers, &X_PEER_URLS).filter(|urls| !urls.is_empty())
}

/// What a request says about its sender's URLs, and the address that it came from.
pub(super) fn told(request: &Request) -> SenderClaim<'_> {
    let extensions = request.extensions();
    SenderClaim {
        urls: peer_urls(request.headers()),
        address: AcceptedConnection::address(extensions).map(|address| address.ip()),
        authenticated: AcceptedConnection::certificate(extensions).is_some(),
    }
}

/// A header as text. Text that is not ASCII counts as empty. No value that we expect is empty or not ASCII, so no check
/// passes by it.
pub(super) fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).map(|value| value.to_str().unwrap_or_default())
}

/// The client of a request, as far as the request says.
pub(super) struct Requester {
    from: Option<MemberId>,
    address: Option<SocketAddr>,
}

impl Requester {
    pub(super) fn of(request: &Request) -> Self {
        Self { from: server_from(request.headers()), address: AcceptedConnection::address(request.extensions()) }
    }
}

/// Turns a result into an answer, and adds the cluster's ID, which all answers except a 405 have. Refusals are summed
/// up in the log.
pub(super) fn answer(
    transport: &Transport,
    requester: &Requester,
    result: Result<Response, RequestRefusal>,
) -> Response {
    let identity = transport.identity();
    if let Err(refusal) = &result {
        tracing::debug!(%refusal, "request refused");
        transport.refused(refusal.label(), requester.from, requester.address);
    }
    let before_checks = matches!(result, Err(RequestRefusal::MethodNotAllowed { .. }));
    let mut response = result.unwrap_or_else(IntoResponse::into_response);
    if !before_checks {
        response.headers_mut().insert(X_ETCD_CLUSTER_ID, printed(identity.cluster));
        tell_incarnation(transport, &mut response);
    }
    response
}

/// Adds this member's incarnation to an answer.
pub(super) fn tell_incarnation(transport: &Transport, response: &mut Response) {
    if let Some(own) = transport.incarnation() {
        response.headers_mut().insert(X_RAFTHTTP_INCARNATION, own.clone());
    }
}

/// A header value that holds IDs or a version.
pub(super) fn printed(value: impl std::fmt::Display) -> HeaderValue {
    HeaderValue::try_from(value.to_string()).expect("IDs and versions print as letters, digits, dots and commas")
}
