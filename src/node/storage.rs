//! Everything that a member must not forget, in one embedded store: the log, the hard state, the membership, the
//! data, and how far they were applied.
//!
//! | table | key | value |
//! |---|---|---|
//! | `meta` | `identity` | JSON: who this member is, of which cluster |
//! | | `boot` | how often it was started |
//! | | `hard_state`, `conf_state` | raft-rs's, protobuf |
//! | | `truncated` | index and term of the entry before the log's first |
//! | | `applied` | index of the last entry whose effect is in `data` |
//! | | `membership` | JSON: members, and the IDs of those that were removed |
//! | `log` | index | raft-rs's entry, protobuf |
//! | `data` | key | value |
//!
//! What must never be seen apart is written in one transaction: entries and hard state; an applied index, its data and
//! the membership; a snapshot, its place in the log and the membership. What was promised to others is synced before
//! it is told; what is merely applied is not, since after a crash the log brings it back.

use std::{cell::RefCell, io, path::Path, sync::Arc};

use bytes::Bytes;
use protobuf::Message as _;
use raft::{
    Error as RaftError, GetEntriesContext, RaftState, StorageError,
    eraftpb::{ConfState, Entry, HardState, Snapshot, SnapshotMetadata},
};
use redb::{
    Database, Durability, ReadTransaction, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition,
    WriteTransaction,
};
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::members::{MemberRecord, Membership};

mod log;

use log::Log;

const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");
pub(super) const DATA: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("data");
/// The bytes of all keys and values of [`DATA`], kept with every change of it: a snapshot tells its length before it is read.
const DATA_BYTES: &str = "data_bytes";

/// Memory for pages of the store.
const CACHE_BYTES: usize = 32 << 20;

/// Why the store cannot be used, or cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has it open.
    #[error("it is in use by another process")]
    Locked,
    /// The store's file cannot be read or written: the disk is full, gone, or faulty.
    #[error("{0}")]
    Disk(#[from] redb::Error),
    /// The directory cannot be made.
    #[error("{0}")]
    Directory(#[from] io::Error),
    /// What is in it does not fit together.
    #[error("it is damaged: {0}")]
    Damaged(String),
}

/// Who a member is: written once, when it is made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    pub(super) member: u64,
    pub(super) cluster: u64,
    pub(super) name: String,
    pub(super) token: String,
    /// The members that were there when this one joined: whom it dials until it has applied their ConfChanges.
    pub(super) joined: Vec<MemberRecord>,
}

/// One write of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Write {
    Put(Bytes, Bytes),
    Delete(Bytes),
}

/// The effect of committed entries, up to and with `index`.
#[derive(Debug, Default)]
pub(super) struct Effect {
    pub(super) index: u64,
    pub(super) writes: Vec<Write>,
    /// Raft's configuration, where it changed.
    pub(super) conf_state: Option<ConfState>,
    /// The membership, where it changed.
    pub(super) membership: Option<Vec<u8>>,
}

/// A snapshot that a `MsgSnap` of this `Ready` is to carry: the data as of its index.
pub(super) struct Outgoing {
    to: u64,
    pub(super) index: u64,
    pub(super) read: ReadTransaction,
    pub(super) permit: OwnedSemaphorePermit,
}

impl Outgoing {
    /// The membership as of its index.
    pub(super) fn membership(&self) -> Result<Vec<u8>, StoreError> {
        meta(&self.read, "membership")?.ok_or_else(|| damaged("membership"))
    }

    /// How many keys it has, and how many bytes they and their values have.
    pub(super) fn size(&self) -> Result<(u64, u64), StoreError> {
        let count = || Ok::<_, redb::Error>(self.read.open_table(DATA)?.len()?);
        Ok((count().map_err(StoreError::Disk)?, number(&self.read, DATA_BYTES)?))
    }
}

