//! Everything that a member must not forget. The log and the hard state are in files that are only appended to (`wal`).
//! The membership, the data, and the applied index are in an embedded database, whose contents `tables` lists.
//!
//! Things that must not be seen apart are written together: entries and hard state in one record; an applied index, its
//! data and the membership in one transaction. For a snapshot, its data come first, and then the log begins anew after
//! them; if the power fails in between, the next start completes this (`recovery`). What is promised to others is
//! synced before it is sent. What is merely applied is synced a little later, because after a crash the log brings it
//! back.

use std::{cell::RefCell, collections::BTreeMap, io, path::Path, sync::Arc, time::Duration};

use raft::eraftpb::{ConfState, Entry, HardState};
use redb::{Database, Durability, ReadTransaction, ReadableDatabase, ReadableTable, WriteTransaction};
use tokio::{sync::Semaphore, time::Instant};

use super::members::Membership;
use crate::{
    id::{Incarnation, MemberId},
    telemetry::Repeats,
    world::Files,
};

mod backend;
mod compaction;
mod data;
mod database;
mod earlier;
mod forced;
mod halt;
mod identity;
mod incoming;
mod log;
mod met;
mod raft_storage;
mod recovery;
mod snapshot;
mod spool;
mod tables;
mod wal;

pub(super) use data::{StoreReader, Write};
pub(super) use database::file_bytes;
pub(super) use identity::StoredIdentity;
pub(super) use incoming::{IncomingBuilder, IncomingDatabase};
pub(super) use spool::{HandedOut, Spooled, StoreView};
pub(super) use tables::DATA;

use database::OpenDatabase;
use log::Log;
use recovery::Recovery;
use spool::Spool;
use tables::{DATA_BYTES, MET, META, bytes, damaged, length, message, meta, number, pair, pair_bytes};
use wal::Wal;

