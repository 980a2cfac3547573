//! The msgapp stream, msgappv2.
//!
//! | type (1 byte) | content; numbers are 8 bytes, big-endian |
//! |---|---|
//! | 0 link heartbeat | nothing |
//! | 1 entries | entry count; for each entry its length and a `raftpb.Entry`; commit index |
//! | 2 message | length; a `raftpb.Message` |
//!
//! Both sides keep a term and an index. Type 2 sets them. Type 1 continues from them, and moves the index by its
//! entries.

use bytes::Bytes;
use prost::{Message as _, encoding::encoded_len_varint};

use crate::{
    id::MemberId,
    wire::{
        decode,
        encode::{self, Scalars},
        error::{FrameError, FrameErrorKind},
        frames::FrameBuffer,
        gather::Gather,
        limits::FrameLimits,
        message::{Decoded, Item, check_length, is_link_heartbeat, last_index},
        payload::{Block, Payloads},
        raftpb::{Entry, Message, MessageType},
    },
};

const LINK_HEARTBEAT: u8 = 0;
const APP_ENTRIES: u8 = 1;
const APP: u8 = 2;

/// How many entries room is made for before they have arrived.
const ENTRIES_AHEAD: usize = 1024;

/// The end of the log as the stream has it.
#[derive(Clone, Copy, Debug, Default)]
struct StreamPosition {
    term: u64,
    index: u64,
}

impl StreamPosition {
    fn after(message: &Message) -> Self {
        Self { term: message.term, index: last_index(message) }
    }

    /// The protobuf size that all messages with this term have in common: all fields but index, entries and commit.
    fn head_size(self, from: MemberId, to: MemberId) -> usize {
        let (r#type, term) = (MessageType::MsgApp as i32, self.term);
        Message { r#type, to: to.0, from: from.0, term, log_term: term, ..Message::default() }.encoded_len()
    }
}

/// Writes msgappv2 frames (etcd's `msgAppV2Encoder`). Its state belongs to one stream: each stream needs a new encoder.
#[derive(Debug)]
pub struct MsgAppV2Encoder {
    local: MemberId,
    remote: MemberId,
    running: StreamPosition,
    /// The [`StreamPosition::head_size`] of `running`.
    head_size: usize,
}

/// How a message is written at the current position of the stream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WritePlan {
    /// Its protobuf size.
    pub(crate) size: usize,
    /// Whether it is written as type 1, which continues from [`StreamPosition`].
    on_running: bool,
    /// For type 1, the protobuf size of the first entry. Nearly always there is no other, and its size need not be
    /// computed again.
    first_entry: usize,
}

impl WritePlan {
    /// Writes the whole message.
    pub(crate) fn whole(message: &Message) -> Self {
        Self { size: message.encoded_len(), on_running: false, first_entry: 0 }
    }
}

impl MsgAppV2Encoder {
    /// An encoder at the start of a stream from `local` to `remote`.
    pub fn new(local: MemberId, remote: MemberId) -> Self {
        Self { local, remote, running: StreamPosition::default(), head_size: 0 }
    }

    /// Appends one message.
    pub fn encode(&mut self, message: &Message, out: &mut FrameBuffer) {
        self.write(message, self.plan(message), out);
    }

    /// Plans how a message is written if it comes next.
    #[inline]
    pub(crate) fn plan(&self, message: &Message) -> WritePlan {
        if !self.stands_on_running(message) {
            return WritePlan::whole(message);
        }
        let mut size = self.head_size + field_size(message.index) + field_size(message.commit);
        let mut first_entry = 0;
        for entry in message.entries.iter().rev() {
            first_entry = entry.encoded_len();
            size += delimited_size(first_entry);
        }
        WritePlan { size, on_running: true, first_entry }
    }

    /// Appends one message by its plan. Nothing may have been written since it was planned.
    pub(crate) fn write(&mut self, message: &Message, plan: WritePlan, out: &mut FrameBuffer) {
        if plan.on_running {
            put_entries(message, plan.first_entry, out);
            self.running.index = last_index(message);
            return;
        }
        if is_link_heartbeat(message) {
            return self.heartbeat(out);
        }
        out.put_u8(APP);
        out.put_u64(plan.size as u64);
        encode::put_message(message, out);
        self.running = StreamPosition::after(message);
        self.head_size = self.running.head_size(self.local, self.remote);
    }

    /// Appends a link heartbeat.
    pub fn heartbeat(&mut self, out: &mut FrameBuffer) {
        out.put_u8(LINK_HEARTBEAT);
    }

