//! The log of a member as a collector of logs gets it: JSON with stable fields, a line for each transition, none for
//! each message, dial or request.

#![allow(clippy::panic, reason = "a line that is none ends the test")]

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde_json::Value;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

#[path = "cluster/http_client.rs"]
mod http_client;
#[path = "support/ports.rs"]
mod ports;
#[allow(dead_code, reason = "each test binary uses its part")]
#[path = "cluster/process.rs"]
mod process;

use process::Cluster;

/// Requests of a stranger.
const REQUESTS: u64 = 300;
/// Streams that the peer that flaps has opened and ended by then: several times what the log may tell of.
const FLAPS: u64 = 150;

/// A peer that answers each stream and ends it at once, and whose clock is an hour ahead.
async fn flapping(url: &str) -> (Arc<AtomicU64>, JoinSet<()>) {
    let listener = TcpListener::bind(url.trim_start_matches("http://")).await.expect("the port was free");
    let streams = Arc::<AtomicU64>::default();
    let mut tasks = JoinSet::new();
    let counted = streams.clone();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            connections.spawn(answer(stream, counted.clone()));
        }
    });
    (streams, tasks)
}

async fn answer(stream: TcpStream, streams: Arc<AtomicU64>) {
    let mut stream = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if stream.read_line(&mut head).await.unwrap_or(0) == 0 {
                return;
            }
        }
        let answer = if head.starts_with("GET /raft/stream/") {
            streams.fetch_add(1, Ordering::Relaxed);
            "HTTP/1.1 200 OK\r\nX-Server-Version: 3.6.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned()
        } else if head.starts_with("GET /raft/probing") {
            let ahead = OffsetDateTime::now_utc() + Duration::from_secs(3600);
            let body = format!("{{\"OK\":true,\"Now\":\"{}\"}}", ahead.format(&Rfc3339).expect("a time"));
            format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
        } else {
            "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_owned()
        };
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// Asks for a stream as a member of another cluster, again and again.
async fn ask_as_a_stranger(url: &str) {
    for _ in 0..REQUESTS {
        let mut stream = TcpStream::connect(url.trim_start_matches("http://")).await.expect("it listens");
        let request = "GET /raft/stream/message/bad HTTP/1.1\r\nHost: x\r\nX-Server-From: bad\r\n\
                       X-Server-Version: 3.6.0\r\nX-Min-Cluster-Version: 3.0.0\r\nX-Etcd-Cluster-ID: bad\r\n\
                       Connection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).await.expect("it listens");
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer).await;
        assert!(answer.starts_with("HTTP/1.1 412"), "{answer}");
    }
}

/// A member that may have few files open; what it says is in the file.
fn with_few_descriptors(directory: &std::path::Path, [peer, client, metrics]: &[String; 3]) -> std::process::Child {
    let mut command = std::process::Command::new("sh");
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("RAFTHTTP_")) {
        command.env_remove(name);
    }
    command.args([
        "-c",
        "ulimit -n 64; exec \"$@\"",
        "sh",
        env!("CARGO_BIN_EXE_rafthttp"),
        "--log-format",
        "json",
        "node",
    ]);
    command.arg("--data-dir").arg(directory.join("data"));
    command.args(["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--listen-client-urls", client]);
    command.args(["--advertise-client-urls", client, "--listen-metrics-urls", metrics]);
    command.stderr(std::fs::File::create(directory.join("log")).expect("a file"));
    command.spawn().expect("the binary was built")
}

