//! How much of the log is kept for followers that are behind.
//!
//! Every member keeps what it has applied last, by number and by bytes, since whoever leads next has to have it. A leader
//! also keeps what a follower needs for which a snapshot is spooled, or that is being sent one, has just been sent one, or is heard: otherwise the log
//! is cut away under it while the snapshot is on its way, and it needs another one, without end. There is a bound to that
//! in bytes: a follower that needs more starts over.

use std::{collections::HashMap, time::Duration};

use raft::{ProgressState, StateRole};
use tokio::time::Instant;

use super::{Core, CoreError};

/// Entries that stay in the log when it is cut, for followers that are a little behind (etcd's
/// `DefaultSnapshotCatchUpEntries`).
const CATCH_UP_ENTRIES: u64 = 5000;
/// Bytes of entries that are worth a cut, however few they are: what the log's files are dropped by.
const CUT_BYTES: u64 = 16 << 20;
/// How long the log waits for a follower that is not heard after a snapshot was handed to it: it may be busy with it.
const LINGER: Duration = Duration::from_secs(60);

/// How much of the log is kept.
#[derive(Clone, Copy, Debug)]
pub(in crate::node) struct Retention {
    /// Applied entries after which the log is cut.
    pub(in crate::node) snapshot_count: u64,
    /// Bytes of entries that every member keeps.
    pub(in crate::node) bytes: u64,
    /// Bytes of entries that a leader keeps at most for followers that need them.
    pub(in crate::node) max_bytes: u64,
}

/// The snapshots that were sent to followers which have not taken an entry behind them yet.
#[derive(Debug, Default)]
pub(super) struct Handed {
    snapshots: HashMap<u64, Snapshot>,
    /// How many were followed by another one, since the log had been cut behind them.
    overtaken: u64,
}

#[derive(Clone, Copy, Debug)]
struct Snapshot {
    index: u64,
    /// When the follower was heard last, or when the snapshot was seen first.
    heard: Option<Instant>,
}

impl Handed {
    /// A snapshot as of this index is sent to a follower; the log begins with `first`. Whether it is sent since the log has
    /// been cut behind the last one.
    pub(super) fn add(&mut self, to: u64, index: u64, first: u64) -> bool {
        let before = self.snapshots.insert(to, Snapshot { index, heard: None });
        let is_overtaken = before.is_some_and(|before| before.index + 1 < first);
        self.overtaken += u64::from(is_overtaken);
        is_overtaken
    }

    /// How many snapshots were behind the log's first entry when they had arrived.
    pub(super) fn overtaken(&self) -> u64 {
        self.overtaken
    }
}

impl Core {
    /// Cuts off the log what nobody needs, if it is worth it.
    pub(super) fn cut_log(&mut self, now: Instant) -> Result<(), CoreError> {
        let retention = self.settings.retention;
        let needed = self.needed_by_followers(now);
        let store = self.raw.mut_store();
        let (first, _) = store.first_and_last_index();
        let mut to = store.applied().saturating_sub(retention.snapshot_count.min(CATCH_UP_ENTRIES));
        to = to.min(store.last_without(retention.bytes));
        if let Some(needed) = needed {
            to = to.min(needed.max(store.last_without(retention.max_bytes)));
        }
        let dropped = (to + 1).saturating_sub(first);
        if dropped < retention.snapshot_count && store.bytes_up_to(to) < CUT_BYTES {
            return Ok(());
        }
        tracing::debug!(first, to, "cutting the log");
        Ok(store.compact(to)?)
    }

    /// After which entry the log is needed by the follower that is the farthest behind; none where nobody needs it.
    fn needed_by_followers(&mut self, now: Instant) -> Option<u64> {
        if self.raw.raft.state != StateRole::Leader {
            self.handed.snapshots.clear();
            return None;
        }
        let spooled = self.raw.store().spool_needs();
        let (own, progress, handed) = (self.settings.member.0, self.raw.raft.prs(), &mut self.handed.snapshots);
        handed.retain(|id, snapshot| {
            let Some(one) = progress.get(*id).filter(|one| one.matched <= snapshot.index) else { return false };
            if one.recent_active || one.state == ProgressState::Snapshot {
                snapshot.heard = Some(now);
            }
            now.duration_since(*snapshot.heard.get_or_insert(now)) < LINGER
        });
        let needs = |(id, one): (&u64, &raft::Progress)| match (handed.get(id), one.state) {
            (_, ProgressState::Snapshot) => Some(one.pending_snapshot),
            (Some(snapshot), _) => Some(snapshot.index),
            (None, _) => one.recent_active.then_some(one.matched),
        };
        progress.iter().filter(|(id, _)| **id != own).filter_map(needs).chain(spooled).min()
    }
}
