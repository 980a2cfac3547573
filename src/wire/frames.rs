//! The buffer that encoders write to.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

/// A payload of at least this length is not copied, because a `writev` with one more piece costs less than the copy.
pub const SHARE_FROM: usize = 8 << 10;

/// The open part is sealed at this length. One write to a socket can take it, and it is small enough that its buffer
/// comes back for reuse before the next one is full.
pub const SEAL_AT: usize = 64 << 10;

/// Encoded frames on their way to a connection: sealed pieces, and after them an open part that small pieces are copied
/// into. It allocates nothing until it is written to. A stream that is popped steadily reuses one buffer.
#[derive(Debug, Default)]
pub struct FrameBuffer {
    open: BytesMut,
    sealed: VecDeque<Bytes>,
    sealed_bytes: usize,
    produced: u64,
}

impl FrameBuffer {
    /// An empty buffer.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a copy of `bytes`.
    pub fn put_slice(&mut self, bytes: &[u8]) {
        self.open.extend_from_slice(bytes);
        self.produced += bytes.len() as u64;
        if self.open.len() >= SEAL_AT {
            self.seal();
        }
    }

    /// Appends one byte.
    pub fn put_u8(&mut self, byte: u8) {
        self.put_slice(&[byte]);
    }

    /// Appends a number, big-endian.
    pub fn put_u64(&mut self, number: u64) {
        self.put_slice(&number.to_be_bytes());
    }

    /// Appends a payload. A payload of at least [`SHARE_FROM`] bytes is not copied.
    pub fn share(&mut self, payload: Bytes) {
        if payload.len() < SHARE_FROM {
            return self.put_slice(&payload);
        }
        self.seal();
        self.produced += payload.len() as u64;
        self.push(payload);
    }

    /// All bytes ever put, including those that were popped or cleared.
    pub fn produced(&self) -> u64 {
        self.produced
    }

    /// The start of the open part, counted in bytes ever put. Everything after it is handed over in one piece.
    pub fn sealed(&self) -> u64 {
        self.produced - self.open.len() as u64
    }

    /// The next piece to write.
    pub fn pop(&mut self) -> Option<Bytes> {
        if let Some(piece) = self.sealed.pop_front() {
            self.sealed_bytes -= piece.len();
            return Some(piece);
        }
        (!self.open.is_empty()).then(|| self.open.split().freeze())
    }

    /// Bytes put and not yet popped.
    pub fn len(&self) -> usize {
        self.sealed_bytes + self.open.len()
    }

    /// Whether there is nothing to pop.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn seal(&mut self) {
        if !self.open.is_empty() {
            let piece = self.open.split().freeze();
            self.push(piece);
        }
    }

    fn push(&mut self, piece: Bytes) {
        self.sealed_bytes += piece.len();
        self.sealed.push_back(piece);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_come_out_in_the_order_they_went_in() {
        let mut buffer = FrameBuffer::new();
        let large = Bytes::from(vec![2; SHARE_FROM]);
        buffer.put_u8(1);
        buffer.share(large.clone());
        buffer.put_u64(3);
        assert_eq!(buffer.len(), 9 + SHARE_FROM);
        assert_eq!(buffer.pop().as_deref(), Some(&[1][..]));
        let shared = buffer.pop().expect("the payload");
        assert_eq!(shared.as_ptr(), large.as_ptr(), "a large payload is not copied");
        assert_eq!(buffer.pop().as_deref(), Some(&3_u64.to_be_bytes()[..]));
        assert_eq!(buffer.pop(), None);
        assert_eq!(buffer.produced(), 9 + SHARE_FROM as u64);
        assert!(buffer.is_empty());
    }

    #[test]
    fn the_open_part_is_sealed_before_it_grows_large() {
        let mut buffer = FrameBuffer::new();
        for _ in 0..3 * SEAL_AT / 100 {
            buffer.put_slice(&[0; 100]);
        }
        while let Some(piece) = buffer.pop() {
            assert!(piece.len() < SEAL_AT + 100);
        }
    }

    #[test]
    fn nothing_is_allocated_until_the_first_byte() {
        let buffer = FrameBuffer::new();
        assert_eq!((buffer.open.capacity(), buffer.sealed.capacity()), (0, 0));
    }

    #[test]
    fn a_steady_stream_reuses_its_buffer() {
        let mut buffer = FrameBuffer::new();
        buffer.put_slice(&[0; 4096]);
        let first = buffer.pop().map(|piece| piece.as_ptr());
        let again = (0..100).any(|_| {
            buffer.put_slice(&[0; 1024]);
            buffer.pop().map(|piece| piece.as_ptr()) == first
        });
        assert!(again);
    }
}
