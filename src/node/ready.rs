//! Raft itself, without tasks, clocks or connections. Inputs are stepped, and each turn writes, sends and applies the
//! results, in the order that makes raft safe.
//!
//! The steps of a turn, for each `Ready` of raft-rs:
//! 1. `messages()` are sent: a leader's appends need not wait for its own disk;
//! 2. entries and hard state are written as one synced record, after a snapshot if there is one;
//! 3. `persisted_messages()` are sent: votes and acknowledgements of what is now on the disk;
//! 4. committed entries are applied, with the applied index and the membership in the same transaction as the data;
//! 5. the clients that proposed the entries, or wait to read, are answered.
//!
//! All messages and proposals that come during one turn share the next turn and its sync. `intake` checks what peers
//! send, `proposing` what is proposed.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use raft::{RawNode, ReadOnlyOption, StateRole};
use tokio::time::Instant;

use self::{answers::Answers, following::Following, halt::Halt, telling::Telling};
use super::{
    hearsay::Hearsay,
    members::{ConfRefusal, Membership, PeerChange},
    proposals::{Proposal, ProposalOutcome, Proposals},
    reads::{Reads, Waiter},
    request::RequestIds,
    snapshot::{self, Received, Spooling},
    state::{Applied, Done},
    status::NodeState,
    storage::{Effect, Store, StoreError},
};
use crate::{
    id::{ClusterId, Impostor, MemberId},
    raft_rs::{self, ConvertError},
    telemetry::{RepeatPace, Repeats},
    transport::{raft::SnapshotStatus, snapshot::SnapshotBody},
    wire::raftpb::{Entry, Message, MessageType},
    world::World,
};

mod answers;
mod following;
mod halt;
mod histories;
mod intake;
mod logger;
mod meeting;
mod not_taken;
mod proposing;
mod publishing;
mod quota;
mod retention;
mod spooling;
mod suspension;
mod telling;

pub(super) use not_taken::{CAUSES, NotTaken};
pub(super) use quota::CLEARED_AT_PER_CENT;
pub(super) use retention::Retention;

use retention::Handed;

/// The most bytes of entries in one append (etcd's `maxSizePerMsg`), and in one proposal of ours.
const APPEND_BYTES: u64 = 1 << 20;
/// The most appends with entries to one follower that it has not answered yet (etcd's `maxInflightMsgs`). A stream's queue
/// has room for eight times as many messages.
const INFLIGHT_APPENDS: usize = 512;
/// The most bytes that are proposed and not committed yet. A proposal beyond them is refused, and was certainly not
/// proposed.
const UNCOMMITTED_BYTES: u64 = 64 << 20;
/// The most bytes of committed entries that are applied in one transaction.
const APPLY_BYTES: u64 = 16 << 20;

/// An output of a turn.
pub(super) enum TurnOutput {
    Messages(Vec<Message>),
    Snapshot(Box<Message>, SnapshotBody),
    Peer(PeerChange),
    /// Runs on a thread that may wait for the disk.
    Spool(Box<Spooling>),
    /// Is dropped on such a thread, because closing a large file takes long.
    Discard(Box<dyn Send>),
}

/// Takes the outputs: the transport, or a test.
pub(super) type OutputSink = Box<dyn FnMut(TurnOutput) + Send>;

