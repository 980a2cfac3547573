//! A snapshot that arrives in parts. The received bytes outlast the connection that brought them, and the process.

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

use super::{receiver::ReceiveError, record::RecordHead};
use crate::world::Files;

/// The prefix of the names of both files.
pub(super) const PREFIX: &str = "part-";
/// The suffix of the file with the bytes.
pub(super) const DATA: &str = ".data";
/// The suffix of the file with the record.
pub(super) const RECORD: &str = ".record";
/// How long a newer connection waits until the bytes of the older one are written and synced.
const TAKEOVER: Duration = Duration::from_secs(5);

/// One snapshot of one sender.
pub(crate) struct PartialSnapshot {
    pub(super) head: RecordHead,
    /// Held by the task that writes it.
    kept: Arc<tokio::sync::Mutex<KeptBytes>>,
    state: watch::Sender<PartState>,
    /// Ends the current writing.
    writing: Mutex<CancellationToken>,
}

/// The state of a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PartState {
    /// It is incomplete, or nobody has handed it over.
    Arriving,
    /// It is complete and in its place, and raft is being asked.
    Handing {
        /// The term of its message.
        term: u64,
    },
    /// Raft has answered.
    Done {
        /// The term of the message that it has answered.
        term: u64,
        /// Its answer.
        outcome: Result<(), ReceiveError>,
    },
    /// Its files are being removed.
    Leaving,
    /// Nothing of it is kept any more. A new part of the same name may have its files.
    Gone,
}

/// What is there of a part.
pub(super) struct KeptBytes {
    /// The number of bytes.
    pub(super) offset: u64,
    /// How many of them are synced, and how many marks of the record say so.
    pub(super) synced: u64,
    pub(super) marks: u64,
    /// The checksum of all bytes so far. `None` if an earlier process wrote them, and they have to be read again at the
    /// end.
    pub(super) hash: Option<Box<Xxh3>>,
    /// When the last bytes came, by the time of day.
    pub(super) touched: SystemTime,
    /// It is complete and already in its place.
    pub(super) is_placed: bool,
}

impl KeptBytes {
    /// Nothing yet.
    pub(super) fn nothing(now: SystemTime) -> Self {
        let hash = Some(Box::new(Xxh3::new()));
        Self { offset: 0, synced: 0, marks: 0, hash, touched: now, is_placed: false }
    }
}

/// The right to write a part.
pub(crate) struct Claim {
    pub(super) part: Arc<PartialSnapshot>,
    pub(super) kept: OwnedMutexGuard<KeptBytes>,
    /// Cancelled when a newer connection comes.
    pub(super) stop: CancellationToken,
}

/// The result of asking for the right to write a part.
pub(super) enum Claimed {
    /// The caller may write.
    Claim(Claim),
    /// It is complete. This tells the result.
    Whole(watch::Receiver<PartState>),
    /// It is gone.
    Gone,
}

impl PartialSnapshot {
    pub(super) fn new(head: RecordHead, kept: KeptBytes) -> Arc<Self> {
        Arc::new(Self {
            head,
            kept: Arc::new(tokio::sync::Mutex::new(kept)),
            state: watch::Sender::new(PartState::Arriving),
            writing: Mutex::default(),
        })
    }