/// Keeps a port full: dials it on and on, and holds the last two hundred connections.
async fn crowd(url: String) {
    let mut held = std::collections::VecDeque::new();
    loop {
        if let Ok(stream) = TcpStream::connect(url.trim_start_matches("http://")).await {
            held.push_back(stream);
        }
        if held.len() > 200 {
            held.pop_front();
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The lines so far, each an object with what every line has.
fn lines(log: &str) -> Vec<Value> {
    let whole = log.rfind('\n').map_or("", |end| &log[..end]);
    whole
        .lines()
        .map(|text| {
            let line: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
            for field in ["timestamp", "level", "target", "message"] {
                assert!(line[field].is_string(), "{field} in {text}");
            }
            let timestamp = line["timestamp"].as_str().expect("text");
            assert!(OffsetDateTime::parse(timestamp, &Rfc3339).is_ok(), "{text}");
            assert!(["TRACE", "DEBUG", "INFO", "WARN", "ERROR"].contains(&line["level"].as_str().expect("text")));
            line
        })
        .collect()
}

fn named<'a>(lines: &'a [Value], message: &str) -> Vec<&'a Value> {
    lines.iter().filter(|line| line["message"] == message).collect()
}

/// Lines about each peer, by the peer's URL.
fn about(lines: &[Value], url: &str) -> BTreeMap<String, usize> {
    let added = named(lines, "peer added");
    let id = added.iter().find(|line| line["urls"] == url).map(|line| &line["peer"]);
    let mut counts = BTreeMap::new();
    for line in lines.iter().filter(|line| Some(&line["peer"]) == id) {
        *counts.entry(line["message"].as_str().expect("text").to_owned()).or_default() += 1;
    }
    counts
}

#[tokio::test(flavor = "multi_thread")]
async fn who_flaps_who_is_dead_and_who_is_a_stranger_do_not_flood_the_log() {
    let mut cluster = Cluster::new(3, &[]);
    let [url, flaps, dead] = [0, 1, 2].map(|member: usize| cluster.members[member].peer.clone());
    let (streams, _peer) = flapping(&flaps).await;
    cluster.start(0);
    cluster
        .until("a peer that flaps, and one that is found dead", Duration::from_secs(60), async |cluster: &Cluster| {
            let dead = about(&lines(&cluster.log(0)), &dead).contains_key("peer unreachable");
            (streams.load(Ordering::Relaxed) >= FLAPS && dead).then_some(())
        })
        .await;
    ask_as_a_stranger(&url).await;
    let told = cluster
        .until("a line about the stranger, the clock, and what is withheld", Duration::from_secs(30), async |cluster| {
            let lines = lines(&cluster.log(0));
            let withheld = !named(&lines, "the peer comes and goes: log lines withheld").is_empty();
            // Told once, and not withheld because of the streams.
            let clock = about(&lines, &flaps).contains_key("the peer's clock is more than a second off");
            (!named(&lines, "requests refused").is_empty() && withheld && clock).then_some(lines)
        })
        .await;

    // A burst, and then one line in five seconds: some sixty in a minute, where each flap of each stream would have
    // two.
    let of_flapping = about(&told, &flaps);
    assert!(of_flapping.values().sum::<usize>() < 80, "{of_flapping:?}");
    assert_eq!(of_flapping.get("the peer's clock is more than a second off"), Some(&1), "{of_flapping:?}");

    let of_dead = about(&told, &dead);
    assert_eq!(of_dead.get("peer unreachable"), Some(&1), "{of_dead:?}");
    assert!(of_dead.values().sum::<usize>() <= 12, "the drops are summed up: {of_dead:?}");

    let refused = named(&told, "requests refused");
    assert!(refused.len() <= 8, "{refused:?}");
    assert!(refused.iter().all(|line| line["requests"] == line["cluster_id_mismatch"]), "{refused:?}");
    assert!(refused.iter().all(|line| line["last_from"] == "bad" && line["last_address"].is_string()), "{refused:?}");
    let requests: u64 = refused.iter().filter_map(|line| line["requests"].as_u64()).sum();
    assert!((1..=REQUESTS).contains(&requests), "{refused:?}");

    for line in told.iter().filter(|line| line["target"] == "rafthttp::telemetry::transitions") {
        assert!(line["member"].is_string(), "several members may speak in one process: {line}");
        assert!(line["peer"].is_string(), "{line}");
    }
    for line in named(&told, "stream opened").into_iter().chain(named(&told, "stream closed")) {
        assert!(["msgapp", "message"].contains(&line["channel"].as_str().expect("text")), "{line}");
        assert!(["in", "out"].contains(&line["direction"].as_str().expect("text")), "{line}");
    }
    for line in named(&told, "messages dropped") {
        let reasons = ["queue_full", "stream_lost", "post_failed", "refused", "too_large", "paused", "stopped"];
        let sum: u64 = reasons.iter().filter_map(|reason| line[reason].as_u64()).sum();
        assert_eq!(line["messages"].as_u64(), Some(sum), "{line}");
    }
}

/// Ports that have no file descriptor left for new connections fail some twenty times a second each.
#[tokio::test(flavor = "multi_thread")]
async fn out_of_descriptors_is_told_at_once_and_then_in_sums() {
    const CROWDED: Duration = Duration::from_secs(8);
    let (directory, urls) = (tempfile::tempdir().expect("a directory"), [(); 3].map(|()| ports::free_url()));
    let mut child = with_few_descriptors(directory.path(), &urls);
    let log = || std::fs::read_to_string(directory.path().join("log")).expect("a file");
    let started = tokio::time::timeout(Duration::from_secs(60), async {
        while named(&lines(&log()), "leader").is_empty() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    started.await.expect("a leader");

    let mut crowds: JoinSet<()> = urls.iter().map(|url| crowd(url.clone())).collect();
    tokio::time::sleep(CROWDED).await;
    crowds.shutdown().await;
    // What was withheld is told when its time has come, though nothing fails any more.
    tokio::time::sleep(Duration::from_secs(9)).await;
    child.kill().expect("it is ours");
    child.wait().expect("it was killed");

    let told = lines(&log());
    let failures = |line: &&Value| line["failures"].as_u64().expect("how often it failed");
    let lines = named(&told, "cannot accept connections, closing the oldest that no peer needs");
    let failed: Vec<u64> = lines.iter().map(failures).collect();
    assert!(failed.iter().sum::<u64>() > 50, "the ports were crowded: {failed:?}");
    // At once, and after 1, 3, 7 and 15 seconds: for peers, for clients and for metrics.
    assert!(failed.len() <= 15, "{failed:?}");
}