    /// Whether the reader can rebuild the message from its entries and commit index. etcd checks less, and if other
    /// fields are set, its reader gets another message than was sent.
    fn stands_on_running(&self, message: &Message) -> bool {
        let StreamPosition { term, index } = self.running;
        message.r#type == MessageType::MsgApp as i32
            && term != 0
            && (message.term, message.log_term, message.index) == (term, term, index)
            && (message.from, message.to) == (self.local.0, self.remote.0)
            && message.snapshot.is_none()
            && !message.reject
            && message.reject_hint == 0
            && message.context.is_empty()
            && message.vote == 0
            && are_contiguous(&message.entries, index)
    }
}

fn are_contiguous(entries: &[Entry], mut index: u64) -> bool {
    entries.iter().all(|entry| {
        let follows = index.checked_add(1) == Some(entry.index);
        index = entry.index;
        follows
    })
}

/// Appends a type 1 frame; the size of its first entry is known.
fn put_entries(message: &Message, first_size: usize, out: &mut FrameBuffer) {
    let mut scalars = Scalars::new();
    scalars.byte(APP_ENTRIES);
    scalars.number(message.entries.len() as u64);
    for (place, entry) in message.entries.iter().enumerate() {
        let size = if place == 0 { first_size } else { entry.encoded_len() };
        scalars.number(size as u64);
        encode::put_entry(scalars, entry, out);
        scalars = Scalars::new();
    }
    scalars.number(message.commit);
    scalars.put(out);
}

/// Reads msgappv2 frames (etcd's `msgAppV2Decoder`). After an error it cannot be used any more.
#[derive(Debug)]
pub struct MsgAppV2Decoder {
    local: MemberId,
    remote: MemberId,
    limits: FrameLimits,
    running: StreamPosition,
    gather: Gather,
    expect: Expect,
    /// The entries of the type 1 frame that is being read.
    entries: Vec<Entry>,
    /// How many more bytes this frame may have.
    bytes_left: u64,
}

/// The part of a frame that comes next.
#[derive(Clone, Copy, Debug)]
enum Expect {
    Type,
    Count,
    EntryLength { left: u64 },
    Entry { left: u64, length: usize },
    Commit,
    MessageLength,
    Message { length: usize },
}

impl Expect {
    fn entry_or_commit(left: u64) -> Self {
        if left == 0 { Self::Commit } else { Self::EntryLength { left } }
    }
}

impl MsgAppV2Decoder {
    /// A decoder at the start of a stream that `remote` writes and `local` reads.
    pub fn new(local: MemberId, remote: MemberId, limits: FrameLimits) -> Self {
        Self {
            local,
            remote,
            limits,
            running: StreamPosition::default(),
            gather: Gather::default(),
            expect: Expect::Type,
            entries: Vec::new(),
            bytes_left: 0,
        }
    }

    /// The next item. `None` if all of `input` was taken and more is needed. Bytes after the item stay in `input`.
    #[inline]
    pub fn next(&mut self, input: &mut Bytes) -> Result<Option<Item>, FrameError> {
        loop {
            let at = self.gather.offset();
            match self.expect {
                Expect::Type => {
                    let Some(kind) = self.gather.byte(input) else {
                        return Ok(None);
                    };
                    match kind {
                        LINK_HEARTBEAT => return Ok(Some(Item::Heartbeat)),
                        APP_ENTRIES => self.expect = self.entries_start(at)?,
                        APP => self.expect = Expect::MessageLength,
                        _ => return Err(unknown_type(kind, at)),
                    }
                }
                Expect::Count => {
                    let Some(count) = self.gather.number(input) else {
                        return Ok(None);
                    };
                    self.expect = self.entries_counted(count, at)?;
                }
                Expect::EntryLength { left } => {
                    let Some(length) = self.gather.number(input) else {
                        return Ok(None);
                    };
                    self.expect = Expect::Entry { left, length: self.entry_length(length, at)? };
                }
                Expect::Entry { left, length } => {
                    let read = self
                        .gather
                        .part(input, length, |frame, payloads| decode::entry(frame, 0..frame.len(), payloads))?;
                    let Some(entry) = read else { return Ok(None) };
                    self.entries.push(entry);
                    self.expect = Expect::entry_or_commit(left - 1);
                }
                Expect::Commit => {
                    let Some(commit) = self.gather.number(input) else {
                        return Ok(None);
                    };
                    self.expect = Expect::Type;
                    return Ok(Some(Item::Message(self.rebuild(commit))));
                }
                Expect::MessageLength => {
                    let Some(length) = self.gather.number(input) else {
                        return Ok(None);
                    };
                    self.expect = Expect::Message { length: self.message_length(length, at)? };
                }
                Expect::Message { length } => {
                    let limits = &self.limits;
                    let read =
                        self.gather.part(input, length, |frame, payloads| decode::message(frame, payloads, limits))?;
                    let Some(message) = read else { return Ok(None) };
                    self.expect = Expect::Type;
                    self.running = StreamPosition::after(&message);
                    return Ok(Some(Item::new(message)));
                }
            }
        }
    }

