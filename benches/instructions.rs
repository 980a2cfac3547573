//! Each hot path by itself, so many rounds of it, for callgrind to count: `benches/instructions.py` runs this.
//!
//! Everything is in memory, on one thread and on a clock that stands still, so that two runs do the same.

#[path = "support/append.rs"]
mod append;

use std::{
    env,
    hint::black_box,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    process::exit,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker},
    time::UNIX_EPOCH,
};

use append::{READER, WRITER, append};
use async_trait::async_trait;
use axum::body::Body;
use bytes::Bytes;
use http_body::Body as _;
use prometheus::Registry;
use rafthttp::{
    Critical, MemberId, PeerUrl, Raft, Rejected, SnapshotStatus, Source, Transport,
    id::ClusterId,
    internals::{
        wire::{
            FrameLimits,
            frames::FrameBuffer,
            message::Decoded,
            stream::{StreamDecoder, StreamEncoder},
        },
        world::{ByteStream, Listen, Network, World},
    },
    router,
    wire::{StreamKind, raftpb::Message},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
    sync::mpsc,
    task::yield_now,
};
use tower_service::Service as _;

const CLUSTER: ClusterId = ClusterId(0x1000);
/// Messages of a round: what one read of a busy connection brings.
const BATCH: u64 = 512;
/// Bytes of an entry's data.
const SIZE: usize = 128;
/// Messages traced, as `benches/compare.py` has them.
const TRACED: f64 = 0.001;
/// What a connection takes before it is read.
const WINDOW: usize = 256 << 10;
/// Peers whose metrics are gathered.
const PEERS: u64 = 10;

/// The binary's.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() {
    // `cargo bench` runs every benchmark there is, and passes flags of its own: there is nothing to measure without valgrind.
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [path, rounds] = arguments.as_slice() else { return };
    let Ok(rounds) = rounds.parse() else { usage() };
    match path.as_str() {
        "encode" => encode(rounds),
        "decode" => decode(rounds),
        "make" => (0..rounds).for_each(|round| drop(black_box(appends(round, &data())))),
        "queue" => simulate(queue(rounds)),
        "hand-over" => simulate(hand_over(rounds)),
        "gather" => simulate(gather(rounds)),
        _ => usage(),
    }
}

fn usage() -> ! {
    eprintln!("usage: instructions encode|decode|make|queue|hand-over|gather ROUNDS");
    exit(2);
}

/// Runs a future on one thread, on a clock that moves only when everybody waits.
fn simulate(path: impl Future<Output = ()>) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_time().start_paused(true).build().expect("a runtime").block_on(path);
}

/// The appends of a round, as raft sends them.
fn appends(round: u64, data: &Bytes) -> Vec<Message> {
    (round * BATCH + 1..=(round + 1) * BATCH).map(|index| append(index, data)).collect()
}

fn data() -> Bytes {
    Bytes::from(vec![b'x'; SIZE])
}

/// The frames of a round after the first: those of another would say the same with other indexes.
fn frames(data: &Bytes) -> (Bytes, Bytes) {
    let mut encoder = StreamEncoder::new(StreamKind::MsgApp, WRITER, READER);
    let mut frames = FrameBuffer::new();
    let mut round = |number| -> Bytes {
        appends(number, data).iter().for_each(|message| encoder.encode(message, &mut frames));
        std::iter::from_fn(|| frames.pop()).flatten().collect()
    };
    (round(0), round(1))
}

fn encode(rounds: u64) {
    let messages = appends(0, &data());
    let mut frames = FrameBuffer::new();
    for _ in 0..rounds {
        let mut encoder = StreamEncoder::new(StreamKind::MsgApp, WRITER, READER);
        messages.iter().for_each(|message| encoder.encode(black_box(message), &mut frames));
        while let Some(piece) = frames.pop() {
            black_box(piece);
        }
    }
}

fn decode(rounds: u64) {
    let (first, next) = frames(&data());
    let mut decoder = StreamDecoder::new(StreamKind::MsgApp, READER, WRITER, FrameLimits::default());
    for bytes in [first].into_iter().chain((1..rounds).map(|_| next.clone())) {
        let mut decoded = Decoded::default();
        decoded.reserve(usize::try_from(BATCH).expect("few"));
        decoder.read(black_box(bytes), &mut decoded).expect("our own frames");
        assert_eq!(decoded.messages.len() as u64, BATCH);
        black_box(decoded);
    }
}

/// From `send` to the bytes that the connection is given. Making the messages is raft's, and is counted apart.
async fn queue(rounds: u64) {
    let transport = transport(WRITER, Arc::default(), Arc::new(Nowhere));
    let mut body = open_stream(&transport).await;
    let mut context = Context::from_waker(Waker::noop());
    let data = data();
    for round in 0..rounds {
        transport.send(black_box(appends(round, &data)));
        while let Poll::Ready(frame) = Pin::new(&mut body).poll_frame(&mut context) {
            black_box(frame.expect("it has no end").expect("nothing breaks"));
        }
    }
    let peers = transport.peers();
    let sent = &peers[0].outgoing;
    assert_eq!((sent.sent.total(), sent.accounted()), (rounds * BATCH, rounds * BATCH));
}

