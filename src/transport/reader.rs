//! The reader of a stream: dials the peer, reads what it writes without end, and dials again (etcd's `streamReader`).

use std::{
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures_util::{FutureExt, future::FusedFuture};
use http::{HeaderMap, Method, StatusCode, response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::{Instant, sleep, timeout};

use crate::{
    dial::{
        connection::{DialledConnection, NoAnswer, drive, drive_to_head, empty},
        failure::{DialError, innermost},
        io::{ConnectionEnd, IoStatus},
        urls::PeerUrl,
    },
    id::Impostor,
    ledger::{AttemptResult, Direction, LossReason},
    telemetry::{self, Origin, TraceContext},
    transport::{
        attempt::{Attempt, Reached},
        drain,
        peer::Peer,
        raft::{Source, Unheard},
        redial::Permit,
        signal::Subscription,
    },
    wire::{
        FrameError, headers,
        message::Decoded,
        resumption,
        stream::{StreamDecoder, StreamId, StreamKind},
        version::{Version, VersionError},
    },
};

/// How long a stream may be silent: etcd's `ConnReadTimeout`. Link heartbeats come three times as often.
const READ_DEADLINE: Duration = Duration::from_secs(5);
/// The most messages that room is made for before a read.
const BATCH_EXPECTED: usize = 512;
/// How much of a refusal's text is read, in bytes.
const REFUSAL_BYTES: usize = 4096;

/// Keeps one of a peer's streams open.
pub(crate) struct StreamReader {
    peer: Arc<Peer>,
    kind: StreamKind,
    /// How many answers in a row gave no stream, although the peer is reachable.
    refusals: u32,
    /// The result of a failed dial that was logged last.
    told: Option<AttemptResult>,
}

/// An open stream. It owns its connection: dropping it ends both.
struct OpenStream {
    body: Incoming,
    driver: StreamDriver,
    remote: SocketAddr,
    io: Arc<IoStatus>,
    /// The dial that opened it.
    dialled: TraceContext,
    decoder: StreamDecoder,
    source: Source,
    /// Changes when the stream has to be dialled again, or when another start of the peer has taken its place.
    resets: Subscription,
}

/// The connection under a stream. It is fused: once it has ended, it is never ready again.
type StreamDriver = Pin<Box<dyn FusedFuture<Output = ()> + Send>>;

/// Why a dial gave no stream.
struct StreamRefusal {
    result: AttemptResult,
    why: String,
}

impl StreamReader {
    pub(crate) fn new(peer: Arc<Peer>, kind: StreamKind) -> Self {
        Self { peer, kind, refusals: 0, told: None }
    }

    pub(crate) async fn run(mut self) {
        let stop = self.peer.stop.clone();
        stop.run_until_cancelled(self.keep_open()).await;
        let up = self.peer.link(|link| link.read().stream_up[self.kind][Direction::In]);
        if up {
            self.peer.stream_lost(self.kind, Direction::In, LossReason::Stopped, None);
        }
    }

    async fn keep_open(&mut self) {
        loop {
            let peer = self.peer.clone();
            let permit = peer.redial.permit().await;
            // Boxed, and only now, so that the task stays small while a peer is down and it waits.
            let ended_well = match Box::pin(self.dial(permit)).await {
                Some(stream) => Box::pin(self.read(stream)).await,
                None => false,
            };
            self.refusals = if ended_well { 0 } else { self.refusals.saturating_add(1) };
            // While the peer is down, the permit of the next dial makes the longer wait.
            self.peer.redial.rest(if self.peer.redial.is_down() { 1 } else { self.refusals }).await;
        }
    }

    /// Makes one attempt to open the stream.
    async fn dial(&mut self, permit: Permit<'_>) -> Option<Box<OpenStream>> {
        let attempt = self.peer.attempt();
        let span =
            telemetry::dial_span(&self.peer.shared.world, self.peer.id, self.kind.channel(), attempt.url.as_str());
        let id = StreamId(self.peer.shared.world.number());
        self.peer.inbox.asked_for(self.kind, id);
        let outcome = self.ask(&attempt.url, id, &span).await;
        drop(permit);
        let result = outcome.as_ref().map_or_else(|refusal| refusal.result, |_| AttemptResult::Ok);
        self.peer.link(|link| link.attempted(self.kind, result));
        match outcome {
            Ok(stream) => {
                self.told = None;
                Some(stream)
            }
            Err(StreamRefusal { result, why }) => {
                self.peer.inbox.stream_ended(self.kind);
                span.failed(result.label(), &why);
                self.refused(&attempt, result, &why);
                None
            }
        }
    }

    fn refused(&mut self, attempt: &Attempt, result: AttemptResult, why: &str) {
        let reached = match result {
            AttemptResult::Unreachable | AttemptResult::Tls | AttemptResult::Timeout => Reached::Nobody,
            _ => Reached::Somebody,
        };
        match result {
            AttemptResult::Removed => self.peer.shared.removed(self.peer.id),
            AttemptResult::IncarnationRefused => {
                if let Some(impostor) = refusal_of(why) {
                    self.peer.shared.refused(self.peer.id, impostor);
                }
            }
            _ => {}
        }
        self.tell_refused(&attempt.url, result, why);
        self.peer.failed(attempt, reached, why);
    }

    /// Logs a failed dial when the result changes. If there is a prober, the prober reports that nobody is there.
    fn tell_refused(&mut self, url: &PeerUrl, result: AttemptResult, why: &str) {
        let peer = &self.peer;
        let left_to_prober =
            matches!(result, AttemptResult::Unreachable | AttemptResult::Timeout) && peer.shared.probe.is_on();
        if !left_to_prober && self.told.replace(result) != Some(result) {
            peer.shared.events.stream_refused(peer.id, self.kind.channel(), url.as_str(), result, why);
        } else {
            tracing::debug!(peer = %peer.id, channel = self.kind.channel().label(), %url, result = result.label(), why,
                "stream not opened");
        }
    }

    async fn ask(
        &self,
        url: &PeerUrl,
        id: StreamId,
        span: &telemetry::EventSpan,
    ) -> Result<Box<OpenStream>, StreamRefusal> {
        let shared = &self.peer.shared;
        let DialledConnection { mut sender, driver, remote, io } = shared.client.dial(url).await?;
        span.address(remote);
        let path = format!("{}/{}/{}", headers::RAFT_STREAM, self.kind.segment(), shared.identity.member);
        let request = shared.client.request(Method::GET, url, &path);
        let mut request = request
            .header(headers::X_RAFT_TO, self.peer.id.to_string())
            .header(headers::X_RAFTHTTP_STREAM, id.to_string());
        if let Some(traceparent) = span.traceparent() {
            request = request.header(headers::TRACEPARENT, traceparent);
        }
        let request = request
            .body(empty())
            .map_err(|error| StreamRefusal { result: AttemptResult::Unreachable, why: error.to_string() })?;
        let driver = async move {
            if let Err(error) = driver.await {
                tracing::debug!(%error, "stream connection ended");
            }
        };
        let mut driver: StreamDriver = Box::pin(driver.fuse());
        let answer = {
            let answer = pin!(sender.send_request(request));
            timeout(READ_DEADLINE, drive_to_head(&mut driver, &io, answer)).await
        };
        let answer = match answer {
            Ok(Ok(answer)) => answer,
            Ok(Err(NoAnswer::Broken(error))) => {
                let (result, why) = shared.client.first_request_failed(&error);
                return Err(StreamRefusal { result, why });
            }
            Ok(Err(error @ NoAnswer::Head)) => {
                return Err(StreamRefusal { result: AttemptResult::Refused, why: error.to_string() });
            }
            Err(_) => {
                let why = format!("no answer within {READ_DEADLINE:?}");
                return Err(StreamRefusal { result: AttemptResult::Timeout, why });
            }
        };
        let (head, mut body) = answer.into_parts();
        let version = head.headers.get(headers::X_SERVER_VERSION);
        let version = Version::from_header(version.map(|value| value.to_str().unwrap_or_default()));
        if version.is_err() || head.status != StatusCode::OK {
            return Err(self.not_a_stream(&head, version, &mut body, &mut driver).await);
        }
        let (resets, source) = self.meet(&head.headers).await?;
        self.peer.set_resumes_snapshots(resumption::resumes(&head.headers));
        let (dialled, decoder) = (span.context(), self.peer.decoder(self.kind));
        Ok(Box::new(OpenStream { body, driver, remote, io, dialled, decoder, source, resets }))
    }

    /// Checks whether the start of the peer that has answered is heard, and how far it can be believed.
    async fn meet(&self, answer: &HeaderMap) -> Result<(Subscription, Source), StreamRefusal> {
        let source = if self.peer.shared.names_our_cluster(answer) { Source::Member } else { Source::Anyone };
        match self.peer.meet(answer, source).await {
            Ok(resets) => Ok((resets, source)),
            Err(unheard) => {
                let why = format!("its incarnation is not heard: {unheard}");
                let is_impostor = matches!(unheard, Unheard::Refused(_));
                let result = if is_impostor { AttemptResult::Impostor } else { AttemptResult::Refused };
                Err(StreamRefusal { result, why })
            }
        }
    }

    /// The meaning of an answer that gives no stream.
    async fn not_a_stream(
        &self,
        head: &response::Parts,
        version: Result<Version, VersionError>,
        body: &mut Incoming,
        driver: &mut StreamDriver,
    ) -> StreamRefusal {
        if let Err(error) = version {
            let why = format!("answered with {error}");
            return StreamRefusal { result: AttemptResult::IncompatibleVersion, why };
        }
        let text = {
            let text = pin!(text(body));
            timeout(READ_DEADLINE, drive(driver, text)).await.unwrap_or_default()
        };
        let shared = &self.peer.shared;
        let why = format!("answered {}: {text}", head.status);
        match classify(head.status, &text, shared.is_of_a_member(&head.headers)) {
            // A member that sends no incarnation cannot be refused because of one.
            AttemptResult::IncarnationRefused
                if shared.incarnation.is_none() || !shared.names_our_cluster(&head.headers) =>
            {
                StreamRefusal { result: AttemptResult::Refused, why }
            }
            // The peer does not know us, but we know it: its requests are heard from now on.
            AttemptResult::NotFound => match self.meet(&head.headers).await {
                Ok(_) => StreamRefusal { result: AttemptResult::NotFound, why },
                Err(unheard) => unheard,
            },
            result => StreamRefusal { result, why },
        }
    }

    /// Reads a stream to its end. Returns whether it ended cleanly, or brought something.
    async fn read(&mut self, mut stream: Box<OpenStream>) -> bool {
        let (peer, kind) = (self.peer.clone(), self.kind);
        peer.link(|link| link.stream_opened(kind, Direction::In, peer.outbox.open()));
        peer.shared.events.stream_opened(peer.id, kind.channel(), Direction::In, Some(stream.remote), false);
        peer.trace_attached(kind, Direction::In, &Origin { address: Some(stream.remote), span: Some(stream.dialled) });
        peer.answered();
        let opened = Instant::now();
        let mut resets = stream.resets.clone();
        let (reason, why) = tokio::select! {
            biased;
            () = resets.changed() => (LossReason::Stopped, None),
            ended = stream.read_all(&peer, kind) => ended,
        };
        peer.inbox.stream_ended(kind);
        peer.stream_lost(kind, Direction::In, reason, why.as_deref());
        matches!(reason, LossReason::Eof | LossReason::Stopped) || opened.elapsed() > READ_DEADLINE
    }
}

impl OpenStream {
    async fn read_all(&mut self, peer: &Arc<Peer>, kind: StreamKind) -> (LossReason, Option<String>) {
        let origin = Origin { address: Some(self.remote), span: None };
        let mut decoded = Decoded::default();
        let mut expected = 0;
        let mut deadline = pin!(sleep(READ_DEADLINE));
        loop {
            // The deadline is checked only when there is nothing to read, and moved on only then.
            let read = tokio::select! {
                biased;
                read = self.next() => read,
                () = &mut deadline => {
                    return (LossReason::Timeout, Some(format!("nothing read for {READ_DEADLINE:?}")));
                }
            };
            let bytes = match read {
                None => return self.finished(peer, kind),
                Some(Err(error)) => return self.broken(&error),
                Some(Ok(bytes)) => bytes,
            };
            deadline.as_mut().reset(Instant::now() + READ_DEADLINE);
            // The queue keeps the buffer that it is given, so room for as many messages is made at once.
            decoded.reserve(expected);
            if self.resets.has_changed() {
                return (LossReason::Stopped, None);
            }
            let outcome = self.decode(bytes, peer, kind, &mut decoded);
            expected = decoded.messages.len().min(BATCH_EXPECTED);
            drain::received(peer, kind.channel(), self.source, &mut decoded, origin);
            if let Err(error) = outcome {
                peer.unreadable(kind.channel(), error.kind.label());
                return (LossReason::Frame, Some(error.to_string()));
            }
        }
    }

    fn broken(&self, error: &io::Error) -> (LossReason, Option<String>) {
        match self.io.end() {
            Some(ConnectionEnd::Unverified) => (LossReason::Certificate, Some(innermost(error))),
            _ => (LossReason::Error, Some(error.to_string())),
        }
    }

    fn finished(&self, peer: &Arc<Peer>, kind: StreamKind) -> (LossReason, Option<String>) {
        match self.decoder.finish() {
            Ok(()) => (LossReason::Eof, None),
            Err(error) => {
                peer.unreadable(kind.channel(), error.kind.label());
                (LossReason::Frame, Some(error.to_string()))
            }
        }
    }

    fn decode(&mut self, bytes: Bytes, peer: &Peer, kind: StreamKind, decoded: &mut Decoded) -> Result<(), FrameError> {
        let read = bytes.len() as u64;
        let outcome = self.decoder.read(bytes, decoded);
        peer.inbox.read(kind, read, std::mem::take(&mut decoded.heartbeats));
        outcome
    }

    /// The next bytes of the body. Polls body and connection in one task, without a hop between them.
    async fn next(&mut self) -> Option<io::Result<Bytes>> {
        loop {
            let (body, driver) = (&mut self.body, &mut self.driver);
            let frame = drive(driver, body.frame()).await;
            match frame {
                None => return None,
                Some(Err(error)) => return Some(Err(io::Error::other(error))),
                Some(Ok(frame)) => {
                    if let Ok(bytes) = frame.into_data()
                        && !bytes.is_empty()
                    {
                        return Some(Ok(bytes));
                    }
                }
            }
        }
    }
}

async fn text(body: &mut Incoming) -> String {
    let mut text = Vec::new();
    while let Some(Ok(frame)) = body.frame().await
        && text.len() < REFUSAL_BYTES
    {
        text.extend_from_slice(frame.data_ref().map_or(&[], |data| &data[..data.len().min(REFUSAL_BYTES)]));
    }
    String::from_utf8_lossy(&text).trim().to_owned()
}

/// What is wrong with our incarnation, according to a refusal.
fn refusal_of(text: &str) -> Option<Impostor> {
    let (_, why) = text.split_once(headers::INCARNATION_REFUSED)?;
    Impostor::ALL.into_iter().find(|impostor| why.strip_prefix(": ") == Some(impostor.to_string().as_str()))
}

/// The result of a dial by its answer (etcd's `streamReader.dial`).
fn classify(status: StatusCode, text: &str, of_a_member: bool) -> AttemptResult {
    match status {
        StatusCode::GONE if of_a_member => AttemptResult::Removed,
        StatusCode::CONFLICT if refusal_of(text).is_some() => AttemptResult::IncarnationRefused,
        StatusCode::NOT_FOUND => AttemptResult::NotFound,
        StatusCode::PRECONDITION_FAILED if text == headers::CLUSTER_ID_MISMATCH => AttemptResult::ClusterIdMismatch,
        StatusCode::PRECONDITION_FAILED if text == headers::INCOMPATIBLE_VERSION => AttemptResult::IncompatibleVersion,
        StatusCode::PRECONDITION_FAILED if text == headers::TO_FIELD_MISMATCH => AttemptResult::ToMismatch,
        _ => AttemptResult::Refused,
    }
}

impl From<DialError> for StreamRefusal {
    fn from(error: DialError) -> Self {
        Self { result: error.attempt_result(), why: error.to_string() }
    }
}
