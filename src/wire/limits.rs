//! What a frame may hold.

/// Bounds of a frame. Each is checked before anything is allocated for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameLimits {
    /// Bytes of a message frame, a snapshot's envelope or a POST's body. Default 512 MiB, etcd's `readBytesLimit`.
    pub message_bytes: u64,
    /// Bytes of a msgapp frame in all. Default 1 GiB.
    pub msgapp_bytes: u64,
    /// Bytes of one entry. Default 512 MiB.
    pub entry_bytes: u64,
    /// Entries in a message. Default 1 048 576: an empty entry is two bytes on the wire and 56 in memory.
    pub entries: u64,
}

/// Bytes of a snapshot's metadata, which are its membership: 1 MiB is some 100 000 members, and a packed list of them
/// takes eight times its length in memory.
pub(crate) const METADATA_BYTES: usize = 1 << 20;

impl Default for FrameLimits {
    fn default() -> Self {
        Self { message_bytes: 512 << 20, msgapp_bytes: 1 << 30, entry_bytes: 512 << 20, entries: 1 << 20 }
    }
}
