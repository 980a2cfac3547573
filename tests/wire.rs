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
        message::{Decoded, Item, message_size},
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

/// Everything that the stream holds, which arrives in pieces of the lengths given, over and over: item by item, and the
/// same in one pass.
fn decode(kind: StreamKind, bytes: &[u8], pieces: &[usize]) -> Result<Vec<Item>, FrameError> {
    let mut items = Vec::new();
    let outcome = decode_by_items(kind, bytes, pieces, &mut items);
    let mut decoded = Decoded::default();
    assert_eq!(decode_at_once(kind, bytes, pieces, &mut decoded), outcome);
    let messages = |item: &Item| if let Item::Message(message) = item { Some(message.clone()) } else { None };
    let expected: Vec<Message> = items.iter().filter_map(messages).collect();
    assert_eq!(decoded.messages, expected);
    assert_eq!(decoded.heartbeats, (items.len() - expected.len()) as u64);
    assert_eq!(decoded.sizes, expected.iter().map(message_size).collect::<Vec<_>>());
    outcome.map(|()| items)
}

fn decode_at_once(kind: StreamKind, bytes: &[u8], pieces: &[usize], decoded: &mut Decoded) -> Result<(), FrameError> {
    let mut decoder = decoder(kind);
    let mut left = bytes;
    for &length in pieces.iter().cycle() {
        let (piece, rest) = left.split_at(length.clamp(1, left.len().max(1)).min(left.len()));
        decoder.read(Bytes::copy_from_slice(piece), decoded)?;
        left = rest;
        if left.is_empty() {
            break;
        }
    }
    decoder.finish()
}

fn decode_by_items(kind: StreamKind, bytes: &[u8], pieces: &[usize], items: &mut Vec<Item>) -> Result<(), FrameError> {
    let mut decoder = decoder(kind);
    let mut left = bytes;
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
    decoder.finish()
}
