//! The two kinds of streams.

use std::{fmt, num::ParseIntError, str::FromStr};

use bytes::Bytes;

use crate::{
    id::MemberId,
    wire::{
        error::FrameError,
        frames::FrameBuffer,
        limits::FrameLimits,
        message::{Decoded, Item, MessageDecoder, MessageEncoder},
        msgappv2::{MsgAppV2Decoder, MsgAppV2Encoder, WritePlan},
        raftpb::Message,
    },
};

/// The two kinds of streams between two members, one of each in each direction (etcd's `streamType`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StreamKind {
    /// `MsgApp` of a leader to its follower, as msgappv2 frames.
    MsgApp,
    /// All other messages, as message frames.
    Message,
}

impl StreamKind {
    /// Both kinds.
    pub const ALL: [Self; 2] = [Self::MsgApp, Self::Message];

    /// The segment in the path: `/raft/stream/{segment}/{from-id}`.
    pub const fn segment(self) -> &'static str {
        match self {
            Self::MsgApp => "msgapp",
            Self::Message => "message",
        }
    }

    /// The kind that a segment of a path names, if any.
    pub fn from_segment(segment: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.segment() == segment)
    }
}

/// The ID of a stream: a random number that its reader chooses for each dial. It prints as hexadecimal. etcd's streams
/// have none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamId(pub u64);

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

impl FromStr for StreamId {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u64::from_str_radix(text, 16).map(Self)
    }
}

/// Writes the frames of one stream, from its start.
#[derive(Debug)]
pub enum StreamEncoder {
    /// msgappv2 frames.
    MsgApp(MsgAppV2Encoder),
    /// Message frames.
    Message(MessageEncoder),
}

impl StreamEncoder {
    /// An encoder at the start of a stream from `local` to `remote`.
    pub fn new(kind: StreamKind, local: MemberId, remote: MemberId) -> Self {
        match kind {
            StreamKind::MsgApp => Self::MsgApp(MsgAppV2Encoder::new(local, remote)),
            StreamKind::Message => Self::Message(MessageEncoder),
        }
    }

    /// Appends one message.
    pub fn encode(&mut self, message: &Message, out: &mut FrameBuffer) {
        match self {
            Self::MsgApp(encoder) => encoder.encode(message, out),
            Self::Message(encoder) => encoder.encode(message, out),
        }
    }

    /// Plans how a message is written if it comes next.
    #[inline]
    pub(crate) fn plan(&self, message: &Message) -> WritePlan {
        match self {
            Self::MsgApp(encoder) => encoder.plan(message),
            Self::Message(_) => WritePlan::whole(message),
        }
    }

    /// Appends one message by its plan. Nothing may have been written since it was planned.
    pub(crate) fn write(&mut self, message: &Message, plan: WritePlan, out: &mut FrameBuffer) {
        match self {
            Self::MsgApp(encoder) => encoder.write(message, plan, out),
            Self::Message(encoder) => encoder.write(message, plan.size, out),
        }
    }

    /// Appends a link heartbeat.
    pub fn heartbeat(&mut self, out: &mut FrameBuffer) {
        match self {
            Self::MsgApp(encoder) => encoder.heartbeat(out),
            Self::Message(encoder) => encoder.heartbeat(out),
        }
    }
}

/// Reads the frames of one stream, from its start. After an error it cannot be used any more.
#[derive(Debug)]
pub enum StreamDecoder {
    /// msgappv2 frames.
    MsgApp(MsgAppV2Decoder),
    /// Message frames.
    Message(MessageDecoder),
}

impl StreamDecoder {
    /// A decoder at the start of a stream that `remote` writes and `local` reads.
    pub fn new(kind: StreamKind, local: MemberId, remote: MemberId, limits: FrameLimits) -> Self {
        match kind {
            StreamKind::MsgApp => Self::MsgApp(MsgAppV2Decoder::new(local, remote, limits)),
            StreamKind::Message => Self::Message(MessageDecoder::new(limits)),
        }
    }

    /// The next item. `None` if all of `input` was taken and more is needed. Bytes after the item stay in `input`.
    pub fn next(&mut self, input: &mut Bytes) -> Result<Option<Item>, FrameError> {
        match self {
            Self::MsgApp(decoder) => decoder.next(input),
            Self::Message(decoder) => decoder.next(input),
        }
    }

    /// Reads all of `input` and adds it to `decoded`, as [`Self::next`] would, and faster. The decoder keeps an incomplete
    /// frame for the next call.
    ///
    /// # Errors
    /// A frame cannot be read. The messages before it are in `decoded`.
    pub fn read(&mut self, input: Bytes, decoded: &mut Decoded) -> Result<(), FrameError> {
        match self {
            Self::MsgApp(decoder) => decoder.read(input, decoded),
            Self::Message(decoder) => decoder.read(input, decoded),
        }
    }

    /// The stream has ended. Fails if it ended inside a frame.
    pub fn finish(&self) -> Result<(), FrameError> {
        match self {
            Self::MsgApp(decoder) => decoder.finish(),
            Self::Message(decoder) => decoder.finish(),
        }
    }
}
