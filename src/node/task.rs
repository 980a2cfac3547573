//! The task that owns raft. Every input to raft comes through one queue, and inputs share turns.
//!
//! It has a thread of its own, because it waits for the disk. Its callers may wait for it, but it waits for nothing but
//! the disk: outgoing messages go to the transport, which never blocks.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, mpsc, oneshot},
    time::{Instant, MissedTickBehavior, interval, interval_at},
};
use tokio_util::sync::CancellationToken;

use super::{
    proposals::Proposal,
    reads::Waiter,
    ready::{Core, CoreError, Flow, NotTaken},
    snapshot::Received,
};
use crate::{
    id::{Impostor, Incarnation, MemberId},
    transport::raft::{Judgement, Rejected, Rejection, SnapshotStatus, Source, Unheard},
    wire::raftpb::Message,
    world::World,
};

/// The most inputs in the queue: batches of the transport, at most two for each peer, and requests of clients.
const QUEUE: usize = 1024;
/// The most inputs that are taken in one turn.
const TAKEN_AT_ONCE: usize = 256;
/// How often a member whose disk cannot be written tries again.
const RETRY: Duration = Duration::from_secs(1);
/// How long a removed member waits before it stops, so that its last messages leave (etcd's `stopWithDelay`). For as
/// long, a refused member answers the others' dials, so that they notice and can say so.
const FAREWELL: Duration = Duration::from_secs(1);

/// Why a member stopped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Stopped {
    /// It was asked to stop.
    #[error("stopped")]
    Asked,
    /// It was removed from the cluster, for ever.
    #[error("this member was removed from the cluster; its ID is never used again")]
    Removed,
    /// The others do not hear it: it was started from another data directory than before, or from an old copy.
    #[error(
        "this member was started from {0}: it may lack what it has acknowledged, so no member hears it; \
         remove it from the cluster, and add it anew with an empty data directory"
    )]
    Refused(Impostor),
    /// The data on its disk are inconsistent.
    #[error("cannot go on: {0}")]
    Failed(String),
}

/// An input to the raft task.
pub(super) enum Input {
    /// Messages from a peer.
    Messages { from: MemberId, source: Source, batch: Vec<Message>, reply: oneshot::Sender<Result<(), Rejected>> },
    /// The envelope of a snapshot from a peer, before its body.
    Envelope(MemberId, Box<Message>, oneshot::Sender<Result<Judgement, Rejected>>),
    /// A snapshot from a peer, whose body is complete.
    Snapshot(MemberId, Box<Message>, Box<Received>, oneshot::Sender<Result<(), Rejected>>),
    /// A proposal of a client.
    Propose(Proposal),
    /// A client that waits to read.
    Read(Waiter),
    /// A start of a member that has answered our dial.
    Meet { id: MemberId, told: Incarnation, reply: oneshot::Sender<Result<(), Unheard>> },
}

/// Reports to raft from tasks that must not wait. The newest one of each member counts, and each member is there once.
#[derive(Debug, Default)]
pub(super) struct Reports {
    told: Mutex<BTreeMap<MemberId, PeerReport>>,
    refused: OnceLock<Impostor>,
    news: Notify,
}

#[derive(Clone, Copy, Debug, Default)]
struct PeerReport {
    unreachable: bool,
    snapshot: Option<SnapshotStatus>,
}

impl Reports {
    pub(super) fn unreachable(&self, id: MemberId) {
        self.change(id, |report| report.unreachable = true);
    }

    pub(super) fn snapshot(&self, id: MemberId, status: SnapshotStatus) {
        self.change(id, |report| report.snapshot = Some(status));
    }

    /// The others do not hear this member.
    pub(super) fn refused(&self, why: Impostor) {
        // The first refusal counts.
        let _ = self.refused.set(why);
        self.news.notify_one();
    }

    fn change(&self, id: MemberId, change: impl FnOnce(&mut PeerReport)) {
        change(self.told.lock().unwrap_or_else(PoisonError::into_inner).entry(id).or_default());
        self.news.notify_one();
    }

