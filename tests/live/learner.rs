//! A member on our transport that joins a cluster of etcd members as a learner.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use prometheus::{Registry, TextEncoder};
use rafthttp::{
    Critical, MemberId, Raft, Rejected, Server, SnapshotStatus, SnapshotStore, Source, Tls, Transport,
    metrics::Direction,
    router,
    wire::{StreamKind, raftpb::Message},
};
use tempfile::TempDir;
use tokio::{net::TcpListener, task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    follower::Follower,
    relay::{Cut, Relay},
    scrape::Scrape,
    support::{
        certificates::Files,
        etcd::{Cluster, Member},
        lock,
    },
};

/// What the transport serves.
#[derive(Default)]
struct Application {
    follower: Mutex<Follower>,
    critical: Mutex<Vec<Critical>>,
    /// Set once it is there; taken when the member stops, since each holds the other.
    transport: Mutex<Option<Transport>>,
}

/// The member. Everything between it and the others passes through relays: one before it, one before each of them.
pub struct Learner {
    pub id: MemberId,
    pub url: String,
    pub transport: Transport,
    application: Arc<Application>,
    registry: Registry,
    before_us: Relay,
    before_them: Vec<Relay>,
    stop: CancellationToken,
    serving: JoinHandle<()>,
    snapshots: SnapshotStore,
    _files: (TempDir, Option<Files>),
}

#[async_trait]
impl Raft for Application {
    async fn process(&self, _: MemberId, _: Source, batch: Vec<Message>) -> Result<(), Rejected> {
        let answers: Vec<Message> = {
            let mut follower = lock(&self.follower);
            batch.iter().filter_map(|message| follower.step(message)).collect()
        };
        let transport = lock(&self.transport).clone();
        if let Some(transport) = transport {
            transport.send(answers);
        }
        Ok(())
    }

    fn is_removed(&self, _: MemberId) -> bool {
        false
    }

    fn report_unreachable(&self, _: MemberId) {}

    fn report_snapshot(&self, _: MemberId, _: SnapshotStatus) {}

    fn critical(&self, error: Critical) {
        lock(&self.critical).push(error);
    }
}

impl Learner {
    /// Is added by `etcdctl`, and starts. Also says when: from then on its streams are to be up.
    pub async fn join(cluster: &Cluster) -> (Self, Instant) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let before_us = Relay::start(listener.local_addr().expect("bound")).await;
        let url = format!("{}://{}", cluster.scheme(), before_us.address);
        let mut before_them = Vec::new();
        for member in &cluster.members {
            let address = member.peer_url.rsplit_once("//").and_then(|(_, address)| address.parse().ok());
            before_them.push(Relay::start(address.expect("an address")).await);
        }
        let id = cluster.add_learner("ours", &url).await.id;

