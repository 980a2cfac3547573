//! Decodes messages and entries from protobuf, and checks every limit on the way.
//!
//! It accepts what prost accepts: unknown fields are skipped, fields may come in any order, the last value of a scalar
//! wins, and the parts of a snapshot are merged. It is written by hand because prost has no limits: 40 MiB of empty
//! entries would become a gigabyte.

use std::ops::Range;

use bytes::Bytes;
use prost::Message as _;

use crate::wire::{
    error::{FrameError, FrameErrorKind},
    fields::{Fields, Value},
    limits::{FrameLimits, METADATA_BYTES},
    payload::{Arena, Copies, Payloads},
    raftpb::{Entry, Message, Snapshot, SnapshotMetadata},
};

/// Decodes the body of a `POST /raft`. An empty body is a message to member 0.
pub fn decode_message(body: Bytes, limits: &FrameLimits) -> Result<Message, FrameError> {
    if body.len() as u64 > limits.message_bytes {
        let why = format!("a body of {} bytes is over the limit of {}", body.len(), limits.message_bytes);
        return Err(FrameError::new(FrameErrorKind::Length, 0, why));
    }
    // The body may be a slice of the connection's read buffer.
    let copies = Copies::Arena(&mut Arena::for_body(body.len()));
    let mut payloads = Payloads { source: &body, own_length: 0, copies };
    message(&body, &mut payloads, limits)
}

/// Decodes the message in `frame`.
pub(crate) fn message(frame: &[u8], payloads: &mut Payloads<'_>, limits: &FrameLimits) -> Result<Message, FrameError> {
    let mut message = Message::default();
    let mut metadata_left = METADATA_BYTES;
    let mut fields = Fields::new(frame, 0..frame.len());
    loop {
        let at = fields.position();
        let Some((number, value)) = fields.next()? else {
            return Ok(message);
        };
        match (number, value) {
            (1, Value::Varint(value)) => message.r#type = enumeration(value),
            (2, Value::Varint(value)) => message.to = value,
            (3, Value::Varint(value)) => message.from = value,
            (4, Value::Varint(value)) => message.term = value,
            (5, Value::Varint(value)) => message.log_term = value,
            (6, Value::Varint(value)) => message.index = value,
            (7, Value::Delimited(range)) => {
                check_entry(&message.entries, range.len(), limits).map_err(|error| error.within(at as u64))?;
                message.entries.push(entry(frame, range, payloads)?);
            }
            (8, Value::Varint(value)) => message.commit = value,
            (9, Value::Delimited(range)) => {
                let snapshot = message.snapshot.get_or_insert_default();
                merge_snapshot(snapshot, frame, range, payloads, &mut metadata_left)?;
            }
            (10, Value::Varint(value)) => message.reject = value != 0,
            (11, Value::Varint(value)) => message.reject_hint = value,
            (12, Value::Delimited(range)) => message.context = payloads.take(range),
            (13, Value::Varint(value)) => message.vote = value,
            (1..=13, _) => return Err(wrong_wire_type(at)),
            _ => {}
        }
    }
}

/// Decodes the entry at `range` of `frame`.
pub(crate) fn entry(frame: &[u8], range: Range<usize>, payloads: &mut Payloads<'_>) -> Result<Entry, FrameError> {
    let mut entry = Entry::default();
    let mut data = 0..0;
    let mut fields = Fields::new(frame, range);
    loop {
        let at = fields.position();
        let Some((number, value)) = fields.next()? else { break };
        match (number, value) {
            (1, Value::Varint(value)) => entry.r#type = enumeration(value),
            (2, Value::Varint(value)) => entry.term = value,
            (3, Value::Varint(value)) => entry.index = value,
            (4, Value::Delimited(range)) => data = range,
            (1..=4, _) => return Err(wrong_wire_type(at)),
            _ => {}
        }
    }
    entry.data = payloads.take(data);
    Ok(entry)
}

