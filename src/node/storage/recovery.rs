//! Rebuilds the log from its records, in the order in which they were written.

use raft::eraftpb::{Entry, HardState};

use super::{StoreError, log::Log, tables::damaged, wal::Record};

/// The log and the hard state, while the records are being read.
#[derive(Debug)]
pub(super) struct Recovery {
    /// The index and term of the entry before the first needed one: of the last snapshot, or of the last compaction.
    truncated: (u64, u64),
    log: Log,
    hard_state: Option<HardState>,
    /// The entry at the truncated index is another one: the entries after it were written before the snapshot was
    /// installed.
    is_outdated: bool,
    is_member: bool,
}

impl Recovery {
    /// If there is no member yet, the log can only contain the beginning that an interrupted start has left.
    pub(super) fn new(truncated: (u64, u64), is_member: bool) -> Self {
        let log = Log::new(truncated.0, truncated.1);
        Self { truncated, log, hard_state: None, is_outdated: false, is_member }
    }

    /// Takes the next record.
    pub(super) fn add(&mut self, record: Record) -> Result<(), StoreError> {
        if !self.is_member {
            // A member that is being made overwrites the log. But an existing member's log is all that is left of what
            // it acknowledged.
            let is_beginning = record.reset == Some((0, 0));
            let lost = "a member's log is there, and node.redb, which says whose, is not: expected both, or none";
            return if is_beginning { Ok(()) } else { Err(damaged(lost)) };
        }
        if let Some((index, term)) = record.reset {
            if index > self.truncated.0 || index == self.truncated.0 && term != self.truncated.1 {
                return Err(damaged(&format!("log: it begins after {index}, the data at {}", self.truncated.0)));
            }
            (self.log, self.is_outdated) = (Log::new(self.truncated.0, self.truncated.1), false);
        }
        self.hard_state = Some(record.hard_state);
        record.entries.into_iter().try_for_each(|entry| self.add_entry(entry))
    }

    fn add_entry(&mut self, entry: Entry) -> Result<(), StoreError> {
        let (index, term) = self.truncated;
        if entry.index <= index {
            // When an entry was replaced, all entries after it went with it.
            self.log = Log::new(index, term);
            self.is_outdated = entry.index < index || entry.term != term;
            return Ok(());
        }
        if self.is_outdated {
            return Ok(());
        }
        if entry.index > self.log.last_index() + 1 {
            return Err(damaged(&format!("log: entry {} after {}", entry.index, self.log.last_index())));
        }
        self.log.push(entry);
        Ok(())
    }

    /// The log, and the hard state if one was written. Also whether the records end before the data: the power failed
    /// between a snapshot's data and its place in the log, so the log has to begin anew after the data.
    pub(super) fn end(self) -> (Log, Option<HardState>, bool) {
        (self.log, self.hard_state, self.is_outdated)
    }
}
