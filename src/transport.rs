//! The transport: every peer, what goes to them and what comes from them.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicBool},
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures_util::Stream;
use tokio::{sync::Semaphore, time::Instant};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use crate::{
    dial::{
        client::Client,
        identity::Identity,
        io::IoStatus,
        urls::{PeerUrl, PeerUrlError},
    },
    id::{ClusterId, MemberId},
    ledger::{Channel, DropReason, RejectReason, Tally},
    telemetry::{Events, Origin, Sampler},
    tls::Tls,
    wire::{
        message::message_size,
        probing::{Report, Sight},
        raftpb::{Message, MessageType},
        stream::StreamKind,
        version::{DEFAULT_SERVER, Version},
    },
};

mod appends;
mod inbox;
pub(crate) mod limits;
mod outbox;
mod peer;
mod pipeline;
pub(crate) mod prober;
pub(crate) mod raft;
mod reader;
mod reading;
mod redial;
mod refusals;
pub(crate) mod snapshot;
pub(crate) mod status;
mod summary;
mod unread;
pub(crate) mod writer;

use inbox::Inbox;
use limits::Limits;
use peer::{Peer, Shared};
use prober::ProbeConfig;
use raft::{Members, Raft, Rejected, SnapshotStatus};
use refusals::Untold;
use snapshot::{SnapshotBody, store::SnapshotStore};
use status::{PeerStatus, TransportStatus};
use writer::StreamBody;

