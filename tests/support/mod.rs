//! Members for tests: a transport each, served on loopback, with a raft that only remembers.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use rafthttp::{
    Builder, Critical, Impostor, Incarnation, Judgement, MemberId, PeerUrl, Raft, Rejected, Server, SnapshotStatus,
    Source, Tls, TlsConfig, Transport, TransportStatus, Unheard,
    id::ClusterId,
    metrics::{Channel, Direction},
    wire::raftpb::{Entry, Message, MessageType, Snapshot, SnapshotMetadata},
};
use tokio::{net::TcpListener, task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;

pub mod certificates;
pub mod etcd;
mod laws;
pub mod ports;
mod programs;
mod tier;

#[allow(unused_imports, reason = "each test binary uses its part")]
pub use programs::program;
#[allow(unused_imports, reason = "each test binary uses its part")]
pub use tier::{not_run, tier_is_all};

/// The cluster of every test.
pub const CLUSTER: ClusterId = ClusterId(0x1000);

/// A raft that takes everything and remembers it.
#[derive(Default)]
pub struct Recorder {
    pub taken: Mutex<Vec<(MemberId, Message)>>,
    pub unreachable: Mutex<Vec<MemberId>>,
    pub snapshots: Mutex<Vec<(MemberId, SnapshotStatus)>>,
    pub critical: Mutex<Vec<Critical>>,
    pub removed: Mutex<Vec<MemberId>>,
    /// The starts of members that it was asked about, in order.
    pub meetings: Mutex<Vec<(MemberId, Incarnation, Source)>>,
    /// The starts that it does not hear.
    pub impostors: Mutex<Vec<Incarnation>>,
    /// Whether it hears requests only of starts that have answered a dial.
    pub hears_only_who_was_dialled: Mutex<bool>,
    /// Whether it takes nothing.
    pub refuses: Mutex<bool>,
    /// While it is held, proposals are not taken.
    pub proposals: tokio::sync::Mutex<()>,
    /// While it is held, nothing else is taken.
    pub rest: tokio::sync::Mutex<()>,
    /// While it is held, no snapshot is judged.
    pub judgement: tokio::sync::Mutex<()>,
}

#[async_trait]
impl Raft for Recorder {
    async fn process(&self, from: MemberId, _: Source, batch: Vec<Message>) -> Result<(), Rejected> {
        if batch.iter().any(|message| message.r#type == MessageType::MsgProp as i32) {
            drop(self.proposals.lock().await);
        } else {
            drop(self.rest.lock().await);
        }
        if *lock(&self.refuses) {
            return Err(Rejected::one("not taken"));
        }
        lock(&self.taken).extend(batch.into_iter().map(|message| (from, message)));
        Ok(())
    }

    async fn judge_snapshot(&self, _: MemberId, _: &Message) -> Result<Judgement, Rejected> {
        drop(self.judgement.lock().await);
        Ok(Judgement::Wanted)
    }

    async fn meet(&self, id: MemberId, told: Incarnation, source: Source) -> Result<(), Unheard> {
        let was_dialled = lock(&self.meetings).contains(&(id, told, Source::Member));
        lock(&self.meetings).push((id, told, source));
        if lock(&self.impostors).contains(&told) {
            return Err(Impostor::Directory.into());
        }
        let may_be_heard = source == Source::Member || was_dialled || !*lock(&self.hears_only_who_was_dialled);
        if may_be_heard { Ok(()) } else { Err(Unheard::NotMet) }
    }

    fn is_removed(&self, id: MemberId) -> bool {
        lock(&self.removed).contains(&id)
    }

    fn report_unreachable(&self, id: MemberId) {
        lock(&self.unreachable).push(id);
    }

    fn report_snapshot(&self, id: MemberId, status: SnapshotStatus) {
        lock(&self.snapshots).push((id, status));
    }

    fn critical(&self, error: Critical) {
        lock(&self.critical).push(error);
    }
}

pub fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().expect("no test panics while it holds this")
}

/// A member that is served.
pub struct TestMember {
    pub id: MemberId,
    pub url: PeerUrl,
    pub transport: Transport,
    pub raft: Arc<Recorder>,
    pub stop: CancellationToken,
    server: JoinHandle<()>,
}

impl TestMember {
    pub async fn start(id: u64) -> Self {
        Self::start_with(id, |builder| builder).await
    }

