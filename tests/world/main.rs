//! Members in a simulated world: a network and disks in memory, and a clock that advances when everybody waits.

#[cfg(feature = "node")]
mod disk;
#[cfg_attr(not(feature = "node"), allow(dead_code, reason = "only a member with a disk receives snapshots"))]
mod memory;
#[cfg(feature = "node")]
mod nodes;
#[cfg(feature = "node")]
mod resumption;
mod snapshots;
#[path = "../support/mod.rs"]
mod support;

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use memory::Memory;
use prost::Message as _;
use rafthttp::{
    Builder, MemberId, PeerUrl, Server, Transport,
    internals::world::{Network, World},
    wire::raftpb::Message,
};
use support::{CLUSTER, Recorder, append, heartbeat, lock, snapshot, until};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    task::JoinHandle,
    time::Instant,
};
use tokio_util::sync::CancellationToken;

/// Runs a test on a clock that waits for nothing, on one thread, where a socket cannot be made: there is no driver.
fn simulate<F: Future>(test: impl FnOnce() -> F) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_time().start_paused(true).build().expect("a runtime").block_on(test());
}

struct Member {
    url: PeerUrl,
    transport: Transport,
    raft: Arc<Recorder>,
    stop: CancellationToken,
    server: JoinHandle<()>,
}

impl Member {
    async fn start(memory: &Memory, id: u64) -> Self {
        Self::start_with(memory, id, |_, builder| builder).await
    }

    async fn start_with(memory: &Memory, id: u64, configure: impl FnOnce(&World, Builder) -> Builder) -> Self {
        let name = format!("member-{id}");
        let address = [10, 0, 0, u8::try_from(id).expect("few")];
        let network = memory.place(&name, address);
        let world = World::default().with_seed(id).with_network(network.clone()).with_one_thread();
        let url: PeerUrl = format!("http://{name}:2380").parse().expect("a URL");
        let raft = Arc::new(Recorder::default());
        let builder = Transport::builder(MemberId(id), CLUSTER, raft.clone()).urls(vec![url.clone()]).world(&world);
        let transport = configure(&world, builder).build().expect("a transport");
        let stop = CancellationToken::new();
        let port = network.listen(&name, 2380).await.expect("it is free");
        let server = Server::new(rafthttp::router(&transport)).serve_on(port.into(), stop.clone());
        Self { url, transport, raft, stop, server: tokio::spawn(server) }
    }

    fn add(&self, other: &Self) {
        self.transport.add_peer(other.transport.identity().member, vec![other.url.clone()]).expect("a peer");
    }

    async fn stop(self) {
        self.transport.stop().await;
        self.stop.cancel();
        self.server.await.expect("it ends well");
    }

    fn is_connected(&self) -> bool {
        let link = &self.transport.peers()[0].link;
        link.stream_up.values().all(|ways| *ways == [true; 2]) && link.reachable == Some(true)
    }

    fn taken(&self) -> Vec<u64> {
        let number = |message: &Message| message.entries.first().map_or(message.commit, |entry| entry.index);
        lock(&self.raft.taken).iter().map(|(_, message)| number(message)).collect()
    }
}

#[test]
fn two_members_talk_without_a_socket_and_time_costs_nothing() {
    let begun = SystemTime::now();
    simulate(|| async {
        let memory = Memory::default();
        let (one, two) = (Member::start(&memory, 1).await, Member::start(&memory, 2).await);
        one.add(&two);
        two.add(&one);
        until("both are connected", || one.is_connected() && two.is_connected()).await;
        for index in 1..=1000 {
            one.transport.send(vec![append(1, 2, index, &[7; 100])]);
            two.transport.send(vec![heartbeat(2, 1, index)]);
        }
        until("all taken", || two.taken().len() == 1000 && one.taken().len() == 1000).await;
        let all: Vec<u64> = (1..=1000).collect();
        assert_eq!((one.taken(), two.taken()), (all.clone(), all));
        // An hour of probes and link heartbeats, on the connections that there are.
        let dialled = memory.dialled();
        tokio::time::sleep(Duration::from_secs(3600)).await;
        assert!(one.is_connected() && two.is_connected());
        assert_eq!(memory.dialled(), dialled);
        one.stop().await;
        two.stop().await;
        until("nothing is left of them", || memory.open() == 0).await;
    });
    assert!(begun.elapsed().is_ok_and(|took| took < Duration::from_secs(600)), "an hour of theirs is less of ours");
}