/// Why a transport or a peer could not be built.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// A list of URLs without one that can be dialled.
    #[error(transparent)]
    Url(#[from] PeerUrlError),
    /// An ID that cannot be a peer's.
    #[error("{0} cannot be a peer: it is zero or this member's own ID")]
    NotAPeer(MemberId),
    /// No such peer.
    #[error("{0} is not a peer")]
    UnknownPeer(MemberId),
    /// The registry refused our metrics.
    #[error("metrics cannot be registered: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// etcd's raft transport. Cheap to clone: every clone is the same transport, which ends when it is stopped, or when
/// its last clone is dropped.
#[derive(Clone)]
pub struct Transport {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    /// Peers and remotes. Read by every `send`, changed with the cluster.
    peers: ArcSwap<HashMap<MemberId, Arc<Peer>>>,
    /// Held while `peers` changes; says whether all are paused and whether the transport has stopped.
    changes: Mutex<Changes>,
    /// What comes from members that are neither peer nor remote.
    strangers: Inbox,
    /// Requests that were not taken and that the log has yet to tell of.
    refusals: Untold,
    unroutable: Mutex<Tally<&'static str>>,
    snapshots: Option<SnapshotStore>,
    receiving: Semaphore,
    receiving_others: Semaphore,
    tls: Option<Tls>,
    started: SystemTime,
    stop: CancellationToken,
    /// Ends the tasks of a transport that nobody stopped.
    _ends: DropGuard,
}

#[derive(Default)]
struct Changes {
    paused: bool,
    stopped: bool,
}

/// Builds a [`Transport`].
pub struct Builder {
    identity: Identity,
    raft: Arc<dyn Raft>,
    tls: Option<Tls>,
    snapshots: Option<SnapshotStore>,
    registry: Option<prometheus::Registry>,
    etcd_metrics: bool,
    limits: Limits,
    probe: ProbeConfig,
    dial_timeout: Duration,
    trace_ratio: f64,
    trace_heartbeats: bool,
    events: Events,
}

impl Builder {
    /// Own peer URLs, told to peers in `X-PeerURLs`. Default: none.
    #[must_use]
    pub fn urls(mut self, urls: Vec<PeerUrl>) -> Self {
        self.identity.urls = urls;
        self
    }

    /// The etcd version that this member speaks as. Default: 3.6.0.
    #[must_use]
    pub fn server_version(mut self, version: Version) -> Self {
        self.identity.server_version = version;
        self
    }

    /// Certificates for `https` peers. Default: none, and such peers cannot be dialled.
    #[must_use]
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Where received snapshots are saved. Default: none, and `POST /raft/snapshot` answers 500.
    #[must_use]
    pub fn snapshots(mut self, store: SnapshotStore) -> Self {
        self.snapshots = Some(store);
        self
    }

    /// The registry that shows the metrics. Default: none, and only [`Transport::status`] does.
    #[must_use]
    pub fn registry(mut self, registry: &prometheus::Registry) -> Self {
        self.registry = Some(registry.clone());
        self
    }

    /// Whether etcd's own names are exported too. Default: true.
    #[must_use]
    pub fn etcd_metrics(mut self, on: bool) -> Self {
        self.etcd_metrics = on;
        self
    }

    /// Bounds of queues and frames. Default: [`Limits::default`].
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// How often peers are probed, and how long a probe may take. Default: 1 s and 700 ms. An interval of zero: never.
    #[must_use]
    pub fn probe(mut self, interval: Duration, timeout: Duration) -> Self {
        self.probe = ProbeConfig { interval, timeout };
        self
    }

    /// How long a connection attempt may take. Default: 1 s.
    #[must_use]
    pub fn dial_timeout(mut self, timeout: Duration) -> Self {
        self.dial_timeout = timeout;
        self
    }

    /// The share of messages that are traced, 0 to 1. Default: 0, which costs nothing.
    #[must_use]
    pub fn trace_ratio(mut self, ratio: f64) -> Self {
        self.trace_ratio = ratio;
        self
    }

    /// Whether heartbeats are traced like other messages. Default: false.
    #[must_use]
    pub fn trace_heartbeats(mut self, traced: bool) -> Self {
        self.trace_heartbeats = traced;
        self
    }

    /// The list that what happens is written to, where something else writes to it as well. Default: one of its own.
    #[must_use]
    pub fn events(mut self, events: &Events) -> Self {
        self.events = events.clone();
        self
    }

    /// Builds the transport, which runs on the tokio runtime that this is called in.
    ///
    /// # Errors
    /// When the registry already has metrics of these names.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn build(self) -> Result<Transport, TransportError> {
        let tasks = TaskTracker::new();
        let identity = Arc::new(self.identity);
        let stop = CancellationToken::new();
        let shared = Arc::new(Shared {
            client: Client::new(identity.clone(), self.tls.clone(), self.dial_timeout),
            sampler: Sampler::new(self.trace_ratio, identity.cluster).heartbeats(self.trace_heartbeats),
            identity,
            raft: self.raft,
            probe: self.probe,
            tasks,
            runtime: tokio::runtime::Handle::current(),
            removed: AtomicBool::new(false),
            events: self.events,
            limits: self.limits,
        });
        if let Some(tls) = &self.tls {
            tls.tell(&shared.events);
        }
        shared.events.speak_as(shared.identity.member);
        let inner = Arc::new(Inner {
            peers: ArcSwap::default(),
            changes: Mutex::default(),
            strangers: Inbox::new(),
            refusals: Untold::default(),
            unroutable: Mutex::default(),
            snapshots: self.snapshots,
            receiving: Semaphore::new(shared.limits.snapshots),
            receiving_others: Semaphore::new(1),
            tls: self.tls,
            started: SystemTime::now(),
            _ends: stop.clone().drop_guard(),
            stop,
            shared,
        });
        if let Some(registry) = self.registry {
            let source = Arc::downgrade(&inner);
            let source = move || source.upgrade().map(|inner| Transport { inner }.status());
            registry.register(Box::new(crate::metrics::Collector::new(
                source,
                crate::metrics::Options { etcd: self.etcd_metrics },
            )))?;
        }
        let aging = age_remotes(Arc::downgrade(&inner), inner.stop.clone());
        inner.shared.tasks.spawn(aging);
        let (summing_up, stop) = (summary::sum_up(Arc::downgrade(&inner)), inner.stop.clone());
        inner.shared.tasks.spawn(async move {
            stop.run_until_cancelled(summing_up).await;
        });
        Ok(Transport { inner })
    }
}

impl Transport {
    /// A transport for `member` of `cluster` that serves `raft`.
    pub fn builder(member: MemberId, cluster: ClusterId, raft: Arc<dyn Raft>) -> Builder {
        Builder {
            identity: Identity { member, cluster, urls: Vec::new(), server_version: DEFAULT_SERVER },
            raft,
            tls: None,
            snapshots: None,
            registry: None,
            etcd_metrics: true,
            limits: Limits::default(),
            probe: ProbeConfig::default(),
            dial_timeout: Duration::from_secs(1),
            trace_ratio: 0.0,
            trace_heartbeats: false,
            events: Events::default(),
        }
    }

