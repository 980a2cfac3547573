//! The implementation of [`Raft`], by which everything from the transport comes in.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::{
    guard,
    incarnations::Verdict,
    snapshot::Received,
    status::Shared,
    storage::Builder,
    task::{End, Input, Reports, Stopped},
    vouching::Doubted,
};
use crate::{
    id::{ClusterId, Incarnation, MemberId},
    transport::{
        raft::{
            Critical, Judgement, Members, Raft, Rejected, Rejection, RejectionKind, SnapshotStatus, Source, Unheard,
        },
        snapshot::store::SnapshotStore,
    },
    wire::raftpb::{Message, MessageType},
    world::World,
};

/// Passes what the transport brings to the raft task.
pub(super) struct Inlet {
    pub(super) cluster: ClusterId,
    pub(super) inbox: mpsc::Sender<Input>,
    pub(super) reports: Arc<Reports>,
    pub(super) shared: Arc<Shared>,
    pub(super) snapshots: SnapshotStore,
    pub(super) builder: Builder,
    pub(super) end: End,
    /// How long a proposal may wait for a leader. It is shorter than the time for which its sender waits for the
    /// answer.
    pub(super) patience: Duration,
    pub(super) world: World,
    pub(super) doubted: Doubted,
}

#[async_trait]
impl Raft for Inlet {
    async fn process(&self, from: MemberId, source: Source, mut batch: Vec<Message>) -> Result<(), Rejected> {
        if batch.len() == 1 && batch[0].r#type == MessageType::MsgSnap as i32 {
            let message = batch.remove(0);
            return self.process_snapshot(from, message).await;
        }
        if batch.iter().all(|message| message.r#type == MessageType::MsgProp as i32) {
            self.wait_for_leader().await;
        }
        if source == Source::Anyone && batch.iter().any(guard::tells_a_removal) {
            self.doubted.ask_about(from);
        }
        let count = batch.len();
        self.hand_in(count, |reply| Input::Messages { from, source, batch, reply }).await
    }

    async fn judge_snapshot(&self, from: MemberId, envelope: &Message) -> Result<Judgement, Rejected> {
        let envelope = Box::new(envelope.clone());
        self.hand_in(1, |reply| Input::Envelope(from, envelope, reply)).await
    }

    async fn meet(&self, id: MemberId, told: Incarnation, source: Source) -> Result<(), Unheard> {
        let verdict = self.shared.known(id).judge(&told);
        if (verdict, source) != (Verdict::New, Source::Member) {
            return verdict.of_a_request();
        }
        let (reply, answer) = oneshot::channel();
        let stopped = || Unheard::Failed("this member has stopped".to_owned());
        self.inbox.send(Input::Meet { id, told, reply }).await.map_err(|_| stopped())?;
        answer.await.unwrap_or_else(|_| Err(stopped()))
    }

    fn is_removed(&self, id: MemberId) -> bool {
        self.shared.membership.load().is_removed(id)
    }

    fn report_unreachable(&self, id: MemberId) {
        self.reports.unreachable(id);
    }

    fn report_snapshot(&self, id: MemberId, status: SnapshotStatus) {
        self.reports.snapshot(id, status);
    }

    fn members(&self) -> Option<Members> {
        self.shared.membership.load().members()
    }

    fn has_met(&self, id: MemberId) -> bool {
        let known = self.shared.known(id);
        known.met.is_some() || known.directory.is_some()
    }

    fn critical(&self, error: Critical) {
        match error {
            Critical::MemberRemoved { .. } => {
                tracing::error!(%error, "stopping");
                self.end.set(Stopped::Removed);
            }
            Critical::IncarnationRefused { why, .. } => self.reports.refused(why),
        }
    }
}

impl Inlet {
    /// Takes a snapshot whose body the transport has saved. The body is read to its end into a database beside the store, on
    /// a thread that may wait for the disk, before raft hears of it.
    async fn process_snapshot(&self, from: MemberId, message: Message) -> Result<(), Rejected> {
        let Some(metadata) = message.snapshot.as_ref().and_then(|snapshot| snapshot.metadata.as_ref()) else {
            return Err(Rejected::one("a snapshot without metadata"));
        };
        let (path, cluster, index) = (self.snapshots.path(metadata.index), self.cluster.0, metadata.index);
        let snapshot = message.snapshot.clone().unwrap_or_default();
        let (files, builder) = (self.world.files().clone(), self.builder.clone());
        let checked = self.world.blocking(move || Received::take(&files, &path, cluster, &snapshot, &builder));
        match checked.await {
            Ok(Ok(body)) => {
                self.hand_in(1, |reply| Input::Snapshot(from, Box::new(message), Box::new(body), reply)).await
            }
            Ok(Err(error)) => {
                tracing::debug!(peer = %from, index, %error, "a received snapshot is not accepted");
                Err(Rejected::one(error.to_string()))
            }
            Err(error) => Err(stopped(1, &error.to_string())),
        }
    }

    /// Waits for a leader: a member that has just lost its leader will usually have another one within an election.
    async fn wait_for_leader(&self) {
        let mut changes = self.shared.leader_changes();
        let led = async {
            while !self.shared.has_leader() {
                changes.changed().await;
            }
        };
        // Without a leader, the proposal is refused when it is stepped.
        let _ = timeout(self.patience, led).await;
    }

    async fn hand_in<T>(
        &self,
        count: usize,
        input: impl FnOnce(oneshot::Sender<Result<T, Rejected>>) -> Input,
    ) -> Result<T, Rejected> {
        let (reply, answer) = oneshot::channel();
        if self.inbox.send(input(reply)).await.is_err() {
            return Err(stopped(count, "this member has stopped"));
        }
        answer.await.unwrap_or_else(|_| Err(stopped(count, "this member has stopped")))
    }
}

fn stopped(count: usize, why: &str) -> Rejected {
    let rejection = |position| Rejection { position, kind: RejectionKind::Failed, why: why.to_owned() };
    Rejected((0..count).map(rejection).collect())
}