/// The store, as the raft task has it.
pub(super) struct Store {
    database: Arc<Database>,
    log: Log,
    hard_state: HardState,
    conf_state: ConfState,
    applied: u64,
    identity: Option<Identity>,
    /// Snapshots that raft asked for and that the messages of the same `Ready` carry.
    outgoing: RefCell<Vec<Outgoing>>,
    /// How many snapshots may be on their way.
    permits: Arc<Semaphore>,
}

impl Store {
    /// Opens the store in `directory`, which is made if it is not there. `snapshots` may be on their way at a time.
    pub(super) fn open(directory: &Path, snapshots: usize) -> Result<Self, StoreError> {
        std::fs::create_dir_all(directory)?;
        let database = Database::builder().set_cache_size(CACHE_BYTES).create(directory.join("node.redb"));
        let database = database.map_err(|error| match error {
            redb::DatabaseError::DatabaseAlreadyOpen => StoreError::Locked,
            other => StoreError::Disk(other.into()),
        })?;
        let mut store = Self {
            database: Arc::new(database),
            log: Log::default(),
            hard_state: HardState::default(),
            conf_state: ConfState::default(),
            applied: 0,
            identity: None,
            outgoing: RefCell::default(),
            permits: Arc::new(Semaphore::new(snapshots)),
        };
        store.write(Durability::Immediate, |write| {
            write.open_table(LOG)?;
            let (mut meta, data) = (write.open_table(META)?, write.open_table(DATA)?);
            // A store of before this was kept: once.
            if meta.get(DATA_BYTES)?.is_none() {
                let bytes = data.range::<&[u8]>(..)?.try_fold(0, |sum, item| {
                    let (key, value) = item?;
                    Ok::<_, redb::Error>(sum + length(key.value(), value.value()))
                })?;
                meta.insert(DATA_BYTES, bytes.to_be_bytes().as_slice())?;
            }
            Ok(())
        })?;
        store.load()?;
        Ok(store)
    }

    fn load(&mut self) -> Result<(), StoreError> {
        let read = self.database.begin_read().map_err(redb::Error::from)?;
        self.identity = match meta(&read, "identity")? {
            Some(json) => Some(serde_json::from_slice(&json).map_err(|_| damaged("identity"))?),
            None => None,
        };
        self.hard_state = message(&read, "hard_state")?;
        self.conf_state = message(&read, "conf_state")?;
        self.applied = number(&read, "applied")?;
        let truncated = meta(&read, "truncated")?.unwrap_or_else(|| vec![0; 16]);
        let (index, term) = pair(&truncated).ok_or_else(|| damaged("truncated"))?;
        self.log = Log::new(index, term);
        let table = read.open_table(LOG).map_err(redb::Error::from)?;
        for item in table.range::<u64>(..).map_err(redb::Error::from)? {
            let (key, value) = item.map_err(redb::Error::from)?;
            let entry = parse_entry(value.value())?;
            if key.value() != self.log.last_index() + 1 || entry.index != key.value() {
                return Err(damaged(&format!("log: entry {} after {}", key.value(), self.log.last_index())));
            }
            self.log.push(entry);
        }
        self.check()
    }

    /// What raft takes for granted, and panics without.
    fn check(&self) -> Result<(), StoreError> {
        let (first, last, commit) = (self.log.first_index(), self.log.last_index(), self.hard_state.commit);
        if commit > last || commit + 1 < first || self.applied > commit || self.applied + 1 < first {
            let (applied, why) = (self.applied, "do not fit together");
            return Err(damaged(&format!("log {first}..={last}, commit {commit} and applied {applied} {why}")));
        }
        Ok(())
    }

    pub(super) fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    pub(super) fn applied(&self) -> u64 {
        self.applied
    }

    pub(super) fn first_and_last_index(&self) -> (u64, u64) {
        (self.log.first_index(), self.log.last_index())
    }

    /// For who reads the data while the raft task writes.
    pub(super) fn reader(&self) -> Reader {
        Reader(self.database.clone())
    }

    pub(super) fn membership(&self) -> Result<Membership, StoreError> {
        let read = self.database.begin_read().map_err(redb::Error::from)?;
        match meta(&read, "membership")? {
            Some(json) => Membership::parse(&json).map_err(|_| damaged("membership")),
            None => Ok(Membership::default()),
        }
    }

