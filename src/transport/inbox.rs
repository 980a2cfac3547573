//! Messages from one peer: the receive queue, the proposal queue and their ledger, behind one lock.

use std::{
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    ledger::{Channel, Exemplar, Incoming, Key, Live, MessageKind, Per, PerStream, RejectReason},
    telemetry::{self, MessageSpan, Origin, Sampler},
    transport::{
        limits::Limits,
        raft::{Rejected, RejectionKind, Source},
        reading::Reading,
        summary::Rejections,
    },
    wire::{
        message::{Decoded, memory_size, message_size},
        probing::ReadStream,
        raftpb::{Message, MessageType},
        stream::{StreamId, StreamKind},
    },
    world::World,
};

mod answering;

pub(crate) use answering::Answering;

/// The receive queues of one peer and their ledger.
pub(crate) struct Inbox {
    state: Mutex<State>,
    world: World,
}

#[derive(Default)]
struct State {
    ledger: Live<Incoming>,
    queues: PerQueue<InboxQueue>,
    /// Messages of POSTs and snapshots whose senders wait for the answer.
    answering: u64,
    last_read: Option<Instant>,
    /// How far the streams were read, by kind.
    readings: PerStream<Reading>,
    paused: bool,
    closed: bool,
    /// A buffer that [`State::push`] reuses.
    verdicts: Vec<QueueVerdict>,
}

/// What happens to a message of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum QueueVerdict {
    Queued(QueueKind),
    Full,
    Unwanted,
}

/// A value for each queue.
type PerQueue<T> = Per<QueueKind, T, { QueueKind::ALL.len() }>;

/// Proposals have a queue of their own, because the application may hold them while there is no leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum QueueKind {
    Regular,
    Proposals,
}

impl QueueKind {
    const ALL: [Self; 2] = [Self::Regular, Self::Proposals];
}

impl Key for QueueKind {
    const ALL: &'static [Self] = &QueueKind::ALL;

    #[inline]
    fn place(self) -> usize {
        match self {
            Self::Regular => 0,
            Self::Proposals => 1,
        }
    }
}

#[derive(Default)]
struct InboxQueue {
    batch: InboxBatch,
    /// The size of the batch that the application is processing.
    processing: usize,
    processing_bytes: usize,
    running: bool,
}

/// What is needed to trace a received message.
pub(crate) struct Tracer<'a> {
    pub(crate) sampler: &'a Sampler,
    pub(crate) world: &'a World,
    pub(crate) origin: Origin,
}

impl Tracer<'_> {
    /// The span of a received message, if the message is traced.
    pub(crate) fn receive_span(&self, message: &Message, channel: Channel, size: usize) -> Option<MessageSpan> {
        let span = telemetry::receive_span(self.world, self.sampler.sample(message)?, message, size, &self.origin);
        span.channel(channel);
        Some(span)
    }
}

/// The messages that the application gets at once, with what is needed to count them afterwards.
#[derive(Default)]
pub(super) struct InboxBatch {
    pub(super) messages: Vec<Message>,
    /// The kind of each message, for the ledger.
    pub(super) kinds: Vec<MessageKind>,
    bytes: usize,
    /// Whether one of them came from [`Source::Anyone`].
    unconfirmed: bool,
    /// The spans of the traced messages, by position.
    pub(super) spans: Vec<(usize, MessageSpan)>,
}

/// The result of putting messages of a stream into the queues.
pub(super) struct Admission {
    /// How many messages found no room.
    pub(super) full: u64,
    /// Which queues have messages but no task that empties them.
    idle: PerQueue<bool>,
}

impl Admission {
    /// The queues that need a task to empty them.
    pub(super) fn idle(&self) -> impl Iterator<Item = QueueKind> + use<> {
        let idle = self.idle;
        QueueKind::ALL.into_iter().filter(move |queue| idle[*queue])
    }
}

