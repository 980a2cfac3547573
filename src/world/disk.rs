//! A disk in place of the system's.

use std::{ffi::OsString, fmt::Debug, io, path::Path, sync::Arc};

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// To be read. It must be there.
    Read,
    /// To be written and read. It is made, and must not be there yet.
    New,
    /// To be written and read. It is made where it is not there.
    Kept,
}

/// What a member may ask of a disk that is not the system's. Paths are those of its config. A call returns when it is
/// done, and may not wait for time that a paused clock moves.
///
/// What is lost when the power goes is the disk's to say. A member takes for lasting what a file had when it was last
/// synced, and a name that was made, changed or removed once its directory was.
pub trait Disk: Debug + Send + Sync {
    /// Makes a directory, and those above it that are not there.
    ///
    /// # Errors
    /// As the system's: the disk is full or read-only, or a file has the name.
    fn create_directory(&self, path: &Path) -> io::Result<()>;

    /// The names in a directory.
    ///
    /// # Errors
    /// When it is not there, or cannot be read.
    fn names(&self, directory: &Path) -> io::Result<Vec<OsString>>;

    /// Whether there is a file or a directory.
    fn exists(&self, path: &Path) -> bool;

    /// Opens a file.
    ///
    /// # Errors
    /// As the system's: it is not there, or it is there and should be new; its directory is not there; the disk is full.
    fn open(&self, path: &Path, opening: Opening) -> io::Result<Arc<dyn DiskFile>>;

    /// Gives a file another name, in the place of what has it. Who has either open keeps it.
    ///
    /// # Errors
    /// When it is not there.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Takes a file's name away. Who has it open keeps it.
    ///
    /// # Errors
    /// When it is not there.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// How many bytes more a directory's file system has room for.
    ///
    /// # Errors
    /// When it is not there, or the disk fails.
    fn free(&self, directory: &Path) -> io::Result<u64>;

    /// Makes the names in a directory lasting.
    ///
    /// # Errors
    /// When it is not there, or the disk fails.
    fn sync_directory(&self, directory: &Path) -> io::Result<()>;
}

/// A file of such a disk, open until it is dropped.
#[expect(clippy::len_without_is_empty, reason = "nobody asks whether a file is empty")]
pub trait DiskFile: Debug + Send + Sync {
    /// How many bytes it has.
    ///
    /// # Errors
    /// When the disk fails.
    fn len(&self) -> io::Result<u64>;

    /// Reads what is at an offset, and returns how many bytes that were: fewer than there is room for where the file
    /// ends, none behind its end.
    ///
    /// # Errors
    /// When the disk fails.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize>;

    /// Writes all of it at an offset. Between the end so far and the offset there are zeros.
    ///
    /// # Errors
    /// When the disk is full or fails. How much of it was written is not known then.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Cuts it off, or lengthens it by zeros.
    ///
    /// # Errors
    /// When the disk is full or fails.
    fn set_len(&self, length: u64) -> io::Result<()>;

    /// Makes lasting what it has and how long it is.
    ///
    /// # Errors
    /// When the disk fails. What of it is lasting is not known then, and a later one that succeeds says nothing of it:
    /// reads may go on showing what the disk never got, until [`Self::forget`].
    fn sync(&self) -> io::Result<()>;

    /// Forgets what only memory has of it, since the disk did not take it: what is read from now on is what the disk has.
    ///
    /// # Errors
    /// When the disk fails.
    fn forget(&self) -> io::Result<()>;

    /// Takes it for this opening alone, until [`Self::unlock`] or until it is dropped. False: another has it.
    ///
    /// # Errors
    /// When the disk fails.
    fn try_lock(&self) -> io::Result<bool>;

    /// Gives it back to others.
    ///
    /// # Errors
    /// When the disk fails.
    fn unlock(&self) -> io::Result<()>;
}
