//! The format of a segment.
//!
//! | bytes | what |
//! |---|---|
//! | 16 | `rafthttp-wal`, and the version of the format |
//! | then, for each record: 4 | the length of its body, little-endian, as all numbers here |
//! | 4 | a check of the length and of the checksum |
//! | 8 | the checksum of the body, XXH3 with the record's place as seed |
//! | … | the body, and zeros up to the next multiple of 16 |
//!
//! The head of a record never crosses a sector, so that a disk writes all of it or nothing.

use std::{ffi::OsStr, io, ops::Range};

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::world::DiskFile;

/// The first bytes of a segment.
pub(super) const MAGIC: [u8; HEADER_BYTES] = *b"rafthttp-wal\0\0\0\x01";
pub(super) const HEADER_BYTES: usize = 16;
pub(super) const RECORD_HEADER_BYTES: usize = 16;

/// The name of a segment's file.
pub(super) fn name(sequence: u64) -> String {
    format!("{sequence:016x}.wal")
}

/// The number of the segment with this name.
pub(super) fn sequence(found: &OsStr) -> Option<u64> {
    let digits = found.to_str()?.strip_suffix(".wal")?;
    u64::from_str_radix(digits, 16).ok().filter(|sequence| found == name(*sequence).as_str())
}

/// The content of a segment.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Scan {
    /// The bodies of its records.
    pub(super) records: Vec<Range<usize>>,
    /// The end of the records.
    pub(super) end: usize,
    /// The last write to it is incomplete.
    pub(super) is_torn: bool,
}

/// Whether the head of the segment is there. If not, the power failed while the segment was made.
pub(super) fn has_begun(bytes: &[u8]) -> bool {
    let is_torn = |(byte, magic): (&u8, &u8)| *byte == 0 || byte == magic;
    bytes.starts_with(&MAGIC) || !bytes.iter().zip(&MAGIC).all(is_torn)
}

/// Finds the records. An error says what is damaged.
pub(super) fn scan(bytes: &[u8], sequence: u64) -> Result<Scan, String> {
    if !bytes.starts_with(&MAGIC) {
        return Err("it is no log of this version".to_owned());
    }
    let mut scan = Scan { end: HEADER_BYTES, ..Scan::default() };
    let are_zeros = |from: usize| bytes.get(from..).is_none_or(|rest| rest.iter().all(|byte| *byte == 0));
    loop {
        let start = scan.end;
        let next = bytes[start..].split_first_chunk::<RECORD_HEADER_BYTES>();
        let Some((head, rest)) = next.filter(|(head, _)| **head != [0; RECORD_HEADER_BYTES]) else {
            scan.is_torn = !are_zeros(start);
            return Ok(scan);
        };
        let body_start = start + RECORD_HEADER_BYTES;
        let Some(header) = RecordHeader::parse(*head, seed(sequence, start as u64)) else {
            // A disk that tears within a sector leaves nothing after the tear.
            scan.is_torn = are_zeros(body_start);
            return if scan.is_torn { Ok(scan) } else { Err(format!("the record at {start} has no valid head")) };
        };
        let body = rest.get(..header.length as usize);
        if body.is_some_and(|body| header.fits(body)) {
            scan.records.push(body_start..body_start + header.length as usize);
            scan.end = after(body_start, header.length).min(bytes.len());
            continue;
        }
        // The last record may be torn. One that is followed by another was synced.
        scan.is_torn = are_zeros(after(body_start, header.length));
        return if scan.is_torn { Ok(scan) } else { Err(format!("the record at {start} has a wrong checksum")) };
    }
}

/// Reads the record at an offset, and returns where the next one begins. The inner error says what is damaged.
pub(super) fn read_record(
    file: &dyn DiskFile,
    sequence: u64,
    offset: u64,
) -> io::Result<Result<(Vec<u8>, u64), String>> {
    let mut head = [0; RECORD_HEADER_BYTES];
    fill(file, offset, &mut head)?;
    let Some(header) = RecordHeader::parse(head, seed(sequence, offset)) else {
        return Ok(Err(format!("the record at {offset} has no valid head")));
    };
    let mut body = vec![0; header.length as usize];
    let start = offset + RECORD_HEADER_BYTES as u64;
    fill(file, start, &mut body)?;
    if !header.fits(&body) {
        return Ok(Err(format!("the record at {offset} has a wrong checksum")));
    }
    Ok(Ok((body, start + u64::from(header.length).next_multiple_of(16))))
}

fn fill(file: &dyn DiskFile, mut offset: u64, mut into: &mut [u8]) -> io::Result<()> {
    while !into.is_empty() {
        let read = file.read_at(offset, into)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        offset += read as u64;
        into = &mut into[read..];
    }
    Ok(())
}

/// Appends a record for the position `offset`, with the body that `put` writes.
pub(super) fn put_record(
    buffer: &mut Vec<u8>,
    sequence: u64,
    offset: u64,
    put: impl FnOnce(&mut Vec<u8>) -> io::Result<()>,
) -> io::Result<()> {
    let start = buffer.len();
    buffer.extend_from_slice(&[0; RECORD_HEADER_BYTES]);
    put(buffer)?;
    let body = &buffer[start + RECORD_HEADER_BYTES..];
    let length = u32::try_from(body.len()).map_err(|_| io::Error::other("a record of more than 4 GiB"))?;
    let seed = seed(sequence, offset);
    let header = RecordHeader { length, checksum: xxh3_64_with_seed(body, seed), seed };
    buffer[start..start + RECORD_HEADER_BYTES].copy_from_slice(&header.to_bytes());
    buffer.resize(start + (buffer.len() - start).next_multiple_of(16), 0);
    Ok(())
}

/// The head of a record.
struct RecordHeader {
    length: u32,
    checksum: u64,
    seed: u64,
}

impl RecordHeader {
    fn parse(bytes: [u8; RECORD_HEADER_BYTES], seed: u64) -> Option<Self> {
        let length = u32::from_le_bytes(*bytes.first_chunk()?);
        let checksum = u64::from_le_bytes(*bytes.last_chunk()?);
        let header = Self { length, checksum, seed };
        (header.to_bytes() == bytes).then_some(header)
    }

    fn to_bytes(&self) -> [u8; RECORD_HEADER_BYTES] {
        let mut bytes = [0; RECORD_HEADER_BYTES];
        bytes[..4].copy_from_slice(&self.length.to_le_bytes());
        bytes[8..].copy_from_slice(&self.checksum.to_le_bytes());
        let check = xxh3_64_with_seed(&bytes, self.seed).to_le_bytes();
        bytes[4..8].copy_from_slice(&check[..4]);
        bytes
    }

    fn fits(&self, body: &[u8]) -> bool {
        xxh3_64_with_seed(body, self.seed) == self.checksum
    }
}

/// Prevents that a record for another position is accepted.
fn seed(sequence: u64, offset: u64) -> u64 {
    sequence.rotate_left(32) ^ offset
}

/// The position of the record after one.
fn after(body_start: usize, length: u32) -> usize {
    body_start.saturating_add((length as usize).next_multiple_of(16))
}