/// What the msgapp stream to the reader is answered with.
async fn open_stream(transport: &Transport) -> Body {
    add(transport, READER, 2);
    let request = http::Request::get(format!("/raft/stream/msgapp/{READER}"))
        .header("X-Server-From", READER.to_string())
        .header("X-Server-Version", "3.6.0")
        .header("X-Min-Cluster-Version", "3.0.0")
        .header("X-Etcd-Cluster-ID", CLUSTER.to_string())
        .header("X-Raft-To", WRITER.to_string())
        .header("X-Rafthttp-Stream", "1f");
    let request = request.body(Body::empty()).expect("a request");
    let answer = router(transport).call(request).await.expect("it always answers");
    assert_eq!(answer.status(), 200);
    answer.into_body()
}

/// From the bytes that a connection brings to the application.
async fn hand_over(rounds: u64) {
    let (network, mut dialled) = Place::new();
    let raft = Arc::new(Counter::default());
    let transport = transport(READER, raft.clone(), Arc::new(network));
    add(&transport, WRITER, 1);
    let mut connection = loop {
        let mut connection = dialled.recv().await.expect("the transport dials");
        if read_head(&mut connection).await.contains("/raft/stream/msgapp/") {
            break connection;
        }
        // Nobody answers there: the connection lives on.
        tokio::spawn(async move { connection.read_u8().await });
    };
    let head = "HTTP/1.1 200 OK\r\nX-Server-Version: 3.6.0\r\nTransfer-Encoding: chunked\r\n\r\n";
    connection.write_all(head.as_bytes()).await.expect("it reads");
    let (first, next) = frames(&data());
    for (round, frames) in (0..rounds).zip([first].into_iter().chain(std::iter::repeat(next))) {
        let chunk = [format!("{:x}\r\n", frames.len()).as_bytes(), &frames, b"\r\n"].concat();
        connection.write_all(black_box(&chunk)).await.expect("it reads");
        while raft.taken.load(Relaxed) < (round + 1) * BATCH {
            yield_now().await;
        }
    }
    let peers = transport.peers();
    assert!(peers[0].incoming.balances() && peers[0].incoming.processed.total() == rounds * BATCH);
}

/// A scrape.
async fn gather(rounds: u64) {
    let registry = Registry::new();
    let world = World::default().with_network(Arc::new(Nowhere)).with_clock(|| UNIX_EPOCH).with_seed(1);
    let builder = Transport::builder(WRITER, CLUSTER, Arc::new(Counter::default())).world(&world).registry(&registry);
    let transport = builder.build().expect("a transport");
    for peer in 1..=PEERS {
        add(&transport, MemberId(peer), 1);
        let message = |message: Message| Message { to: peer, ..message };
        transport.send(appends(0, &data()).into_iter().map(message).collect());
    }
    for _ in 0..rounds {
        black_box(registry.gather());
    }
}

fn transport(member: MemberId, raft: Arc<Counter>, network: Arc<dyn Network>) -> Transport {
    let world = World::default().with_network(network).with_clock(|| UNIX_EPOCH).with_seed(1);
    let builder = Transport::builder(member, CLUSTER, raft).world(&world).trace_ratio(TRACED);
    builder.build().expect("a transport")
}

fn add(transport: &Transport, peer: MemberId, host: u8) {
    let url: PeerUrl = format!("http://10.0.0.{host}:2380").parse().expect("a URL");
    transport.add_peer(peer, vec![url]).expect("a peer");
}

async fn read_head(connection: &mut DuplexStream) -> String {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        head.push(connection.read_u8().await.expect("a request").into());
    }
    head
}

/// A network on which nobody answers.
#[derive(Debug)]
struct Nowhere;

/// A network whose other end we are.
#[derive(Debug)]
struct Place(mpsc::UnboundedSender<DuplexStream>);

impl Place {
    fn new() -> (Self, mpsc::UnboundedReceiver<DuplexStream>) {
        let (dialled, at) = mpsc::unbounded_channel();
        (Self(dialled), at)
    }
}

#[async_trait]
impl Network for Nowhere {
    async fn connect(&self, _to: SocketAddr) -> io::Result<Box<dyn ByteStream>> {
        std::future::pending().await
    }

    async fn look_up(&self, _name: &str) -> Result<Vec<IpAddr>, String> {
        Err("nobody has a name".to_owned())
    }

    async fn listen(&self, _host: &str, _port: u16) -> io::Result<Arc<dyn Listen>> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

#[async_trait]
impl Network for Place {
    async fn connect(&self, _to: SocketAddr) -> io::Result<Box<dyn ByteStream>> {
        let (near, far) = duplex(WINDOW);
        self.0.send(far).map_err(|_| io::Error::from(io::ErrorKind::ConnectionRefused))?;
        Ok(Box::new(near))
    }

    async fn look_up(&self, name: &str) -> Result<Vec<IpAddr>, String> {
        Nowhere.look_up(name).await
    }

    async fn listen(&self, host: &str, port: u16) -> io::Result<Arc<dyn Listen>> {
        Nowhere.listen(host, port).await
    }
}

/// An application that counts what it takes.
#[derive(Default)]
struct Counter {
    taken: AtomicU64,
}

#[async_trait]
impl Raft for Counter {
    async fn process(&self, _from: MemberId, _: Source, batch: Vec<Message>) -> Result<(), Rejected> {
        self.taken.fetch_add(batch.len() as u64, Relaxed);
        Ok(())
    }

    fn is_removed(&self, _id: MemberId) -> bool {
        false
    }

    fn report_unreachable(&self, _id: MemberId) {}

    fn report_snapshot(&self, _id: MemberId, _status: SnapshotStatus) {}

    fn critical(&self, _error: Critical) {}
}
