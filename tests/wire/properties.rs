//! What holds for every message and every stream of bytes.

use bytes::Bytes;
use proptest::{collection::vec, option, prelude::*};
use prost::Message as _;
use rafthttp::{
    internals::wire::{
        FrameLimits,
        frames::FrameBuffer,
        message::{Item, decode_message, is_link_heartbeat, message_size},
        stream::StreamEncoder,
    },
    wire::{
        StreamKind,
        raftpb::{ConfState, Entry, Message, Snapshot, SnapshotMetadata},
    },
};

use super::{READER, WRITER, decode, encode};

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), 1..10_u64, Just(u64::MAX), any::<u64>()]
}

fn payload() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        8 => vec(any::<u8>(), 0..40).prop_map(Bytes::from),
        1 => (any::<u8>(), 1..100_000_usize).prop_map(|(byte, length)| Bytes::from(vec![byte; length])),
    ]
}

fn entry() -> impl Strategy<Value = Entry> {
    (prop_oneof![0..3, any::<i32>()], number(), number(), payload()).prop_map(|(r#type, term, index, data)| Entry {
        r#type,
        term,
        index,
        data,
    })
}

fn snapshot() -> impl Strategy<Value = Snapshot> {
    let conf_state =
        (vec(number(), 0..4), vec(number(), 0..4), any::<bool>()).prop_map(|(voters, learners_next, auto_leave)| {
            ConfState { voters, learners_next, auto_leave, ..ConfState::default() }
        });
    let metadata = (option::of(conf_state), number(), number())
        .prop_map(|(conf_state, index, term)| SnapshotMetadata { conf_state, index, term });
    (payload(), option::of(metadata)).prop_map(|(data, metadata)| Snapshot { data, metadata })
}

fn message() -> impl Strategy<Value = Message> {
    let log = (number(), number(), number(), number(), vec(entry(), 0..4));
    let rest = (option::weighted(0.2, snapshot().prop_map(Box::new)), any::<bool>(), number(), payload(), number());
    (prop_oneof![0..24, any::<i32>()], number(), number(), log, rest).prop_map(
        |(
            r#type,
            to,
            from,
            (term, log_term, index, commit, entries),
            (snapshot, reject, reject_hint, context, vote),
        )| {
            Message {
                r#type,
                to,
                from,
                term,
                log_term,
                index,
                entries,
                commit,
                snapshot,
                reject,
                reject_hint,
                context,
                vote,
            }
        },
    )
}

/// Appends of one leader. Most of them continue from the one before.
fn appends() -> impl Strategy<Value = Vec<Message>> {
    let append = (vec(payload(), 0..4), 1..3_u64, prop_oneof![9 => Just(0), 1 => 0..3_u64], number());
    vec(append, 0..12).prop_map(|appends| {
        let mut index = 100;
        let next = |(data, term, gap, commit): (Vec<Bytes>, u64, u64, u64)| {
            let start: u64 = index + gap;
            let entries: Vec<Entry> =
                (start + 1..).zip(data).map(|(index, data)| Entry { term, index, data, ..Entry::default() }).collect();
            index = start + entries.len() as u64;
            Message {
                r#type: 3,
                from: WRITER.0,
                to: READER.0,
                term: 2,
                log_term: 2,
                index: start,
                entries,
                commit,
                ..Message::default()
            }
        };
        appends.into_iter().map(next).collect()
    })
}

fn messages() -> impl Strategy<Value = Vec<Message>> {
    prop_oneof![
        vec(message(), 0..6),
        appends(),
        (appends(), vec(message(), 0..3), appends()).prop_map(|(first, between, last)| [first, between, last].concat())
    ]
}

fn kind() -> impl Strategy<Value = StreamKind> {
    prop_oneof![Just(StreamKind::MsgApp), Just(StreamKind::Message)]
}

fn items(messages: &[Message]) -> Vec<Item> {
    let item = |message: &Message| match is_link_heartbeat(message) {
        true => Item::Heartbeat,
        false => Item::Message(message.clone()),
    };
    messages.iter().map(item).collect()
}

/// A message's bytes, some of them spoilt, others put in.
fn spoilt() -> impl Strategy<Value = Vec<u8>> {
    let spoils = vec((any::<prop::sample::Index>(), any::<u8>(), any::<bool>()), 0..6);
    (message(), spoils).prop_map(|(message, spoils)| {
        let mut bytes = message.encode_to_vec();
        for (place, byte, replace) in spoils {
            let place = place.index(bytes.len() + 1);
            match bytes.get_mut(place) {
                Some(old) if replace => *old = byte,
                _ => bytes.insert(place, byte),
            }
        }
        bytes
    })
}

