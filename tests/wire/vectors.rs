//! Frames recorded from etcd 3.4, 3.5, 3.6 and 3.7, against what they are known to hold.

#![allow(clippy::panic, reason = "a table that cannot be read ends the test")]

use bytes::Bytes;
use prost::Message as _;
use rafthttp::{
    id::MemberId,
    internals::wire::{
        FrameLimits,
        message::{Item, MessageDecoder, decode_message},
        stream::StreamDecoder,
    },
    wire::{
        StreamKind,
        raftpb::{ConfState, Entry, Message, MessageType, SnapshotMetadata},
    },
};

use super::{READER, WRITER, encode};

const RECORDED: [(&str, &str); 4] = [
    ("3.4", include_str!("../vectors/etcd-3.4-frames.tsv")),
    ("3.5", include_str!("../vectors/etcd-3.5-frames.tsv")),
    ("3.6", include_str!("../vectors/etcd-3.6-frames.tsv")),
    ("3.7", include_str!("../vectors/etcd-3.7-frames.tsv")),
];

/// One recorded frame.
struct Vector {
    version: &'static str,
    kind: &'static str,
    decoded: &'static str,
    bytes: Vec<u8>,
}

fn vectors(kind: &'static str) -> Vec<Vector> {
    let rows = RECORDED.iter().flat_map(|(version, table)| table.lines().map(move |line| (*version, line)));
    let vectors: Vec<Vector> = rows
        .filter(|(_, line)| !line.starts_with('#'))
        .map(|(version, line)| match line.split('\t').collect::<Vec<_>>()[..] {
            [kind, "etcd", decoded, hex] => Vector { version, kind, decoded, bytes: unhex(hex) },
            _ => panic!("four columns: {line}"),
        })
        .filter(|vector| vector.kind == kind)
        .collect();
    assert!(!vectors.is_empty(), "vectors of kind {kind}");
    vectors
}

fn unhex(hex: &str) -> Vec<u8> {
    assert_eq!(hex.len() % 2, 0);
    let byte = |place| u8::from_str_radix(&hex[place..place + 2], 16).expect("hexadecimal");
    (0..hex.len()).step_by(2).map(byte).collect()
}

/// The value of `name=` in a column, up to a space or a closing bracket; none where etcd had none.
fn value<'a>(decoded: &'a str, name: &str) -> Option<&'a str> {
    let start = decoded.find(&format!(" {name}=")).map(|at| at + name.len() + 2);
    let start = start.or_else(|| decoded.strip_prefix(name)?.starts_with('=').then_some(name.len() + 1))?;
    let text = decoded[start..].split([' ', '}', ')']).next()?;
    (text != "None" && text != "nil").then_some(text)
}

fn number(decoded: &str, name: &str) -> u64 {
    value(decoded, name).map_or(0, |text| text.parse().expect("a number"))
}

fn member(decoded: &str, name: &str) -> u64 {
    value(decoded, name).map_or(0, |text| text.parse::<MemberId>().expect("an ID").0)
}

/// The column without what stands in brackets, and what does.
fn without(decoded: &str, open: char, close: char) -> (String, Vec<&str>) {
    let (mut outside, mut inside, mut left) = (String::new(), Vec::new(), decoded);
    while let Some((before, rest)) = left.split_once(open) {
        let (within, after) = rest.split_once(close).expect("a closing bracket");
        outside.push_str(before);
        inside.push(within);
        left = after;
    }
    outside.push_str(left);
    (outside, inside)
}

/// The bytes of a Python literal, as `b'\n\x01a'`.
fn python_bytes(literal: &str) -> Vec<u8> {
    let quote = literal.chars().nth(1).expect("a quote");
    let mut text = literal[2..].chars();
    let mut bytes = Vec::new();
    loop {
        match text.next().expect("a closing quote") {
            end if end == quote => return bytes,
            '\\' => bytes.push(match text.next().expect("an escape") {
                'n' => b'\n',
                't' => b'\t',
                'r' => b'\r',
                'x' => {
                    let digits: String = text.by_ref().take(2).collect();
                    u8::from_str_radix(&digits, 16).expect("hexadecimal")
                }
                other => other as u8,
            }),
            other => bytes.push(other as u8),
        }
    }
}

