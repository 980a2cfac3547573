//! The data of a received snapshot: a database of their own beside the one that is open, written and synced by whoever has
//! received them, until the raft task gives it the place of the other. That takes as long as one small transaction,
//! however many data there are.

use std::{path::PathBuf, sync::Arc};

use bytes::Bytes;
use redb::{Database, Durability};

use super::{
    Store, StoreError, backend,
    data::Write,
    database::{Beside, INCOMING, Place, restrict},
    tables::DATA,
    transact,
};
use crate::world::Files;

/// Bytes of data in one transaction: what is not on the disk yet delays the syncs of the log.
const BATCH_BYTES: u64 = 8 << 20;

/// Makes such databases. Every clone makes them in the same place.
#[derive(Clone, Debug)]
pub(in crate::node) struct Builder {
    beside: Beside,
    /// Bytes that the file system keeps free.
    headroom: u64,
}

/// A database that is whole and synced, and that nobody has heard of yet. Nothing is left of it when this is dropped, which
/// takes a while.
#[derive(Debug)]
pub(in crate::node) struct Incoming {
    files: Files,
    path: PathBuf,
    /// None once it was installed.
    database: Option<Arc<Database>>,
    data_bytes: u64,
}

impl Store {
    /// Makes databases that [`Store::install`] takes. They leave so many bytes of the file system free.
    pub(in crate::node) fn builder(&self, headroom: u64) -> Builder {
        Builder { beside: self.place.beside(), headroom }
    }
}

impl Builder {
    /// Makes a database of these records, of which there are about so many bytes: of all of them, or none.
    pub(in crate::node) fn build<E: From<StoreError>>(
        &self,
        bytes: u64,
        mut records: impl FnMut() -> Result<Option<(Bytes, Bytes)>, E>,
    ) -> Result<Incoming, E> {
        let mut incoming = self.begin(bytes)?;
        while incoming.add(&mut records)? {
            self.leave_free(0)?;
        }
        Ok(incoming)
    }

    fn begin(&self, bytes: u64) -> Result<Incoming, StoreError> {
        self.leave_free(bytes)?;
        let (files, directory) = (&self.beside.files, &self.beside.directory);
        let path = directory.join(self.beside.new_name(INCOMING));
        let mut incoming = Incoming { files: files.clone(), path, database: None, data_bytes: 0 };
        incoming.database = Some(Arc::new(backend::open_file(files, &incoming.path)?));
        restrict(files, &incoming.path);
        Ok(incoming)
    }

    fn leave_free(&self, bytes: u64) -> Result<(), StoreError> {
        let (files, directory) = (&self.beside.files, &self.beside.directory);
        Ok(files.leave_free(directory, self.headroom, bytes)?)
    }
}

impl Incoming {
    /// Adds a batch. Whether there are more.
    fn add<E: From<StoreError>>(
        &mut self,
        records: &mut impl FnMut() -> Result<Option<(Bytes, Bytes)>, E>,
    ) -> Result<bool, E> {
        let (mut held, begun) = (self.data_bytes, self.data_bytes);
        let mut torn = None;
        let added = transact(self.database()?, Durability::Immediate, |write| {
            let mut data = write.open_table(DATA)?;
            while held.saturating_sub(begun) < BATCH_BYTES {
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

    /// Takes the place of the store's database, which is returned.
    pub(super) fn take_place(mut self, place: &Place) -> Result<Option<Arc<Database>>, StoreError> {
        let database = self.database.take().ok_or(StoreError::Disk(redb::Error::DatabaseClosed))?;
        place.replace(&self.path, database).inspect_err(|_| {
            // It may have the other name by now.
            let _ = self.files.remove(&self.path);
        })
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if let Some(database) = self.database.take() {
            drop(database);
            if let Err(error) = self.files.remove(&self.path) {
                tracing::warn!(path = %self.path.display(), %error, "what was to be installed cannot be removed before the next start");
            }
        }
    }
}