    /// Adds a peer and begins to dial it. Of a known peer the URLs are updated; a remote becomes a peer and keeps its
    /// counters and its queue (etcd's `Transport.AddPeer`).
    ///
    /// # Errors
    /// When there is no URL, or the ID is zero or this member's own.
    pub fn add_peer(&self, id: MemberId, urls: Vec<PeerUrl>) -> Result<(), TransportError> {
        self.check(id, &urls)?;
        let changes = self.changes();
        if changes.stopped {
            return Ok(());
        }
        let peer = match self.peer(id) {
            Some(peer) => {
                if !peer.is_remote() {
                    self.events().peer_updated(id, &urls);
                }
                peer.urls.update(urls);
                peer.redial.up();
                peer
            }
            None => self.insert(&changes, id, urls),
        };
        if peer.is_remote() {
            self.events().peer_added(id, &peer.urls.all());
        }
        peer.promote();
        Ok(())
    }

    /// Adds a remote: a member that only its requests made known, reached by POST alone and forgotten some time after
    /// its last request (etcd's `Transport.AddRemote`). Does nothing for a known peer or remote.
    ///
    /// # Errors
    /// When there is no URL, or the ID is zero or this member's own.
    pub fn add_remote(&self, id: MemberId, urls: Vec<PeerUrl>) -> Result<(), TransportError> {
        self.check(id, &urls)?;
        let changes = self.changes();
        if changes.stopped || self.peer(id).is_some() {
            return Ok(());
        }
        let mut remotes: Vec<_> = self.inner.peers.load().values().filter(|peer| peer.is_remote()).cloned().collect();
        remotes.sort_by_key(|remote| std::cmp::Reverse(remote.silent_for()));
        // A member that goes on asking is not the one that has been silent for longest.
        let surplus = (remotes.len() + 1).saturating_sub(self.inner.shared.limits.remotes.max(1));
        let taken: Vec<_> = remotes.iter().take(surplus).filter_map(|remote| self.take(&changes, remote.id)).collect();
        for remote in &taken {
            self.events().remote_removed(remote.id, "there are too many");
        }
        self.events().remote_added(id, &urls);
        self.insert(&changes, id, urls);
        drop(changes);
        close_all(&taken, DropReason::PeerRemoved);
        Ok(())
    }

    /// Replaces a peer's URLs (etcd's `Transport.UpdatePeer`).
    ///
    /// # Errors
    /// When there is no URL, or no such peer.
    pub fn update_peer(&self, id: MemberId, urls: Vec<PeerUrl>) -> Result<(), TransportError> {
        self.check(id, &urls)?;
        let peer = self.peer(id).ok_or(TransportError::UnknownPeer(id))?;
        self.events().peer_updated(id, &urls);
        peer.urls.update(urls);
        peer.redial.up();
        Ok(())
    }

    /// Removes a peer or remote: its streams end, its queue is dropped, its series go (etcd's `Transport.RemovePeer`).
    pub fn remove_peer(&self, id: MemberId) {
        let taken = self.take(&self.changes(), id);
        if let Some(peer) = taken {
            self.removed(&peer);
            peer.close(DropReason::PeerRemoved);
        }
    }

    fn removed(&self, peer: &Peer) {
        if peer.is_remote() {
            self.events().remote_removed(peer.id, "it was removed");
        } else {
            self.events().peer_removed(peer.id);
        }
    }

    /// [`Self::remove_peer`] for all of them (etcd's `Transport.RemoveAllPeers`).
    pub fn remove_all_peers(&self) {
        let taken: Vec<_> = {
            let _changes = self.changes();
            self.inner.peers.swap(Arc::default()).values().cloned().collect()
        };
        for peer in &taken {
            self.removed(peer);
        }
        close_all(&taken, DropReason::PeerRemoved);
    }

    /// Hands messages over, each to the peer in its `to`, in order. Never blocks and never fails: what cannot be
    /// delivered is in the ledger with its reason, and raft is told (etcd's `Transport.Send`). A `to` of 0 or of
    /// nobody known is skipped and counted.
    ///
    /// May be called from any thread, and from within [`Raft::process`].
    #[allow(clippy::needless_pass_by_value, reason = "etcd's shape: what is sent is handed over")]
    pub fn send(&self, messages: Vec<Message>) {
        let now = Instant::now();
        let peers = self.inner.peers.load();
        // By reference: most are encoded where they lie, and a message is large to move.
        for same in messages.chunk_by(|one, next| one.to == next.to) {
            let to = same[0].to;
            match peers.get(&MemberId(to)) {
                Some(peer) => peer.send(same, now),
                None => self.nobody(to, same),
            }
        }
    }

