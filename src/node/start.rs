//! How a member starts, and how it stops.

use std::{
    io,
    net::{SocketAddr, TcpListener as StdTcpListener, ToSocketAddrs},
    sync::Arc,
    time::Duration,
};

use axum::Router;
use prost::Message as _;
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    client::{self, Client},
    config::{Config, ConfigError, DEFAULT_TOKEN, InitialClusterState},
    convert,
    inlet::Inlet,
    join::{self, Found, Joined, Undecided},
    members::{MemberRecord, Membership, PeerChange},
    ready::{Core, CoreError, Outgoing, Settings},
    request::RequestIds,
    status::{RaftStatus, Shared},
    storage::{Identity, Store, StoreError},
    task::{End, Reports, Stopped, Task},
};
use crate::{
    admin::{AboutSource, Check, Health, HealthSource},
    dial::urls::PeerUrl,
    id::{ClusterId, MemberId},
    metrics,
    server::{ConnectionLimits, ConnectionMetrics, Server},
    telemetry::Events,
    tls::Tls,
    transport::{Transport, TransportError, snapshot::store::SnapshotStore},
    wire::raftpb::{ConfChange, ConfChangeType, ConfState, Entry, EntryType},
};

/// How long clients' requests under way may take when a member stops.
const GRACE: Duration = Duration::from_secs(5);

/// Why a member cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The config cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The store cannot be used.
    #[error("data directory {directory}: {error}")]
    Store {
        /// Where.
        directory: String,
        /// Why.
        error: StoreError,
    },
    /// Received snapshots cannot be kept.
    #[error("data directory {directory}: {error}")]
    Snapshots {
        /// Where.
        directory: String,
        /// Why.
        error: io::Error,
    },
    /// The data directory is another member's.
    #[error("data directory {directory} is that of member {found:?}, not of {name:?}")]
    AnotherMember {
        /// Where.
        directory: String,
        /// Whose it is.
        found: String,
        /// Who we are.
        name: String,
    },
    /// The data directory is another cluster's.
    #[error("data directory {directory} is of the cluster with the token {found:?}, not {token:?}")]
    AnotherCluster {
        /// Where.
        directory: String,
        /// Its token.
        found: String,
        /// Ours.
        token: String,
    },
    /// An address that cannot be listened on: in use, or not ours.
    #[error("cannot listen on {url} ({flag}): {error}")]
    Listen {
        /// Where.
        url: String,
        /// What asks for it.
        flag: &'static str,
        /// Why.
        error: io::Error,
    },
    /// An `https` URL without certificates.
    #[error("listen-peer-urls has {0}, and there is no certificate")]
    NoCertificate(String),
    /// The transport cannot be built.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// Raft cannot be started.
    #[error("cannot start raft: {0}")]
    Raft(String),
    /// The registry refused the metrics of raft or of the peer port.
    #[error("metrics cannot be registered: {0}")]
    Metrics(#[from] prometheus::Error),
    /// The system gives no thread.
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
}

/// A member that runs. Cheap to clone: every clone is the same member.
#[derive(Clone)]
pub struct Node {
    inner: Arc<Inner>,
}

struct Inner {
    transport: Transport,
    shared: Arc<Shared>,
    end: End,
    stop_clients: CancellationToken,
    stop_raft: CancellationToken,
    stop_peers: CancellationToken,
    raft_ended: CancellationToken,
    clients: TaskTracker,
    peers: TaskTracker,
    peer_addresses: Vec<SocketAddr>,
    client_addresses: Vec<SocketAddr>,
}

impl Drop for Inner {
    /// A member that nobody holds, and nobody stopped.
    fn drop(&mut self) {
        for stop in [&self.stop_clients, &self.stop_raft, &self.stop_peers] {
            stop.cancel();
        }
    }
}

