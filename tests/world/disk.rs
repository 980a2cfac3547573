//! A disk in memory. When the power fails, it loses what was not synced.

use std::{
    collections::{BTreeMap, HashMap},
    ffi::OsString,
    fmt, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
};

use rafthttp::internals::world::{Disk, DiskFile, Opening};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

/// The disk of one member. All clones are one disk.
#[derive(Clone, Debug, Default)]
pub struct MemoryDisk(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    now: Names,
    lasting: Names,
    files: BTreeMap<usize, Content>,
    locks: HashMap<usize, usize>,
    opened: usize,
    is_full: bool,
    /// How many bytes there is room for. `None`: any number.
    capacity: Option<u64>,
    fails_reads: bool,
    fails_a_sync: bool,
    before_a_sync: Hook,
    most_unsynced: u64,
}

/// A function that is called once.
#[derive(Default)]
struct Hook(Option<Box<dyn FnOnce() + Send>>);

impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.is_some().fmt(f)
    }
}

type Names = BTreeMap<PathBuf, Entry>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entry {
    Directory,
    /// A file, by its number.
    File(usize),
}

#[derive(Clone, Debug, Default)]
struct Content {
    now: Vec<u8>,
    lasting: Vec<u8>,
    /// The changes since the last sync, and the bytes that they wrote.
    unsynced: Vec<Change>,
    unsynced_bytes: u64,
}

#[derive(Clone, Debug)]
enum Change {
    Put(usize, Vec<u8>),
    Length(usize),
}

impl Change {
    fn make(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Put(from, written) => put(bytes, *from, written),
            Self::Length(length) => bytes.resize(*length, 0),
        }
    }
}

/// One opening of a file.
#[derive(Debug)]
struct File {
    disk: MemoryDisk,
    file: usize,
    opening: usize,
}

