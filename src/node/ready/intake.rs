//! Decides which of the peers' messages raft is given.

use super::{Core, NotTaken};
use crate::{
    id::MemberId,
    node::{
        guard::{self, MessageRefusal, MessageSender},
        history,
        snapshot::Received,
    },
    raft_rs,
    transport::raft::{Judgement, Source},
    wire::raftpb::{Message, MessageType},
};

impl Core {
    /// Gives raft a message from `peer`, if raft can take it. If not, the message is counted by its cause.
    pub(in crate::node) fn step(&mut self, peer: MemberId, source: Source, message: Message) -> Result<(), NotTaken> {
        let kind = message.r#type;
        let stepped = self.try_step(peer, source, message);
        self.note_awaited(kind);
        self.counted(peer, source, kind, stepped)
    }

    fn try_step(&mut self, peer: MemberId, source: Source, mut message: Message) -> Result<(), NotTaken> {
        let kind = message.r#type;
        if kind == MessageType::MsgSnap as i32 {
            return Err(NotTaken::refused("without_body", &"a snapshot comes with its body"));
        }
        let sender = MessageSender { peer, source, nobody_vouches: self.shared.nobody_vouches() };
        self.check(sender, &message)?;
        guard::without_removals(sender, &mut message);
        let append = (kind == MessageType::MsgApp as i32).then(|| self.continues(&message));
        let word = append.is_some() || kind == MessageType::MsgHeartbeat as i32;
        if kind == MessageType::MsgApp as i32 && message.term >= self.raw.raft.term {
            self.leader_commit = message.commit;
            self.leader_words += 1;
        }
        if self.is_leader() && self.membership.get(peer).is_some() {
            self.answers.note(self.raw.raft.term, peer, &message);
        }
        let message = if kind == MessageType::MsgProp as i32 { self.admit(message)? } else { message };
        let given = self.give(message);
        if word && given.is_ok() {
            self.heard(peer, append);
        }
        given
    }

    /// Gives raft a message that has passed all checks.
    fn give(&mut self, message: Message) -> Result<(), NotTaken> {
        let message = raft_rs::message_from_raftpb(message).map_err(|error| NotTaken::refused("unreadable", &error))?;
        self.raw.step(message).map_err(|error| match error {
            raft::Error::StepPeerNotFound => NotTaken::refused("not_a_member", &"it answers, and is no member"),
            raft::Error::ProposalDropped => {
                NotTaken::failed("dropped", &"the proposal was dropped: no leader, or it is busy")
            }
            other => NotTaken::failed("raft", &other),
        })
    }

    /// Judges a snapshot by its envelope. A snapshot that raft would ignore is given to raft at once, so that raft can
    /// answer the sender.
    pub(in crate::node) fn judge_snapshot(&mut self, peer: MemberId, message: Message) -> Result<Judgement, NotTaken> {
        let (kind, judged) = (message.r#type, self.try_judge(peer, message));
        self.counted(peer, Source::Anyone, kind, judged)
    }

    fn try_judge(&mut self, peer: MemberId, message: Message) -> Result<Judgement, NotTaken> {
        self.check_snapshot(peer, &message)?;
        if guard::would_install(&self.raw.raft, &message) {
            self.needs_snapshot(peer, &message);
            return Ok(Judgement::Wanted);
        }
        self.give(message).map(|()| Judgement::PassedOver)
    }

    /// Gives raft a snapshot whose body was received and verified.
    pub(in crate::node) fn step_snapshot(
        &mut self,
        peer: MemberId,
        message: Message,
        body: Received,
    ) -> Result<(), NotTaken> {
        let kind = message.r#type;
        let stepped = self.check_snapshot(peer, &message).and_then(|()| self.give(message));
        match stepped {
            // If raft does not take it after all, it is dropped after the turn.
            Ok(()) => self.received.push(body),
            Err(_) => self.discard(Some(body)),
        }
        self.counted(peer, Source::Anyone, kind, stepped)
    }

    /// Checks a snapshot. A snapshot always comes by a request.
    fn check_snapshot(&mut self, peer: MemberId, message: &Message) -> Result<(), NotTaken> {
        self.check(MessageSender { peer, source: Source::Anyone, nobody_vouches: false }, message)
    }

    fn check(&mut self, sender: MessageSender, message: &Message) -> Result<(), NotTaken> {
        if self.suspended {
            return Err(NotTaken::failed("suspended", &"this member takes no part while its disk cannot be written"));
        }
        if self.is_halted() {
            return Err(NotTaken::refused("halted", &"this member takes no part any more"));
        }
        // As etcd's `EtcdServer.Process`, which looks at the sender that the message names.
        if let Some(removed) =
            [sender.peer, MemberId(message.from)].into_iter().find(|id| self.membership.is_removed(*id))
        {
            return Err(NotTaken::from(&MessageRefusal::Removed(removed)));
        }
        let checked = guard::check(&self.raw.raft, sender, message, self.settings.max_request_bytes);
        // Entries are compared with ours only for senders that are believed.
        let checked = match sender.source {
            Source::Member => checked.and_then(|()| history::check_entries(&self.raw.raft, message)),
            Source::Anyone => checked,
        };
        if sender.source == Source::Member {
            self.note_beyond_ours(sender.peer, message);
        }
        let Err(refusal) = checked else { return Ok(()) };
        match refusal {
            MessageRefusal::LostData { .. } => self.halt(&refusal.to_string()),
            MessageRefusal::Contradicts(_) | MessageRefusal::Differs(_) if sender.source == Source::Member => {
                self.contradicted(sender.peer, message.term, &refusal);
            }
            _ => {}
        }
        Err(NotTaken::from(&refusal))
    }

    /// Whether raft must write before it is given a message of this kind. When raft-rs becomes leader, it panics unless
    /// its whole log is on the disk (`become_leader`).
    pub(in crate::node) fn must_turn_before(&self, kind: i32) -> bool {
        let elects = kind == MessageType::MsgTimeoutNow as i32
            || kind == MessageType::MsgVoteResp as i32
            || kind == MessageType::MsgPreVoteResp as i32;
        let log = &self.raw.raft.raft_log;
        elects && (!log.unstable_entries().is_empty() || log.unstable_snapshot().is_some())
    }
}
