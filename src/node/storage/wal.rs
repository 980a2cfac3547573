//! The raft log on disk (etcd's `wal`): records that are appended and synced, in segments, of which the oldest are
//! removed first.
//!
//! A record has the entries and the hard state of one `Ready`, and a checksum: after a crash it is either there
//! completely or not there. Each record is synced before the next is written, so only the last one can be torn, and any
//! other error is damage. The log is not in redb because a commit there writes some fourteen pages, of trees that it
//! shares with data that nobody waits for; a record is one write (`docs/numbers.md` has the figures).
//!
//! A segment grows by zeros that are written ahead, so that most syncs need not extend the file.

use std::{
    collections::VecDeque,
    io,
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::Arc,
};

use raft::eraftpb::{Entry, HardState};

use super::{StoreError, tables::damaged};
use crate::world::{DiskFile, Files};

mod record;
mod segment;

pub(super) use record::Record;
use segment::{HEADER_BYTES, MAGIC, RECORD_HEADER_BYTES};

/// At this size, in bytes, a new segment begins. A compaction of the log removes only whole segments from the disk, so
/// up to this much more than needed may stay.
const SEGMENT_BYTES: u64 = 16 << 20;
/// How far zeros are written ahead, in bytes.
const AHEAD_BYTES: u64 = 1 << 20;
/// How much memory the buffer of a record keeps, in bytes.
const KEPT_BYTES: usize = 1 << 20;
/// The position of an entry is recorded once per this many bytes. Reading starts at such a position.
const PLACE_EVERY_BYTES: u64 = 64 << 10;

/// The files of the log.
pub(super) struct Wal {
    files: Files,
    directory: PathBuf,
    segments: VecDeque<Segment>,
    /// Ordered by index. The entries after a place may have been replaced since, which their term shows.
    places: VecDeque<RecordPosition>,
    buffer: Vec<u8>,
    /// Segments that exist but do not belong to the log.
    dropped: Vec<u64>,
    /// A write or a sync failed, so the end of the last segment is unknown.
    has_failed: bool,
}

struct Segment {
    sequence: u64,
    file: Arc<dyn DiskFile>,
    /// The position of the next record.
    end: u64,
    /// The size of the file, including the zeros ahead.
    reserved: u64,
    /// The highest index of an entry in this segment and all before it.
    highest: u64,
}

#[derive(Clone, Copy, Debug)]
struct RecordPosition {
    /// The index of the first entry of the record.
    index: u64,
    sequence: u64,
    offset: u64,
}

impl Wal {
    /// Opens the log in `directory`, which is created if it does not exist, and passes on its records, the oldest
    /// first. A record that was torn by a loss of power is cut off.
    pub(super) fn open(
        files: &Files,
        directory: &Path,
        mut each: impl FnMut(Record) -> Result<(), StoreError>,
    ) -> Result<Self, StoreError> {
        files.create_directory(directory)?;
        let mut wal = Self {
            files: files.clone(),
            directory: directory.to_owned(),
            segments: VecDeque::new(),
            places: VecDeque::new(),
            buffer: Vec::new(),
            dropped: Vec::new(),
            has_failed: false,
        };
        let sequences = wal.sequences()?;
        for sequence in &sequences {
            wal.recover(*sequence, Some(sequence) == sequences.last(), &mut each)?;
        }
        if wal.segments.is_empty() && !wal.dropped.is_empty() {
            return Err(damaged("log: a segment is missing"));
        }
        Ok(wal)
    }

    /// The existing segments. If one is missing, those before it were dropped, and the power failed before all of them
    /// had left the disk. If a needed entry is missing, the caller that takes the records finds out. The dropped
    /// segments stay until [`Self::remove_dropped`], because a missing one may be found again.
    fn sequences(&mut self) -> Result<Vec<u64>, StoreError> {
        let names = self.files.names(&self.directory)?;
        let mut sequences: Vec<u64> = names.iter().filter_map(|name| segment::sequence(name)).collect();
        sequences.sort_unstable();
        let follows = |at: &usize| sequences[*at] == sequences[*at - 1] + 1;
        let first = (1..sequences.len()).rev().find(|at| !follows(at)).unwrap_or(0);
        self.dropped = sequences.drain(..first).collect();
        Ok(sequences)
    }

    /// Removes segments that were dropped before the log was opened, since the records without them turned out
    /// complete.
    pub(super) fn remove_dropped(&mut self) -> Result<(), StoreError> {
        for sequence in std::mem::take(&mut self.dropped) {
            self.files.remove(&self.path(sequence))?;
        }
        Ok(())
    }

