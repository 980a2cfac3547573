//! The content of a record.

use std::io;

use protobuf::{CodedInputStream, Message as _};
use raft::eraftpb::{Entry, HardState};

const APPEND: u8 = 1;
const RESET: u8 = 2;

/// The entries and the hard state of one `Ready`.
#[derive(Debug, Default, PartialEq)]
pub(in crate::node::storage) struct Record {
    /// The index and term of the entry before the log's first one, if this record begins a log.
    pub(in crate::node::storage) reset: Option<(u64, u64)>,
    pub(in crate::node::storage) hard_state: HardState,
    pub(in crate::node::storage) entries: Vec<Entry>,
}

/// Appends the body of a record.
pub(super) fn put(
    body: &mut Vec<u8>,
    reset: Option<(u64, u64)>,
    entries: &[Entry],
    hard_state: &HardState,
) -> io::Result<()> {
    match reset {
        None => body.push(APPEND),
        Some((index, term)) => {
            body.push(RESET);
            body.extend_from_slice(&index.to_le_bytes());
            body.extend_from_slice(&term.to_le_bytes());
        }
    }
    hard_state.write_length_delimited_to_vec(body)?;
    entries.iter().try_for_each(|entry| Ok(entry.write_length_delimited_to_vec(body)?))
}

impl Record {
    /// Parses the body of a record. Its checksum was right, so a body that cannot be parsed was written by another
    /// program.
    pub(super) fn parse(body: &[u8]) -> Result<Self, String> {
        let (kind, mut rest) = body.split_first().ok_or("an empty record")?;
        let reset = match *kind {
            APPEND => None,
            RESET => {
                let (place, after) = rest.split_first_chunk::<16>().ok_or("a record that is cut short")?;
                rest = after;
                let (index, term) = place.split_at(8);
                let number = |bytes: &[u8]| bytes.try_into().map_or(0, u64::from_le_bytes);
                Some((number(index), number(term)))
            }
            other => return Err(format!("a record of kind {other}, which this version does not know")),
        };
        let mut input = CodedInputStream::from_bytes(rest);
        let mut read = || {
            let hard_state = input.read_message()?;
            let mut entries = Vec::new();
            while !input.eof()? {
                entries.push(input.read_message()?);
            }
            Ok::<_, protobuf::ProtobufError>(Self { reset, hard_state, entries })
        };
        read().map_err(|error| format!("a record that cannot be read: {error}"))
    }
}