    pub async fn start_with(id: u64, configure: impl FnOnce(Builder) -> Builder) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        Self::start_on(id, listener, configure).await
    }

    pub async fn start_on(id: u64, listener: TcpListener, configure: impl FnOnce(Builder) -> Builder) -> Self {
        Self::serve(id, listener, None, configure)
    }

    /// One that speaks TLS, or does not, on a port of its own.
    pub async fn start_over(id: u64, tls: Option<Tls>, configure: impl FnOnce(Builder) -> Builder) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        Self::serve(id, listener, tls, configure)
    }

    fn serve(id: u64, listener: TcpListener, tls: Option<Tls>, configure: impl FnOnce(Builder) -> Builder) -> Self {
        let scheme = if tls.is_some() { "https" } else { "http" };
        let address = listener.local_addr().expect("bound");
        let url: PeerUrl = format!("{scheme}://{address}").parse().expect("a peer URL");
        let raft = Arc::new(Recorder::default());
        let mut builder = Transport::builder(MemberId(id), CLUSTER, raft.clone())
            .urls(vec![url.clone()])
            .probe(Duration::from_millis(200), Duration::from_millis(150));
        if let Some(tls) = &tls {
            builder = builder.tls(tls.clone());
        }
        let transport = configure(builder).build().expect("a transport");
        let stop = CancellationToken::new();
        let mut server = Server::new(rafthttp::router(&transport));
        if let Some(tls) = tls {
            server = server.tls(tls);
        }
        let server = tokio::spawn(server.serve(listener, stop.clone()));
        Self { id: MemberId(id), url, transport, raft, stop, server }
    }

    pub fn add(&self, other: &Self) {
        self.transport.add_peer(other.id, vec![other.url.clone()]).expect("a peer");
    }

    pub fn status(&self) -> TransportStatus {
        self.transport.status()
    }

    /// Whether the stream of this channel and direction to `peer` is open.
    pub fn stream(&self, peer: MemberId, channel: Channel, direction: Direction) -> bool {
        let peers = self.transport.peers();
        peers.iter().any(|status| {
            status.id == peer && channel.stream().is_some_and(|kind| status.link.stream_up[kind][direction])
        })
    }

    pub fn taken(&self) -> usize {
        lock(&self.raft.taken).len()
    }

    /// Panics if one of the ledger's laws does not hold.
    pub fn check_ledger(&self) {
        let checked = laws::ledgers(&self.transport.status());
        assert_eq!(checked, Ok(()), "{}", self.id);
    }

    pub async fn stop(self) {
        self.transport.stop().await;
        self.stop.cancel();
        self.server.await.expect("the server ends");
    }
}

/// Two members that know each other, with all four streams open.
pub async fn pair() -> (TestMember, TestMember) {
    let (one, two) = (TestMember::start(1).await, TestMember::start(2).await);
    one.add(&two);
    two.add(&one);
    connected(&one, &two).await;
    (one, two)
}

/// Waits until all four streams between two members are open.
pub async fn connected(one: &TestMember, two: &TestMember) {
    until("all four streams are open", || {
        [Channel::MsgApp, Channel::Message].into_iter().all(|channel| {
            [Direction::In, Direction::Out]
                .into_iter()
                .all(|direction| one.stream(two.id, channel, direction) && two.stream(one.id, channel, direction))
        })
    })
    .await;
}

/// Waits until something is so, for half a minute at most: the machine may have other things to do.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(30), "not within 30 s: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The message of a snapshot at `index`.
pub fn snapshot(from: u64, to: u64, index: u64) -> Message {
    let metadata = Some(SnapshotMetadata { index, term: 1, ..SnapshotMetadata::default() });
    let snapshot = Some(Snapshot { metadata, ..Snapshot::default() }.into());
    Message { r#type: MessageType::MsgSnap as i32, from, to, term: 1, snapshot, ..Message::default() }
}

pub fn heartbeat(from: u64, to: u64, commit: u64) -> Message {
    Message { r#type: MessageType::MsgHeartbeat as i32, from, to, term: 1, commit, ..Message::default() }
}

pub fn append(from: u64, to: u64, index: u64, data: &[u8]) -> Message {
    Message {
        r#type: MessageType::MsgApp as i32,
        from,
        to,
        term: 1,
        log_term: 1,
        index: index - 1,
        entries: vec![Entry { term: 1, index, data: data.to_vec().into(), ..Entry::default() }],
        commit: index - 1,
        ..Message::default()
    }
}

pub fn proposal(from: u64, to: u64) -> Message {
    Message {
        r#type: MessageType::MsgProp as i32,
        from,
        to,
        entries: vec![Entry { data: b"x".as_slice().into(), ..Entry::default() }],
        ..Message::default()
    }
}