    /// Reads all of `input`. An incomplete frame at its end is kept for the next call.
    pub(crate) fn read(&mut self, mut input: Bytes, decoded: &mut Decoded) -> Result<(), FrameError> {
        let (length, mut block) = (input.len(), Block::default());
        loop {
            if matches!(self.expect, Expect::Type) && self.running.term != 0 {
                let before = length - input.len();
                self.read_whole(&mut input, before, &mut block, decoded);
            }
            match self.next(&mut input)? {
                Some(item) => decoded.put(item),
                None => return Ok(()),
            }
        }
    }

    /// Reads the complete type 1 frames at the front of `input`, which are nearly all frames of a busy stream. Stops
    /// before any other frame, and before an invalid one, which [`Self::next`] reads or refuses. `before` is how many
    /// bytes of the buffer came before `input`, and `block` holds small payloads of the buffer.
    fn read_whole(&mut self, input: &mut Bytes, before: usize, block: &mut Block, decoded: &mut Decoded) {
        let (mut at, mut payloads, head_size) =
            (0, Payloads::of_many(input, before, block), self.running.head_size(self.remote, self.local));
        while let Some(end) = self.whole_frame(input, at, head_size, &mut payloads, decoded) {
            at = end;
        }
        self.gather.skip(input, at);
    }

    /// Reads the complete type 1 frame at `at`, and returns where it ends. `None`: there is no such frame.
    #[inline]
    fn whole_frame(
        &mut self,
        input: &[u8],
        at: usize,
        head_size: usize,
        payloads: &mut Payloads<'_>,
        decoded: &mut Decoded,
    ) -> Option<usize> {
        if *input.get(at)? != APP_ENTRIES {
            return None;
        }
        let (count, start) = (number_at(input, at + 1)?, at + 9);
        let end = self.whole_entries(input, start, count)?;
        let commit = number_at(input, end)?;
        let mut entries = Vec::with_capacity(usize::try_from(count).ok()?);
        let mut size = head_size + field_size(self.running.index) + field_size(commit);
        let mut at = start;
        while at < end {
            let (first, length) = (at + 8, usize::try_from(number_at(input, at)?).ok()?);
            at = first + length;
            let (entry, entry_size) = decode::usual_entry(input, first..at, payloads)?;
            size += delimited_size(entry_size);
            entries.push(entry);
        }
        self.entries = entries;
        decoded.push(self.rebuild(commit), size);
        Some(end + 8)
    }

    /// The end of `count` entries that start at `at`. `None` if they are incomplete in `input`, or exceed a limit.
    #[inline]
    fn whole_entries(&self, input: &[u8], mut at: usize, count: u64) -> Option<usize> {
        if count > self.limits.entries || self.running.index.checked_add(count).is_none() {
            return None;
        }
        let mut left = self.limits.msgapp_bytes;
        for _ in 0..count {
            let length = number_at(input, at)?;
            left = left.checked_sub(length.saturating_add(8)).filter(|_| length <= self.limits.entry_bytes)?;
            at = usize::try_from(length).ok()?.checked_add(at + 8).filter(|end| *end <= input.len())?;
        }
        Some(at)
    }

    /// The stream has ended. Fails if it ended inside a frame.
    pub fn finish(&self) -> Result<(), FrameError> {
        self.gather.finish(!matches!(self.expect, Expect::Type))
    }

    fn entries_start(&mut self, at: u64) -> Result<Expect, FrameError> {
        // Raft takes a message of term 0 for a local one, so it must not get this one. etcd's reader passes it on.
        if self.running.term == 0 {
            return Err(FrameError::new(FrameErrorKind::Term, at, "entries before any message has set the term"));
        }
        self.bytes_left = self.limits.msgapp_bytes;
        Ok(Expect::Count)
    }