/// A field whose number raftpb does not have, in each wire type.
fn unknown_field() -> impl Strategy<Value = Vec<u8>> {
    let key = |number: u32, wire_type: u32| {
        let mut bytes = Vec::new();
        prost::encoding::encode_varint(u64::from(number << 3 | wire_type), &mut bytes);
        bytes
    };
    (14..1000_u32, 0..5_usize, vec(any::<u8>(), 8)).prop_map(move |(number, place, bytes)| match place {
        0 => [key(number, 0), vec![bytes[0] | 0x80, 1]].concat(),
        1 => [key(number, 1), bytes].concat(),
        2 => [key(number, 2), vec![8], bytes].concat(),
        3 => [key(number, 3), key(7, 3), key(1, 0), vec![5], key(7, 4), key(number, 4)].concat(),
        _ => [key(number, 5), bytes[..4].to_vec()].concat(),
    })
}

proptest! {
    #[test]
    fn any_messages_survive_any_split_of_the_bytes(
        kind in kind(), messages in messages(), pieces in vec(1..70_usize, 1..5), whole in any::<bool>(),
    ) {
        let pieces = if whole { vec![usize::MAX] } else { pieces };
        let bytes = encode(kind, &messages);
        prop_assert_eq!(decode(kind, &bytes, &pieces).expect("what we write, we read"), items(&messages));
    }

    #[test]
    fn what_is_written_is_what_prost_writes(message in message()) {
        let frame = encode(StreamKind::Message, std::slice::from_ref(&message));
        prop_assert_eq!(frame.len() - 8, message_size(&message));
        prop_assert_eq!(&frame[8..], &message.encode_to_vec()[..]);
    }

    #[test]
    fn what_prost_reads_is_read_the_same_and_nothing_else(bytes in spoilt()) {
        let ours = decode_message(bytes.clone().into(), &FrameLimits::default());
        prop_assert_eq!(ours.ok(), Message::decode(&bytes[..]).ok());
    }

    #[test]
    fn messages_put_together_are_merged_as_prost_does(first in message(), second in message()) {
        let bytes = [first.encode_to_vec(), second.encode_to_vec()].concat();
        let ours = decode_message(bytes.clone().into(), &FrameLimits::default());
        prop_assert_eq!(ours.expect("a message"), Message::decode(&bytes[..]).expect("a message"));
    }

    #[test]
    fn unknown_fields_are_skipped(message in message(), field in unknown_field()) {
        let mut with_field = field.clone();
        with_field.extend(message.encode_to_vec());
        with_field.extend(&field);
        let ours = decode_message(with_field.into(), &FrameLimits::default());
        prop_assert_eq!(ours.expect("skipped"), message);
    }

    #[test]
    fn unknown_fields_of_entries_are_skipped(entry in entry(), field in unknown_field()) {
        let bytes = [entry.encode_to_vec(), field].concat();
        let mut body = vec![7 << 3 | 2];
        prost::encoding::encode_varint(bytes.len() as u64, &mut body);
        body.extend(bytes);
        let message = decode_message(body.into(), &FrameLimits::default()).expect("skipped");
        prop_assert_eq!(message.entries, vec![entry]);
    }

    #[test]
    fn any_bytes_are_read_or_refused_alike_however_they_are_split(
        kind in kind(), messages in appends(), garbage in vec(any::<u8>(), 0..200), pieces in vec(1..30_usize, 1..4),
    ) {
        let bytes = [encode(kind, &messages), garbage].concat();
        prop_assert_eq!(decode(kind, &bytes, &[usize::MAX]), decode(kind, &bytes, &pieces));
    }

    #[test]
    fn appends_that_stand_on_the_last_are_not_written_whole(messages in appends()) {
        let mut encoder = StreamEncoder::new(StreamKind::MsgApp, WRITER, READER);
        let mut frames = FrameBuffer::new();
        let mut last: Option<&Message> = None;
        for message in &messages {
            encoder.encode(message, &mut frames);
            let frame = super::written(&mut frames);
            let stands = last.is_some_and(|last| last.index + last.entries.len() as u64 == message.index);
            prop_assert_eq!(frame[0], if stands { 1 } else { 2 });
            last = Some(message);
        }
    }
}
