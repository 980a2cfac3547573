//! Files of the system's disk. The space of a large file without a name is given back in steps.

use std::{
    fs, io,
    os::unix::fs::{FileExt, MetadataExt as _},
    sync::{LazyLock, mpsc},
    thread,
    time::Duration,
};

use super::disk::DiskFile;

/// How much of a large file is given back at once, in bytes. A file system may have to discard the blocks (ext4 with
/// `discard` does so when it commits), and the syncs of other files wait for that: half a second for gigabytes.
const FREED_AT_ONCE: u64 = 8 << 20;
/// The pause between two steps. The syncs of other files come first.
const PAUSE: Duration = Duration::from_millis(10);

/// A file of the system's disk.
#[derive(Debug)]
pub(crate) struct SystemFile(fs::File);

impl SystemFile {
    pub(super) fn new(file: fs::File) -> Self {
        Self(file)
    }

    pub(super) fn file(&self) -> &fs::File {
        &self.0
    }

    /// The file, opened once more, if it is large and has no name: nobody can open it again.
    fn to_free(&self) -> Option<fs::File> {
        let metadata = self.0.metadata().ok()?;
        let is_large = metadata.is_file() && metadata.nlink() == 0 && metadata.len() > FREED_AT_ONCE;
        if is_large { self.0.try_clone().ok() } else { None }
    }
}

impl Drop for SystemFile {
    fn drop(&mut self) {
        static FREEING: LazyLock<Option<mpsc::Sender<fs::File>>> = LazyLock::new(|| {
            let (sender, receiver) = mpsc::channel();
            let thread = thread::Builder::new().name("free-space".to_owned());
            thread.spawn(move || receiver.iter().for_each(|file| drop(free(&file)))).ok().map(|_| sender)
        });
        // The thread is begun by the first such file. Without it, all of the space is given back at once.
        if let Some(file) = self.to_free()
            && let Some(freeing) = &*FREEING
        {
            let _ = freeing.send(file);
        }
    }
}

/// Gives the space of a file back, from its end. What is left after an error goes when the file is closed.
fn free(file: &fs::File) -> io::Result<()> {
    let mut length = file.metadata()?.len();
    while length > FREED_AT_ONCE {
        length -= FREED_AT_ONCE;
        file.set_len(length)?;
        // Otherwise, the next sync of another file waits for all steps since the last one.
        file.sync_data()?;
        thread::sleep(PAUSE);
    }
    Ok(())
}

impl DiskFile for SystemFile {
    fn len(&self) -> io::Result<u64> {
        self.0.metadata().map(|metadata| metadata.len())
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        FileExt::read_at(&self.0, into, offset)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        FileExt::write_all_at(&self.0, bytes, offset)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.0.set_len(length)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn forget(&self) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        rustix::fs::fadvise(&self.0, 0, None, rustix::fs::Advice::DontNeed)?;
        Ok(())
    }

    fn try_lock(&self) -> io::Result<bool> {
        match self.0.try_lock() {
            Ok(()) => Ok(true),
            Err(fs::TryLockError::WouldBlock) => Ok(false),
            Err(fs::TryLockError::Error(error)) => Err(error),
        }
    }

    fn unlock(&self) -> io::Result<()> {
        self.0.unlock()
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write as _, path::Path, time::Instant};

    use super::*;

    /// A file of so many bytes, and a second view of it.
    fn file(path: &Path, bytes: u64) -> (SystemFile, fs::File) {
        let mut file = fs::File::create_new(path).expect("a new file");
        for _ in 0..bytes >> 20 {
            file.write_all(&[0xa5; 1 << 20]).expect("room");
        }
        let view = fs::File::open(path).expect("it is there");
        (SystemFile::new(file), view)
    }

    fn length(file: &fs::File) -> u64 {
        file.metadata().expect("an open file").len()
    }

    #[test]
    fn the_space_of_a_large_file_without_a_name_is_given_back_in_steps() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("large");
        let (large, view) = file(&path, 5 * FREED_AT_ONCE);
        fs::remove_file(&path).expect("it is there");
        drop(large);
        let begun = Instant::now();
        // Closing it would give back the last step, and this view keeps it open.
        while length(&view) != FREED_AT_ONCE {
            assert!(begun.elapsed() < Duration::from_secs(30), "{} bytes are left", length(&view));
            thread::sleep(PAUSE);
        }
    }

    #[test]
    fn a_file_with_a_name_and_a_small_one_stay_as_they_are() {
        let directory = tempfile::tempdir().expect("a directory");
        let (named, with_name) = file(&directory.path().join("named"), 2 * FREED_AT_ONCE);
        let (small, without_name) = file(&directory.path().join("small"), FREED_AT_ONCE);
        fs::remove_file(directory.path().join("small")).expect("it is there");
        drop((named, small));
        // This one comes after the two, if they are to be shortened at all.
        let (last, view) = file(&directory.path().join("last"), 2 * FREED_AT_ONCE);
        fs::remove_file(directory.path().join("last")).expect("it is there");
        drop(last);
        let begun = Instant::now();
        while length(&view) > FREED_AT_ONCE {
            assert!(begun.elapsed() < Duration::from_secs(30), "it is not shortened");
            thread::sleep(PAUSE);
        }
        assert_eq!((length(&with_name), length(&without_name)), (2 * FREED_AT_ONCE, FREED_AT_ONCE));
    }
}