    /// Writes who this member is and, for a new cluster, the entries that make it: committed and applied.
    pub(super) fn bootstrap(
        &mut self,
        identity: &Identity,
        entries: &[Entry],
        conf_state: &ConfState,
        membership: &Membership,
    ) -> Result<(), StoreError> {
        let last = entries.last().map_or((0, 0), |entry| (entry.index, entry.term));
        let hard_state = HardState { term: last.1, commit: last.0, ..Default::default() };
        let json = serde_json::to_vec(identity).expect("texts and numbers make JSON");
        self.write(Durability::Immediate, |write| {
            let mut meta = write.open_table(META)?;
            meta.insert("identity", json.as_slice())?;
            meta.insert("hard_state", bytes(&hard_state)?.as_slice())?;
            meta.insert("conf_state", bytes(conf_state)?.as_slice())?;
            meta.insert("applied", last.0.to_be_bytes().as_slice())?;
            meta.insert("membership", membership.to_json().as_slice())?;
            append(write, entries, 0)
        })?;
        self.load()
    }

    /// Counts this start; no two starts of a member have the same number.
    pub(super) fn boot(&self) -> Result<u64, StoreError> {
        self.write(Durability::Immediate, |write| {
            let mut meta = write.open_table(META)?;
            let boot = meta.get("boot")?.and_then(|guard| guard.value().try_into().ok().map(u64::from_be_bytes));
            let boot = boot.unwrap_or(0) + 1;
            meta.insert("boot", boot.to_be_bytes().as_slice())?;
            Ok(boot)
        })
    }

    /// Writes what a `Ready` brought: entries and hard state. With `sync` it is on the disk when this returns.
    pub(super) fn save(
        &mut self,
        entries: Vec<Entry>,
        hard_state: Option<HardState>,
        sync: bool,
    ) -> Result<(), StoreError> {
        if entries.is_empty() && hard_state.is_none() {
            return Ok(());
        }
        let last = self.log.last_index();
        self.write(if sync { Durability::Immediate } else { Durability::None }, |write| {
            if let Some(hard_state) = &hard_state {
                write.open_table(META)?.insert("hard_state", bytes(hard_state)?.as_slice())?;
            }
            append(write, &entries, last)
        })?;
        entries.into_iter().for_each(|entry| self.log.push(entry));
        if let Some(hard_state) = hard_state {
            self.hard_state = hard_state;
        }
        Ok(())
    }

    /// Writes the effect of committed entries. For each write: whether its key was there. Not synced, unless the
    /// membership changed: who was removed must not wake up as a member.
    pub(super) fn apply(&mut self, effect: Effect) -> Result<Vec<bool>, StoreError> {
        let lasting = effect.conf_state.is_some() || effect.membership.is_some();
        let hard_state = HardState { commit: self.hard_state.commit.max(effect.index), ..self.hard_state.clone() };
        let found = self.write(if lasting { Durability::Immediate } else { Durability::None }, |write| {
            let mut meta = write.open_table(META)?;
            meta.insert("applied", effect.index.to_be_bytes().as_slice())?;
            meta.insert("hard_state", bytes(&hard_state)?.as_slice())?;
            if let Some(conf_state) = &effect.conf_state {
                meta.insert("conf_state", bytes(conf_state)?.as_slice())?;
            }
            if let Some(membership) = &effect.membership {
                meta.insert("membership", membership.as_slice())?;
            }
            let mut data = write.open_table(DATA)?;
            let before = meta.get(DATA_BYTES)?.and_then(|guard| guard.value().try_into().ok().map(u64::from_be_bytes));
            let mut held = before.unwrap_or(0);
            let found = effect.writes.iter().map(|one| one.perform(&mut data, &mut held)).collect();
            meta.insert(DATA_BYTES, held.to_be_bytes().as_slice())?;
            found
        })?;
        self.applied = effect.index;
        self.hard_state = hard_state;
        self.conf_state = effect.conf_state.unwrap_or_else(|| std::mem::take(&mut self.conf_state));
        Ok(found)
    }

