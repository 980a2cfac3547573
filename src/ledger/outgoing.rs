//! Messages to a peer.

use std::time::{Duration, SystemTime};

use super::{
    Channel, DropReason, Exemplar, Histogram, Live, MessageKind, PerChannel, PerDropReason, PerKind, PerStream, Tally,
};
use crate::wire::{message::LINK_HEARTBEAT_SIZE, stream::StreamKind};

/// Counts of the messages to a peer: a copy of the ledger behind the lock of the send queues.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Outgoing {
    /// Messages handed to `send` or `send_snapshot`, by type.
    pub offered: PerKind<u64>,
    /// Messages given to a stream's connection, or answered with success, by channel and type.
    pub sent: PerChannel<PerKind<u64>>,
    /// Messages given up, by type, channel and reason.
    pub dropped: Tally<(MessageKind, Channel, DropReason)>,
    /// Messages neither sent nor dropped yet, by channel. Measured when the copy is made.
    pub queued: PerChannel<u64>,
    /// The time from `send` until the message is written, by channel.
    pub queue_seconds: PerChannel<Histogram>,
    /// Bytes of frames, link heartbeats included, by channel (`Snapshot`: envelope and body).
    pub bytes: PerChannel<u64>,
    /// Protobuf size of the whole messages, link heartbeats included, and the bodies of snapshots that were delivered:
    /// etcd's `peer_sent_bytes_total`.
    pub etcd_bytes: u64,
    /// Messages that were written to the peer's streams before the newest probe, and that the peer has not confirmed as
    /// read, by stream channel (`MsgApp`, `Message`). `None` if the peer does not say what it has read on them.
    pub unconfirmed: PerStream<Option<u64>>,
    /// Messages that were written to streams that have ended, and that the peer never read, by stream channel.
    pub lost: PerStream<u64>,
    /// The time from sending an append to the answer that covers it.
    pub append_round_trip: Histogram,
    /// When a frame last went out, on the two stream channels.
    pub last_frame: PerStream<Option<SystemTime>>,
}

impl Outgoing {
    /// sent + dropped + queued. The first law of the ledger says that this is the sum of `offered`.
    pub fn accounted(&self) -> u64 {
        self.sent.total() + self.dropped.total() + self.queued.total()
    }

    /// Whether the first law of the ledger holds.
    pub fn balances(&self) -> bool {
        self.offered.total() == self.accounted()
    }
}

impl Live<Outgoing> {
    /// A message was handed to `send` or `send_snapshot`.
    #[inline]
    pub(crate) fn offered(&mut self, kind: MessageKind) {
        self.0.offered[kind] += 1;
    }

    /// Messages of one kind were given to a connection, or answered with success, this long after they had been handed
    /// over. `size` is their protobuf size; for a snapshot it includes the body.
    #[inline]
    pub(crate) fn sent(&mut self, channel: Channel, kind: MessageKind, messages: u64, size: u64, took: Duration) {
        self.0.sent[channel][kind] += messages;
        self.0.etcd_bytes += size;
        self.0.queue_seconds[channel].observe_many(took, messages);
    }

    /// A sent message is traced: stores the exemplar of the time that was observed for it.
    pub(crate) fn sent_in_trace(&mut self, channel: Channel, exemplar: Exemplar) {
        self.0.queue_seconds[channel].exemplify(exemplar);
    }

    /// This many messages of a kind were given up.
    #[inline]
    pub(crate) fn dropped(&mut self, channel: Channel, kind: MessageKind, reason: DropReason, messages: u64) {
        self.0.dropped.add((kind, channel, reason), messages);
    }

    /// Bytes of a request went out, whether or not the request succeeded.
    #[inline]
    pub(crate) fn wrote(&mut self, channel: Channel, bytes: u64) {
        self.0.bytes[channel] += bytes;
    }

    /// Bytes of frames were given to a stream's connection.
    #[inline]
    pub(crate) fn wrote_frames(&mut self, stream: StreamKind, bytes: u64, now: SystemTime) {
        self.wrote(stream.channel(), bytes);
        self.0.last_frame[stream] = Some(now);
    }

    /// A link heartbeat goes out. It is not a raft message, so it is counted only in the bytes.
    #[inline]
    pub(crate) fn heartbeat(&mut self) {
        self.0.etcd_bytes += LINK_HEARTBEAT_SIZE;
    }

    /// The peer has answered an append, this long after it was sent.
    #[inline]
    pub(crate) fn acknowledged(&mut self, took: Duration) {
        self.0.append_round_trip.observe(took);
    }

    /// An answered append is traced: stores the exemplar of the time that was observed for it.
    pub(crate) fn acknowledged_in_trace(&mut self, exemplar: Exemplar) {
        self.0.append_round_trip.exemplify(exemplar);
    }

    /// How many messages were dropped, by reason.
    pub(crate) fn drops(&self) -> PerDropReason<u64> {
        let mut drops = PerDropReason::default();
        for ((_, _, reason), count) in self.0.dropped.iter() {
            drops[reason] += count;
        }
        drops
    }

    /// A copy. The arguments are measured by the parts that hold the messages: what is queued, and what was written but
    /// not read.
    pub(crate) fn copy(
        &self,
        queued: PerChannel<u64>,
        unconfirmed: PerStream<Option<u64>>,
        lost: PerStream<u64>,
    ) -> Outgoing {
        Outgoing { queued, unconfirmed, lost, ..self.0.clone() }
    }
}
