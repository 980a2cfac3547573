//! A member without a socket, a file or a thread: a transport and its server, and a raft that only remembers how it is
//! to answer.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use rafthttp::{
    Builder, ConnectionLimits, Critical, Limits, MemberId, PeerUrl, Raft, Rejected, Server, SnapshotStatus, Source,
    Transport, id::ClusterId, internals::world::World, wire::raftpb::Message,
};
use tokio::{runtime::Handle, task::JoinHandle, time::sleep};
use tokio_util::sync::CancellationToken;

use super::{laws, memory::Memory};

/// The cluster of every input.
pub const CLUSTER: ClusterId = ClusterId(0x1000);
/// The member that is looked at.
pub const LOCAL: MemberId = MemberId(1);
/// A member that it knows.
pub const PEER: MemberId = MemberId(2);
/// Runs an input on one thread and on a clock that moves when everybody waits.
pub fn simulate(input: impl Future<Output = ()>) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_time().start_paused(true).build().expect("a runtime").block_on(input);
}

/// Lets everything that can happen now happen.
pub async fn until_idle() {
    sleep(Duration::from_millis(1)).await;
}

/// Bounds that an input of a few kilobytes reaches.
pub fn limits() -> Limits {
    Limits {
        stream_queue: 8,
        pipeline_queue: 4,
        receive_queue: 8,
        queue_bytes: 8 << 10,
        message_bytes: 8 << 10,
        snapshot_envelope_bytes: 1 << 10,
        msgapp_bytes: 8 << 10,
        entry_bytes: 2 << 10,
        entries: 16,
        snapshot_bytes: 64 << 10,
        snapshot_headroom: 0,
        snapshot_part_age: Duration::from_secs(20),
        remotes: 2,
        remote_age: Duration::from_secs(5),
        ..Limits::default()
    }
}

/// How the raft answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mood {
    /// It takes everything.
    #[default]
    Takes,
    /// It takes nothing.
    Refuses,
    /// It does not answer.
    Waits,
}

/// Looks at a message before it is taken.
pub type Look = Box<dyn Fn(&Message) + Send + Sync>;

/// A raft without a log.
#[derive(Default)]
pub struct Moody {
    mood: tokio::sync::watch::Sender<Mood>,
    removed: Mutex<bool>,
    look: Option<Look>,
}

impl Moody {
    /// From now on it answers like this, also to those who wait.
    pub fn set(&self, mood: Mood) {
        self.mood.send_replace(mood);
    }

    /// Whether the peer counts as removed from the cluster.
    pub fn set_removed(&self, is_removed: bool) {
        *self.removed.lock().expect("nobody panics while it holds this") = is_removed;
    }
}

#[async_trait]
impl Raft for Moody {
    async fn process(&self, _: MemberId, _: Source, batch: Vec<Message>) -> Result<(), Rejected> {
        let mut mood = self.mood.subscribe();
        let mood = *mood.wait_for(|mood| *mood != Mood::Waits).await.expect("this holds the other end");
        if mood == Mood::Refuses {
            return Err(Rejected::one("not taken"));
        }
        if let Some(look) = &self.look {
            batch.iter().for_each(look);
        }
        Ok(())
    }

    fn is_removed(&self, id: MemberId) -> bool {
        id == PEER && *self.removed.lock().expect("nobody panics while it holds this")
    }

    fn report_unreachable(&self, _: MemberId) {}

    fn report_snapshot(&self, _: MemberId, _: SnapshotStatus) {}

    fn critical(&self, _: Critical) {}
}

/// A member that is served.
pub struct Member {
    /// Its transport.
    pub transport: Transport,
    /// Its raft.
    pub raft: Arc<Moody>,
    stop: CancellationToken,
    server: JoinHandle<()>,
}

impl Member {
    /// Starts it on a network. It does not know its peer yet.
    pub async fn start(
        memory: &Memory,
        look: Option<Look>,
        configure: impl FnOnce(&World, Builder) -> Builder,
    ) -> Self {
        let network = memory.place("member-1", [10, 0, 0, 1]);
        let world = World::default().with_seed(1).with_network(network.clone()).with_one_thread();
        let raft = Arc::new(Moody { look, ..Moody::default() });
        let builder = Transport::builder(LOCAL, CLUSTER, raft.clone())
            .urls(vec![url(1)])
            .world(&world)
            .limits(limits())
            .probe(Duration::from_secs(5), Duration::from_secs(1));
        let transport = configure(&world, builder).build().expect("a transport");
        let stop = CancellationToken::new();
        let port = network.listen("member-1", 2380).await.expect("it is free");
        let connections = ConnectionLimits { total: 6, per_address: 3, per_peer: 3, ..ConnectionLimits::default() };
        let server = Server::new(rafthttp::router(&transport)).limits(connections);
        let server = tokio::spawn(server.serve_on(port.into(), stop.clone()));
        Self { transport, raft, stop, server }
    }

    /// Makes the peer known.
    pub fn add_peer(&self) {
        self.transport.add_peer(PEER, vec![url(2)]).expect("a peer");
    }

    /// The ledger's laws hold, and no queue is longer than it may be.
    pub fn check(&self) {
        let (status, limits) = (self.transport.status(), limits());
        assert_eq!(laws::ledgers(&status).and_then(|()| laws::queues(&status, &limits)), Ok(()));
        assert!(status.strangers.is_some_and(|strangers| strangers.waiting <= 64));
        assert!(status.peers.len() <= 1 + limits.remotes, "{} are known", status.peers.len());
    }

    /// Stops it: within the time that it may take, nothing of it is left.
    pub async fn stop(self) {
        let Self { transport, raft, stop, server } = self;
        raft.set(Mood::Takes);
        let ended = async {
            stop.cancel();
            transport.stop().await;
            server.await.expect("the server does not panic");
        };
        tokio::time::timeout(Duration::from_secs(20), ended).await.expect("it stops in time");
    }
}

/// Nothing that was started for an input goes on when everything has been stopped and let go.
pub async fn nothing_is_left(memory: &Memory) {
    sleep(Duration::from_secs(1)).await;
    assert_eq!(memory.open(), 0, "connections are left");
    assert_eq!(Handle::current().metrics().num_alive_tasks(), 0, "tasks are left");
}

/// The URL of a member.
pub fn url(id: u8) -> PeerUrl {
    format!("http://member-{id}:2380").parse().expect("a URL")
}