impl MemoryDisk {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("nobody panics while it holds this")
    }

    /// The disk that is left if the power fails now: the names and the bytes that were synced.
    pub fn after_a_loss_of_power(&self) -> Self {
        self.left(|content| content.lasting.clone())
    }

    /// Calls this at the next sync of a file, before the sync takes effect.
    pub fn before_a_sync(&self, call: impl FnOnce() + Send + 'static) {
        self.state().before_a_sync = Hook(Some(Box::new(call)));
    }

    /// The disk that is left if the process is killed now: everything that it has written and named.
    pub fn after_a_kill(&self) -> Self {
        let state = self.state();
        let content = |now: &Vec<u8>| Content { now: now.clone(), lasting: now.clone(), ..Content::default() };
        let files = state.files.iter().map(|(number, found)| (*number, content(&found.now))).collect();
        let (now, lasting) = (state.now.clone(), state.now.clone());
        Self(Arc::new(Mutex::new(State { now, lasting, files, ..State::default() })))
    }

    /// Calls this at a later sync, before it takes effect. `later` is how many syncs come before it.
    pub fn at_sync(&self, later: usize, call: impl FnOnce() + Send + 'static) {
        let disk = self.clone();
        self.before_a_sync(move || match later {
            0 => call(),
            _ => disk.at_sync(later - 1, call),
        });
    }

    /// The disk that is left if the power fails while it writes. `seed` decides for each unsynced write whether all of
    /// it is there, nothing, or a part.
    pub fn torn(&self, seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        self.left(|content| {
            let mut left = content.lasting.clone();
            for change in &content.unsynced {
                let Change::Put(from, bytes) = change else { continue };
                let until = [0, random.random_range(0..=bytes.len()), bytes.len()][random.random_range(0..3)];
                put(&mut left, *from, &bytes[..until]);
            }
            left
        })
    }

    /// How many writes are not synced yet.
    pub fn unsynced(&self) -> usize {
        let is_put = |change: &&Change| matches!(change, Change::Put(..));
        self.state().files.values().map(|content| content.unsynced.iter().filter(is_put).count()).sum()
    }

    /// The most bytes that any file had unsynced until now.
    pub fn most_unsynced(&self) -> u64 {
        self.state().most_unsynced
    }

    fn left(&self, mut of: impl FnMut(&Content) -> Vec<u8>) -> Self {
        let state = self.state();
        let is_reached =
            |path: &&Path| path.parent().is_none() || matches!(state.lasting.get(*path), Some(Entry::Directory));
        let is_left = |path: &Path| path.ancestors().skip(1).all(|path| is_reached(&path));
        let names: Names = state.lasting.clone().into_iter().filter(|(path, _)| is_left(path)).collect();
        let content = |left: Vec<u8>| Content { now: left.clone(), lasting: left, ..Content::default() };
        let files = state.files.iter().map(|(number, found)| (*number, content(of(found)))).collect();
        Self(Arc::new(Mutex::new(State { now: names.clone(), lasting: names, files, ..State::default() })))
    }

    /// Makes the disk full: from now on no byte can be added or changed.
    pub fn fill(&self) {
        self.state().is_full = true;
    }

    /// Sets how many bytes it reports to have room for in total.
    pub fn set_capacity(&self, bytes: u64) {
        self.state().capacity = Some(bytes);
    }

    /// The total size of its files, in bytes.
    pub fn used(&self) -> u64 {
        self.state().used()
    }

    /// Ends [`Self::fill`].
    pub fn make_room(&self) {
        self.state().is_full = false;
    }

    /// Ends all faults.
    #[allow(dead_code, reason = "only the simulation ends all faults at once")]
    pub fn mend(&self) {
        let mut state = self.state();
        (state.is_full, state.fails_a_sync) = (false, false);
    }

    /// Makes the next sync of a written file fail, once. As on Linux, the bytes of that sync never become durable, but
    /// reads return them until the system's cache of the file is discarded.
    pub fn fail_a_sync(&self) {
        self.state().fails_a_sync = true;
    }

    /// Makes all reads fail from now on.
    pub fn fail_reads(&self) {
        self.state().fails_reads = true;
    }

    /// The paths of all files.
    pub fn files(&self) -> Vec<PathBuf> {
        let state = self.state();
        let files = state.now.iter().filter(|(_, entry)| matches!(entry, Entry::File(_)));
        files.map(|(path, _)| path.clone()).collect()
    }
}

