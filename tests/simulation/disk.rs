//! The disk of a machine as one process sees it, until the process ends. Every change of the disk is an event, and the
//! power can fail at any event.

use std::{
    ffi::OsString,
    io,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
};

use rafthttp::internals::world::{Disk, DiskFile, Opening};
use xxhash_rust::xxh3::xxh3_64;

use super::{
    events::Events,
    memory_disk::MemoryDisk,
    network::{Host, Net},
    plan::Bug,
};

/// A machine's disk, for one process.
#[derive(Clone, Debug)]
pub struct ProcessDisk(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    memory: MemoryDisk,
    host: Host,
    net: Net,
    events: Events,
    /// Whether the process has ended: it changes the disk no more.
    is_over: AtomicBool,
    bug: Option<Bug>,
    plan: Mutex<Plan>,
}

#[derive(Debug, Default)]
struct Plan {
    /// After how many more changes the power fails, and the seed that decides what is left then.
    loses_power: Option<(u64, u64)>,
    /// What was left when the power failed.
    left: Option<MemoryDisk>,
}

#[derive(Debug)]
struct ProcessFile {
    disk: ProcessDisk,
    name: u64,
    file: Arc<dyn DiskFile>,
}

fn over() -> io::Error {
    io::Error::other("the process is over")
}

impl ProcessDisk {
    pub fn new(memory: &MemoryDisk, host: Host, net: &Net, events: &Events, bug: Option<Bug>) -> Self {
        Self(Arc::new(Shared {
            memory: memory.clone(),
            host,
            net: net.clone(),
            events: events.clone(),
            is_over: AtomicBool::new(false),
            bug,
            plan: Mutex::default(),
        }))
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.0.plan.lock().expect("nobody panics while it holds this")
    }

    /// Ends it: nothing that the process does from now on reaches the disk.
    pub fn end(&self) {
        self.0.is_over.store(true, Ordering::Relaxed);
    }

    /// Lets the power fail at a change, after this many others. `seed` decides what is left of unsynced bytes.
    pub fn lose_power_after(&self, changes: u64, seed: u64) {
        self.plan().loses_power = Some((changes, seed));
    }

    /// Cancels [`Self::lose_power_after`].
    pub fn keep_power(&self) {
        self.plan().loses_power = None;
    }

    /// What is left since the power failed. `None` if it did not.
    pub fn left(&self) -> Option<MemoryDisk> {
        self.plan().left.clone()
    }

    /// Records a change that is about to be made. Fails if the power fails now, or the process has ended.
    fn changes(&self, what: u64, numbers: [u64; 3]) -> io::Result<()> {
        let shared = &self.0;
        if shared.is_over.load(Ordering::Relaxed) {
            return Err(over());
        }
        let [one, two, three] = numbers;
        shared.events.took(&[5, shared.host as u64, what, one, two, three], &[]);
        let mut plan = self.plan();
        let Some((changes, seed)) = &mut plan.loses_power else { return Ok(()) };
        if *changes > 0 {
            *changes -= 1;
            return Ok(());
        }
        let left = shared.memory.torn(*seed);
        plan.left = Some(left);
        plan.loses_power = None;
        drop(plan);
        self.end();
        shared.net.power(shared.host, false);
        Err(over())
    }
}

fn hash(path: &Path) -> u64 {
    xxh3_64(path.as_os_str().as_encoded_bytes())
}

impl Disk for ProcessDisk {
    fn create_directory(&self, path: &Path) -> io::Result<()> {
        self.changes(0, [hash(path), 0, 0])?;
        self.0.memory.create_directory(path)
    }

    fn names(&self, directory: &Path) -> io::Result<Vec<OsString>> {
        self.0.memory.names(directory)
    }

    fn exists(&self, path: &Path) -> bool {
        self.0.memory.exists(path)
    }

    fn open(&self, path: &Path, opening: Opening) -> io::Result<Arc<dyn DiskFile>> {
        if opening != Opening::Read {
            self.changes(1, [hash(path), 0, 0])?;
        }
        let file = self.0.memory.open(path, opening)?;
        Ok(Arc::new(ProcessFile { disk: self.clone(), name: hash(path), file }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.changes(2, [hash(from), hash(to), 0])?;
        self.0.memory.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.changes(3, [hash(path), 0, 0])?;
        self.0.memory.remove(path)
    }

    fn free(&self, directory: &Path) -> io::Result<u64> {
        self.0.memory.free(directory)
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        self.changes(4, [hash(directory), 0, 0])?;
        if self.0.bug == Some(Bug::UnsyncedNames) {
            return Ok(());
        }
        self.0.memory.sync_directory(directory)
    }
}

impl DiskFile for ProcessFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        self.file.read_at(offset, into)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.disk.changes(5, [self.name, offset, xxh3_64(bytes)])?;
        self.file.write_at(offset, bytes)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.disk.changes(6, [self.name, length, 0])?;
        self.file.set_len(length)
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.changes(7, [self.name, 0, 0])?;
        if self.disk.0.bug == Some(Bug::UnsyncedFiles) {
            return Ok(());
        }
        self.file.sync()
    }

    fn forget(&self) -> io::Result<()> {
        self.file.forget()
    }

    fn try_lock(&self) -> io::Result<bool> {
        self.file.try_lock()
    }

    fn unlock(&self) -> io::Result<()> {
        self.file.unlock()
    }
}
