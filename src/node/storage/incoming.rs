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
    database::{INCOMING, OpenDatabase, restrict},
    tables::DATA,
    transact,
};
use crate::world::UNSYNCED_BYTES;

/// Makes such databases. All clones make them in the same directory.
#[derive(Clone, Debug)]
pub(in crate::node) struct IncomingBuilder {
    /// Where the store is, while it is open.
    open: Weak<OpenDatabase>,
    /// The bytes that must stay free on the file system.
    headroom: u64,
}

/// A database that is complete and synced, and not in use yet. It is deleted when this is dropped, which takes a while.
#[derive(Debug)]
pub(in crate::node) struct IncomingDatabase {
    /// Held so that the directory stays in use until the file is gone: the next store there begins with the same names.
    open: Arc<OpenDatabase>,
    path: PathBuf,
    /// `None` once it was installed.
    database: Option<Arc<Database>>,
    data_bytes: u64,
}

impl Store {
    /// A builder of databases for [`Store::install`]. They leave this many bytes of the file system free.
    pub(in crate::node) fn builder(&self, headroom: u64) -> IncomingBuilder {
        IncomingBuilder { open: Arc::downgrade(&self.open), headroom }
    }
}

impl IncomingBuilder {
    /// Makes a database of these records, which have about this many bytes. It has all of them, or is not made.
    ///
    /// # Errors
    /// The disk fails, the store was closed, or there is an error in place of a record.
    pub(in crate::node) fn build<E: From<StoreError>>(
        &self,
        bytes: u64,
        mut records: impl FnMut() -> Result<Option<(Bytes, Bytes)>, E>,
    ) -> Result<IncomingDatabase, E> {
        let mut incoming = self.begin(bytes)?;
        while incoming.add(&mut records)? {
            self.leave_free(&incoming.open, 0)?;
        }
        Ok(incoming)
    }

    fn begin(&self, bytes: u64) -> Result<IncomingDatabase, StoreError> {
        let open = self.open.upgrade().ok_or(StoreError::Disk(redb::Error::DatabaseClosed))?;
        self.leave_free(&open, bytes)?;
        let (files, path) = (open.files(), open.directory().join(open.new_name(INCOMING)));
        let database = backend::open_file(files, &path).inspect_err(|_| {
            // On a full disk, a part of it may be there.
            let _ = files.remove(&path);
        })?;
        restrict(files, &path);
        Ok(IncomingDatabase { open, path, database: Some(Arc::new(database)), data_bytes: 0 })
    }

    fn leave_free(&self, open: &OpenDatabase, bytes: u64) -> Result<(), StoreError> {
        Ok(open.files().leave_free(open.directory(), self.headroom, bytes)?)
    }
}

impl IncomingDatabase {
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
    pub(super) fn take_place(mut self, open: &OpenDatabase) -> Result<Option<Arc<Database>>, StoreError> {
        let database = self.database.take().ok_or(StoreError::Disk(redb::Error::DatabaseClosed))?;
        open.replace(&self.path, database).inspect_err(|_| {
            // It may have its new name by now.
            let _ = open.files().remove(&self.path);
        })
    }
}

impl Drop for IncomingDatabase {
    fn drop(&mut self) {
        if let Some(database) = self.database.take() {
            // While it is open, so that its space is given back in steps.
            if let Err(error) = self.open.files().remove(&self.path) {
                tracing::warn!(path = %self.path.display(), %error, "what was to be installed cannot be removed before the next start");
            }
            drop(database);
        }
    }
}
