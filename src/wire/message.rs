//! The message stream, and the envelope of a snapshot.
//!
//! | bytes | content |
//! |---|---|
//! | 8 | length, big-endian |
//! | length | a `raftpb.Message` |
//!
//! The link heartbeat is a `MsgHeartbeat` from and to member 0.

use bytes::Bytes;
use prost::Message as _;

use crate::wire::{
    decode, encode,
    error::{FrameError, FrameErrorKind},
    frames::FrameBuffer,
    gather::Gather,
    limits::FrameLimits,
    raftpb::{Message, MessageType},
};

pub use decode::decode_message;

/// The content of a frame.
#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::large_enum_variant, reason = "nearly every item is a message, and a box would be a malloc for each")]
pub enum Item {
    /// A message for raft.
    Message(Message),
    /// A link heartbeat, which shows that the writer is alive. Raft never sees it.
    Heartbeat,
}

impl Item {
    pub(crate) fn new(message: Message) -> Self {
        if is_link_heartbeat(&message) { Self::Heartbeat } else { Self::Message(message) }
    }
}

/// The content of one read of a stream. The decoder learns the size of each message, so it is kept with the message.
#[derive(Debug, Default)]
pub struct Decoded {
    /// The messages, in the order of the stream.
    pub messages: Vec<Message>,
    /// The [`message_size`] of each message, in bytes.
    pub sizes: Vec<usize>,
    /// How many link heartbeats came between them.
    pub heartbeats: u64,
}

impl Decoded {
    /// Makes room for this many more messages.
    pub fn reserve(&mut self, messages: usize) {
        self.messages.reserve(messages);
        self.sizes.reserve(messages);
    }

    #[inline]
    pub(crate) fn push(&mut self, message: Message, size: usize) {
        self.messages.push(message);
        self.sizes.push(size);
    }

    /// Appends a message, or counts a link heartbeat.
    pub(crate) fn put(&mut self, item: Item) {
        match item {
            Item::Message(message) => {
                let size = message_size(&message);
                self.push(message, size);
            }
            Item::Heartbeat => self.heartbeats += 1,
        }
    }
}

/// Whether a message is the link heartbeat. It is recognized by type, `from` and `to`, never by its bytes, because
/// those differ between versions (etcd's `isLinkHeartbeatMessage`).
pub fn is_link_heartbeat(message: &Message) -> bool {
    message.r#type == MessageType::MsgHeartbeat as i32 && message.from == 0 && message.to == 0
}

/// The protobuf size of the whole message in bytes, whatever the frame. etcd's byte counters count this.
pub fn message_size(message: &Message) -> usize {
    message.encoded_len()
}

/// An estimate of the memory that a message of this protobuf size takes: an empty entry is only 2 bytes on the wire.
pub fn memory_size(message: &Message, size: usize) -> usize {
    size + size_of_val(message.entries.as_slice())
}

/// The protobuf size of the link heartbeat on the message stream: one field, its type.
pub const LINK_HEARTBEAT_SIZE: u64 = 2;

/// The index of the last entry, or the message's own index if it has no entries: the end of the log after this message.
pub fn last_index(message: &Message) -> u64 {
    message.entries.last().map_or(message.index, |entry| entry.index)
}

/// Writes message frames (etcd's `messageEncoder`).
#[derive(Debug, Default)]
pub struct MessageEncoder;

impl MessageEncoder {
    /// Appends one message.
    pub fn encode(&mut self, message: &Message, out: &mut FrameBuffer) {
        self.write(message, message_size(message), out);
    }

    /// Appends one message of this size.
    pub(crate) fn write(&mut self, message: &Message, size: usize, out: &mut FrameBuffer) {
        out.put_u64(size as u64);
        encode::put_message(message, out);
    }

    /// Appends a link heartbeat.
    pub fn heartbeat(&mut self, out: &mut FrameBuffer) {
        self.encode(&Message { r#type: MessageType::MsgHeartbeat as i32, ..Message::default() }, out);
    }
}

/// Reads message frames (etcd's `messageDecoder`). After an error it cannot be used any more.
#[derive(Debug)]
pub struct MessageDecoder {
    limits: FrameLimits,
    gather: Gather,
    /// The length of the next message, once it is known.
    length: Option<usize>,
}

impl MessageDecoder {
    /// A decoder at the start of a stream.
    pub fn new(limits: FrameLimits) -> Self {
        Self { limits, gather: Gather::default(), length: None }
    }

    /// The next item. `None` if all of `input` was taken and more is needed. Bytes after the item stay in `input`.
    pub fn next(&mut self, input: &mut Bytes) -> Result<Option<Item>, FrameError> {
        let length = match self.length {
            Some(length) => length,
            None => {
                let at = self.gather.offset();
                let Some(length) = self.gather.number(input) else {
                    return Ok(None);
                };
                check_length("a message", length, self.limits.message_bytes, at)?
            }
        };
        self.length = Some(length);
        let limits = &self.limits;
        let message = self.gather.part(input, length, |frame, payloads| decode::message(frame, payloads, limits))?;
        Ok(message.map(|message| {
            self.length = None;
            Item::new(message)
        }))
    }

    /// Reads all of `input`. An incomplete frame at its end is kept for the next call.
    pub(crate) fn read(&mut self, mut input: Bytes, decoded: &mut Decoded) -> Result<(), FrameError> {
        while let Some(item) = self.next(&mut input)? {
            decoded.put(item);
        }
        Ok(())
    }

    /// The stream has ended. Fails if it ended inside a frame.
    pub fn finish(&self) -> Result<(), FrameError> {
        self.gather.finish(self.length.is_some())
    }
}

/// The length that a peer announced, if it is within `limit` bytes.
pub(crate) fn check_length(what: &str, length: u64, limit: u64, at: u64) -> Result<usize, FrameError> {
    usize::try_from(length).ok().filter(|_| length <= limit).ok_or_else(|| {
        let why = format!("a length of {length} bytes for {what} is over the limit of {limit}");
        FrameError::new(FrameErrorKind::Length, at, why)
    })
}
