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

/// One copy of a part of a buffer that holds many small payloads one after the other. The bytes between the payloads
/// are copied too, and each payload is a slice of the copy. It moves forward only, so no byte is copied twice, whatever
/// frames lie between the payloads.
#[derive(Debug, Default)]
pub(crate) struct Block {
    bytes: Bytes,
    /// Where the copied part begins in the buffer.
    start: usize,
    /// How many bytes of the buffer come before what is decoded now.
    before: usize,
}

impl Block {
    #[inline]
    fn take(&mut self, source: &[u8], range: Range<usize>) -> Bytes {
        let (start, end) = (self.before + range.start, self.before + range.end);
        if start < self.start || end > self.start + self.bytes.len() {
            if range.len() >= OWN_FROM {
                return Bytes::copy_from_slice(&source[range]);
            }
            let copied = range.start..source.len().min(range.start + BLOCK);
            (self.bytes, self.start) = (Bytes::copy_from_slice(&source[copied]), start);
        }
        self.bytes.slice(start - self.start..end - self.start)
    }
}

/// How small payloads are copied.
#[derive(Debug)]
pub(crate) enum Copies<'a> {
    /// One by one, into blocks that several frames share.
    Arena(&'a mut Arena),
    /// Many at once, with the bytes between them.
    Block(&'a mut Block),
}

/// The frame that is being decoded, and how payloads are taken out of it.
pub(crate) struct Payloads<'a> {
    /// The buffer. The frame is at its start, or it holds many frames.
    pub(crate) source: &'a Bytes,
    /// The length of the frame if the buffer holds nothing else, and zero otherwise.
    pub(crate) own_length: usize,
    pub(crate) copies: Copies<'a>,
}

impl<'a> Payloads<'a> {
    /// For the rest of a buffer that holds many frames, one after the other; `before` bytes of it came before. One block
    /// serves the whole buffer: with a new one for each rest, a sender of small parts would have one copied for each.
    pub(crate) fn of_many(source: &'a Bytes, before: usize, block: &'a mut Block) -> Self {
        block.before = before;
        Self { source, own_length: 0, copies: Copies::Block(block) }
    }
}

impl Payloads<'_> {
    #[inline]
    pub(crate) fn take(&mut self, range: Range<usize>) -> Bytes {
        let length = range.len();
        if length == 0 {
            return Bytes::new();
        }
        // A slice of at least half of the buffer may keep the other half alive.
        if length >= SLICE_FROM || length.saturating_mul(2) >= self.own_length && self.own_length != 0 {
            return self.source.slice(range);
        }
        match &mut self.copies {
            Copies::Arena(arena) => arena.copy(&self.source[range]),
            Copies::Block(block) => block.take(self.source, range),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_payload_does_not_pin_a_read_buffer() {
        let source = Bytes::from(vec![7; 1 << 20]);
        let mut arena = Arena::default();
        let mut payloads = Payloads { source: &source, own_length: 0, copies: Copies::Arena(&mut arena) };
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
        let mut payloads = Payloads { source: &source, own_length: 140, copies: Copies::Arena(&mut arena) };
        assert!(source.as_ptr_range().contains(&payloads.take(12..140).as_ptr()));
        assert!(!source.as_ptr_range().contains(&payloads.take(12..20).as_ptr()));
    }

    #[test]
    fn payloads_of_many_frames_share_one_copy_that_is_not_the_read_buffer() {
        let bytes: Vec<u8> = (0..=255).cycle().take(3 * BLOCK).collect();
        let source = Bytes::from(bytes);
        let mut block = Block::default();
        let mut payloads = Payloads::of_many(&source, 0, &mut block);
        let ranges: Vec<_> = (5..source.len() - 150).step_by(150).map(|start| start..start + 128).collect();
        let taken: Vec<Bytes> = ranges.iter().map(|range| payloads.take(range.clone())).collect();
        for (range, taken) in ranges.iter().zip(&taken) {
            assert_eq!(taken, &source[range.clone()]);
            assert!(!source.as_ptr_range().contains(&taken.as_ptr()), "it would keep the whole read buffer");
        }
        let together = taken.windows(2).filter(|pair| pair[0].as_ptr().wrapping_add(150) == pair[1].as_ptr()).count();
        assert!(together >= taken.len() - 4, "three blocks for all, not {} copies", taken.len() - together);
    }

    #[test]
    fn a_payload_that_fills_much_of_a_block_is_copied_alone_and_a_large_one_is_not() {
        let source = Bytes::from(vec![7; 1 << 20]);
        let mut block = Block::default();
        let mut payloads = Payloads::of_many(&source, 0, &mut block);
        assert_eq!(payloads.take(1..OWN_FROM), source[1..OWN_FROM]);
        let (alone, large) = (payloads.take(BLOCK..2 * BLOCK), payloads.take(2 * BLOCK..2 * BLOCK + SLICE_FROM));
        assert_eq!(alone, source[BLOCK..2 * BLOCK]);
        assert!(!source.as_ptr_range().contains(&alone.as_ptr()));
        assert!(source.as_ptr_range().contains(&large.as_ptr()));
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
