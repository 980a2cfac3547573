//! How fast snapshots go, and how slow they may be.

use std::num::NonZeroU64;

use bytes::Bytes;
use futures_util::stream;
use rafthttp::{Limits, SnapshotBody, SnapshotStatus, SnapshotStore, internals::world::ByteStream, metrics::Direction};

use super::*;

const MIB: usize = 1 << 20;
/// As few bytes as move anything on this network.
const A_FEW: usize = 16 << 10;

/// A member with a directory for snapshots.
struct Host {
    member: Member,
    _directory: tempfile::TempDir,
}

impl Host {
    async fn start(memory: &Memory, id: u64, rate: u64) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let member = Member::start_with(memory, id, |world, builder| {
            let store = SnapshotStore::open_in(world.clone(), directory.path()).expect("a store");
            let limits = Limits { snapshot_rate: NonZeroU64::new(rate), ..Limits::default() };
            builder.snapshots(store).limits(limits)
        });
        Self { member: member.await, _directory: directory }
    }

    /// Sends a snapshot of zeros to a member.
    fn send(&self, to: u64, pieces: usize, size: usize) {
        let body = stream::iter((0..pieces).map(move |_| Ok(Bytes::from(vec![0; size]))));
        let body = SnapshotBody::from_stream(body, Some((pieces * size) as u64));
        self.member.transport.send_snapshot(snapshot(1, to, 7), body);
    }

    /// How those to a member ended.
    fn ended(&self, to: u64) -> Vec<SnapshotStatus> {
        let all = lock(&self.member.raft.snapshots);
        all.iter().filter(|(id, _)| *id == MemberId(to)).map(|(_, status)| *status).collect()
    }

    /// Waits until one to a member has ended; returns how, and after how long.
    async fn end(&self, to: u64) -> (SnapshotStatus, Duration) {
        let begun = Instant::now();
        while self.ended(to).is_empty() {
            assert!(begun.elapsed() < Duration::from_secs(2 * 3600), "it does not end");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        (self.ended(to)[0], begun.elapsed())
    }

    /// Why the last snapshot failed.
    fn why(&self) -> String {
        self.member.transport.peers()[0].link.last_error.as_ref().map(|(_, why)| why.clone()).unwrap_or_default()
    }

    async fn stop(self) {
        self.member.stop().await;
    }
}

fn about(time: Duration, seconds: u64) {
    let (time, seconds) = (time.as_secs_f64(), seconds as f64);
    assert!((seconds * 0.95..=seconds * 1.05 + 0.5).contains(&time), "{time} s, not {seconds}");
}

/// Stands in for a member: it answers probes, and reads `bytes` of a snapshot at a time, each time after `pause`.
async fn reader(memory: &Memory, id: u8, bytes: usize, pause: Duration) -> JoinHandle<()> {
    let name = format!("member-{id}");
    let port = memory.place(&name, [10, 0, 0, id]).listen(&name, 2380).await.expect("it is free");
    tokio::spawn(async move {
        let mut readers = tokio::task::JoinSet::new();
        while let Ok((stream, _)) = port.accept().await {
            readers.spawn(read_slowly(stream, bytes, pause));
        }
    })
}

async fn read_slowly(mut stream: Box<dyn ByteStream>, bytes: usize, pause: Duration) {
    let mut read = vec![0; bytes];
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let Ok(byte) = stream.read_u8().await else { return };
            head.push(byte);
        }
        if head.starts_with(b"POST /raft/snapshot") {
            break;
        }
        if head.starts_with(b"GET /raft/probing") {
            let body = r#"{"OK":true,"Now":"2026-11-23T20:48:01Z"}"#;
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            stream.write_all(answer.as_bytes()).await.expect("it reads");
        }
    }
    loop {
        tokio::time::sleep(pause).await;
        if !matches!(stream.read(&mut read).await, Ok(1..)) {
            return;
        }
    }
}

async fn one_and_a_reader(memory: &Memory, bytes: usize, pause: Duration) -> (Host, JoinHandle<()>) {
    let reader = reader(memory, 2, bytes, pause).await;
    let one = Host::start(memory, 1, 0).await;
    let url = "http://member-2:2380".parse().expect("a URL");
    one.member.transport.add_peer(MemberId(2), vec![url]).expect("a peer");
    (one, reader)
}

