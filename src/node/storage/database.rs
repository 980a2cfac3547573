//! The database that is open, and how it is opened anew when its disk has failed.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
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
/// What the names of files beside it begin with that a snapshot is spooled to, for a moment, or installed from.
pub(super) const SPOOL: &str = "spool-";
pub(super) const INCOMING: &str = "incoming-";

/// Keeps others out, where the file system can.
pub(super) fn restrict(files: &Files, path: &Path) {
    if let Err(error) = files.restrict(path) {
        tracing::warn!(path = %path.display(), %error, "others than this user may be able to read the data");
    }
}

/// How many bytes the file of the store in this directory has; none: it cannot be looked at.
pub(in crate::node) fn file_bytes(files: &Files, directory: &Path) -> Option<u64> {
    files.open(&directory.join(FILE)).and_then(|file| file.length()).ok()
}

/// Removes what a member that was killed has left of a snapshot that it was spooling or installing.
fn remove_leftovers(files: &Files, directory: &Path) -> Result<(), StoreError> {
    for name in files.names(directory)? {
        let is_left = name.to_str().is_some_and(|name| name.starts_with(SPOOL) || name.starts_with(INCOMING));
        if is_left {
            tracing::info!(name = %name.display(), "removing what was left of a snapshot");
            files.remove(&directory.join(name))?;
        }
    }
    Ok(())
}

/// A database in its directory. Those who read share it with the one who writes.
#[derive(Debug)]
pub(super) struct Place {
    files: Files,
    directory: PathBuf,
    open: ArcSwapOption<Database>,
    /// How many files were begun beside it: their names differ.
    begun: Arc<AtomicU64>,
}

/// Where files are made beside a database, whether that is open or not.
#[derive(Clone, Debug)]
pub(super) struct Beside {
    pub(super) files: Files,
    pub(super) directory: PathBuf,
    begun: Arc<AtomicU64>,
}

impl Beside {
    /// A name that no other file gets while this member runs.
    pub(super) fn new_name(&self, kind: &str) -> String {
        format!("{kind}{}", self.begun.fetch_add(1, Ordering::Relaxed))
    }
}

impl Place {
    /// Opens the database in `directory`, which is made if it is not there.
    pub(super) fn open(files: &Files, directory: &Path) -> Result<Arc<Self>, StoreError> {
        files.create_directory(directory)?;
        restrict(files, directory);
        remove_leftovers(files, directory)?;
        let place = Self {
            files: files.clone(),
            directory: directory.to_owned(),
            open: ArcSwapOption::empty(),
            begun: Arc::default(),
        };
        place.open_file(|database, bytes| {
            compaction::compact(database, bytes, compaction::LEAST_GAIN_BYTES).map(drop)
        })?;
        Ok(Arc::new(place))
    }

    fn file(&self) -> PathBuf {
        self.directory.join(FILE)
    }

    /// Where files are made beside it.
    pub(super) fn beside(&self) -> Beside {
        let (files, directory) = (self.files.clone(), self.directory.clone());
        Beside { files, directory, begun: self.begun.clone() }
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

    /// Opens another database in the place of this one. Its file is whole and synced, and gets this one's name, now and after
    /// a loss of power. Returns this one: closing it takes a while.
    ///
    /// # Errors
    /// When the disk fails. It is not known then which of the two the next start finds.
    pub(super) fn replace(&self, file: &Path, database: Arc<Database>) -> Result<Option<Arc<Database>>, StoreError> {
        self.files.rename(file, &self.file())?;
        self.files.sync_directory(&self.directory)?;
        Ok(self.open.swap(Some(database)))
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
