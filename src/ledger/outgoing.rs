//! What goes to a peer.

use std::time::SystemTime;

use super::{Channel, DropReason, Histogram, KINDS, Tally};

/// The ledger of what goes to a peer, behind the lock of its queues.
#[derive(Clone, Debug, Default)]
pub struct Outgoing {
    /// Handed to `send` or `send_snapshot`, by type.
    pub offered: [u64; KINDS],
    /// Given to a connection, or answered with success; by channel and type.
    pub sent: [[u64; KINDS]; Channel::COUNT],
    /// Given up, by type, channel and reason.
    pub dropped: Tally<(usize, Channel, DropReason)>,
    /// Not yet ended, by channel. Measured where it is read; kept here for who reads a copy.
    pub queued: [u64; Channel::COUNT],
    /// From `send` to written, by channel.
    pub queue_seconds: [Histogram; Channel::COUNT],
    /// Bytes of frames, link heartbeats included, by channel (`Snapshot`: envelope and body).
    pub bytes: [u64; Channel::COUNT],
    /// Protobuf size of the whole messages, link heartbeats included, and the bodies of snapshots that were delivered:
    /// etcd's `peer_sent_bytes_total`.
    pub etcd_bytes: u64,
    /// Messages written to the peer's streams before the newest probe and not known to be read, by stream channel
    /// (`MsgApp`, `Message`). None: the peer has not said what it has read on them.
    pub unconfirmed: [Option<u64>; 2],
    /// Messages written to streams that ended, and never read; by stream channel.
    pub lost: [u64; 2],
    /// From appends that were sent to the answers that cover them.
    pub append_round_trip: Histogram,
    /// When a frame last went out, on the two stream channels.
    pub last_frame: [Option<SystemTime>; 2],
}

impl Outgoing {
    /// The sum of a ledger's side: sent + dropped + queued. The first law says that it is the sum of `offered`.
    pub fn accounted(&self) -> u64 {
        self.sent.iter().flatten().sum::<u64>() + self.dropped.total() + self.queued.iter().sum::<u64>()
    }

    /// Whether the first law holds.
    pub fn balances(&self) -> bool {
        self.offered.iter().sum::<u64>() == self.accounted()
    }
}
