//! Sends one snapshot by `POST /raft/snapshot`: the envelope, then the body (etcd's `snapshotSender`).

use std::{
    future::poll_fn,
    io,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream, stream::BoxStream};
use http::{Method, Request};
use http_body::Frame;
use http_body_util::{BodyExt, Limited, StreamBody};
use tokio::time::{Instant, interval};

use super::SnapshotBody;
use crate::{
    dial::{
        connection::{Body, DialledConnection, NoAnswer},
        io::IoStatus,
        post::PostAnswer,
        urls::PeerUrl,
    },
    ledger::{Direction, MessageKind},
    telemetry::{self, EventSpan, MessageSpan, Origin, SnapshotPoint},
    transport::{
        attempt::{Reached, Undelivered},
        pace::{
            Ours,
            deadline::{Deadline, LEAST},
        },
        peer::Peer,
        raft::SnapshotStatus,
    },
    wire::{
        frames::FrameBuffer,
        headers,
        message::{MessageEncoder, message_size},
        raftpb::Message,
    },
};

mod resumption;

/// How long a snapshot may make no progress, and how long its receiver may fail its probes while it syncs the snapshot.
const PATIENCE: Duration = Duration::from_secs(30);
/// The same for a receiver that is not probed: a remote, or any receiver if probes are turned off. For a receiver that
/// probes reach, it is how long the answer may take, in addition to the time that its bytes earn.
const PATIENCE_UNPROBED: Duration = Duration::from_secs(600);
/// How much of an answer's text is read, in bytes.
const ANSWER_BYTES: usize = 4096;

/// The progress of a body.
#[derive(Default)]
struct SendProgress {
    /// Bytes of the envelope that were passed on.
    envelope: AtomicU64,
    /// Bytes of the snapshot itself, including those that the receiver had before.
    body: AtomicU64,
    /// Bytes of the snapshot that were passed on, counted each time.
    handed_over: AtomicU64,
    whole: AtomicBool,
    /// How long the connection has waited for the body, as opposed to the receiver.
    ours: Arc<Ours>,
    /// Another attempt would fail, too: the body cannot be read, or the receiver has missed the deadline.
    hopeless: AtomicBool,
}

/// A snapshot under way. It ends in the ledger, and is reported to raft, exactly once, even if the task is dropped.
struct SendingSnapshot {
    peer: Arc<Peer>,
    kind: MessageKind,
    envelope: u64,
    /// The length of the body, in bytes, if known.
    length: Option<u64>,
    since: Instant,
    progress: Arc<SendProgress>,
    span: EventSpan,
    /// The span of its message, if that is traced.
    sent: Option<MessageSpan>,
    ended: bool,
}

