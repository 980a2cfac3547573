//! What goes to a peer.

use std::time::SystemTime;

use super::{Channel, DropReason, Histogram, MessageKind, PerChannel, PerKind, PerStream, Tally};

/// The ledger of what goes to a peer, behind the lock of its queues.
#[derive(Clone, Debug, Default)]
pub struct Outgoing {
    /// Handed to `send` or `send_snapshot`, by type.
    pub offered: PerKind<u64>,
    /// Given to a connection, or answered with success; by channel and type.
    pub sent: PerChannel<PerKind<u64>>,
    /// Given up, by type, channel and reason.
    pub dropped: Tally<(MessageKind, Channel, DropReason)>,
    /// Not yet ended, by channel. Measured where it is read; kept here for who reads a copy.
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
