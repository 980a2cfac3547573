//! An etcd member, and a member of ours that has its IDs, its version and its members.

use std::{net::SocketAddr, sync::Arc};

use async_trait::async_trait;
use rafthttp::{
    Critical, Member, MemberId, Members, PeerUrl, Raft, Rejected, Server, SnapshotStatus, SnapshotStore, Source,
    Transport, router,
    wire::{raftpb::Message, version::Version},
};
use tempfile::TempDir;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::support::{
    etcd::{Cluster, Security, get},
    ports::free_url,
};

/// The IDs of the members, the same for both.
pub struct Names {
    pub local: MemberId,
    pub cluster: String,
    /// A learner that was never started; nobody listens at its URL.
    pub peer: MemberId,
    /// A learner that was added and removed.
    pub removed: MemberId,
    pub version: Version,
    /// The Go that etcd was built with: 1.x.
    pub go: u32,
}

pub struct Pair {
    pub names: Names,
    pub etcd: SocketAddr,
    pub ours: SocketAddr,
    pub cluster: Cluster,
    transport: Transport,
    stop: CancellationToken,
    serving: JoinHandle<()>,
    _snapshots: TempDir,
}

/// Takes what etcd's `Process` takes.
struct Application {
    local: MemberId,
    removed: MemberId,
    /// Whether messages for others are refused, as by every 3.5 but its first.
    refuses_others: bool,
    members: Members,
}

#[async_trait]
impl Raft for Application {
    async fn process(&self, _: MemberId, _: Source, batch: Vec<Message>) -> Result<(), Rejected> {
        for message in batch {
            if message.from == self.removed.0 {
                return Err(Rejected::one("sent by a removed member"));
            }
            if self.refuses_others && message.to != self.local.0 {
                return Err(Rejected::one("for another member"));
            }
        }
        Ok(())
    }

    fn is_removed(&self, id: MemberId) -> bool {
        id == self.removed
    }

    fn report_unreachable(&self, _: MemberId) {}

    fn report_snapshot(&self, _: MemberId, _: SnapshotStatus) {}

    fn members(&self) -> Option<Members> {
        Some(self.members.clone())
    }

    fn critical(&self, error: Critical) {
        panic!("{error}");
    }
}

impl Pair {
    /// None where this version of etcd cannot be had.
    pub async fn start(version: &str) -> Option<Self> {
        let cluster = Cluster::start(version, 1, Security::Plain).await?;
        // One learner at a time is all that etcd takes.
        let removed = cluster.add_learner("removed", &free_url()).await.id;
        cluster.remove(removed);
        let peer_url = free_url();
        let peer = cluster.add_learner("peer", &peer_url).await.id;
        let member = &cluster.members[0];
        let own: PeerUrl = member.peer_url.parse().expect("a peer URL");
        let names = Names {
            local: member.id,
            cluster: cluster.id.to_string(),
            peer,
            removed,
            version: cluster.version,
            go: go_version(&cluster).await,
        };

        let of = |id: MemberId, name: &str, url: &str, clients: &[&str], is_learner: bool| Member {
            id,
            name: name.to_owned(),
            peer_urls: vec![url.parse().expect("a peer URL")],
            client_urls: clients.iter().map(ToString::to_string).collect(),
            is_learner,
        };
        let members = Members(vec![
            of(member.id, &member.name, &member.peer_url, &[&member.client_url], false),
            of(peer, "", &peer_url, &[], true),
        ]);
        let refuses_others = cluster.version > Version::new(3, 5, 1);
        let application = Arc::new(Application { local: member.id, removed, refuses_others, members });
        let snapshots = tempfile::tempdir().expect("a directory");
        let transport = Transport::builder(member.id, cluster.id, application)
            .urls(vec![own])
            .server_version(cluster.version)
            .snapshots(SnapshotStore::open(snapshots.path()).expect("a store"))
            .build()
            .expect("a transport");
        transport.add_peer(peer, vec![peer_url.parse().expect("a peer URL")]).expect("a peer");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let ours = listener.local_addr().expect("bound");
        let stop = CancellationToken::new();
        let serving = tokio::spawn(Server::new(router(&transport)).serve(listener, stop.clone()));
        let etcd = member.peer_url.trim_start_matches("http://").parse().expect("an address");
        Some(Self { names, etcd, ours, cluster, transport, stop, serving, _snapshots: snapshots })
    }

    pub async fn stop(self) {
        self.transport.stop().await;
        self.stop.cancel();
        self.serving.await.expect("the server ends");
    }
}

/// What Go's HTTP server answers depends on Go.
async fn go_version(cluster: &Cluster) -> u32 {
    let (_, metrics) = get(&cluster.members[0].metrics_url, "/metrics").await.expect("it runs");
    let told = metrics.split_once("go_info{version=\"go1.").map(|(_, rest)| rest);
    let digits: Option<String> = told.map(|rest| rest.chars().take_while(char::is_ascii_digit).collect());
    digits.and_then(|digits| digits.parse().ok()).expect("every Go program tells its version")
}
