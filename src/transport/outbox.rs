//! Messages to one peer: the queues of its two streams and of its pipeline, and their ledger, behind one lock.
//!
//! A message is encoded when it is queued, into the buffer of the stream that will carry it. So the body of the
//! stream's answer ([`StreamBody`](super::writer::StreamBody)) only has to pass bytes to the connection. A message
//! counts as *queued* until its last byte was passed on.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use tokio::time::Instant;

use crate::{
    id::MemberId,
    ledger::{Channel, DropReason, Exemplar, Live, MessageKind, Outgoing, PerChannel, PerStream},
    telemetry::{self, MessageSpan, Sampler},
    transport::{
        appends::{Acknowledgement, Append, Appends},
        limits::Limits,
        pace::Pace,
        summary::DroppedByReason,
        unread::Unread,
    },
    wire::{
        message::message_size,
        msgappv2::WritePlan,
        probing::ReadStream,
        raftpb::{Message, MessageType},
        stream::{StreamEncoder, StreamId, StreamKind},
    },
    world::World,
};

mod notices;
mod pipeline;
mod writer;

pub(crate) use notices::{Handover, Notices};
pub(crate) use pipeline::{Pipeline, Posting};
use writer::{Heartbeats, StreamWriter};

/// The queues to one peer and their ledger.
pub(crate) struct Outbox {
    state: Mutex<State>,
    world: World,
}

struct State {
    ledger: Live<Outgoing>,
    streams: PerStream<Option<StreamWriter>>,
    /// Numbers the attachments, so that a body knows whether it is still the current one.
    attachments: u64,
    pipeline: Pipeline,
    snapshots: u64,
    appends: Appends,
    unread: PerStream<Unread>,
    heartbeats: Heartbeats,
    paused: bool,
    closed: Option<DropReason>,
}

/// The span of a message that is sent, if the message is traced.
pub(crate) fn send_span(sampler: &Sampler, message: &Message, channel: Channel, size: usize) -> Option<MessageSpan> {
    let span = telemetry::send_span(sampler.sample(message)?, message, size);
    span.channel(channel);
    Some(span)
}

/// What a stream does next.
pub(crate) enum Turn {
    /// Writes these bytes to the connection.
    Write(Bytes),
    /// Ends the body, because the stream is not the current one any more.
    End,
}

