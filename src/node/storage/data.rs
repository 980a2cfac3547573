//! The clients' data: changing and reading them.

use std::sync::Arc;

use bytes::Bytes;
use redb::ReadableDatabase;

use super::{
    StoreError,
    database::OpenDatabase,
    tables::{DATA, length},
};

/// One write of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::node) enum Write {
    Put(Bytes, Bytes),
    Delete(Bytes),
}

impl Write {
    /// Returns whether the key existed. `held` are the bytes of all keys and values.
    pub(super) fn perform(
        &self,
        data: &mut redb::Table<'_, &[u8], &[u8]>,
        held: &mut u64,
    ) -> Result<bool, redb::Error> {
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

/// Reads the data as of the last applied entry, while the raft task goes on.
#[derive(Clone)]
pub(in crate::node) struct StoreReader(Arc<OpenDatabase>);

impl StoreReader {
    pub(super) fn new(open: Arc<OpenDatabase>) -> Self {
        Self(open)
    }

    /// The value of a key.
    pub(in crate::node) fn value(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let read = || {
            let data = self.0.database()?.begin_read()?.open_table(DATA)?;
            Ok::<_, redb::Error>(data.get(key)?.map(|guard| guard.value().to_vec()))
        };
        read().map_err(StoreError::Disk)
    }
}