    fn writing(&self) -> MutexGuard<'_, CancellationToken> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn state(&self) -> PartState {
        self.state.borrow().clone()
    }

    /// Whether raft is being asked, or has answered, about a message of this term.
    pub(super) fn is_of_term(&self, of: u64) -> bool {
        matches!(&*self.state.borrow(), PartState::Handing { term } | PartState::Done { term, .. } if *term == of)
    }

    /// Whether it counts as one of the parts that are kept.
    pub(super) fn is_kept(&self) -> bool {
        !matches!(*self.state.borrow(), PartState::Leaving | PartState::Gone)
    }

    pub(super) fn set_state(&self, state: PartState) {
        self.state.send_replace(state);
    }

    /// Waits for the right to write it. The task that has the right is told to end, because its connection is older.
    pub(super) async fn claim(self: &Arc<Self>) -> Result<Claimed, ReceiveError> {
        let stop = CancellationToken::new();
        std::mem::replace(&mut *self.writing(), stop.clone()).cancel();
        let kept = match self.state() {
            PartState::Arriving | PartState::Leaving => timeout(TAKEOVER, self.kept.clone().lock_owned()).await,
            PartState::Handing { .. } | PartState::Done { .. } => return Ok(Claimed::Whole(self.state.subscribe())),
            PartState::Gone => return Ok(Claimed::Gone),
        };
        let kept = kept.map_err(|_| ReceiveError::BEING_WRITTEN)?;
        Ok(match self.state() {
            PartState::Arriving => Claimed::Claim(Claim { part: self.clone(), kept, stop }),
            PartState::Handing { .. } | PartState::Done { .. } => Claimed::Whole(self.state.subscribe()),
            PartState::Leaving => return Err(ReceiveError::BEING_WRITTEN),
            PartState::Gone => Claimed::Gone,
        })
    }

    /// The right to write it, if nobody else has it.
    pub(super) fn claim_idle(self: &Arc<Self>) -> Option<Claim> {
        let kept = self.kept.clone().try_lock_owned().ok()?;
        let is_idle = matches!(self.state(), PartState::Arriving | PartState::Done { .. });
        is_idle.then(|| Claim { part: self.clone(), kept, stop: self.writing().clone() })
    }

    /// The file of its bytes until it is complete.
    pub(super) fn data(&self, directory: &Path) -> PathBuf {
        directory.join(format!("{}{DATA}", self.stem()))
    }

    /// The file of its record.
    pub(super) fn record(&self, directory: &Path) -> PathBuf {
        directory.join(format!("{}{RECORD}", self.stem()))
    }

    fn stem(&self) -> String {
        let RecordHead { sender, of, .. } = self.head;
        format!("{PREFIX}{:016x}-{:032x}", sender.0, of.name)
    }
}

impl Claim {
    /// How many of its bytes are there.
    pub(crate) fn offset(&self) -> u64 {
        self.kept.offset
    }

    /// How many bytes its file has.
    pub(super) fn on_disk(&self) -> u64 {
        if self.kept.is_placed { 0 } else { self.kept.offset }
    }

    /// Announces [`Self::drop_files`]: from now on, the part does not count as kept.
    pub(super) fn leave(&self) {
        self.part.set_state(PartState::Leaving);
    }

    /// Forgets it and removes its files, except for one that is in its final place.
    pub(super) fn drop_files(self, files: &Files, directory: &Path) {
        self.leave();
        for path in [self.part.record(directory), self.part.data(directory)] {
            if let Err(error) = remove(files, &path) {
                // The file is removed when the store is opened again.
                tracing::warn!(path = %path.display(), %error, "a part of a snapshot cannot be removed");
            }
        }
        // This comes last, and before the right to write is given back: a new part may use the same files from now on.
        self.part.set_state(PartState::Gone);
    }
}

/// Removes a file that may not exist.
pub(super) fn remove(files: &Files, path: &Path) -> io::Result<()> {
    match files.remove(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}

/// A snapshot that raft is being asked about. If this is dropped without an answer, the snapshot can be handed over
/// again.
pub(crate) struct Handing {
    pub(super) part: Arc<PartialSnapshot>,
    /// The term of its message.
    pub(super) term: u64,
}

impl Handing {
    /// Raft has answered. Every connection that brings the snapshot gets the same answer.
    pub(super) fn done(&self, outcome: &Result<(), ReceiveError>) {
        self.part.set_state(PartState::Done { term: self.term, outcome: outcome.clone() });
    }
}

impl Drop for Handing {
    fn drop(&mut self) {
        self.part.state.send_if_modified(|state| {
            let is_open = matches!(state, PartState::Handing { .. });
            if is_open {
                *state = PartState::Arriving;
            }
            is_open
        });
    }
}
