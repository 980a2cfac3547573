//! The codecs against frames that etcd wrote, against prost, and against what kills etcd.

#[path = "wire/attacks.rs"]
mod attacks;
#[path = "wire/properties.rs"]
mod properties;
#[path = "wire/vectors.rs"]
mod vectors;

use bytes::Bytes;
use rafthttp::{
    id::MemberId,
    internals::wire::{
        FrameError, FrameLimits,
        frames::FrameBuffer,
        message::Item,
        stream::{StreamDecoder, StreamEncoder},
    },
    wire::{StreamKind, raftpb::Message},
};

/// The member that writes.
const WRITER: MemberId = MemberId(0xa1);
/// The member that reads.
const READER: MemberId = MemberId(0xb2);

fn decoder(kind: StreamKind) -> StreamDecoder {
    StreamDecoder::new(kind, READER, WRITER, FrameLimits::default())
}

fn written(frames: &mut FrameBuffer) -> Vec<u8> {
    std::iter::from_fn(|| frames.pop()).flatten().collect()
}

fn encode(kind: StreamKind, messages: &[Message]) -> Vec<u8> {
    let mut encoder = StreamEncoder::new(kind, WRITER, READER);
    let mut frames = FrameBuffer::new();
    messages.iter().for_each(|message| encoder.encode(message, &mut frames));
    assert_eq!(frames.len() as u64, frames.produced());
    written(&mut frames)
}

/// Everything that the stream holds, which arrives in pieces of the lengths given, over and over.
fn decode(kind: StreamKind, bytes: &[u8], pieces: &[usize]) -> Result<Vec<Item>, FrameError> {
    let mut decoder = decoder(kind);
    let (mut items, mut left) = (Vec::new(), bytes);
    for &length in pieces.iter().cycle() {
        let (piece, rest) = left.split_at(length.clamp(1, left.len().max(1)).min(left.len()));
        let mut input = Bytes::copy_from_slice(piece);
        while let Some(item) = decoder.next(&mut input)? {
            items.push(item);
        }
        assert!(input.is_empty(), "what is needed later is taken");
        left = rest;
        if left.is_empty() {
            break;
        }
    }
    decoder.finish()?;
    Ok(items)
}