impl Node {
    /// Starts a member on the tokio runtime that this is called in. Of one that joins a cluster, it returns once a
    /// member has told of it.
    ///
    /// # Errors
    /// When it cannot start: each reason is one line.
    pub async fn start(mut config: Config) -> Result<Self, Error> {
        config.check()?;
        let peers = bind_peers(&mut config)?;
        let clients = bind_clients(&mut config)?;
        let directory = config.data_dir.join("member");
        let in_directory = |error| Error::Store { directory: config.data_dir.display().to_string(), error };
        let mut store = Store::open(&directory, config.limits.snapshots).map_err(in_directory)?;
        let identity = match store.identity() {
            Some(identity) => recognise(&config, identity.clone())?,
            None => make(&config, &mut store, &peers).await?,
        };
        let snapshots = SnapshotStore::open(directory.join("snap"))
            .map_err(|error| Error::Snapshots { directory: config.data_dir.display().to_string(), error })?;
        Parts { config, identity, store, snapshots }.run(peers, clients)
    }

    /// Its transport.
    pub fn transport(&self) -> &Transport {
        &self.inner.transport
    }

    /// The state of its raft.
    pub fn raft_status(&self) -> RaftStatus {
        self.inner.shared.status()
    }

    /// Who it is: its name, and the state of its raft in short.
    pub fn about(&self) -> AboutSource {
        let shared = self.inner.shared.clone();
        Arc::new(move || shared.status().about())
    }

    /// Its health checks: `running` and `takes_part` say whether raft works here, `leader` and `caught_up` whether it
    /// can serve.
    pub fn health(&self) -> HealthSource {
        let (shared, end) = (self.inner.shared.clone(), self.inner.end.clone());
        Arc::new(move || {
            let running = Check { name: "running", failure: end.reason().map(|reason| reason.to_string()) };
            let ready = std::iter::once(running.clone()).chain(shared.status().checks()).collect();
            Health { live: vec![running], ready }
        })
    }

    /// Where peers reach it.
    pub fn peer_addresses(&self) -> &[SocketAddr] {
        &self.inner.peer_addresses
    }

    /// Where clients reach it.
    pub fn client_addresses(&self) -> &[SocketAddr] {
        &self.inner.client_addresses
    }

    /// Waits until it stops, and says why: by itself, or because it was asked to.
    pub async fn stopped(&self) -> Stopped {
        self.inner.end.wait().await
    }

    /// Stops it: clients' requests under way are answered, leadership is handed over, what was applied is made
    /// lasting, streams end cleanly. Returns when every task has ended.
    pub async fn stop(&self) {
        let inner = &self.inner;
        inner.stop_clients.cancel();
        inner.clients.close();
        inner.clients.wait().await;
        inner.stop_raft.cancel();
        inner.raft_ended.cancelled().await;
        inner.transport.stop().await;
        inner.stop_peers.cancel();
        inner.peers.close();
        inner.peers.wait().await;
    }
}

/// What a member is made of, before it runs.
struct Parts {
    config: Config,
    identity: Identity,
    store: Store,
    snapshots: SnapshotStore,
}