/// Asserts that `message` is what the column says, field by field. Of payloads it gives the length only.
fn assert_is(message: &Message, decoded: &str) {
    let (context, decoded) = match decoded.split_once(" context=b") {
        Some((before, literal)) => {
            let literal = format!("b{literal}");
            // A literal ends before ` vote=`, if that is there, or at the end.
            let after = literal.find(" vote=").map_or(String::new(), |at| literal[at..].to_owned());
            (python_bytes(&literal), format!("{before}{after}"))
        }
        None => (Vec::new(), decoded.to_owned()),
    };
    let (rest, snapshots) = without(&decoded, '(', ')');
    let (rest, entries) = without(&rest, '{', '}');
    let name = rest.split(' ').next().expect("a type").trim_start_matches("Msg").to_owned();
    let kind = MessageType::try_from(message.r#type).expect("a known type");
    assert_eq!(format!("Msg{name}"), format!("{kind:?}"));
    assert_eq!(message.to, member(&rest, "to"));
    assert_eq!(message.from, member(&rest, "from"));
    assert_eq!(message.term, number(&rest, "term"));
    assert_eq!(message.log_term, number(&rest, "logTerm"));
    assert_eq!(message.index, number(&rest, "index"));
    assert_eq!(message.commit, number(&rest, "commit"));
    assert_eq!(message.reject, number(&rest, "reject") != 0);
    assert_eq!(message.reject_hint, number(&rest, "rejectHint"));
    assert_eq!(message.vote, number(&rest, "vote"));
    assert_eq!(message.context, context);
    assert_entries(&message.entries, &entries);
    assert_eq!(message.snapshot.is_some(), !snapshots.is_empty());
    if let (Some(snapshot), [text]) = (&message.snapshot, &snapshots[..]) {
        assert_eq!(snapshot.data.len() as u64, number(text, "data"));
        let conf_state = ConfState::decode(&unhex(value(text, "conf").unwrap_or_default())[..]).expect("a ConfState");
        let metadata =
            SnapshotMetadata { conf_state: Some(conf_state), index: number(text, "idx"), term: number(text, "term") };
        assert_eq!(snapshot.metadata, Some(metadata));
    }
}

fn assert_entries(entries: &[Entry], texts: &[&str]) {
    assert_eq!(entries.len(), texts.len());
    for (entry, text) in entries.iter().zip(texts) {
        assert_eq!(i64::from(entry.r#type), number(text, "type") as i64);
        assert_eq!(entry.term, number(text, "term"));
        assert_eq!(entry.index, number(text, "index"));
        let length = value(text, "data").and_then(|text| text.trim_end_matches('B').parse().ok()).unwrap_or(0);
        assert_eq!(entry.data.len(), length);
    }
}

fn decode_frame(bytes: &[u8]) -> (Item, Bytes) {
    let mut input = Bytes::copy_from_slice(bytes);
    let item = MessageDecoder::new(FrameLimits::default()).next(&mut input).expect("etcd wrote it");
    (item.expect("a whole frame"), input)
}

fn assert_survives(message: &Message) {
    let again = encode(StreamKind::Message, std::slice::from_ref(message));
    assert_eq!(decode_frame(&again).0, Item::Message(message.clone()));
}

#[test]
fn message_frames_of_etcd_hold_what_etcd_put_in() {
    for vector in vectors("message-frame") {
        let (item, rest) = decode_frame(&vector.bytes);
        assert!(rest.is_empty());
        match item {
            Item::Message(message) => {
                assert_is(&message, vector.decoded);
                assert_survives(&message);
            }
            Item::Heartbeat => {
                let plain = vector.decoded.trim_end();
                assert!(plain == "MsgHeartbeat" || plain.starts_with("MsgHeartbeat to=0 from=0 "), "{plain}");
            }
        }
    }
}

#[test]
fn frames_without_a_written_zero_are_written_byte_for_byte_as_etcd_3_7_does() {
    let mut compared = 0;
    for vector in vectors("message-frame").iter().filter(|vector| vector.version == "3.7") {
        let zero_written = ["=0", "=None", "(data="].iter().any(|text| vector.decoded.contains(text));
        if let (Item::Message(message), false) = (decode_frame(&vector.bytes).0, zero_written) {
            assert_eq!(encode(StreamKind::Message, &[message]), vector.bytes, "{}", vector.decoded);
            compared += 1;
        }
    }
    assert!(compared > 5);
}

#[test]
fn bodies_of_posts_of_etcd_hold_what_etcd_put_in() {
    for vector in vectors("post-raft") {
        let message = decode_message(vector.bytes.into(), &FrameLimits::default()).expect("etcd wrote it");
        assert_is(&message, vector.decoded);
        assert_survives(&message);
    }
}

#[test]
fn snapshot_envelopes_of_etcd_end_where_the_database_starts() {
    for vector in vectors("snapshot-envelope") {
        let length = u64::from_be_bytes(vector.bytes[..8].try_into().expect("eight bytes"));
        let (item, rest) = decode_frame(&vector.bytes);
        assert_eq!(rest, vector.bytes[8 + usize::try_from(length).expect("short")..]);
        let Item::Message(message) = item else { panic!("a message") };
        assert_is(&message, vector.decoded);
        assert_survives(&message);
    }
}

/// A message that sets the running state of a msgapp stream.
fn sets(term: u64, index: u64) -> Message {
    Message { r#type: MessageType::MsgApp as i32, term, index, ..Message::default() }
}

#[test]
fn msgapp_frames_of_etcd_hold_what_etcd_put_in() {
    for vector in vectors("msgapp-frame") {
        let (outside, entries) = without(vector.decoded, '{', '}');
        let term = entries.first().map_or(7, |text| number(text, "term"));
        let index = entries.first().map_or(10, |text| number(text, "index") - 1);
        let mut input = Bytes::from([encode(StreamKind::MsgApp, &[sets(term, index)]), vector.bytes.clone()].concat());
        let mut decoder = StreamDecoder::new(StreamKind::MsgApp, READER, WRITER, FrameLimits::default());
        decoder.next(&mut input).expect("our own").expect("our own");
        let item = decoder.next(&mut input).expect("etcd wrote it").expect("a whole frame");
        assert!(input.is_empty() && decoder.finish().is_ok());
        match (outside.split(' ').next(), item) {
            (Some("linkHeartbeat"), Item::Heartbeat) => {}
            (Some("AppEntries"), Item::Message(message)) => {
                assert_entries(&message.entries, &entries);
                assert_eq!(message.entries.len() as u64, number(&outside, "n"));
                let expected = Message {
                    from: WRITER.0,
                    to: READER.0,
                    log_term: term,
                    commit: number(&outside, "commit"),
                    entries: message.entries.clone(),
                    ..sets(term, index)
                };
                assert_eq!(message, expected);
                let frame = &encode(StreamKind::MsgApp, &[sets(term, index), message.clone()]);
                let frame = &frame[encode(StreamKind::MsgApp, &[sets(term, index)]).len()..];
                assert_eq!(frame[0], 1, "an append that stands on the last is written as its entries");
                if vector.version == "3.7" {
                    assert_eq!(frame, vector.bytes);
                }
            }
            (Some("MsgApp-full"), Item::Message(message)) => {
                assert_is(&message, vector.decoded.trim_start_matches("MsgApp-full "));
                if vector.version == "3.7" {
                    assert_eq!(encode(StreamKind::MsgApp, &[message]), vector.bytes);
                }
            }
            (text, item) => panic!("{text:?} became {item:?}"),
        }
    }
}
