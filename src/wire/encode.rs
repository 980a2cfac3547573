//! Encodes messages and entries as protobuf, directly into a [`FrameBuffer`]. The bytes are those that prost would
//! write, but large payloads are not copied.
//!
//! Zeros are left out, as in etcd 3.7. Every supported version reads that.

use bytes::Bytes;
use prost::Message as _;

use crate::wire::{
    frames::{FrameBuffer, SHARE_FROM},
    raftpb::{Entry, Message, Snapshot},
};

/// Room for the scalars of a [`Message`], which has the most: nine, each with a one-byte tag and at most ten bytes.
const SCALARS: usize = 9 * 11;

/// The tag of a varint field. The field numbers here are below 16.
const fn varint(field: u8) -> u8 {
    field << 3
}

/// The tag of a length-delimited field.
const fn delimited(field: u8) -> u8 {
    field << 3 | 2
}

/// The scalars of one message, assembled on the stack and copied once.
pub(crate) struct Scalars {
    bytes: [u8; SCALARS],
    length: usize,
}

impl Scalars {
    pub(crate) const fn new() -> Self {
        Self { bytes: [0; SCALARS], length: 0 }
    }

    pub(crate) fn byte(&mut self, byte: u8) {
        self.bytes[self.length] = byte;
        self.length += 1;
    }

    pub(crate) fn number(&mut self, number: u64) {
        self.bytes[self.length..self.length + 8].copy_from_slice(&number.to_be_bytes());
        self.length += 8;
    }

    #[expect(clippy::cast_possible_truncation, reason = "the low seven bits are meant")]
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.byte(value as u8 | 0x80);
            value >>= 7;
        }
        self.byte(value as u8);
    }

    fn field(&mut self, field: u8, value: u64) {
        if value != 0 {
            self.byte(varint(field));
            self.varint(value);
        }
    }

    fn delimited(&mut self, field: u8, length: usize) {
        self.byte(delimited(field));
        self.varint(length as u64);
    }

    pub(crate) fn put(self, out: &mut FrameBuffer) {
        out.put_slice(&self.bytes[..self.length]);
    }
}

/// An enum on the wire: negative numbers take ten bytes, as in prost and Go.
const fn enumeration(value: i32) -> u64 {
    value as i64 as u64
}

/// Appends the fields of `message`, without a length before them.
pub(crate) fn put_message(message: &Message, out: &mut FrameBuffer) {
    let mut scalars = Scalars::new();
    scalars.field(1, enumeration(message.r#type));
    scalars.field(2, message.to);
    scalars.field(3, message.from);
    scalars.field(4, message.term);
    scalars.field(5, message.log_term);
    scalars.field(6, message.index);
    scalars.put(out);
    for entry in &message.entries {
        let mut scalars = Scalars::new();
        scalars.delimited(7, entry.encoded_len());
        put_entry(scalars, entry, out);
    }
    let mut scalars = Scalars::new();
    scalars.field(8, message.commit);
    if let Some(snapshot) = &message.snapshot {
        scalars.delimited(9, snapshot.encoded_len());
        scalars.put(out);
        put_snapshot(snapshot, out);
        scalars = Scalars::new();
    }
    scalars.field(10, u64::from(message.reject));
    scalars.field(11, message.reject_hint);
    if !message.context.is_empty() {
        scalars.delimited(12, message.context.len());
        scalars.put(out);
        put_payload(&message.context, out);
        scalars = Scalars::new();
    }
    scalars.field(13, message.vote);
    scalars.put(out);
}

/// Appends `before`, then the fields of `entry`, without a length before them.
pub(crate) fn put_entry(before: Scalars, entry: &Entry, out: &mut FrameBuffer) {
    let mut scalars = before;
    scalars.field(1, enumeration(entry.r#type));
    scalars.field(2, entry.term);
    scalars.field(3, entry.index);
    if entry.data.is_empty() {
        return scalars.put(out);
    }
    scalars.delimited(4, entry.data.len());
    scalars.put(out);
    put_payload(&entry.data, out);
}

/// Cloning a `Bytes` costs an atomic addition, so only a payload that is shared is cloned.
fn put_payload(payload: &Bytes, out: &mut FrameBuffer) {
    if payload.len() < SHARE_FROM {
        out.put_slice(payload);
    } else {
        out.share(payload.clone());
    }
}

fn put_snapshot(snapshot: &Snapshot, out: &mut FrameBuffer) {
    let mut scalars = Scalars::new();
    if !snapshot.data.is_empty() {
        scalars.delimited(1, snapshot.data.len());
        scalars.put(out);
        put_payload(&snapshot.data, out);
        scalars = Scalars::new();
    }
    if let Some(metadata) = &snapshot.metadata {
        scalars.delimited(2, metadata.encoded_len());
        scalars.put(out);
        out.put_slice(&metadata.encode_to_vec());
    }
}