/// Decodes the entry at `range` of `frame`, if it is written as every etcd and this crate write it: each field at most
/// once, in the order of the field numbers, and nothing else. Returns the entry and its protobuf size. `None`: the
/// entry is written in another way, or is invalid, and [`entry`] decides which.
#[inline]
pub(crate) fn usual_entry(frame: &[u8], range: Range<usize>, payloads: &mut Payloads<'_>) -> Option<(Entry, usize)> {
    let (mut fields, mut entry) = (Usual { bytes: &frame[..range.end], at: range.start, zeros: 0 }, Entry::default());
    if fields.has(1 << 3) {
        // A type of more than 32 bits would be cut, and the size computed below would be too large.
        entry.r#type = i32::try_from(fields.varint()?).ok()?;
    }
    if fields.has(2 << 3) {
        entry.term = fields.varint()?;
    }
    if fields.has(3 << 3) {
        entry.index = fields.varint()?;
    }
    if fields.has(4 << 3 | 2) {
        let length = usize::try_from(fields.varint()?).ok()?;
        if range.end - fields.at != length {
            return None;
        }
        entry.data = payloads.take(fields.at..range.end);
    } else if fields.at != range.end {
        return None;
    }
    // Up to etcd 3.6, a zero is written as a tag and a number. The protobuf size leaves out such fields.
    Some((entry, range.len() - 2 * fields.zeros))
}

/// A position among fields that come in the order of their numbers.
struct Usual<'a> {
    bytes: &'a [u8],
    at: usize,
    /// How many of the fields before `at` were zero.
    zeros: usize,
}

impl Usual<'_> {
    /// Whether the next field has this tag.
    #[inline]
    fn has(&self, tag: u8) -> bool {
        self.bytes.get(self.at) == Some(&tag)
    }

    /// The value of the field at the position, whose tag [`Self::has`] has found. `None`: the value has more than 56
    /// bits, takes more bytes than it needs, or does not end.
    #[inline]
    fn varint(&mut self) -> Option<u64> {
        let (mut value, mut shift) = (0, 0);
        for &byte in self.bytes.get(self.at + 1..)?.iter().take(8) {
            value |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte < 0x80 {
                if byte == 0 && shift > 7 {
                    return None;
                }
                self.zeros += usize::from(value == 0);
                self.at += 1 + shift / 7;
                return Some(value);
            }
        }
        None
    }
}

/// The number of an enum, as etcd's generated code reads it: bits above 32 are cut off, without an error.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "the low 32 bits are meant")]
fn enumeration(value: u64) -> i32 {
    value as i32
}

fn merge_snapshot(
    snapshot: &mut Snapshot,
    frame: &[u8],
    range: Range<usize>,
    payloads: &mut Payloads<'_>,
    metadata_left: &mut usize,
) -> Result<(), FrameError> {
    let mut data = None;
    let mut fields = Fields::new(frame, range);
    loop {
        let at = fields.position();
        let Some((number, value)) = fields.next()? else { break };
        match (number, value) {
            (1, Value::Delimited(range)) => data = Some(range),
            (2, Value::Delimited(range)) => {
                *metadata_left = metadata_left.checked_sub(range.len()).ok_or_else(|| {
                    let why = format!("snapshot metadata over the limit of {METADATA_BYTES} bytes");
                    FrameError::new(FrameErrorKind::Length, at as u64, why)
                })?;
                merge_metadata(snapshot.metadata.get_or_insert_default(), &frame[range], at)?;
            }
            (1 | 2, _) => return Err(wrong_wire_type(at)),
            _ => {}
        }
    }
    if let Some(range) = data {
        snapshot.data = payloads.take(range);
    }
    Ok(())
}

fn merge_metadata(metadata: &mut SnapshotMetadata, bytes: &[u8], at: usize) -> Result<(), FrameError> {
    metadata
        .merge(bytes)
        .map_err(|error| FrameError::new(FrameErrorKind::Protobuf, at as u64, format!("snapshot metadata: {error}")))
}

/// Whether one more entry of this length may follow those in `entries`.
fn check_entry(entries: &[Entry], length: usize, limits: &FrameLimits) -> Result<(), FrameError> {
    if entries.len() as u64 >= limits.entries {
        let why = format!("entries over the limit of {}", limits.entries);
        return Err(FrameError::new(FrameErrorKind::Count, 0, why));
    }
    if length as u64 > limits.entry_bytes {
        let why = format!("an entry of {length} bytes is over the limit of {}", limits.entry_bytes);
        return Err(FrameError::new(FrameErrorKind::Length, 0, why));
    }
    Ok(())
}

#[cold]
fn wrong_wire_type(at: usize) -> FrameError {
    FrameError::new(FrameErrorKind::Protobuf, at as u64, "a field with another wire type than its own")
}