    /// Sends a `MsgSnap` whose data are in `body` by `POST /raft/snapshot` (etcd's `Transport.SendSnapshot`). How it
    /// ends is told by [`Raft::report_snapshot`], exactly once.
    pub fn send_snapshot(&self, message: Message, body: SnapshotBody) {
        let to = MemberId(message.to);
        let Some(peer) = self.peer(to) else {
            self.unroutable(to.0, 1);
            return self.snapshot_failed(to);
        };
        let shared = &self.inner.shared;
        let span = outbox::send_span(&shared.sampler, &message, Channel::Snapshot, message_size(&message));
        if let Err(reason) = peer.outbox.begin_snapshot(&message, &shared.limits) {
            if let Some(span) = span {
                span.failed(reason.label());
            }
            self.events().snapshot_refused(to, reason);
            return self.snapshot_failed(to);
        }
        shared.tasks.spawn_on(snapshot::sender::send(peer, message, body, span), &shared.runtime);
    }

    /// Drops everything to and from a peer while its connections stay, until [`Self::mend_peer`]: a test hook (etcd's
    /// `Transport.CutPeer`).
    pub fn cut_peer(&self, id: MemberId) {
        if let Some(peer) = self.peer(id) {
            peer.set_paused(true);
        }
    }

    /// Ends what [`Self::cut_peer`] began.
    pub fn mend_peer(&self, id: MemberId) {
        if let Some(peer) = self.peer(id) {
            peer.set_paused(false);
        }
    }

    /// [`Self::cut_peer`] for all, and for who comes later (etcd's `Transport.Pause`).
    pub fn pause(&self) {
        self.set_paused(true);
    }

    /// Ends what [`Self::pause`] and [`Self::cut_peer`] began (etcd's `Transport.Resume`).
    pub fn resume(&self) {
        self.set_paused(false);
    }

    /// Since when the peer is active: its last stream or POST went well. None while it is not (etcd's `ActiveSince`).
    pub fn active_since(&self, id: MemberId) -> Option<SystemTime> {
        self.peer(id).and_then(|peer| peer.link(|link| link.active_since))
    }

    /// How many peers are active (etcd's `ActivePeers`).
    pub fn active_peers(&self) -> usize {
        let peers = self.inner.peers.load();
        peers.values().filter(|peer| peer.link(|link| link.active_since.is_some())).count()
    }

    /// The state of every peer and remote, by ID, as `/api/peers` shows it.
    pub fn peers(&self) -> Vec<PeerStatus> {
        let names: HashMap<MemberId, String> = self.members().map_or_else(HashMap::new, |Members(members)| {
            members.into_iter().map(|member| (member.id, member.name)).collect()
        });
        let mut peers: Vec<_> = self.inner.peers.load().values().cloned().collect();
        peers.sort_unstable_by_key(|peer| peer.id);
        peers.iter().map(|peer| peer.status(names.get(&peer.id).cloned().unwrap_or_default())).collect()
    }

    /// [`Self::peers`], and what belongs to no peer.
    pub fn status(&self) -> TransportStatus {
        TransportStatus {
            local: self.inner.shared.identity.member,
            cluster: Some(self.inner.shared.identity.cluster),
            started: Some(self.inner.started),
            probe: self.inner.shared.probe.when_on(),
            peers: self.peers(),
            strangers: Some(self.inner.strangers.ledger()),
            unroutable: self.inner.unroutable.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            tls: self.inner.tls.as_ref().map(Tls::status),
        }
    }

    /// The last transitions, as `/api/events` shows them.
    pub fn events(&self) -> &Events {
        &self.inner.shared.events
    }

    /// Who we are.
    pub fn identity(&self) -> &Identity {
        &self.inner.shared.identity
    }

