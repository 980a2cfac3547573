//! The bounds of everything that a peer can make grow.

use std::time::Duration;

use crate::wire::FrameLimits;

/// Bounds of queues, frames and connections. A message queue is bounded in messages *and* in bytes.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Messages queued on a stream's writer. Default 4096, etcd's `streamBufSize`.
    pub stream_queue: usize,
    /// Messages queued on the pipeline, those on their way included. Default 64, etcd's `pipelineBufSize`.
    pub pipeline_queue: usize,
    /// Messages received and not yet taken, and as many proposals. Default 4096, etcd's `recvBufSize`.
    pub receive_queue: usize,
    /// Bytes in each of these queues. Default 64 MiB.
    pub queue_bytes: usize,
    /// Length of a message frame or a POST's body. Default 512 MiB, etcd's `readBytesLimit`.
    pub message_bytes: u64,
    /// Length of a snapshot's envelope. Default 64 MiB.
    pub snapshot_envelope_bytes: u64,
    /// Length of a msgapp frame in all. Default 1 GiB.
    pub msgapp_bytes: u64,
    /// Length of one entry. Default 512 MiB.
    pub entry_bytes: u64,
    /// Entries in a message. Default 1 M (1 048 576).
    pub entries: u64,
    /// Length of a received snapshot's body. Default 16 GiB: twice the largest database that etcd's documentation
    /// supports.
    pub snapshot_bytes: u64,
    /// Bytes that a received snapshot leaves free on its file system, whoever sends it: what the log and the store need to
    /// go on. Default 256 MiB.
    pub snapshot_headroom: u64,
    /// Snapshots under way at a time: to one peer, and from all of them. Who is not a peer yet has one place more.
    /// Default 2.
    pub snapshots: usize,
    /// Remotes known at a time. Default 64.
    pub remotes: usize,
    /// How long a remote is kept after its last request. Default 10 min.
    pub remote_age: Duration,
}

impl Limits {
    /// The part of them that the codecs need.
    pub(crate) fn frames(&self) -> FrameLimits {
        FrameLimits {
            message_bytes: self.message_bytes,
            msgapp_bytes: self.msgapp_bytes,
            entry_bytes: self.entry_bytes,
            entries: self.entries,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        const MIB: u64 = 1 << 20;
        Self {
            stream_queue: 4096,
            pipeline_queue: 64,
            receive_queue: 4096,
            queue_bytes: 64 << 20,
            message_bytes: 512 * MIB,
            snapshot_envelope_bytes: 64 * MIB,
            msgapp_bytes: 1024 * MIB,
            entry_bytes: 512 * MIB,
            entries: MIB,
            snapshot_bytes: 16 * 1024 * MIB,
            snapshot_headroom: 256 * MIB,
            snapshots: 2,
            remotes: 64,
            remote_age: Duration::from_secs(600),
        }
    }
}