    /// Reads a segment.
    fn recover(
        &mut self,
        sequence: u64,
        is_last: bool,
        each: &mut impl FnMut(Record) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let path = self.path(sequence);
        let broken = |why: &str| damaged(&format!("log: {}: {why}", segment::name(sequence)));
        let file = self.files.open_kept(&path)?;
        let bytes = read_whole(&*file)?;
        let begun = segment::has_begun(&bytes).then(|| segment::scan(&bytes, sequence)).transpose();
        let found = begun.map_err(|why| broken(&why))?.unwrap_or_default();
        if is_last && found.records.is_empty() {
            // The power failed while it was made, so nothing that it would contain was promised.
            self.files.remove(&path)?;
            return Ok(self.files.sync_directory(&self.directory)?);
        }
        if !is_last && (found.is_torn || found.records.is_empty()) {
            return Err(broken("it ends in the middle of a record"));
        }
        let highest = self.segments.back().map_or(0, |segment| segment.highest);
        let (end, reserved) = (found.end as u64, bytes.len() as u64);
        self.segments.push_back(Segment { sequence, file: file.clone(), end, reserved, highest });
        for record in &found.records {
            let parsed = Record::parse(&bytes[record.clone()]).map_err(|why| broken(&why))?;
            self.note(sequence, (record.start - RECORD_HEADER_BYTES) as u64, &parsed.entries, parsed.reset.is_some());
            each(parsed)?;
        }
        if is_last {
            self.repair_end(&bytes, &found)?;
        }
        Ok(())
    }

    /// Makes the end of the last segment agree with what was read. The last record is written again, because after a
    /// failed sync the system may show bytes that never reached the disk.
    fn repair_end(&mut self, bytes: &[u8], found: &segment::Scan) -> Result<(), StoreError> {
        let Some(last) = self.segments.back_mut() else { return Ok(()) };
        if found.is_torn {
            tracing::warn!(segment = %segment::name(last.sequence), at = found.end, "the log's last write was torn; it is cut off");
            last.file.set_len(last.end)?;
            last.reserved = last.end;
        }
        if let Some(record) = found.records.last() {
            let start = record.start - RECORD_HEADER_BYTES;
            last.file.write_at(start as u64, &bytes[start..found.end])?;
        }
        Ok(last.file.sync()?)
    }

    /// Adds entries, which replace those with the same indexes and all after them, and the hard state. They are on the
    /// disk when this returns.
    pub(super) fn append(&mut self, entries: &[Entry], hard_state: &HardState) -> Result<(), StoreError> {
        self.guarded(|wal| {
            if wal.segments.back().is_none_or(|segment| segment.end >= SEGMENT_BYTES) {
                wal.begin_segment(None, &[], hard_state)?;
                if entries.is_empty() {
                    return Ok(());
                }
            }
            wal.write(None, entries, hard_state)
        })
    }

    /// Begins anew after `index`, whose entry had `term`. Everything before is gone.
    pub(super) fn reset(
        &mut self,
        (index, term): (u64, u64),
        entries: &[Entry],
        hard_state: &HardState,
    ) -> Result<(), StoreError> {
        self.guarded(|wal| {
            let old = wal.segments.len();
            wal.begin_segment(Some((index, term)), entries, hard_state)?;
            wal.drop_oldest(old)
        })
    }

    /// Drops the segments that contain nothing after `index`.
    pub(super) fn compact(&mut self, index: u64) -> Result<(), StoreError> {
        let last = self.segments.len().saturating_sub(1);
        let old = self.segments.iter().take(last).take_while(|segment| segment.highest <= index).count();
        self.guarded(|wal| wal.drop_oldest(old))
    }

    /// Passes on entries from `index` or a little before it, the oldest first, until told to stop. Some were replaced
    /// by later ones of the same index; the caller knows the terms.
    pub(super) fn read(&self, index: u64, mut each: impl FnMut(Entry) -> ControlFlow<()>) -> Result<(), StoreError> {
        let place = self.places.partition_point(|place| place.index <= index).checked_sub(1);
        let Some(place) = place.and_then(|place| self.places.get(place)) else { return Ok(()) };
        let mut offset = place.offset;
        for segment in self.segments.iter().skip_while(|segment| segment.sequence < place.sequence) {
            while offset < segment.end {
                let broken = |why: String| damaged(&format!("log: {}: {why}", segment::name(segment.sequence)));
                let (body, next) = segment::read_record(&*segment.file, segment.sequence, offset)?.map_err(broken)?;
                for entry in Record::parse(&body).map_err(broken)?.entries {
                    if each(entry).is_break() {
                        return Ok(());
                    }
                }
                offset = next;
            }
            offset = HEADER_BYTES as u64;
        }
        Ok(())
    }

