//! The store in the form that raft-rs reads.

use std::ops::ControlFlow;

use raft::{
    Error as RaftError, GetEntriesContext, RaftState, StorageError,
    eraftpb::{Entry, Snapshot},
};

use tokio::time::Instant;

use super::{
    Store, StoreError, log,
    spool::{HandedOut, knows},
    tables::damaged,
};

impl raft::Storage for Store {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState::new(self.hard_state.clone(), self.conf_state.clone()))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low < self.log.first_index() {
            return Err(RaftError::Store(StorageError::Compacted));
        }
        let mut taken = TakenEntries { entries: Vec::new(), room: max_size.into().unwrap_or(u64::MAX) };
        let on_disk = high.min(self.log.tail_from());
        if low < on_disk {
            match self.read_entries(low, on_disk, &mut taken) {
                Ok(true) => {}
                Ok(false) => return Ok(taken.entries),
                // Raft goes on without this append. The next write finds out the state of the disk.
                Err(error) if context.can_async() => {
                    if let Some(times) = self.unreadable.note() {
                        tracing::error!(%error, times, "the log cannot be read");
                    }
                    return Err(RaftError::Store(StorageError::LogTemporarilyUnavailable));
                }
                Err(error) => return Err(RaftError::Store(StorageError::Other(Box::new(error)))),
            }
        }
        self.log.tail(low.max(on_disk), high).all(|entry| taken.take(entry));
        Ok(taken.entries)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        self.log.term(index).ok_or(RaftError::Store(if index < self.log.first_index() {
            StorageError::Compacted
        } else {
            StorageError::Unavailable
        }))
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.log.first_index())
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.log.last_index())
    }

    /// The metadata of the spooled snapshot, if this follower can go on from it. If not, there is no snapshot until one is
    /// spooled, and raft asks again.
    fn snapshot(&self, request_index: u64, to: u64) -> raft::Result<Snapshot> {
        let unavailable = || RaftError::Store(StorageError::SnapshotTemporarilyUnavailable);
        self.outgoing.borrow_mut().retain(|snapshot| snapshot.to != to);
        let permit = self.permits.clone().try_acquire_owned().map_err(|_| unavailable())?;
        let spooled = self.spool.borrow_mut().ask(Instant::now(), |spooled| {
            spooled.index >= request_index && self.can_follow(spooled.index) && knows(&spooled.conf_state, to)
        });
        let spooled = spooled.ok_or_else(unavailable)?;
        let mut snapshot = Snapshot::default();
        let metadata = snapshot.mut_metadata();
        (metadata.index, metadata.term) = (spooled.index, spooled.term);
        metadata.set_conf_state(spooled.conf_state.clone());
        self.outgoing.borrow_mut().push(HandedOut { to, spooled, _permit: permit });
        Ok(snapshot)
    }
}

impl Store {
    /// Whether all entries were taken.
    fn read_entries(&self, low: u64, high: u64, taken: &mut TakenEntries) -> Result<bool, StoreError> {
        let mut next = low;
        let mut has_room = true;
        self.wal.read(low, |entry| {
            // An entry of another term was replaced.
            if entry.index != next || self.log.term(next) != Some(entry.term) {
                return ControlFlow::Continue(());
            }
            has_room = taken.take(entry);
            next += u64::from(has_room);
            if has_room && next < high { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        if has_room && next < high {
            return Err(damaged(&format!("log: entry {next} is not there")));
        }
        Ok(has_room)
    }
}

/// Collects entries up to a size; the first one is taken whatever its size.
struct TakenEntries {
    entries: Vec<Entry>,
    room: u64,
}

impl TakenEntries {
    fn take(&mut self, entry: Entry) -> bool {
        let size = log::size(&entry);
        if size > self.room && !self.entries.is_empty() {
            return false;
        }
        self.room = self.room.saturating_sub(size);
        self.entries.push(entry);
        true
    }
}
