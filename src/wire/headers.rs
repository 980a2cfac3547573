//! The vocabulary of the protocol: paths, header names, content types, and the text of each refusal.

use http::{HeaderMap, HeaderName};

use crate::id::{Incarnation, IncarnationError, MemberId};

/// W3C Trace Context, on requests that are traced. etcd ignores it.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// The ID of the requested stream, a random `u64` in hexadecimal, on stream requests. Not in etcd, which ignores it.
pub const X_RAFTHTTP_STREAM: HeaderName = HeaderName::from_static("x-rafthttp-stream");
/// The length of a snapshot without its envelope, in bytes, if known, on snapshot requests. Not in etcd, which ignores
/// it.
pub const X_RAFTHTTP_LENGTH: HeaderName = HeaderName::from_static("x-rafthttp-length");
/// Says that this member resumes snapshots, on answers to our stream requests. See `resumption` for
/// this and the next three headers.
pub const X_RAFTHTTP_RESUMES: HeaderName = HeaderName::from_static("x-rafthttp-resumes");
/// The name of a snapshot, on snapshot requests to a member that resumes them.
pub const X_RAFTHTTP_SNAPSHOT: HeaderName = HeaderName::from_static("x-rafthttp-snapshot");
/// The xxh3-128 of a snapshot's bytes without its envelope, on the same requests.
pub const X_RAFTHTTP_CHECKSUM: HeaderName = HeaderName::from_static("x-rafthttp-checksum");
/// How many bytes of a snapshot come before those of the body, on the same requests. On their answers: how many bytes the
/// receiver has.
pub const X_RAFTHTTP_OFFSET: HeaderName = HeaderName::from_static("x-rafthttp-offset");
/// The incarnation of the local member, as [`Incarnation`] prints, on every request, and on every answer under
/// [`RAFT`]. Not in etcd, which ignores it.
pub const X_RAFTHTTP_INCARNATION: HeaderName = HeaderName::from_static("x-rafthttp-incarnation");
/// The IDs, joined with `,`, of the members that a start is known of, on answers to `GET /members`. Not in etcd, which
/// ignores it.
pub const X_RAFTHTTP_MET: HeaderName = HeaderName::from_static("x-rafthttp-met");
/// The ID of the local member, on every request.
pub const X_SERVER_FROM: HeaderName = HeaderName::from_static("x-server-from");
/// The version of the local server, on every request, and on every answer under [`RAFT_STREAM`].
pub const X_SERVER_VERSION: HeaderName = HeaderName::from_static("x-server-version");
/// The oldest cluster version that the local server joins, on every request.
pub const X_MIN_CLUSTER_VERSION: HeaderName = HeaderName::from_static("x-min-cluster-version");
/// The ID of the cluster, on every request and every answer except a 405.
pub const X_ETCD_CLUSTER_ID: HeaderName = HeaderName::from_static("x-etcd-cluster-id");
/// The ID of the dialled member, on stream requests.
pub const X_RAFT_TO: HeaderName = HeaderName::from_static("x-raft-to");
/// The peer URLs of the local member, joined with `,`, on every request, if known.
pub const X_PEER_URLS: HeaderName = HeaderName::from_static("x-peerurls");

/// The path for one message by `POST` (etcd's `RaftPrefix`).
pub const RAFT: &str = "/raft";
/// The path of probes (etcd's `ProbingPrefix`).
pub const RAFT_PROBING: &str = "/raft/probing";
/// The path for one snapshot by `POST` (etcd's `RaftSnapshotPrefix`).
pub const RAFT_SNAPSHOT: &str = "/raft/snapshot";
/// The prefix of both kinds of streams (etcd's `RaftStreamPrefix`).
pub const RAFT_STREAM: &str = "/raft/stream";
/// The path of the versions of server and cluster.
pub const VERSION: &str = "/version";
/// The path of the members of the cluster.
pub const MEMBERS: &str = "/members";

