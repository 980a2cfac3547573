//! Installs a received snapshot, which replaces everything.

use std::sync::Arc;

use raft::eraftpb::{Entry, HardState, SnapshotMetadata};
use redb::{Database, Durability, ReadableTable, WriteTransaction};

use super::{
    Store, StoreError,
    incoming::IncomingDatabase,
    log::Log,
    met,
    tables::{DATA_BYTES, MET, META, bytes, pair_bytes},
    transact,
};
use crate::{id::MemberId, node::members::Membership};

impl Store {
    /// Replaces everything by a snapshot: data, membership and log, together with the entries and the hard state of the
    /// same `Ready`. What this member knows about itself, and which starts of others it has met, stays. If the power
    /// fails after the data are there and before the log begins after them, the next start makes the log begin there.
    ///
    /// The caller drops the returned old database where that may take a while.
    pub(in crate::node) fn install(
        &mut self,
        snapshot: &SnapshotMetadata,
        membership: &Membership,
        incoming: IncomingDatabase,
        entries: Vec<Entry>,
        hard_state: Option<HardState>,
    ) -> Result<Option<Arc<Database>>, StoreError> {
        let (index, term, conf_state) = (snapshot.index, snapshot.term, snapshot.get_conf_state());
        let mut hard_state = hard_state.unwrap_or_else(|| self.hard_state.clone());
        hard_state.term = hard_state.term.max(term);
        hard_state.commit = hard_state.commit.max(index);
        let gone: Vec<MemberId> = self.met.keys().filter(|id| membership.get(**id).is_none()).copied().collect();
        let held = incoming.data_bytes();
        transact(incoming.database()?, Durability::Immediate, |write| {
            self.hand_down(write)?;
            met::forget(write, &gone)?;
            let mut meta = write.open_table(META)?;
            meta.insert("applied", index.to_be_bytes().as_slice())?;
            meta.insert("truncated", pair_bytes(index, term).as_slice())?;
            meta.insert("conf_state", bytes(conf_state)?.as_slice())?;
            meta.insert("membership", membership.to_json().as_slice())?;
            Ok(meta.insert(DATA_BYTES, held.to_be_bytes().as_slice()).map(drop)?)
        })?;
        let before = incoming.take_place(&self.open)?;
        self.data_bytes = held;
        self.unsynced_since = None;
        self.wal.reset((index, term), &entries, &hard_state)?;
        self.met.retain(|id, _| !gone.contains(id));
        (self.applied, self.hard_state, self.conf_state) = (index, hard_state, conf_state.clone());
        self.log = Log::new(index, term);
        entries.into_iter().for_each(|entry| self.log.push(entry));
        Ok(before)
    }

    /// Copies everything except the data to the database that replaces this one.
    fn hand_down(&self, write: &WriteTransaction) -> Result<(), redb::Error> {
        let read = redb::ReadableDatabase::begin_read(&*self.open.database()?)?;
        let mut meta = write.open_table(META)?;
        for item in read.open_table(META)?.iter()? {
            let (key, value) = item?;
            meta.insert(key.value(), value.value())?;
        }
        let mut met = write.open_table(MET)?;
        for item in read.open_table(MET)?.iter()? {
            let (id, value) = item?;
            met.insert(id.value(), value.value())?;
        }
        Ok(())
    }
}
