//! Snapshots of the store: those that go out are read from the moment that raft asked for them, those that come in take
//! the place of everything.

use bytes::Bytes;
use raft::eraftpb::{Entry, HardState, SnapshotMetadata};
use redb::{Durability, ReadTransaction, ReadableTableMetadata};
use tokio::sync::OwnedSemaphorePermit;

use super::{
    Store, StoreError,
    data::Write,
    log::Log,
    met,
    tables::{DATA, DATA_BYTES, META, bytes, damaged, meta, number, pair_bytes},
};
use crate::{id::MemberId, node::members::Membership};

/// A snapshot that a `MsgSnap` of this `Ready` is to carry: the data as of its index.
pub(in crate::node) struct Outgoing {
    pub(super) to: u64,
    pub(in crate::node) index: u64,
    pub(in crate::node) read: ReadTransaction,
    pub(in crate::node) permit: OwnedSemaphorePermit,
}

impl Outgoing {
    /// The membership as of its index.
    pub(in crate::node) fn membership(&self) -> Result<Vec<u8>, StoreError> {
        meta(&self.read, "membership")?.ok_or_else(|| damaged("membership"))
    }

    /// How many keys it has, and how many bytes they and their values have.
    pub(in crate::node) fn size(&self) -> Result<(u64, u64), StoreError> {
        let count = || Ok::<_, redb::Error>(self.read.open_table(DATA)?.len()?);
        Ok((count().map_err(StoreError::Disk)?, number(&self.read, DATA_BYTES)?))
    }
}

impl Store {
    /// The snapshot that raft was given for this member in this `Ready`.
    pub(in crate::node) fn take_outgoing(&self, to: u64, index: u64) -> Option<Outgoing> {
        let mut outgoing = self.outgoing.borrow_mut();
        let place = outgoing.iter().position(|snapshot| snapshot.to == to && snapshot.index == index)?;
        Some(outgoing.swap_remove(place))
    }

    /// Puts a snapshot in the place of everything: data, membership and log; with it go the entries and the hard state
    /// of the same `Ready`. All of it or, when the records do not end well, nothing. If the power goes when the data are
    /// there and the log does not begin after them yet, the next start has it begin there.
    pub(in crate::node) fn install<E: Into<StoreError>>(
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
        let gone: Vec<MemberId> = self.met.keys().filter(|id| membership.get(**id).is_none()).copied().collect();
        let written = self.write(Durability::Immediate, |write| {
            write.delete_table(DATA)?;
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
            meta.insert("conf_state", bytes(conf_state)?.as_slice())?;
            meta.insert("membership", membership.to_json().as_slice())?;
            met::forget(write, &gone)?;
            meta.insert(DATA_BYTES, held.to_be_bytes().as_slice())?;
            Ok(held)
        });
        if let Some(error) = torn {
            return Err(error);
        }
        self.data_bytes = written?;
        self.unsynced_since = None;
        self.wal.reset((index, term), &entries, &hard_state)?;
        self.met.retain(|id, _| !gone.contains(id));
        (self.applied, self.hard_state, self.conf_state) = (index, hard_state, conf_state.clone());
        self.log = Log::new(index, term);
        entries.into_iter().for_each(|entry| self.log.push(entry));
        Ok(())
    }
}
