//! Starts and stops a member.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    birth,
    client::{self, ClientHandler},
    config::{Config, InitialClusterState},
    error::Error,
    force,
    hearsay::Hearsay,
    inlet::Inlet,
    listeners::{BoundPort, Listeners},
    members::{Membership, PeerChange},
    ready::{CAUSES, Core, CoreError, CoreSettings, OutputSink, Retention, TurnOutput},
    request::RequestIds,
    status::{NodeState, RaftStatus},
    storage::{self, Store, StoredIdentity},
    task::{MemberEnd, Reports, Stopped, Task},
    vouching::Vouching,
};
use crate::{
    admin::{AboutSource, Check, Health, HealthSource},
    id::{ClusterId, DirectoryId, Incarnation, MemberId},
    metrics,
    server::{ConnectionLimits, ConnectionMetrics},
    telemetry::Events,
    transport::{Transport, TransportError, incarnation::Refused, snapshot::store::SnapshotStore, status::PeerStatus},
    world::World,
};

/// How long clients' requests under way may take when a member stops.
const GRACE: Duration = Duration::from_secs(5);

/// The directory for all files of a member, in its data directory.
const DIRECTORY: &str = "member";

/// A running member. Cheap to clone: all clones are one member.
#[derive(Clone)]
pub struct Node {
    inner: Arc<Inner>,
}

struct Inner {
    transport: Transport,
    shared: Arc<NodeState>,
    end: MemberEnd,
    stop_clients: CancellationToken,
    stop_raft: CancellationToken,
    stop_peers: CancellationToken,
    raft_ended: CancellationToken,
    clients: TaskTracker,
    peers: TaskTracker,
    /// What waits for the disk, beside raft's own thread.
    disk: TaskTracker,
    peer_addresses: Vec<SocketAddr>,
    client_addresses: Vec<SocketAddr>,
}

impl Drop for Inner {
    /// Ends a member that was dropped without being stopped.
    fn drop(&mut self) {
        for stop in [&self.stop_clients, &self.stop_raft, &self.stop_peers] {
            stop.cancel();
        }
    }
}

impl Node {
    /// Starts a member on the current tokio runtime. For a member that joins a cluster, it returns once another member
    /// has answered with the membership.
    ///
    /// # Errors
    /// The member cannot start. Each reason is one line.
    pub async fn start(mut config: Config) -> Result<Self, Error> {
        config.check()?;
        let world = config.world.clone();
        birth::refuse_etcds(world.files(), &config.data_dir)?;
        let listeners = Listeners::bind(&mut config).await?;
        let directory = config.data_dir.join(DIRECTORY);
        let store = Store::open(world.files(), &directory, config.limits.snapshots);
        let mut store = store.map_err(Error::store(&config.data_dir))?;
        let identity = birth::identify(&config, &mut store, &listeners.peers).await?;
        force::if_asked(&config, &mut store, &identity).await?;
        let snapshots = SnapshotStore::open_in(world, directory.join("snap"))
            .map_err(|error| Error::Snapshots { directory: config.data_dir.display().to_string(), error })?;
        MemberParts { config, identity, store, snapshots }.run(listeners)
    }

    /// Its transport.
    pub fn transport(&self) -> &Transport {
        &self.inner.transport
    }

    /// The state of its raft.
    pub fn raft_status(&self) -> RaftStatus {
        self.inner.shared.status()
    }

    /// Its name, and a summary of its raft's state.
    pub fn about(&self) -> AboutSource {
        let shared = self.inner.shared.clone();
        Arc::new(move || shared.status().about())
    }

    /// Its health checks. `running` and `takes_part` say whether raft works here. `leader` and `caught_up` say whether
    /// the member can serve. `one_history` says whether its history agrees with the others'. `peers` has a remark about
    /// peers that are not heard.
    pub fn health(&self) -> HealthSource {
        let (shared, end) = (self.inner.shared.clone(), self.inner.end.clone());
        let transport = self.inner.transport.clone();
        Arc::new(move || {
            let failure = end.reason().map(|reason| reason.to_string());
            let running = failure.map_or_else(|| Check::ok("running"), |why| Check::failed("running", why));
            // A refused peer makes this member no less healthy: the peer's own process ends.
            let peers = Check::ok("peers").remark(remark_on(&transport.peers()));
            let ready = std::iter::once(running.clone()).chain(shared.checks()).chain([peers]).collect();
            Health { live: vec![running], ready }
        })
    }

