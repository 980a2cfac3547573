//! The memory of a decoded payload: a slice of the read buffer, or a copy.

use std::ops::Range;

use bytes::{Bytes, BytesMut};

/// A payload shorter than this is copied out of a buffer that holds more than the payload. A connection's read buffer
/// may be hundreds of kilobytes, and one entry kept in a log would keep all of it.
const SLICE_FROM: usize = 32 << 10;

/// Small copies share blocks of this size, so that most of them cost no `malloc`. A copy that is kept keeps its block.
const BLOCK: usize = 16 << 10;

/// A copy of at least this length gets an allocation of its own, so that a block holds several copies.
const OWN_FROM: usize = BLOCK / 4;

/// Blocks for small copies.
#[derive(Debug)]
pub(crate) struct Arena {
    open: BytesMut,
    block: usize,
}

impl Default for Arena {
    fn default() -> Self {
        Self { open: BytesMut::new(), block: BLOCK }
    }
}

impl Arena {
    /// Blocks for one body, which payloads of at most `length` bytes in total are copied from.
    pub(crate) fn for_body(length: usize) -> Self {
        Self { open: BytesMut::new(), block: length.min(BLOCK) }
    }

    fn copy(&mut self, data: &[u8]) -> Bytes {
        if data.len() >= OWN_FROM {
            return Bytes::copy_from_slice(data);
        }
        if self.open.capacity() < data.len() {
            // This gives the same block again if nothing that was copied into it is kept.
            self.open.reserve(self.block.max(data.len()));
        }
        self.open.extend_from_slice(data);
        self.open.split().freeze()
    }
}

/// The frame that is being decoded, and the way payloads are taken out of it.
pub(crate) struct Payloads<'a> {
    /// A buffer that starts with the frame.
    pub(crate) source: &'a Bytes,
    /// The length of the frame if the buffer holds nothing else, and zero otherwise.
    pub(crate) own_length: usize,
    pub(crate) arena: &'a mut Arena,
}

impl Payloads<'_> {
    pub(crate) fn take(&mut self, range: Range<usize>) -> Bytes {
        let length = range.len();
        if length == 0 {
            return Bytes::new();
        }
        // A slice of at least half of the buffer may keep the other half alive.
        if length >= SLICE_FROM || length.saturating_mul(2) >= self.own_length && self.own_length != 0 {
            return self.source.slice(range);
        }
        self.arena.copy(&self.source[range])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_payload_does_not_pin_a_read_buffer() {
        let source = Bytes::from(vec![7; 1 << 20]);
        let mut arena = Arena::default();
        let mut payloads = Payloads { source: &source, own_length: 0, arena: &mut arena };
        let small = payloads.take(5..133);
        let large = payloads.take(0..SLICE_FROM);
        assert_eq!(small, source[5..133]);
        assert!(!source.as_ptr_range().contains(&small.as_ptr()));
        assert_eq!(large.as_ptr(), source.as_ptr());
    }

    #[test]
    fn most_of_a_buffer_of_its_own_is_sliced() {
        let source = Bytes::from(vec![7; 140]);
        let mut arena = Arena::default();
        let mut payloads = Payloads { source: &source, own_length: 140, arena: &mut arena };
        assert!(source.as_ptr_range().contains(&payloads.take(12..140).as_ptr()));
        assert!(!source.as_ptr_range().contains(&payloads.take(12..20).as_ptr()));
    }

    #[test]
    fn small_copies_share_a_block_and_a_block_is_used_again() {
        let mut arena = Arena::default();
        let (first, second) = (arena.copy(&[1; 100]), arena.copy(&[2; 100]));
        assert_eq!(first.as_ptr().wrapping_add(100), second.as_ptr());
        let start = first.as_ptr();
        drop((first, second));
        assert!((0..2 * BLOCK / 100).any(|_| arena.copy(&[3; 100]).as_ptr() == start));
    }
}
