//! Messages from a peer.

use std::time::{Duration, SystemTime};

use super::{
    Channel, Exemplar, Histogram, Live, MessageKind, PerChannel, PerKind, PerRejectReason, PerStream, RejectReason,
    Tally,
};
use crate::wire::{message::LINK_HEARTBEAT_SIZE, stream::StreamKind};

/// Counts of the messages from a peer: a copy of the ledger behind the lock of the receive queues.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Incoming {
    /// Messages decoded from the wire, by channel and type.
    pub received: PerChannel<PerKind<u64>>,
    /// Messages received, and not yet processed or rejected. Measured when the copy is made.
    pub waiting: u64,
    /// Messages that the application took, by type.
    pub processed: PerKind<u64>,
    /// Messages that the application did not take, by type and reason.
    pub rejected: Tally<(MessageKind, RejectReason)>,
    /// Frames and requests that could not be read, by channel and kind of error.
    pub frame_errors: Tally<(Channel, &'static str)>,
    /// How long the application took for a batch.
    pub process_seconds: Histogram,
    /// Bytes of frames, link heartbeats included, by channel.
    pub bytes: PerChannel<u64>,
    /// Protobuf size of the whole messages, link heartbeats included, and the bodies of snapshots that were saved:
    /// etcd's `peer_received_bytes_total`.
    pub etcd_bytes: u64,
    /// When a frame was last read, on the two stream channels.
    pub last_frame: PerStream<Option<SystemTime>>,
}

impl Incoming {
    /// Whether the second law of the ledger holds.
    pub fn balances(&self) -> bool {
        let ended = self.processed.total() + self.rejected.total() + self.waiting;
        self.received.total() == ended
    }
}

impl Live<Incoming> {
    /// A message was decoded; `size` is its protobuf size.
    #[inline]
    pub(crate) fn received(&mut self, channel: Channel, kind: MessageKind, size: u64) {
        self.0.received[channel][kind] += 1;
        self.0.etcd_bytes += size;
    }

    /// The application took messages of these kinds. `took` is the time for all of them together.
    #[inline]
    pub(crate) fn processed(&mut self, kinds: impl IntoIterator<Item = MessageKind>, took: Duration) {
        let mut some = false;
        for kind in kinds {
            self.0.processed[kind] += 1;
            some = true;
        }
        if some {
            self.0.process_seconds.observe(took);
        }
    }

    /// A processed message is traced: stores the exemplar of the time that was observed for its batch.
    pub(crate) fn processed_in_trace(&mut self, exemplar: Exemplar) {
        self.0.process_seconds.exemplify(exemplar);
    }

    /// A message was rejected.
    #[inline]
    pub(crate) fn rejected(&mut self, kind: MessageKind, reason: RejectReason) {
        self.0.rejected.add((kind, reason), 1);
    }

    /// A frame or request could not be read. `kind` says why.
    pub(crate) fn unreadable(&mut self, channel: Channel, kind: &'static str) {
        self.0.frame_errors.add((channel, kind), 1);
    }

    /// Bytes of a request were read, whether or not the request succeeds.
    #[inline]
    pub(crate) fn read_bytes(&mut self, channel: Channel, bytes: u64) {
        self.0.bytes[channel] += bytes;
    }

    /// Bytes of frames were read from a stream, with this many link heartbeats among them.
    #[inline]
    pub(crate) fn read_frames(&mut self, stream: StreamKind, bytes: u64, heartbeats: u64, now: SystemTime) {
        self.read_bytes(stream.channel(), bytes);
        self.0.etcd_bytes += heartbeats * LINK_HEARTBEAT_SIZE;
        self.0.last_frame[stream] = Some(now);
    }

    /// A snapshot's body of this many bytes was saved completely.
    pub(crate) fn saved(&mut self, bytes: u64) {
        self.0.etcd_bytes += bytes;
    }

    /// How many messages were rejected, by reason.
    pub(crate) fn rejections(&self) -> PerRejectReason<u64> {
        let mut rejections = PerRejectReason::default();
        for ((_, reason), count) in self.0.rejected.iter() {
            rejections[reason] += count;
        }
        rejections
    }

    /// A copy. `waiting` is measured by the queues that hold the messages.
    pub(crate) fn copy(&self, waiting: u64) -> Incoming {
        Incoming { waiting, ..self.0.clone() }
    }
}
