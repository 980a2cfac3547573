//! Where received snapshots are stored.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use futures_util::Stream;
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;
use xxhash_rust::xxh3::Xxh3;

use super::{
    keeping::Keeping,
    part::{Claim, Handing, remove},
    parts::PartialSnapshots,
    place::{BATCHES_AHEAD, LOOK_EACH, Placed, Room, batch},
    receiver::ReceiveError,
};
use crate::world::{Files, UNSYNCED_BYTES, World};

/// A directory of received snapshots, as etcd's `Snapshotter` keeps them: `{index:016x}.snap.db`.
///
/// The transport saves the body that came with a `MsgSnap`, synced, and only then gives the message to
/// [`Raft::process`](crate::Raft::process). The application restores itself from the file, and removes it.
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// # let directory = std::env::temp_dir().join(format!("rafthttp-doc-{}", std::process::id()));
/// use rafthttp::SnapshotStore;
///
/// let store = SnapshotStore::open(&directory)?;
/// // Given to `Builder::snapshots`. Within `process`, for a `MsgSnap` whose snapshot is at index 42:
/// let path = store.path(42);
/// assert!(path.ends_with("000000000000002a.snap.db"));
/// # std::fs::remove_dir_all(&directory)
/// # }
/// ```
///
/// The other side sends with [`Transport::send_snapshot`](crate::Transport::send_snapshot).
#[derive(Clone, Debug)]
pub struct SnapshotStore {
    directory: PathBuf,
    unfinished: Arc<AtomicU64>,
    world: World,
    /// Held while a snapshot is in its final place and nobody has taken it yet.
    turn: Arc<tokio::sync::Mutex<()>>,
    /// The parts of snapshots that may be resumed.
    parts: Arc<PartialSnapshots>,
}

const UNFINISHED: &str = "tmp";

impl SnapshotStore {
    /// A store in `directory`, which is created if it does not exist. Incomplete files of a crash are removed, except
    /// for parts that a sender may continue.
    ///
    /// # Errors
    /// The directory cannot be created or read.
    pub fn open(directory: impl Into<PathBuf>) -> io::Result<Self> {
        Self::open_in(World::default(), directory)
    }

    /// As [`Self::open`], on a world's disk. The world's threads write what is saved.
    ///
    /// # Errors
    /// As [`Self::open`].
    #[doc(hidden)]
    pub fn open_in(world: World, directory: impl Into<PathBuf>) -> io::Result<Self> {
        let (directory, files) = (directory.into(), world.files());
        files.create_directory(&directory)?;
        for name in files.names(&directory)? {
            if name.to_string_lossy().starts_with(UNFINISHED) {
                files.remove(&directory.join(name))?;
            }
        }
        let parts = Arc::new(PartialSnapshots::open(&world, &directory, |index| place(&directory, index))?);
        Ok(Self { directory, unfinished: Arc::default(), world, turn: Arc::default(), parts })
    }

    /// The path of the snapshot at `index`. The file exists from before [`Raft::process`](crate::Raft::process) is
    /// given its message until the application removes it.
    pub fn path(&self, index: u64) -> PathBuf {
        place(&self.directory, index)
    }

    /// The parts of snapshots that may be resumed.
    pub(crate) fn parts(&self) -> &Arc<PartialSnapshots> {
        &self.parts
    }

    /// Saves a body, synced, under its index, or nothing at all (etcd's `SaveDBFrom`). The file stays for the receiver
    /// of its message until the returned value is dropped.
    pub(crate) async fn save<S>(
        &self,
        index: u64,
        body: S,
        room: Room,
        tasks: &TaskTracker,
        progress: impl FnMut(u64),
    ) -> io::Result<Placed>
    where
        S: Stream<Item = io::Result<Bytes>> + Unpin,
    {
        let number = self.unfinished.fetch_add(1, Ordering::Relaxed);
        let save = Arc::new(Save {
            files: self.world.files().clone(),
            directory: self.directory.clone(),
            unfinished: self.directory.join(format!("{UNFINISHED}-{index:016x}-{number}")),
            path: self.path(index),
            room,
            stage: Mutex::default(),
            turn: self.turn.clone(),
        });
        let placing = Placing(save.clone());
        let (sender, receiver) = mpsc::channel(BATCHES_AHEAD);
        let writing = self.world.spawn_blocking(tasks.track_future(async move { save.write(receiver).await }));
        let read = batch(body, room.most, sender, progress).await;
        let written = writing.await.map_err(io::Error::other)?;
        let placed = read.and(written)?;
        placing.done();
        Ok(placed)
    }

