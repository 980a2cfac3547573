//! The data of a received snapshot: a separate database beside the open one. The task that received the data writes and
//! syncs it, and then the raft task makes it replace the open one. That takes as long as one small transaction, however
//! large the data are.

use std::{
    path::PathBuf,
    sync::{Arc, Weak},
};

use bytes::Bytes;
use redb::{Database, Durability};

use super::{
    Store, StoreError, backend,
    data::Write,
    database::{INCOMING, Place, restrict},
    tables::DATA,
    transact,
};
use crate::world::UNSYNCED_BYTES;

/// Makes such databases. All clones make them in the same directory.
#[derive(Clone, Debug)]
pub(in crate::node) struct Builder {
    /// Where the store is, while it is open.
    place: Weak<Place>,
    /// The bytes that must stay free on the file system.
    headroom: u64,
}

/// A database that is complete and synced, and not in use yet. It is deleted when this is dropped, which takes a while.
#[derive(Debug)]
pub(in crate::node) struct Incoming {
    /// Held so that the directory stays in use until the file is gone: the next store there begins with the same names.
    place: Arc<Place>,
    path: PathBuf,
    /// `None` once it was installed.
    database: Option<Arc<Database>>,
    data_bytes: u64,
}

impl Store {
    /// A builder of databases for [`Store::install`]. They leave this many bytes of the file system free.
    pub(in crate::node) fn builder(&self, headroom: u64) -> Builder {
        Builder { place: Arc::downgrade(&self.place), headroom }
    }
}

impl Builder {
    /// Makes a database of these records, which have about this many bytes. It has all of them, or is not made.
    ///
    /// # Errors
    /// The disk fails, the store was closed, or there is an error in place of a record.
    pub(in crate::node) fn build<E: From<StoreError>>(
        &self,
        bytes: u64,
        mut records: impl FnMut() -> Result<Option<(Bytes, Bytes)>, E>,
    ) -> Result<Incoming, E> {
        let mut incoming = self.begin(bytes)?;
        while incoming.add(&mut records)? {
            self.leave_free(&incoming.place, 0)?;
        }
        Ok(incoming)
    }

    fn begin(&self, bytes: u64) -> Result<Incoming, StoreError> {
        let place = self.place.upgrade().ok_or(StoreError::Disk(redb::Error::DatabaseClosed))?;
        self.leave_free(&place, bytes)?;
        let (files, path) = (place.files(), place.directory().join(place.new_name(INCOMING)));
        let database = backend::open_file(files, &path).inspect_err(|_| {
            // On a full disk, a part of it may be there.
            let _ = files.remove(&path);
        })?;
        restrict(files, &path);
        Ok(Incoming { place, path, database: Some(Arc::new(database)), data_bytes: 0 })
    }

    fn leave_free(&self, place: &Place, bytes: u64) -> Result<(), StoreError> {
        Ok(place.files().leave_free(place.directory(), self.headroom, bytes)?)
    }
}

impl Incoming {
    /// Adds a batch. Returns whether there are more.
    fn add<E: From<StoreError>>(
        &mut self,
        records: &mut impl FnMut() -> Result<Option<(Bytes, Bytes)>, E>,
    ) -> Result<bool, E> {
        let (mut held, begun) = (self.data_bytes, self.data_bytes);
        let mut torn = None;
        let added = transact(self.database()?, Durability::Immediate, |write| {
            let mut data = write.open_table(DATA)?;
            while held.saturating_sub(begun) < UNSYNCED_BYTES {
                match records() {
                    Ok(Some((key, value))) => Write::Put(key, value).perform(&mut data, &mut held).map(drop)?,
                    Ok(None) => return Ok(false),
                    Err(error) => {
                        torn = Some(error);
                        return Err(redb::Error::TransactionPoisoned);
                    }
                }
            }
            Ok(true)
        });
        self.data_bytes = held;
        match torn {
            Some(error) => Err(error),
            None => Ok(added?),
        }
    }

    pub(super) fn database(&self) -> Result<&Database, StoreError> {
        self.database.as_deref().ok_or(StoreError::Disk(redb::Error::DatabaseClosed))
    }

    /// Bytes of all keys and values.
    pub(super) fn data_bytes(&self) -> u64 {
        self.data_bytes
    }

    /// Replaces the store's database, and returns the old one.
    pub(super) fn take_place(mut self, place: &Place) -> Result<Option<Arc<Database>>, StoreError> {
        let database = self.database.take().ok_or(StoreError::Disk(redb::Error::DatabaseClosed))?;
        place.replace(&self.path, database).inspect_err(|_| {
            // It may have its new name by now.
            let _ = place.files().remove(&self.path);
        })
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if let Some(database) = self.database.take() {
            drop(database);
            if let Err(error) = self.place.files().remove(&self.path) {
                tracing::warn!(path = %self.path.display(), %error, "what was to be installed cannot be removed before the next start");
            }
        }
    }
}