    /// The addresses of its peer ports.
    pub fn peer_addresses(&self) -> &[SocketAddr] {
        &self.inner.peer_addresses
    }

    /// The addresses of its client ports.
    pub fn client_addresses(&self) -> &[SocketAddr] {
        &self.inner.client_addresses
    }

    /// Waits until it stops by itself or because it was asked to, and returns the reason.
    pub async fn stopped(&self) -> Stopped {
        self.inner.end.wait().await
    }

    /// Stops it: answers the clients' requests under way, hands leadership over, makes the applied data durable, and
    /// ends the streams cleanly. Returns when every task has ended.
    pub async fn stop(&self) {
        let inner = &self.inner;
        inner.stop_clients.cancel();
        inner.clients.close();
        inner.clients.wait().await;
        inner.stop_raft.cancel();
        inner.raft_ended.cancelled().await;
        inner.transport.stop().await;
        inner.disk.close();
        inner.disk.wait().await;
        inner.stop_peers.cancel();
        inner.peers.close();
        inner.peers.wait().await;
    }
}

/// The parts of a member before it runs.
struct MemberParts {
    config: Config,
    identity: StoredIdentity,
    store: Store,
    snapshots: SnapshotStore,
}

impl MemberParts {
    fn run(self, listeners: Listeners) -> Result<Node, Error> {
        let Self { config, identity, store, snapshots } = self;
        let (member, cluster) = (MemberId(identity.member), ClusterId(identity.cluster));
        let in_directory = Error::store(&config.data_dir);
        let membership = store.membership().map_err(&in_directory)?;
        let incarnation = store.boot(&config.world).map_err(&in_directory)?;
        let ids = RequestIds::new(identity.member, incarnation.boot);
        let status = RaftStatus { id: member, cluster, name: config.name.clone(), ..RaftStatus::default() };
        let events = Events::default();
        events.speak_as(member, &config.world);
        let shared = NodeState::new(status, membership.clone(), events.clone());
        shared.met.store(Arc::new(store.met().clone()));
        let (inbox, queue) = Task::queue();
        let (end, reports) = (MemberEnd::default(), Arc::<Reports>::default());
        let hearsay = Hearsay::default();
        let (doubted, vouching) = Vouching::new(&config, cluster, shared.clone(), &hearsay);
        let disk = TaskTracker::new();
        let inlet = Inlet {
            cluster,
            disk: disk.clone(),
            inbox: inbox.clone(),
            reports: reports.clone(),
            shared: shared.clone(),
            snapshots,
            builder: store.builder(config.limits.snapshot_headroom),
            end: end.clone(),
            patience: patience(&config),
            world: config.world.clone(),
            doubted,
        };
        let transport = transport(&config, &identity, &membership, inlet, incarnation, &events, &hearsay)?;
        let client = ClientHandler::new(&config, ids.clone(), store.reader(), shared.clone(), inbox, transport.clone());
        let settings = settings(&config, member, cluster, hearsay);
        let core = Core::new(settings, store, ids, shared.clone(), outbox(transport.clone(), &config.world, &disk));
        let core = core.map_err(|error: CoreError| Error::Raft(error.to_string()))?;
        if let Some(tls) = &config.client_tls {
            tls.tell(&events);
        }
        register(&config, &shared)?;

        let mut inner = Inner::new(transport, shared, end, disk, &listeners);
        inner.serve_peers(listeners.peers, &config)?;
        inner.serve_clients(listeners.clients, client.clone(), &config)?;
        let (heartbeat, election, stop) = (config.heartbeat_interval, config.election_timeout, inner.stop_raft.clone());
        let task = Task::new(core, queue, reports, heartbeat, election, stop);
        inner.raft_ended = task.spawn(inner.end.clone(), &config.world).map_err(Error::Thread)?;
        inner.introduce(client, &config, incarnation.directory);
        let vouching = vouching.run(member, inner.transport.clone());
        inner.peers.spawn(inner.stop_peers.clone().run_until_cancelled_owned(vouching));
        tracing::info!(%member, %cluster, name = config.name, "started");
        Ok(Node { inner: Arc::new(inner) })
    }
}

