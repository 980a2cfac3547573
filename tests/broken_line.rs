//! A snapshot over a line of 20 MB/s that breaks again and again, to a process that is killed again and again. The line is
//! a network namespace of its own, whose loopback interface `tc` makes slow: that takes root, and is named as not run
//! elsewhere. With `RAFTHTTP_TEST_TIER=all` 4 GB are sent, and the line breaks every 5 s; else it all is small.

mod support;

use std::{
    fs,
    io::Read as _,
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures_util::stream;
use rafthttp::{
    SnapshotBody, SnapshotStatus, SnapshotStore,
    metrics::{Direction, RestartReason, Snapshots},
};
use support::{TestMember, lock, not_run, ports::free_port, program, tier_is_all};
use tokio::{
    net::{TcpListener, TcpSocket},
    task::JoinSet,
    time::{Instant, sleep},
};

/// Set in the namespace: this process, and those that it starts, are there.
const INSIDE: &str = "RAFTHTTP_BROKEN_LINE";
/// Where the receiver keeps what it receives.
const DIRECTORY: &str = "RAFTHTTP_BROKEN_LINE_DIRECTORY";
/// The receiver's port, and the sender's.
const PORTS: &str = "RAFTHTTP_BROKEN_LINE_PORTS";
const BLOCK: u64 = 64 << 10;
/// What the relay holds at most, each way at each end: it is lost with the line.
const RELAYED: u32 = 128 << 10;
const INDEX: u64 = 7;
/// How much of a snapshot may be sent twice, in hundredths.
const TWICE: u64 = 5;
/// What one kill may cost, in bytes: more than a second of the line, on a disk that is busy.
const UNSYNCED: u64 = 30_000_000;

/// How large a snapshot is, and how often something happens to it.
struct Load {
    bytes: u64,
    cut_each: Duration,
    kill_each: Duration,
}

fn load() -> Load {
    if tier_is_all() {
        Load { bytes: 4_000_000_000, cut_each: Duration::from_secs(5), kill_each: Duration::from_secs(20) }
    } else {
        Load { bytes: 200_000_000, cut_each: Duration::from_secs(4), kill_each: Duration::from_secs(6) }
    }
}

/// What is not run where there can be no slow line.
const SLOW_LINE: &str = "a snapshot over a slow line that breaks";

/// Runs a test in a namespace whose loopback interface carries 40 MB/s: 20 MB/s through a relay, which everything passes
/// twice. Returns whether this is the one inside.
fn is_on_a_slow_line(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    if !rustix::process::geteuid().is_root() {
        not_run(&format!("{SLOW_LINE}: only root may make a network namespace with tc"));
        return false;
    }
    let Some(ip) = program(SLOW_LINE, "iproute2", &[]) else { return false };
    let tc = ip.with_file_name("tc");
    let line = "\"$1\" link set lo up && \"$2\" qdisc add dev lo root tbf rate 320mbit burst 512k latency 50ms || exit 99; \
                shift 2; exec \"$@\"";
    let itself = std::env::current_exe().expect("it runs");
    let mut shell = Command::new("unshare");
    shell.args(["--net", "sh", "-c", line, "sh"]).args([&ip, &tc, &itself]);
    let status = shell.args(["--exact", test, "--nocapture"]).env(INSIDE, "1").status();
    match status {
        // A container's root may not, or its kernel cannot.
        Ok(status) if matches!(status.code(), Some(1 | 99)) => {
            not_run(&format!("{SLOW_LINE}: unshare, {} or {}: {status}", ip.display(), tc.display()));
        }
        Ok(status) => assert!(status.success(), "{test}: {status}"),
        Err(error) => not_run(&format!("{SLOW_LINE}: unshare: {error}")),
    }
    false
}

/// The blocks of a snapshot from an offset on; no two are alike.
fn blocks(bytes: u64, offset: u64) -> impl Iterator<Item = Bytes> + Send {
    let pattern: Arc<Vec<u8>> =
        Arc::new((0..BLOCK).map(|place| place.wrapping_mul(2_654_435_761).to_be_bytes()[5]).collect());
    (offset / BLOCK..bytes.div_ceil(BLOCK)).map(move |number| {
        let mut block = pattern.as_ref().clone();
        block[..8].copy_from_slice(&number.to_be_bytes());
        let from = offset.saturating_sub(number * BLOCK);
        let end = (bytes - number * BLOCK).min(BLOCK);
        Bytes::from(block).slice(usize::try_from(from).expect("in a block")..usize::try_from(end).expect("in a block"))
    })
}

fn body(bytes: u64) -> SnapshotBody {
    SnapshotBody::from_streams(move |offset| stream::iter(blocks(bytes, offset).map(Ok)), bytes)
}

fn is_as_sent(path: &Path, bytes: u64) -> bool {
    let Ok(mut file) = fs::File::open(path) else { return false };
    let mut read = vec![0; usize::try_from(BLOCK).expect("small")];
    let is_same = blocks(bytes, 0).all(|block| {
        let read = &mut read[..block.len()];
        file.read_exact(read).is_ok() && *read == block[..]
    });
    is_same && file.read(&mut read).is_ok_and(|more| more == 0)
}

/// What runs in the process that receives: see [`Receiver`]. Not a test by itself.
#[tokio::test]
#[ignore = "it is a part of the others"]
async fn the_receiver() {
    let ports = std::env::var(PORTS).expect("set by who starts it");
    let (own, sender) = ports.split_once(' ').expect("two");
    let directory = std::path::PathBuf::from(std::env::var_os(DIRECTORY).expect("set by who starts it"));
    let store = SnapshotStore::open(directory.join("snap")).expect("a store");
    let listener = TcpListener::bind(format!("127.0.0.1:{own}")).await.expect("a port");
    let two = TestMember::start_on(2, listener, |builder| builder.snapshots(store)).await;
    let url = format!("http://127.0.0.1:{sender}").parse().expect("a URL");
    two.transport.add_peer(rafthttp::MemberId(1), vec![url]).expect("a peer");
    std::future::pending::<()>().await;
}

/// The process that receives.
struct Receiver(Child);

impl Receiver {
    fn start(directory: &Path, ports: &str) -> Self {
        let mut itself = Command::new(std::env::current_exe().expect("it runs"));
        itself.args(["--exact", "the_receiver", "--ignored", "--nocapture"]).stdout(Stdio::null());
        Self(itself.env(DIRECTORY, directory).env(PORTS, ports).spawn().expect("it starts"))
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.0.kill().expect("it can be killed");
        self.0.wait().expect("it ends");
    }
}

fn relay_port() -> TcpListener {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(RELAYED).expect("a socket option");
    socket.bind(([127, 0, 0, 1], 0).into()).expect("a port");
    socket.listen(64).expect("it can listen")
}

/// What everything that is said to the receiver passes.
async fn relay(listener: Arc<TcpListener>, to: u16, cut_each: Duration) {
    let mut connections = JoinSet::new();
    let mut cut = tokio::time::interval_at(Instant::now() + cut_each, cut_each);
    loop {
        tokio::select! {
            _ = cut.tick() => connections.abort_all(),
            accepted = listener.accept() => {
                let (mut near, _) = accepted.expect("it listens");
                near.set_zero_linger().expect("a socket option");
                connections.spawn(async move {
                    let socket = TcpSocket::new_v4().expect("a socket");
                    socket.set_send_buffer_size(RELAYED).expect("a socket option");
                    if let Ok(mut far) = socket.connect(([127, 0, 0, 1], to).into()).await {
                        far.set_zero_linger().expect("a socket option");
                        let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                    }
                });
            }
        }
    }
}

/// Sends a snapshot through what happens to it, and returns what was counted of it.
async fn send(load: &Load, cut_each: Duration, kill_each: Duration) -> (Snapshots, u64) {
    let directory = tempfile::tempdir().expect("a directory");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let own = listener.local_addr().expect("bound").port();
    let one = TestMember::start_on(1, listener, |builder| builder).await;
    let (port, relayed) = (free_port(), Arc::new(relay_port()));
    let ports = format!("{port} {own}");
    let mut receiver = Receiver::start(directory.path(), &ports);
    let url = format!("http://{}", relayed.local_addr().expect("bound")).parse().expect("a URL");
    one.transport.add_peer(rafthttp::MemberId(2), vec![url]).expect("a peer");
    let carried = tokio::spawn(relay(relayed, port, cut_each));
    let link = || one.transport.peers()[0].link.clone();
    support::until("both streams are open", || link().stream_up.values().all(|ways| ways[Direction::In])).await;
    let begun = Instant::now();
    one.transport.send_snapshot(support::snapshot(1, 2, INDEX), body(load.bytes));
    let (mut killed, mut kills) = (Instant::now(), 0);
    while lock(&one.raft.snapshots).is_empty() {
        sleep(Duration::from_millis(50)).await;
        assert!(begun.elapsed() < Duration::from_secs(120 + load.bytes / 5_000_000), "it does not end: {:?}", link());
        if killed.elapsed() >= kill_each && lock(&one.raft.snapshots).is_empty() {
            drop(receiver);
            receiver = Receiver::start(directory.path(), &ports);
            (killed, kills) = (Instant::now(), kills + 1);
        }
    }
    let took = begun.elapsed();
    assert_eq!(lock(&one.raft.snapshots)[0].1, SnapshotStatus::Finish, "{:?}", link().last_error);
    let received = directory.path().join("snap").join(format!("{INDEX:016x}.snap.db"));
    assert!(is_as_sent(&received, load.bytes), "other bytes have arrived");
    let counts = link().snapshots[Direction::Out].clone();
    println!(
        "{} bytes in {:.1} s, {} of them sent twice ({:.2} %)",
        load.bytes,
        took.as_secs_f64(),
        counts.resent,
        counts.resent as f64 * 100.0 / load.bytes as f64
    );
    carried.abort();
    drop(receiver);
    (counts, kills)
}

fn assert_once(counts: &Snapshots, load: &Load, most: u64) {
    assert_eq!(counts.bytes, load.bytes + counts.resent);
    assert!(counts.resumed > 0, "nothing broke off");
    assert!(
        counts.resent <= most,
        "{} of {} bytes were sent twice, and no more than {most} may",
        counts.resent,
        load.bytes
    );
    assert_eq!(RestartReason::ALL.iter().map(|reason| counts.restarts.of(*reason)).sum::<u64>(), 0);
}

const NEVER: Duration = Duration::from_secs(365 * 24 * 3600);

#[test]
fn a_snapshot_over_a_line_that_breaks_again_and_again_arrives_once() {
    if is_on_a_slow_line("a_snapshot_over_a_line_that_breaks_again_and_again_arrives_once") {
        let load = load();
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let (counts, _) = runtime.block_on(send(&load, load.cut_each, NEVER));
        // What is in the buffers of the line is lost with it: of 5 s that is little.
        let most = if tier_is_all() { load.bytes * TWICE / 100 } else { load.bytes / 8 };
        assert_once(&counts, &load, most);
    }
}

#[test]
fn a_snapshot_to_a_process_that_is_killed_again_and_again_arrives_once() {
    if is_on_a_slow_line("a_snapshot_to_a_process_that_is_killed_again_and_again_arrives_once") {
        let load = load();
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let (counts, kills) = runtime.block_on(send(&load, NEVER, load.kill_each));
        // Half a second is not synced, and what is on its way: of 20 s that is little, of a few seconds it is much.
        let most = if tier_is_all() { load.bytes * TWICE / 100 } else { kills * UNSYNCED };
        assert_once(&counts, &load, most);
    }
}
