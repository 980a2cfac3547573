//! Another member: its queues, its link, and what is known about it. Its tasks are [elsewhere](super::tasks).

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use http::{HeaderMap, HeaderValue, StatusCode};
use tokio::time::Instant;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    dial::{
        client::Client,
        identity::Identity,
        urls::{PeerUrl, UrlPicker},
    },
    id::MemberId,
    ledger::{Channel, Direction, DropReason, Link, Live, LossReason, PerDirection, PerStream},
    telemetry::{self, Events, Origin, Sampler, TraceContext},
    transport::{
        appends::Acknowledgement,
        inbox::{Inbox, QueueKind, Tracer},
        incarnation::IncarnationState,
        limits::Limits,
        outbox::{Handover, Notices, Outbox},
        pace::Pace,
        probe::ProbeConfig,
        raft::{Critical, Raft, SnapshotStatus, Source},
        redial::Redial,
        signal::Signal,
        status::{PeerRole, PeerStatus},
    },
    wire::{
        headers,
        message::Decoded,
        raftpb::Message,
        stream::{StreamDecoder, StreamId, StreamKind},
    },
    world::World,
};

/// The parts that all peers of a transport share.
pub(crate) struct PeerContext {
    pub(crate) identity: Arc<Identity>,
    /// Our incarnation, in the form of a header of answers.
    pub(super) incarnation: Option<HeaderValue>,
    pub(crate) raft: Arc<dyn Raft>,
    pub(crate) client: Client,
    pub(crate) limits: Limits,
    /// Whether a stranger's URLs are dialled wherever they lead.
    pub(crate) skips_url_verification: bool,
    pub(crate) sampler: Sampler,
    pub(crate) probe: ProbeConfig,
    pub(crate) tasks: TaskTracker,
    pub(crate) runtime: tokio::runtime::Handle,
    pub(crate) removed: AtomicBool,
    pub(crate) events: Events,
    /// How fast snapshots go out.
    pub(crate) pace: Arc<Pace>,
    pub(crate) world: World,
}

impl PeerContext {
    /// Whether an answer appears to come from a member of our cluster. etcd's members send their version with a
    /// stream's answer, and their cluster with every answer. Another process at a peer's old address may answer
    /// anything, and must not be able to end this member for good.
    pub(crate) fn is_of_a_member(&self, answer: &HeaderMap) -> bool {
        match answer.get(headers::X_ETCD_CLUSTER_ID) {
            Some(_) => self.names_our_cluster(answer),
            None => answer.contains_key(headers::X_SERVER_VERSION),
        }
    }

    /// Whether an answer carries our cluster's ID.
    pub(crate) fn names_our_cluster(&self, answer: &HeaderMap) -> bool {
        let cluster = answer.get(headers::X_ETCD_CLUSTER_ID).and_then(|cluster| cluster.to_str().ok());
        cluster.is_some_and(|cluster| cluster == self.identity.cluster.to_string())
    }

    /// A peer says that this member was removed. The application is told once.
    pub(crate) fn removed(&self, by: MemberId) {
        if !self.removed.swap(true, Ordering::Relaxed) {
            self.events.member_removed(by);
            self.raft.critical(Critical::MemberRemoved { by });
        }
    }
}

/// Another member of the cluster.
pub(crate) struct Peer {
    pub(crate) id: MemberId,
    pub(crate) outbox: Outbox,
    pub(crate) inbox: Inbox,
    pub(crate) urls: UrlPicker,
    pub(crate) redial: Redial,
    /// Which incarnation of it is heard.
    pub(super) incarnation: IncarnationState,
    /// Ends this peer's tasks.
    pub(crate) stop: CancellationToken,
    pub(crate) shared: Arc<PeerContext>,
    link: Mutex<Live<Link>>,
    /// The place in the traces where each open stream was attached, by kind and direction.
    attached: Mutex<PerStream<PerDirection<Option<TraceContext>>>>,
    /// Whether the peer keeps the received part of a snapshot, as it said when it last opened a stream to us.
    resumes: AtomicBool,
    /// Counts how often its streams have to be dialled again.
    pub(super) reset: Signal,
}

