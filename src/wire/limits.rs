//! Limits of a frame.

/// Limits of a frame. Each is checked before memory is allocated for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameLimits {
    /// The longest message frame, snapshot envelope or POST body, in bytes. Default 512 MiB, etcd's `readBytesLimit`.
    pub message_bytes: u64,
    /// The longest msgapp frame in total, in bytes. Default 1 GiB.
    pub msgapp_bytes: u64,
    /// The longest entry, in bytes. Default 512 MiB.
    pub entry_bytes: u64,
    /// The most entries in a message. Default 1 048 576: an empty entry is two bytes on the wire and 56 in memory.
    pub entries: u64,
}

/// The most metadata of a snapshot, which is its membership, in bytes: 1 MiB is some 100 000 members, and a packed list
/// of them takes eight times its length in memory.
pub(crate) const METADATA_BYTES: usize = 1 << 20;

impl Default for FrameLimits {
    fn default() -> Self {
        Self { message_bytes: 512 << 20, msgapp_bytes: 1 << 30, entry_bytes: 512 << 20, entries: 1 << 20 }
    }
}