impl Inner {
    /// A member that does not run yet.
    fn new(
        transport: Transport,
        shared: Arc<NodeState>,
        end: MemberEnd,
        disk: TaskTracker,
        listeners: &Listeners,
    ) -> Self {
        let addresses = |bound: &[BoundPort]| bound.iter().filter_map(BoundPort::address).collect();
        Self {
            transport,
            shared,
            end,
            stop_clients: CancellationToken::new(),
            stop_raft: CancellationToken::new(),
            stop_peers: CancellationToken::new(),
            raft_ended: CancellationToken::new(),
            clients: TaskTracker::new(),
            peers: TaskTracker::new(),
            disk,
            peer_addresses: addresses(&listeners.peers),
            client_addresses: addresses(&listeners.clients),
        }
    }

    fn serve_peers(&self, listeners: Vec<BoundPort>, config: &Config) -> Result<(), Error> {
        let router = crate::server::router(&self.transport);
        let connections = ConnectionMetrics::register(&config.registry)?;
        for listener in listeners {
            let server =
                listener.server(router.clone(), config.tls.as_ref()).metrics(&connections).world(&config.world);
            self.peers.spawn(server.serve_on(listener.listen()?, self.stop_peers.clone()));
        }
        Ok(())
    }

    fn serve_clients(&self, listeners: Vec<BoundPort>, client: ClientHandler, config: &Config) -> Result<(), Error> {
        let router = client::router(client);
        // Clients are not identified by their address, so one of them may hold all connections. A program that starts
        // may open as many connections at once as it likes. But a client that only begins handshakes cannot occupy the
        // port.
        let bounds = ConnectionLimits::default();
        let handshakes_per_address = bounds.total / 4;
        let limits = ConnectionLimits { per_address: bounds.total, handshakes_per_address, grace: GRACE, ..bounds };
        for listener in listeners {
            let server = listener.server(router.clone(), config.client_tls.as_ref());
            let server = server.limits(limits.clone()).answer_plain();
            self.clients.spawn(server.serve_on(listener.listen()?, self.stop_clients.clone()));
        }
        Ok(())
    }

    /// Tells the cluster this member's name, client URLs and data directory, until the cluster knows them (etcd's
    /// `EtcdServer.publish`). A member that found its cluster by itself also asks to be promoted, while it is a
    /// learner.
    fn introduce(&self, client: ClientHandler, config: &Config, directory: DirectoryId) {
        let (name, urls) = (config.name.clone(), config.advertise_client_urls.clone());
        let (pause, auto) = (config.election_timeout, config.initial_cluster_state == InitialClusterState::Auto);
        let introduction = async move {
            until(pause, || client.publish(&name, &urls, directory)).await;
            // The order matters: when a voter loses its disk, the others must know that it was started, which its
            // client URLs show.
            until(pause, || async { !auto || client.promoted().await }).await;
        };
        self.clients.spawn(self.stop_clients.clone().run_until_cancelled_owned(introduction));
    }
}

/// Describes the peers that are not heard, and what to do about them.
fn remark_on(peers: &[PeerStatus]) -> Option<String> {
    let refused = peers.iter().filter_map(|peer| {
        let Refused { why, .. } = peer.refused()?;
        let (id, name) = (peer.id, &peer.name);
        Some(format!("member {name} ({id}) is refused, since it was started from {why}: remove it, and add it anew"))
    });
    let said: Vec<String> = refused.collect();
    (!said.is_empty()).then(|| said.join("; "))
}

/// Repeats an attempt until it succeeds.
async fn until<F: Future<Output = bool>>(pause: Duration, attempt: impl Fn() -> F) {
    while !attempt().await {
        tokio::time::sleep(pause).await;
    }
}