    /// Ends every stream cleanly and every task; what is queued is dropped as `stopped`. Returns when no task is left.
    /// The ledger can still be read.
    pub async fn stop(&self) {
        let peers: Vec<_> = {
            let mut changes = self.changes();
            changes.stopped = true;
            self.inner.peers.load().values().cloned().collect()
        };
        close_all(&peers, DropReason::Stopped);
        self.inner.strangers.close();
        self.inner.stop.cancel();
        self.inner.shared.client.stop().await;
        self.inner.shared.tasks.close();
        self.inner.shared.tasks.wait().await;
    }

    fn changes(&self) -> std::sync::MutexGuard<'_, Changes> {
        self.inner.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check(&self, id: MemberId, urls: &[PeerUrl]) -> Result<(), TransportError> {
        if id.0 == 0 || id == self.inner.shared.identity.member {
            return Err(TransportError::NotAPeer(id));
        }
        if urls.is_empty() { Err(PeerUrlError::Empty.into()) } else { Ok(()) }
    }

    fn peer(&self, id: MemberId) -> Option<Arc<Peer>> {
        self.inner.peers.load().get(&id).cloned()
    }

    fn insert(&self, changes: &Changes, id: MemberId, urls: Vec<PeerUrl>) -> Arc<Peer> {
        let peer = Peer::remote(id, urls, self.inner.stop.child_token(), self.inner.shared.clone());
        peer.set_paused(changes.paused);
        let mut peers = HashMap::clone(&self.inner.peers.load());
        peers.insert(id, peer.clone());
        self.inner.peers.store(Arc::new(peers));
        peer
    }

    /// Takes a peer off the list. It is closed once `changes` is released: closing tells raft, which may call back.
    fn take(&self, _changes: &Changes, id: MemberId) -> Option<Arc<Peer>> {
        let mut peers = HashMap::clone(&self.inner.peers.load());
        let peer = peers.remove(&id)?;
        self.inner.peers.store(Arc::new(peers));
        Some(peer)
    }

    /// Forgets the remotes that have been silent for too long.
    fn forget_remotes(&self) {
        let age = self.inner.shared.limits.remote_age;
        let taken: Vec<_> = {
            // Under the lock, so that one that is a peer by now is not taken for a remote.
            let changes = self.changes();
            let peers = self.inner.peers.load_full();
            let old = peers.values().filter(|peer| peer.is_remote() && peer.silent_for() > age);
            old.filter_map(|peer| self.take(&changes, peer.id)).collect()
        };
        for peer in &taken {
            self.events().remote_removed(peer.id, "it has been silent for long");
        }
        close_all(&taken, DropReason::PeerRemoved);
    }

    fn set_paused(&self, paused: bool) {
        self.changes().paused = paused;
        self.inner.strangers.set_paused(paused);
        for peer in self.inner.peers.load().values() {
            peer.set_paused(paused);
        }
    }

    /// Messages to nobody, or to whom we do not know. Raft waits for what became of a snapshot, and is told.
    fn nobody(&self, to: u64, messages: &[Message]) {
        self.unroutable(to, messages.len());
        let snapshots = messages.iter().filter(|message| message.r#type == MessageType::MsgSnap as i32);
        for _ in snapshots.take_while(|_| to != 0) {
            self.snapshot_failed(MemberId(to));
        }
    }

    fn unroutable(&self, to: u64, messages: usize) {
        let reason = if to == 0 { "no_destination" } else { "unknown_peer" };
        self.inner.unroutable.lock().unwrap_or_else(PoisonError::into_inner).add(reason, messages as u64);
        tracing::trace!(to = %MemberId(to), messages, reason, "messages not sent");
    }

    fn snapshot_failed(&self, to: MemberId) {
        self.inner.shared.raft.report_unreachable(to);
        self.inner.shared.raft.report_snapshot(to, SnapshotStatus::Failure);
    }
}

/// What the server side needs.
impl Transport {
    pub(crate) fn members(&self) -> Option<Members> {
        self.inner.shared.raft.members()
    }

    pub(crate) fn raft(&self) -> &Arc<dyn Raft> {
        &self.inner.shared.raft
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.inner.shared.limits
    }

    /// Whether this is a configured peer, not a remote.
    pub(crate) fn is_peer(&self, id: MemberId) -> bool {
        self.peer(id).is_some_and(|peer| !peer.is_remote())
    }

