//! Frames out of bytes that arrive in pieces.

use bytes::{Buf, Bytes};

use crate::wire::{
    error::{FrameError, FrameErrorKind},
    payload::{Arena, Payloads},
};

/// Never more than this is allocated ahead of the bytes received, whatever length a peer announces.
const AHEAD: usize = 1 << 20;

/// Takes numbers and parts of a known length off the front of a stream, and knows where in it it stands. A part that
/// has arrived as a whole is decoded where it lies; the pieces of one that has not are gathered.
#[derive(Debug, Default)]
pub(crate) struct Gather {
    partial: Vec<u8>,
    offset: u64,
    arena: Arena,
}

impl Gather {
    /// Bytes of the stream before the next part.
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

    /// A number, 64 bit, big-endian.
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

    /// A part of `length` bytes, as `decode` makes it out; its errors count bytes from the part's start.
    pub(crate) fn part<T>(
        &mut self,
        input: &mut Bytes,
        length: usize,
        decode: impl FnOnce(&[u8], &mut Payloads<'_>) -> Result<T, FrameError>,
    ) -> Result<Option<T>, FrameError> {
        let start = self.offset;
        let decoded = if self.partial.is_empty() && input.len() >= length {
            let mut payloads = Payloads { source: input, own_length: 0, arena: &mut self.arena };
            let decoded = decode(&input[..length], &mut payloads);
            input.advance(length);
            decoded
        } else {
            let Some(own) = self.rest(input, length) else {
                return Ok(None);
            };
            let mut payloads = Payloads { source: &own, own_length: length, arena: &mut self.arena };
            decode(&own, &mut payloads)
        };
        self.offset += length as u64;
        decoded.map(Some).map_err(|error| error.within(start))
    }

    /// The stream has ended; `expected` is true where another part has to follow.
    pub(crate) fn finish(&self, expected: bool) -> Result<(), FrameError> {
        if !expected && !self.is_inside() {
            return Ok(());
        }
        let offset = self.offset + self.partial.len() as u64;
        Err(FrameError::new(FrameErrorKind::Truncated, offset, "the stream ended inside a frame"))
    }

    /// Gathers until there are `length` bytes.
    fn rest(&mut self, input: &mut Bytes, length: usize) -> Option<Bytes> {
        loop {
            let missing = length.saturating_sub(self.partial.len());
            if missing == 0 {
                return Some(Bytes::from(std::mem::take(&mut self.partial)));
            }
            if input.is_empty() {
                return None;
            }
            if self.partial.len() == self.partial.capacity() {
                self.partial.reserve_exact(missing.min(input.len() + AHEAD));
            }
            let room = self.partial.capacity() - self.partial.len();
            let taken = missing.min(room).min(input.len());
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
            assert!(gather.partial.capacity() <= received + AHEAD);
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
