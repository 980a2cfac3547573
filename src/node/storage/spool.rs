//! The snapshot for followers. It is read from the store once, as fast as the disk allows, into a file, and is sent
//! from there.
//!
//! While a transaction reads, no page that is freed can be reused, and sending a snapshot over a slow link takes
//! minutes. So raft is told that there is no snapshot yet until the file is complete, and asks again at the follower's
//! next answer. Followers that can go on from the same snapshot are sent the same file.

use std::{path::PathBuf, sync::Arc, time::Duration};

use raft::eraftpb::ConfState;
use redb::{ReadTransaction, ReadableTableMetadata};
use tokio::{
    sync::{OwnedSemaphorePermit, oneshot},
    time::Instant,
};

use super::{
    Store, StoreError,
    database::SPOOL,
    tables::{DATA, DATA_BYTES, damaged, meta, number},
};
use crate::world::{DiskFile, Files};

/// How long a file is kept that nobody asks for. A follower whose connection breaks asks again.
const KEPT: Duration = Duration::from_secs(60);
/// How long nothing is spooled after a failure, which is usually a lack of space.
const RETRY: Duration = Duration::from_secs(5);

/// A snapshot in a file that has no name, so that it disappears with the last handle, however that ends.
#[derive(Debug)]
pub(in crate::node) struct Spooled {
    pub(in crate::node) index: u64,
    pub(in crate::node) term: u64,
    pub(in crate::node) conf_state: ConfState,
    pub(in crate::node) file: Arc<dyn DiskFile>,
    pub(in crate::node) length: u64,
    /// The xxh3-128 of its bytes.
    pub(in crate::node) checksum: u128,
    /// A random number for this file, so that a follower does not continue with bytes of another file.
    pub(in crate::node) name: u128,
}

/// The result of spooling a snapshot. The spooling stops when nobody waits for it any more.
pub(in crate::node) type SpoolOutcome = Result<Spooled, String>;

/// The store as of one moment, for spooling. While this exists, no page that is freed can be reused.
pub(in crate::node) struct StoreView {
    pub(in crate::node) index: u64,
    pub(in crate::node) term: u64,
    pub(in crate::node) conf_state: ConfState,
    pub(in crate::node) read: ReadTransaction,
    /// Where the file is made, under a name that it keeps for a moment.
    pub(in crate::node) files: Files,
    pub(in crate::node) directory: PathBuf,
    pub(in crate::node) file_name: String,
    pub(in crate::node) outcome: oneshot::Sender<SpoolOutcome>,
}

impl StoreView {
    /// The membership.
    pub(in crate::node) fn membership(&self) -> Result<Vec<u8>, StoreError> {
        meta(&self.read, "membership")?.ok_or_else(|| damaged("membership"))
    }

    /// The number of keys, and the bytes of the keys and their values.
    pub(in crate::node) fn size(&self) -> Result<(u64, u64), StoreError> {
        let count = || Ok::<_, redb::Error>(self.read.open_table(DATA)?.len()?);
        Ok((count().map_err(StoreError::Disk)?, number(&self.read, DATA_BYTES)?))
    }
}

/// A snapshot for a `MsgSnap` of this `Ready`.
pub(in crate::node) struct HandedOut {
    pub(super) to: u64,
    pub(in crate::node) spooled: Arc<Spooled>,
    /// One of the few snapshots that may be on their way. It is given back when this ends, however it ends.
    pub(super) _permit: OwnedSemaphorePermit,
}

/// The state of the spool.
#[derive(Default)]
pub(super) struct Spool {
    state: State,
    /// Raft has asked for a snapshot that is not there.
    is_wanted: bool,
}

#[derive(Default)]
enum State {
    #[default]
    Empty,
    Writing {
        index: u64,
        outcome: oneshot::Receiver<SpoolOutcome>,
    },
    Whole {
        spooled: Arc<Spooled>,
        /// When it was last asked for.
        asked: Instant,
        is_handed_out: bool,
    },
    Failed {
        at: Instant,
    },
}

impl Spool {
    /// The snapshot, if there is one that `serves`. Otherwise a snapshot is now wanted.
    pub(super) fn ask(&mut self, now: Instant, serves: impl FnOnce(&Spooled) -> bool) -> Option<Arc<Spooled>> {
        if let State::Whole { spooled, asked, is_handed_out } = &mut self.state
            && serves(spooled)
        {
            (*asked, *is_handed_out) = (now, true);
            return Some(spooled.clone());
        }
        // Raft asks again. By then, the snapshot that is being made may be complete and may serve.
        self.is_wanted |= !matches!(self.state, State::Writing { .. });
        None
    }
}

/// Why a snapshot was not sent: the log no longer has the entries after it.
const OVERTAKEN: &str = "more was written than --log-retention-max-bytes keeps while it was spooled";

/// A file that is not sent to anyone else.
pub(in crate::node) type Outdated = Option<Arc<Spooled>>;

/// What has happened to the spool since the last look.
#[derive(Debug, Default)]
pub(in crate::node) struct SpoolNews {
    /// Why a snapshot could not be spooled.
    pub(in crate::node) failed: Option<String>,
    /// Whether the reason is that the log was compacted past it before anyone was sent it.
    pub(in crate::node) is_overtaken: bool,
    /// Whether a snapshot has become complete.
    pub(in crate::node) is_whole: bool,
    /// The file that nobody needs any more. Dropping it takes a while, because gigabytes of disk space are freed.
    pub(in crate::node) outdated: Outdated,
}