/// Makes a transport with the peers that this member knows at its start.
fn transport(
    config: &Config,
    identity: &StoredIdentity,
    membership: &Membership,
    inlet: Inlet,
    incarnation: Incarnation,
    events: &Events,
    hearsay: &Hearsay,
) -> Result<Transport, TransportError> {
    let (member, cluster) = (MemberId(identity.member), ClusterId(identity.cluster));
    let own = membership.get(member).map(|member| member.peer_urls.clone());
    let snapshots = inlet.snapshots.clone();
    let builder = Transport::builder(member, cluster, Arc::new(inlet))
        .urls(own.unwrap_or_else(|| config.initial_advertise_peer_urls.clone()))
        .incarnation(incarnation)
        .snapshots(snapshots)
        .limits(config.limits.clone())
        .skip_url_verification(config.skip_peer_url_verification)
        .probe(config.probe_interval, config.probe_timeout)
        .trace_ratio(config.trace_ratio)
        .events(events)
        .world(&config.world);
    let transport = match &config.tls {
        Some(tls) => builder.tls(tls.clone()).build(),
        None => builder.build(),
    }?;
    for peer in peers_at_start(membership, identity) {
        if let PeerChange::Set(id, _) = &peer {
            hearsay.add(*id);
        }
        change_peer(&transport, peer);
    }
    Ok(transport)
}

fn settings(config: &Config, member: MemberId, cluster: ClusterId, hearsay: Hearsay) -> CoreSettings {
    CoreSettings {
        member,
        cluster,
        election_ticks: config.election_ticks(),
        election_timeout: config.election_timeout,
        retention: retention(config),
        max_request_bytes: config.max_request_bytes,
        strict_reconfig_check: config.strict_reconfig_check,
        hearsay,
        quota: config.quota_backend_bytes,
        headroom: config.limits.snapshot_headroom,
        world: config.world.clone(),
    }
}

/// Registers the member's own metrics.
fn register(config: &Config, shared: &Arc<NodeState>) -> Result<(), Error> {
    if let Some(tls) = &config.client_tls {
        config.registry.register(metrics::client_tls_collector(tls))?;
    }
    let raft = shared.clone();
    config.registry.register(metrics::raft_collector(move || raft.status().metrics()))?;
    let ticks = shared.clone();
    config.registry.register(metrics::ticks_collector(move || ticks.tick_delays()))?;
    let histories = shared.clone();
    config.registry.register(metrics::histories_collector(&CAUSES, move || histories.histories()))?;
    let (store, files, directory) = (shared.clone(), config.world.files().clone(), config.data_dir.join(DIRECTORY));
    let (quota, retention) = (config.quota_backend_bytes, retention(config));
    let source = move || store.store_metrics(storage::file_bytes(&files, &directory), quota, retention.max_bytes);
    Ok(config.registry.register(metrics::store_collector(source))?)
}

fn retention(config: &Config) -> Retention {
    Retention {
        snapshot_count: config.snapshot_count,
        bytes: config.log_retention_bytes,
        max_bytes: config.log_retention_max_bytes.max(config.log_retention_bytes),
    }
}

/// Sends raft's messages on their way, and runs its work for the disk elsewhere.
fn outbox(transport: Transport, world: &World, disk: &TaskTracker) -> OutputSink {
    let (world, disk) = (world.clone(), disk.clone());
    Box::new(move |outgoing| match outgoing {
        TurnOutput::Messages(messages) => transport.send(messages),
        TurnOutput::Snapshot(message, body) => transport.send_snapshot(*message, body),
        TurnOutput::Peer(change) => change_peer(&transport, change),
        TurnOutput::Spool(spooling) => drop(world.spawn_blocking(disk.track_future(async move { spooling.run() }))),
        TurnOutput::Discard(what) => drop(world.spawn_blocking(disk.track_future(async move { drop(what) }))),
    })
}

/// The peers to dial before anything more is applied: those of the membership, or, for a member that has just joined,
/// those that it was told.
fn peers_at_start(membership: &Membership, identity: &StoredIdentity) -> Vec<PeerChange> {
    let known = membership.peer_changes(&Membership::default(), MemberId(identity.member));
    if membership.members().is_some() {
        return known;
    }
    let others = identity.joined.iter().filter(|record| record.id != identity.member);
    others.map(|record| PeerChange::Set(MemberId(record.id), record.urls())).collect()
}

fn change_peer(transport: &Transport, change: PeerChange) {
    match change {
        PeerChange::Set(id, urls) => {
            if let Err(error) = transport.add_peer(id, urls) {
                tracing::error!(peer = %id, %error, "a member cannot be a peer");
            }
        }
        PeerChange::Remove(id) => transport.remove_peer(id),
    }
}

/// How long a proposal waits for a leader: a few elections, and shorter than a peer waits for the answer to its POST.
fn patience(config: &Config) -> Duration {
    (config.election_timeout * 3).min(Duration::from_secs(8))
}
