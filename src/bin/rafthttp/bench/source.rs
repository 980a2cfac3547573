//! The side that sends.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{
    StreamExt as _,
    future::join_all,
    stream::{self, FuturesOrdered},
};
use rafthttp::{
    Critical, MemberId, Raft, Rejected, SnapshotBody, SnapshotStatus, Source, Transport,
    wire::raftpb::{Entry, Message, MessageType, Snapshot, SnapshotMetadata},
};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use xxhash_rust::xxh3::Xxh3;

use super::{
    BenchError, SOURCE, TERM,
    arrivals::Moment,
    endpoint::{BenchEndpoint, EndpointConfig, LOOK_EVERY, is_connected},
    plan::{Extent, Notice, Plan, Work},
    report::{Report, RoundTripQuantiles, RunMeasure, Side},
    sink_ids,
    window::Window,
};
use crate::config::HostPort;

/// How long the streams may take to open.
const OPENING: Duration = Duration::from_secs(10);
/// How much longer with each sink.
const OPENING_OF_EACH: Duration = Duration::from_millis(50);
/// How long to wait for an acknowledgement before the missing messages count as lost.
const PATIENCE: Duration = Duration::from_secs(10);
/// The most messages in one call of `send`: as many as one turn of a busy raft has for a peer. It sends fewer when the
/// window has room for fewer, and never waits to fill the batch.
const SEND_BATCH: u64 = 256;
/// The length of one piece of a snapshot's body, in bytes, as a file is read.
const PIECE: usize = 256 << 10;
/// The index of the one snapshot.
const SNAPSHOT_INDEX: u64 = 10;

/// Sends the planned load to each of the sinks, and prints what was sent and how fast it was taken. If `hold` is given,
/// it then serves the metrics there, with the streams open, until it is told to stop.
pub(crate) async fn source(
    config: EndpointConfig,
    to: &[HostPort],
    plan: Plan,
    hold: Option<HostPort>,
    stop: &CancellationToken,
) -> Result<(), BenchError> {
    let windows: BTreeMap<MemberId, Arc<Window>> = sink_ids().take(to.len()).map(|id| (id, Arc::default())).collect();
    let raft = Arc::new(Acknowledgements(windows.clone()));
    let endpoint = BenchEndpoint::start(config, SOURCE, raft, None).await?;
    let load = |(to, window)| RunLoad { to, transport: endpoint.transport.clone(), window, plan };
    let loads: Vec<RunLoad> = windows.into_iter().map(load).collect();
    let ran = stop.run_until_cancelled(run(&endpoint, to, &loads)).await;
    let ended = match ran {
        None => Err(BenchError::Stopped),
        Some(Err(error)) => Err(error),
        Some(Ok(sent)) => end(&endpoint, &loads, sent, hold, stop).await,
    };
    endpoint.stop().await;
    ended
}

/// What was sent to all sinks, in the order of the loads, and what it took.
struct Ran {
    sent: Vec<RunResult>,
    elapsed: Duration,
    processor: Duration,
}

async fn run(endpoint: &BenchEndpoint, to: &[HostPort], loads: &[RunLoad]) -> Result<Ran, BenchError> {
    for (load, address) in loads.iter().zip(to) {
        endpoint.transport.add_peer(load.to, vec![endpoint.url_of(address)?])?;
    }
    let opening = OPENING + OPENING_OF_EACH * u32::try_from(loads.len()).unwrap_or(u32::MAX);
    if !endpoint.until(opening, LOOK_EVERY, |peers| peers.iter().all(is_connected)).await {
        return Err(no_streams(&endpoint.transport, opening));
    }
    // They are made before the measurement starts, because an application computes the checksum when it makes a
    // snapshot.
    let bodies: Vec<_> = loads.iter().map(RunLoad::snapshot_body).collect();
    if !join_all(loads.iter().map(|load| load.tell(Notice::Begin(load.plan.outline)))).await.iter().all(|heard| *heard)
    {
        return Err(no_streams(&endpoint.transport, PATIENCE));
    }
    let start = Moment::now();
    let under_way: FuturesOrdered<_> = loads.iter().zip(bodies).map(|(load, body)| load.send(body)).collect();
    let sent: Vec<RunResult> = under_way.collect().await;
    let end = Moment::now();
    Ok(Ran { sent, elapsed: end.at - start.at, processor: end.processor.saturating_sub(start.processor) })
}

/// Prints the report, and tells the sinks that it is over: at once, or when the time of `hold` ends.
async fn end(
    endpoint: &BenchEndpoint,
    loads: &[RunLoad],
    ran: Ran,
    hold: Option<HostPort>,
    stop: &CancellationToken,
) -> Result<(), BenchError> {
    let Ran { sent, elapsed, processor } = ran;
    let (messages, lost) = (sent.iter().map(|to| to.messages).sum(), sent.iter().map(|to| to.lost).sum());
    let seen = RunMeasure { peers: loads.len(), messages, lost, elapsed, processor };
    let outline = loads.first().map(|load| load.plan.outline).ok_or(BenchError::Stopped)?;
    let round_trips = RoundTripQuantiles::of(sent.iter().flat_map(|to| to.times.iter().copied()).collect());
    let tell = || join_all(loads.iter().zip(&sent).map(|(load, sent)| load.tell(Notice::End(sent.messages))));
    if hold.is_none() {
        tell().await;
    }
    Report::new(Side::Source, outline, seen, round_trips).print();
    if let Some(address) = hold {
        endpoint.hold(&address, stop).await?;
        tell().await;
    }
    if lost == 0 { Ok(()) } else { Err(BenchError::Lost { lost, messages }) }
}

