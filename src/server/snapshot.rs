//! `POST /raft/snapshot`: an envelope, then the data to the end of the body. It is answered once the data are saved and
//! the application has taken the message (etcd's `snapshotHandler`).

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use axum::{
    extract::{Request, State},
    http::{HeaderValue, StatusCode},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use http_body::Body as _;

use crate::{
    ledger::Channel,
    server::{
        Endpoint,
        binding::RequestKind,
        body::{BodyReader, ReadError, Share},
        guard::{self, RequestRefusal, Requester},
    },
    transport::{intake::ArrivingSnapshot, sender::SenderKind, snapshot::receiver::ReceiveError},
    wire::{
        FrameError, FrameLimits,
        headers::{X_RAFTHTTP_LENGTH, X_RAFTHTTP_OFFSET},
        message::{Item, MessageDecoder},
        raftpb::{Message, MessageType},
        resumption::Rest,
    },
};

pub(super) async fn answer(State(endpoint): State<Endpoint>, request: Request) -> Response {
    let requester = Requester::of(&request);
    let result = receive(&endpoint, request).await;
    guard::answer(&endpoint.transport, &requester, result)
}

async fn receive(endpoint: &Endpoint, request: Request) -> Result<Response, RequestRefusal> {
    let transport = &endpoint.transport;
    let (sender, told) = guard::admit(transport, &request, RequestKind::Snapshot)?;
    transport.may_speak(&sender, told).await?;
    let origin = guard::origin(&request);
    // It is only a hint for the progress: a sender with a wrong one falsifies only its own.
    let length = guard::text(request.headers(), &X_RAFTHTTP_LENGTH).and_then(|length| length.parse().ok());
    let rest = Rest::from_headers(request.headers()).map_err(RequestRefusal::InvalidResumption)?;
    if let Some(rest) = rest
        && request.body().is_end_stream()
    {
        if sender.kind() != SenderKind::Peer {
            return Err(RequestRefusal::SenderNotFound);
        }
        let there = transport.has_of_snapshot(&sender, &rest.of).await?;
        return Ok((StatusCode::NO_CONTENT, [(X_RAFTHTTP_OFFSET, HeaderValue::from(there))]).into_response());
    }
    let mut share = endpoint.budget.share(sender.kind());
    let limits = transport.limits();
    let reader = BodyReader::of_snapshot(request.into_body(), limits.snapshot_rate);
    let mut data = SnapshotData { rest: Bytes::new(), reader };
    let limits = FrameLimits { message_bytes: limits.snapshot_envelope_bytes, ..limits.frames() };
    let unreadable = |kind, refusal| {
        transport.undecodable(&sender, Channel::Snapshot, kind);
        refusal
    };
    let envelope = data.envelope(limits, &mut share).await;
    let (message, envelope_bytes) = envelope.map_err(|error| unreadable(error.label(), refusal_of(&error)))?;
    let Some(message) = message.filter(|message| message.r#type == MessageType::MsgSnap as i32) else {
        return Err(unreadable(NOT_A_SNAPSHOT, RequestRefusal::WrongMessageType));
    };
    if message.snapshot.is_none() {
        // etcd 3.6 and 3.7 panic here, and a panic sends no answer.
        let why = "a MsgSnap without a snapshot".to_owned();
        return Err(unreadable(NOT_A_SNAPSHOT, RequestRefusal::DecodingEnvelope(why)));
    }
    let arrival =
        ArrivingSnapshot { message, envelope_bytes, body: data.boxed(), length, rest, origin, paid: Box::new(share) };
    transport.receive_snapshot(&sender, arrival).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

impl From<ReceiveError> for RequestRefusal {
    fn from(error: ReceiveError) -> Self {
        match error {
            ReceiveError::Process(why) => Self::ProcessingSnapshot(why),
            ReceiveError::OtherOffset(there) => Self::OtherOffset(there),
            ReceiveError::Checksum(why) => Self::ChecksumMismatch(why),
            ReceiveError::Busy(why) => Self::BusyWithSnapshots(why),
            ReceiveError::Stopped => Self::Stopped,
            ReceiveError::Save(_) | ReceiveError::BrokeOff { .. } => Self::SavingSnapshot(error.to_string()),
        }
    }
}

/// The label `kind` of an envelope whose message is no snapshot.
const NOT_A_SNAPSHOT: &str = "not_a_snapshot";

fn refusal_of(error: &EnvelopeError) -> RequestRefusal {
    match error {
        EnvelopeError::Read(ReadError::Busy) => RequestRefusal::Busy,
        error => RequestRefusal::DecodingEnvelope(error.to_string()),
    }
}

/// Why an envelope could not be read.
#[derive(Debug, thiserror::Error)]
enum EnvelopeError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Frame(#[from] FrameError),
}

impl EnvelopeError {
    fn label(&self) -> &'static str {
        match self {
            Self::Read(error) => error.label(),
            Self::Frame(error) => error.kind.label(),
        }
    }
}

/// The body of a snapshot: the bytes that were read after the envelope, then those that are still to come.
struct SnapshotData {
    rest: Bytes,
    reader: BodyReader,
}

impl SnapshotData {
    /// Reads the envelope, and returns its message and its bytes. There is no message for a link heartbeat, which is no
    /// snapshot either.
    async fn envelope(
        &mut self,
        limits: FrameLimits,
        share: &mut Share,
    ) -> Result<(Option<Message>, u64), EnvelopeError> {
        let mut decoder = MessageDecoder::new(limits);
        let mut read = 0;
        loop {
            let Some(piece) = self.reader.next().await.transpose()? else {
                decoder.finish()?;
                return Err(ReadError::Truncated.into());
            };
            share.take(piece.len())?;
            read += piece.len() as u64;
            self.rest = piece;
            if let Some(item) = decoder.next(&mut self.rest)? {
                let message = match item {
                    Item::Message(message) => Some(message),
                    Item::Heartbeat => None,
                };
                message.as_ref().map_or(Ok(()), |message| share.take_decoded(message))?;
                return Ok((message, read - self.rest.len() as u64));
            }
        }
    }
}

impl Stream for SnapshotData {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if !self.rest.is_empty() {
            return Poll::Ready(Some(Ok(std::mem::take(&mut self.rest))));
        }
        self.reader.poll_next_unpin(context).map_err(io::Error::from)
    }
}
