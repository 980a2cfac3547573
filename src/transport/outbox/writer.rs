//! The queue of one open stream, encoded in the form in which it will be written.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::Arc,
    task::Waker,
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use crate::{
    ledger::{Channel, Exemplar, Live, MessageKind, Outgoing},
    telemetry::MessageSpan,
    transport::{
        appends::{Append, Appends},
        pace::Pace,
        unread::Tracked,
    },
    wire::{
        frames::FrameBuffer,
        msgappv2::WritePlan,
        raftpb::{Message, MessageType},
        stream::{StreamEncoder, StreamId},
    },
};

/// The sending side of one open stream.
pub(super) struct StreamWriter {
    pub(super) attachment: u64,
    /// The other end of its connection, if known.
    pub(super) address: Option<SocketAddr>,
    /// The stream, if its reader sent an ID and there will be a probe that asks for it. `None` otherwise.
    pub(super) tracked: Option<Tracked>,
    pub(super) encoder: StreamEncoder,
    pub(super) frames: FrameBuffer,
    /// How many of all bytes put into `frames` were passed to the connection.
    pub(super) yielded: u64,
    /// Messages that are not passed on yet, in order.
    pub(super) runs: VecDeque<Run>,
    pub(super) messages: usize,
    /// Those of them that are traced, in order.
    pub(super) traced: VecDeque<Traced>,
    pub(super) waker: Option<Waker>,
}

/// Messages of one kind that came with one call of `send`.
pub(super) struct Run {
    /// Where the last of them ends in the stream.
    pub(super) end: u64,
    pub(super) kind: MessageKind,
    pub(super) messages: u64,
    /// Their protobuf size.
    pub(super) size: u64,
    pub(super) since: Instant,
    /// The last append, if they are appends.
    pub(super) append: Option<Append>,
}

/// A traced message.
pub(super) struct Traced {
    /// Where it ends in the stream.
    end: u64,
    since: Instant,
    append: Option<Append>,
    pub(super) span: MessageSpan,
}

/// How long raft's heartbeats to this peer are queued, for the pace of snapshots.
#[derive(Debug)]
pub(super) struct Heartbeats {
    pace: Arc<Pace>,
    /// How long heartbeats are queued while no snapshot goes out.
    usual: Duration,
}

impl Heartbeats {
    pub(super) fn new(pace: &Arc<Pace>) -> Self {
        Self { pace: pace.clone(), usual: Duration::ZERO }
    }

    /// Messages were given to the connection after this time in the queue.
    #[inline]
    fn left(&mut self, kind: MessageKind, waited: Duration) {
        if kind == MessageType::MsgHeartbeat || kind == MessageType::MsgHeartbeatResp {
            self.pace.heartbeat_left(waited, &mut self.usual);
        }
    }
}

impl StreamWriter {
    pub(super) fn new(
        attachment: u64,
        encoder: StreamEncoder,
        address: Option<SocketAddr>,
        id: Option<StreamId>,
    ) -> Self {
        Self {
            attachment,
            address,
            tracked: id.map(Tracked::new),
            encoder,
            frames: FrameBuffer::new(),
            yielded: 0,
            runs: VecDeque::new(),
            messages: 0,
            traced: VecDeque::new(),
            waker: None,
        }
    }

    /// Encodes a message after those that are queued.
    pub(super) fn push(
        &mut self,
        message: &Message,
        plan: WritePlan,
        kind: MessageKind,
        since: Instant,
        span: Option<MessageSpan>,
    ) {
        self.encoder.write(message, plan, &mut self.frames);
        let size = plan.size as u64;
        let end = self.frames.produced();
        let append = Append::of(message);
        self.messages += 1;
        match self.runs.back_mut() {
            // A run stays within one piece, because it is passed on as a whole.
            Some(run) if run.kind == kind && run.since == since && run.end > self.frames.sealed() => {
                run.end = end;
                run.messages += 1;
                run.size += size;
                run.append = append;
            }
            _ => self.runs.push_back(Run { end, kind, messages: 1, size, since, append }),
        }
        if let Some(span) = span {
            if let Some(address) = self.address {
                span.address(address);
            }
            self.traced.push_back(Traced { end, since, append, span });
        }
    }

    /// Moves the messages whose last byte was passed on at `time` from *queued* to *sent*.
    pub(super) fn account(
        &mut self,
        bytes: u64,
        channel: Channel,
        time: SystemTime,
        ledger: &mut Live<Outgoing>,
        appends: &mut Appends,
        heartbeats: &mut Heartbeats,
    ) {
        let now = Instant::now();
        self.yielded += bytes;
        while let Some(run) = self.runs.front() {
            if run.end > self.yielded {
                break;
            }
            ledger.sent(channel, run.kind, run.messages, run.size, now - run.since);
            heartbeats.left(run.kind, now - run.since);
            self.messages -= usize::try_from(run.messages).unwrap_or(self.messages);
            if let Some(tracked) = &mut self.tracked {
                tracked.written += run.messages;
            }
            if let Some(append) = run.append {
                appends.sent(append, now);
            }
            self.runs.pop_front();
        }
        while let Some(traced) = self.traced.pop_front_if(|traced| traced.end <= self.yielded) {
            let Some(context) = traced.span.context() else { continue };
            ledger.sent_in_trace(channel, Exemplar::new(context, now - traced.since, time));
            if let Some(append) = traced.append {
                appends.traced(append, now, context);
            }
        }
    }
}
