//! The transport alone, with metrics and traces: two members on loopback that send each other appends.
//!
//! `cargo run --example transport` prints what one member's `/metrics` says of them, and the trace of the first message.
//! With `OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4318`, its two spans are at that collector.

use std::{error::Error, sync::Arc, time::Duration};

use rafthttp::{
    ClusterId, Critical, MemberId, Raft, Rejected, SnapshotStatus, Source, Transport,
    admin::{self, About, Admin, Health},
    metrics::{Direction, Options, trace_collector},
    telemetry::{self, LogFormat, Sampler},
    wire::{
        StreamKind,
        raftpb::{Entry, Message, MessageType},
    },
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

const CLUSTER: ClusterId = ClusterId(0x1000);
/// How many appends are sent.
const APPENDS: u64 = 100;

/// Takes everything. A real one steps its raft, as `examples/cluster.rs` does.
struct Application;

#[async_trait::async_trait]
impl Raft for Application {
    async fn process(&self, _: MemberId, _: Source, _: Vec<Message>) -> Result<(), Rejected> {
        Ok(())
    }
    fn is_removed(&self, _: MemberId) -> bool {
        false
    }
    fn report_unreachable(&self, _: MemberId) {}
    fn report_snapshot(&self, _: MemberId, _: SnapshotStatus) {}
    fn critical(&self, error: Critical) {
        eprintln!("{error}");
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // Log lines to standard error, spans to the collector that the environment names, if it names one.
    let telemetry = telemetry::init(LogFormat::Auto, None)?;
    let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());

    // Two members, each with a listener for its peer. Every message is traced; a real cluster traces one in a thousand.
    let (mut transports, mut urls) = (Vec::new(), Vec::new());
    for id in [1, 2] {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        urls.push(format!("http://{}", listener.local_addr()?).parse()?);
        let transport = Transport::builder(MemberId(id), CLUSTER, Arc::new(Application)).trace_ratio(1.0).build()?;
        tasks.spawn(rafthttp::serve(listener, rafthttp::router(&transport), stop.clone()));
        transports.push(transport);
    }
    let (one, two) = (&transports[0], &transports[1]);
    one.add_peer(MemberId(2), vec![urls.remove(1)])?;
    two.add_peer(MemberId(1), vec![urls.remove(0)])?;

    // The metrics of member 1, and of the exporter, at an address of their own.
    let registry = prometheus::Registry::new();
    if let Some(status) = telemetry.export_status() {
        registry.register(trace_collector(status))?;
    }
    let transport = one.clone();
    let admin = Admin {
        registry,
        transport: Some(Arc::new(move || transport.status())),
        events: Some(one.events().clone()),
        options: Options::default(),
        about: Arc::new(About::default),
        health: Arc::new(Health::default),
    };
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let metrics = listener.local_addr()?;
    tasks.spawn(admin::serve(listener, admin::router(admin), stop.clone()));

    // Before the streams are up, messages go by POST; that queue holds 64, and raft would send again what it drops.
    until(|| one.peers()[0].link.stream_up[StreamKind::MsgApp][Direction::Out]).await?;
    for index in 1..=APPENDS {
        one.send(vec![append(index)]);
    }
    until(|| two.peers()[0].incoming.processed.total() == APPENDS).await?;

    println!("http://{metrics}/metrics says:");
    for line in scrape(metrics).await?.lines().filter(|line| line.starts_with("rafthttp_messages_sent_total")) {
        println!("  {line}");
    }
    let trace = Sampler::new(1.0, CLUSTER).sample(&append(1)).ok_or("it is not traced")?;
    println!("trace {trace} has the spans raft.send and raft.receive of the first append");

    for transport in &transports {
        transport.stop().await;
    }
    stop.cancel();
    tasks.close();
    tasks.wait().await;
    // What waits is exported before the program ends.
    telemetry.shutdown(Duration::from_secs(5)).await;
    Ok(())
}

async fn until(holds: impl Fn() -> bool) -> Result<(), time::error::Elapsed> {
    let holds = async {
        while !holds() {
            time::sleep(Duration::from_millis(10)).await;
        }
    };
    time::timeout(Duration::from_secs(30), holds).await
}

fn append(index: u64) -> Message {
    let entry = Entry { term: 1, index: index + 1, data: "payload".into(), ..Entry::default() };
    let r#type = MessageType::MsgApp as i32;
    Message { r#type, from: 1, to: 2, term: 1, log_term: 1, index, entries: vec![entry], ..Message::default() }
}

async fn scrape(from: std::net::SocketAddr) -> std::io::Result<String> {
    let (mut stream, mut answer) = (TcpStream::connect(from).await?, String::new());
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").await?;
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}
