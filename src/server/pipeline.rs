//! `POST /raft`: one message, answered once the application has taken it (etcd's `pipelineHandler`).

use axum::{
    extract::{Request, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};

use crate::{
    ledger::Channel,
    server::{
        Endpoint,
        binding::RequestKind,
        body::{BodyReader, ReadError},
        guard::{self, RequestRefusal, Requester},
    },
    wire::message::decode_message,
};

pub(super) async fn answer(State(endpoint): State<Endpoint>, request: Request) -> Response {
    let requester = Requester::of(&request);
    let result = receive(&endpoint, request).await;
    guard::answer(&endpoint.transport, &requester, result)
}

async fn receive(endpoint: &Endpoint, request: Request) -> Result<Response, RequestRefusal> {
    let transport = &endpoint.transport;
    let (sender, told) = guard::admit(transport, &request, RequestKind::Pipeline)?;
    transport.may_speak(&sender, told).await?;
    let origin = guard::origin(&request);
    let limits = transport.limits();
    let mut share = endpoint.budget.share(sender.kind());
    let unreadable = |kind, refusal| {
        transport.undecodable(&sender, Channel::Pipeline, kind);
        refusal
    };
    let body = BodyReader::new(request.into_body()).whole(limits.message_bytes, &mut share).await;
    let body = body.map_err(|error| unreadable(error.label(), refusal_of(&error)))?;
    let bytes = body.len() as u64;
    let message = decode_message(body, &limits.frames())
        .map_err(|error| unreadable(error.kind.label(), RequestRefusal::UnmarshallingMessage))?;
    share.take_decoded(&message).map_err(|error| unreadable(error.label(), refusal_of(&error)))?;
    transport.receive(&sender, message, bytes, origin).await.map_err(|_| RequestRefusal::ProcessingMessage)?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

fn refusal_of(error: &ReadError) -> RequestRefusal {
    match error {
        ReadError::TooLarge => RequestRefusal::MessageTooLarge,
        ReadError::Busy => RequestRefusal::Busy,
        ReadError::Broken(_)
        | ReadError::Stalled
        | ReadError::Slow
        | ReadError::BehindDeadline(_)
        | ReadError::Truncated => RequestRefusal::ReadingMessage,
    }
}
