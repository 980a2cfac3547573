//! When a leader tells its followers what is committed.
//!
//! etcd's raft tells every advance of the commit index at once, by an append without entries, and each follower answers
//! it. With one write at a time, that is half of all messages, and each wakes two tasks at both ends. Here the next append
//! tells it. If none comes within [`TELL_AFTER`], the followers are told alone.
//!
//! They are told at once if one of them waits: for the outcome of a proposal that it has passed on, for a read, or for a
//! change of the membership, and when a leader commits its first entry.

use std::{collections::BTreeMap, time::Duration};

use raft::{Progress, ProgressState, StateRole, eraftpb};
use tokio::time::Instant;

use super::Core;
use crate::wire::raftpb::{Message, MessageType};

/// How long a commit waits for an append that tells it. A writer that has one write at a time sends the next one sooner.
/// What a follower shows with `?consistency=local` is older by as much.
const TELL_AFTER: Duration = Duration::from_millis(10);

/// What the followers were told.
#[derive(Debug, Default)]
pub(super) struct Telling {
    /// The term in which they were told it.
    term: u64,
    /// The highest commit index in what was sent to each.
    told: BTreeMap<u64, u64>,
    /// Up to this index, followers wait for the outcome of entries.
    awaited: u64,
    /// A follower waits to read.
    is_read: bool,
    /// Since when there has been something to tell.
    since: Option<Instant>,
}

impl Telling {
    /// These messages are sent.
    fn note(&mut self, term: u64, messages: &[Message]) {
        if self.term != term {
            self.term = term;
            self.told.clear();
        }
        let tells = [MessageType::MsgApp as i32, MessageType::MsgHeartbeat as i32];
        for message in messages.iter().filter(|message| tells.contains(&message.r#type)) {
            let told = self.told.entry(message.to).or_default();
            *told = message.commit.max(*told);
        }
    }
}

impl Core {
    /// A message of this kind was stepped: a follower may wait for what comes of it.
    pub(super) fn note_awaited(&mut self, kind: i32) {
        if self.is_leader() {
            if kind == MessageType::MsgProp as i32 {
                self.telling.awaited = self.raw.raft.raft_log.last_index();
            }
            self.telling.is_read |= kind == MessageType::MsgReadIndex as i32;
        }
        self.choose_telling();
    }

    /// Whether raft tells the next advance of the commit index at once.
    fn choose_telling(&mut self) {
        let raft = &mut self.raw.raft;
        let at_once = !raft.commit_to_current_term() || self.telling.awaited > raft.raft_log.committed;
        raft.skip_bcast_commit(!at_once);
    }

    /// These messages are sent.
    pub(super) fn note_told(&mut self, messages: &[Message]) {
        self.telling.note(self.raw.raft.term, messages);
    }

    /// The followers that were not told what is committed. Those that raft does not simply send to are told by an append
    /// after their answer, or by a heartbeat.
    fn untold(&self) -> Vec<u64> {
        let raft = &self.raw.raft;
        if raft.state != StateRole::Leader {
            return Vec::new();
        }
        let committed = raft.raft_log.committed;
        let is_told = |id: &u64| self.telling.told.get(id).is_some_and(|told| *told >= committed);
        let others = raft.prs().iter().filter(|(id, _)| **id != raft.id);
        let is_sent = |progress: &Progress| progress.state == ProgressState::Replicate && !progress.is_paused();
        others.filter(|(id, progress)| is_sent(progress) && !is_told(id)).map(|(id, _)| *id).collect()
    }

    /// Whether a message that raft has made, and that is not sent yet, tells a follower what is committed.
    fn is_about_to_be_told(&self, id: u64) -> bool {
        let raft = &self.raw.raft;
        raft.msgs.iter().any(|message| {
            let tells =
                matches!(message.get_msg_type(), eraftpb::MessageType::MsgAppend | eraftpb::MessageType::MsgHeartbeat);
            tells && message.to == id && message.commit >= raft.raft_log.committed
        })
    }

    /// Tells the followers what no append has told them, if it is time.
    pub(super) fn tell_if_due(&mut self, now: Instant) {
        self.choose_telling();
        let is_read = std::mem::take(&mut self.telling.is_read);
        if is_read || self.tells_at().is_some_and(|at| now >= at) {
            for id in self.untold() {
                if !self.is_about_to_be_told(id) {
                    self.raw.raft.send_append(id);
                }
            }
        }
    }

    /// Notes since when there has been something to tell.
    pub(super) fn time_telling(&mut self, now: Instant) {
        let since = self.telling.since.filter(|since| now.duration_since(*since) < TELL_AFTER).unwrap_or(now);
        self.telling.since = (!self.untold().is_empty()).then_some(since);
    }

    /// When a turn is needed to tell the followers what no append has told them, if there is something.
    pub(in crate::node) fn tells_at(&self) -> Option<Instant> {
        // A member that takes no part any more tells nothing.
        self.telling.since.filter(|_| self.takes_part()).map(|since| since + TELL_AFTER)
    }
}
