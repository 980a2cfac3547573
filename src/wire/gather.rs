//! Splits bytes that arrive in pieces into frames.

use bytes::{Buf, Bytes};

use crate::wire::{
    error::{FrameError, FrameErrorKind},
    payload::{Arena, Copies, Payloads},
};

/// The most memory that is written to ahead of the received bytes, whatever length a peer announces.
const AHEAD: usize = 1 << 20;
/// Once one part in this many of the announced length has arrived, the buffer gets room for the rest. A buffer that
/// grows in steps is copied, and is in memory twice while it is copied.
const BELIEVED: usize = 8;

/// Makes room for the next `arriving` bytes in a buffer that is to hold `length` bytes in total. The room beyond them
/// is only address space: a page costs memory once it is written to.
pub(crate) fn make_room(buffer: &mut Vec<u8>, arriving: usize, length: usize) {
    if buffer.capacity() - buffer.len() >= arriving {
        return;
    }
    let missing = length.saturating_sub(buffer.len()).max(arriving);
    // The allocation may fail on systems that count address space as memory.
    if buffer.len() >= length / BELIEVED && buffer.try_reserve_exact(missing).is_ok() {
        return;
    }
    buffer.reserve_exact(missing.min(arriving + AHEAD.max(buffer.len())));
}

/// Takes numbers and parts of a known length off the front of a stream, and keeps its position in the stream. A part
/// that has arrived completely is decoded in place. Otherwise its pieces are gathered first.
#[derive(Debug, Default)]
pub(crate) struct Gather {
    partial: Vec<u8>,
    offset: u64,
    arena: Arena,
}

impl Gather {
    /// The number of bytes of the stream before the next part.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// Whether some bytes of the next part have arrived.
    pub(crate) fn is_inside(&self) -> bool {
        !self.partial.is_empty()
    }

    pub(crate) fn byte(&mut self, input: &mut Bytes) -> Option<u8> {
        let byte = *input.first()?;
        input.advance(1);
        self.offset += 1;
        Some(byte)
    }

    /// Takes a number: 64 bits, big-endian.
    pub(crate) fn number(&mut self, input: &mut Bytes) -> Option<u64> {
        if self.partial.is_empty()
            && let Some(bytes) = input.first_chunk()
        {
            let number = u64::from_be_bytes(*bytes);
            input.advance(8);
            self.offset += 8;
            return Some(number);
        }
        let bytes = self.rest(input, 8)?;
        self.offset += 8;
        bytes.first_chunk().map(|bytes| u64::from_be_bytes(*bytes))
    }

    /// Takes a part of `length` bytes and decodes it by `decode`, whose errors count bytes from the start of the part.
    pub(crate) fn part<T>(
        &mut self,
        input: &mut Bytes,
        length: usize,
        decode: impl FnOnce(&[u8], &mut Payloads<'_>) -> Result<T, FrameError>,
    ) -> Result<Option<T>, FrameError> {
        let start = self.offset;
        let decoded = if self.partial.is_empty() && input.len() >= length {
            let mut payloads = Payloads { source: input, own_length: 0, copies: Copies::Arena(&mut self.arena) };
            let decoded = decode(&input[..length], &mut payloads);
            input.advance(length);
            decoded
        } else {
            let Some(own) = self.rest(input, length) else {
                return Ok(None);
            };
            let mut payloads = Payloads { source: &own, own_length: length, copies: Copies::Arena(&mut self.arena) };
            decode(&own, &mut payloads)
        };
        self.offset += length as u64;
        decoded.map(Some).map_err(|error| error.within(start))
    }

    /// Skips the first `length` bytes of `input`, which were decoded in place.
    pub(crate) fn skip(&mut self, input: &mut Bytes, length: usize) {
        input.advance(length);
        self.offset += length as u64;
    }

    /// The stream has ended. `expected` says whether another part had to follow.
    pub(crate) fn finish(&self, expected: bool) -> Result<(), FrameError> {
        if !expected && !self.is_inside() {
            return Ok(());
        }
        let offset = self.offset + self.partial.len() as u64;
        Err(FrameError::new(FrameErrorKind::Truncated, offset, "the stream ended inside a frame"))
    }

    /// Gathers bytes until there are `length` of them.
    fn rest(&mut self, input: &mut Bytes, length: usize) -> Option<Bytes> {
        loop {
            let missing = length.saturating_sub(self.partial.len());
            if missing == 0 {
                return Some(Bytes::from(std::mem::take(&mut self.partial)));
            }
            if input.is_empty() {
                return None;
            }
            let taken = missing.min(input.len());
            make_room(&mut self.partial, taken, length);
            self.partial.extend_from_slice(&input[..taken]);
            input.advance(taken);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn little_is_allocated_ahead_of_what_has_arrived() {
        let mut gather = Gather::default();
        let mut received = 0;
        for _ in 0..50 {
            let mut input = Bytes::from(vec![0; 100_000]);
            received += input.len();
            assert!(gather.part(&mut input, 1 << 40, |_, _| Ok(())).expect("no error yet").is_none());
            assert!(input.is_empty());
            assert!(gather.partial.capacity() <= 2 * received + AHEAD);
        }
    }

    #[test]
    fn what_is_announced_is_believed_once_a_part_of_it_is_there() {
        let mut whole = Vec::new();
        make_room(&mut whole, 10, 512 << 20);
        assert!(whole.capacity() <= 10 + AHEAD, "{}", whole.capacity());
        whole.resize(whole.capacity(), 0);
        let full = whole.len();
        make_room(&mut whole, 1, 512 << 20);
        assert!(whole.capacity() <= 2 * full + 1, "{}", whole.capacity());
        let mut exact = Vec::new();
        make_room(&mut exact, 10, 1000);
        assert_eq!(exact.capacity(), 1000);
        let mut beyond = vec![0; 1000];
        make_room(&mut beyond, 10, 1000);
        assert!(beyond.capacity() >= 1010);
    }

    #[test]
    fn a_large_part_is_copied_while_it_is_small() {
        let (length, piece) = (64 << 20, Bytes::from(vec![7; 256 << 10]));
        let (mut gather, mut place) = (Gather::default(), std::ptr::null::<u8>());
        for sent in (0..length).step_by(piece.len()) {
            let part = gather.part(&mut piece.clone(), length, |bytes, _| Ok(bytes.len())).expect("no error");
            assert_eq!(part, (sent + piece.len() == length).then_some(length));
            // Until the buffer was large enough to get all of its room, it was at most twice as long as this part of
            // the length.
            if sent > 2 * length / BELIEVED + AHEAD && part.is_none() {
                let now = gather.partial.as_ptr();
                assert!(place.is_null() || place == now, "it was moved when there were {sent} bytes");
                place = now;
            }
        }
    }

    #[test]
    fn errors_count_from_the_start_of_the_stream() {
        let mut gather = Gather::default();
        let mut input = Bytes::from_static(&[0; 20]);
        assert_eq!(gather.number(&mut input), Some(0));
        let fail = |_: &[u8], _: &mut Payloads<'_>| Err::<(), _>(FrameError::new(FrameErrorKind::Protobuf, 2, "bad"));
        assert_eq!(gather.part(&mut input, 10, fail).expect_err("bad").offset, 10);
        assert_eq!((gather.offset(), input.len()), (18, 2));
    }
}
