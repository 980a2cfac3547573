//! The snapshot that followers are sent: it is read out of the store once, as fast as the disk can, into a file of its own,
//! and sent from there.
//!
//! No page that is freed while a transaction reads can be used again, and a slow line takes minutes for a snapshot. So raft
//! is told that there is none yet until the file is whole, and asks again with the follower's next answer. Followers that
//! can go on from the same snapshot are sent the same file.

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

/// How long a file is kept that nobody asks for: a follower whose line breaks asks again.
const KEPT: Duration = Duration::from_secs(60);
/// How long nothing is spooled after a failure: most often there is no room.
const RETRY: Duration = Duration::from_secs(5);

/// A snapshot in a file that has no name: nothing of it is left when the last who has it is gone, whatever ended him.
#[derive(Debug)]
pub(in crate::node) struct Spooled {
    pub(in crate::node) index: u64,
    pub(in crate::node) term: u64,
    pub(in crate::node) conf_state: ConfState,
    pub(in crate::node) file: Arc<dyn DiskFile>,
    pub(in crate::node) length: u64,
    /// The xxh3-128 of its bytes.
    pub(in crate::node) checksum: u128,
    /// Drawn for this file: what a follower has of another is not gone on with.
    pub(in crate::node) name: u128,
}

/// What becomes of a snapshot that is being spooled. Who spools stops when nobody waits for it any more.
pub(in crate::node) type Outcome = Result<Spooled, String>;

/// The store as of one moment, to be spooled. No page that is freed meanwhile can be used again.
pub(in crate::node) struct Moment {
    pub(in crate::node) index: u64,
    pub(in crate::node) term: u64,
    pub(in crate::node) conf_state: ConfState,
    pub(in crate::node) read: ReadTransaction,
    /// Where the file is made, under a name that it keeps for a moment.
    pub(in crate::node) files: Files,
    pub(in crate::node) directory: PathBuf,
    pub(in crate::node) file_name: String,
    pub(in crate::node) outcome: oneshot::Sender<Outcome>,
}

impl Moment {
    /// The membership.
    pub(in crate::node) fn membership(&self) -> Result<Vec<u8>, StoreError> {
        meta(&self.read, "membership")?.ok_or_else(|| damaged("membership"))
    }

    /// How many keys there are, and how many bytes they and their values have.
    pub(in crate::node) fn size(&self) -> Result<(u64, u64), StoreError> {
        let count = || Ok::<_, redb::Error>(self.read.open_table(DATA)?.len()?);
        Ok((count().map_err(StoreError::Disk)?, number(&self.read, DATA_BYTES)?))
    }
}

/// A snapshot that a `MsgSnap` of this `Ready` is to carry.
pub(in crate::node) struct Outgoing {
    pub(super) to: u64,
    pub(in crate::node) spooled: Arc<Spooled>,
    /// One of the few that may be on their way; given back when this ends, however it ends.
    pub(super) _permit: OwnedSemaphorePermit,
}

/// What there is to be sent.
#[derive(Default)]
pub(super) struct Spool {
    state: State,
    /// Raft has asked for one that is not there.
    is_wanted: bool,
}

#[derive(Default)]
enum State {
    #[default]
    Empty,
    Writing {
        index: u64,
        outcome: oneshot::Receiver<Outcome>,
    },
    Whole {
        spooled: Arc<Spooled>,
        /// When it was asked for last.
        asked: Instant,
        is_handed_out: bool,
    },
    Failed {
        at: Instant,
    },
}

impl Spool {
    /// The snapshot, if there is one that `serves`. If not, one is wanted.
    pub(super) fn ask(&mut self, now: Instant, serves: impl FnOnce(&Spooled) -> bool) -> Option<Arc<Spooled>> {
        if let State::Whole { spooled, asked, is_handed_out } = &mut self.state
            && serves(spooled)
        {
            (*asked, *is_handed_out) = (now, true);
            return Some(spooled.clone());
        }
        self.is_wanted = true;
        None
    }
}

/// A file that is not sent to anyone else.
pub(in crate::node) type Outdated = Option<Arc<Spooled>>;

