//! The side that sends.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream;
use rafthttp::{
    Critical, MemberId, Raft, Rejected, SnapshotBody, SnapshotStatus, Source, Transport,
    wire::raftpb::{Entry, Message, MessageType, Snapshot, SnapshotMetadata},
};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use xxhash_rust::xxh3::Xxh3;

use super::{
    BenchError, SINK, SOURCE, TERM,
    arrivals::Moment,
    endpoint::{Endpoint, EndpointConfig, is_connected},
    plan::{Extent, Notice, Plan, Work},
    report::{Report, RoundTrips, Seen, Side},
    window::Window,
};
use crate::config::HostPort;

/// How long the streams may take to open.
const OPENING: Duration = Duration::from_secs(10);
/// How long to wait for an acknowledgement before the missing messages count as lost.
const PATIENCE: Duration = Duration::from_secs(10);
/// The most messages in one call of `send`: as many as one turn of a busy raft has for a peer. It sends fewer when the
/// window has room for fewer, and never waits to fill the batch.
const SEND_BATCH: u64 = 256;
/// The length of one piece of a snapshot's body, in bytes, as a file is read.
const PIECE: usize = 256 << 10;
/// The index of the one snapshot.
const SNAPSHOT_INDEX: u64 = 10;

/// Sends the planned load, and prints what was sent and how fast it was taken.
pub(crate) async fn source(
    config: EndpointConfig,
    to: &HostPort,
    plan: Plan,
    stop: &CancellationToken,
) -> Result<(), BenchError> {
    let window = Arc::new(Window::default());
    let raft = Arc::new(Acknowledgements(Arc::clone(&window)));
    let endpoint = Endpoint::start(config, SOURCE, raft, None).await?;
    let load = Load { transport: endpoint.transport.clone(), window, plan };
    let ran = stop.run_until_cancelled(run(&endpoint, to, &load)).await;
    endpoint.stop().await;
    let (seen, round_trips) = ran.ok_or(BenchError::Stopped)??;
    Report::new(Side::Source, plan.outline, seen, round_trips).print();
    let Seen { messages, lost, .. } = seen;
    if lost == 0 { Ok(()) } else { Err(BenchError::Lost { lost, messages }) }
}

async fn run(endpoint: &Endpoint, to: &HostPort, load: &Load) -> Result<(Seen, Option<RoundTrips>), BenchError> {
    endpoint.transport.add_peer(SINK, vec![endpoint.url_of(to)?])?;
    if !endpoint.until(SINK, OPENING, is_connected).await {
        return Err(no_streams(&endpoint.transport, to));
    }
    // It is made before the measurement starts, because an application computes the checksum when it makes a snapshot.
    let snapshot = (load.plan.outline.work == Work::Snapshot).then(|| zeros(load.plan.snapshot_bytes()));
    if !load.tell(Notice::Begin(load.plan.outline)).await {
        return Err(no_streams(&endpoint.transport, to));
    }
    let start = Moment::now();
    let mut times = Vec::new();
    let sent = match load.plan.outline.work {
        Work::Append | Work::Message => load.stream().await,
        Work::Ping => load.ping(&mut times).await,
        Work::Snapshot => load.snapshot(snapshot.unwrap_or_else(|| zeros(0))).await,
    };
    let end = Moment::now();
    load.tell(Notice::End(sent.messages)).await;
    let (elapsed, processor) = (end.at - start.at, end.processor.saturating_sub(start.processor));
    Ok((Seen { messages: sent.messages, lost: sent.lost, elapsed, processor }, RoundTrips::of(times)))
}

fn no_streams(transport: &Transport, to: &HostPort) -> BenchError {
    let peer = transport.peers().into_iter().find(|peer| peer.id == SINK);
    let last = peer.and_then(|peer| peer.link.last_error).map_or(String::new(), |(_, text)| format!(": {text}"));
    BenchError::NoStreams { peer: to.to_string(), seconds: OPENING.as_secs(), why: last }
}

/// The load of one run.
struct Load {
    transport: Transport,
    window: Arc<Window>,
    plan: Plan,
}

/// The result of a run.
struct Sent {
    messages: u64,
    lost: u64,
}

impl Load {
    /// Sends a notice to the sink, and waits until the sink has received it.
    async fn tell(&self, notice: Notice) -> bool {
        let heard = self.window.notices() + 1;
        self.transport.send(vec![Message { context: notice.encode(), ..self.message(MessageType::MsgHeartbeat) }]);
        let hearing = async {
            while self.window.notices() < heard {
                self.window.changed().await;
            }
        };
        timeout(PATIENCE, hearing).await.is_ok()
    }

    /// Keeps the window full until everything is sent, then waits for the rest of the acknowledgements.
    async fn stream(&self) -> Sent {
        let payload = self.payload();
        let start = Instant::now();
        let mut sent = 0;
        loop {
            let left = match self.plan.extent {
                Extent::Messages(messages) => messages - sent,
                Extent::Time(time) if start.elapsed() < time => SEND_BATCH,
                Extent::Time(_) => 0,
            };
            let acknowledged = self.window.acknowledged();
            if left == 0 && acknowledged >= sent {
                return Sent { messages: sent, lost: 0 };
            }
            let free = (acknowledged + self.plan.outline.window).saturating_sub(sent);
            let count = free.min(left).min(SEND_BATCH);
            if count > 0 {
                let numbers = sent + 1..=sent + count;
                self.transport.send(numbers.map(|number| self.numbered(number, &payload)).collect());
                sent += count;
                // The connections are on this thread too.
                tokio::task::yield_now().await;
            } else if timeout(PATIENCE, self.window.changed()).await.is_err() {
                return Sent { messages: sent, lost: sent.saturating_sub(self.window.acknowledged()) };
            }
        }
    }

