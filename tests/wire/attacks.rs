//! What a peer sends to kill or swell its reader.

use bytes::Bytes;
use rafthttp::{
    internals::wire::{
        FrameErrorKind, FrameLimits,
        message::{Item, MessageDecoder, decode_message},
    },
    wire::{
        StreamKind,
        raftpb::{ConfState, Entry, Message, MessageType, Snapshot, SnapshotMetadata},
    },
};

use super::{decode, encode};

fn kind_of(kind: StreamKind, bytes: &[u8]) -> (FrameErrorKind, u64) {
    let error = decode(kind, bytes, &[usize::MAX]).expect_err("refused");
    (error.kind, error.offset)
}

/// A stream whose running term is 5 and whose index is 10, and then these bytes.
fn after_a_message(bytes: &[u8]) -> (Vec<u8>, u64) {
    let first = Message { r#type: MessageType::MsgApp as i32, term: 5, index: 10, ..Message::default() };
    let mut stream = encode(StreamKind::MsgApp, &[first]);
    let start = stream.len() as u64;
    stream.extend_from_slice(bytes);
    (stream, start)
}

fn numbers(kind: u8, numbers: &[u64]) -> Vec<u8> {
    let mut bytes = vec![kind];
    numbers.iter().for_each(|number| bytes.extend_from_slice(&number.to_be_bytes()));
    bytes
}

#[test]
fn lengths_that_no_memory_holds_are_refused() {
    for length in [1 << 60, 1 << 40, (512 << 20) + 1, u64::MAX] {
        let message = u64::to_be_bytes(length);
        assert_eq!(kind_of(StreamKind::Message, &message), (FrameErrorKind::Length, 0));
        let (stream, start) = after_a_message(&numbers(1, &[1, length]));
        assert_eq!(kind_of(StreamKind::MsgApp, &stream), (FrameErrorKind::Length, start + 9));
        let (stream, start) = after_a_message(&numbers(1, &[length]));
        assert_eq!(kind_of(StreamKind::MsgApp, &stream), (FrameErrorKind::Count, start + 1));
    }
    let app = numbers(2, &[(1 << 30) + 1]);
    assert_eq!(kind_of(StreamKind::MsgApp, &app), (FrameErrorKind::Length, 1));
}

#[test]
fn twenty_million_empty_entries_are_refused_before_they_are_decoded() {
    let body: Vec<u8> = [0x3a, 0].repeat(20_000_000);
    let error = decode_message(body.into(), &FrameLimits::default()).expect_err("refused");
    assert_eq!((error.kind, error.offset), (FrameErrorKind::Count, 2 << 20));
}

#[test]
fn a_frame_of_legal_entries_is_bounded_as_a_whole() {
    let limits = FrameLimits { msgapp_bytes: 100, ..FrameLimits::default() };
    let entry = Entry { term: 5, index: 11, data: Bytes::from(vec![0; 40]), ..Entry::default() };
    let follows = Entry { index: 12, ..entry.clone() };
    let at = |index, entries| Message {
        r#type: MessageType::MsgApp as i32,
        from: super::WRITER.0,
        to: super::READER.0,
        term: 5,
        log_term: 5,
        index,
        entries,
        ..Message::default()
    };
    let mut input = Bytes::from(encode(StreamKind::MsgApp, &[at(10, vec![]), at(10, vec![entry, follows])]));
    let mut decoder =
        rafthttp::internals::wire::stream::StreamDecoder::new(StreamKind::MsgApp, super::READER, super::WRITER, limits);
    assert!(decoder.next(&mut input).expect("the first message").is_some());
    assert_eq!(decoder.next(&mut input).expect_err("too large").kind, FrameErrorKind::Length);
}

#[test]
fn entries_before_the_first_message_have_no_term() {
    assert_eq!(kind_of(StreamKind::MsgApp, &numbers(1, &[0, 0])), (FrameErrorKind::Term, 0));
}

#[test]
fn a_frame_type_that_does_not_exist_is_refused() {
    assert_eq!(kind_of(StreamKind::MsgApp, &[0, 0, 3]), (FrameErrorKind::Type, 2));
}

#[test]
fn an_index_does_not_go_beyond_the_largest() {
    let first = Message { r#type: MessageType::MsgApp as i32, term: 5, index: u64::MAX - 1, ..Message::default() };
    let start = encode(StreamKind::MsgApp, &[first]);
    let with = |frame: Vec<u8>| [start.clone(), frame].concat();
    assert_eq!(kind_of(StreamKind::MsgApp, &with(numbers(1, &[2]))).0, FrameErrorKind::Count);
    let one = decode(StreamKind::MsgApp, &with(numbers(1, &[1, 0, 7])), &[9]).expect("just fits");
    assert!(matches!(&one[1], Item::Message(message) if message.index == u64::MAX - 1 && message.commit == 7));
}

#[test]
fn bytes_that_are_no_protobuf_are_refused_where_they_stand() {
    let mut frame = numbers(2, &[4]);
    frame.extend_from_slice(&[0x08, 0x03, 0x10, 0xff]);
    assert_eq!(kind_of(StreamKind::MsgApp, &frame), (FrameErrorKind::Protobuf, 9 + 3));
}

#[test]
fn a_field_that_nests_millions_deep_is_skipped() {
    // Responses (14), each a message that holds but the next.
    let depth = 2_000_000;
    let (mut lengths, mut length) = (Vec::new(), 0_u64);
    for _ in 0..depth {
        let mut varint = Vec::new();
        prost::encoding::encode_varint(length, &mut varint);
        length += 1 + varint.len() as u64;
        lengths.push(varint);
    }
    let mut body: Vec<u8> = lengths.into_iter().rev().flat_map(|varint| [vec![14 << 3 | 2], varint].concat()).collect();
    body.extend_from_slice(&[0x20, 7]);
    let message = decode_message(body.into(), &FrameLimits::default()).expect("skipped");
    assert_eq!(message, Message { term: 7, ..Message::default() });
}

#[test]
fn groups_that_nest_deep_are_refused() {
    let body = vec![15 << 3 | 3; 1 << 20];
    let error = decode_message(body.into(), &FrameLimits::default()).expect_err("refused");
    assert_eq!(error.kind, FrameErrorKind::Protobuf);
}

#[test]
fn a_membership_of_millions_is_refused() {
    use prost::Message as _;
    let snapshot = |voters| {
        let conf_state = ConfState { voters: vec![1; voters], ..ConfState::default() };
        let metadata = SnapshotMetadata { conf_state: Some(conf_state), ..SnapshotMetadata::default() };
        Message {
            snapshot: Some(Snapshot { metadata: Some(metadata), ..Snapshot::default() }.into()),
            ..Message::default()
        }
    };
    let limits = FrameLimits::default();
    let large = snapshot(1 << 20).encode_to_vec();
    assert_eq!(decode_message(large.into(), &limits).expect_err("refused").kind, FrameErrorKind::Length);
    // Nor in parts.
    let part = snapshot(200_000).encode_to_vec();
    assert!(decode_message(part.clone().into(), &limits).is_ok());
    assert_eq!(decode_message(part.repeat(3).into(), &limits).expect_err("refused").kind, FrameErrorKind::Length);
}

#[test]
fn a_stream_that_ends_inside_a_frame_says_so() {
    let message = Message { r#type: MessageType::MsgApp as i32, term: 5, ..Message::default() };
    for kind in StreamKind::ALL {
        let bytes = encode(kind, std::slice::from_ref(&message));
        for end in 1..bytes.len() {
            assert_eq!(kind_of(kind, &bytes[..end]), (FrameErrorKind::Truncated, end as u64));
        }
    }
}

#[test]
fn a_body_over_the_limit_is_refused() {
    let limits = FrameLimits { message_bytes: 3, ..FrameLimits::default() };
    assert_eq!(decode_message(vec![0x20, 7, 0x20, 7].into(), &limits).expect_err("long").kind, FrameErrorKind::Length);
    assert!(decode_message(vec![0x20, 7].into(), &limits).is_ok());
}

#[test]
fn a_snapshot_s_body_stays_behind_its_envelope() {
    let message = Message { r#type: MessageType::MsgSnap as i32, ..Message::default() };
    let mut input =
        Bytes::from([encode(StreamKind::Message, std::slice::from_ref(&message)), b"database".to_vec()].concat());
    let mut decoder = MessageDecoder::new(FrameLimits { message_bytes: 64 << 20, ..FrameLimits::default() });
    assert_eq!(decoder.next(&mut input), Ok(Some(Item::Message(message))));
    assert_eq!(input, "database");
}
