//! The messages of the benchmarks: appends of one entry, as a busy leader sends them.

use bytes::Bytes;
use rafthttp::{
    id::MemberId,
    wire::raftpb::{Entry, Message, MessageType},
};

pub const WRITER: MemberId = MemberId(0x8e9e_05c5_2164_694d);
pub const READER: MemberId = MemberId(0x91bc_3c39_8fb3_c146);

/// The append that carries entry `index` + 1.
pub fn append(index: u64, data: &Bytes) -> Message {
    Message {
        r#type: MessageType::MsgApp as i32,
        to: READER.0,
        from: WRITER.0,
        term: 7,
        log_term: 7,
        index,
        entries: vec![Entry { term: 7, index: index + 1, data: data.clone(), ..Entry::default() }],
        commit: index,
        ..Message::default()
    }
}
