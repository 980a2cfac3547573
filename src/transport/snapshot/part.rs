//! A snapshot that comes in parts: what is there of it outlasts the connection that brought it, and this process.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use tokio::{
    sync::{OwnedMutexGuard, watch},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use xxhash_rust::xxh3::Xxh3;

use super::{receiver::SnapshotError, record::Head};
use crate::world::Files;

/// What the names of both its files begin with.
pub(super) const PREFIX: &str = "part-";
/// What that of its bytes ends with.
pub(super) const DATA: &str = ".data";
/// What that of its record ends with.
pub(super) const RECORD: &str = ".record";
/// How long who comes on a newer connection waits until what the older one brought is written and synced.
const TAKEOVER: Duration = Duration::from_secs(5);

/// One snapshot of one sender.
pub(crate) struct Part {
    pub(super) head: Head,
    /// Held by who writes it.
    kept: Arc<tokio::sync::Mutex<Kept>>,
    state: watch::Sender<State>,
    /// Ends the writing that is under way.
    writing: Mutex<CancellationToken>,
}

/// How far it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// It is not whole, or nobody has handed it over.
    Arriving,
    /// It is whole and in its place, and raft is asked.
    Handing,
    /// Raft has answered.
    Done(Result<(), SnapshotError>),
    /// Nothing of it is kept any more.
    Gone,
}

/// What is there of it.
pub(super) struct Kept {
    /// So many bytes.
    pub(super) offset: u64,
    /// So many of them are synced, and noted in so many marks of its record.
    pub(super) synced: u64,
    pub(super) marks: u64,
    /// The sum of all that is there; none: it was read by an earlier process, and is to be read again in the end.
    pub(super) hash: Option<Box<Xxh3>>,
    /// When something of it came last, by the clock on the wall.
    pub(super) touched: SystemTime,
    /// It is whole, and in its place already.
    pub(super) is_placed: bool,
}

impl Kept {
    /// Nothing yet.
    pub(super) fn nothing(now: SystemTime) -> Self {
        let hash = Some(Box::new(Xxh3::new()));
        Self { offset: 0, synced: 0, marks: 0, hash, touched: now, is_placed: false }
    }
}

/// The right to write it.
pub(crate) struct Claim {
    pub(super) part: Arc<Part>,
    pub(super) kept: OwnedMutexGuard<Kept>,
    /// Somebody comes on a newer connection.
    pub(super) stop: CancellationToken,
}

/// What becomes of who wants to write it.
pub(super) enum Claimed {
    /// He may.
    Claim(Claim),
    /// It is whole: how it ends is told here.
    Whole(watch::Receiver<State>),
    /// It is gone.
    Gone,
}

impl Part {
    pub(super) fn new(head: Head, kept: Kept) -> Arc<Self> {
        Arc::new(Self {
            head,
            kept: Arc::new(tokio::sync::Mutex::new(kept)),
            state: watch::Sender::new(State::Arriving),
            writing: Mutex::default(),
        })
    }

    fn writing(&self) -> MutexGuard<'_, CancellationToken> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn state(&self) -> State {
        self.state.borrow().clone()
    }

    pub(super) fn set_state(&self, state: State) {
        self.state.send_replace(state);
    }

    /// Waits for the right to write it. Whoever has it is told to end: the connection that he writes for is older.
    pub(super) async fn claim(self: &Arc<Self>) -> Result<Claimed, SnapshotError> {
        let stop = CancellationToken::new();
        std::mem::replace(&mut *self.writing(), stop.clone()).cancel();
        let kept = match self.state() {
            State::Arriving => timeout(TAKEOVER, self.kept.clone().lock_owned()).await,
            State::Handing | State::Done(_) => return Ok(Claimed::Whole(self.state.subscribe())),
            State::Gone => return Ok(Claimed::Gone),
        };
        let kept = kept.map_err(|_| SnapshotError::Busy)?;
        Ok(match self.state() {
            State::Arriving => Claimed::Claim(Claim { part: self.clone(), kept, stop }),
            State::Handing | State::Done(_) => Claimed::Whole(self.state.subscribe()),
            State::Gone => Claimed::Gone,
        })
    }

    /// The same right, where nobody has it.
    pub(super) fn claim_idle(self: &Arc<Self>) -> Option<Claim> {
        let kept = self.kept.clone().try_lock_owned().ok()?;
        let is_idle = matches!(self.state(), State::Arriving | State::Done(_));
        is_idle.then(|| Claim { part: self.clone(), kept, stop: self.writing().clone() })
    }

    /// Where its bytes are until it is whole.
    pub(super) fn data(&self, directory: &Path) -> PathBuf {
        directory.join(format!("{}{DATA}", self.stem()))
    }

    /// Where it is said what they are.
    pub(super) fn record(&self, directory: &Path) -> PathBuf {
        directory.join(format!("{}{RECORD}", self.stem()))
    }

    fn stem(&self) -> String {
        let Head { sender, of, .. } = self.head;
        format!("{PREFIX}{:016x}-{:032x}", sender.0, of.name)
    }
}

impl Claim {
    /// How many of its bytes are there.
    pub(crate) fn offset(&self) -> u64 {
        self.kept.offset
    }

    /// Forgets it and takes its files away; not what is in its place.
    pub(super) fn drop_files(self, files: &Files, directory: &Path) {
        self.part.set_state(State::Gone);
        for path in [self.part.record(directory), self.part.data(directory)] {
            if let Err(error) = remove(files, &path) {
                // It is removed when the store is opened again.
                tracing::warn!(path = %path.display(), %error, "a part of a snapshot cannot be removed");
            }
        }
    }
}

/// Takes a file away that may not be there.
pub(super) fn remove(files: &Files, path: &Path) -> io::Result<()> {
    match files.remove(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}

/// A snapshot that raft is asked about. When this is dropped without an answer, it can be handed over once more.
pub(crate) struct Handing {
    pub(super) part: Arc<Part>,
}

impl Handing {
    /// Raft has answered: whoever comes for it is told the same.
    pub(super) fn done(&self, outcome: &Result<(), SnapshotError>) {
        self.part.set_state(State::Done(outcome.clone()));
    }
}

impl Drop for Handing {
    fn drop(&mut self) {
        self.part.state.send_if_modified(|state| {
            let is_open = *state == State::Handing;
            if is_open {
                *state = State::Arriving;
            }
            is_open
        });
    }
}