#[test]
fn who_takes_a_few_bytes_of_a_snapshot_every_29_s_loses_its_place() {
    simulate(|| async {
        let memory = Memory::default();
        let (one, reader) = one_and_a_reader(&memory, A_FEW, Duration::from_secs(29)).await;
        one.send(2, 100, MIB);
        let (status, took) = one.end(2).await;
        assert_eq!(status, SnapshotStatus::Failure);
        about(took, 60);
        let why = one.why();
        assert!(why.contains("the receiver takes less than 65536 bytes a second"), "{why}");
        assert_eq!(one.member.transport.peers()[0].link.snapshots[Direction::Out].in_flight, 0);
        one.stop().await;
        reader.abort();
    });
}

#[test]
fn who_has_all_of_a_snapshot_in_buffers_and_does_not_read_it_loses_its_place() {
    simulate(|| async {
        let memory = Memory::default();
        let (one, reader) = one_and_a_reader(&memory, A_FEW, Duration::from_secs(29)).await;
        until("it is reached", || one.member.transport.peers()[0].link.reachable == Some(true)).await;
        one.send(2, 1, MIB / 4);
        let (status, took) = one.end(2).await;
        assert_eq!(status, SnapshotStatus::Failure);
        about(took, 600 + 4);
        one.stop().await;
        reader.abort();
    });
}

#[test]
fn who_takes_64_kib_a_second_is_sent_all_of_a_snapshot() {
    simulate(|| async {
        let memory = Memory::default();
        let (one, reader) = one_and_a_reader(&memory, 66 << 10, Duration::from_secs(1)).await;
        one.send(2, 100, MIB);
        let passed = || one.member.transport.peers()[0].link.snapshots[Direction::Out].bytes;
        let begun = Instant::now();
        while passed() < 100 * MIB as u64 {
            assert_eq!(one.ended(2), [], "after {:?} and {} bytes: {}", begun.elapsed(), passed(), one.why());
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        assert!(begun.elapsed() > Duration::from_secs(1500), "{:?}", begun.elapsed());
        one.stop().await;
        reader.abort();
    });
}

/// Sends a snapshot to member 1, one piece of `size` bytes a second. Returns the answer, and how long it took.
async fn drip(memory: &Memory, pieces: usize, size: usize) -> (String, Duration) {
    let place = memory.place("member-2", [10, 0, 0, 2]);
    let mut stream = place.connect(([10, 0, 0, 1], 2380).into()).await.expect("it listens");
    let envelope = snapshot(2, 1, 7).encode_to_vec();
    let envelope = [&(envelope.len() as u64).to_be_bytes()[..], &envelope].concat();
    let head = format!(
        "POST /raft/snapshot HTTP/1.1\r\nHost: x\r\nX-Server-From: 2\r\nX-Server-Version: 3.6.0\r\n\
         X-Min-Cluster-Version: 3.0.0\r\nX-Etcd-Cluster-ID: {CLUSTER}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        envelope.len() + pieces * size
    );
    let begun = Instant::now();
    stream.write_all(&[head.as_bytes(), &envelope].concat()).await.expect("it reads");
    for _ in 0..pieces {
        tokio::time::sleep(Duration::from_secs(1)).await;
        if stream.write_all(&vec![0; size]).await.is_err() {
            break;
        }
    }
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer).await;
    (answer, begun.elapsed())
}

#[test]
fn who_sends_less_than_64_kib_of_a_snapshot_a_second_loses_its_place() {
    simulate(|| async {
        let memory = Memory::default();
        let one = Host::start(&memory, 1, 0).await;
        let url = "http://member-2:2380".parse().expect("a URL");
        one.member.transport.add_peer(MemberId(2), vec![url]).expect("a peer");
        let (answer, took) = drip(&memory, 600, 63 << 10).await;
        about(took, 60);
        assert!(answer.contains("less than 65536 bytes a second"), "{answer}");
        let (answer, took) = drip(&memory, 600, 64 << 10).await;
        about(took, 600);
        assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
        one.stop().await;
    });
}

