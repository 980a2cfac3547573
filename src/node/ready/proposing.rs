//! Proposals for raft, of this member's clients and of other members.

use raft::StateRole;
use tokio::{sync::oneshot, time::Instant};

use super::{APPEND_BYTES, Core, NotTaken};
use crate::{
    id::MemberId,
    node::{
        members::ConfRefusal,
        proposals::{Payload, ProposalKey, ProposalOutcome, ProposalResult, ProposeError},
        reconfiguration,
        request::{Command, Request},
    },
    raft_rs,
    wire::raftpb::{ConfChange, ConfChangeType, Entry, EntryType, Message, MessageType},
};

/// The most entries in one proposal of ours.
const PROPOSAL_ENTRIES: usize = 256;

/// One entry of a proposal, and the client that waits for it.
struct Proposed {
    entry: Entry,
    key: ProposalKey,
    reply: oneshot::Sender<ProposalResult>,
}

impl Core {
    /// Admits a proposal from the network, which raft takes if this member leads, and otherwise passes on. A change of
    /// the membership that the leader refuses becomes an entry that says so.
    pub(super) fn admit(&self, mut message: Message) -> Result<Message, NotTaken> {
        if self.raw.raft.state == StateRole::Leader {
            for entry in &mut message.entries {
                if entry.r#type == EntryType::EntryConfChange as i32 {
                    *entry = self.admitted(std::mem::take(entry))?;
                }
            }
        }
        Ok(message)
    }

    fn admitted(&self, entry: Entry) -> Result<Entry, NotTaken> {
        let change: ConfChange =
            prost::Message::decode(entry.data.as_ref()).map_err(|error| NotTaken::refused("proposal", &error))?;
        let Err(why) = self.check_conf_change(&change) else { return Ok(entry) };
        let command = Command::Refusal { conf_change: change.id, why };
        Ok(Entry { data: Request { id: self.ids.next(), command }.encode(), ..Entry::default() })
    }

    /// Whether the leader accepts a change of the membership now.
    fn check_conf_change(&self, change: &ConfChange) -> Result<(), ConfRefusal> {
        if self.raw.raft.has_pending_conf() {
            return Err(ConfRefusal::Pending);
        }
        self.membership.check(change)?;
        let promotes = change.r#type == ConfChangeType::ConfChangeAddNode as i32
            && self.membership.get(MemberId(change.node_id)).is_some();
        // As etcd's `isLearnerReady`.
        let last = self.raw.raft.raft_log.last_index();
        let matched = self.raw.raft.prs().get(change.node_id).map_or(0, |progress| progress.matched);
        if promotes && matched.saturating_mul(10) < last.saturating_mul(9) {
            return Err(ConfRefusal::NotReady);
        }
        if !self.settings.strict_reconfig_check {
            return Ok(());
        }
        let (ticks, term) = (self.settings.election_ticks, self.raw.raft.term);
        let answers = |id| self.answers.within(ticks, term, id);
        reconfiguration::check_as_leader(&self.membership, self.settings.member, change, answers)
    }

    /// Gives raft the held proposals, if there is a leader to take them.
    pub(super) fn submit(&mut self, now: Instant) {
        let raft = &self.raw.raft;
        if raft.leader_id == 0 || raft.lead_transferee.is_some() {
            return;
        }
        // A new leader drops reads until it has committed an entry of its own.
        let answered = raft.state != StateRole::Leader || raft.commit_to_current_term();
        if let Some(context) = answered.then(|| self.reads.next_round(now)).flatten() {
            self.raw.read_index(context);
        }
        self.submit_proposals();
    }

    fn submit_proposals(&mut self) {
        let mut batch: Vec<Proposed> = Vec::new();
        let mut bytes = 0;
        while let Some(proposal) = self.proposals.next() {
            let (key, size) = (proposal.payload.key(), proposal.payload.size());
            match proposal.payload {
                Payload::Request(_, data) => {
                    bytes += size;
                    batch.push(Proposed { entry: Entry { data, ..Entry::default() }, key, reply: proposal.reply });
                }
                Payload::ConfChange(change) => {
                    // Earlier proposals go first, and changes go one at a time, so that raft sees each as pending.
                    self.propose_batch(std::mem::take(&mut batch));
                    bytes = 0;
                    let refused = self.is_leader().then(|| self.check_conf_change(&change)).and_then(Result::err);
                    if let Some(why) = refused {
                        let _ = proposal.reply.send(Ok(ProposalOutcome::Refused(why)));
                        continue;
                    }
                    let data = prost::Message::encode_to_vec(&change).into();
                    let entry = Entry { r#type: EntryType::EntryConfChange as i32, data, ..Entry::default() };
                    self.propose_batch(vec![Proposed { entry, key, reply: proposal.reply }]);
                }
            }
            if bytes as u64 >= APPEND_BYTES || batch.len() >= PROPOSAL_ENTRIES {
                self.propose_batch(std::mem::take(&mut batch));
                bytes = 0;
            }
        }
        self.propose_batch(batch);
    }

    fn propose_batch(&mut self, batch: Vec<Proposed>) {
        if batch.is_empty() {
            return;
        }
        let (mut entries, mut replies) = (Vec::with_capacity(batch.len()), Vec::with_capacity(batch.len()));
        for Proposed { entry, key, reply } in batch {
            entries.push(entry);
            replies.push((key, reply));
        }
        let (kind, from) = (MessageType::MsgProp as i32, self.settings.member.0);
        let message = Message { r#type: kind, from, entries, ..Message::default() };
        let stepped = raft_rs::message_from_raftpb(message).map(|message| self.raw.step(message));
        let taken = matches!(stepped, Ok(Ok(())));
        for (key, reply) in replies {
            if taken {
                self.proposals.proposed(self.raw.raft.term, key, reply);
            } else {
                self.proposals.fail(reply, ProposeError::Busy);
            }
        }
    }
}