    /// Whether this is a configured peer or a remote.
    pub(crate) fn is_known(&self, id: MemberId) -> bool {
        self.inner.peers.load().contains_key(&id)
    }

    /// Notes that a member asked us, and what it said of itself: who is not known is added as a remote, when its URLs
    /// are legal (etcd's `addRemoteFromRequest`).
    pub(crate) fn admit(&self, from: MemberId, urls: Option<&str>) {
        if let Some(peer) = self.peer(from) {
            return peer.heard();
        }
        if self.inner.shared.raft.is_removed(from) {
            return;
        }
        if let Some(Ok(urls)) = urls.map(PeerUrl::told) {
            // Its own ID, or nobody's: not to be added, and no reason to refuse the request.
            let _ = self.add_remote(from, urls);
        }
    }

    /// Opens a stream that this peer has asked for, and named where it is one of ours. None: it is not a peer.
    pub(crate) fn open_stream(
        &self,
        kind: StreamKind,
        from: MemberId,
        name: Option<u64>,
        connection: Option<Arc<IoStatus>>,
        origin: &Origin,
    ) -> Option<StreamBody> {
        let peer = self.peer(from).filter(|peer| !peer.is_remote())?;
        StreamBody::attach(peer, kind, name, connection, origin)
    }

    /// What a member that we know is told when it probes us: what was read on the streams that it writes, and how we
    /// reach our peers. None: a stranger.
    pub(crate) fn report(&self, asker: MemberId) -> Option<Report> {
        let member = self.inner.shared.identity.member;
        if asker == member {
            // By a peer's name we have reached ourselves: whoever asks must learn it.
            return Some(Report { member, streams: Vec::new(), peers: Vec::new() });
        }
        let peers = self.inner.peers.load();
        let streams = peers.get(&asker)?.inbox.readings();
        let mut sights: Vec<Sight> =
            peers.values().filter(|peer| !peer.is_remote()).map(|peer| peer.link(|link| link.sight(peer.id))).collect();
        // With more than an answer holds, the asker's own comes first.
        sights.sort_unstable_by_key(|sight| (sight.id != asker, sight.id));
        Some(Report { member, streams, peers: sights })
    }

    /// Takes the message of one `POST /raft`, and waits for the application.
    pub(crate) async fn receive(
        &self,
        from: Option<MemberId>,
        message: Message,
        bytes: u64,
        origin: Origin,
    ) -> Result<(), Rejected> {
        let peer = from.and_then(|from| self.peer(from));
        if let Some(peer) = &peer {
            peer.acknowledged(std::slice::from_ref(&message));
        }
        let inbox = peer.as_ref().map_or(&self.inner.strangers, |peer| &peer.inbox);
        match inbox::Answering::begin(inbox, Channel::Pipeline, &message, bytes) {
            Ok(answering) => self.answer(from, message, answering, origin).await,
            // Who is cut off looks like a network that swallows.
            Err(RejectReason::Paused) => Ok(()),
            Err(_) => Err(Rejected::one("stopped")),
        }
    }

    /// Notes for the log that a request was not taken.
    pub(crate) fn refused(&self, reason: &'static str, from: Option<MemberId>, address: Option<SocketAddr>) {
        self.inner.refusals.note(reason, from, address);
    }

    /// Counts what could not be read from a request.
    pub(crate) fn undecodable(&self, from: Option<MemberId>, channel: Channel, kind: &'static str) {
        match from.and_then(|from| self.peer(from)) {
            Some(peer) => peer.unreadable(channel, kind),
            None => self.inner.strangers.unreadable(channel, kind),
        }
    }

    /// Saves the body of one `POST /raft/snapshot`, hands its message over, and waits for the application. `length` is
    /// what the sender says of the body.
    pub(crate) async fn receive_snapshot<S>(
        &self,
        from: Option<MemberId>,
        message: Message,
        envelope_bytes: u64,
        (body, length): (S, Option<u64>),
        origin: Origin,
    ) -> Result<(), SnapshotError>
    where
        S: Stream<Item = std::io::Result<Bytes>> + Send + Unpin,
    {
        let peer = from.and_then(|from| self.peer(from));
        let trace = self.inner.shared.sampler.trace_id(&message);
        let mut receiving =
            snapshot::receiver::Receiving::begin(peer, &message, length, (trace, &origin), self.events());
        // The span that the request names is the snapshot's, not its message's.
        let origin = Origin { span: None, ..origin };
        let outcome = self.save_and_process(from, message, envelope_bytes, body, &mut receiving, origin).await;
        receiving.end(&outcome);
        outcome
    }