#[test]
fn the_rate_is_that_of_all_snapshots_together_and_no_deadline_is_above_it() {
    simulate(|| async {
        let memory = Memory::default();
        for (rate, seconds) in [(2 * MIB as u64, 20), (32 << 10, 2 * 640)] {
            let mut hosts = Vec::new();
            for id in 1..=3 {
                hosts.push(Host::start(&memory, id, rate).await);
            }
            for (one, other) in [(0, 1), (0, 2), (1, 0), (2, 0)] {
                hosts[one].member.add(&hosts[other].member);
            }
            for to in [2, 3] {
                hosts[0].send(to, 20, MIB);
            }
            let (second, third) = tokio::join!(hosts[0].end(2), hosts[0].end(3));
            assert_eq!((second.0, third.0), (SnapshotStatus::Finish, SnapshotStatus::Finish), "{}", hosts[0].why());
            about(second.1.max(third.1), seconds);
            for host in hosts {
                host.stop().await;
            }
            until("nothing is left of them", || memory.open() == 0).await;
        }
    });
}

/// Opens the message stream of member 1 as member 3, and reads from it whatever comes, in the pauses that `pause` says.
async fn listen(memory: &Memory, pause: Arc<std::sync::Mutex<Duration>>) -> JoinHandle<()> {
    let place = memory.place("member-3", [10, 0, 0, 3]);
    let mut stream = place.connect(([10, 0, 0, 1], 2380).into()).await.expect("it listens");
    let head = format!(
        "GET /raft/stream/message/3 HTTP/1.1\r\nHost: x\r\nX-Server-From: 3\r\nX-Server-Version: 3.6.0\r\n\
         X-Min-Cluster-Version: 3.0.0\r\nX-Etcd-Cluster-ID: {CLUSTER}\r\nX-Raft-To: 1\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.expect("it reads");
    tokio::spawn(async move {
        let mut read = vec![0; 64 << 10];
        while matches!(stream.read(&mut read).await, Ok(1..)) {
            let pause = *lock(&pause);
            tokio::time::sleep(pause).await;
        }
    })
}

#[test]
fn snapshots_go_slower_while_heartbeats_wait_and_then_at_their_rate_again() {
    const RATE: u64 = 2 << 20;
    simulate(|| async {
        let memory = Memory::default();
        let (one, two) = (Host::start(&memory, 1, RATE).await, Host::start(&memory, 2, RATE).await);
        let answering = reader(&memory, 3, A_FEW, Duration::ZERO).await;
        let third = "http://member-3:2380".parse().expect("a URL");
        one.member.transport.add_peer(MemberId(3), vec![third]).expect("a peer");
        one.member.add(&two.member);
        two.member.add(&one.member);
        let pause = Arc::new(std::sync::Mutex::new(Duration::ZERO));
        let listening = listen(&memory, pause.clone()).await;
        let pace = || one.member.transport.status().pace.expect("it sends");
        // Large ones, so that few fill what lies between the two.
        let beat = async |seconds: u64| {
            for number in 0..seconds * 20 {
                let context = vec![0; 64 << 10].into();
                one.member.transport.send(vec![Message { context, ..heartbeat(1, 3, number) }]);
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        beat(5).await;
        let open = one.member.transport.peers()[1].link.stream_up.values().any(|ways| ways[Direction::Out]);
        assert!(open, "it listens");
        one.send(2, 8 << 10, MIB);
        beat(5).await;
        assert_eq!((pace().limit, pace().yields), (Some(RATE as f64), 0), "none waits");
        *lock(&pause) = Duration::from_millis(100);
        beat(10).await;
        let least = RATE as f64 / 8.0;
        let is_least = |rate: f64| (least * 0.9..least * 1.5).contains(&rate);
        assert!(pace().yields == 1 && pace().limit.is_some_and(is_least), "{:?}", pace());
        let passed = || one.member.transport.peers()[0].link.snapshots[Direction::Out].bytes;
        let before = passed();
        beat(5).await;
        let slower = (passed() - before) as f64 / 5.0;
        assert!(is_least(slower), "{slower}");
        *lock(&pause) = Duration::ZERO;
        beat(10).await;
        assert_eq!((pace().limit, pace().yields), (Some(RATE as f64), 1));
        listening.abort();
        answering.abort();
        one.stop().await;
        two.stop().await;
    });
}