/// How long applied data may stay unsynced (etcd's `backend-batch-interval`).
const SYNC_INTERVAL: Duration = Duration::from_millis(100);

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another process has it open.
    #[error("it is in use by another process")]
    Locked,
    /// The store's file cannot be read or written: the disk is full, gone, or faulty.
    #[error("{0}")]
    Disk(#[from] redb::Error),
    /// The directory cannot be created, or the log cannot be read or written: the disk is full, gone, or faulty.
    #[error("{0}")]
    Files(#[from] io::Error),
    /// Its contents are inconsistent.
    #[error("it is damaged: {0}")]
    Damaged(String),
}

impl StoreError {
    /// Whether the disk has failed, and its contents may still be good: once there is room, or the disk is back, the
    /// store can be opened again. A limit of this process itself stays as long as the process.
    pub(super) fn is_of_the_disk(&self) -> bool {
        use redb::Error::{DatabaseClosed, Io, PreviousIo};
        match self {
            // The other process will release it.
            Self::Locked | Self::Disk(PreviousIo | DatabaseClosed) => true,
            Self::Files(error) | Self::Disk(Io(error)) => error.kind() != io::ErrorKind::FileTooLarge,
            Self::Disk(_) | Self::Damaged(_) => false,
        }
    }
}

/// The effect of committed entries, up to and including `index`.
#[derive(Debug, Default)]
pub(super) struct Effect {
    pub(super) index: u64,
    pub(super) writes: Vec<Write>,
    /// Raft's configuration, if it changed.
    pub(super) conf_state: Option<ConfState>,
    /// The membership, if it changed.
    pub(super) membership: Option<Vec<u8>>,
    /// Members that were removed: what is stored about them is deleted.
    pub(super) gone: Vec<MemberId>,
}

/// The store, as the raft task uses it.
pub(super) struct Store {
    open: Arc<OpenDatabase>,
    wal: Wal,
    log: Log,
    hard_state: HardState,
    conf_state: ConfState,
    applied: u64,
    /// Since when there have been unsynced data.
    unsynced_since: Option<Instant>,
    /// Bytes of all keys and values.
    data_bytes: u64,
    identity: Option<StoredIdentity>,
    met: BTreeMap<MemberId, Incarnation>,
    /// The snapshot that followers are sent.
    spool: RefCell<Spool>,
    /// Snapshots that raft asked for, and that messages of the same `Ready` carry.
    outgoing: RefCell<Vec<HandedOut>>,
    /// Limits how many snapshots may be on their way.
    permits: Arc<Semaphore>,
    /// Limits the lines about entries for an append that could not be read.
    unreadable: Repeats,
}

impl Store {
    /// Opens the store in `directory`, which is created if it does not exist. At most `snapshots` may be on their way
    /// at a time.
    pub(super) fn open(files: &Files, directory: &Path, snapshots: usize) -> Result<Self, StoreError> {
        Self::read(OpenDatabase::open(files, directory)?, Arc::new(Semaphore::new(snapshots)))
    }

    /// Opens the same store again as it is on the disk, after [`StoreError::is_of_the_disk`]: this one may have more or
    /// less in memory. It fails while there is no room, and may then be tried again.
    pub(super) fn reopen(&self) -> Result<Self, StoreError> {
        self.open.reopen()?;
        Self::read(self.open.clone(), self.permits.clone())
    }

    fn read(open: Arc<OpenDatabase>, permits: Arc<Semaphore>) -> Result<Self, StoreError> {
        let database = open.database()?;
        prepare(&database)?;
        let (files, directory) = open.log();
        earlier::move_log(&database, files, &directory)?;
        let read = database.begin_read().map_err(redb::Error::from)?;
        let identity = match meta(&read, "identity")? {
            Some(json) => Some(serde_json::from_slice(&json).map_err(|_| damaged("identity"))?),
            None => None,
        };
        let truncated = meta(&read, "truncated")?.unwrap_or_else(|| vec![0; 16]);
        let truncated = pair(&truncated).ok_or_else(|| damaged("truncated"))?;
        let mut recovery = Recovery::new(truncated, identity.is_some());
        let mut store = Self {
            wal: Wal::open(files, &directory, |record| recovery.add(record))?,
            log: Log::default(),
            hard_state: HardState::default(),
            conf_state: message(&read, "conf_state")?,
            applied: number(&read, "applied")?,
            data_bytes: number(&read, DATA_BYTES)?,
            unsynced_since: None,
            identity,
            met: met::load(&read)?,
            spool: RefCell::default(),
            outgoing: RefCell::default(),
            permits,
            unreadable: Repeats::default(),
            open: open.clone(),
        };
        store.recover(recovery, truncated)?;
        Ok(store)
    }

    /// Starts a transaction that reads the present state.
    fn begin_read(&self) -> Result<ReadTransaction, StoreError> {
        let begin = || Ok(self.open.database()?.begin_read()?);
        begin().map_err(StoreError::Disk)
    }

    fn recover(&mut self, recovery: Recovery, truncated: (u64, u64)) -> Result<(), StoreError> {
        if self.identity.is_none() {
            return Ok(());
        }
        let (log, hard_state, is_outdated) = recovery.end();
        self.log = log;
        self.hard_state = hard_state.ok_or_else(|| damaged("log: it is not there"))?;
        // Both are at least what the data show: a snapshot's data are written before its place in the log.
        self.hard_state.commit = self.hard_state.commit.max(self.applied);
        if self.hard_state.term < truncated.1 {
            (self.hard_state.term, self.hard_state.vote) = (truncated.1, 0);
        }
        if is_outdated {
            self.wal.reset(truncated, &[], &self.hard_state)?;
        }
        self.check()?;
        self.wal.remove_dropped()
    }

    /// Checks what raft takes for granted, and would panic without.
    fn check(&self) -> Result<(), StoreError> {
        let (first, last, commit) = (self.log.first_index(), self.log.last_index(), self.hard_state.commit);
        if commit > last || commit + 1 < first || self.applied > commit || self.applied + 1 < first {
            let (applied, why) = (self.applied, "do not fit together");
            return Err(damaged(&format!("log {first}..={last}, commit {commit} and applied {applied} {why}")));
        }
        Ok(())
    }

    pub(super) fn identity(&self) -> Option<&StoredIdentity> {
        self.identity.as_ref()
    }

    pub(super) fn applied(&self) -> u64 {
        self.applied
    }

    /// Bytes of all keys and values, as of the last applied entry. The number is the same on every member.
    pub(super) fn data_bytes(&self) -> u64 {
        self.data_bytes
    }

    pub(super) fn first_and_last_index(&self) -> (u64, u64) {
        (self.log.first_index(), self.log.last_index())
    }

    /// The bytes of the log's entries up to and including `index`, accurate to 64 KiB.
    pub(super) fn bytes_up_to(&self, index: u64) -> u64 {
        self.log.bytes_up_to(index)
    }

    /// The last entry that is followed by this many bytes of entries, accurate to 64 KiB. If there are fewer, the entry
    /// before the first.
    pub(super) fn last_without(&self, bytes: u64) -> u64 {
        self.log.last_without(bytes)
    }

    /// For reading the data while the raft task writes.
    pub(super) fn reader(&self) -> StoreReader {
        StoreReader::new(self.open.clone())
    }

    pub(super) fn membership(&self) -> Result<Membership, StoreError> {
        let read = self.begin_read()?;
        match meta(&read, "membership")? {
            Some(json) => Membership::parse(&json).map_err(|_| damaged("membership")),
            None => Ok(Membership::default()),
        }
    }

    /// Writes the results of a `Ready`: entries and hard state. When this returns, the entries are on the disk; with
    /// `sync`, everything is.
    pub(super) fn save(
        &mut self,
        entries: Vec<Entry>,
        hard_state: Option<HardState>,
        sync: bool,
    ) -> Result<(), StoreError> {
        if entries.is_empty() && hard_state.is_none() {
            return Ok(());
        }
        let hard_state = hard_state.unwrap_or_else(|| self.hard_state.clone());
        // A commit index that has merely grown is written with the next record, or with the data that it has applied.
        if sync || !entries.is_empty() {
            self.wal.append(&entries, &hard_state)?;
        }
        entries.into_iter().for_each(|entry| self.log.push(entry));
        self.hard_state = hard_state;
        Ok(())
    }

    /// Writes the effect of committed entries. Returns for each write whether its key existed. It is not synced, unless
    /// the membership changed: a removed member must not restart as a member.
    pub(super) fn apply(&mut self, effect: Effect) -> Result<Vec<bool>, StoreError> {
        let lasting = effect.conf_state.is_some() || effect.membership.is_some();
        let (found, held) = self.write(if lasting { Durability::Immediate } else { Durability::None }, |write| {
            let mut meta = write.open_table(META)?;
            meta.insert("applied", effect.index.to_be_bytes().as_slice())?;
            if let Some(conf_state) = &effect.conf_state {
                meta.insert("conf_state", bytes(conf_state)?.as_slice())?;
            }
            if let Some(membership) = &effect.membership {
                meta.insert("membership", membership.as_slice())?;
            }
            met::forget(write, &effect.gone)?;
            let mut data = write.open_table(DATA)?;
            let mut held = self.data_bytes;
            let found: Result<_, redb::Error> =
                effect.writes.iter().map(|one| one.perform(&mut data, &mut held)).collect();
            meta.insert(DATA_BYTES, held.to_be_bytes().as_slice())?;
            Ok((found?, held))
        })?;
        self.unsynced_since = if lasting { None } else { self.unsynced_since.or_else(|| Some(Instant::now())) };
        self.met.retain(|id, _| !effect.gone.contains(id));
        (self.applied, self.data_bytes) = (effect.index, held);
        self.hard_state.commit = self.hard_state.commit.max(effect.index);
        self.conf_state = effect.conf_state.unwrap_or_else(|| std::mem::take(&mut self.conf_state));
        Ok(found)
    }

    /// Removes the log up to `index`, which has been applied.
    pub(super) fn compact(&mut self, index: u64) -> Result<(), StoreError> {
        let Some(term) = self.log.term(index).filter(|_| index > self.log.truncated().0 && index <= self.applied)
        else {
            return Ok(());
        };
        self.write(Durability::Immediate, |write| {
            Ok(write.open_table(META)?.insert("truncated", pair_bytes(index, term).as_slice()).map(drop)?)
        })?;
        // This has synced the applied data, so nothing is needed to apply them again.
        self.unsynced_since = None;
        self.wal.compact(index)?;
        self.log.compact(index, term);
        Ok(())
    }

    /// Syncs the data that were applied without a sync.
    pub(super) fn sync(&mut self) -> Result<(), StoreError> {
        self.unsynced_since = None;
        self.write(Durability::Immediate, |write| {
            write.open_table(META)?;
            Ok(())
        })
    }

    /// Syncs the data if it is time. A start then has little to apply again, and the database may reuse the pages that
    /// were freed since the last sync.
    pub(super) fn sync_if_due(&mut self, now: Instant) -> Result<(), StoreError> {
        match self.unsynced_since {
            Some(since) if now.duration_since(since) >= SYNC_INTERVAL => self.sync(),
            _ => Ok(()),
        }
    }

    /// Runs one transaction: all of it or nothing.
    fn write<T>(
        &self,
        durability: Durability,
        change: impl FnOnce(&WriteTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, StoreError> {
        let database = self.open.database().map_err(StoreError::Disk)?;
        transact(&database, durability, change)
    }
}

/// One transaction of a database: all of it or nothing.
fn transact<T>(
    database: &Database,
    durability: Durability,
    change: impl FnOnce(&WriteTransaction) -> Result<T, redb::Error>,
) -> Result<T, StoreError> {
    let perform = || {
        let mut write = database.begin_write()?;
        write.set_durability(durability)?;
        let done = change(&write)?;
        write.commit()?;
        Ok(done)
    };
    perform().map_err(StoreError::Disk)
}

/// Creates the tables, and computes the counts that an older version did not keep.
fn prepare(database: &Database) -> Result<(), StoreError> {
    let perform = || {
        let write = database.begin_write()?;
        {
            write.open_table(MET)?;
            let (mut meta, data) = (write.open_table(META)?, write.open_table(DATA)?);
            if meta.get(DATA_BYTES)?.is_none() {
                let bytes = data.range::<&[u8]>(..)?.try_fold(0, |sum, item| {
                    let (key, value) = item?;
                    Ok::<_, redb::Error>(sum + length(key.value(), value.value()))
                })?;
                meta.insert(DATA_BYTES, bytes.to_be_bytes().as_slice())?;
            }
        }
        Ok::<_, redb::Error>(write.commit()?)
    };
    Ok(perform()?)
}

#[cfg(test)]
mod tests;
