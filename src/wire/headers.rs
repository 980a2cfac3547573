//! The words of the protocol: paths, header names, content types, and the text of each refusal.

use http::{HeaderMap, HeaderName};

use crate::id::{Incarnation, IncarnationError, MemberId};

/// W3C trace context; on requests that are traced. etcd ignores it.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// Name of the stream that is asked for, a random `u64` in hexadecimal; on stream requests. Ours: etcd ignores it.
pub const X_RAFTHTTP_STREAM: HeaderName = HeaderName::from_static("x-rafthttp-stream");
/// Bytes of a snapshot without its envelope, where known; on snapshot requests. Ours: etcd ignores it.
pub const X_RAFTHTTP_LENGTH: HeaderName = HeaderName::from_static("x-rafthttp-length");
/// That this member resumes snapshots; on answers to stream requests of ours. This and the next three:
/// [`resumption`](super::resumption).
pub const X_RAFTHTTP_RESUMES: HeaderName = HeaderName::from_static("x-rafthttp-resumes");
/// What a snapshot is known by; on snapshot requests to who resumes them.
pub const X_RAFTHTTP_SNAPSHOT: HeaderName = HeaderName::from_static("x-rafthttp-snapshot");
/// The xxh3-128 of a snapshot's bytes without its envelope; on the same.
pub const X_RAFTHTTP_CHECKSUM: HeaderName = HeaderName::from_static("x-rafthttp-checksum");
/// How many bytes of a snapshot come before those of the body; on the same. On their answers: how many are there.
pub const X_RAFTHTTP_OFFSET: HeaderName = HeaderName::from_static("x-rafthttp-offset");
/// The start of the local member, as [`Incarnation`] prints; on every request, and on every answer under
/// [`RAFT`]. Ours: etcd ignores it.
pub const X_RAFTHTTP_INCARNATION: HeaderName = HeaderName::from_static("x-rafthttp-incarnation");
/// IDs, joined with `,`, of the members of which a start is known; on answers to `GET /members`. Ours: etcd ignores it.
pub const X_RAFTHTTP_MET: HeaderName = HeaderName::from_static("x-rafthttp-met");
/// ID of the local member; on every request.
pub const X_SERVER_FROM: HeaderName = HeaderName::from_static("x-server-from");
/// Version of the local server; on every request, and on every answer under [`RAFT_STREAM`].
pub const X_SERVER_VERSION: HeaderName = HeaderName::from_static("x-server-version");
/// Oldest cluster that the local server joins; on every request.
pub const X_MIN_CLUSTER_VERSION: HeaderName = HeaderName::from_static("x-min-cluster-version");
/// ID of the cluster; on every request and every answer but a 405.
pub const X_ETCD_CLUSTER_ID: HeaderName = HeaderName::from_static("x-etcd-cluster-id");
/// ID of the member that is dialled; on stream requests.
pub const X_RAFT_TO: HeaderName = HeaderName::from_static("x-raft-to");
/// Peer URLs of the local member joined with `,`; on every request, where known.
pub const X_PEER_URLS: HeaderName = HeaderName::from_static("x-peerurls");

/// One message by `POST` (etcd's `RaftPrefix`).
pub const RAFT: &str = "/raft";
/// Probes (etcd's `ProbingPrefix`).
pub const RAFT_PROBING: &str = "/raft/probing";
/// One snapshot by `POST` (etcd's `RaftSnapshotPrefix`).
pub const RAFT_SNAPSHOT: &str = "/raft/snapshot";
/// What both kinds of streams begin with (etcd's `RaftStreamPrefix`).
pub const RAFT_STREAM: &str = "/raft/stream";
/// Versions of server and cluster.
pub const VERSION: &str = "/version";
/// Members of the cluster.
pub const MEMBERS: &str = "/members";

/// Content type of `POST /raft`.
pub const APPLICATION_PROTOBUF: &str = "application/protobuf";
/// Content type of `POST /raft/snapshot`.
pub const APPLICATION_OCTET_STREAM: &str = "application/octet-stream";
/// Content type of `/version` and `/members`.
pub const APPLICATION_JSON: &str = "application/json";
/// Content type of `/raft/probing` and of every refusal.
pub const TEXT_PLAIN: &str = "text/plain; charset=utf-8";