impl Peer {
    /// Makes a peer. Its tasks are not started yet.
    pub(crate) fn new(
        id: MemberId,
        urls: Vec<PeerUrl>,
        stop: CancellationToken,
        shared: Arc<PeerContext>,
    ) -> Arc<Self> {
        Arc::new(Self {
            id,
            outbox: Outbox::new(&shared.world, &shared.pace),
            inbox: Inbox::new(&shared.world),
            urls: UrlPicker::new(urls),
            redial: Redial::new(shared.probe.is_on(), &shared.world),
            incarnation: IncarnationState::default(),
            stop,
            shared,
            link: Mutex::default(),
            attached: Mutex::default(),
            resumes: AtomicBool::new(false),
            reset: Signal::default(),
        })
    }

    /// Checks whether a member's answer to a POST says that this one was removed.
    pub(crate) fn look_for_removal(&self, status: StatusCode, text: &str, of_a_member: bool) {
        if status == StatusCode::FORBIDDEN && text.contains("removed") && of_a_member {
            self.shared.removed(self.id);
        }
    }

    /// Traces the messages that come from this origin.
    pub(crate) fn tracer(&self, origin: Origin) -> Tracer<'_> {
        Tracer { sampler: &self.shared.sampler, world: &self.shared.world, origin }
    }

    /// Starts a task of this peer, from any thread. The transport waits for it when it stops.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.shared.tasks.spawn_on(task, &self.shared.runtime);
    }

    /// Queues messages for this peer, as described at [`Transport::send`](super::Transport::send). Returns how many
    /// workers of the pipeline have to be started.
    #[must_use]
    pub(super) fn send(&self, messages: &[Message], now: Instant) -> usize {
        let Handover { queue_full, workers, notices } =
            self.outbox.push(messages, now, &self.shared.limits, &self.shared.sampler);
        if queue_full > 0 {
            self.link(|link| link.send_failed(queue_full));
            tracing::trace!(peer = %self.id, messages = queue_full, "queue full, messages dropped");
        }
        self.give(notices);
        workers
    }

    /// Gives the notices that the outbox could not give under its lock: to waiting streams, and to raft.
    fn give(&self, mut notices: Notices) {
        notices.wake();
        if notices.unreachable {
            self.shared.raft.report_unreachable(self.id);
        }
        for _ in 0..notices.snapshots_failed {
            self.shared.raft.report_snapshot(self.id, SnapshotStatus::Failure);
        }
    }

    /// Puts messages of a stream into the receive queues. Returns the queues that need a task to empty them.
    pub(super) fn received(
        &self,
        channel: Channel,
        source: Source,
        decoded: &mut Decoded,
        origin: Origin,
    ) -> impl Iterator<Item = QueueKind> + use<> {
        // Answers to appends come on the other stream (etcd's `peer.pick`).
        if channel != Channel::MsgApp {
            self.acknowledged(&decoded.messages);
        }
        let arrival = self.inbox.push(channel, source, decoded, &self.shared.limits, &self.tracer(origin));
        if arrival.full > 0 {
            self.link(|link| link.receive_failed(arrival.full));
            tracing::trace!(peer = %self.id, messages = arrival.full, "receive queue full, messages dropped");
        }
        arrival.idle()
    }

    /// Finds the answers to appends among the peer's messages.
    pub(crate) fn acknowledged(&self, messages: &[Message]) {
        if let Some(answer) = Acknowledgement::of(messages, self.id.0) {
            self.outbox.acknowledged(answer);
        }
    }

    /// Counts something that the peer sent and that could not be read.
    pub(crate) fn unreadable(&self, channel: Channel, kind: &'static str) {
        self.inbox.unreadable(channel, kind);
        self.link(|link| link.receive_failed(1));
    }

    /// A decoder for a stream of this kind that the peer writes.
    pub(crate) fn decoder(&self, kind: StreamKind) -> StreamDecoder {
        StreamDecoder::new(kind, self.shared.identity.member, self.id, self.shared.limits.frames())
    }

    /// Makes a new stream the outgoing one, and returns the number of the attachment. `None` if the peer is closed.
    pub(crate) fn attach(&self, kind: StreamKind, id: Option<StreamId>, origin: &Origin) -> Option<u64> {
        let local = self.shared.identity.member;
        // Only probes ask what became of its messages.
        let id = id.filter(|_| self.shared.probe.is_on());
        let (attachment, notices) = self.outbox.attach(kind, local, self.id, origin.address, id);
        self.give(notices);
        let (attachment, replaced) = attachment?;
        if replaced {
            self.stream_lost(kind, Direction::Out, LossReason::Replaced, None);
        }
        self.link(|link| link.stream_opened(kind, Direction::Out, self.outbox.open()));
        self.trace_attached(kind, Direction::Out, origin);
        self.shared.events.stream_opened(self.id, kind.channel(), Direction::Out, origin.address, replaced);
        self.active();
        Some(attachment)
    }

    /// Records in the traces that a stream is open.
    pub(crate) fn trace_attached(&self, kind: StreamKind, direction: Direction, origin: &Origin) {
        let place = telemetry::stream_attached(&self.shared.world, self.id, kind.channel(), direction, origin);
        self.attached(|attached| attached[kind][direction] = Some(place));
    }

    fn trace_lost(&self, kind: StreamKind, direction: Direction, reason: LossReason) {
        let place = self.attached(|attached| attached[kind][direction].take());
        telemetry::stream_lost(self.id, kind.channel(), direction, reason, place);
    }

    fn attached<T>(&self, with: impl FnOnce(&mut PerStream<PerDirection<Option<TraceContext>>>) -> T) -> T {
        with(&mut self.attached.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// An outgoing stream has ended. Does nothing if it was not the current one: the stream that replaced it has
    /// counted its end.
    pub(crate) fn detach(&self, kind: StreamKind, attachment: u64, reason: LossReason) {
        let (current, notices) = self.outbox.detach(kind, attachment);
        self.give(notices);
        if current {
            self.stream_lost(kind, Direction::Out, reason, None);
        }
    }

    /// Counts and reports the end of an open stream.
    pub(crate) fn stream_lost(&self, kind: StreamKind, direction: Direction, reason: LossReason, why: Option<&str>) {
        self.link(|link| link.stream_lost(kind, direction, reason, self.outbox.open()));
        self.trace_lost(kind, direction, reason);
        self.shared.events.stream_lost(self.id, kind.channel(), direction, reason, why);
        if reason.is_failure() {
            self.inactive(why.unwrap_or(reason.label()));
        }
    }

    /// Closes the peer's streams in both directions, so that they are dialled again.
    pub(crate) fn reset_streams(&self) {
        let (open, notices) = self.outbox.detach_all();
        self.give(notices);
        for (kind, _) in open.iter().filter(|(_, open)| **open) {
            self.stream_lost(kind, Direction::Out, LossReason::Stopped, None);
        }
        self.reset.notify();
    }

    /// The peer sent a request, so it is reachable, and no wait before a dial is needed.
    pub(crate) fn heard(&self) {
        self.redial.up();
    }

    /// Whether the peer resumes snapshots.
    pub(super) fn resumes_snapshots(&self) -> bool {
        self.resumes.load(Ordering::Relaxed)
    }

    /// Sets whether the peer resumes snapshots.
    pub(super) fn set_resumes_snapshots(&self, resumes: bool) {
        self.resumes.store(resumes, Ordering::Relaxed);
    }

    /// Reads or changes the state of the link.
    pub(crate) fn link<T>(&self, with: impl FnOnce(&mut Live<Link>) -> T) -> T {
        with(&mut self.link.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A stream or POST succeeded (etcd's `peerStatus.activate`).
    pub(crate) fn active(&self) {
        if self.link(|link| link.succeeded(self.shared.world.now())) {
            self.shared.events.peer_active(self.id);
        }
    }

    /// A stream or POST failed (etcd's `peerStatus.deactivate`).
    pub(crate) fn inactive(&self, why: &str) {
        if self.link(|link| link.failed(why, self.shared.world.now())) {
            self.shared.events.peer_inactive(self.id, why);
        }
    }

    /// Sets whether all messages to and from the peer are dropped, while its connections stay.
    pub(crate) fn set_paused(&self, paused: bool) {
        self.outbox.set_paused(paused);
        self.inbox.set_paused(paused);
    }

    /// Ends this peer. Queued messages are dropped for this reason.
    pub(crate) fn close(&self, reason: DropReason) {
        let (open, notices) = self.outbox.close(reason);
        self.give(notices);
        for (kind, _) in open.iter().filter(|(_, open)| **open) {
            self.stream_lost(kind, Direction::Out, LossReason::Stopped, None);
        }
        self.stop.cancel();
        self.inbox.close();
    }

    /// The status of the peer.
    pub(crate) fn status(&self, name: String) -> PeerStatus {
        let open = self.outbox.open();
        let link = self.link(|link| link.copy(open));
        PeerStatus {
            id: self.id,
            role: PeerRole::Peer,
            name,
            urls: self.urls.all(),
            paused: self.outbox.is_paused(),
            outgoing: self.outbox.ledger(),
            incoming: self.inbox.ledger(),
            link,
            incarnation: self.incarnation.status(),
        }
    }
}