/// Sends a snapshot that the ledger has counted as started.
pub(crate) async fn send(peer: Arc<Peer>, message: Message, body: SnapshotBody, sent: Option<MessageSpan>) {
    let point = SnapshotPoint::of(&message);
    let (length, reading) = (body.length, body.reading.clone());
    peer.link(|link| link.snapshot_started(Direction::Out, length));
    peer.shared.events.snapshot_started(Some(peer.id), Direction::Out, point);
    let mut underway = SendingSnapshot {
        kind: MessageKind::of(message.r#type),
        envelope: message_size(&message) as u64,
        since: Instant::now(),
        length,
        progress: Arc::default(),
        span: telemetry::snapshot_span(
            &peer.shared.world,
            peer.id,
            Direction::Out,
            point,
            peer.shared.sampler.trace_id(&message),
            &Origin::default(),
        ),
        sent,
        ended: false,
        peer: peer.clone(),
    };
    let outcome = tokio::select! {
        biased;
        () = peer.stop.cancelled() => Err(Undelivered::stopped()),
        outcome = deliver(&peer, message, body, &underway) => outcome,
    };
    underway.end(outcome);
    // The body is gone, so its thread has nothing to read for.
    reading.close();
    reading.wait().await;
}

/// If the peer keeps what it received, and the body can be read more than once, the peer is sent what it does not have,
/// for as long as there is hope. Otherwise it is sent the whole snapshot, once.
async fn deliver(
    peer: &Arc<Peer>,
    message: Message,
    body: SnapshotBody,
    underway: &SendingSnapshot,
) -> Result<(), Undelivered> {
    if let Some(repeatable) = body.repeatable().filter(|_| peer.resumes_snapshots()) {
        let delivered = resumption::deliver(peer, &message, &repeatable, underway).await;
        if let Some(outcome) = delivered {
            return outcome;
        }
    }
    let _slot = peer.shared.pace.slot().await;
    post(peer, message, body, underway).await
}

async fn post(
    peer: &Arc<Peer>,
    message: Message,
    body: SnapshotBody,
    underway: &SendingSnapshot,
) -> Result<(), Undelivered> {
    let attempt = peer.attempt();
    let dialled = peer.shared.client.dial(&attempt.url).await;
    let connection = dialled.map_err(|error| peer.post_failed(&attempt, Reached::Nobody, error.to_string()))?;
    underway.span.address(connection.remote);
    if let Some(sent) = &underway.sent {
        sent.address(connection.remote);
    }
    let length = body.length;
    let head = request(peer, &attempt.url, length, underway);
    let body = whole(peer, &message, body.into_stream(&peer.shared.world), length, &underway.progress);
    let request = head.body(body).map_err(|error| Undelivered::failed(error.to_string()))?;
    let mut deadline = Deadline::new(peer.shared.limits.snapshot_rate);
    match exchange(peer, connection, request, &underway.progress, PATIENCE, &mut deadline).await {
        Ok(answer) => peer.post_answered(&attempt, headers::RAFT_SNAPSHOT, &answer),
        Err(why) => {
            let why = format!("POST {} failed: {why}", headers::RAFT_SNAPSHOT);
            Err(peer.post_failed(&attempt, Reached::Unknown, why))
        }
    }
}

/// The head of a request that brings a snapshot of this length.
fn request(peer: &Peer, url: &PeerUrl, length: Option<u64>, underway: &SendingSnapshot) -> http::request::Builder {
    let mut request = peer
        .shared
        .client
        .request(Method::POST, url, headers::RAFT_SNAPSHOT)
        .header(http::header::CONTENT_TYPE, headers::APPLICATION_OCTET_STREAM);
    if let Some(traceparent) = underway.span.traceparent() {
        request = request.header(headers::TRACEPARENT, traceparent);
    }
    if let Some(length) = length {
        request = request.header(headers::X_RAFTHTTP_LENGTH, length);
    }
    request
}

/// Sends the request, and waits for its answer for as long as there is hope.
async fn exchange(
    peer: &Arc<Peer>,
    connection: DialledConnection,
    request: Request<Body>,
    progress: &SendProgress,
    write_patience: Duration,
    deadline: &mut Deadline,
) -> Result<PostAnswer, String> {
    let DialledConnection { mut sender, driver, io, .. } = connection;
    io.set_write_deadline(write_patience);
    io.await_head();
    let answer = async {
        let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
        io.head_is_there();
        let (head, body) = answer.into_parts();
        let text = Limited::new(body, ANSWER_BYTES).collect().await;
        let text = text.map(|text| String::from_utf8_lossy(&text.to_bytes()).trim().to_owned()).unwrap_or_default();
        Ok(PostAnswer { status: head.status, headers: head.headers, text })
    };
    let mut answer = pin!(answer);
    let mut driver = pin!(driver);
    // Earlier attempts have waited, too.
    let (begun, earlier) = (Instant::now(), progress.ours.total());
    let waited = || begun.elapsed().saturating_sub(progress.ours.total().saturating_sub(earlier));
    let given_up = abandoned_by_its_receiver(peer, progress, &io, deadline, waited);
    let outcome = tokio::select! {
        biased;
        outcome = &mut answer => outcome,
        ended = &mut driver => match ended {
            // The answer may have been read in the connection's last turn.
            Ok(()) => answer.await,
            Err(error) => Err(error.to_string()),
        },
        // This is checked after each turn of the driver, which detects it.
        () = poll_fn(|_| if io.is_head_too_long() { Poll::Ready(()) } else { Poll::Pending }) => {
            Err(NoAnswer::Head.to_string())
        }
        why = given_up => Err(why),
    };
    if !progress.whole.load(Ordering::Relaxed) {
        // The time since its last look counts, too, if the rest goes out on another connection.
        deadline.is_missed(waited(), io.written());
    }
    outcome
}

/// The body of the request: the envelope as one message frame, then the bytes of the snapshot. If their source fails,
/// or ends before the announced length, the body breaks, and with it the connection, because a terminating chunk would
/// mean *complete*.
fn whole(
    peer: &Arc<Peer>,
    message: &Message,
    pieces: BoxStream<'static, io::Result<Bytes>>,
    promised: Option<u64>,
    progress: &Arc<SendProgress>,
) -> Body {
    let mut frames = FrameBuffer::new();
    MessageEncoder.encode(message, &mut frames);
    let handed_over = progress.clone();
    let envelope = std::iter::from_fn(move || frames.pop()).inspect(move |piece| {
        handed_over.envelope.fetch_add(piece.len() as u64, Ordering::Relaxed);
    });
    let (counted, failed, to) = (progress.clone(), progress.clone(), peer.clone());
    let pieces = peer.shared.pace.clone().paced(pieces, progress.ours.clone());
    let pieces = pieces.inspect_ok(move |piece: &Bytes| {
        let bytes = piece.len() as u64;
        counted.body.fetch_add(bytes, Ordering::Relaxed);
        counted.handed_over.fetch_add(bytes, Ordering::Relaxed);
        to.link(|link| link.snapshot_progressed(Direction::Out, bytes));
    });
    let pieces = pieces.inspect_err(move |_| failed.hopeless.store(true, Ordering::Relaxed));
    let pieces = stream::iter(envelope.map(Ok)).chain(pieces);
    let progress = progress.clone();
    let end = stream::once(async move {
        let sent = progress.body.load(Ordering::Relaxed);
        if let Some(promised) = promised.filter(|promised| *promised != sent) {
            progress.hopeless.store(true, Ordering::Relaxed);
            let why = format!("the snapshot has {sent} bytes, not the {promised} that it promised");
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, why));
        }
        progress.whole.store(true, Ordering::Relaxed);
        Ok(Bytes::new())
    });
    StreamBody::new(pieces.chain(end).map_ok(Frame::data)).boxed_unsync()
}