impl Outbox {
    pub(crate) fn new(world: &World, pace: &Arc<Pace>) -> Self {
        Self {
            world: world.clone(),
            state: Mutex::new(State {
                ledger: Live::default(),
                streams: PerStream::default(),
                attachments: 0,
                pipeline: Pipeline::default(),
                snapshots: 0,
                appends: Appends::default(),
                unread: Default::default(),
                heartbeats: Heartbeats::new(pace),
                paused: false,
                closed: None,
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every critical section leaves the counters complete, so a panic elsewhere in one is no reason to stop
        // counting.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues messages for this peer, in their order.
    pub(super) fn push(&self, messages: &[Message], now: Instant, limits: &Limits, sampler: &Sampler) -> Handover {
        let mut handover = Handover::default();
        let mut state = self.lock();
        for message in messages {
            state.push(message, now, limits, sampler, &mut handover);
        }
        for (stream, waker) in state.streams.values_mut().zip(handover.notices.wakers.values_mut()) {
            if let Some(writer) = stream
                && !writer.frames.is_empty()
            {
                *waker = writer.waker.take();
            }
        }
        drop(state);
        handover
    }

    /// Makes a new stream the current one of this channel, and ends the one before, if there is one. Returns the number
    /// of the attachment, and whether there was a stream before. `None` if the outbox is closed.
    pub(super) fn attach(
        &self,
        kind: StreamKind,
        local: MemberId,
        remote: MemberId,
        address: Option<SocketAddr>,
        id: Option<StreamId>,
    ) -> (Option<(u64, bool)>, Notices) {
        let mut notices = Notices::default();
        let mut state = self.lock();
        if state.closed.is_some() {
            return (None, notices);
        }
        let state = &mut *state;
        let replaced = state.detach(kind, DropReason::StreamLost, &mut notices);
        state.attachments += 1;
        let encoder = StreamEncoder::new(kind, local, remote);
        state.streams[kind] = Some(StreamWriter::new(state.attachments, encoder, address, id));
        (Some((state.attachments, replaced)), notices)
    }

    /// Ends a stream if it is still the current one. Returns whether it was.
    pub(super) fn detach(&self, kind: StreamKind, attachment: u64) -> (bool, Notices) {
        let mut notices = Notices::default();
        let mut state = self.lock();
        let current = state.streams[kind].as_ref().is_some_and(|writer| writer.attachment == attachment);
        if current {
            state.detach(kind, DropReason::StreamLost, &mut notices);
        }
        (current, notices)
    }

    /// Ends both streams cleanly, so that the peer dials again. Returns which were open.
    pub(super) fn detach_all(&self) -> (PerStream<bool>, Notices) {
        let mut notices = Notices::default();
        let mut state = self.lock();
        let open = PerStream::new(|kind| state.detach(kind, DropReason::StreamLost, &mut notices));
        (open, notices)
    }

    /// What a stream writes next: the queued messages, or a link heartbeat if one is due.
    pub(crate) fn poll(
        &self,
        kind: StreamKind,
        attachment: u64,
        heartbeat_due: bool,
        context: &mut Context<'_>,
    ) -> Poll<Turn> {
        let mut state = self.lock();
        let State { ledger, streams, appends, heartbeats, .. } = &mut *state;
        let Some(writer) = streams[kind].as_mut().filter(|writer| writer.attachment == attachment) else {
            return Poll::Ready(Turn::End);
        };
        if heartbeat_due {
            writer.encoder.heartbeat(&mut writer.frames);
            ledger.heartbeat();
        }
        match writer.frames.pop() {
            Some(bytes) => {
                let time = self.world.now();
                ledger.wrote_frames(kind, bytes.len() as u64, time);
                writer.account(bytes.len() as u64, kind.channel(), time, ledger, appends, heartbeats);
                Poll::Ready(Turn::Write(bytes))
            }
            None => {
                if !writer.waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
                    writer.waker = Some(context.waker().clone());
                }
                Poll::Pending
            }
        }
    }

    /// The next message for a pipeline worker. `None` if there is none, and the worker ends.
    pub(crate) fn next_posting(&self) -> Option<Posting> {
        let mut state = self.lock();
        let posting = state.pipeline.next()?;
        if let Some(append) = Append::of(&posting.message) {
            let now = Instant::now();
            state.appends.sent(append, now);
            if let Some(context) = posting.span.as_ref().and_then(MessageSpan::context) {
                state.appends.traced(append, now, context);
            }
        }
        Some(posting)
    }

    /// A posting has ended: sent or given up.
    pub(crate) fn posted(&self, posting: Posting, outcome: Result<(), DropReason>) {
        let kind = MessageKind::of(posting.message.r#type);
        let mut state = self.lock();
        state.pipeline.ended(&posting);
        match outcome {
            Ok(()) => {
                let size = posting.size as u64;
                state.ledger.wrote(Channel::Pipeline, size);
                let took = posting.waited();
                state.ledger.sent(Channel::Pipeline, kind, 1, size, took);
                self.exemplify(&mut state.ledger, Channel::Pipeline, took, posting.span.as_ref());
            }
            Err(reason) => {
                // A request that was cut off by the end of the peer is counted under the reason for that end.
                let reason = state.closed.unwrap_or(reason);
                state.ledger.dropped(Channel::Pipeline, kind, reason, 1);
                state.appends.forget();
                if let Some(span) = posting.span {
                    span.failed(reason.label());
                }
            }
        }
    }

    /// A probe of the peer starts.
    pub(crate) fn probe_starts(&self) {
        let mut state = self.lock();
        let State { unread, streams, .. } = &mut *state;
        for kind in StreamKind::ALL {
            unread[kind].probe_starts(streams[kind].as_mut().and_then(|writer| writer.tracked.as_mut()));
        }
    }

    /// A probe has ended. `said` is how far the peer has read our streams, if it said so.
    pub(crate) fn probe_ended(&self, said: Option<&[ReadStream]>) {
        let mut state = self.lock();
        let State { unread, streams, .. } = &mut *state;
        for kind in StreamKind::ALL {
            unread[kind].probe_ended(kind, streams[kind].as_mut().and_then(|writer| writer.tracked.as_mut()), said);
        }
    }

    /// The peer has answered appends.
    pub(crate) fn acknowledged(&self, by: Acknowledgement) {
        let mut state = self.lock();
        let State { ledger, appends, .. } = &mut *state;
        if !appends.is_idle() {
            appends.acknowledged(by, Instant::now(), |took, context| {
                ledger.acknowledged(took);
                if let Some(context) = context {
                    ledger.acknowledged_in_trace(Exemplar::new(context, took, self.world.now()));
                }
            });
        }
    }

    /// How many messages were dropped, by reason.
    pub(super) fn dropped(&self) -> DroppedByReason {
        self.lock().ledger.drops()
    }

    /// Which streams are open.
    pub(crate) fn open(&self) -> PerStream<bool> {
        let state = self.lock();
        state.streams.map(Option::is_some)
    }

    /// Enters a snapshot into the ledger. On an error, it cannot be sent, and is counted as dropped.
    pub(crate) fn begin_snapshot(&self, message: &Message, limits: &Limits) -> Result<(), DropReason> {
        let kind = MessageKind::of(message.r#type);
        let mut state = self.lock();
        state.ledger.offered(kind);
        let refusal = match (state.closed, state.paused) {
            (Some(reason), _) => Some(reason),
            (None, true) => Some(DropReason::Paused),
            (None, false) if message_size(message) as u64 > limits.snapshot_envelope_bytes => {
                Some(DropReason::TooLarge)
            }
            (None, false) => (state.snapshots >= limits.snapshots as u64).then_some(DropReason::QueueFull),
        };
        if let Some(reason) = refusal {
            state.ledger.dropped(Channel::Snapshot, kind, reason, 1);
            return Err(reason);
        }
        state.snapshots += 1;
        Ok(())
    }

    /// A snapshot has ended. `size` is the size of its message and its body, `bytes` is everything that went out, and
    /// `span` is the span of its message if that is traced.
    pub(crate) fn end_snapshot(
        &self,
        kind: MessageKind,
        since: Instant,
        size: u64,
        bytes: u64,
        span: Option<&MessageSpan>,
        outcome: Result<(), DropReason>,
    ) {
        let mut state = self.lock();
        state.snapshots -= 1;
        state.ledger.wrote(Channel::Snapshot, bytes);
        match outcome {
            Ok(()) => {
                let took = since.elapsed();
                state.ledger.sent(Channel::Snapshot, kind, 1, size, took);
                self.exemplify(&mut state.ledger, Channel::Snapshot, took, span);
            }
            Err(reason) => {
                let reason = state.closed.unwrap_or(reason);
                state.ledger.dropped(Channel::Snapshot, kind, reason, 1);
            }
        }
    }

    /// A sent message becomes the exemplar of its time, if it is traced.
    fn exemplify(&self, ledger: &mut Live<Outgoing>, channel: Channel, took: Duration, span: Option<&MessageSpan>) {
        if let Some(context) = span.and_then(MessageSpan::context) {
            ledger.sent_in_trace(channel, Exemplar::new(context, took, self.world.now()));
        }
    }

    /// Sets whether messages are dropped from now on.
    pub(crate) fn set_paused(&self, paused: bool) {
        self.lock().paused = paused;
    }

    /// Whether messages are dropped.
    pub(crate) fn is_paused(&self) -> bool {
        self.lock().paused
    }

    /// Ends everything: queued messages, and all later ones, are dropped for this reason. Returns which streams were
    /// open.
    pub(super) fn close(&self, reason: DropReason) -> (PerStream<bool>, Notices) {
        let mut notices = Notices::default();
        let mut state = self.lock();
        if state.closed.is_some() {
            return (PerStream::default(), notices);
        }
        state.closed = Some(reason);
        let open = PerStream::new(|kind| state.detach(kind, reason, &mut notices));
        let State { ledger, pipeline, .. } = &mut *state;
        for posting in pipeline.clear() {
            let kind = MessageKind::of(posting.message.r#type);
            ledger.dropped(Channel::Pipeline, kind, reason, 1);
            notices.given_up(kind);
            if let Some(span) = posting.span {
                span.failed(reason.label());
            }
        }
        (open, notices)
    }

    /// A copy of the ledger, with the queued messages as they are now.
    pub(crate) fn ledger(&self) -> Outgoing {
        let state = self.lock();
        let queued = PerChannel::new(|channel| match channel {
            Channel::MsgApp => state.queued(StreamKind::MsgApp),
            Channel::Message => state.queued(StreamKind::Message),
            Channel::Pipeline => state.pipeline.messages() as u64,
            Channel::Snapshot => state.snapshots,
        });
        state.ledger.copy(queued, state.unread.map(Unread::unconfirmed), state.unread.map(Unread::lost))
    }
}

impl State {
    /// How many messages are queued for a stream.
    fn queued(&self, kind: StreamKind) -> u64 {
        self.streams[kind].as_ref().map_or(0, |writer| writer.messages as u64)
    }

    fn push(&mut self, message: &Message, now: Instant, limits: &Limits, sampler: &Sampler, handover: &mut Handover) {
        let kind = MessageKind::of(message.r#type);
        self.ledger.offered(kind);
        let channel = self.channel(kind);
        let plan = match channel.stream().and_then(|kind| self.streams[kind].as_ref()) {
            Some(writer) => writer.encoder.plan(message),
            None => WritePlan::whole(message),
        };
        let size = plan.size;
        let span = send_span(sampler, message, channel, size);
        if let Err(reason) = self.admit(channel, message, size, limits) {
            self.ledger.dropped(channel, kind, reason, 1);
            if let Some(span) = span {
                span.failed(reason.label());
            }
            handover.queue_full += u64::from(reason == DropReason::QueueFull);
            // A paused peer gets the impression of a network that swallows messages, so raft is told nothing (etcd's
            // `peer.send`).
            if reason != DropReason::Paused || kind == MessageType::MsgSnap {
                handover.notices.given_up(kind);
            }
            return;
        }
        match channel.stream().and_then(|kind| self.streams[kind].as_mut()) {
            Some(writer) => writer.push(message, plan, kind, now, span),
            None => {
                let posting = Posting { message: message.clone(), size, since: now, span };
                handover.workers += usize::from(self.pipeline.push(posting));
            }
        }
    }

    /// As etcd's `peer.pick`: snapshots go by request, appends by their own stream, and all other messages by the other
    /// stream. If that stream is not open, the next best way is taken.
    fn channel(&self, kind: MessageKind) -> Channel {
        if kind == MessageType::MsgSnap {
            Channel::Pipeline
        } else if kind == MessageType::MsgApp && self.streams[StreamKind::MsgApp].is_some() {
            Channel::MsgApp
        } else if self.streams[StreamKind::Message].is_some() {
            Channel::Message
        } else {
            Channel::Pipeline
        }
    }

    fn admit(&self, channel: Channel, message: &Message, size: usize, limits: &Limits) -> Result<(), DropReason> {
        if let Some(reason) = self.closed {
            return Err(reason);
        }
        if self.paused {
            return Err(DropReason::Paused);
        }
        if size as u64 > limits.message_bytes || message.entries.len() as u64 > limits.entries {
            return Err(DropReason::TooLarge);
        }
        let (messages, bytes, most) = match channel.stream().and_then(|kind| self.streams[kind].as_ref()) {
            Some(writer) => (writer.messages, writer.frames.len(), limits.stream_queue),
            None => (self.pipeline.messages(), self.pipeline.bytes(), limits.pipeline_queue),
        };
        // A single message above the limit still passes through an empty queue, because nothing else could carry it.
        if messages >= most || (messages > 0 && bytes + size > limits.queue_bytes) {
            return Err(DropReason::QueueFull);
        }
        Ok(())
    }

    /// Removes a stream and drops the messages queued for it. Returns whether it was open.
    fn detach(&mut self, kind: StreamKind, reason: DropReason, notices: &mut Notices) -> bool {
        let Some(mut writer) = self.streams[kind].take() else { return false };
        self.appends.forget();
        if let Some(tracked) = writer.tracked {
            self.unread[kind].ended(tracked);
        }
        for run in writer.runs.drain(..) {
            self.ledger.dropped(kind.channel(), run.kind, reason, run.messages);
            notices.given_up(run.kind);
        }
        for traced in writer.traced.drain(..) {
            traced.span.failed(reason.label());
        }
        notices.wakers[kind] = writer.waker.take();
        true
    }
}