/// What has become of the spool since it was looked at last.
#[derive(Debug, Default)]
pub(in crate::node) struct SpoolNews {
    /// Why a snapshot could not be spooled.
    pub(in crate::node) failed: Option<String>,
    /// Whether one has become whole.
    pub(in crate::node) is_whole: bool,
    /// What nobody needs any more: it takes a while to drop it, since it gives gigabytes back to the disk.
    pub(in crate::node) outdated: Outdated,
}

impl Store {
    /// The moment to spool, if raft has asked for a snapshot that is not there; with it what does not serve any more.
    pub(in crate::node) fn begin_spool(&self, now: Instant) -> Result<Option<(Moment, Outdated)>, StoreError> {
        let mut spool = self.spool.borrow_mut();
        let is_wanted = std::mem::take(&mut spool.is_wanted);
        let may_begin = match &spool.state {
            State::Empty | State::Whole { .. } => true,
            State::Writing { .. } => false,
            State::Failed { at } => now.duration_since(*at) >= RETRY,
        };
        let Some(term) = self.log.term(self.applied).filter(|term| is_wanted && may_begin && *term != 0) else {
            return Ok(None);
        };
        let (index, conf_state) = (self.applied, self.conf_state.clone());
        let read = self.begin_read()?;
        let (told, outcome) = oneshot::channel();
        let outdated = spool.give_up();
        spool.state = State::Writing { index, outcome };
        let beside = self.place.beside();
        let file_name = beside.new_name(SPOOL);
        let (files, directory) = (beside.files, beside.directory);
        let moment = Moment { index, term, conf_state, read, files, directory, file_name, outcome: told };
        Ok(Some((moment, outdated)))
    }

    /// Sees what has become of it, and gives up what nobody asks for any more or what no follower can go on from.
    pub(in crate::node) fn look_at_spool(&self, now: Instant) -> SpoolNews {
        let mut spool = self.spool.borrow_mut();
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
            && (Arc::strong_count(spooled) == 1 && now.duration_since(*asked) >= KEPT || !self.can_follow(spooled))
        {
            news.outdated = spool.give_up();
        }
        news
    }

    /// Gives up what is spooled, or is being spooled: this member does not lead any more.
    pub(in crate::node) fn give_up_spool(&self) -> Outdated {
        self.spool.borrow_mut().give_up()
    }

    /// The index from which on the log is needed by whoever is about to be sent what is spooled.
    pub(in crate::node) fn spool_needs(&self) -> Option<u64> {
        match &self.spool.borrow().state {
            State::Writing { index, .. } => Some(*index),
            State::Whole { spooled, is_handed_out: false, .. } => Some(spooled.index),
            State::Empty | State::Whole { .. } | State::Failed { .. } => None,
        }
    }

    /// Whether the log has all that follows.
    pub(super) fn can_follow(&self, spooled: &Spooled) -> bool {
        spooled.index + 1 >= self.log.first_index()
    }

    /// The snapshot that raft was given for this member in this `Ready`.
    pub(in crate::node) fn take_outgoing(&self, to: u64, index: u64) -> Option<Outgoing> {
        let mut outgoing = self.outgoing.borrow_mut();
        let place = outgoing.iter().position(|snapshot| snapshot.to == to && snapshot.spooled.index == index)?;
        Some(outgoing.swap_remove(place))
    }
}

impl Spool {
    fn give_up(&mut self) -> Outdated {
        self.is_wanted = false;
        match std::mem::take(&mut self.state) {
            State::Whole { spooled, .. } => Some(spooled),
            State::Empty | State::Writing { .. } | State::Failed { .. } => None,
        }
    }
}

/// Whether a member with this ID is among those that a snapshot brings up to date: one that joined later takes it for
/// none of its own.
pub(super) fn knows(conf_state: &ConfState, id: u64) -> bool {
    let ConfState { voters, learners, voters_outgoing, learners_next, .. } = conf_state;
    [voters, learners, voters_outgoing, learners_next].into_iter().any(|ids| ids.contains(&id))
}
