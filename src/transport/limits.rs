//! The limits of everything that a peer can make grow.

use std::{num::NonZeroU64, time::Duration};

use crate::wire::FrameLimits;

/// Limits of queues, frames and connections. A message queue is limited in messages *and* in bytes.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The most messages queued for a stream's writer. Default 4096, etcd's `streamBufSize`.
    pub stream_queue: usize,
    /// The most messages queued for the pipeline, including those on their way. Default 64, etcd's `pipelineBufSize`.
    pub pipeline_queue: usize,
    /// The most messages received and not yet taken. Proposals have a separate queue of the same size. Default 4096,
    /// etcd's `recvBufSize`.
    pub receive_queue: usize,
    /// The most bytes in each of these queues. Default 64 MiB.
    pub queue_bytes: usize,
    /// The longest message frame or POST body, in bytes. Default 512 MiB, etcd's `readBytesLimit`.
    pub message_bytes: u64,
    /// The longest envelope of a snapshot, in bytes. Default 64 MiB.
    pub snapshot_envelope_bytes: u64,
    /// The longest msgapp frame in total, in bytes. Default 1 GiB.
    pub msgapp_bytes: u64,
    /// The longest entry, in bytes. Default 512 MiB.
    pub entry_bytes: u64,
    /// The most entries in a message. Default 1 M (1 048 576).
    pub entries: u64,
    /// The longest body of a received snapshot, in bytes. Default 16 GiB: twice the largest database that etcd's
    /// documentation supports.
    pub snapshot_bytes: u64,
    /// Bytes that a received snapshot must leave free on its file system, whoever sends it: the log and the store need
    /// them to go on. Default 256 MiB.
    pub snapshot_headroom: u64,
    /// The most bytes per second for all outgoing snapshots together. While heartbeats are late, snapshots get less. Set
    /// it the same on all members: a peer that takes or sends less than half of it, and less than 64 KiB/s, for a minute
    /// loses its place. Set at least 2 KiB/s: a receiver cuts a body that is slower than half of that. Default `None`: no
    /// limit.
    pub snapshot_rate: Option<NonZeroU64>,
    /// The most snapshots under way: to one peer, and from all peers together. Senders that are no peers yet have one
    /// more place. Default 2.
    pub snapshots: usize,
    /// The most snapshots of which a part is kept after their connection broke, from all peers, including those under
    /// way. Parts beyond this number are dropped, the oldest first. Default 2.
    pub snapshot_parts: usize,
    /// How long such a part is kept after its last bytes came. Default 1 h.
    pub snapshot_part_age: Duration,
    /// The most remotes known at a time. Default 64.
    pub remotes: usize,
    /// How long a remote is kept after its last request. Default 10 min.
    pub remote_age: Duration,
}

impl Limits {
    /// The limits that the codecs need.
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
            snapshot_rate: None,
            snapshots: 2,
            snapshot_parts: 2,
            snapshot_part_age: Duration::from_secs(3600),
            remotes: 64,
            remote_age: Duration::from_secs(600),
        }
    }
}
