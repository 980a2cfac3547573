//! A member of a cluster that answers on loopback, and the raw requests that it is asked.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use rafthttp::{
    Critical, Limits, Members, Raft, Rejected, Rejection, RejectionKind, SnapshotStatus, SnapshotStore, Source,
    Transport,
    id::{ClusterId, MemberId},
    server::{ConnectionLimits, Server, router},
    wire::raftpb::Message,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

/// The members: member 1 answers, members 2 to 4 are its peers, member 9 was removed, all others are strangers.
pub const LOCAL: MemberId = MemberId(1);
pub const PEERS: [MemberId; 3] = [MemberId(2), MemberId(3), MemberId(4)];
pub const REMOVED: MemberId = MemberId(9);
pub const CLUSTER: ClusterId = ClusterId(0x1000);

/// Longer than anything here may take.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Takes what is for member 1, once it is let; remembers it.
pub struct FakeRaft {
    pub taken: Mutex<Vec<Message>>,
    pub members: Mutex<Option<Members>>,
    /// A permit for each message that may be taken.
    pub gate: Semaphore,
    pub waiting: AtomicUsize,
}

#[async_trait]
impl Raft for FakeRaft {
    async fn process(&self, _: MemberId, _: Source, batch: Vec<Message>) -> Result<(), Rejected> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        self.gate.acquire().await.expect("the gate is never closed").forget();
        if batch.iter().any(|message| message.to != LOCAL.0) {
            let why = "not mine".to_owned();
            return Err(Rejected(vec![Rejection { position: 0, kind: RejectionKind::Refused, why }]));
        }
        self.taken.lock().unwrap().extend(batch);
        Ok(())
    }

    fn is_removed(&self, id: MemberId) -> bool {
        id == REMOVED
    }

    fn report_unreachable(&self, _: MemberId) {}

    fn report_snapshot(&self, _: MemberId, _: SnapshotStatus) {}

    fn members(&self) -> Option<Members> {
        self.members.lock().unwrap().clone()
    }

    fn critical(&self, error: Critical) {
        panic!("{error}");
    }
}

pub struct Member {
    pub address: SocketAddr,
    pub transport: Transport,
    pub raft: Arc<FakeRaft>,
    pub stop: CancellationToken,
    pub serving: JoinHandle<()>,
    _snapshots: TempDir,
}

impl Member {
    pub async fn start() -> Self {
        Self::with(Limits::default(), |server| server).await
    }

    pub async fn bounded(limits: ConnectionLimits) -> Self {
        Self::with(Limits::default(), |server| server.limits(limits)).await
    }

    pub async fn with(limits: Limits, configure: impl FnOnce(Server) -> Server) -> Self {
        let raft = Arc::new(FakeRaft {
            taken: Mutex::default(),
            members: Mutex::default(),
            gate: Semaphore::new(Semaphore::MAX_PERMITS),
            waiting: AtomicUsize::new(0),
        });
        let snapshots = tempfile::tempdir().unwrap();
        let transport = Transport::builder(LOCAL, CLUSTER, raft.clone())
            .limits(limits)
            .probe(Duration::ZERO, Duration::ZERO)
            .snapshots(SnapshotStore::open(snapshots.path()).unwrap())
            .build()
            .unwrap();
        for peer in PEERS {
            // Nobody answers there.
            transport.add_peer(peer, vec!["http://127.0.0.1:1".parse().unwrap()]).unwrap();
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let server = configure(Server::new(router(&transport)));
        let serving = tokio::spawn(server.serve(listener, stop.clone()));
        Self { address, transport, raft, stop, serving, _snapshots: snapshots }
    }

    pub async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Asks on a connection of its own.
    pub async fn ask(&self, request: &[u8]) -> Answer {
        ask(&mut self.connect().await, request).await.unwrap()
    }
}

/// What was answered.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    /// As written, sorted; without `Date`.
    pub headers: Vec<String>,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find_map(|header| header.strip_prefix(name)?.strip_prefix(": "))
    }
}

pub async fn ask(connection: &mut TcpStream, request: &[u8]) -> io::Result<Answer> {
    connection.write_all(request).await?;
    answer(connection, request.starts_with(b"HEAD")).await
}

/// Reads one answer: its head, and a body of the length that the head tells.
pub async fn answer(connection: &mut TcpStream, head_only: bool) -> io::Result<Answer> {
    let reading = async {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(connection.read_u8().await?);
        }
        let head = String::from_utf8(head).unwrap();
        let mut lines = head.trim_end().split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let mut headers: Vec<String> =
            lines.filter(|line| !line.starts_with("Date: ")).map(ToOwned::to_owned).collect();
        headers.sort_unstable();
        let mut answer = Answer { status, headers, body: String::new() };
        let length = answer.header("Content-Length").filter(|_| !head_only);
        let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
        connection.read_exact(&mut body).await?;
        answer.body = String::from_utf8(body).unwrap();
        Ok(answer)
    };
    timeout(PATIENCE, reading).await.expect("an answer in time")
}

/// Whether the other end has closed the connection, or does so within `time`.
pub async fn closes(connection: &mut TcpStream, time: Duration) -> bool {
    let mut rest = Vec::new();
    timeout(time, connection.read_to_end(&mut rest)).await.is_ok()
}

/// The headers of a request from peer 2 that passes every check.
pub const LEGAL: &str = "X-Server-From: 2\r\nX-Server-Version: 3.6.0\r\nX-Min-Cluster-Version: 3.0.0\r\n\
                         X-Etcd-Cluster-ID: 1000\r\nX-Raft-To: 1\r\n";

pub fn request(method: &str, path: &str, headers: &str) -> Vec<u8> {
    format!("{method} {path} HTTP/1.1\r\nHost: member\r\n{headers}\r\n").into_bytes()
}

pub fn post(path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let mut request = request("POST", path, &format!("{headers}Content-Length: {}\r\n", body.len()));
    request.extend_from_slice(body);
    request
}

/// A `MsgHeartbeat` from 2 to 1.
pub const HEARTBEAT: &[u8] = &[0x08, 8, 0x10, 1, 0x18, 2, 0x20, 1];
/// A `MsgHeartbeat` from 2 to 5.
pub const ASTRAY: &[u8] = &[0x08, 8, 0x10, 5, 0x18, 2, 0x20, 1];
/// A `MsgSnap` from 2 to 1, at index 5 of term 1.
pub const SNAPSHOT: &[u8] = &[0x08, 7, 0x10, 1, 0x18, 2, 0x20, 1, 0x4a, 6, 0x12, 4, 0x10, 5, 0x18, 1];

/// A message as a frame, and what follows it.
pub fn frame(message: &[u8], rest: &[u8]) -> Vec<u8> {
    [&(message.len() as u64).to_be_bytes(), message, rest].concat()
}