    /// Puts a snapshot in the place of everything: data, membership and log; with it go the entries and the hard state
    /// of the same `Ready`. All of it or, when the records do not end well, nothing.
    pub(super) fn install<E: Into<StoreError>>(
        &mut self,
        snapshot: &SnapshotMetadata,
        membership: &Membership,
        mut records: impl FnMut() -> Result<Option<(Bytes, Bytes)>, E>,
        entries: Vec<Entry>,
        hard_state: Option<HardState>,
    ) -> Result<(), StoreError> {
        let (index, term, conf_state) = (snapshot.index, snapshot.term, snapshot.get_conf_state());
        let mut hard_state = hard_state.unwrap_or_else(|| self.hard_state.clone());
        hard_state.term = hard_state.term.max(term);
        hard_state.commit = hard_state.commit.max(index);
        let mut torn = None;
        let written = self.write(Durability::Immediate, |write| {
            write.delete_table(DATA)?;
            write.delete_table(LOG)?;
            write.open_table(LOG)?;
            let mut data = write.open_table(DATA)?;
            let mut held = 0;
            loop {
                match records() {
                    Ok(Some((key, value))) => Write::Put(key, value).perform(&mut data, &mut held).map(drop)?,
                    Ok(None) => break,
                    Err(error) => {
                        torn = Some(error.into());
                        return Err(redb::Error::TransactionPoisoned);
                    }
                }
            }
            let mut meta = write.open_table(META)?;
            meta.insert("applied", index.to_be_bytes().as_slice())?;
            meta.insert("truncated", pair_bytes(index, term).as_slice())?;
            meta.insert("hard_state", bytes(&hard_state)?.as_slice())?;
            meta.insert("conf_state", bytes(conf_state)?.as_slice())?;
            meta.insert("membership", membership.to_json().as_slice())?;
            meta.insert(DATA_BYTES, held.to_be_bytes().as_slice())?;
            append(write, &entries, index)
        });
        if let Some(error) = torn {
            return Err(error);
        }
        written?;
        (self.applied, self.hard_state, self.conf_state) = (index, hard_state, conf_state.clone());
        self.log = Log::new(index, term);
        entries.into_iter().for_each(|entry| self.log.push(entry));
        Ok(())
    }

    /// Cuts the log off up to `index`, which has been applied.
    pub(super) fn compact(&mut self, index: u64) -> Result<(), StoreError> {
        let Some(term) = self.log.term(index).filter(|_| index > self.log.truncated().0 && index <= self.applied)
        else {
            return Ok(());
        };
        self.write(Durability::Immediate, |write| {
            write.open_table(META)?.insert("truncated", pair_bytes(index, term).as_slice())?;
            write.open_table(LOG)?.retain_in(..=index, |_, _| false)?;
            Ok(())
        })?;
        self.log.compact(index, term);
        Ok(())
    }

    /// Makes lasting what was applied without a sync.
    pub(super) fn sync(&self) -> Result<(), StoreError> {
        self.write(Durability::Immediate, |write| {
            write.open_table(META)?;
            Ok(())
        })
    }

    /// The snapshot that raft was given for this member in this `Ready`.
    pub(super) fn take_outgoing(&self, to: u64, index: u64) -> Option<Outgoing> {
        let mut outgoing = self.outgoing.borrow_mut();
        let place = outgoing.iter().position(|snapshot| snapshot.to == to && snapshot.index == index)?;
        Some(outgoing.swap_remove(place))
    }

