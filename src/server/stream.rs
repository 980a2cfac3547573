//! `GET /raft/stream/{kind}/{from}`: the client wants to hear this member, and the writer is the body of the answer
//! (etcd's `streamHandler`).

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{Request, State},
    http::Method,
    response::Response,
};

use crate::{
    dial::io::IoStatus,
    id::{Incarnation, MemberId},
    server::{
        Endpoint,
        binding::RequestKind,
        connections::AcceptedConnection,
        guard::{self, RequestRefusal, Requester},
        path,
    },
    telemetry::Origin,
    transport::{
        Transport,
        sender::{Sender, SenderKind},
    },
    wire::{
        headers::{
            RAFT_STREAM, X_RAFT_TO, X_RAFTHTTP_INCARNATION, X_RAFTHTTP_RESUMES, X_RAFTHTTP_STREAM, X_SERVER_VERSION,
        },
        resumption::RESUMES,
        stream::{StreamId, StreamKind},
    },
};

/// Every answer has our version: etcd reads it before the status, and takes a missing one for 2.0.0.
pub(super) async fn answer(State(endpoint): State<Endpoint>, request: Request) -> Response {
    let transport = &endpoint.transport;
    let mut response = match path::redirect(&request) {
        Some(response) => response,
        None => {
            let (requester, asked, is_for_us) =
                (Requester::of(&request), read(transport, &request), is_for_us(transport, &request));
            // The request is dropped before the wait, because its body may be of any size.
            drop(request);
            let mut answer = guard::answer(transport, &requester, open(transport, asked).await);
            if !is_for_us {
                // A client that dialled another member must not take our incarnation for that member's.
                answer.headers_mut().remove(X_RAFTHTTP_INCARNATION);
            }
            answer
        }
    };
    response.headers_mut().insert(X_SERVER_VERSION, guard::printed(transport.identity().server_version));
    response
}

/// The stream that a member asks for.
struct StreamRequest {
    kind: StreamKind,
    sender: Sender,
    incarnation: Option<Incarnation>,
    id: Option<StreamId>,
    connection: Option<Arc<IoStatus>>,
    origin: Origin,
}

async fn open(transport: &Transport, asked: Result<StreamRequest, RequestRefusal>) -> Result<Response, RequestRefusal> {
    let StreamRequest { kind, sender, incarnation, id, connection, origin } = asked?;
    let is_ours = id.is_some();
    transport.may_listen(&sender, incarnation).await?;
    // There is no body if the transport stopped, or if the peer was removed since the check.
    let body = transport.open_stream(kind, &sender, id, connection, &origin);
    let mut response = Response::new(Body::new(body.ok_or(RequestRefusal::Stopped)?));
    // The answer to a member of etcd has no header that etcd does not send.
    if is_ours && transport.resumes_snapshots() {
        response.headers_mut().insert(X_RAFTHTTP_RESUMES, RESUMES);
    }
    Ok(response)
}

fn read(transport: &Transport, request: &Request) -> Result<StreamRequest, RequestRefusal> {
    let named = guard::check(transport, request, &Method::GET, RequestKind::Stream)?;
    let (kind, from) = parse(request.uri().path())?;
    if named != Some(from) {
        guard::bind(transport, request, Some(from), RequestKind::Stream)?;
    }
    if transport.raft().is_removed(from) {
        return Err(RequestRefusal::RemovedMember);
    }
    let sender = transport.admit(Some(from), guard::told(request));
    if sender.kind() != SenderKind::Peer {
        return Err(RequestRefusal::SenderNotFound);
    }
    if !is_for_us(transport, request) {
        return Err(RequestRefusal::ToFieldMismatch);
    }
    let id = guard::text(request.headers(), &X_RAFTHTTP_STREAM).and_then(|id| id.parse().ok());
    Ok(StreamRequest {
        kind,
        sender,
        incarnation: guard::incarnation(request)?,
        id,
        connection: AcceptedConnection::status(request.extensions()),
        origin: guard::origin(request),
    })
}

fn is_for_us(transport: &Transport, request: &Request) -> bool {
    let to = guard::text(request.headers(), &X_RAFT_TO).unwrap_or_default();
    to == transport.identity().member.to_string()
}

/// The kind and the sender, split as in etcd by `path.Dir` and `path.Base`.
fn parse(path: &str) -> Result<(StreamKind, MemberId), RequestRefusal> {
    let rest =
        path.strip_prefix(RAFT_STREAM).and_then(|rest| rest.strip_prefix('/')).ok_or(RequestRefusal::InvalidPath)?;
    let (kind, from) = rest.rsplit_once('/').ok_or(RequestRefusal::InvalidPath)?;
    let kind = StreamKind::from_segment(kind).ok_or(RequestRefusal::InvalidPath)?;
    Ok((kind, from.parse().map_err(|_| RequestRefusal::InvalidFrom)?))
}