    /// Writes the rest of a snapshot that arrives in parts. Once the snapshot is complete and verified, it is moved to
    /// its place, synced. If it is incomplete, its bytes are kept.
    pub(crate) async fn keep<S>(
        &self,
        claim: Claim,
        term: u64,
        body: S,
        headroom: u64,
        tasks: &TaskTracker,
        progress: impl FnMut(u64),
    ) -> Result<(Placed, Handing), ReceiveError>
    where
        S: Stream<Item = io::Result<Bytes>> + Unpin,
    {
        let keeping = Keeping {
            world: self.world.clone(),
            directory: self.directory.clone(),
            place: self.path(claim.part.head.index),
            headroom,
            turn: self.turn.clone(),
            claim,
            term,
            data: None,
        };
        let (sender, receiver) = mpsc::channel(BATCHES_AHEAD);
        let writing = self.world.spawn_blocking(tasks.track_future(keeping.write(receiver)));
        // The writer knows the limit of the length, and this side knows why the body broke off.
        let read = batch(body, u64::MAX, sender, progress).await;
        let written = writing.await.map_err(|error| ReceiveError::Save(error.to_string()))?;
        written.map_err(|error| match (error, read) {
            (ReceiveError::BrokeOff { kept, .. }, Err(error)) => {
                ReceiveError::BrokeOff { kept, why: error.to_string() }
            }
            (error, _) => error,
        })
    }

    /// Raft has answered for a snapshot that was handed over. Every connection that waits for the answer gets it. A
    /// success is remembered for those that bring the snapshot again. After a failure they start anew, because their
    /// next try may succeed.
    pub(crate) async fn handed_over(&self, handing: Handing, outcome: &Result<(), ReceiveError>) {
        // Before the answer is known: then another part may have this file.
        let (files, record) = (self.world.files().clone(), handing.part.record(&self.directory));
        let removed = self.world.blocking(move || remove(&files, &record)).await;
        if let Err(error) = removed.and_then(|removed| removed) {
            // It is removed at the first start that finds no snapshot in the place.
            tracing::warn!(%error, "the record of a snapshot cannot be removed");
        }
        handing.done(outcome);
        if outcome.is_err() {
            self.parts.forget_failed(&handing.part);
        }
    }
}

/// The path of the snapshot at an index.
fn place(directory: &Path, index: u64) -> PathBuf {
    directory.join(format!("{index:016x}.snap.db"))
}

/// How far a file is on its way to its place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Writing,
    Placed,
    Abandoned,
    Done,
}

/// A save under way, from the side of the thread that waits for the disk.
struct Save {
    files: Files,
    directory: PathBuf,
    unfinished: PathBuf,
    path: PathBuf,
    room: Room,
    stage: Mutex<Stage>,
    turn: Arc<tokio::sync::Mutex<()>>,
}

/// A save under way, from the side of the task that asked for it. If this is dropped before its end, nobody will ask
/// for the file: it does not come to its place, or is removed from there.
struct Placing(Arc<Save>);

impl Placing {
    fn done(self) {
        *self.0.stage() = Stage::Done;
    }
}

impl Drop for Placing {
    fn drop(&mut self) {
        let mut stage = self.0.stage();
        match *stage {
            Stage::Done => {}
            Stage::Placed => drop(self.0.files.remove(&self.0.path)),
            Stage::Writing | Stage::Abandoned => *stage = Stage::Abandoned,
        }
    }
}

impl Save {
    fn stage(&self) -> MutexGuard<'_, Stage> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a body to its place: all of it, or nothing.
    async fn write(&self, batches: mpsc::Receiver<Option<Vec<Bytes>>>) -> io::Result<Placed> {
        let placed = match self.gather(batches).await {
            Ok(length) => {
                let turn = self.turn.clone().lock_owned().await;
                self.place().map(|()| Placed { length, _turn: turn })
            }
            Err(error) => Err(error),
        };
        if placed.is_err() {
            // The file may not exist. If it remains, it is removed when the store is opened again.
            let _ = self.files.remove(&self.unfinished);
        }
        placed
    }

