//! Files, on the system's disk or on another.

use std::{
    ffi::OsString,
    fs,
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
    sync::Arc,
};

use super::{
    disk::{Disk, DiskFile, Opening},
    system_file::SystemFile,
};

/// The name of the file by which free space is tested.
#[cfg(feature = "node")]
const ROOM: &str = "room.tmp";

/// The most bytes of a large file that stay unsynced while it is written. The syncs of other files on the same disk have
/// to wait for them, and raft waits for the syncs of its log.
pub(crate) const UNSYNCED_BYTES: u64 = 2 << 20;

/// The mode of directories: only the owner may read, write and enter.
const DIRECTORY_MODE: u32 = 0o700;
/// The mode of files: only the owner may read and write.
const FILE_MODE: u32 = 0o600;

/// The files of a member. Cheap to clone: all clones use one disk.
#[derive(Clone, Debug, Default)]
pub(crate) struct Files(Option<Arc<dyn Disk>>);

impl Files {
    pub(super) fn on(disk: Arc<dyn Disk>) -> Self {
        Self(Some(disk))
    }

    /// Creates a directory and the missing ones above it, for their owner alone, and makes them durable.
    pub(crate) fn create_directory(&self, path: &Path) -> io::Result<()> {
        let new: Vec<&Path> =
            path.ancestors().take_while(|path| !path.as_os_str().is_empty() && !self.exists(path)).collect();
        match &self.0 {
            // One by one, because a mask that also takes rights from the owner would keep us out of the first.
            None => new.iter().rev().try_for_each(|path| create_private_directory(path))?,
            Some(disk) => disk.create_directory(path)?,
        }
        for (place, path) in path.ancestors().enumerate() {
            let Some(parent) = path.parent() else { break };
            let synced = self.sync_directory(parent);
            // A directory that exists may have been made by a start that was killed before this sync. Directories
            // further up may be out of reach, and are not this member's to sync.
            if place < new.len() {
                synced?;
            }
        }
        Ok(())
    }

    /// Restricts a file or directory to its owner, whatever rights the umask or its creator has given to others.
    #[cfg(feature = "node")]
    pub(crate) fn restrict(&self, path: &Path) -> io::Result<()> {
        match &self.0 {
            None => {
                let metadata = fs::metadata(path)?;
                let mode = if metadata.is_dir() { DIRECTORY_MODE } else { FILE_MODE };
                if metadata.permissions().mode() & 0o777 == mode {
                    return Ok(());
                }
                fs::set_permissions(path, fs::Permissions::from_mode(mode))
            }
            // Only the member has access to it.
            Some(_) => Ok(()),
        }
    }

    /// The names in a directory.
    pub(crate) fn names(&self, directory: &Path) -> io::Result<Vec<OsString>> {
        match &self.0 {
            None => fs::read_dir(directory)?.map(|entry| entry.map(|entry| entry.file_name())).collect(),
            Some(disk) => disk.names(directory),
        }
    }

    /// Whether a file or directory with this path exists.
    pub(crate) fn exists(&self, path: &Path) -> bool {
        match &self.0 {
            None => path.exists(),
            Some(disk) => disk.exists(path),
        }
    }

    /// Opens an existing file for reading.
    pub(crate) fn open(&self, path: &Path) -> io::Result<File> {
        match &self.0 {
            None => fs::File::open(path).map(File::system),
            Some(disk) => disk.open(path, Opening::Read).map(File::other),
        }
    }

    /// Opens an existing file for reading, before its name is removed. Its space is given back in steps.
    #[cfg(feature = "node")]
    pub(crate) fn open_to_remove(&self, path: &Path) -> io::Result<File> {
        match &self.0 {
            // Only whoever may write to a file can shorten it.
            None => fs::OpenOptions::new().read(true).write(true).open(path).map(File::system),
            Some(disk) => disk.open(path, Opening::Read).map(File::other),
        }
    }

    /// Creates a new file for writing.
    pub(crate) fn create_new(&self, path: &Path) -> io::Result<File> {
        match &self.0 {
            None => {
                open_private(fs::OpenOptions::new().read(true).write(true).create_new(true), path).map(File::system)
            }
            Some(disk) => disk.open(path, Opening::New).map(File::other),
        }
    }

    /// Checks that a directory has room for this many bytes: they are written there, synced, and removed. Nothing else
    /// takes account of a quota, or of the space that a file system reserves.
    #[cfg(feature = "node")]
    pub(crate) fn find_room(&self, directory: &Path, bytes: usize) -> io::Result<()> {
        // Not zeros, which a file system may store as a hole, without room.
        static BLOCK: [u8; 64 << 10] = [0xa5; 64 << 10];
        let path = directory.join(ROOM);
        if self.exists(&path) {
            self.remove(&path)?;
        }
        let write = || {
            let mut file = self.create_new(&path)?;
            for _ in 0..bytes.div_ceil(BLOCK.len()) {
                file.write_all(&BLOCK)?;
            }
            file.sync()
        };
        let found = write();
        let removed = if self.exists(&path) { self.remove(&path) } else { Ok(()) };
        found.and(removed)
    }

    /// Drops the system's cache of a file, so that it is read from the disk again. After a failed sync, Linux goes on
    /// showing bytes that the disk never got, and takes them for written.
    #[cfg(feature = "node")]
    pub(crate) fn forget(&self, path: &Path) -> io::Result<()> {
        match &self.0 {
            None => SystemFile::new(fs::File::open(path)?).forget(),
            Some(disk) => disk.open(path, Opening::Read)?.forget(),
        }
    }