    /// Sends one message at a time, waits for the answer, and notes the time of each.
    async fn ping(&self, times: &mut Vec<Duration>) -> Sent {
        let payload = self.payload();
        let start = Instant::now();
        let mut sent = 0;
        while match self.plan.extent {
            Extent::Messages(messages) => sent < messages,
            Extent::Time(time) => start.elapsed() < time,
        } {
            sent += 1;
            let sent_at = Instant::now();
            self.transport.send(vec![self.numbered(sent, &payload)]);
            let answered = async {
                while self.window.acknowledged() < sent {
                    self.window.changed().await;
                }
            };
            if timeout(PATIENCE, answered).await.is_err() {
                return Sent { messages: sent, lost: 1 };
            }
            times.push(sent_at.elapsed());
        }
        Sent { messages: sent, lost: 0 }
    }

    /// Sends one snapshot with a body of zeros. The transport's own deadlines decide when it is lost.
    async fn snapshot(&self, body: SnapshotBody) -> Sent {
        let length = self.plan.snapshot_bytes();
        let messages = length / self.plan.outline.size;
        let metadata = SnapshotMetadata { index: SNAPSHOT_INDEX, term: TERM, ..SnapshotMetadata::default() };
        let snapshot = Snapshot { metadata: Some(metadata), ..Snapshot::default() };
        let message = Message { snapshot: Some(snapshot.into()), ..self.message(MessageType::MsgSnap) };
        self.transport.send_snapshot(message, body);
        loop {
            match self.window.snapshot() {
                Some(SnapshotStatus::Finish) => return Sent { messages, lost: 0 },
                Some(SnapshotStatus::Failure) => {
                    return Sent { messages, lost: messages };
                }
                None => self.window.changed().await,
            }
        }
    }

    fn payload(&self) -> Bytes {
        let size = usize::try_from(self.plan.outline.size).expect("a size that fits a queue fits memory");
        vec![0; size].into()
    }

    /// A message of the load. `number` starts with 1.
    fn numbered(&self, number: u64, payload: &Bytes) -> Message {
        if self.plan.outline.work != Work::Append {
            let heartbeat = self.message(MessageType::MsgHeartbeat);
            return Message { index: number, context: payload.clone(), ..heartbeat };
        }
        let entry = Entry { term: TERM, index: number, data: payload.clone(), ..Entry::default() };
        Message {
            log_term: TERM,
            index: number - 1,
            commit: number - 1,
            entries: vec![entry],
            ..self.message(MessageType::MsgApp)
        }
    }

    fn message(&self, kind: MessageType) -> Message {
        Message { r#type: kind.into(), from: SOURCE.0, to: SINK.0, term: TERM, ..Message::default() }
    }
}

/// A snapshot of zeros. It can be resumed, so its receiver checks the checksum.
fn zeros(length: u64) -> SnapshotBody {
    let piece = Bytes::from(vec![0; PIECE]);
    let pieces = move |offset: u64| {
        let piece = piece.clone();
        stream::unfold(length.saturating_sub(offset), move |left| {
            let count = usize::try_from(left).unwrap_or(usize::MAX).min(PIECE);
            let next = (count > 0).then(|| (Ok(piece.slice(..count)), left - count as u64));
            std::future::ready(next)
        })
    };
    SnapshotBody::from_streams(pieces, length).with_checksum(checksum_of_zeros(length))
}

/// The checksum of this many zeros, for [`SnapshotBody::with_checksum`].
fn checksum_of_zeros(length: u64) -> u128 {
    let (piece, mut hash, mut left) = (vec![0; PIECE], Xxh3::new(), length);
    while left > 0 {
        let count = usize::try_from(left).unwrap_or(usize::MAX).min(PIECE);
        hash.update(&piece[..count]);
        left -= count as u64;
    }
    hash.digest128()
}

/// The source's application: it takes acknowledgements and nothing else.
struct Acknowledgements(Arc<Window>);

#[async_trait]
impl Raft for Acknowledgements {
    async fn process(&self, _from: MemberId, _: Source, batch: Vec<Message>) -> Result<(), Rejected> {
        for message in &batch {
            match message.r#type() {
                MessageType::MsgHeartbeatResp if !message.context.is_empty() => self.0.hear_notice(),
                MessageType::MsgAppResp | MessageType::MsgHeartbeatResp => self.0.acknowledge(message.index),
                _ => {}
            }
        }
        Ok(())
    }

    fn is_removed(&self, _id: MemberId) -> bool {
        false
    }

    fn report_unreachable(&self, _id: MemberId) {}

    fn report_snapshot(&self, _id: MemberId, status: SnapshotStatus) {
        self.0.snapshot_ended(status);
    }

    fn critical(&self, error: Critical) {
        tracing::error!(%error, "the sink refuses this source");
    }
}