/// Ends when there is no hope: if the receiver takes too little of the body for too long, or if it has the whole body
/// and fails its probes or does not answer. If it takes nothing at all, the connection's write deadline ends the
/// request first. `waited` says how long the connection has waited for the receiver.
async fn abandoned_by_its_receiver(
    peer: &Peer,
    progress: &SendProgress,
    io: &IoStatus,
    deadline: &mut Deadline,
    waited: impl Fn() -> Duration,
) -> String {
    let (mut reached, mut whole) = (Instant::now(), None);
    let mut tick = interval(Duration::from_secs(1));
    loop {
        tick.tick().await;
        if progress.whole.load(Ordering::Relaxed) {
            let since = *whole.get_or_insert_with(Instant::now);
            let patience = patience_for_an_answer(progress.body.load(Ordering::Relaxed));
            if since.elapsed() >= patience {
                return format!("no answer for {patience:?}");
            }
        } else if deadline.is_missed(waited(), io.written()) {
            progress.hopeless.store(true, Ordering::Relaxed);
            return format!("the receiver takes less than {} bytes a second", deadline.least());
        }
        // A receiver that is not probed gets enough time to sync gigabytes.
        let reachable = peer.link(|link| link.read().reachable);
        let patience = if reachable.is_none() { PATIENCE_UNPROBED } else { PATIENCE };
        if reachable == Some(true)
            || !progress.whole.load(Ordering::Relaxed)
            || io.last_write().elapsed() < tick.period()
        {
            reached = Instant::now();
        } else if reached.elapsed() >= patience {
            return format!("no answer, and no successful probe for {patience:?}");
        }
    }
}

/// How long the receiver of a whole body may take for its answer, even if probes reach it. It has to sync this many
/// bytes, and may still have to read some of them out of buffers.
fn patience_for_an_answer(bytes: u64) -> Duration {
    PATIENCE_UNPROBED + Duration::from_secs(bytes / LEAST)
}

impl SendingSnapshot {
    fn end(&mut self, outcome: Result<(), Undelivered>) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let Self { peer, kind, envelope, length, since, progress, span, sent: message, .. } = self;
        let bytes = progress.body.load(Ordering::Relaxed);
        let sent = progress.envelope.load(Ordering::Relaxed) + progress.handed_over.load(Ordering::Relaxed);
        let took = since.elapsed();
        peer.link(|link| link.snapshot_ended(Direction::Out, *length, bytes, outcome.is_ok().then_some(took)));
        let failure = outcome.as_ref().err().map(|Undelivered { reason, why }| (reason.label(), why.as_str()));
        if let Some((reason, why)) = failure {
            span.failed(reason, why);
            if let Some(message) = message {
                message.failed(reason);
            }
        }
        peer.shared.events.snapshot_ended(Some(peer.id), Direction::Out, bytes, took, failure.map(|(_, why)| why));
        let status = if outcome.is_ok() { SnapshotStatus::Finish } else { SnapshotStatus::Failure };
        let outcome = outcome.map_err(|failure| failure.reason);
        peer.outbox.end_snapshot(*kind, *since, *envelope + bytes, sent, message.as_ref(), outcome);
        if status == SnapshotStatus::Failure {
            peer.shared.raft.report_unreachable(peer.id);
        }
        peer.shared.raft.report_snapshot(peer.id, status);
    }
}

impl Drop for SendingSnapshot {
    fn drop(&mut self) {
        self.end(Err(Undelivered::stopped()));
    }
}