/// Why raft cannot go on.
#[derive(Debug, thiserror::Error)]
pub(super) enum CoreError {
    #[error("the store failed: {0}")]
    Store(#[from] StoreError),
    #[error("raft refused: {0}")]
    Raft(#[from] raft::Error),
    #[error("an entry of our own cannot be sent: {0}")]
    Convert(#[from] ConvertError),
    #[error("raft took a snapshot that was not received")]
    NoSnapshot,
}

impl CoreError {
    /// Whether the disk has failed ([`StoreError::is_of_the_disk`]).
    pub(super) fn is_of_the_disk(&self) -> bool {
        matches!(self, Self::Store(error) if error.is_of_the_disk())
    }
}

/// Whether to go on after a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    Continue,
    /// This member applied its own removal.
    Removed,
    /// The others do not hear this member.
    Refused(Impostor),
}

/// The settings of a [`Core`].
#[derive(Clone, Debug)]
pub(super) struct CoreSettings {
    pub(super) member: MemberId,
    pub(super) cluster: ClusterId,
    pub(super) election_ticks: usize,
    pub(super) election_timeout: Duration,
    pub(super) retention: Retention,
    pub(super) max_request_bytes: usize,
    pub(super) strict_reconfig_check: bool,
    pub(super) hearsay: Hearsay,
    pub(super) quota: Option<u64>,
    /// Bytes that the file system keeps free beside a snapshot.
    pub(super) headroom: u64,
    pub(super) world: World,
}

impl CoreSettings {
    /// Makes raft from the contents of a store.
    fn raft(&self, store: Store) -> Result<RawNode<Store>, CoreError> {
        let config = raft::Config {
            id: self.member.0,
            election_tick: self.election_ticks,
            heartbeat_tick: 1,
            applied: store.applied(),
            max_size_per_msg: APPEND_BYTES,
            max_inflight_msgs: INFLIGHT_APPENDS,
            check_quorum: true,
            pre_vote: true,
            read_only_option: ReadOnlyOption::Safe,
            max_uncommitted_size: UNCOMMITTED_BYTES,
            max_committed_size_per_ready: APPLY_BYTES,
            ..raft::Config::default()
        };
        Ok(RawNode::new(&config, store, &logger::tracing_logger())?)
    }
}

/// One member's raft, with its log and its state machine.
pub(super) struct Core {
    settings: CoreSettings,
    raw: RawNode<Store>,
    membership: Membership,
    shared: Arc<NodeState>,
    outbox: OutputSink,
    ids: RequestIds,
    proposals: Proposals,
    reads: Reads,
    /// Snapshots that were verified and stepped. Raft takes one of them, or none.
    received: Vec<Received>,
    /// The receivers of snapshots that raft handed out and that cannot be sent. Raft is told after the `Ready`.
    unsent: Vec<u64>,
    handed: Handed,
    leader: u64,
    /// The commit index that a leader announced last, and how often leaders have announced one.
    leader_commit: u64,
    leader_words: u64,
    answers: Answers,
    following: Following,
    telling: Telling,
    /// Members that have more entries than this member, although it is their leader.
    contradicting: BTreeMap<MemberId, String>,
    /// Limits the lines about messages on members' streams that raft does not take.
    refusals: Repeats,
    /// The time of the last input.
    now: Instant,
    halt: Halt,
    /// The disk cannot be written: see `suspension`.
    suspended: bool,
    asked_of_space: quota::PendingProposal,
    /// Limits the lines and events about snapshots that cannot be spooled, while that goes on.
    unspooled: RepeatPace,
}

impl Core {
    pub(super) fn new(
        settings: CoreSettings,
        store: Store,
        ids: RequestIds,
        shared: Arc<NodeState>,
        outbox: OutputSink,
    ) -> Result<Self, CoreError> {
        let membership = store.membership()?;
        let raw = settings.raft(store)?;
        let (patience, retry) = (settings.election_timeout * 3, settings.election_timeout / 2);
        let mut core = Self {
            reads: Reads::new(ids.clone(), retry),
            proposals: Proposals::new(patience),
            settings,
            raw,
            membership,
            shared,
            outbox,
            ids,
            received: Vec::new(),
            unsent: Vec::new(),
            handed: Handed::default(),
            leader: 0,
            leader_commit: 0,
            leader_words: 0,
            answers: Answers::default(),
            following: Following::default(),
            telling: Telling::default(),
            contradicting: BTreeMap::new(),
            refusals: Repeats::default(),
            now: Instant::now(),
            halt: Halt::Not,
            suspended: false,
            asked_of_space: None,
            unspooled: RepeatPace::default(),
        };
        core.publish();
        core.stay_halted()?;
        Ok(core)
    }

    pub(super) fn propose(&mut self, now: Instant, proposal: Proposal) {
        if self.takes_part() {
            self.proposals.hold(now, proposal);
        } else {
            self.proposals.fail(proposal.reply, self.why_not());
        }
    }

    /// Wakes `waiter` when this member may answer a linearizable read. If that never happens, `waiter` is dropped.
    pub(super) fn read(&mut self, waiter: Waiter) {
        if self.takes_part() {
            self.reads.ask(waiter);
        }
    }

    /// A tick that was due at `due`.
    pub(super) fn tick(&mut self, now: Instant, due: Instant) {
        self.now = now;
        self.shared.ticked(now.duration_since(due));
        if self.takes_part() {
            self.draw_election_timeout();
            self.raw.tick();
            self.answers.tick();
            self.proposals.expire(now);
            self.reads.expire();
        }
    }

    /// Sets raft's election timeout from our world's random numbers: one to two of the configured timeouts, as raft
    /// draws it itself, but by the seed. Raft draws only when it starts to wait.
    fn draw_election_timeout(&mut self) {
        if self.raw.raft.election_elapsed == 0 {
            let ticks = self.settings.election_ticks;
            // The remainder is below `ticks`, so it fits again.
            let more = usize::try_from(self.settings.world.number() % ticks as u64).unwrap_or(0);
            self.raw.raft.set_randomized_election_timeout(ticks + more);
        }
    }

    pub(super) fn report_unreachable(&mut self, id: MemberId) {
        if self.takes_part() {
            self.raw.report_unreachable(id.0);
        }
    }

    pub(super) fn report_snapshot(&mut self, id: MemberId, status: SnapshotStatus) {
        if self.takes_part() {
            let status = match status {
                SnapshotStatus::Finish => raft::SnapshotStatus::Finish,
                SnapshotStatus::Failure => raft::SnapshotStatus::Failure,
            };
            self.raw.report_snapshot(id.0, status);
        }
    }

    /// If this member leads, hands leadership to the voter that has the most entries. Returns whether there is such a
    /// voter.
    pub(super) fn transfer_leadership(&mut self) -> bool {
        if !self.takes_part() || self.raw.raft.state != StateRole::Leader {
            return false;
        }
        let progress = self.raw.raft.prs();
        let voters = progress.iter().filter(|(id, one)| {
            **id != self.settings.member.0 && one.recent_active && progress.conf().voters().contains(**id)
        });
        let Some(to) = voters.max_by_key(|(_, one)| one.matched).map(|(id, _)| *id) else { return false };
        tracing::info!(to = %MemberId(to), "handing leadership over");
        self.raw.transfer_leader(to);
        true
    }

    pub(super) fn is_leader(&self) -> bool {
        self.raw.raft.state == StateRole::Leader
    }

    /// Ends all requests that wait, without an answer.
    pub(super) fn end_waiting(&mut self) {
        self.proposals.halt(self.why_not());
        self.reads.halt();
    }

    /// Syncs the data that were applied without a sync.
    pub(super) fn sync(&mut self) -> Result<(), StoreError> {
        self.raw.mut_store().sync()
    }

    /// Writes, sends and applies everything that the stepped inputs resulted in.
    pub(super) fn turn(&mut self, now: Instant) -> Result<Flow, CoreError> {
        self.now = now;
        if self.suspended {
            return Ok(Flow::Continue);
        }
        if self.is_halted() {
            return self.write_halt().map(|()| Flow::Continue);
        }
        self.watch_quota(now);
        self.submit(now);
        // After the proposals, whose appends tell it too.
        self.tell_if_due(now);
        while self.raw.has_ready() {
            let flow = self.handle_ready()?;
            self.follow_leader();
            if flow == Flow::Removed {
                self.publish();
                return Ok(flow);
            }
            self.watch_quota(now);
            self.submit(now);
        }
        self.time_telling(now);
        self.discard_received();
        self.reconcile_hearsay();
        self.tend_spool(now)?;
        self.cut_log(now)?;
        self.raw.mut_store().sync_if_due(now)?;
        self.publish();
        Ok(Flow::Continue)
    }

    fn handle_ready(&mut self) -> Result<Flow, CoreError> {
        let mut ready = self.raw.ready();
        self.send(raft_rs::messages_to_raftpb(ready.take_messages())?);
        self.save(&mut ready)?;
        self.send(raft_rs::messages_to_raftpb(ready.take_persisted_messages())?);
        for state in ready.take_read_states() {
            self.reads.confirmed(&state.request_ctx, state.index);
        }
        let mut committed = ready.take_committed_entries();
        let mut light = self.raw.advance_append(ready);
        self.send(raft_rs::messages_to_raftpb(light.take_messages())?);
        committed.append(&mut light.take_committed_entries());
        let entries: Vec<Entry> = committed.into_iter().map(raft_rs::entry_to_raftpb).collect::<Result<_, _>>()?;
        let flow = self.apply(entries)?;
        if flow == Flow::Continue {
            let applied = self.raw.store().applied();
            self.raw.advance_apply_to(applied);
            for id in std::mem::take(&mut self.unsent) {
                self.raw.report_snapshot(id, raft::SnapshotStatus::Failure);
            }
        }
        self.reads.applied(self.raw.store().applied());
        Ok(flow)
    }

    /// Writes the snapshot, the entries and the hard state.
    fn save(&mut self, ready: &mut raft::Ready) -> Result<(), CoreError> {
        let (entries, hard_state, sync) = (ready.take_entries(), ready.hs().cloned(), ready.must_sync());
        if ready.snapshot().is_empty() {
            return Ok(self.raw.mut_store().save(entries, hard_state, sync)?);
        }
        let metadata = ready.snapshot().get_metadata().clone();
        let place = self.received.iter().position(|body| (body.index, body.term) == (metadata.index, metadata.term));
        let body = place.map(|place| self.received.swap_remove(place)).ok_or(CoreError::NoSnapshot)?;
        let before = self.raw.mut_store().install(&metadata, &body.membership, body.incoming, entries, hard_state)?;
        self.discard(before);
        tracing::info!(index = body.index, term = body.term, "installed a snapshot");
        for change in body.membership.peer_changes(&self.membership, self.settings.member) {
            (self.outbox)(TurnOutput::Peer(change));
        }
        self.membership = body.membership;
        self.share_membership();
        Ok(())
    }

    fn send(&mut self, mut messages: Vec<Message>) {
        let is_snapshot = |message: &mut Message| message.r#type == MessageType::MsgSnap as i32;
        for snapshot in messages.extract_if(.., is_snapshot).collect::<Vec<_>>() {
            self.send_snapshot(snapshot);
        }
        if !messages.is_empty() {
            self.note_told(&messages);
            (self.outbox)(TurnOutput::Messages(messages));
        }
    }

    /// Raft has only the metadata. The body is read from the spooled file.
    fn send_snapshot(&mut self, message: Message) {
        let metadata = message.snapshot.as_ref().and_then(|snapshot| snapshot.metadata.as_ref());
        let (index, term) = metadata.map_or((0, 0), |metadata| (metadata.index, metadata.term));
        match self.raw.store().take_outgoing(message.to, index) {
            Some(outgoing) => {
                tracing::debug!(to = %MemberId(message.to), index, term, "sending a snapshot");
                let (first, _) = self.raw.store().first_and_last_index();
                if self.handed.add(message.to, index, first) {
                    self.shared.events().snapshot_overtaken(MemberId(message.to), self.settings.retention.max_bytes);
                }
                (self.outbox)(TurnOutput::Snapshot(Box::new(message), snapshot::body(outgoing)));
            }
            None => self.unsent.push(message.to),
        }
    }

    fn apply(&mut self, entries: Vec<Entry>) -> Result<Flow, CoreError> {
        if entries.is_empty() {
            return Ok(Flow::Continue);
        }
        let (mut applied, mut conf_state, mut term) = (Applied::default(), None, 0);
        for entry in entries {
            term = entry.term;
            let raw = &mut self.raw;
            applied.add(entry, self.settings.member, &mut self.membership, |change| {
                let Some(change) = raft_rs::conf_change_to_apply(change) else { return Ok(()) };
                conf_state = Some(raw.apply_conf_change(&change).map_err(|_| ConfRefusal::Raft)?);
                Ok(())
            });
            // A removed member must not step any more: raft-rs looks for itself among the members, and panics.
            if applied.removed {
                break;
            }
        }
        let membership = applied.membership_changed.then(|| self.membership.to_json());
        let writes = std::mem::take(&mut applied.writes);
        let gone = self.gone(applied.membership_changed);
        let effect = Effect { index: applied.index, writes, conf_state, membership, gone };
        let found = self.raw.mut_store().apply(effect)?;
        if applied.membership_changed {
            self.share_membership();
        }
        for change in applied.peers {
            (self.outbox)(TurnOutput::Peer(change));
        }
        for (key, done) in applied.outcomes {
            let outcome = match done {
                Done::Write(place) => ProposalOutcome::Written { found: found.get(place).copied().unwrap_or(false) },
                Done::Other(outcome) => outcome,
            };
            self.proposals.applied(key, outcome);
        }
        self.proposals.applied_term(term);
        Ok(if applied.removed { Flow::Removed } else { Flow::Continue })
    }

    /// Drops the peers by hearsay that are no members.
    fn reconcile_hearsay(&mut self) {
        let (raft, applied) = (&self.raw.raft, self.raw.store().applied());
        let knows_all = match raft.state {
            StateRole::Leader => raft.commit_to_current_term() && applied >= raft.raft_log.committed,
            _ => raft.leader_id != 0 && applied >= self.leader_commit,
        };
        // A leader determines the commit index itself.
        let heard = self.leader_words + u64::from(raft.state == StateRole::Leader);
        for change in self.settings.hearsay.reconcile(&self.membership, heard, knows_all) {
            (self.outbox)(TurnOutput::Peer(change));
        }
    }

    fn follow_leader(&mut self) {
        let (leader, term) = (self.raw.raft.leader_id, self.raw.raft.term);
        if leader == self.leader {
            return;
        }
        if leader == 0 {
            tracing::info!(lost = %MemberId(self.leader), term, "no leader");
        } else {
            tracing::info!(leader = %MemberId(leader), term, "leader");
            self.shared.update(|status| status.leader_changes_seen += 1);
        }
        self.leader = leader;
        self.reads.leader_changed();
    }
}

#[cfg(test)]
mod tests;