impl Parts {
    fn run(self, peers: Vec<(StdTcpListener, bool)>, clients: Vec<StdTcpListener>) -> Result<Node, Error> {
        let Self { config, identity, store, snapshots } = self;
        let in_directory = |error| Error::Store { directory: config.data_dir.display().to_string(), error };
        let (member, cluster) = (MemberId(identity.member), ClusterId(identity.cluster));
        let membership = store.membership().map_err(in_directory)?;
        let ids = RequestIds::new(identity.member, store.boot().map_err(in_directory)?);
        let status = RaftStatus { id: member, cluster, name: config.name.clone(), ..RaftStatus::default() };
        let events = Events::default();
        let shared = Shared::new(status, membership.clone(), events.clone());
        let (inbox, queue) = Task::queue();
        let (end, reports) = (End::default(), Arc::<Reports>::default());
        let inlet = Inlet {
            cluster,
            inbox: inbox.clone(),
            reports: reports.clone(),
            shared: shared.clone(),
            snapshots: snapshots.clone(),
            end: end.clone(),
            patience: patience(&config),
        };
        let own = membership.get(member).map(|member| member.peer_urls.clone());
        let own = own.unwrap_or_else(|| config.initial_advertise_peer_urls.clone());
        let transport = transport(&config, member, cluster, own, inlet, snapshots, &events)?;
        for peer in peers_at_start(&membership, &identity) {
            change_peer(&transport, peer);
        }

        let client = Client::new(&config, ids.clone(), store.reader(), shared.clone(), inbox);
        let settings = Settings {
            member,
            cluster,
            election_ticks: config.election_ticks(),
            election_timeout: config.election_timeout,
            snapshot_count: config.snapshot_count,
            max_request_bytes: config.max_request_bytes,
        };
        let to = transport.clone();
        let outbox = Box::new(move |outgoing| match outgoing {
            Outgoing::Messages(messages) => to.send(messages),
            Outgoing::Snapshot(message, body) => to.send_snapshot(*message, body),
            Outgoing::Peer(change) => change_peer(&to, change),
        });
        let core = Core::new(settings, store, ids, shared.clone(), outbox);
        let core = core.map_err(|error: CoreError| Error::Raft(error.to_string()))?;
        config.registry.register(metrics::raft_collector({
            let shared = shared.clone();
            move || shared.status().metrics()
        }))?;

        let addresses = |listener: &StdTcpListener| listener.local_addr().ok();
        let peer_addresses = peers.iter().filter_map(|(listener, _)| addresses(listener)).collect();
        let client_addresses = clients.iter().filter_map(addresses).collect();
        let (stop_clients, stop_raft, stop_peers) = Default::default();
        let mut inner = Inner {
            transport,
            shared,
            end,
            stop_clients,
            stop_raft,
            stop_peers,
            raft_ended: CancellationToken::new(),
            clients: TaskTracker::new(),
            peers: TaskTracker::new(),
            peer_addresses,
            client_addresses,
        };
        inner.serve_peers(peers, &config)?;
        inner.serve_clients(clients, client.clone())?;
        let task = Task::new(
            core,
            queue,
            reports,
            config.heartbeat_interval,
            config.election_timeout,
            inner.stop_raft.clone(),
        );
        inner.raft_ended = task.spawn(inner.end.clone()).map_err(Error::Thread)?;
        inner.publish(client.clone(), &config);
        if config.initial_cluster_state == InitialClusterState::Auto {
            inner.promote(client, &config);
        }
        tracing::info!(%member, %cluster, name = config.name, "started");
        Ok(Node { inner: Arc::new(inner) })
    }
}

impl Inner {
    fn serve_peers(&self, listeners: Vec<(StdTcpListener, bool)>, config: &Config) -> Result<(), Error> {
        let router = crate::server::router(&self.transport);
        let connections = ConnectionMetrics::register(&config.registry)?;
        for (listener, tls) in listeners {
            let server = peer_server(router.clone(), config.tls.as_ref().filter(|_| tls)).metrics(&connections);
            self.peers.spawn(server.serve(listening(listener, "listen-peer-urls")?, self.stop_peers.clone()));
        }
        Ok(())
    }

    fn serve_clients(&self, listeners: Vec<StdTcpListener>, client: Client) -> Result<(), Error> {
        let router = client::router(client);
        // Clients are not known by their address: one of them may hold all connections there are.
        let bounds = ConnectionLimits::default();
        let limits = ConnectionLimits { per_address: bounds.total, grace: GRACE, ..bounds };
        for listener in listeners {
            let server = Server::new(router.clone()).limits(limits.clone());
            self.clients.spawn(server.serve(listening(listener, "listen-client-urls")?, self.stop_clients.clone()));
        }
        Ok(())
    }

