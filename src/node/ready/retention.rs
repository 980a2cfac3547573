//! How much of the log is kept for followers that are behind.
//!
//! Every member keeps the entries that it applied last, up to a number and a size, because the next leader needs them.
//! A leader also keeps what a follower needs for which a snapshot is spooled, or that is being sent a snapshot, has just
//! been sent one, or is heard. Otherwise, the log would be compacted while the snapshot is on its way, and the follower
//! would need another one, without end. This is limited in bytes: a follower that needs more starts over.

use std::{collections::HashMap, time::Duration};

use raft::{ProgressState, StateRole};
use tokio::time::Instant;

use super::{Core, CoreError};

/// How many entries a compaction keeps, for followers that are a little behind (etcd's
/// `DefaultSnapshotCatchUpEntries`).
const CATCH_UP_ENTRIES: u64 = 5000;
/// The bytes of entries that make a compaction worthwhile, however few entries there are: the size of a log file.
const CUT_BYTES: u64 = 16 << 20;
/// How long the log waits for a follower that is not heard after it was sent a snapshot: it may be busy with the
/// snapshot.
const LINGER: Duration = Duration::from_secs(60);

/// How much of the log is kept.
#[derive(Clone, Copy, Debug)]
pub(in crate::node) struct Retention {
    /// The number of applied entries after which the log is compacted.
    pub(in crate::node) snapshot_count: u64,
    /// Bytes of entries that every member keeps.
    pub(in crate::node) bytes: u64,
    /// The most bytes of entries that a leader keeps for followers that need them.
    pub(in crate::node) max_bytes: u64,
}

/// The snapshots that were sent to followers which have not taken a later entry yet.
#[derive(Debug, Default)]
pub(super) struct Handed {
    snapshots: HashMap<u64, Snapshot>,
    /// How many snapshots were followed by another one, because the log had been compacted past them, on their way or
    /// before anyone was sent them.
    overtaken: u64,
}

#[derive(Clone, Copy, Debug)]
struct Snapshot {
    index: u64,
    /// When the follower was last heard, or when the snapshot was first seen.
    heard: Option<Instant>,
}

impl Handed {
    /// A snapshot as of this index is sent to a follower, and the log begins with `first`. Returns whether it is sent
    /// because the log was compacted past the last one.
    pub(super) fn add(&mut self, to: u64, index: u64, first: u64) -> bool {
        let before = self.snapshots.insert(to, Snapshot { index, heard: None });
        let is_overtaken = before.is_some_and(|before| before.index + 1 < first);
        self.overtaken += u64::from(is_overtaken);
        is_overtaken
    }

    /// The log was compacted past a snapshot before anyone was sent it.
    pub(super) fn overtake(&mut self) {
        self.overtaken += 1;
    }

    /// How many snapshots were older than the log's first entry when they arrived, or when they were spooled.
    pub(super) fn overtaken(&self) -> u64 {
        self.overtaken
    }
}

impl Core {
    /// Compacts the log, if that is worthwhile.
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

    /// The index after which the slowest follower needs the log. `None` if no follower needs it.
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