    /// Opens a file for reading and writing anywhere in it. It is created if it does not exist.
    pub(crate) fn open_kept(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        match &self.0 {
            None => {
                let mut options = fs::OpenOptions::new();
                let file = open_private(options.read(true).write(true).create(true).truncate(false), path)?;
                Ok(Arc::new(SystemFile::new(file)))
            }
            Some(disk) => disk.open(path, Opening::Kept),
        }
    }

    /// Renames a file. It replaces the file that has the new name.
    pub(crate) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        match &self.0 {
            None => fs::rename(from, to),
            Some(disk) => disk.rename(from, to),
        }
    }

    /// Removes a file.
    pub(crate) fn remove(&self, path: &Path) -> io::Result<()> {
        match &self.0 {
            None => fs::remove_file(path),
            Some(disk) => disk.remove(path),
        }
    }

    /// The free space of a directory's file system that this process may use, in bytes. A file system that does not say
    /// how large it is counts as unlimited.
    pub(crate) fn free(&self, directory: &Path) -> io::Result<u64> {
        let Some(disk) = &self.0 else {
            let system = rustix::fs::statvfs(directory)?;
            let is_told = system.f_blocks > 0;
            return Ok(if is_told { system.f_bavail.saturating_mul(system.f_frsize) } else { u64::MAX });
        };
        disk.free(directory)
    }

    /// Whether a directory's file system still has `headroom` bytes free after `bytes` of a snapshot are written to it.
    pub(crate) fn leave_free(&self, directory: &Path, headroom: u64, bytes: u64) -> io::Result<()> {
        let free = self.free(directory)?;
        if free >= headroom.saturating_add(bytes) {
            return Ok(());
        }
        let why =
            format!("the file system has {free} bytes left, and is to keep {headroom} beside {bytes} of a snapshot");
        Err(io::Error::new(io::ErrorKind::StorageFull, why))
    }

    /// Makes the names in a directory durable.
    pub(crate) fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        // The parent of a relative path with one component is the current directory.
        let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
        match &self.0 {
            None => fs::File::open(directory)?.sync_all(),
            Some(disk) => disk.sync_directory(directory),
        }
    }
}

/// Creates a directory for its owner alone, whatever the umask.
fn create_private_directory(path: &Path) -> io::Result<()> {
    match fs::DirBuilder::new().mode(DIRECTORY_MODE).create(path) {
        // If somebody else created it meanwhile, they decide who may enter.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => return Ok(()),
        made => made?,
    }
    let mode = fs::metadata(path)?.permissions().mode() & 0o777;
    // A mask can only take rights away.
    if mode == DIRECTORY_MODE { Ok(()) } else { fs::set_permissions(path, fs::Permissions::from_mode(DIRECTORY_MODE)) }
}

/// Opens a file and restricts it to its owner, whatever the umask.
fn open_private(options: &mut fs::OpenOptions, path: &Path) -> io::Result<fs::File> {
    let file = options.mode(FILE_MODE).open(path)?;
    // The mask may have taken rights from the owner, too, and an existing file may have been open to everybody. A file
    // system without such rights refuses the change. The check when the directory is opened reports that.
    if file.metadata()?.permissions().mode() & 0o777 != FILE_MODE {
        let _ = file.set_permissions(fs::Permissions::from_mode(FILE_MODE));
    }
    Ok(file)
}

/// An open file, read or written from beginning to end.
#[derive(Debug)]
pub(crate) enum File {
    /// A file of the system's disk.
    System(SystemFile),
    /// A file of another disk.
    Other {
        /// The file.
        file: Arc<dyn DiskFile>,
        /// The offset of the next byte to read or write.
        position: u64,
    },
}

impl File {
    fn system(file: fs::File) -> Self {
        Self::System(SystemFile::new(file))
    }

    fn other(file: Arc<dyn DiskFile>) -> Self {
        Self::Other { file, position: 0 }
    }

    /// The length of the file, in bytes.
    pub(crate) fn length(&self) -> io::Result<u64> {
        match self {
            Self::System(file) => file.len(),
            Self::Other { file, .. } => file.len(),
        }
    }

    /// Makes the content of the file durable.
    pub(crate) fn sync(&self) -> io::Result<()> {
        match self {
            Self::System(file) => file.file().sync_all(),
            Self::Other { file, .. } => file.sync(),
        }
    }
}

impl Read for File {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::System(file) => file.file().read(into),
            Self::Other { file, position } => {
                let read = file.read_at(*position, into)?;
                *position += read as u64;
                Ok(read)
            }
        }
    }
}

impl Write for File {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::System(file) => file.file().write(bytes),
            Self::Other { file, position } => {
                file.write_at(*position, bytes)?;
                *position += bytes.len() as u64;
                Ok(bytes.len())
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::System(file) => file.file().flush(),
            Self::Other { .. } => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_beside_us_lies_in_the_one_that_we_are_in() {
        let files = Files::default();
        assert!(files.sync_directory(Path::new("beside us").parent().expect("an empty one")).is_ok());
        assert!(files.sync_directory(Path::new("not there")).is_err());
    }

    #[test]
    #[cfg(all(feature = "node", target_os = "linux"))]
    fn a_file_system_that_knows_no_owners_says_so() {
        let refused = Files::default().restrict(Path::new("/proc/self/status"));
        assert!(refused.is_err(), "nobody changes the mode of that, and no error was told");
    }
}