/// Names the first sink without streams, and the last error about it.
fn no_streams(transport: &Transport, waited: Duration) -> BenchError {
    let peers = transport.peers();
    let silent = peers.iter().find(|peer| !is_connected(peer)).or_else(|| peers.first());
    let peer = silent.and_then(|peer| peer.urls.first()).map_or_else(String::new, |url| url.authority().to_owned());
    let last = silent.and_then(|peer| peer.link.last_error.as_ref());
    let why = last.map_or(String::new(), |(_, text)| format!(": {text}"));
    BenchError::NoStreams { peer, seconds: waited.as_secs(), why }
}

/// The load of one run, to one sink.
struct RunLoad {
    to: MemberId,
    transport: Transport,
    window: Arc<Window>,
    plan: Plan,
}

/// The result of a run, of one sink.
#[derive(Default)]
struct RunResult {
    messages: u64,
    lost: u64,
    /// The round trips of a ping.
    times: Vec<Duration>,
}

impl RunLoad {
    /// Sends everything. A snapshot has this body.
    async fn send(&self, body: Option<SnapshotBody>) -> RunResult {
        match body {
            Some(body) => self.snapshot(body).await,
            None if self.plan.outline.work == Work::Ping => self.ping().await,
            None => self.stream().await,
        }
    }

    /// The body of the snapshot, if one is to be sent.
    fn snapshot_body(&self) -> Option<SnapshotBody> {
        (self.plan.outline.work == Work::Snapshot).then(|| zeros(self.plan.snapshot_bytes()))
    }

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
    async fn stream(&self) -> RunResult {
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
                return RunResult { messages: sent, ..RunResult::default() };
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
                let lost = sent.saturating_sub(self.window.acknowledged());
                return RunResult { messages: sent, lost, ..RunResult::default() };
            }
        }
    }

    /// Sends one message at a time, waits for the answer, and notes the time of each.
    async fn ping(&self) -> RunResult {
        let payload = self.payload();
        let start = Instant::now();
        let (mut sent, mut times) = (0, Vec::new());
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
                return RunResult { messages: sent, lost: 1, times };
            }
            times.push(sent_at.elapsed());
        }
        RunResult { messages: sent, lost: 0, times }
    }

    /// Sends one snapshot with a body of zeros. The transport's own deadlines decide when it is lost.
    async fn snapshot(&self, body: SnapshotBody) -> RunResult {
        let length = self.plan.snapshot_bytes();
        let messages = length / self.plan.outline.size;
        let metadata = SnapshotMetadata { index: SNAPSHOT_INDEX, term: TERM, ..SnapshotMetadata::default() };
        let snapshot = Snapshot { metadata: Some(metadata), ..Snapshot::default() };
        let message = Message { snapshot: Some(snapshot.into()), ..self.message(MessageType::MsgSnap) };
        self.transport.send_snapshot(message, body);
        loop {
            match self.window.snapshot() {
                Some(SnapshotStatus::Finish) => return RunResult { messages, ..RunResult::default() },
                Some(SnapshotStatus::Failure) => return RunResult { messages, lost: messages, ..RunResult::default() },
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
        Message { r#type: kind.into(), from: SOURCE.0, to: self.to.0, term: TERM, ..Message::default() }
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

/// The source's application: it takes acknowledgements and nothing else. It has a window for each sink.
struct Acknowledgements(BTreeMap<MemberId, Arc<Window>>);

#[async_trait]
impl Raft for Acknowledgements {
    async fn process(&self, from: MemberId, _: Source, batch: Vec<Message>) -> Result<(), Rejected> {
        let Some(window) = self.0.get(&from) else { return Ok(()) };
        for message in &batch {
            match message.r#type() {
                MessageType::MsgHeartbeatResp if !message.context.is_empty() => window.hear_notice(),
                MessageType::MsgAppResp | MessageType::MsgHeartbeatResp => window.acknowledge(message.index),
                _ => {}
            }
        }
        Ok(())
    }

    fn is_removed(&self, _id: MemberId) -> bool {
        false
    }

    fn report_unreachable(&self, _id: MemberId) {}

    fn report_snapshot(&self, id: MemberId, status: SnapshotStatus) {
        if let Some(window) = self.0.get(&id) {
            window.snapshot_ended(status);
        }
    }

    fn critical(&self, error: Critical) {
        tracing::error!(%error, "the sink refuses this source");
    }
}