impl Store {
    /// The moment to spool, if raft has asked for a snapshot that is not there, and the file that no longer serves.
    pub(in crate::node) fn begin_spool(&self, now: Instant) -> Result<Option<(StoreView, Outdated)>, StoreError> {
        let mut spool = self.spool.borrow_mut();
        let is_wanted = std::mem::take(&mut spool.is_wanted);
        let may_begin = match &spool.state {
            State::Empty | State::Whole { .. } => true,
            State::Writing { .. } => false,
            State::Failed { at } => now.duration_since(*at) >= RETRY,
        };
        if !is_wanted || !may_begin {
            return Ok(None);
        }
        let Some(term) = self.log.term(self.applied).filter(|term| *term != 0) else { return Ok(None) };
        let (index, conf_state) = (self.applied, self.conf_state.clone());
        let read = self.begin_read()?;
        let (told, outcome) = oneshot::channel();
        let outdated = spool.give_up();
        spool.state = State::Writing { index, outcome };
        let (files, directory) = (self.open.files().clone(), self.open.directory().to_owned());
        let file_name = self.open.new_name(SPOOL);
        let view = StoreView { index, term, conf_state, read, files, directory, file_name, outcome: told };
        Ok(Some((view, outdated)))
    }

    /// Checks the spool, and drops what nobody asks for any more or what no follower can go on from.
    pub(in crate::node) fn look_at_spool(&self, now: Instant) -> SpoolNews {
        let mut spool = self.spool.borrow_mut();
        // This comes first: the file that is made just now may be of no use already. It is not made again at once,
        // because the same would happen again.
        if spool.needs().is_some_and(|index| !self.can_follow(index)) {
            let outdated = spool.give_up();
            spool.state = State::Failed { at: now };
            return SpoolNews { failed: Some(OVERTAKEN.to_owned()), is_overtaken: true, is_whole: false, outdated };
        }
        let mut news = SpoolNews::default();
        if let State::Writing { outcome, .. } = &mut spool.state {
            spool.state = match outcome.try_recv() {
                Err(oneshot::error::TryRecvError::Empty) => return news,
                Ok(Ok(spooled)) => {
                    news.is_whole = true;
                    State::Whole { spooled: Arc::new(spooled), asked: now, is_handed_out: false }
                }
                Ok(Err(why)) => {
                    news.failed = Some(why);
                    State::Failed { at: now }
                }
                Err(oneshot::error::TryRecvError::Closed) => {
                    news.failed = Some("it was given up".to_owned());
                    State::Failed { at: now }
                }
            };
        }
        if let State::Whole { spooled, asked, .. } = &spool.state
            && (Arc::strong_count(spooled) == 1 && now.duration_since(*asked) >= KEPT
                || !self.can_follow(spooled.index))
        {
            news.outdated = spool.give_up();
        }
        news
    }

    /// Drops what is spooled or being spooled, because this member does not lead any more.
    pub(in crate::node) fn give_up_spool(&self) -> Outdated {
        self.spool.borrow_mut().give_up()
    }

    /// Drops the snapshots that raft was given and that no message carries any more, because this member takes no part.
    pub(in crate::node) fn give_up_outgoing(&self) -> Vec<HandedOut> {
        self.outgoing.take()
    }

    /// The index from which on the log is needed for followers that are about to be sent the spooled snapshot.
    pub(in crate::node) fn spool_needs(&self) -> Option<u64> {
        self.spool.borrow().needs()
    }

    /// Whether the log has all entries after a snapshot as of this index.
    pub(super) fn can_follow(&self, index: u64) -> bool {
        index + 1 >= self.log.first_index()
    }

    /// The snapshot that raft was given for this member in this `Ready`.
    pub(in crate::node) fn take_outgoing(&self, to: u64, index: u64) -> Option<HandedOut> {
        let mut outgoing = self.outgoing.borrow_mut();
        let place = outgoing.iter().position(|snapshot| snapshot.to == to && snapshot.spooled.index == index)?;
        Some(outgoing.swap_remove(place))
    }
}

impl Spool {
    /// The index of a snapshot that nobody was sent yet.
    fn needs(&self) -> Option<u64> {
        match &self.state {
            State::Writing { index, .. } => Some(*index),
            State::Whole { spooled, is_handed_out: false, .. } => Some(spooled.index),
            State::Empty | State::Whole { .. } | State::Failed { .. } => None,
        }
    }

    fn give_up(&mut self) -> Outdated {
        self.is_wanted = false;
        match std::mem::take(&mut self.state) {
            State::Whole { spooled, .. } => Some(spooled),
            State::Empty | State::Writing { .. } | State::Failed { .. } => None,
        }
    }
}

/// Whether a snapshot's configuration contains the member with this ID. A member that joined later would ignore the
/// snapshot as one of another cluster.
pub(super) fn knows(conf_state: &ConfState, id: u64) -> bool {
    let ConfState { voters, learners, voters_outgoing, learners_next, .. } = conf_state;
    [voters, learners, voters_outgoing, learners_next].into_iter().any(|ids| ids.contains(&id))
}