    fn take(&self) -> BTreeMap<MemberId, PeerReport> {
        std::mem::take(&mut *self.told.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Why a member stopped, once it has. The first reason counts.
#[derive(Clone, Debug, Default)]
pub(super) struct MemberEnd {
    reason: Arc<Mutex<Option<Stopped>>>,
    ended: CancellationToken,
}

impl MemberEnd {
    pub(super) fn set(&self, reason: Stopped) {
        self.reason.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(reason);
        self.ended.cancel();
    }

    /// Why it ended, if it has.
    pub(super) fn reason(&self) -> Option<Stopped> {
        self.reason.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) async fn wait(&self) -> Stopped {
        self.ended.cancelled().await;
        self.reason().unwrap_or(Stopped::Asked)
    }
}

/// Sets the reason when a thread ends without one, because then it has panicked.
struct Panicked(MemberEnd);

impl Drop for Panicked {
    fn drop(&mut self) {
        self.0.set(Stopped::Failed("raft panicked; its message is above".to_owned()));
    }
}

/// The task.
pub(super) struct Task {
    core: Core,
    inbox: mpsc::Receiver<Input>,
    reports: Arc<Reports>,
    tick: Duration,
    patience: Duration,
    stop: CancellationToken,
}

impl Task {
    /// The queue for the inputs of a task.
    pub(super) fn queue() -> (mpsc::Sender<Input>, mpsc::Receiver<Input>) {
        mpsc::channel(QUEUE)
    }

    /// A task that ticks every `tick`, and hands leadership over within `patience` when it is stopped.
    pub(super) fn new(
        core: Core,
        inbox: mpsc::Receiver<Input>,
        reports: Arc<Reports>,
        tick: Duration,
        patience: Duration,
        stop: CancellationToken,
    ) -> Self {
        Self { core, inbox, reports, tick, patience, stop }
    }

    /// Runs the task on a thread of its own. `end` gets the reason for its end, and the token is cancelled at its end.
    pub(super) fn spawn(self, end: MemberEnd, world: &World) -> std::io::Result<CancellationToken> {
        let ended = CancellationToken::new();
        let guard = ended.clone().drop_guard();
        world.dedicate("raft", async move {
            let _ended = guard;
            let panicked = Panicked(end);
            let reason = self.run().await;
            panicked.0.set(reason);
        })?;
        Ok(ended)
    }

    async fn run(mut self) -> Stopped {
        let mut outcome = self.turns().await;
        while let Err(error) = &outcome
            && error.is_of_the_disk()
        {
            self.core.suspend(error);
            outcome = match self.wait_for_the_disk().await {
                Ok(Some(Flow::Continue)) => self.turns().await,
                Ok(Some(flow)) => Ok(flow),
                // It was told to stop. There is nothing to make durable.
                Ok(None) => return Stopped::Asked,
                Err(error) => Err(error),
            };
        }
        self.core.end_waiting();
        match outcome {
            Ok(Flow::Continue) => match self.core.sync() {
                Ok(()) => Stopped::Asked,
                Err(error) => failed(&error.into()),
            },
            Ok(Flow::Refused(why)) => {
                self.core.withdraw(&Stopped::Refused(why).to_string());
                tokio::time::sleep(FAREWELL).await;
                Stopped::Refused(why)
            }
            Ok(Flow::Removed) => {
                tracing::warn!("this member was removed from the cluster: stopping");
                // The others still need to hear what was committed.
                tokio::time::sleep(FAREWELL).await;
                Stopped::Removed
            }
            Err(error) => failed(&error),
        }
    }

    /// Refuses all inputs until the store can be opened again, or fails for another reason than its disk. `None` if it
    /// was stopped.
    async fn wait_for_the_disk(&mut self) -> Result<Option<Flow>, CoreError> {
        let mut clock = interval_at(Instant::now() + RETRY, RETRY);
        // An attempt may take long on a failing disk. The next one still comes a whole interval later.
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut inputs = Vec::with_capacity(TAKEN_AT_ONCE);
        loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return Ok(None),
                _ = clock.tick() => match self.core.resume() {
                    Err(error) if error.is_of_the_disk() => tracing::debug!(%error, "the disk cannot be written yet"),
                    outcome => return outcome.map(Some),
                },
                () = self.reports.news.notified() => match self.reports.refused.get() {
                    Some(why) => return Ok(Some(Flow::Refused(*why))),
                    None => drop(self.reports.take()),
                },
                count = self.inbox.recv_many(&mut inputs, TAKEN_AT_ONCE) => if count == 0 {
                    return Ok(None);
                },
            }
            for input in inputs.drain(..) {
                self.take(input)?;
            }
        }
    }

    /// Runs turns until it is stopped, or cannot go on.
    async fn turns(&mut self) -> Result<Flow, CoreError> {
        let mut clock = interval(self.tick);
        // After a slow sync, missed ticks are not made up for, because they would look like a silent leader.
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut inputs = Vec::with_capacity(TAKEN_AT_ONCE);
        let mut handing_over = None;
        // One timer that is set again only after it has fired: a new one for each turn would wake the runtime.
        let mut telling = std::pin::pin!(tokio::time::sleep(Duration::ZERO));
        let mut is_telling = false;
        loop {
            let stopping = handing_over.is_some();
            tokio::select! {
                biased;
                // In this order: a stop is not held up by inputs, and a full queue does not hold up the clock.
                () = self.stop.cancelled(), if !stopping => {
                    handing_over = Some(Instant::now());
                    if !self.core.transfer_leadership() {
                        return Ok(Flow::Continue);
                    }
                }
                due = clock.tick() => self.core.tick(Instant::now(), due),
                () = self.reports.news.notified() => self.take_reports(),
                () = &mut telling, if is_telling => is_telling = false,
                count = self.inbox.recv_many(&mut inputs, TAKEN_AT_ONCE) => if count == 0 {
                    return Ok(Flow::Continue);
                },
            }
            for input in inputs.drain(..) {
                if self.take(input)? == Flow::Removed {
                    return Ok(Flow::Removed);
                }
            }
            if self.core.turn(Instant::now())? == Flow::Removed {
                return Ok(Flow::Removed);
            }
            if let (false, Some(at)) = (is_telling, self.core.tells_at()) {
                telling.as_mut().reset(at);
                is_telling = true;
            }
            if let Some(why) = self.reports.refused.get() {
                return Ok(Flow::Refused(*why));
            }
            if handing_over.is_some_and(|since| !self.core.is_leader() || since.elapsed() > self.patience) {
                return Ok(Flow::Continue);
            }
        }
    }

    fn take(&mut self, input: Input) -> Result<Flow, CoreError> {
        match input {
            Input::Messages { from, source, batch, reply } => {
                let mut rejected = Vec::new();
                for (position, message) in batch.into_iter().enumerate() {
                    if self.core.must_turn_before(message.r#type) && self.core.turn(Instant::now())? == Flow::Removed {
                        return Ok(Flow::Removed);
                    }
                    let kind = message.r#type;
                    if let Err(NotTaken { kind: whose, why, .. }) = self.core.step(from, source, message) {
                        tracing::debug!(peer = %from, kind, why, "message not taken");
                        rejected.push(Rejection { position, kind: whose, why });
                    }
                }
                answer(reply, rejected);
            }
            Input::Envelope(from, message, reply) => {
                let judged = self.core.judge_snapshot(from, *message);
                let _ = reply.send(judged.map_err(|not_taken| Rejected(vec![rejection(not_taken)])));
            }
            Input::Snapshot(from, message, body, reply) => {
                let taken = self.core.step_snapshot(from, *message, *body);
                // Its sender hears of it when it is installed.
                if self.core.turn(Instant::now())? == Flow::Removed {
                    return Ok(Flow::Removed);
                }
                answer(reply, taken.map_err(rejection).err().into_iter().collect());
            }
            Input::Propose(proposal) => self.core.propose(Instant::now(), proposal),
            Input::Read(waiter) => self.core.read(waiter),
            Input::Meet { id, told, reply } => {
                let _ = reply.send(self.core.meet(id, &told)?);
            }
        }
        Ok(Flow::Continue)
    }

    fn take_reports(&mut self) {
        for (id, report) in self.reports.take() {
            if report.unreachable {
                self.core.report_unreachable(id);
            }
            if let Some(status) = report.snapshot {
                self.core.report_snapshot(id, status);
            }
        }
    }
}

fn rejection(NotTaken { kind, why, .. }: NotTaken) -> Rejection {
    Rejection { position: 0, kind, why }
}

fn answer(reply: oneshot::Sender<Result<(), Rejected>>, rejected: Vec<Rejection>) {
    let _ = reply.send(if rejected.is_empty() { Ok(()) } else { Err(Rejected(rejected)) });
}

fn failed(error: &CoreError) -> Stopped {
    tracing::error!(%error, "this member takes no further part");
    Stopped::Failed(error.to_string())
}