impl Inbox {
    pub(crate) fn new(world: &World) -> Self {
        Self { state: Mutex::new(State::default()), world: world.clone() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // As in the outbox, the counters are complete after every critical section.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes messages of a stream. Messages that do not fit are dropped and counted. Waiting for room instead would
    /// make the peer's writes miss their deadline.
    pub(super) fn push(
        &self,
        channel: Channel,
        source: Source,
        decoded: &mut Decoded,
        limits: &Limits,
        tracer: &Tracer<'_>,
    ) -> Admission {
        let mut state = self.lock();
        if let Some(kind) = channel.stream() {
            state.readings[kind].read(decoded.messages.len() as u64);
        }
        let full = state.push(channel, decoded, limits, tracer);
        if source == Source::Anyone {
            for queue in state.queues.values_mut() {
                // The whole batch is believed no more than its least trusted message.
                queue.batch.unconfirmed |= !queue.batch.messages.is_empty();
            }
        }
        let idle = PerQueue::new(|queue| {
            let queue = &mut state.queues[queue];
            let idle = !queue.running && !queue.batch.messages.is_empty();
            queue.running |= idle;
            idle
        });
        Admission { full, idle }
    }

    /// Counts the bytes of frames that were read from a stream, and the link heartbeats among them.
    pub(crate) fn read(&self, kind: StreamKind, bytes: u64, heartbeats: u64) {
        let mut state = self.lock();
        state.ledger.read_frames(kind, bytes, heartbeats, self.world.now());
        state.last_read = Some(Instant::now());
    }

    /// A stream with this ID is about to be asked for.
    pub(crate) fn asked_for(&self, kind: StreamKind, id: StreamId) {
        self.lock().readings[kind].asked_for(id);
    }

    /// Nothing more will be read on the stream that was asked for last.
    pub(crate) fn stream_ended(&self, kind: StreamKind) {
        self.lock().readings[kind].end();
    }

    /// How far the streams were read.
    pub(crate) fn readings(&self) -> Vec<ReadStream> {
        let state = self.lock();
        state.readings.iter().flat_map(|(kind, reading)| reading.report(kind)).collect()
    }

    /// Counts something that could not be read.
    pub(crate) fn unreadable(&self, channel: Channel, kind: &'static str) {
        self.lock().ledger.unreadable(channel, kind);
    }

    /// When a frame was last read from the peer, on any stream.
    pub(crate) fn last_read(&self) -> Option<Instant> {
        self.lock().last_read
    }

    /// Takes one message whose sender waits for the answer. On an error, the message is rejected and counted.
    fn begin(&self, channel: Channel, message: &Message, bytes: u64) -> Result<(), RejectReason> {
        let kind = MessageKind::of(message.r#type);
        let mut state = self.lock();
        state.ledger.read_bytes(channel, bytes);
        state.ledger.received(channel, kind, message_size(message) as u64);
        if let Some(reason) = state.refusal() {
            state.ledger.rejected(kind, reason);
            return Err(reason);
        }
        state.answering += 1;
        Ok(())
    }

    /// The outcome of a message whose sender waits.
    fn end(&self, kind: MessageKind, took: Duration, span: Option<&MessageSpan>, outcome: Result<(), RejectReason>) {
        let mut state = self.lock();
        state.answering -= 1;
        match outcome {
            Ok(()) => {
                state.ledger.processed([kind], took);
                self.exemplify(&mut state.ledger, took, span);
            }
            Err(reason) => state.ledger.rejected(kind, reason),
        }
    }

    /// A processed message becomes the exemplar of its batch's time, if it is traced.
    fn exemplify(&self, ledger: &mut Live<Incoming>, took: Duration, span: Option<&MessageSpan>) {
        if let Some(context) = span.and_then(MessageSpan::context) {
            ledger.processed_in_trace(Exemplar::new(context, took, self.world.now()));
        }
    }

    /// Counts bytes of a snapshot's body.
    pub(crate) fn body(&self, bytes: u64) {
        self.lock().ledger.read_bytes(Channel::Snapshot, bytes);
    }

    /// A snapshot's body of this many bytes was saved completely.
    pub(crate) fn saved(&self, bytes: u64) {
        self.lock().ledger.saved(bytes);
    }

    /// How many messages were rejected, by reason.
    pub(super) fn rejected(&self) -> Rejections {
        self.lock().ledger.rejections()
    }

    /// Sets whether arriving messages are dropped from now on.
    pub(crate) fn set_paused(&self, paused: bool) {
        self.lock().paused = paused;
    }

    /// Rejects the waiting messages, and all that arrive later, as `stopped`.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.reject_waiting(RejectReason::Stopped);
    }

    /// Rejects the waiting messages as `refused`: they came from a start of the peer that another one has replaced.
    pub(super) fn forget(&self) {
        self.lock().reject_waiting(RejectReason::Refused);
    }

    /// A copy of the ledger, with the waiting messages as they are now.
    pub(crate) fn ledger(&self) -> Incoming {
        let state = self.lock();
        state.ledger.copy(state.answering + state.queues.values().map(|queue| queue.waiting() as u64).sum::<u64>())
    }

    /// The next batch of a queue. `None` if the queue is empty, and its task ends.
    pub(super) fn next(&self, queue: QueueKind) -> Option<InboxBatch> {
        let mut state = self.lock();
        let queue = &mut state.queues[queue];
        if queue.batch.messages.is_empty() {
            queue.running = false;
            return None;
        }
        let batch = mem::take(&mut queue.batch);
        queue.processing = batch.messages.len();
        queue.processing_bytes = batch.bytes;
        Some(batch)
    }

    /// The application has processed a batch. `spans` are those of its traced messages, by position.
    pub(super) fn processed(
        &self,
        queue: QueueKind,
        kinds: &[MessageKind],
        spans: &[(usize, MessageSpan)],
        took: Duration,
        outcome: Result<(), Rejected>,
    ) {
        let mut state = self.lock();
        let State { ledger, queues, .. } = &mut *state;
        queues[queue].processing = 0;
        queues[queue].processing_bytes = 0;
        let Err(Rejected(rejections)) = outcome else {
            ledger.processed(kinds.iter().copied(), took);
            self.exemplify(ledger, took, spans.last().map(|(_, span)| span));
            return;
        };
        let mut counted = vec![false; kinds.len()];
        for rejection in rejections {
            // A position outside of the batch, or a repeated one, is the application's bug and must not upset the
            // ledger.
            let Some(counted) = counted.get_mut(rejection.position).filter(|counted| !**counted) else { continue };
            *counted = true;
            ledger.rejected(kinds[rejection.position], rejection.kind.into());
        }
        let taken = kinds.iter().zip(&counted).filter(|(_, rejected)| !**rejected).map(|(kind, _)| *kind);
        ledger.processed(taken, took);
        let traced = spans.iter().rev().find(|(position, _)| counted.get(*position) == Some(&false));
        self.exemplify(ledger, took, traced.map(|(_, span)| span));
    }

    /// The task that held a batch is gone before the application took the batch.
    pub(super) fn abandoned(&self, queue: QueueKind, kinds: &[MessageKind]) {
        let mut state = self.lock();
        let State { ledger, queues, .. } = &mut *state;
        let queue = &mut queues[queue];
        queue.processing = 0;
        queue.processing_bytes = 0;
        // The task is gone, perhaps by a panic of the application. The next messages start another one.
        queue.running = false;
        for kind in kinds {
            ledger.rejected(*kind, RejectReason::Stopped);
        }
    }
}

impl State {
    fn reject_waiting(&mut self, reason: RejectReason) {
        for queue in self.queues.values_mut() {
            mem::take(&mut queue.batch).reject(&mut self.ledger, reason);
        }
    }

    fn refusal(&self) -> Option<RejectReason> {
        if self.closed { Some(RejectReason::Stopped) } else { self.paused.then_some(RejectReason::Paused) }
    }

    /// Queues messages in their order. Returns how many found no room.
    fn push(&mut self, channel: Channel, decoded: &mut Decoded, limits: &Limits, tracer: &Tracer<'_>) -> u64 {
        let Decoded { messages, sizes, .. } = decoded;
        let mut verdicts = mem::take(&mut self.verdicts);
        let sized = messages.iter().zip(sizes.drain(..));
        verdicts.extend(sized.map(|(message, size)| self.admit(channel, message, size, limits, tracer)));
        let full = verdicts.iter().filter(|verdict| **verdict == QueueVerdict::Full).count();
        let regular = &mut self.queues[QueueKind::Regular].batch.messages;
        if verdicts.iter().any(|verdict| *verdict != QueueVerdict::Queued(QueueKind::Regular)) {
            for (message, verdict) in messages.drain(..).zip(&verdicts) {
                if let QueueVerdict::Queued(queue) = verdict {
                    self.queues[*queue].batch.messages.push(message);
                }
            }
        } else if regular.is_empty() {
            // This is the usual case: a message is large to move, and these are already in the right order.
            mem::swap(regular, messages);
        } else {
            regular.append(messages);
        }
        verdicts.clear();
        self.verdicts = verdicts;
        full as u64
    }

    /// Enters a message into the ledger, and into its queue's batch except for the message itself.
    fn admit(
        &mut self,
        channel: Channel,
        message: &Message,
        size: usize,
        limits: &Limits,
        tracer: &Tracer<'_>,
    ) -> QueueVerdict {
        let kind = MessageKind::of(message.r#type);
        let span = tracer.receive_span(message, channel, size);
        let failed = |reason: RejectReason| {
            if let Some(span) = &span {
                span.failed(reason.label());
            }
        };
        self.ledger.received(channel, kind, size as u64);
        if let Some(reason) = self.refusal() {
            self.ledger.rejected(kind, reason);
            failed(reason);
            return QueueVerdict::Unwanted;
        }
        let to = if kind == MessageType::MsgProp { QueueKind::Proposals } else { QueueKind::Regular };
        let queue = &mut self.queues[to];
        let bytes = queue.batch.bytes + queue.processing_bytes;
        let waiting = queue.waiting();
        let memory = memory_size(message, size);
        if waiting >= limits.receive_queue || (waiting > 0 && bytes + memory > limits.queue_bytes) {
            self.ledger.rejected(kind, RejectReason::QueueFull);
            failed(RejectReason::QueueFull);
            return QueueVerdict::Full;
        }
        let batch = &mut queue.batch;
        if let Some(span) = span {
            batch.spans.push((batch.kinds.len(), span));
        }
        batch.bytes += memory;
        batch.kinds.push(kind);
        QueueVerdict::Queued(to)
    }
}

impl InboxQueue {
    fn waiting(&self) -> usize {
        self.batch.kinds.len() + self.processing
    }
}

impl InboxBatch {
    pub(super) fn source(&self) -> Source {
        if self.unconfirmed { Source::Anyone } else { Source::Member }
    }

    fn reject(self, ledger: &mut Live<Incoming>, reason: RejectReason) {
        for kind in self.kinds {
            ledger.rejected(kind, reason);
        }
        for (_, span) in self.spans {
            span.failed(reason.label());
        }
    }
}

impl From<RejectionKind> for RejectReason {
    fn from(kind: RejectionKind) -> Self {
        match kind {
            RejectionKind::Refused => Self::Refused,
            RejectionKind::Failed => Self::Failed,
        }
    }
}