        let started = Instant::now();
        let application = Arc::new(Application::default());
        lock(&application.follower).id = id.0;
        let directory = tempfile::tempdir().expect("a directory");
        let snapshots = SnapshotStore::open(directory.path()).expect("a store");
        let registry = Registry::new();
        let (files, tls) = cluster.tls().unzip();
        let tls = tls.map(|config| Tls::load(config).expect("certificates that were just made"));
        let mut builder = Transport::builder(id, cluster.id, application.clone())
            .urls(vec![url.parse().expect("a peer URL")])
            .server_version(cluster.version)
            .snapshots(snapshots.clone())
            .registry(&registry);
        builder = tls.iter().fold(builder, |builder, tls| builder.tls(tls.clone()));
        let transport = builder.build().expect("a transport");
        *lock(&application.transport) = Some(transport.clone());
        for (member, relay) in cluster.members.iter().zip(&before_them) {
            transport.add_peer(member.id, vec![url_of(cluster, relay.address)]).expect("a peer");
        }
        let stop = CancellationToken::new();
        let server = tls.into_iter().fold(Server::new(router(&transport)), Server::tls);
        let serving = tokio::spawn(server.serve(listener, stop.clone()));
        let learner = Self {
            id,
            url,
            transport,
            application,
            registry,
            before_us,
            before_them,
            stop,
            serving,
            snapshots,
            _files: (directory, files),
        };
        (learner, started)
    }

    /// How many of the four streams with a member are up.
    pub fn streams(&self, member: &Member) -> usize {
        let peers = self.transport.peers();
        let link = peers.iter().find(|peer| peer.id == member.id).map(|peer| &peer.link);
        link.map_or(0, |link| link.stream_up.values().flat_map(|ways| ways.values()).filter(|up| **up).count())
    }

    /// Waits until all four streams with each of these members are up. Says how long it took.
    pub async fn linked(&self, members: &[&Member], patience: Duration) -> Duration {
        let start = Instant::now();
        self.until("four streams with each", patience, || members.iter().all(|member| self.streams(member) == 4)).await;
        start.elapsed()
    }

    /// Waits until something is so.
    pub async fn until(&self, what: &str, patience: Duration, mut holds: impl FnMut() -> bool) {
        let end = Instant::now() + patience;
        while !holds() {
            if Instant::now() >= end {
                // Told before the panic, which must not hold what others wait for.
                let (follower, links) = (format!("{:?}", *self.follower()), self.links());
                panic!("not within {patience:?}: {what}\n{follower}\n{links:#?}");
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// What it knows of the raft.
    pub fn follower(&self) -> std::sync::MutexGuard<'_, Follower> {
        lock(&self.application.follower)
    }

    /// The critical errors that it was told.
    pub fn critical(&self) -> Vec<Critical> {
        lock(&self.application.critical).clone()
    }

    /// The file of a snapshot that came.
    pub fn snapshot(&self, index: u64) -> Vec<u8> {
        std::fs::read(self.snapshots.path(index)).expect("it was saved before its message was handed over")
    }

    /// What its `/metrics` say.
    pub fn scrape(&self) -> Scrape {
        Scrape::parse(&TextEncoder::new().encode_to_string(&self.registry.gather()).expect("metrics are text"))
    }

    /// Cuts it off from one member: no byte passes, in either direction, and no connection ends.
    pub fn cut(&self, index: usize, member: &Member) {
        self.before_us.set(Cut::From(member.pid().expect("it runs")));
        self.before_them[index].set(Cut::All);
    }

    /// Ends what [`Self::cut`] began.
    pub fn mend(&self, index: usize) {
        self.before_us.set(Cut::None);
        self.before_them[index].set(Cut::None);
    }

    /// Panics if anything was ever offered for sending that a follower without a vote does not say, or if the ledger
    /// does not balance.
    pub fn check_ledger(&self) {
        for peer in self.transport.peers() {
            let kinds = peer.outgoing.offered.iter().filter(|(_, count)| **count > 0);
            let said: Vec<&str> = kinds.map(|(kind, _)| kind.label()).collect();
            let acknowledgements = ["MsgAppResp", "MsgHeartbeatResp"];
            assert!(said.iter().all(|kind| acknowledgements.contains(kind)), "said to {}: {said:?}", peer.id);
            assert!(peer.outgoing.balances(), "to {}: {:?}", peer.id, peer.outgoing);
            assert!(peer.incoming.balances(), "from {}: {:?}", peer.id, peer.incoming);
            assert_eq!(peer.incoming.frame_errors.total(), 0, "from {}: {:?}", peer.id, peer.incoming.frame_errors);
        }
        assert_eq!(self.scrape().broken_laws(), Vec::<String>::new());
    }

    /// How often a stream from or to a member was lost so far.
    pub fn losses(&self, member: &Member) -> u64 {
        let peers = self.transport.peers();
        peers.iter().filter(|peer| peer.id == member.id).map(|peer| peer.link.losses.total()).sum()
    }

    pub async fn stop(self) {
        self.transport.stop().await;
        lock(&self.application.transport).take();
        self.stop.cancel();
        self.serving.await.expect("the server ends");
    }

    fn links(&self) -> Vec<String> {
        let peers = self.transport.peers();
        let told = peers.iter().map(|peer| {
            let up = |kind: StreamKind, direction: Direction| peer.link.stream_up[kind][direction];
            format!(
                "{}: msgapp in {} out {}, message in {} out {}, lost {:?}, last error {:?}",
                peer.id,
                up(StreamKind::MsgApp, Direction::In),
                up(StreamKind::MsgApp, Direction::Out),
                up(StreamKind::Message, Direction::In),
                up(StreamKind::Message, Direction::Out),
                peer.link.losses,
                peer.link.last_error
            )
        });
        let relays = self.before_them.iter().chain([&self.before_us]).map(|relay| format!("{relay:?}"));
        told.chain(relays).collect()
    }
}

fn url_of(cluster: &Cluster, address: SocketAddr) -> rafthttp::PeerUrl {
    format!("{}://{address}", cluster.scheme()).parse().expect("a peer URL")
}
