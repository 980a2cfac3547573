//! Whether the logs of all members match: what two of them have committed at one index is the same entry.
//!
//! The logs are read from the disks, as `src/node/storage/wal` says that they are written, by code of its own.

use std::{collections::BTreeMap, path::Path};

use protobuf::{CodedInputStream, ProtobufResult};
use raft::eraftpb::{Entry, HardState};
use rafthttp::internals::world::{Disk as _, Opening};
use xxhash_rust::xxh3::xxh3_64;

use super::{
    member::{DIRECTORY, Member},
    memory_disk::MemoryDisk,
};

/// The heads of a segment and of a record, in bytes.
const HEADER: usize = 16;
/// The kind of a record that begins a log anew, and the bytes of its place.
const RESET: u8 = 2;
const PLACE: usize = 16;

/// An entry: its term, and a hash of all of it.
type Seen = (u64, u64);

/// What was committed, and by whom it was first seen.
#[derive(Debug, Default)]
pub struct Logs(BTreeMap<u64, (Seen, String)>);

impl Logs {
    /// Compares what a member has committed with what others have.
    pub fn look(&mut self, member: &Member) -> Result<(), String> {
        let Some(node) = member.node().filter(|_| !member.is_doubtful) else { return Ok(()) };
        let (commit, name) = (node.raft_status().commit, &member.name);
        for (index, seen) in read(&member.disk, name) {
            if index > commit {
                break;
            }
            let (known, other) = self.0.entry(index).or_insert_with(|| (seen, name.clone()));
            if *known != seen {
                let (one, two) = (known.0, seen.0);
                return Err(format!(
                    "{other} and {name} have committed two entries at {index}: of the terms {one} and {two}"
                ));
            }
        }
        Ok(())
    }
}

/// The entries of a member's log, as its disk has them now.
fn read(disk: &MemoryDisk, name: &str) -> BTreeMap<u64, Seen> {
    let directory = Path::new(DIRECTORY).join(name).join("member/log");
    let mut names = disk.names(&directory).unwrap_or_default();
    names.sort();
    let mut entries = BTreeMap::new();
    for name in names {
        let Ok(file) = disk.open(&directory.join(name), Opening::Read) else { continue };
        let mut bytes = vec![0; usize::try_from(file.len().unwrap_or_default()).expect("it is in memory")];
        let length = file.read_at(0, &mut bytes).unwrap_or_default();
        take_segment(&bytes[..length], &mut entries);
    }
    entries
}

fn take_segment(bytes: &[u8], entries: &mut BTreeMap<u64, Seen>) {
    let mut at = HEADER;
    while let Some(length) = bytes.get(at..).and_then(<[u8]>::first_chunk).map(|bytes| u32::from_le_bytes(*bytes)) {
        let start = at + HEADER;
        let Some(body) = bytes.get(start..start + length as usize).filter(|body| !body.is_empty()) else { return };
        // The last record may be torn: what it holds is not committed.
        if take_record(body, entries).is_err() {
            return;
        }
        at = start + body.len().next_multiple_of(16);
    }
}

fn take_record(body: &[u8], entries: &mut BTreeMap<u64, Seen>) -> ProtobufResult<()> {
    let (kind, mut rest) = (body[0], &body[1..]);
    if kind == RESET {
        entries.clear();
        rest = rest.get(PLACE..).unwrap_or_default();
    }
    let mut input = CodedInputStream::from_bytes(rest);
    input.read_message::<HardState>()?;
    while !input.eof()? {
        let entry: Entry = input.read_message()?;
        entries.split_off(&entry.index);
        let told = [&(entry.entry_type as u64).to_le_bytes()[..], &entry.context, &entry.data].concat();
        entries.insert(entry.index, (entry.term, xxh3_64(&told)));
    }
    Ok(())
}