    /// One transaction: all of it or nothing.
    fn write<T>(
        &self,
        durability: Durability,
        change: impl FnOnce(&WriteTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, StoreError> {
        let perform = || {
            let mut write = self.database.begin_write()?;
            write.set_durability(durability)?;
            let done = change(&write)?;
            write.commit()?;
            Ok(done)
        };
        perform().map_err(StoreError::Disk)
    }
}

impl Write {
    /// Whether the key was there. `held` are the bytes of all keys and values.
    fn perform(&self, data: &mut redb::Table<'_, &[u8], &[u8]>, held: &mut u64) -> Result<bool, redb::Error> {
        let (key, before) = match self {
            Self::Put(key, value) => {
                *held += length(key, value);
                (key, data.insert(key.as_ref(), value.as_ref())?)
            }
            Self::Delete(key) => (key, data.remove(key.as_ref())?),
        };
        if let Some(before) = &before {
            *held = held.saturating_sub(length(key, before.value()));
        }
        Ok(before.is_some())
    }
}

/// Reads the data, as of the last applied entry, while the raft task goes on.
#[derive(Clone)]
pub(super) struct Reader(Arc<Database>);

impl Reader {
    /// The value of a key.
    pub(super) fn value(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let read = || {
            let data = self.0.begin_read()?.open_table(DATA)?;
            Ok::<_, redb::Error>(data.get(key)?.map(|guard| guard.value().to_vec()))
        };
        read().map_err(StoreError::Disk)
    }
}

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
        let mut taken = Taken { entries: Vec::new(), room: max_size.into().unwrap_or(u64::MAX) };
        let on_disk = high.min(self.log.tail_from());
        if low < on_disk {
            match self.read_entries(low, on_disk, &mut taken) {
                Ok(true) => {}
                Ok(false) => return Ok(taken.entries),
                // Raft goes on without this append; whoever writes next finds out what the disk has.
                Err(error) if context.can_async() => {
                    tracing::error!(%error, "the log cannot be read");
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

    /// The metadata of a snapshot of what is applied now; its data are read from this moment's transaction when raft
    /// hands out the message.
    fn snapshot(&self, _request_index: u64, to: u64) -> raft::Result<Snapshot> {
        let unavailable = || RaftError::Store(StorageError::SnapshotTemporarilyUnavailable);
        let term = self.log.term(self.applied).filter(|term| *term != 0).ok_or_else(unavailable)?;
        self.outgoing.borrow_mut().retain(|snapshot| snapshot.to != to);
        let permit = self.permits.clone().try_acquire_owned().map_err(|_| unavailable())?;
        let read = self.database.begin_read().map_err(|_| unavailable())?;
        self.outgoing.borrow_mut().push(Outgoing { to, index: self.applied, read, permit });
        let mut snapshot = Snapshot::default();
        let metadata = snapshot.mut_metadata();
        (metadata.index, metadata.term) = (self.applied, term);
        metadata.set_conf_state(self.conf_state.clone());
        Ok(snapshot)
    }
}

impl Store {
    /// Whether all of them were taken.
    fn read_entries(&self, low: u64, high: u64, taken: &mut Taken) -> Result<bool, StoreError> {
        let read = self.database.begin_read().map_err(redb::Error::from)?;
        let table = read.open_table(LOG).map_err(redb::Error::from)?;
        for item in table.range(low..high).map_err(redb::Error::from)? {
            let (_, value) = item.map_err(redb::Error::from)?;
            if !taken.take(parse_entry(value.value())?) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Entries up to a size, the first one whatever its size.
struct Taken {
    entries: Vec<Entry>,
    room: u64,
}

impl Taken {
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

/// Writes entries after `last`, or in place of what they contradict.
fn append(write: &WriteTransaction, entries: &[Entry], last: u64) -> Result<(), redb::Error> {
    let Some(first) = entries.first() else { return Ok(()) };
    let mut log = write.open_table(LOG)?;
    if first.index <= last {
        log.retain_in(first.index.., |_, _| false)?;
    }
    for entry in entries {
        log.insert(entry.index, bytes(entry)?.as_slice())?;
    }
    Ok(())
}

fn bytes(message: &impl protobuf::Message) -> Result<Vec<u8>, redb::Error> {
    message.write_to_bytes().map_err(|error| redb::Error::Corrupted(error.to_string()))
}

fn parse_entry(bytes: &[u8]) -> Result<Entry, StoreError> {
    let mut entry = Entry::default();
    entry.merge_from_bytes(bytes).map_err(|_| damaged("an entry of the log"))?;
    Ok(entry)
}

fn damaged(what: &str) -> StoreError {
    StoreError::Damaged(what.to_owned())
}

fn meta(read: &ReadTransaction, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
    let value = || Ok::<_, redb::Error>(read.open_table(META)?.get(key)?.map(|guard| guard.value().to_vec()));
    value().map_err(StoreError::Disk)
}

/// What a key and its value count for in [`DATA_BYTES`].
fn length(key: &[u8], value: &[u8]) -> u64 {
    key.len() as u64 + value.len() as u64
}

fn number(read: &ReadTransaction, key: &str) -> Result<u64, StoreError> {
    match meta(read, key)? {
        Some(bytes) => bytes.try_into().map(u64::from_be_bytes).map_err(|_| damaged(key)),
        None => Ok(0),
    }
}

fn message<M: protobuf::Message>(read: &ReadTransaction, key: &str) -> Result<M, StoreError> {
    let mut message = M::new();
    if let Some(bytes) = meta(read, key)? {
        message.merge_from_bytes(&bytes).map_err(|_| damaged(key))?;
    }
    Ok(message)
}

fn pair_bytes(index: u64, term: u64) -> [u8; 16] {
    (u128::from(index) << 64 | u128::from(term)).to_be_bytes()
}

fn pair(bytes: &[u8]) -> Option<(u64, u64)> {
    let (index, term) = bytes.split_at_checked(8)?;
    Some((u64::from_be_bytes(index.try_into().ok()?), u64::from_be_bytes(term.try_into().ok()?)))
}

#[cfg(test)]
mod tests {
    use raft::Storage as _;

    use super::*;

    fn entry(index: u64, term: u64) -> Entry {
        Entry { index, term, data: format!("{index}@{term}").into(), ..Default::default() }
    }

    fn hard_state(term: u64, vote: u64, commit: u64) -> HardState {
        HardState { term, vote, commit, ..Default::default() }
    }

    fn voters(ids: &[u64]) -> ConfState {
        ConfState { voters: ids.to_vec(), ..Default::default() }
    }

    fn metadata(index: u64, term: u64, members: &[u64]) -> SnapshotMetadata {
        let mut metadata = SnapshotMetadata { index, term, ..Default::default() };
        metadata.set_conf_state(voters(members));
        metadata
    }

    fn identity() -> Identity {
        Identity { member: 1, cluster: 2, name: "a".into(), token: "t".into(), joined: Vec::new() }
    }

    fn membership() -> Membership {
        Membership::parse(br#"{"members":[{"id":1,"peerURLs":["http://h:1"]}],"removed":[9]}"#).expect("valid")
    }

    /// A store of one member with entries 1 to `last` of term 1, entry 1 applied.
    fn store(directory: &Path, last: u64) -> Store {
        let mut store = Store::open(directory, 2).expect("a new store");
        store.bootstrap(&identity(), &[entry(1, 1)], &voters(&[1]), &membership()).expect("an empty disk");
        store.save((2..=last).map(|index| entry(index, 1)).collect(), None, true).expect("an empty disk");
        store
    }

    fn reopened(store: Store, directory: &Path) -> Store {
        drop(store);
        Store::open(directory, 2).expect("what was written can be read")
    }

    fn terms(store: &Store) -> Vec<(u64, u64)> {
        let (first, last) = store.first_and_last_index();
        let entries = store.entries(first, last + 1, None, GetEntriesContext::empty(false)).expect("they are there");
        entries.iter().map(|entry| (entry.index, entry.term)).collect()
    }

    fn records(pairs: &'static [(&str, &str)]) -> impl FnMut() -> Result<Option<(Bytes, Bytes)>, StoreError> {
        let mut left = pairs.iter();
        move || Ok(left.next().map(|(key, value)| ((*key).into(), (*value).into())))
    }

    #[test]
    fn what_was_made_lasting_is_there_after_each_step() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut store = reopened(store(directory.path(), 3), directory.path());
        assert_eq!(store.identity(), Some(&identity()));
        assert_eq!(store.membership().expect("kept"), membership());
        assert_eq!((terms(&store), store.applied()), (vec![(1, 1), (2, 1), (3, 1)], 1));

        store.save(vec![entry(3, 2), entry(4, 2)], Some(hard_state(2, 1, 2)), true).expect("room");
        store = reopened(store, directory.path());
        assert_eq!(terms(&store), [(1, 1), (2, 1), (3, 2), (4, 2)]);
        assert_eq!(store.initial_state().expect("kept").hard_state, hard_state(2, 1, 2));

        let write = Write::Put("k".into(), "v".into());
        store.apply(Effect { index: 2, writes: vec![write], ..Effect::default() }).expect("room");
        store.sync().expect("room");
        store = reopened(store, directory.path());
        assert_eq!((store.applied(), store.reader().value(b"k").expect("readable")), (2, Some(b"v".to_vec())));

        store.compact(2).expect("room");
        store = reopened(store, directory.path());
        assert_eq!((terms(&store), store.term(2)), (vec![(3, 2), (4, 2)], Ok(1)));
        assert_eq!(store.term(1), Err(RaftError::Store(StorageError::Compacted)));
    }

    #[test]
    fn applied_index_and_data_are_lost_together_or_kept_together() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut store = store(directory.path(), 5);
        for index in 2..=5 {
            let write = Write::Put("k".into(), index.to_string().into());
            store.apply(Effect { index, writes: vec![write], ..Effect::default() }).expect("room");
            // As a crash leaves it: the file, copied while nobody closed it.
            let crashed = tempfile::tempdir().expect("a directory");
            std::fs::copy(directory.path().join("node.redb"), crashed.path().join("node.redb")).expect("a copy");
            let found = Store::open(crashed.path(), 2).expect("a crash leaves a store that opens");
            let value =
                found.reader().value(b"k").expect("readable").map(|value| String::from_utf8(value).expect("text"));
            let expected = (found.applied() > 1).then(|| found.applied().to_string());
            assert_eq!(value, expected);
            assert!(found.initial_state().expect("kept").hard_state.commit >= found.applied());
        }
    }

    #[test]
    fn a_delete_says_whether_the_key_was_there() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut store = store(directory.path(), 2);
        let (put, delete) = (Write::Put("k".into(), "v".into()), Write::Delete("k".into()));
        let writes = vec![delete.clone(), put, delete.clone(), delete];
        let found = store.apply(Effect { index: 2, writes, ..Effect::default() }).expect("room");
        assert_eq!(found, [false, false, true, false]);
    }

    #[test]
    fn a_snapshot_takes_the_place_of_everything() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut store = store(directory.path(), 4);
        let write = Write::Put("old".into(), "v".into());
        store.apply(Effect { index: 2, writes: vec![write], ..Effect::default() }).expect("room");
        let (entries, state) = (vec![entry(10, 4)], Some(hard_state(4, 2, 9)));
        store.install(&metadata(9, 3, &[1, 2]), &membership(), records(&[("new", "v")]), entries, state).expect("room");
        store = reopened(store, directory.path());
        assert_eq!((store.applied(), store.first_and_last_index(), store.term(9)), (9, (10, 10), Ok(3)));
        assert_eq!(store.reader().value(b"old").expect("readable"), None);
        assert_eq!(store.reader().value(b"new").expect("readable"), Some(b"v".to_vec()));
        let state = store.initial_state().expect("kept");
        assert_eq!((state.hard_state, state.conf_state), (hard_state(4, 2, 9), voters(&[1, 2])));
        assert_eq!(terms(&store), [(10, 4)]);
    }

    #[test]
    fn a_snapshot_that_tears_changes_nothing() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut store = store(directory.path(), 4);
        let mut left = 3;
        let records = || {
            left -= 1;
            if left == 0 { Err(damaged("torn")) } else { Ok(Some((vec![left].into(), Bytes::new()))) }
        };
        let torn = store.install(&metadata(9, 3, &[2]), &Membership::default(), records, Vec::new(), None);
        assert!(matches!(torn, Err(StoreError::Damaged(_))), "{torn:?}");
        for store in [&store, &reopened_copy(directory.path())] {
            assert_eq!((terms(store).len(), store.applied()), (4, 1));
            assert_eq!(store.reader().value(&[2]).expect("readable"), None);
            assert_eq!(store.membership().expect("kept"), membership());
        }
    }

    fn reopened_copy(directory: &Path) -> Store {
        let copy = tempfile::tempdir().expect("a directory");
        std::fs::copy(directory.join("node.redb"), copy.path().join("node.redb")).expect("a copy");
        Store::open(copy.path(), 2).expect("a crash leaves a store that opens")
    }

    #[test]
    fn a_snapshot_shows_the_moment_it_was_asked_for_and_their_number_is_bounded() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut store = store(directory.path(), 3);
        let put = |value: &'static str| vec![Write::Put("k".into(), value.into())];
        store.apply(Effect { index: 2, writes: put("then"), ..Effect::default() }).expect("room");
        let metadata = store.snapshot(0, 7).expect("available").take_metadata();
        assert_eq!((metadata.index, metadata.term, metadata.get_conf_state()), (2, 1, &voters(&[1])));
        store.apply(Effect { index: 3, writes: put("now"), ..Effect::default() }).expect("room");
        let outgoing = store.take_outgoing(7, 2).expect("raft was given it");
        let data = outgoing.read.open_table(DATA).expect("a table");
        assert_eq!(data.get(b"k".as_slice()).expect("readable").expect("there").value(), b"then");
        store.snapshot(0, 8).expect("the second of two");
        let third = store.snapshot(0, 9).expect_err("two are on their way");
        assert_eq!(third, RaftError::Store(StorageError::SnapshotTemporarilyUnavailable));
        drop((data, outgoing));
        store.snapshot(0, 9).expect("one has ended");
    }

    #[test]
    fn entries_come_by_size_from_disk_and_memory_alike() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut store = store(directory.path(), 1);
        let big = |index| Entry { index, term: 1, data: vec![b'x'; 3 << 20].into(), ..Default::default() };
        store.save((2..=10).map(big).collect(), None, true).expect("room");
        assert!(store.log.tail_from() > 2, "the oldest are on disk only");
        let indexes = |low, high, size| {
            let entries = store.entries(low, high, size, GetEntriesContext::empty(false)).expect("there");
            entries.iter().map(|entry| entry.index).collect::<Vec<_>>()
        };
        assert_eq!(indexes(1, 11, None), (1..=10).collect::<Vec<_>>());
        assert_eq!(indexes(2, 11, Some(7 << 20)), [2, 3]);
        assert_eq!(indexes(8, 11, Some(0)), [8]);
    }

    #[test]
    fn a_directory_in_use_is_said_to_be() {
        let directory = tempfile::tempdir().expect("a directory");
        let _held = store(directory.path(), 1);
        assert!(matches!(Store::open(directory.path(), 2), Err(StoreError::Locked)));
    }

    #[test]
    fn a_log_with_a_hole_is_not_taken() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = store(directory.path(), 4);
        let hole = |write: &WriteTransaction| Ok(write.open_table(LOG)?.remove(3).map(drop)?);
        store.write(Durability::Immediate, hole).expect("room");
        drop(store);
        assert!(matches!(Store::open(directory.path(), 2), Err(StoreError::Damaged(_))));
    }

    #[test]
    fn each_start_has_its_number() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = store(directory.path(), 1);
        assert_eq!((store.boot().expect("room"), store.boot().expect("room")), (1, 2));
        assert_eq!(reopened(store, directory.path()).boot().expect("room"), 3);
    }
}
