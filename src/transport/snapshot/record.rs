//! The record beside the bytes of an incomplete snapshot: a file that identifies the snapshot, and then has one mark
//! for each sync, with the number of synced bytes.
//!
//! | bytes | content |
//! |---|---|
//! | 8 | `raftpart` |
//! | 1 | version: 1 |
//! | 8 | the ID of the member that sends it |
//! | 16 | its name |
//! | 8 | the index of the snapshot |
//! | 8 | its length in bytes |
//! | 16 | the xxh3-128 of its bytes |
//! | 8 | the xxh3-64 of all fields before |
//! | marks | each: the number of synced bytes (8), seconds since 1970 (8), the xxh3-64 of these 16, seeded with the last field (8) |
//!
//! All integers are unsigned and big-endian. The last complete mark counts: a loss of power may have torn the one after
//! it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{Buf, BufMut};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::{id::MemberId, wire::resumption::Named};

const MAGIC: &[u8; 8] = b"raftpart";
const VERSION: u8 = 1;
/// The length of the head before the marks.
pub(super) const HEAD_BYTES: usize = 8 + 1 + 8 + 16 + 8 + 8 + 16 + 8;
/// The length of a mark.
pub(super) const MARK_BYTES: usize = 8 + 8 + 8;
/// The longest record, in bytes: one mark each half second for two months.
pub(super) const MAX_BYTES: u64 = 256 << 20;

/// The identity of the snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RecordHead {
    /// The member that sends it.
    pub(super) sender: MemberId,
    /// Its name, its length, and the checksum of its bytes.
    pub(super) of: Named,
    /// The index of the snapshot.
    pub(super) index: u64,
}

/// A mark: how far the bytes are synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    /// The number of synced bytes.
    pub(super) synced: u64,
    /// When they were synced, by the time of day.
    pub(super) at: SystemTime,
}

impl RecordHead {
    pub(super) fn to_bytes(self) -> Vec<u8> {
        let Self { sender, of: Named { name, length, checksum }, index } = self;
        let mut bytes = Vec::with_capacity(HEAD_BYTES);
        bytes.put_slice(MAGIC);
        bytes.put_u8(VERSION);
        bytes.put_u64(sender.0);
        bytes.put_u128(name);
        bytes.put_u64(index);
        bytes.put_u64(length);
        bytes.put_u128(checksum);
        bytes.put_u64(xxh3_64(&bytes));
        bytes
    }

    /// Encodes a mark after this head.
    pub(super) fn mark(self, mark: Mark) -> Vec<u8> {
        let seconds = mark.at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut bytes = Vec::with_capacity(MARK_BYTES);
        bytes.put_u64(mark.synced);
        bytes.put_u64(seconds);
        bytes.put_u64(xxh3_64_with_seed(&bytes, self.seed()));
        bytes
    }

    fn seed(self) -> u64 {
        let bytes = self.to_bytes();
        (&bytes[HEAD_BYTES - 8..]).get_u64()
    }

    /// Parses a record: its head, its last mark, and the number of marks. `None` if it is unusable.
    pub(super) fn read(bytes: &[u8]) -> Option<(Self, Mark, u64)> {
        let (head, mut marks) = bytes.split_at_checked(HEAD_BYTES)?;
        let mut fields = head.strip_prefix(MAGIC)?.strip_prefix(&[VERSION])?;
        let sender = MemberId(fields.get_u64());
        let name = fields.get_u128();
        let index = fields.get_u64();
        let length = fields.get_u64();
        let checksum = fields.get_u128();
        let read = Self { sender, of: Named { name, length, checksum }, index };
        if read.to_bytes() != head {
            return None;
        }
        let (seed, mut last, mut count) = (read.seed(), None, 0);
        while let Some((mark, rest)) = marks.split_at_checked(MARK_BYTES) {
            let (mut fields, mut check) = mark.split_at(MARK_BYTES - 8);
            let is_whole = xxh3_64_with_seed(fields, seed) == check.get_u64();
            let (synced, seconds) = (fields.get_u64(), fields.get_u64());
            let at = UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
            let Some(at) = at.filter(|_| is_whole && synced <= length) else { break };
            (last, count, marks) = (Some(Mark { synced, at }), count + 1, rest);
        }
        last.map(|mark| (read, mark, count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: RecordHead =
        RecordHead { sender: MemberId(7), of: Named { name: 1 << 100, length: 1000, checksum: 5 }, index: 9 };

    fn at(synced: u64) -> Mark {
        Mark { synced, at: UNIX_EPOCH + Duration::from_secs(synced) }
    }

    #[test]
    fn the_last_whole_mark_counts_wherever_the_file_is_cut_or_changed() {
        let mut whole = HEAD.to_bytes();
        assert_eq!(whole.len(), HEAD_BYTES);
        for synced in [0, 400, 1000] {
            whole.extend(HEAD.mark(at(synced)));
        }
        assert_eq!(RecordHead::read(&whole), Some((HEAD, at(1000), 3)));
        let found = |marks: usize| match marks {
            0 => None,
            _ => Some((HEAD, at([0, 400, 1000][marks - 1]), marks as u64)),
        };
        for length in 0..whole.len() {
            let marks = length.saturating_sub(HEAD_BYTES) / MARK_BYTES;
            assert_eq!(RecordHead::read(&whole[..length]), found(marks), "cut at {length}");
        }
        for place in 0..whole.len() {
            let mut changed = whole.clone();
            changed[place] ^= 1;
            let marks = place.checked_sub(HEAD_BYTES).map_or(0, |behind| behind / MARK_BYTES);
            assert_eq!(RecordHead::read(&changed), found(marks), "changed at {place}");
        }
    }

    #[test]
    fn a_mark_of_another_snapshot_or_beyond_its_end_is_none() {
        let other = RecordHead { index: 8, ..HEAD };
        assert_eq!(RecordHead::read(&[HEAD.to_bytes(), other.mark(at(1))].concat()), None);
        let beyond = [HEAD.to_bytes(), HEAD.mark(at(1)), HEAD.mark(at(1001))].concat();
        assert_eq!(RecordHead::read(&beyond), Some((HEAD, at(1), 1)));
    }
}
