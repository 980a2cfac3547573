//! The codecs: bytes to messages, without I/O.

use bytes::Bytes;
use prost::Message as _;
use rafthttp::{
    id::MemberId,
    internals::wire::{
        FrameError, FrameErrorKind, FrameLimits,
        frames::FrameBuffer,
        message::{Item, decode_message},
        reply::{Reply, ReplyError, ReplyReader},
        stream::{StreamDecoder, StreamEncoder},
    },
    wire::{StreamKind, raftpb::Message},
};

const WRITER: MemberId = MemberId(0xa1);
const READER: MemberId = MemberId(0xb2);
/// The longest body of an answer, in bytes.
const REPLY_BYTES: usize = 4096;

/// The stream of compact appends.
pub fn msgapp_stream(data: &[u8]) {
    stream(StreamKind::MsgApp, data);
}

/// The stream of all other messages.
pub fn message_stream(data: &[u8]) {
    stream(StreamKind::Message, data);
}

/// Any bytes are read alike however they are split, and what was read is written and read again the same. The last two
/// bytes say how they are split.
fn stream(kind: StreamKind, data: &[u8]) {
    let Some((stream, [low, high])) = data.split_last_chunk() else {
        return;
    };
    let (items, end) = read(kind, stream, usize::MAX);
    assert_eq!(read(kind, stream, usize::from(u16::from_le_bytes([*low, *high]))), (items.clone(), end));
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

/// Reads a stream in pieces of so many bytes.
fn read(kind: StreamKind, stream: &[u8], piece: usize) -> (Vec<Item>, Result<(), FrameError>) {
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

/// The body of `POST /raft`: what prost reads is read the same and nothing else, save where a bound of ours is exceeded.
pub fn post_body(data: &[u8]) {
    let ours = decode_message(Bytes::copy_from_slice(data), &FrameLimits::default());
    match ours {
        Ok(message) => assert_eq!(Ok(message), Message::decode(data)),
        Err(error) if error.kind == FrameErrorKind::Protobuf => assert!(Message::decode(data).is_err()),
        Err(_) => {}
    }
}

/// The answer to a probe or a question: whatever comes, in whatever pieces, is the same answer or the same refusal, and
/// never longer than it may be.
pub fn reply(data: &[u8]) {
    let said = |outcome: Result<Reply, ReplyError>| outcome.map(|reply| (reply.status, reply.cluster, reply.body));
    let whole = said(read_reply(&[data]));
    assert!(whole.as_ref().is_ok_and(|(_, _, body)| body.len() <= REPLY_BYTES) || whole.is_err());
    let middle = data.first().map_or(0, |byte| usize::from(*byte) * data.len() / 256);
    assert_eq!(said(read_reply(&[&data[..middle], &data[middle..]])), whole);
    assert_eq!(said(read_reply(&data.chunks(1).collect::<Vec<_>>())), whole);
}

fn read_reply(pieces: &[&[u8]]) -> Result<Reply, ReplyError> {
    let mut reading = ReplyReader::new(Vec::new(), REPLY_BYTES);
    for piece in pieces {
        reading.room().extend_from_slice(piece);
        if let Some(reply) = reading.advance()? {
            return Ok(reply);
        }
    }
    reading.closed()
}
