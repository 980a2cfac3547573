//! What goes to a peer.

use std::time::{Duration, SystemTime};

use super::{
    Channel, DropReason, Exemplar, Histogram, Live, MessageKind, PerChannel, PerDropReason, PerKind, PerStream, Tally,
};
use crate::wire::{message::LINK_HEARTBEAT_SIZE, stream::StreamKind};

/// What went to a peer: a copy of the ledger that lies behind the lock of its queues.
#[derive(Clone, Debug, Default)]
pub struct Outgoing {
    /// Handed to `send` or `send_snapshot`, by type.
    pub offered: PerKind<u64>,
    /// Given to a connection, or answered with success; by channel and type.
    pub sent: PerChannel<PerKind<u64>>,
    /// Given up, by type, channel and reason.
    pub dropped: Tally<(MessageKind, Channel, DropReason)>,
    /// Not yet ended, by channel. Measured when the copy is made.
    pub queued: PerChannel<u64>,
    /// From `send` to written, by channel.
    pub queue_seconds: PerChannel<Histogram>,
    /// Bytes of frames, link heartbeats included, by channel (`Snapshot`: envelope and body).
    pub bytes: PerChannel<u64>,
    /// Protobuf size of the whole messages, link heartbeats included, and the bodies of snapshots that were delivered:
    /// etcd's `peer_sent_bytes_total`.
    pub etcd_bytes: u64,
    /// Messages written to the peer's streams before the newest probe and not known to be read, by stream channel
    /// (`MsgApp`, `Message`). None: the peer has not said what it has read on them.
    pub unconfirmed: PerStream<Option<u64>>,
    /// Messages written to streams that ended, and never read; by stream channel.
    pub lost: PerStream<u64>,
    /// From appends that were sent to the answers that cover them.
    pub append_round_trip: Histogram,
    /// When a frame last went out, on the two stream channels.
    pub last_frame: PerStream<Option<SystemTime>>,
}

impl Outgoing {
    /// The sum of a ledger's side: sent + dropped + queued. The first law says that it is the sum of `offered`.
    pub fn accounted(&self) -> u64 {
        self.sent.total() + self.dropped.total() + self.queued.total()
    }

    /// Whether the first law holds.
    pub fn balances(&self) -> bool {
        self.offered.total() == self.accounted()
    }
}

impl Live<Outgoing> {
    /// A message was handed over.
    #[inline]
    pub(crate) fn offered(&mut self, kind: MessageKind) {
        self.0.offered[kind] += 1;
    }

    /// So many messages of a kind were given to a connection, or answered with success, this long after they had been
    /// handed over. `size` is their protobuf size; a snapshot's includes its body.
    #[inline]
    pub(crate) fn sent(&mut self, channel: Channel, kind: MessageKind, messages: u64, size: u64, took: Duration) {
        self.0.sent[channel][kind] += messages;
        self.0.etcd_bytes += size;
        self.0.queue_seconds[channel].observe_many(took, messages);
    }

    /// A message that was sent is traced: the exemplar of the time that it was told to take.
    pub(crate) fn sent_in_trace(&mut self, channel: Channel, exemplar: Exemplar) {
        self.0.queue_seconds[channel].exemplify(exemplar);
    }

    /// So many messages of a kind were given up.
    #[inline]
    pub(crate) fn dropped(&mut self, channel: Channel, kind: MessageKind, reason: DropReason, messages: u64) {
        self.0.dropped.add((kind, channel, reason), messages);
    }

    /// Bytes of a request went out, whatever came of it.
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

    /// A link heartbeat goes out. It is no message of raft's: it is counted nowhere but in the bytes.
    #[inline]
    pub(crate) fn heartbeat(&mut self) {
        self.0.etcd_bytes += LINK_HEARTBEAT_SIZE;
    }

    /// The peer has answered an append, this long after it was sent.
    #[inline]
    pub(crate) fn acknowledged(&mut self, took: Duration) {
        self.0.append_round_trip.observe(took);
    }

    /// An append that the peer has answered is traced: the exemplar of the time that it was told to take.
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

    /// A copy, with what is measured where it lies: what is queued, and what is known of what was written and not read.
    pub(crate) fn copy(
        &self,
        queued: PerChannel<u64>,
        unconfirmed: PerStream<Option<u64>>,
        lost: PerStream<u64>,
    ) -> Outgoing {
        Outgoing { queued, unconfirmed, lost, ..self.0.clone() }
    }
}