    /// Tells the cluster this member's name and client URLs, until it knows them (etcd's `EtcdServer.publish`).
    fn publish(&self, client: Client, config: &Config) {
        let (name, urls) = (config.name.clone(), config.advertise_client_urls.clone());
        let (stop, pause) = (self.stop_clients.clone(), config.election_timeout);
        self.clients.spawn(async move {
            stop.run_until_cancelled(async {
                while !client.publish(&name, &urls).await {
                    tokio::time::sleep(pause).await;
                }
            })
            .await;
        });
    }

    /// Asks that this member be promoted, as long as it is a learner.
    fn promote(&self, client: Client, config: &Config) {
        let (stop, pause) = (self.stop_clients.clone(), config.election_timeout);
        self.clients.spawn(async move {
            stop.run_until_cancelled(async {
                while !client.promoted().await {
                    tokio::time::sleep(pause).await;
                }
            })
            .await;
        });
    }
}

fn transport(
    config: &Config,
    member: MemberId,
    cluster: ClusterId,
    own: Vec<PeerUrl>,
    inlet: Inlet,
    snapshots: SnapshotStore,
    events: &Events,
) -> Result<Transport, TransportError> {
    let builder = Transport::builder(member, cluster, Arc::new(inlet))
        .urls(own)
        .snapshots(snapshots)
        .limits(config.limits.clone())
        .probe(config.probe_interval, config.probe_timeout)
        .trace_ratio(config.trace_ratio)
        .events(events);
    match &config.tls {
        Some(tls) => builder.tls(tls.clone()).build(),
        None => builder.build(),
    }
}

