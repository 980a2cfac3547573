//! The file of the database, on the disk of the world.

use std::{io, ops::Bound, path::Path, sync::Arc};

use redb::{BackendError, Database, DatabaseError, StorageBackend};

use super::StoreError;
use crate::world::{DiskFile, Files};

/// The memory for cached pages, in bytes.
const CACHE_BYTES: usize = 32 << 20;

/// Opens the database with this path, or creates it.
pub(super) fn open(files: &Files, path: &Path) -> Result<Database, StoreError> {
    if !files.exists(path) || files.open(path)?.length()? == 0 {
        make(files, path)?;
    }
    open_file(files, path)
}

/// Creates the database under another name until it is complete: redb marks a file as its own at the very end, and does
/// not accept a file that it could not finish because the disk was full.
fn make(files: &Files, path: &Path) -> Result<(), StoreError> {
    let unfinished = path.with_extension("unfinished");
    if files.exists(&unfinished) {
        files.remove(&unfinished)?;
    }
    drop(open_file(files, &unfinished)?);
    Ok(files.rename(&unfinished, path)?)
}

/// Opens the database in this file, which nobody else may have open.
pub(super) fn open_file(files: &Files, path: &Path) -> Result<Database, StoreError> {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    // Not redb's own file: when a snapshot has replaced the database, this one gives its space back in steps.
    let database = builder.create_with_backend(Backend(files.open_kept(path)?));
    database.map_err(|error| match error {
        DatabaseError::DatabaseAlreadyOpen => StoreError::Locked,
        other => StoreError::Disk(other.into()),
    })
}

/// A file, as redb uses it.
#[derive(Debug)]
struct Backend(Arc<dyn DiskFile>);

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, mut offset: u64, mut out: &mut [u8]) -> io::Result<()> {
        while !out.is_empty() {
            let read = self.0.read_at(offset, out)?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            offset += read as u64;
            out = &mut out[read..];
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_at(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.0.unlock()
    }

    // redb takes a single lock when there is one writer without readers beside it: the whole file.
    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        if !is_whole(start, end) {
            return Err(BackendError::Unsupported);
        }
        Ok(self.0.try_lock()?)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        if !is_whole(start, end) {
            return Err(BackendError::Unsupported);
        }
        Ok(self.0.unlock()?)
    }
}

fn is_whole(start: Bound<u64>, end: Bound<u64>) -> bool {
    matches!(start, Bound::Unbounded | Bound::Included(0)) && end == Bound::Unbounded
}