    fn entries_counted(&mut self, count: u64, at: u64) -> Result<Expect, FrameError> {
        if count > self.limits.entries {
            let why = format!("{count} entries are over the limit of {}", self.limits.entries);
            return Err(FrameError::new(FrameErrorKind::Count, at, why));
        }
        if self.running.index.checked_add(count).is_none() {
            let why = format!("{count} entries after index {} go beyond the largest index", self.running.index);
            return Err(FrameError::new(FrameErrorKind::Count, at, why));
        }
        let ahead = usize::try_from(count).map_or(ENTRIES_AHEAD, |count| count.min(ENTRIES_AHEAD));
        self.entries = Vec::with_capacity(ahead);
        Ok(Expect::entry_or_commit(count))
    }

    fn message_length(&self, length: u64, at: u64) -> Result<usize, FrameError> {
        check_length("a message", length, self.limits.msgapp_bytes, at)
    }

    fn entry_length(&mut self, length: u64, at: u64) -> Result<usize, FrameError> {
        let checked = check_length("an entry", length, self.limits.entry_bytes, at)?;
        // The length field counts too, so that empty entries are not free.
        self.bytes_left = self.bytes_left.checked_sub(length.saturating_add(8)).ok_or_else(|| {
            let why = format!("a msgapp frame over the limit of {} bytes", self.limits.msgapp_bytes);
            FrameError::new(FrameErrorKind::Length, at, why)
        })?;
        Ok(checked)
    }

    /// Rebuilds the message that a type 1 frame stands for.
    fn rebuild(&mut self, commit: u64) -> Message {
        let StreamPosition { term, index } = self.running;
        let entries = std::mem::take(&mut self.entries);
        // `entries_counted` or `whole_entries` has checked that this does not overflow.
        self.running.index = index.saturating_add(entries.len() as u64);
        Message {
            r#type: MessageType::MsgApp as i32,
            to: self.local.0,
            from: self.remote.0,
            term,
            log_term: term,
            index,
            entries,
            commit,
            ..Message::default()
        }
    }
}

/// The number at `at`, if `input` has all of its bytes.
#[inline]
fn number_at(input: &[u8], at: usize) -> Option<u64> {
    input.get(at..)?.first_chunk().map(|bytes| u64::from_be_bytes(*bytes))
}

/// The protobuf size of a field with this number, whose tag is one byte.
#[inline]
fn field_size(number: u64) -> usize {
    if number == 0 { 0 } else { 1 + encoded_len_varint(number) }
}

/// The protobuf size of a field with an embedded message of this size, whose tag is one byte.
#[inline]
fn delimited_size(size: usize) -> usize {
    1 + encoded_len_varint(size as u64) + size
}

fn unknown_type(kind: u8, at: u64) -> FrameError {
    FrameError::new(FrameErrorKind::Type, at, format!("frame type {kind} does not exist"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_copied_for_small_payloads_is_bounded_by_what_was_received_whatever_lies_between_them() {
        let (writer, reader) = (MemberId(2), MemberId(1));
        let (mut encoder, mut out) = (MsgAppV2Encoder::new(writer, reader), FrameBuffer::new());
        for index in 0..5000_u64 {
            let entry = Entry { term: 1, index: index + 1, data: vec![7].into(), ..Entry::default() };
            encoder.encode(
                &Message {
                    r#type: MessageType::MsgApp as i32,
                    to: reader.0,
                    from: writer.0,
                    term: 1,
                    log_term: 1,
                    index,
                    entries: vec![entry],
                    ..Message::default()
                },
                &mut out,
            );
            encoder.heartbeat(&mut out);
        }
        let input = Bytes::from(std::iter::from_fn(|| out.pop()).collect::<Vec<_>>().concat());
        let (length, mut decoded) = (input.len(), Decoded::default());
        MsgAppV2Decoder::new(reader, writer, FrameLimits::default()).read(input, &mut decoded).expect("it is legal");
        assert_eq!((decoded.messages.len(), decoded.heartbeats), (5000, 5000));
        let payloads = decoded.messages.iter().flat_map(|message| &message.entries).map(|entry| &entry.data);
        let (mut block, mut copied) = (0..0, 0);
        for payload in payloads {
            assert_eq!(payload[..], [7]);
            let place = payload.as_ptr().addr();
            if !block.contains(&place) {
                block = place..place + (16 << 10);
                copied += block.len();
            }
        }
        assert!(copied <= 2 * length, "{copied} bytes were copied for {length}");
    }
}
