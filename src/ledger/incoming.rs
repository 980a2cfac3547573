//! What comes from a peer.

use std::time::SystemTime;

use super::{Channel, Histogram, MessageKind, PerChannel, PerKind, PerStream, RejectReason, Tally};

/// The ledger of what comes from a peer, behind the lock of its receive queues.
#[derive(Clone, Debug, Default)]
pub struct Incoming {
    /// Decoded from the wire, by channel and type.
    pub received: PerChannel<PerKind<u64>>,
    /// Received, not yet taken or refused. Measured where it is read; kept here for who reads a copy.
    pub waiting: u64,
    /// Taken by the application, by type.
    pub processed: PerKind<u64>,
    /// Not taken, by type and reason.
    pub rejected: Tally<(MessageKind, RejectReason)>,
    /// What the peer sent that could not be read, by channel and kind.
    pub frame_errors: Tally<(Channel, &'static str)>,
    /// The time that the application took for a batch.
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
    /// Whether the second law holds.
    pub fn balances(&self) -> bool {
        let ended = self.processed.total() + self.rejected.total() + self.waiting;
        self.received.total() == ended
    }
}
