//! What the stream targets have in common.

use bytes::Bytes;
use rafthttp::{id::MemberId, internals::wire::{FrameError, FrameLimits, frames::FrameBuffer, message::Item, stream::{StreamDecoder, StreamEncoder}}, wire::StreamKind};

const WRITER: MemberId = MemberId(0xa1);
const READER: MemberId = MemberId(0xb2);

/// Reads `stream` in pieces of `piece` bytes; the last two bytes of a fuzzer's input say how many.
pub fn read(kind: StreamKind, stream: &[u8], piece: usize) -> (Vec<Item>, Result<(), FrameError>) {
    let mut decoder = StreamDecoder::new(kind, READER, WRITER, FrameLimits::default());
    let mut items = Vec::new();
    for piece in stream.chunks(piece.max(1)) {
        let mut input = Bytes::copy_from_slice(piece);
        loop {
            match decoder.next(&mut input) {
                Ok(Some(item)) => items.push(item),
                Ok(None) => break,
                Err(error) => return (items, Err(error)),
            }
        }
        assert!(input.is_empty(), "what is needed later is taken");
    }
    (items, decoder.finish())
}

/// Any bytes are read alike however they are split, and what was read is written and read again the same.
pub fn check(kind: StreamKind, data: &[u8]) {
    let Some((stream, [low, high])) = data.split_last_chunk() else {
        return;
    };
    let (items, end) = read(kind, stream, usize::MAX);
    assert_eq!(
        read(kind, stream, usize::from(u16::from_le_bytes([*low, *high]))),
        (items.clone(), end)
    );
    let mut encoder = StreamEncoder::new(kind, WRITER, READER);
    let mut frames = FrameBuffer::new();
    for item in &items {
        match item {
            Item::Message(message) => encoder.encode(message, &mut frames),
            Item::Heartbeat => encoder.heartbeat(&mut frames),
        }
    }
    let written: Vec<u8> = std::iter::from_fn(|| frames.pop()).flatten().collect();
    assert_eq!(read(kind, &written, usize::MAX), (items, Ok(())));
}