    /// Writes a body's batches to a file beside its place, synced.
    async fn gather(&self, mut batches: mpsc::Receiver<Option<Vec<Bytes>>>) -> io::Result<u64> {
        self.files.leave_free(&self.directory, self.room.headroom, self.room.told.unwrap_or(0))?;
        let mut file = self.files.create_new(&self.unfinished)?;
        let (mut length, mut looked, mut synced) = (0, 0, 0);
        let mut hash = self.room.of.map(|_| Xxh3::new());
        loop {
            match batches.recv().await {
                Some(Some(batch)) => {
                    for piece in batch {
                        file.write_all(&piece)?;
                        length += piece.len() as u64;
                        hash.iter_mut().for_each(|hash| hash.update(&piece));
                    }
                    if length - synced >= UNSYNCED_BYTES {
                        file.sync()?;
                        synced = length;
                    }
                    if length - looked >= LOOK_EACH {
                        self.files.leave_free(&self.directory, self.room.headroom, 0)?;
                        looked = length;
                    }
                }
                Some(None) => break,
                None => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the body ended before it was whole")),
            }
        }
        let sum = hash.map(|hash| (length, hash.digest128()));
        if let Some(told) = self.room.of.filter(|told| sum != Some((told.length, told.checksum))) {
            let why = format!(
                "it is not what its sender has, {} bytes with the checksum {:032x}",
                told.length, told.checksum
            );
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        file.sync()?;
        Ok(length)
    }

    /// Moves the written file to its place.
    fn place(&self) -> io::Result<()> {
        {
            let mut stage = self.stage();
            if *stage == Stage::Abandoned {
                return Err(io::Error::new(io::ErrorKind::Interrupted, "nobody waits for it any more"));
            }
            self.files.rename(&self.unfinished, &self.path)?;
            *stage = Stage::Placed;
        }
        self.files.sync_directory(&self.directory)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use futures_util::{StreamExt as _, stream};
    use xxhash_rust::xxh3::xxh3_128;

    use super::{
        super::{
            parts::Begun,
            place::{BATCH_BYTES, BATCH_PIECES},
        },
        *,
    };
    use crate::{
        id::MemberId,
        wire::resumption::{Named, Rest},
    };

    fn body(pieces: &[&'static str]) -> impl Stream<Item = io::Result<Bytes>> + Unpin + use<> {
        stream::iter(pieces.iter().map(|piece| Ok(Bytes::from_static(piece.as_bytes()))).collect::<Vec<_>>())
    }

    fn files(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).expect("a directory");
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect()
    }

    const ANY: Room = Room { most: u64::MAX, headroom: 0, told: None, of: None };

    /// Saves under index 1.
    async fn save(
        store: &SnapshotStore,
        body: impl Stream<Item = io::Result<Bytes>> + Unpin,
        most: u64,
    ) -> io::Result<u64> {
        let placed = store.save(1, body, Room { most, ..ANY }, &TaskTracker::new(), |_| ()).await;
        placed.map(|placed| placed.length)
    }

    #[tokio::test]
    async fn a_whole_body_is_saved_under_its_index() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = SnapshotStore::open(directory.path()).expect("a store");
        let (mut seen, tasks) = (0, TaskTracker::new());
        let saved = store.save(0x1f, body(&["ab", "", "cde"]), ANY, &tasks, |bytes| seen += bytes).await;
        assert_eq!((saved.map(|placed| placed.length).ok(), seen), (Some(5), 5));
        assert_eq!(fs::read(store.path(0x1f)).ok(), Some(b"abcde".to_vec()));
        assert_eq!(files(directory.path()), ["000000000000001f.snap.db"]);
    }

    #[tokio::test]
    async fn a_body_of_many_batches_is_saved_in_its_order() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = SnapshotStore::open(directory.path()).expect("a store");
        // Tiny pieces, of which a batch holds few, then pieces of which one is larger than a batch.
        let sizes = (0..3 * BATCH_PIECES + 1).map(|_| 1).chain([BATCH_BYTES - 1, 1, BATCH_BYTES + 1, 0, 7]);
        let pieces: Vec<Bytes> = (0..=u8::MAX).cycle().zip(sizes).map(|(n, size)| vec![n; size].into()).collect();
        let whole = pieces.concat();
        let saved = save(&store, stream::iter(pieces.into_iter().map(Ok)), u64::MAX).await.expect("it is saved");
        assert_eq!(saved, whole.len() as u64);
        assert!(fs::read(store.path(1)).is_ok_and(|read| read == whole));
    }