    async fn save_and_process<S>(
        &self,
        from: Option<MemberId>,
        message: Message,
        envelope_bytes: u64,
        body: S,
        receiving: &mut snapshot::receiver::Receiving,
        origin: Origin,
    ) -> Result<(), SnapshotError>
    where
        S: Stream<Item = std::io::Result<Bytes>> + Send + Unpin,
    {
        let peer = from.and_then(|from| self.peer(from));
        let inbox = peer.as_ref().map_or(&self.inner.strangers, |peer| &peer.inbox);
        let mut answering = match inbox::Answering::begin(inbox, Channel::Snapshot, &message, envelope_bytes) {
            Ok(answering) => answering,
            // Not swallowed as a message is: success would say that raft has it.
            Err(reason) => return Err(SnapshotError::Process(reason.label().to_owned())),
        };
        let saved = async {
            let store = self.inner.snapshots.as_ref().ok_or("this member takes no snapshots")?;
            // Whoever is no peer yet has a place of its own, and takes none of the peers'.
            let configured = peer.as_ref().is_some_and(|peer| !peer.is_remote());
            let places = if configured { &self.inner.receiving } else { &self.inner.receiving_others };
            let _place = places.try_acquire().map_err(|_| "too many snapshots at a time")?;
            let shared = &self.inner.shared;
            let most = shared.limits.snapshot_bytes;
            let saving = store.save(receiving.index(), body, most, &shared.tasks, |bytes| {
                inbox.body(bytes);
                receiving.progressed(bytes);
            });
            saving.await.map_err(|error| error.to_string())
        };
        let saved: Result<u64, String> = self.until_stopped(saved).await.unwrap_or_else(|| Err("stopped".to_owned()));
        match saved {
            Ok(bytes) => inbox.saved(bytes),
            Err(why) => {
                answering.rejected(RejectReason::Failed);
                return Err(SnapshotError::Save(why));
            }
        }
        let outcome = self.answer(from, message, answering, origin).await;
        outcome.map_err(|rejected| SnapshotError::Process(rejected.to_string()))
    }

    /// Hands one message over whose sender waits.
    async fn answer(
        &self,
        from: Option<MemberId>,
        message: Message,
        mut answering: inbox::Answering<'_>,
        origin: Origin,
    ) -> Result<(), Rejected> {
        let size = message_size(&message);
        let peer = from.and_then(|from| self.peer(from));
        let span = peer.and_then(|peer| peer.tracer(origin).receive_span(&message, answering.channel(), size));
        answering.handed_over();
        let processing = self.inner.shared.raft.process(from.unwrap_or_default(), vec![message]);
        let outcome = self.until_stopped(processing).await;
        match &outcome {
            Some(Ok(())) => answering.processed(),
            Some(Err(Rejected(rejections))) => match rejections.first() {
                Some(rejection) => answering.rejected(rejection.kind.into()),
                None => answering.processed(),
            },
            None => answering.rejected(RejectReason::Stopped),
        }
        if let (Some(span), Some(reason)) = (&span, answering.reason()) {
            span.failed(reason.label());
        }
        outcome.unwrap_or_else(|| Err(Rejected::one("stopped")))
    }

    async fn until_stopped<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        self.inner.stop.run_until_cancelled(future).await
    }
}

/// Why a snapshot was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SnapshotError {
    /// Its body could not be read or saved.
    #[error("{0}")]
    Save(String),
    /// The application did not take it.
    #[error("{0}")]
    Process(String),
}

fn close_all(peers: &[Arc<Peer>], reason: DropReason) {
    for peer in peers {
        peer.close(reason);
    }
}

/// How often remotes are looked through for those that are too old.
const AGING_INTERVAL: Duration = Duration::from_secs(5);

async fn age_remotes(inner: std::sync::Weak<Inner>, stop: CancellationToken) {
    let aging = async {
        loop {
            tokio::time::sleep(AGING_INTERVAL).await;
            let Some(inner) = inner.upgrade() else { return };
            Transport { inner }.forget_remotes();
        }
    };
    stop.run_until_cancelled(aging).await;
}