impl State {
    fn holds(&self, directory: &Path) -> io::Result<()> {
        let is_there = directory.parent().is_none() || self.now.get(directory) == Some(&Entry::Directory);
        if is_there { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
    }

    fn has_room(&self) -> io::Result<()> {
        if self.is_full { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn used(&self) -> u64 {
        let named = self.now.values().filter_map(|entry| match entry {
            Entry::File(file) => self.files.get(file),
            Entry::Directory => None,
        });
        named.map(|content| content.now.len() as u64).sum()
    }

    fn content(&mut self, file: usize) -> &mut Content {
        self.files.entry(file).or_default()
    }
}

fn put(into: &mut Vec<u8>, from: usize, bytes: &[u8]) {
    into.resize(into.len().max(from + bytes.len()), 0);
    into[from..from + bytes.len()].copy_from_slice(bytes);
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}

impl Disk for MemoryDisk {
    fn create_directory(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        for path in path.ancestors().filter(|path| path.parent().is_some()) {
            if matches!(state.now.entry(path.to_owned()).or_insert(Entry::Directory), Entry::File(_)) {
                return Err(io::ErrorKind::NotADirectory.into());
            }
        }
        Ok(())
    }

    fn names(&self, directory: &Path) -> io::Result<Vec<OsString>> {
        let state = self.state();
        state.holds(directory)?;
        let within = state.now.keys().filter(|path| parent(path) == directory);
        Ok(within.filter_map(|path| path.file_name().map(OsString::from)).collect())
    }

    fn exists(&self, path: &Path) -> bool {
        path.parent().is_none() || self.state().now.contains_key(path)
    }

    fn open(&self, path: &Path, opening: Opening) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state();
        state.holds(parent(path))?;
        let file = match (state.now.get(path), opening) {
            (Some(Entry::Directory), _) => return Err(io::ErrorKind::IsADirectory.into()),
            (Some(Entry::File(_)), Opening::New) => return Err(io::ErrorKind::AlreadyExists.into()),
            (Some(Entry::File(file)), _) => *file,
            (None, Opening::Read) => return Err(io::ErrorKind::NotFound.into()),
            (None, _) => {
                state.has_room()?;
                let file = state.files.len();
                state.content(file);
                state.now.insert(path.to_owned(), Entry::File(file));
                file
            }
        };
        state.opened += 1;
        Ok(Arc::new(File { disk: self.clone(), file, opening: state.opened }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.holds(parent(to))?;
        let entry = state.now.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.now.insert(to.to_owned(), entry);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.state().now.remove(path).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn free(&self, directory: &Path) -> io::Result<u64> {
        let state = self.state();
        state.holds(directory)?;
        let has_room = state.capacity.map_or(u64::MAX, |capacity| capacity.saturating_sub(state.used()));
        Ok(if state.is_full { 0 } else { has_room })
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.holds(directory)?;
        let is_within = |path: &Path| parent(path) == directory;
        let synced: Vec<_> = state.now.clone().into_iter().filter(|(path, _)| is_within(path)).collect();
        state.lasting.retain(|path, _| !is_within(path));
        state.lasting.extend(synced);
        Ok(())
    }
}

impl DiskFile for File {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.state().content(self.file).now.len() as u64)
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let mut state = self.disk.state();
        if state.fails_reads {
            return Err(io::Error::other("the sector cannot be read"));
        }
        let bytes = &state.content(self.file).now;
        let from = bytes.len().min(usize::try_from(offset).expect("it is in memory"));
        let length = into.len().min(bytes.len() - from);
        into[..length].copy_from_slice(&bytes[from..from + length]);
        Ok(length)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.disk.state();
        state.has_room()?;
        let content = state.content(self.file);
        let from = usize::try_from(offset).expect("it is in memory");
        put(&mut content.now, from, bytes);
        content.unsynced.push(Change::Put(from, bytes.to_vec()));
        content.unsynced_bytes += bytes.len() as u64;
        let unsynced = content.unsynced_bytes;
        state.most_unsynced = state.most_unsynced.max(unsynced);
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        state.has_room()?;
        let (content, length) = (state.content(self.file), usize::try_from(length).expect("it is in memory"));
        content.now.resize(length, 0);
        content.unsynced.push(Change::Length(length));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let hook = self.disk.state().before_a_sync.0.take();
        if let Some(call) = hook {
            call();
        }
        let mut state = self.disk.state();
        let content = state.content(self.file);
        content.unsynced_bytes = 0;
        let changes = std::mem::take(&mut content.unsynced);
        if state.fails_a_sync && changes.iter().any(|change| matches!(change, Change::Put(..))) {
            state.fails_a_sync = false;
            return Err(io::Error::other("the sector cannot be written"));
        }
        let content = state.content(self.file);
        changes.iter().for_each(|change| change.make(&mut content.lasting));
        Ok(())
    }

    fn forget(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        let content = state.content(self.file);
        content.now.clone_from(&content.lasting);
        content.unsynced.iter().for_each(|change| change.make(&mut content.now));
        Ok(())
    }

    fn try_lock(&self) -> io::Result<bool> {
        Ok(*self.disk.state().locks.entry(self.file).or_insert(self.opening) == self.opening)
    }

    fn unlock(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        if state.locks.get(&self.file) == Some(&self.opening) {
            state.locks.remove(&self.file);
        }
        Ok(())
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = self.unlock();
    }
}