/// 405: another method than the path takes.
pub const METHOD_NOT_ALLOWED: &str = "Method Not Allowed";
/// 404: no such path.
pub const PAGE_NOT_FOUND: &str = "404 page not found";
/// 412: the versions of the two servers do not go together.
pub const INCOMPATIBLE_VERSION: &str = "incompatible version";
/// 412: the sender is a member of another cluster.
pub const CLUSTER_ID_MISMATCH: &str = "cluster ID mismatch";
/// 412: the dialler thinks that another member answers here.
pub const TO_FIELD_MISMATCH: &str = "to field mismatch";
/// 404: no such kind of stream, or a slash after the ID.
pub const INVALID_PATH: &str = "invalid path";
/// 404: the ID of the asker does not parse.
pub const INVALID_FROM: &str = "invalid from";
/// 410: the asker has been removed from the cluster.
pub const REMOVED_MEMBER: &str = "removed member";
/// 404: the asker is not known (yet).
pub const SENDER_NOT_FOUND: &str = "error sender not found";
/// 409: the asker is not the member that was met under its ID; why follows after a colon. Ours: etcd has no such check.
pub const INCARNATION_REFUSED: &str = "incarnation refused";
/// 503: the asker is a start of the member that was not met yet, by a dial of ours. Ours.
pub const INCARNATION_NOT_MET: &str = "incarnation not met yet";
/// 400: what the asker tells as its incarnation is none. Ours.
pub const INVALID_INCARNATION: &str = "invalid incarnation";
/// 400: the body of `POST /raft` could not be read.
pub const READING_MESSAGE: &str = "error reading raft message";
/// 400: the body of `POST /raft` is no message.
pub const UNMARSHALLING_MESSAGE: &str = "error unmarshalling raft message";
/// 500: the application did not take the message of `POST /raft`.
pub const PROCESSING_MESSAGE: &str = "error processing raft message";
/// 400: the envelope of a snapshot is not one; the error follows in parentheses.
pub const DECODING_ENVELOPE: &str = "failed to decode raft message";
/// 400: the envelope of a snapshot holds another message than a `MsgSnap`.
pub const WRONG_MESSAGE_TYPE: &str = "wrong raft message type";
/// 500: a snapshot could not be saved; the error follows in parentheses.
pub const SAVING_SNAPSHOT: &str = "failed to save KV snapshot";
/// 400: the headers that name a snapshot are not what they should be; the error follows in parentheses. Ours.
pub const INVALID_RESUMPTION: &str = "invalid snapshot headers";
/// 409: the receiver has another number of a snapshot's bytes than the sender takes for granted. Ours.
pub const OTHER_OFFSET: &str = "the body does not begin where the snapshot broke off";
/// 422: what was received of a snapshot is not what was sent; the error follows in parentheses. Ours.
pub const CHECKSUM_MISMATCH: &str = "snapshot checksum mismatch";
/// 500: the application did not take a snapshot; the error follows in parentheses.
pub const PROCESSING_SNAPSHOT: &str = "failed to process raft message";

/// The members of which the sender of a head knows a start, as far as it tells. What is no ID is passed over.
pub fn met(head: &HeaderMap) -> impl Iterator<Item = MemberId> {
    let told = head.get(X_RAFTHTTP_MET).and_then(|told| told.to_str().ok()).unwrap_or_default();
    told.split(',').filter_map(|id| id.parse().ok())
}

/// What a head tells as its sender's incarnation, if it does.
///
/// # Errors
/// When what it tells is none.
pub fn incarnation(head: &HeaderMap) -> Result<Option<Incarnation>, IncarnationError> {
    let Some(told) = head.get(X_RAFTHTTP_INCARNATION) else { return Ok(None) };
    told.to_str().map_err(|_| IncarnationError)?.parse().map(Some)
}