#[test]
fn a_cut_is_seen_in_time_and_healed_by_redialling() {
    simulate(|| async {
        let memory = Memory::default();
        let (one, two) = (Member::start(&memory, 1).await, Member::start(&memory, 2).await);
        one.add(&two);
        two.add(&one);
        until("both are connected", || one.is_connected() && two.is_connected()).await;
        memory.cut();
        let begun = Instant::now();
        let reachable = |member: &Member| member.transport.peers()[0].link.reachable;
        until("the cut is seen", || reachable(&one) == Some(false) && reachable(&two) == Some(false)).await;
        assert!(begun.elapsed() < Duration::from_millis(1800), "{:?}", begun.elapsed());
        one.transport.send(vec![heartbeat(1, 2, 1)]);
        until("raft hears of it", || !lock(&one.raft.unreachable).is_empty()).await;
        memory.heal();
        until("both are connected again", || one.is_connected() && two.is_connected()).await;
        one.stop().await;
        two.stop().await;
    });
}

/// Posts a heartbeat to member 1 as member 9.
async fn post_as_nine(place: &dyn Network, urls: &str) -> String {
    let body = heartbeat(9, 1, 0).encode_to_vec();
    let head = format!(
        "POST /raft HTTP/1.1\r\nHost: x\r\nX-Server-From: 9\r\nX-Server-Version: 3.6.0\r\nX-Min-Cluster-Version: 3.0.0\r\n\
         X-Etcd-Cluster-ID: {CLUSTER}\r\nX-PeerURLs: {urls}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    let mut stream = place.connect(([10, 0, 0, 1], 2380).into()).await.expect("it listens");
    stream.write_all(&[head.as_bytes(), &body].concat()).await.expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("it answers");
    answer
}

#[test]
fn a_strangers_name_is_dialled_where_it_asked_from_and_nowhere_else() {
    simulate(|| async {
        let memory = Memory::default();
        let (one, two) = (Member::start(&memory, 1).await, Member::start(&memory, 2).await);
        let place = memory.place("member-9", [10, 0, 0, 9]);
        let _nine = place.listen("member-9", 2380).await.expect("it is free");
        let given_up = || {
            let others = one.transport.status().others.expect("it writes");
            others.dropped.total()
        };
        // A name that resolves to another member's address.
        let answer = post_as_nine(&*place, "http://member-2:2380").await;
        assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
        let dialled = memory.dialled();
        one.transport.send(vec![heartbeat(1, 9, 1)]);
        until("the message is given up", || given_up() == 1).await;
        assert_eq!(memory.dialled(), dialled);
        one.transport.remove_peer(MemberId(9));
        post_as_nine(&*place, "http://member-9:2380").await;
        let dialled = memory.dialled();
        one.transport.send(vec![heartbeat(1, 9, 1)]);
        until("it is dialled", || memory.dialled() == dialled + 1).await;
        one.stop().await;
        two.stop().await;
    });
}

#[test]
fn a_name_that_nobody_has_is_a_failed_look_up() {
    simulate(|| async {
        let memory = Memory::default();
        let one = Member::start(&memory, 1).await;
        one.transport.add_peer(MemberId(2), vec!["http://nobody:2380".parse().expect("a URL")]).expect("a peer");
        let error = || one.transport.peers()[0].link.last_error.clone();
        until("it was asked for", || error().is_some()).await;
        let (_, why) = error().expect("just seen");
        assert!(why.contains("look-up of nobody failed: nobody has this name"), "{why}");
        one.stop().await;
    });
}
