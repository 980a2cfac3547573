//! The implementation of [`Raft`], by which everything from the transport comes in.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};
use tokio_util::task::TaskTracker;

use super::{
    guard,
    incarnations::IncarnationVerdict,
    snapshot::Received,
    status::NodeState,
    storage::IncomingBuilder,
    task::{Input, MemberEnd, Reports, Stopped},
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
    pub(super) shared: Arc<NodeState>,
    pub(super) snapshots: SnapshotStore,
    pub(super) builder: IncomingBuilder,
    /// What waits for the disk. A member that stops waits for it to end.
    pub(super) disk: TaskTracker,
    pub(super) end: MemberEnd,
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
        if (verdict, source) != (IncarnationVerdict::New, Source::Member) {
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
    /// a thread that may wait for the disk, before raft hears of it. If nobody waits for that any more, because this
    /// member stops or the connection broke, the thread ends, and removes what it has made.
    async fn process_snapshot(&self, from: MemberId, message: Message) -> Result<(), Rejected> {
        let Some(metadata) = message.snapshot.as_ref().and_then(|snapshot| snapshot.metadata.as_ref()) else {
            return Err(Rejected::one("a snapshot without metadata"));
        };
        let (path, cluster, index) = (self.snapshots.path(metadata.index), self.cluster.0, metadata.index);
        let snapshot = message.snapshot.clone().unwrap_or_default();
        let (files, builder) = (self.world.files().clone(), self.builder.clone());
        let (told, checked) = oneshot::channel();
        let work = self.disk.track_future(async move {
            let taken = Received::take(&files, &path, cluster, &snapshot, &builder, || !told.is_closed());
            // If nobody waits any more, it is dropped here, where that may take a while.
            drop(told.send(taken));
        });
        drop(self.world.spawn_blocking(work));
        match checked.await {
            Ok(Ok(body)) => {
                self.hand_in(1, |reply| Input::Snapshot(from, Box::new(message), Box::new(body), reply)).await
            }
            Ok(Err(error)) => {
                tracing::debug!(peer = %from, index, %error, "a received snapshot is not accepted");
                Err(Rejected::one(error.to_string()))
            }
            Err(_) => Err(stopped(1, "it could not be checked")),
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

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::{
        node::{
            config::Config, hearsay::Hearsay, members::Membership, snapshot, status::RaftStatus, storage::Store,
            vouching::Vouching,
        },
        telemetry::Events,
        wire::raftpb::{ConfState, Snapshot, SnapshotMetadata},
    };

    const CLUSTER: ClusterId = ClusterId(9);

    /// The inlet of a member in this directory, and what comes out of it.
    fn inlet(directory: &std::path::Path, store: &Store, world: &World) -> (Inlet, mpsc::Receiver<Input>) {
        let (inbox, queue) = mpsc::channel(8);
        let shared = NodeState::new(RaftStatus::default(), Membership::default(), Events::default());
        let (doubted, _) = Vouching::new(&Config::default(), CLUSTER, shared.clone(), &Hearsay::default());
        let inlet = Inlet {
            cluster: CLUSTER,
            inbox,
            reports: Arc::default(),
            shared,
            snapshots: SnapshotStore::open_in(world.clone(), directory.join("snap")).expect("a store"),
            builder: store.builder(0),
            disk: TaskTracker::new(),
            end: MemberEnd::default(),
            patience: Duration::ZERO,
            world: world.clone(),
            doubted,
        };
        (inlet, queue)
    }

    /// A snapshot that was received completely, and its message.
    fn received(inlet: &Inlet) -> Message {
        let membership = Membership::parse(br#"{"members":[{"id":1,"peerURLs":["http://h:1"]}],"removed":[]}"#);
        let body = snapshot::made(CLUSTER.0, 2, 3, &membership.expect("valid"));
        std::fs::write(inlet.snapshots.path(2), body).expect("room");
        let conf_state = Some(ConfState { voters: vec![1], ..ConfState::default() });
        let metadata = Some(SnapshotMetadata { conf_state, index: 2, term: 3 });
        let snapshot = Some(Box::new(Snapshot { metadata, ..Snapshot::default() }));
        Message { r#type: MessageType::MsgSnap as i32, from: 2, to: 1, snapshot, ..Message::default() }
    }

    fn files(directory: &std::path::Path) -> Vec<String> {
        let entries = std::fs::read_dir(directory)
            .expect("a directory")
            .chain(std::fs::read_dir(directory.join("snap")).expect("a directory"));
        let mut names: Vec<String> =
            entries.map(|entry| entry.expect("a name").file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    #[tokio::test]
    async fn a_member_that_stops_waits_for_the_end_of_what_is_made_of_a_snapshot() {
        let directory = tempfile::tempdir().expect("a directory");
        let world = World::default().with_one_thread();
        let store = Store::open(world.files(), directory.path(), 2).expect("a new store");
        let (inlet, mut queue) = inlet(directory.path(), &store, &world);
        let message = received(&inlet);
        // The future is dropped as by a transport that stops. On one thread, the work has not begun by then.
        assert!(inlet.process(MemberId(2), Source::Anyone, vec![message]).now_or_never().is_none());
        assert!(!inlet.disk.is_empty(), "it is waited for");
        inlet.disk.close();
        timeout(Duration::from_secs(60), inlet.disk.wait()).await.expect("it ends");
        assert!(queue.try_recv().is_err(), "raft does not hear of it");
        assert_eq!(files(directory.path()), ["log", "node.redb", "snap"]);
    }
}
