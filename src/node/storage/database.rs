//! The database that is open, and how it is opened anew when its disk has failed.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::ArcSwapOption;
use redb::Database;

use super::{StoreError, backend, compaction};
use crate::world::Files;

/// What must have room before a store whose disk was full is opened again: a whole append and what the store itself writes
/// beside it. With less, it would fail again at once.
const ROOM_BYTES: usize = 4 << 20;

/// Its name in the directory.
const FILE: &str = "node.redb";

/// Keeps others out, where the file system can.
fn restrict(files: &Files, path: &Path) {
    if let Err(error) = files.restrict(path) {
        tracing::warn!(path = %path.display(), %error, "others than this user may be able to read the data");
    }
}

/// How many bytes the file of the store in this directory has; none: it cannot be looked at.
pub(in crate::node) fn file_bytes(files: &Files, directory: &Path) -> Option<u64> {
    files.open(&directory.join(FILE)).and_then(|file| file.length()).ok()
}

/// A database in its directory. Those who read share it with the one who writes.
#[derive(Debug)]
pub(super) struct Place {
    files: Files,
    directory: PathBuf,
    open: ArcSwapOption<Database>,
}

impl Place {
    /// Opens the database in `directory`, which is made if it is not there.
    pub(super) fn open(files: &Files, directory: &Path) -> Result<Arc<Self>, StoreError> {
        files.create_directory(directory)?;
        restrict(files, directory);
        let place = Self { files: files.clone(), directory: directory.to_owned(), open: ArcSwapOption::empty() };
        place.open_file(|database, bytes| {
            compaction::compact(database, bytes, compaction::LEAST_GAIN_BYTES).map(drop)
        })?;
        Ok(Arc::new(place))
    }

    fn file(&self) -> PathBuf {
        self.directory.join(FILE)
    }

    /// Where the log is.
    pub(super) fn log(&self) -> (&Files, PathBuf) {
        (&self.files, self.directory.join("log"))
    }

    /// Opens the file, and does this with it before anybody else has it; if that cannot be done, it is left.
    fn open_file(&self, first: impl FnOnce(&mut Database, u64) -> Result<(), StoreError>) -> Result<(), StoreError> {
        let mut database = backend::open(&self.files, &self.file())?;
        let bytes = file_bytes(&self.files, &self.directory).unwrap_or(0);
        if let Err(error) = first(&mut database, bytes) {
            tracing::warn!(%error, "the data are not compacted");
            // It takes nothing any more after a failure of the disk.
            drop(database);
            database = backend::open(&self.files, &self.file())?;
        }
        restrict(&self.files, &self.file());
        // The database syncs what is in its file, and not that the file is there.
        self.files.sync_directory(&self.directory)?;
        self.open.store(Some(Arc::new(database)));
        Ok(())
    }

    /// The database. It must not be kept: while somebody has it, it cannot be opened anew.
    pub(super) fn database(&self) -> Result<Arc<Database>, redb::Error> {
        self.open.load_full().ok_or(redb::Error::DatabaseClosed)
    }

    /// Closes the database, and opens it as the disk has it. An error leaves it closed.
    ///
    /// Once a write or a sync has failed, redb takes no more of either, and nobody knows what of the last transaction is on
    /// the disk: nothing that was read before counts.
    pub(super) fn reopen(&self) -> Result<(), StoreError> {
        // Until there is, what can be read without the disk still is.
        self.files.find_room(&self.directory, ROOM_BYTES)?;
        // Transactions that still read fail from here on. Who is about to begin one closes it when he is done, and until
        // then the file is in use.
        if let Some(database) = self.open.swap(None).and_then(Arc::into_inner) {
            let _ = database.close();
        }
        self.files.forget(&self.file())?;
        let (files, log) = self.log();
        files.names(&log)?.iter().try_for_each(|name| files.forget(&log.join(name)))?;
        // Not compacted: its member is waited for.
        self.open_file(|_, _| Ok(()))
    }
}