/// Content type of `POST /raft`.
pub const APPLICATION_PROTOBUF: &str = "application/protobuf";
/// Content type of `POST /raft/snapshot`.
pub const APPLICATION_OCTET_STREAM: &str = "application/octet-stream";
/// Content type of `/version` and `/members`.
pub const APPLICATION_JSON: &str = "application/json";
/// Content type of `/raft/probing` and of every refusal.
pub const TEXT_PLAIN: &str = "text/plain; charset=utf-8";

/// 405: the path does not take this method.
pub const METHOD_NOT_ALLOWED: &str = "Method Not Allowed";
/// 404: no such path.
pub const PAGE_NOT_FOUND: &str = "404 page not found";
/// 412: the versions of the two servers are not compatible.
pub const INCOMPATIBLE_VERSION: &str = "incompatible version";
/// 412: the sender is a member of another cluster.
pub const CLUSTER_ID_MISMATCH: &str = "cluster ID mismatch";
/// 412: the client believes that another member answers here.
pub const TO_FIELD_MISMATCH: &str = "to field mismatch";
/// 404: no such kind of stream, or a slash after the ID.
pub const INVALID_PATH: &str = "invalid path";
/// 404: the sender's ID does not parse.
pub const INVALID_FROM: &str = "invalid from";
/// 410: the sender has been removed from the cluster.
pub const REMOVED_MEMBER: &str = "removed member";
/// 404: the sender is not known (yet).
pub const SENDER_NOT_FOUND: &str = "error sender not found";
/// 409: the sender is not the member that was met under its ID. The reason follows after a colon. Not in etcd, which
/// has no such check.
pub const INCARNATION_REFUSED: &str = "incarnation refused";
/// 503: the sender is a start of the member that none of our dials has met yet. Not in etcd.
pub const INCARNATION_NOT_MET: &str = "incarnation not met yet";
/// 400: the sender's incarnation cannot be parsed. Not in etcd.
pub const INVALID_INCARNATION: &str = "invalid incarnation";
/// 400: the body of `POST /raft` could not be read.
pub const READING_MESSAGE: &str = "error reading raft message";
/// 400: the body of `POST /raft` is no message.
pub const UNMARSHALLING_MESSAGE: &str = "error unmarshalling raft message";
/// 500: the application did not take the message of `POST /raft`.
pub const PROCESSING_MESSAGE: &str = "error processing raft message";
/// 400: the envelope of a snapshot cannot be decoded. The error follows in parentheses.
pub const DECODING_ENVELOPE: &str = "failed to decode raft message";
/// 400: the envelope of a snapshot holds a message that is no `MsgSnap`.
pub const WRONG_MESSAGE_TYPE: &str = "wrong raft message type";
/// 500: a snapshot could not be saved. The error follows in parentheses.
pub const SAVING_SNAPSHOT: &str = "failed to save KV snapshot";
/// 400: the headers that name a snapshot are invalid. The error follows in parentheses. Not in etcd.
pub const INVALID_RESUMPTION: &str = "invalid snapshot headers";
/// 409: the receiver has another number of a snapshot's bytes than the sender assumes. Not in etcd.
pub const OTHER_OFFSET: &str = "the body does not begin where the snapshot broke off";
/// 422: the received bytes of a snapshot differ from those that were sent. The error follows in parentheses. Not in etcd.
pub const CHECKSUM_MISMATCH: &str = "snapshot checksum mismatch";
/// 500: the application did not take a snapshot. The error follows in parentheses.
pub const PROCESSING_SNAPSHOT: &str = "failed to process raft message";

/// The members that the sender of a head knows a start of, as far as it says. Texts that are no ID are ignored.
pub fn met(head: &HeaderMap) -> impl Iterator<Item = MemberId> {
    let told = head.get(X_RAFTHTTP_MET).and_then(|told| told.to_str().ok()).unwrap_or_default();
    told.split(',').filter_map(|id| id.parse().ok())
}

/// The incarnation of a head's sender, if the head has one.
///
/// # Errors
/// The incarnation cannot be parsed.
pub fn incarnation(head: &HeaderMap) -> Result<Option<Incarnation>, IncarnationError> {
    let Some(told) = head.get(X_RAFTHTTP_INCARNATION) else { return Ok(None) };
    told.to_str().map_err(|_| IncarnationError)?.parse().map(Some)
}