    #[tokio::test]
    async fn a_body_that_breaks_leaves_nothing_behind() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = SnapshotStore::open(directory.path()).expect("a store");
        let cut = body(&["ab"]).chain(stream::iter([Err(io::Error::other("cut"))]));
        let error = save(&store, cut, u64::MAX).await.map_err(|error| error.to_string());
        assert_eq!(error, Err("cut".to_owned()));
        assert_eq!(files(directory.path()), Vec::<String>::new());
    }

    #[tokio::test]
    async fn a_save_that_is_given_up_leaves_nothing_behind() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = SnapshotStore::open(directory.path()).expect("a store");
        let endless = body(&["ab"]).chain(stream::pending());
        let given_up =
            tokio::time::timeout(std::time::Duration::from_millis(50), save(&store, endless, u64::MAX)).await;
        assert!(given_up.is_err());
        for _ in 0..100 {
            if files(directory.path()).is_empty() {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        panic!("left behind: {:?}", files(directory.path()));
    }

    #[test]
    fn a_file_that_nobody_waits_for_leaves_its_place() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("0000000000000001.snap.db");
        fs::write(&path, "whole").expect("a file");
        drop(Placing(Arc::new(Save {
            files: Files::default(),
            directory: directory.path().to_owned(),
            unfinished: directory.path().join("tmp"),
            path: path.clone(),
            room: ANY,
            stage: Mutex::new(Stage::Placed),
            turn: Arc::default(),
        })));
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_body_over_the_bound_is_refused_and_leaves_nothing_behind() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = SnapshotStore::open(directory.path()).expect("a store");
        let error = save(&store, body(&["abc", "def"]), 5).await;
        assert_eq!(error.map_err(|error| error.kind()), Err(io::ErrorKind::FileTooLarge));
        assert_eq!(files(directory.path()), Vec::<String>::new());
    }

    #[tokio::test]
    async fn a_body_for_which_the_file_system_has_no_room_leaves_nothing_behind() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = SnapshotStore::open(directory.path()).expect("a store");
        let free = Files::default().free(directory.path()).expect("it says so");
        let saved = async |room| store.save(1, body(&["ab"]), room, &TaskTracker::new(), |_| ()).await;
        for room in [Room { headroom: free + (1 << 40), ..ANY }, Room { told: Some(free + (1 << 40)), ..ANY }] {
            let error = saved(room).await.expect_err("there is no room");
            assert_eq!(error.kind(), io::ErrorKind::StorageFull, "{error}");
            assert_eq!(files(directory.path()), Vec::<String>::new());
        }
        assert_eq!(saved(Room { told: Some(2), ..ANY }).await.map(|placed| placed.length).ok(), Some(2));
    }

    #[tokio::test]
    async fn a_snapshot_does_not_take_the_place_of_one_of_its_index_that_nobody_has_taken_yet() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = SnapshotStore::open(directory.path()).expect("a store");
        let save = |text| {
            let store = store.clone();
            async move { store.save(1, body(&[text]), ANY, &TaskTracker::new(), |_| ()).await }
        };
        let first = save("first").await.expect("it is saved");
        let second = tokio::spawn(save("second"));
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        assert_eq!(fs::read(store.path(1)).ok(), Some(b"first".to_vec()));
        drop(first);
        let _second = second.await.expect("it ends well").expect("it is saved");
        assert_eq!(fs::read(store.path(1)).ok(), Some(b"second".to_vec()));
        assert_eq!(files(directory.path()), ["0000000000000001.snap.db"]);
    }

    #[tokio::test]
    async fn a_snapshot_in_its_place_is_read_before_it_is_handed_over_again() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = SnapshotStore::open(directory.path()).expect("a store");
        let of = Named { name: 1, length: 5, checksum: xxh3_128(b"abcde") };
        let keep = async |offset, pieces: &[&'static str]| {
            let begun = store.parts().go_on(MemberId(2), Rest { of, offset }, 1, 1).await.expect("nobody writes it");
            let claim = match begun {
                Some(Begun::Writing(claim)) => claim,
                Some(Begun::Whole(_)) => panic!("nobody has handed it over"),
                None => store.parts().add(MemberId(2), of, 1, 2).await.expect("room").0,
            };
            store.keep(claim, 1, body(pieces), 0, &TaskTracker::new(), |_| ()).await.map(drop)
        };
        assert_eq!(keep(0, &["ab", "cde"]).await, Ok(()));
        assert_eq!(keep(5, &[]).await, Ok(()));
        fs::write(store.path(1), "abcdx").expect("it is there");
        let changed = keep(5, &[]).await;
        assert!(matches!(changed, Err(ReceiveError::Checksum(_))), "{changed:?}");
    }

    #[test]
    fn what_a_crash_left_half_written_is_removed() {
        let directory = tempfile::tempdir().expect("a directory");
        fs::write(directory.path().join("tmp-1-0"), "half").expect("a file");
        fs::write(directory.path().join("0000000000000001.snap.db"), "whole").expect("a file");
        let store = SnapshotStore::open(directory.path()).expect("a store");
        assert_eq!(files(directory.path()), ["0000000000000001.snap.db"]);
        assert!(store.path(1).exists());
    }
}
