//! A raft that follows: it keeps no log, only how far the log goes, and acknowledges what it was sent. It never votes.

use std::collections::BTreeSet;

use rafthttp::wire::raftpb::{Entry, Message, MessageType, SnapshotMetadata};

/// What the test puts into the log, to find it again: a number follows.
pub const MARKER: &str = "marker-";

/// The end of the log, and the leader.
#[derive(Debug, Default)]
pub struct Follower {
    pub id: u64,
    pub term: u64,
    pub leader: u64,
    /// The last entry's index and term.
    pub last: (u64, u64),
    pub commit: u64,
    /// Entries that came in appends.
    pub entries: u64,
    /// Appends that did not follow on what was there.
    pub gaps: u64,
    /// Indexes of the snapshots that came.
    pub snapshots: Vec<u64>,
    /// Markers that came in entries.
    pub markers: BTreeSet<u64>,
    /// Every leader that was followed, in order.
    pub leaders: Vec<u64>,
    /// Messages that are not for a follower that has no vote.
    pub unexpected: Vec<String>,
}

impl Follower {
    /// Takes a message, and says what is to be answered.
    pub fn step(&mut self, message: &Message) -> Option<Message> {
        let kind = MessageType::try_from(message.r#type).ok();
        if message.to != self.id {
            self.unexpected.push(format!("for {:x}: {kind:?}", message.to));
            return None;
        }
        if message.term < self.term {
            return None;
        }
        if message.term > self.term {
            (self.term, self.leader) = (message.term, 0);
        }
        match kind {
            Some(MessageType::MsgApp) => Some(self.append(message)),
            Some(MessageType::MsgSnap) => Some(self.restore(message)),
            Some(MessageType::MsgHeartbeat) => {
                self.follow(message.from);
                self.commit = self.commit.max(message.commit.min(self.last.0));
                let context = message.context.clone();
                Some(Message { context, ..self.answer(MessageType::MsgHeartbeatResp, message) })
            }
            other => {
                self.unexpected.push(format!("from {:x}: {other:?}", message.from));
                None
            }
        }
    }

    fn append(&mut self, message: &Message) -> Message {
        let new_leader = self.follow(message.from);
        if message.index > self.last.0 {
            self.gaps += 1;
            return Message {
                index: message.index,
                reject: true,
                reject_hint: self.last.0,
                log_term: self.last.1,
                ..self.answer(MessageType::MsgAppResp, message)
            };
        }
        let end = message.entries.last().map_or((message.index, message.log_term), |last| (last.index, last.term));
        // A new leader's log replaces what the old one had not committed.
        if end.0 > self.last.0 || new_leader {
            self.last = end;
        }
        self.commit = self.commit.max(message.commit.min(self.last.0));
        self.entries += message.entries.len() as u64;
        self.markers.extend(message.entries.iter().filter_map(marker));
        Message { index: end.0, ..self.answer(MessageType::MsgAppResp, message) }
    }

    fn restore(&mut self, message: &Message) -> Message {
        self.follow(message.from);
        let metadata = message.snapshot.as_ref().and_then(|snapshot| snapshot.metadata.clone());
        let SnapshotMetadata { index, term, .. } = metadata.unwrap_or_default();
        self.snapshots.push(index);
        if index > self.last.0 {
            self.last = (index, term);
        }
        self.commit = self.commit.max(index);
        Message { index: self.last.0, ..self.answer(MessageType::MsgAppResp, message) }
    }

    /// Whether it is another than before.
    fn follow(&mut self, leader: u64) -> bool {
        let another = self.leaders.last() != Some(&leader);
        self.leader = leader;
        if another {
            self.leaders.push(leader);
        }
        another
    }

    fn answer(&self, kind: MessageType, to: &Message) -> Message {
        Message { r#type: kind as i32, to: to.from, from: self.id, term: self.term, ..Message::default() }
    }
}

/// The number of the marker that an entry puts.
fn marker(entry: &Entry) -> Option<u64> {
    let at = entry.data.windows(MARKER.len()).position(|window| window == MARKER.as_bytes())?;
    let digits = entry.data[at + MARKER.len()..].iter().take_while(|byte| byte.is_ascii_digit());
    std::str::from_utf8(&digits.copied().collect::<Vec<_>>()).ok()?.parse().ok()
}