/// Whom to dial before anything more is applied: the members, or, of one that has just joined, those it was told of.
fn peers_at_start(membership: &Membership, identity: &Identity) -> Vec<PeerChange> {
    let known = membership.peer_changes(&Membership::default(), MemberId(identity.member));
    if membership.members().is_some() {
        return known;
    }
    let others = identity.joined.iter().filter(|record| record.id != identity.member);
    let urls = |record: &MemberRecord| record.peer_urls.iter().filter_map(|url| url.parse().ok()).collect();
    others.map(|record| PeerChange::Set(MemberId(record.id), urls(record))).collect()
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

/// How long a proposal waits for a leader: a few elections, and shorter than a peer waits for the answer of its POST.
fn patience(config: &Config) -> Duration {
    (config.election_timeout * 3).min(Duration::from_secs(8))
}

/// Who this member is comes from the disk; the directory must be its own.
fn recognise(config: &Config, identity: Identity) -> Result<Identity, Error> {
    let directory = || config.data_dir.display().to_string();
    if identity.name != config.name {
        let (found, name) = (identity.name, config.name.clone());
        return Err(Error::AnotherMember { directory: directory(), found, name });
    }
    // The default may just mean that nobody said anything: with a data directory, nobody needs to.
    let token = &config.initial_cluster_token;
    if *token != identity.token && token != DEFAULT_TOKEN {
        let (found, token) = (identity.token, token.clone());
        return Err(Error::AnotherCluster { directory: directory(), found, token });
    }
    tracing::info!(
        directory = directory(),
        member = %MemberId(identity.member),
        cluster = %ClusterId(identity.cluster),
        "this member has been started before: who it is comes from the disk, initial flags are ignored"
    );
    Ok(identity)
}

/// Makes a member that was never started.
async fn make(config: &Config, store: &mut Store, peers: &[(StdTcpListener, bool)]) -> Result<Identity, Error> {
    let members = config.initial_members()?;
    let in_directory = |error| Error::Store { directory: config.data_dir.display().to_string(), error };
    let (name, token) = (config.name.clone(), config.initial_cluster_token.clone());
    let birth = Birth::of(&members, &token);
    let own = members.iter().find(|(other, _)| *other == name).map(|(_, urls)| urls.as_slice());
    let member = MemberId::derive(own.unwrap_or_default(), &token, None);
    let found = match config.initial_cluster_state {
        InitialClusterState::New => Found::New,
        InitialClusterState::Existing => Found::Existing(join::join(config).await),
        InitialClusterState::Auto => {
            let undecided = Undecided::serve(peers, config.tls.as_ref(), birth.cluster)?;
            let found = join::find_out(config, &members, member, birth.cluster).await;
            undecided.stop().await;
            found
        }
    };
    match found {
        Found::New => {
            let identity = Identity { member: member.0, cluster: birth.cluster.0, name, token, joined: Vec::new() };
            let entries = birth.entries.into_iter().map(convert::entry_from_raftpb).collect::<Result<Vec<_>, _>>();
            let entries = entries.map_err(|error| Error::Raft(error.to_string()))?;
            let state = convert::conf_state_from_raftpb(birth.conf_state);
            store.bootstrap(&identity, &entries, &state, &birth.membership).map_err(in_directory)?;
            Ok(identity)
        }
        Found::Existing(Joined { member, cluster, members }) => {
            let identity = Identity { member: member.0, cluster: cluster.0, name, token, joined: members };
            let nothing = convert::conf_state_from_raftpb(ConfState::default());
            store.bootstrap(&identity, &[], &nothing, &Membership::default()).map_err(in_directory)?;
            Ok(identity)
        }
    }
}

/// The first entries of a cluster: a ConfChange for each member, in the order of their IDs, the same on all (etcd's
/// `startNode`).
struct Birth {
    cluster: ClusterId,
    entries: Vec<Entry>,
    conf_state: ConfState,
    membership: Membership,
}

impl Birth {
    fn of(members: &[(String, Vec<PeerUrl>)], token: &str) -> Self {
        let derive = |urls: &[PeerUrl]| MemberId::derive(urls, token, None);
        let mut records: Vec<MemberRecord> = members
            .iter()
            .map(|(name, urls)| MemberRecord {
                id: derive(urls).0,
                peer_urls: urls.iter().map(ToString::to_string).collect(),
                name: name.clone(),
                ..MemberRecord::default()
            })
            .collect();
        records.sort_by_key(|record| record.id);
        let mut birth = Self {
            cluster: ClusterId::derive(&records.iter().map(|record| MemberId(record.id)).collect::<Vec<_>>()),
            entries: Vec::new(),
            conf_state: ConfState { voters: records.iter().map(|record| record.id).collect(), ..ConfState::default() },
            membership: Membership::default(),
        };
        for (index, record) in (1..).zip(&records) {
            let kind = ConfChangeType::ConfChangeAddNode as i32;
            let change = ConfChange { id: 0, r#type: kind, node_id: record.id, context: record.to_json() };
            let data = change.encode_to_vec().into();
            birth.entries.push(Entry { r#type: EntryType::EntryConfChange as i32, term: 1, index, data });
            // The URLs are all different, and so are the IDs that are derived from them.
            let _ = birth.membership.apply(&change);
        }
        birth
    }
}

/// The listeners that were bound for us, or one for each URL. `true`: it speaks TLS.
fn bind_peers(config: &mut Config) -> Result<Vec<(StdTcpListener, bool)>, Error> {
    let bound = std::mem::take(&mut config.peer_listeners);
    if !bound.is_empty() {
        let tls = config.initial_advertise_peer_urls.iter().any(PeerUrl::is_tls);
        return Ok(bound.into_iter().map(|listener| (listener, tls)).collect());
    }
    let bind = |url: &PeerUrl| {
        if url.is_tls() && config.tls.is_none() {
            return Err(Error::NoCertificate(url.to_string()));
        }
        Ok((bind(url, "listen-peer-urls")?, url.is_tls()))
    };
    config.listen_peer_urls.iter().map(bind).collect()
}

fn bind_clients(config: &mut Config) -> Result<Vec<StdTcpListener>, Error> {
    let bound = std::mem::take(&mut config.client_listeners);
    if !bound.is_empty() {
        return Ok(bound);
    }
    config.listen_client_urls.iter().map(|url| bind(url, "listen-client-urls")).collect()
}

/// An IPv4 address first, as Go's `net.Listen` takes `localhost`.
fn bind(url: &PeerUrl, flag: &'static str) -> Result<StdTcpListener, Error> {
    let failed = |error| Error::Listen { url: url.to_string(), flag, error };
    let mut addresses: Vec<SocketAddr> = (url.host(), url.port()).to_socket_addrs().map_err(failed)?.collect();
    addresses.sort_by_key(SocketAddr::is_ipv6);
    StdTcpListener::bind(addresses.as_slice()).map_err(failed)
}

/// A server for a peer listener; without certificates, of plain HTTP.
pub(super) fn peer_server(app: Router, tls: Option<&Tls>) -> Server {
    let server = Server::new(app);
    match tls {
        Some(tls) => server.tls(tls.clone()),
        None => server,
    }
}

pub(super) fn listening(listener: StdTcpListener, flag: &'static str) -> Result<TcpListener, Error> {
    let url = address(&listener);
    let listening = listener.set_nonblocking(true).and_then(|()| TcpListener::from_std(listener));
    listening.map_err(|error| Error::Listen { url, flag, error })
}

/// The same listener once more: what serves it may stop and leave the port to who comes after.
pub(super) fn listening_too(listener: &StdTcpListener, flag: &'static str) -> Result<TcpListener, Error> {
    let copy = listener.try_clone();
    listening(copy.map_err(|error| Error::Listen { url: address(listener), flag, error })?, flag)
}

fn address(listener: &StdTcpListener) -> String {
    listener.local_addr().map_or_else(|_| "?".to_owned(), |address| address.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members() -> Vec<(String, Vec<PeerUrl>)> {
        let url = |port| vec![format!("http://127.0.0.1:{port}").parse().expect("a URL")];
        vec![("a".to_owned(), url(2380)), ("b".to_owned(), url(2381)), ("c".to_owned(), url(2382))]
    }

    /// IDs as etcd gives them for these URLs and this token.
    #[test]
    fn every_member_is_born_with_the_same_log_and_knows_all_names() {
        let birth = Birth::of(&members(), "etcd-cluster");
        let mut turned = members();
        turned.reverse();
        assert_eq!(birth.entries, Birth::of(&turned, "etcd-cluster").entries);
        assert!(birth.membership.agrees_with(&birth.conf_state));
        let names: std::collections::BTreeSet<_> = birth.membership.iter().map(|member| member.name.as_str()).collect();
        assert_eq!(names, ["a", "b", "c"].into());
    }

    #[test]
    fn a_directory_is_recognised_by_name_and_token_and_by_nothing_else() {
        let identity = Identity { member: 1, cluster: 2, name: "a".into(), token: "t".into(), joined: Vec::new() };
        let with = |name: &str, token: &str| Config {
            name: name.to_owned(),
            initial_cluster_token: token.to_owned(),
            initial_cluster: Vec::new(),
            ..Config::default()
        };
        assert!(recognise(&with("a", "t"), identity.clone()).is_ok());
        assert!(recognise(&with("a", DEFAULT_TOKEN), identity.clone()).is_ok(), "nobody said anything");
        assert!(matches!(recognise(&with("b", "t"), identity.clone()), Err(Error::AnotherMember { .. })));
        assert!(matches!(recognise(&with("a", "u"), identity), Err(Error::AnotherCluster { .. })));
    }

    #[test]
    fn an_address_in_use_is_named_with_its_flag() {
        let taken = StdTcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}", taken.local_addr().expect("bound")).parse().expect("a URL");
        let error = bind(&url, "listen-peer-urls").expect_err("it is in use").to_string();
        assert!(error.contains(url.as_str()) && error.contains("listen-peer-urls"), "{error}");
    }
}