    /// After a failure nothing more is written: only opening the log again shows its end.
    fn guarded(&mut self, change: impl FnOnce(&mut Self) -> io::Result<()>) -> Result<(), StoreError> {
        if self.has_failed {
            return Err(io::Error::other("the log failed before").into());
        }
        let done = change(self);
        self.has_failed = done.is_err();
        Ok(done?)
    }

    /// Writes a record at the end, and syncs it.
    fn write(&mut self, reset: Option<(u64, u64)>, entries: &[Entry], hard_state: &HardState) -> io::Result<()> {
        let Some(last) = self.segments.back_mut() else { return Err(io::ErrorKind::NotFound.into()) };
        self.buffer.clear();
        segment::put_record(&mut self.buffer, last.sequence, last.end, |buffer| {
            record::put(buffer, reset, entries, hard_state)
        })?;
        let (start, length) = (last.end, self.buffer.len() as u64);
        if start + length > last.reserved {
            // Zeros come after the record only, which is written next.
            let until = start + length + AHEAD_BYTES;
            let from = last.reserved.max(start + length);
            last.file.write_at(from, &vec![0; usize::try_from(until - from).map_err(io::Error::other)?])?;
            last.reserved = until;
        }
        last.file.write_at(start, &self.buffer)?;
        last.file.sync()?;
        last.end += length;
        let sequence = last.sequence;
        self.note(sequence, start, entries, reset.is_some());
        // A record of several megabytes is rare.
        self.buffer.shrink_to(KEPT_BYTES);
        Ok(())
    }

    /// Makes the next segment. It begins with the hard state, because the segments before it may be removed.
    fn begin_segment(
        &mut self,
        reset: Option<(u64, u64)>,
        entries: &[Entry],
        hard_state: &HardState,
    ) -> io::Result<()> {
        let sequence = self.segments.back().map_or(0, |last| last.sequence + 1);
        if let Some(last) = self.segments.back_mut() {
            last.file.set_len(last.end)?;
            last.file.sync()?;
            last.reserved = last.end;
        }
        let path = self.path(sequence);
        let file = self.files.open_kept(&path)?;
        file.set_len(0)?;
        file.write_at(0, &MAGIC)?;
        let (end, highest) = (HEADER_BYTES as u64, self.segments.back().map_or(0, |last| last.highest));
        self.segments.push_back(Segment { sequence, file, end, reserved: end, highest });
        self.write(reset, entries, hard_state)?;
        self.files.sync_directory(&self.directory)
    }

    fn drop_oldest(&mut self, count: usize) -> io::Result<()> {
        if count == 0 {
            return Ok(());
        }
        for _ in 0..count {
            let Some(oldest) = self.segments.front() else { break };
            self.files.remove(&self.path(oldest.sequence))?;
            self.segments.pop_front();
        }
        let first = self.segments.front().map_or(u64::MAX, |segment| segment.sequence);
        while self.places.front().is_some_and(|place| place.sequence < first) {
            self.places.pop_front();
        }
        self.files.sync_directory(&self.directory)
    }

    /// Records the positions of entries.
    fn note(&mut self, sequence: u64, offset: u64, entries: &[Entry], is_reset: bool) {
        if is_reset {
            self.places.clear();
            self.segments.iter_mut().for_each(|segment| segment.highest = 0);
        }
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else { return };
        while self.places.back().is_some_and(|place| place.index >= first.index) {
            self.places.pop_back();
        }
        let is_far = |place: &RecordPosition| place.sequence != sequence || place.offset + PLACE_EVERY_BYTES <= offset;
        if self.places.back().is_none_or(is_far) {
            self.places.push_back(RecordPosition { index: first.index, sequence, offset });
        }
        if let Some(segment) = self.segments.back_mut() {
            segment.highest = segment.highest.max(last.index);
        }
    }

    fn path(&self, sequence: u64) -> PathBuf {
        self.directory.join(segment::name(sequence))
    }
}

fn read_whole(file: &dyn DiskFile) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(file.len()?).map_err(io::Error::other)?];
    let mut read = 0;
    while read < bytes.len() {
        match file.read_at(read as u64, &mut bytes[read..])? {
            0 => bytes.truncate(read),
            more => read += more,
        }
    }
    Ok(bytes)
}

/// Has the segments read from the disk again. Other files in the directory are not ours to open.
pub(super) fn forget(files: &Files, directory: &Path) -> io::Result<()> {
    if !files.exists(directory) {
        return Ok(());
    }
    let names = files.names(directory)?;
    let mut segments = names.iter().filter(|name| segment::sequence(name).is_some());
    segments.try_for_each(|name| files.forget(&directory.join(name)))
}

#[cfg(test)]
mod tests;
