//! The open database, and how it is opened again after its disk has failed.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwapOption;
use redb::Database;

use super::{StoreError, backend, compaction, wal};
use crate::world::Files;

/// The free space that a store needs before it is opened again after its disk was full, in bytes: a whole append, and
/// what the store writes in addition. With less, it would fail again at once.
const ROOM_BYTES: usize = 4 << 20;

/// The name of the file in the directory.
const FILE: &str = "node.redb";
/// The prefix of the files beside it that a snapshot is spooled to, for a moment, or installed from.
pub(super) const SPOOL: &str = "spool-";
pub(super) const INCOMING: &str = "incoming-";

/// Denies others access, if the file system can.
pub(super) fn restrict(files: &Files, path: &Path) {
    if let Err(error) = files.restrict(path) {
        tracing::warn!(path = %path.display(), %error, "others than this user may be able to read the data");
    }
}

/// The size of the store's file in this directory, in bytes. `None` if it cannot be read.
pub(in crate::node) fn file_bytes(files: &Files, directory: &Path) -> Option<u64> {
    files.open(&directory.join(FILE)).and_then(|file| file.length()).ok()
}

/// Removes the files of snapshots that a killed member was spooling or installing.
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

/// A database in its directory. The writer and the readers share it.
#[derive(Debug)]
pub(super) struct OpenDatabase {
    files: Files,
    directory: PathBuf,
    open: ArcSwapOption<Database>,
    /// How many files were begun beside it, so that their names differ.
    begun: AtomicU64,
}

impl OpenDatabase {
    /// Opens the database in `directory`, which is created if it does not exist.
    pub(super) fn open(files: &Files, directory: &Path) -> Result<Arc<Self>, StoreError> {
        files.create_directory(directory)?;
        restrict(files, directory);
        let open = Self {
            files: files.clone(),
            directory: directory.to_owned(),
            open: ArcSwapOption::empty(),
            begun: AtomicU64::default(),
        };
        let database = open.open_first()?;
        open.take_up(database, |database, bytes| {
            compaction::compact(database, bytes, compaction::LEAST_GAIN_BYTES).map(drop)
        })?;
        Ok(Arc::new(open))
    }

    /// Opens the file, and removes what an earlier process has left beside it. Whoever has the file open needs what is
    /// beside it, so this is removed only by the one that has the file now.
    fn open_first(&self) -> Result<Database, StoreError> {
        // A sync may have failed in the earlier process.
        self.forget()?;
        let opened = backend::open(&self.files, &self.file());
        if matches!(opened, Err(StoreError::Locked)) {
            return opened;
        }
        remove_leftovers(&self.files, &self.directory)?;
        // On a full disk, it may be opened in the room that was given back.
        opened.or_else(|_| self.open_again())
    }

    /// Opens the file again after a failure.
    fn open_again(&self) -> Result<Database, StoreError> {
        self.forget()?;
        backend::open(&self.files, &self.file())
    }

    /// Has the files read from the disk again. After a failed sync, the system goes on showing bytes that the disk never
    /// got, to later processes too, until it needs their memory. What is built on such bytes is damaged.
    fn forget(&self) -> Result<(), StoreError> {
        let (files, log) = self.log();
        if files.exists(&self.file()) {
            files.forget(&self.file())?;
        }
        Ok(wal::forget(files, &log)?)
    }

    fn file(&self) -> PathBuf {
        self.directory.join(FILE)
    }

    pub(super) fn files(&self) -> &Files {
        &self.files
    }

    /// The directory of the database, in which files are also made beside it.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// The name of a new file beside the database. No other file gets it while this exists, and as long as this has the
    /// database open, no other process makes files here.
    pub(super) fn new_name(&self, kind: &str) -> String {
        format!("{kind}{}", self.begun.fetch_add(1, Ordering::Relaxed))
    }

    /// The place of the log.
    pub(super) fn log(&self) -> (&Files, PathBuf) {
        (&self.files, self.directory.join("log"))
    }

    /// Makes the opened file the one that is used, and calls `first` before anything else uses it. If `first` fails,
    /// the file is closed, and opened again.
    fn take_up(
        &self,
        mut database: Database,
        first: impl FnOnce(&mut Database, u64) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let bytes = file_bytes(&self.files, &self.directory).unwrap_or(0);
        if let Err(error) = first(&mut database, bytes) {
            tracing::warn!(%error, "the data are not compacted");
            // After a failure of the disk, it accepts nothing any more.
            drop(database);
            database = self.open_again()?;
        }
        restrict(&self.files, &self.file());
        // The database syncs the content of its file, but not the name of the file.
        self.files.sync_directory(&self.directory)?;
        self.open.store(Some(Arc::new(database)));
        Ok(())
    }

    /// The database. The caller must not keep it, because it cannot be opened again while somebody holds it.
    pub(super) fn database(&self) -> Result<Arc<Database>, redb::Error> {
        self.open.load_full().ok_or(redb::Error::DatabaseClosed)
    }

    /// Opens another database in place of this one. Its file is complete and synced, and gets the name of this one,
    /// durably. Returns this one; closing it takes a while.
    ///
    /// # Errors
    /// The disk fails. It is then unknown which of the two the next start finds.
    pub(super) fn replace(&self, file: &Path, database: Arc<Database>) -> Result<Option<Arc<Database>>, StoreError> {
        self.files.rename(file, &self.file())?;
        self.files.sync_directory(&self.directory)?;
        Ok(self.open.swap(Some(database)))
    }

    /// Closes the database, and opens it again as it is on the disk. On an error, it stays closed.
    ///
    /// After a failed write or sync, redb accepts no more of either, and it is unknown how much of the last transaction
    /// is on the disk: nothing that was read before counts.
    pub(super) fn reopen(&self) -> Result<(), StoreError> {
        // Until there is room, everything that needs no disk can still be read.
        self.files.find_room(&self.directory, ROOM_BYTES)?;
        // Reading transactions fail from here on. A reader that is about to begin one closes it when it is done; until
        // then, the file is in use.
        if let Some(database) = self.open.swap(None).and_then(Arc::into_inner) {
            let _ = database.close();
        }
        // The file is not compacted now, because the member is needed.
        self.take_up(self.open_again()?, |_, _| Ok(()))
    }
}
