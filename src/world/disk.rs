//! A disk that replaces the system's.

use std::{ffi::OsString, fmt::Debug, io, path::Path, sync::Arc};

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// For reading. The file must exist.
    Read,
    /// For reading and writing. The file is created, and must not exist.
    New,
    /// For reading and writing. The file is created if it does not exist.
    Kept,
}

/// The operations of a disk that is not the system's. Paths are those of the member's config. A call returns when it is
/// done, and must not wait for time that a paused clock moves.
///
/// The disk decides what is lost when the power fails. A member relies on two things: the content of a file when it was
/// last synced, and a name that was created, changed or removed before its directory was last synced.
pub trait Disk: Debug + Send + Sync {
    /// Creates a directory, and the missing ones above it.
    ///
    /// # Errors
    /// As for the system's: the disk is full or read-only, or a file has the name.
    fn create_directory(&self, path: &Path) -> io::Result<()>;

    /// The names in a directory.
    ///
    /// # Errors
    /// The directory does not exist, or cannot be read.
    fn names(&self, directory: &Path) -> io::Result<Vec<OsString>>;

    /// Whether a file or a directory with this path exists.
    fn exists(&self, path: &Path) -> bool;

    /// Opens a file.
    ///
    /// # Errors
    /// As for the system's: the file does not exist, or exists and should be new; its directory does not exist; the
    /// disk is full.
    fn open(&self, path: &Path, opening: Opening) -> io::Result<Arc<dyn DiskFile>>;

    /// Renames a file. It replaces the file that has the new name. Both stay usable for those who have them open.
    ///
    /// # Errors
    /// The file does not exist.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes the name of a file. The file stays usable for those who have it open.
    ///
    /// # Errors
    /// The file does not exist.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// The free space of a directory's file system, in bytes.
    ///
    /// # Errors
    /// The directory does not exist, or the disk fails.
    fn free(&self, directory: &Path) -> io::Result<u64>;

    /// Makes the names in a directory durable.
    ///
    /// # Errors
    /// The directory does not exist, or the disk fails.
    fn sync_directory(&self, directory: &Path) -> io::Result<()>;
}

/// A file on such a disk, open until it is dropped.
#[expect(clippy::len_without_is_empty, reason = "nobody asks whether a file is empty")]
pub trait DiskFile: Debug + Send + Sync {
    /// The length of the file, in bytes.
    ///
    /// # Errors
    /// The disk fails.
    fn len(&self) -> io::Result<u64>;

    /// Reads at an offset, and returns the number of bytes read: fewer than there is room for at the end of the file,
    /// and none beyond it.
    ///
    /// # Errors
    /// The disk fails.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize>;

    /// Writes all bytes at an offset. A gap after the old end is filled with zeros.
    ///
    /// # Errors
    /// The disk is full or fails. It is then unknown how much was written.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Truncates the file, or extends it by zeros.
    ///
    /// # Errors
    /// The disk is full or fails.
    fn set_len(&self, length: u64) -> io::Result<()>;

    /// Makes the content and the length of the file durable.
    ///
    /// # Errors
    /// The disk fails. It is then unknown what is durable, and a later sync that succeeds does not change that: until
    /// [`Self::forget`], reads may show bytes that the disk never got.
    fn sync(&self) -> io::Result<()>;

    /// Drops what only memory holds of the file because the disk did not take it. Later reads show what is on the disk.
    ///
    /// # Errors
    /// The disk fails.
    fn forget(&self) -> io::Result<()>;

    /// Locks the file for this opening, until [`Self::unlock`] or until it is dropped. Returns false if another opening
    /// holds the lock.
    ///
    /// # Errors
    /// The disk fails.
    fn try_lock(&self) -> io::Result<bool>;

    /// Releases the lock.
    ///
    /// # Errors
    /// The disk fails.
    fn unlock(&self) -> io::Result<()>;
}
