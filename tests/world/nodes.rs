//! Whole members, raft and store included, on one thread.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    body::Body,
    http::{Method, Request, StatusCode},
};
use http_body_util::BodyExt as _;
use hyper_util::rt::TokioIo;
use rafthttp::{
    Limits, PeerStatus, PeerUrl,
    internals::world::{Disk as _, World},
    metrics::Direction,
    node::{Config, Error, InitialClusterState, Node, Role, Stopped},
    telemetry::EventKind,
};

use tokio::time::Instant;

use super::{Memory, disk::MemoryDisk, simulate, until};

mod auto;
mod behind;
mod incarnations;

const NAMES: [&str; 3] = ["a", "b", "c"];
/// Where members keep what they must not forget, on disks of their own. The system has no such directory.
const DIRECTORY: &str = "/rafthttp-in-memory";

/// A member's place among the three: its name, and its address on the network.
fn address(name: &str) -> [u8; 4] {
    [10, 0, 1, name.as_bytes()[0]]
}

fn peer_url(name: &str) -> PeerUrl {
    format!("http://{name}:2380").parse().expect("a URL")
}

fn config(memory: &Memory, disk: &MemoryDisk, name: &str) -> Config {
    let world = World::default().with_seed(address(name)[3].into()).with_network(memory.place(name, address(name)));
    Config {
        name: name.to_owned(),
        data_dir: Path::new(DIRECTORY).join(name),
        listen_peer_urls: vec![peer_url(name)],
        initial_advertise_peer_urls: vec![peer_url(name)],
        listen_client_urls: vec![format!("http://{name}:2379").parse().expect("a URL")],
        advertise_client_urls: vec![format!("http://{name}:2379")],
        initial_cluster: NAMES.map(|name| (name.to_owned(), peer_url(name))).to_vec(),
        snapshot_count: 20,
        log_retention_bytes: 0,
        world: world.with_disk(Arc::new(disk.clone())).with_one_thread(),
        ..Config::default()
    }
}

/// Three members and their disks.
struct Cluster {
    memory: Memory,
    disks: [MemoryDisk; 3],
}

impl Cluster {
    fn new() -> Self {
        Self { memory: Memory::default(), disks: Default::default() }
    }

    async fn start(&self, place: usize) -> Node {
        Node::start(config(&self.memory, &self.disks[place], NAMES[place])).await.expect("a member")
    }

    async fn start_all(&self) -> [Node; 3] {
        let nodes = [self.start(0).await, self.start(1).await, self.start(2).await];
        until("there is a leader", || nodes.iter().all(|node| node.raft_status().leader.0 != 0)).await;
        nodes
    }

    /// Stops members, and checks that nothing of them is left, not even on the real disk.
    async fn stop(&self, nodes: impl IntoIterator<Item = Node>) {
        for node in nodes {
            node.stop().await;
        }
        until("nothing is left of them", || self.memory.open() == 0).await;
        assert!(!Path::new(DIRECTORY).exists());
    }

    /// Starts members on what is left of their disks since the power went. Fifty values were acknowledged before: they
    /// are there.
    async fn lose_power(mut self, nodes: [Node; 3], left: [MemoryDisk; 3]) {
        // What they write from then on is on disks that nobody has any more.
        self.stop(nodes).await;
        self.disks = left;
        let nodes = self.start_all().await;
        for number in 0..50 {
            let read = ask(&self.memory, NAMES[number % 3], Method::GET, &format!("/kv/{number}"), "").await;
            assert_eq!(read, (StatusCode::OK, format!("value {number}")));
        }
        self.stop(nodes).await;
    }
}

/// Asks a member's client URL over a connection of its own.
async fn ask(memory: &Memory, name: &str, method: Method, path: &str, body: &str) -> (StatusCode, String) {
    let place = memory.place("client", [10, 0, 2, 1]);
    let stream = place.connect((address(name), 2379).into()).await.expect("it listens");
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("nothing is said yet");
    let connection = tokio::spawn(connection);
    let request = Request::builder().method(method).uri(path).header("host", name).body(Body::from(body.to_owned()));
    let (head, body) = sender.send_request(request.expect("a request")).await.expect("an answer").into_parts();
    let body = body.collect().await.expect("all of it").to_bytes();
    drop(sender);
    connection.await.expect("it ends").expect("it ends well");
    (head.status, String::from_utf8_lossy(&body).into_owned())
}

/// Every value is written through a member and read at the others, linearizable.
async fn write_and_read(memory: &Memory, numbers: std::ops::Range<u32>, running: &[&str]) {
    for number in numbers {
        let (key, value) = (format!("/kv/{number}"), format!("value {number}"));
        let at = |turn: usize| running[(number as usize + turn) % running.len()];
        let (status, why) = ask(memory, at(0), Method::PUT, &key, &value).await;
        assert_eq!(status, StatusCode::NO_CONTENT, "{why}");
        assert_eq!(ask(memory, at(1), Method::GET, &key, "").await, (StatusCode::OK, value));
    }
}

/// Three members, of which the third is away. The log was cut several times since: it comes back by a snapshot, which a
/// store saves.
async fn third_behind() -> (Cluster, [Node; 2]) {
    let cluster = Cluster::new();
    let [a, b, c] = cluster.start_all().await;
    write_and_read(&cluster.memory, 0..30, &NAMES).await;
    c.stop().await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    write_and_read(&cluster.memory, 30..90, &["a", "b"]).await;
    (cluster, [a, b])
}

/// The names of this process's threads.
fn threads() -> Vec<String> {
    let tasks = std::fs::read_dir("/proc/self/task").expect("Linux");
    let name = |task: PathBuf| std::fs::read_to_string(task.join("comm")).unwrap_or_default().trim().to_owned();
    tasks.filter_map(|task| Some(name(task.ok()?.path()))).collect()
}

#[test]
fn members_with_raft_and_store_live_on_one_thread_and_on_disks_in_memory() {
    simulate(|| async {
        let (cluster, [a, b]) = third_behind().await;
        let c = cluster.start(2).await;
        until("it has caught up", || c.raft_status().applied >= a.raft_status().applied).await;
        let read = ask(&cluster.memory, "c", Method::GET, "/kv/89", "").await;
        assert_eq!(read, (StatusCode::OK, "value 89".to_owned()));
        let snapshots = |peer: PeerStatus| peer.link.snapshots[Direction::In].ok;
        assert_eq!(c.transport().peers().into_iter().map(snapshots).sum::<u64>(), 1, "it came by a snapshot");
        let threads = threads();
        let others = threads.iter().filter(|name| *name == "raft" || name.starts_with("tokio"));
        assert_eq!(others.count(), 0, "{threads:?}");
        cluster.stop([a, b, c]).await;
        for (disk, name) in cluster.disks.iter().zip(NAMES) {
            let member = Path::new(DIRECTORY).join(name).join("member");
            let (log, others): (Vec<_>, Vec<_>) =
                disk.files().into_iter().partition(|file| file.starts_with(member.join("log")));
            assert_eq!((log.len(), others), (1, vec![member.join("node.redb")]), "no snapshot is left");
        }
    });
}

#[test]
fn what_was_acknowledged_outlasts_a_loss_of_power_everywhere_at_once() {
    simulate(|| async {
        let cluster = Cluster::new();
        let nodes = cluster.start_all().await;
        write_and_read(&cluster.memory, 0..50, &NAMES).await;
        let left = cluster.disks.each_ref().map(MemoryDisk::after_a_loss_of_power);
        cluster.lose_power(nodes, left).await;
    });
}

#[test]
fn a_directory_that_was_there_and_not_lasting_outlasts_a_loss_of_power() {
    simulate(|| async {
        let cluster = Cluster::new();
        for (disk, name) in cluster.disks.iter().zip(NAMES) {
            // As a start leaves it that was killed before it could sync.
            disk.create_directory(&Path::new(DIRECTORY).join(name).join("member")).expect("an empty disk");
        }
        let nodes = cluster.start_all().await;
        write_and_read(&cluster.memory, 0..50, &NAMES).await;
        let left = cluster.disks.each_ref().map(MemoryDisk::after_a_loss_of_power);
        cluster.lose_power(nodes, left).await;
    });
}

#[test]
fn what_was_acknowledged_outlasts_writes_that_are_torn() {
    for (seed, syncing) in (0..6).zip((0..NAMES.len()).cycle()) {
        simulate(|| async {
            let cluster = Cluster::new();
            let nodes = cluster.start_all().await;
            write_and_read(&cluster.memory, 0..50, &NAMES).await;
            // The power goes everywhere while one of them syncs the next.
            let (left, disks) = (Arc::new(Mutex::new(None)), cluster.disks.clone());
            let kept = left.clone();
            cluster.disks[syncing].before_a_sync(move || {
                let torn = disks.each_ref().map(|disk| disk.torn(seed));
                *kept.lock().expect("nobody panics") = Some((torn, disks[syncing].unsynced()));
            });
            write_and_read(&cluster.memory, 50..51, &NAMES).await;
            let (left, unsynced) = left.lock().expect("nobody panics").take().expect("it has synced");
            assert!(unsynced > 0, "nothing could be torn");
            cluster.lose_power(nodes, left).await;
        });
    }
}

/// Why a member takes no part, as its health check says; its process is well meanwhile.
fn suspended(node: &Node) -> Option<String> {
    let health = node.health()();
    assert!(health.live.iter().all(|check| check.failure.is_none()), "{:?}", health.live);
    health.ready.into_iter().find(|check| check.name == "takes_part").expect("it is checked").failure
}

/// What happened to a member, of these kinds.
fn events(node: &Node, kinds: [EventKind; 2]) -> Vec<EventKind> {
    let events = node.transport().events();
    events.after(0).into_iter().map(|event| event.kind).filter(|kind| kinds.contains(kind)).collect()
}

/// The disk fills up while the store is made: nothing is left of that which a start with room could not go on from.
#[test]
fn a_member_whose_first_start_finds_a_full_disk_starts_when_there_is_room() {
    simulate(|| async {
        let (memory, disk) = (Memory::default(), MemoryDisk::default());
        let alone = || Config { initial_cluster: vec![("a".to_owned(), peer_url("a"))], ..config(&memory, &disk, "a") };
        let full = disk.clone();
        disk.before_a_sync(move || full.fill());
        assert!(matches!(Node::start(alone()).await, Err(Error::Store { .. })));
        disk.make_room();
        let node = Node::start(alone()).await.expect("there is room");
        until("it leads", || node.raft_status().role == Role::Leader).await;
        node.stop().await;
    });
}

#[test]
fn a_member_whose_disk_is_full_takes_no_part_and_goes_on_when_there_is_room() {
    // One of them leads.
    for full in 0..NAMES.len() {
        simulate(|| async {
            let cluster = Cluster::new();
            let nodes = cluster.start_all().await;
            write_and_read(&cluster.memory, 0..20, &NAMES).await;
            cluster.disks[full].fill();
            let others: Vec<&str> = NAMES.into_iter().filter(|name| *name != NAMES[full]).collect();
            // If it was the leader, the outcome of a request may be unknown. Asking again gives an answer.
            let put = async || ask(&cluster.memory, others[0], Method::PUT, "/kv/other", "x").await.0;
            while put().await != StatusCode::NO_CONTENT {}
            until("it says so", || suspended(&nodes[full]).is_some_and(|why| why.contains("no storage space"))).await;
            let is_led =
                |place: usize| ![0, nodes[full].raft_status().id.0].contains(&nodes[place].raft_status().leader.0);
            until("the others have a leader", || (0..3).all(|place| place == full || is_led(place))).await;
            write_and_read(&cluster.memory, 20..40, &others).await;
            let refused = ask(&cluster.memory, NAMES[full], Method::PUT, "/kv/1", "no").await;
            let why = "this member's disk cannot be written, nothing was proposed\n".to_owned();
            assert_eq!(refused, (StatusCode::SERVICE_UNAVAILABLE, why.clone()));
            let local = ask(&cluster.memory, NAMES[full], Method::GET, "/kv/1?consistency=local", "").await;
            // It may answer from its memory.
            assert!([(StatusCode::OK, "value 1".to_owned()), (StatusCode::SERVICE_UNAVAILABLE, why)].contains(&local));
            // It stays suspended.
            tokio::time::sleep(Duration::from_secs(30)).await;
            assert!(suspended(&nodes[full]).is_some());

            cluster.disks[full].make_room();
            until("it takes part again", || suspended(&nodes[full]).is_none()).await;
            let kinds = [EventKind::Suspended, EventKind::Resumed];
            assert_eq!(events(&nodes[full], kinds), kinds);
            let applied = || nodes.each_ref().map(|node| node.raft_status().applied);
            until("it has caught up", || applied()[full] >= applied()[(full + 1) % 3]).await;
            write_and_read(&cluster.memory, 40..50, &NAMES).await;
            let left = cluster.disks.each_ref().map(MemoryDisk::after_a_loss_of_power);
            cluster.lose_power(nodes, left).await;
        });
    }
}

/// Writes values of a thousand bytes until they are refused. How many were taken, and why no more.
async fn fill(memory: &Memory, name: &str) -> (usize, String) {
    for number in 0..100 {
        let (status, why) = ask(memory, name, Method::PUT, &format!("/kv/{number}"), &"x".repeat(1000)).await;
        if status == StatusCode::INSUFFICIENT_STORAGE {
            return (number, why);
        }
        assert_eq!(status, StatusCode::NO_CONTENT, "{why}");
    }
    (100, "nothing was refused".to_owned())
}

#[test]
fn a_member_over_its_quota_makes_all_refuse_puts_until_the_data_are_well_below_it() {
    simulate(|| async {
        let cluster = Cluster::new();
        let quota = |place: usize| {
            let config = config(&cluster.memory, &cluster.disks[place], NAMES[place]);
            Config { quota_backend_bytes: (place == 0).then_some(20_000), ..config }
        };
        let start = async |place: usize| Node::start(quota(place)).await.expect("a member");
        let nodes = [start(0).await, start(1).await, start(2).await];
        until("there is a leader", || nodes.iter().all(|node| node.raft_status().leader.0 != 0)).await;
        let put = async |name: &str| ask(&cluster.memory, name, Method::PUT, "/kv/0", "x").await;
        let delete = async |number: usize| {
            let path = format!("/kv/{number}");
            assert_eq!(ask(&cluster.memory, "c", Method::DELETE, &path, "").await.0, StatusCode::NO_CONTENT);
        };
        let (taken, why) = fill(&cluster.memory, "b").await;
        // Twenty are below it, and what is asked for before the alarm is known is taken.
        assert!((20..25).contains(&taken), "{taken}: {why}");
        let of = nodes[0].raft_status().id;
        let expected = format!("and member {of} has a quota of 20000 (--quota-backend-bytes)");
        assert!(why.starts_with("no space: the data have 2") && why.contains(&expected), "{why}");
        until("all know", || nodes.iter().all(|node| node.raft_status().data_bytes > 20_000)).await;
        for name in NAMES {
            assert_eq!(put(name).await.0, StatusCode::INSUFFICIENT_STORAGE);
            let read = ask(&cluster.memory, name, Method::GET, "/kv/1", "").await;
            assert_eq!(read, (StatusCode::OK, "x".repeat(1000)));
        }
        // Below the quota is not enough.
        for number in 1..taken - 17 {
            assert_eq!(put("a").await.0, StatusCode::INSUFFICIENT_STORAGE, "{number} gone");
            delete(number).await;
        }
        assert_eq!(put("a").await.0, StatusCode::INSUFFICIENT_STORAGE, "eighteen are left");
        delete(taken - 17).await;
        until("it has cleared", || events(&nodes[2], KINDS).len() == 2).await;
        assert_eq!(events(&nodes[0], KINDS), KINDS);
        assert_eq!(put("a").await.0, StatusCode::NO_CONTENT);

        // The leader clears the alarm of a member that is away, and all members still know it after a loss of power.
        let (taken, _) = fill(&cluster.memory, "c").await;
        let left = cluster.disks.each_ref().map(MemoryDisk::after_a_loss_of_power);
        cluster.stop(nodes).await;
        let cluster = Cluster { disks: left, ..cluster };
        let others = [cluster.start(1).await, cluster.start(2).await];
        until("there is a leader", || others.iter().all(|node| node.raft_status().leader.0 != 0)).await;
        let (_, why) = fill(&cluster.memory, "b").await;
        assert!(why.contains(&expected), "{why}");
        for number in 1..taken {
            let path = format!("/kv/{number}");
            assert_eq!(ask(&cluster.memory, "c", Method::DELETE, &path, "").await.0, StatusCode::NO_CONTENT);
        }
        until("it is cleared", || others.iter().all(|node| events(node, KINDS).contains(&EventKind::SpaceAgain))).await;
        assert_eq!(ask(&cluster.memory, "b", Method::PUT, "/kv/0", "x").await.0, StatusCode::NO_CONTENT);
        cluster.stop(others).await;
    });
}

/// A quota that is exceeded, and no longer.
const KINDS: [EventKind; 2] = [EventKind::NoSpace, EventKind::SpaceAgain];

#[test]
fn what_a_failed_sync_left_behind_is_not_taken_for_written() {
    simulate(|| async {
        let cluster = Cluster::new();
        let nodes = cluster.start_all().await;
        let leader = nodes[0].raft_status().leader;
        let followers: Vec<usize> = (0..3).filter(|place| nodes[*place].raft_status().id != leader).collect();
        let [failing, away] = followers[..] else { panic!("two follow") };
        let running: Vec<&str> = (0..3).filter(|place| *place != away).map(|place| NAMES[place]).collect();
        write_and_read(&cluster.memory, 0..20, &NAMES).await;
        cluster.disks[failing].fail_a_sync();
        // The value is large, so it is not part of a page that the next write writes again.
        let large = "large".repeat(50_000);
        let leads = NAMES[3 - failing - away];
        let put = ask(&cluster.memory, leads, Method::PUT, "/kv/20", &large).await;
        assert_eq!(put.0, StatusCode::NO_CONTENT, "{}", put.1);
        until("it says so", || suspended(&nodes[failing]).is_some()).await;
        until("it has read its disk again", || suspended(&nodes[failing]).is_none()).await;
        // From here on, each write needs its answer.
        nodes[away].stop().await;
        write_and_read(&cluster.memory, 21..24, &running).await;
        let left = cluster.disks.each_ref().map(MemoryDisk::after_a_loss_of_power);
        cluster.stop(nodes).await;
        let cluster = Cluster { disks: left, ..cluster };
        let nodes = cluster.start_all().await;
        let has_all = || nodes[failing].raft_status().applied >= nodes[away].raft_status().applied;
        until("they agree", has_all).await;
        let read = ask(&cluster.memory, NAMES[failing], Method::GET, "/kv/20?consistency=local", "").await;
        assert!(read == (StatusCode::OK, large), "{} bytes", read.1.len());
        cluster.stop(nodes).await;
    });
}

/// The names of what a member has in its own directory, without its log and the snapshots that it receives.
fn beside_the_log(disk: &MemoryDisk, name: &str) -> Vec<PathBuf> {
    let member = Path::new(DIRECTORY).join(name).join("member");
    let files = disk.files().into_iter().filter(|file| file.parent() == Some(&member));
    files.filter_map(|file| file.file_name().map(PathBuf::from)).collect()
}

/// A member that was behind is stopped at each sync from its start until it has installed a snapshot, by what `left`
/// makes of its disk. The next start finds a store that opens, and removes what was left of the install. Returns what
/// was there before that.
fn stopped_at_each_sync(left: fn(&MemoryDisk) -> MemoryDisk) -> Vec<PathBuf> {
    let mut names = Vec::new();
    for at in 0.. {
        let mut was_stopped = false;
        simulate(|| async {
            let (mut cluster, [a, b]) = third_behind().await;
            let kept = Arc::new(Mutex::new(None));
            cluster.disks[2].at_sync(at, {
                let (kept, disk) = (kept.clone(), cluster.disks[2].clone());
                move || *kept.lock().expect("nobody panics") = Some(left(&disk))
            });
            let c = cluster.start(2).await;
            until("it has caught up", || c.raft_status().applied >= a.raft_status().applied).await;
            c.stop().await;
            let Some(disk) = kept.lock().expect("nobody panics").take() else { return cluster.stop([a, b]).await };
            was_stopped = true;
            names.extend(beside_the_log(&disk, "c"));
            // The others have met a later boot: they do not hear this one.
            cluster.disks[2] = disk;
            let c = cluster.start(2).await;
            until("it runs again", || c.raft_status().term > 0).await;
            assert_eq!(beside_the_log(&cluster.disks[2], "c"), [PathBuf::from("node.redb")], "at sync {at}");
            cluster.stop([a, b, c]).await;
        });
        if !was_stopped {
            return names;
        }
    }
    names
}

#[test]
fn a_loss_of_power_during_an_install_leaves_a_store_that_opens_and_nothing_beside_it() {
    assert!(stopped_at_each_sync(MemoryDisk::after_a_loss_of_power).len() > 10);
}

#[test]
fn a_kill_during_an_install_leaves_a_store_that_opens_and_the_next_start_removes_the_rest() {
    let names = stopped_at_each_sync(MemoryDisk::after_a_kill);
    let is_incoming = |name: &PathBuf| name.to_string_lossy().starts_with("incoming-");
    assert!(names.iter().any(is_incoming), "no install was interrupted: {names:?}");
}

#[test]
fn a_snapshot_leaves_the_disk_its_headroom() {
    simulate(|| async {
        let (cluster, [a, b]) = third_behind().await;
        // There is room for the log, not for a snapshot beside the headroom.
        let headroom = Limits::default().snapshot_headroom;
        cluster.disks[2].set_capacity(cluster.disks[2].used() + headroom);
        let c = cluster.start(2).await;
        let refused =
            || c.transport().peers().iter().map(|peer| peer.link.snapshots[Direction::In].failed).sum::<u64>();
        until("a snapshot is refused", || refused() > 0).await;
        let is_spooled = |file: &PathBuf| file.parent().is_some_and(|directory| directory.ends_with("snap"));
        assert!(!cluster.disks[2].files().iter().any(is_spooled), "nothing of it is kept");
        let told = |node: &Node| node.transport().peers().iter().filter_map(|peer| peer.link.last_error.clone()).next();
        let why = [&a, &b].into_iter().filter_map(told).find(|(_, why)| why.contains("failed to save KV snapshot"));
        assert!(why.is_some_and(|(_, why)| why.contains(&format!("is to keep {headroom}"))), "its sender is told");
        // Its leader's heartbeats go on all the while, and it is within the entries that one may lack.
        for _ in 0..100 {
            let failure = caught_up(&c).expect("it lacks what it cannot take");
            assert!(failure.starts_with("has not followed a leader yet"), "{failure}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let failure = caught_up(&c).expect("it still lacks it");
        assert!(failure.contains("needs the snapshot at index ") && !failure.contains('\n'), "{failure}");
        assert!(failure.contains(&format!("is to keep {headroom} beside ")), "{failure}");
        cluster.disks[2].set_capacity(cluster.disks[2].used() + headroom + (1 << 20));
        until("it has caught up", || c.raft_status().applied >= a.raft_status().applied).await;
        until("it says so", || caught_up(&c).is_none()).await;
        cluster.stop([a, b, c]).await;
    });
}

/// Why a member is not caught up, as `/readyz?verbose` says it; none when it is.
fn caught_up(node: &Node) -> Option<String> {
    let check = node.health()().ready.into_iter().find(|check| check.name == "caught_up");
    check.expect("a member has it").failure
}

#[test]
fn a_member_that_comes_back_while_nobody_writes_is_soon_caught_up() {
    simulate(|| async {
        let cluster = Cluster::new();
        let [a, b, c] = cluster.start_all().await;
        write_and_read(&cluster.memory, 0..30, &NAMES).await;
        let mut nodes = [a, b, c];
        // A stream that breaks has the leader probe with an append; the longer it is away, the less is left of that.
        for away in [0, 3, 60] {
            let back = nodes.iter().position(|node| node.raft_status().role != Role::Leader).expect("two follow");
            nodes[back].stop().await;
            tokio::time::sleep(Duration::from_secs(away)).await;
            nodes[back] = cluster.start(back).await;
            assert!(caught_up(&nodes[back]).is_some(), "it has heard nobody yet");
            let begun = Instant::now();
            until("it is caught up", || caught_up(&nodes[back]).is_none()).await;
            assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
        }
        cluster.stop(nodes).await;
    });
}

#[test]
fn a_member_whose_disk_cannot_be_read_does_not_start_and_says_why() {
    simulate(|| async {
        let cluster = Cluster::new();
        let nodes = cluster.start_all().await;
        cluster.stop(nodes).await;
        cluster.disks[0].fail_reads();
        let Err(error) = Node::start(config(&cluster.memory, &cluster.disks[0], "a")).await else {
            panic!("it started")
        };
        assert_eq!(error.to_string(), format!("data directory {DIRECTORY}/a: I/O error: the sector cannot be read"));
    });
}

#[test]
fn members_of_a_new_cluster_wait_for_nobody_and_a_second_for_who_is_silent() {
    simulate(|| async {
        let cluster = Cluster::new();
        let begun = Instant::now();
        let (a, b, c) = tokio::join!(cluster.start(0), cluster.start(1), cluster.start(2));
        assert!(begun.elapsed() < Duration::from_millis(100), "they ask each other: {:?}", begun.elapsed());
        until("there is a leader", || a.raft_status().leader.0 != 0).await;
        cluster.stop([a, b, c]).await;

        let cluster = Cluster::new();
        let _silent = cluster.memory.place("b", address("b")).listen("b", 2380).await.expect("it is free");
        let begun = Instant::now();
        let a = cluster.start(0).await;
        let waited = begun.elapsed();
        assert!((Duration::from_secs(1)..Duration::from_millis(1100)).contains(&waited), "{waited:?}");
        a.stop().await;
    });
}

#[test]
fn a_member_without_its_disk_is_refused_by_whoever_knows_that_it_was_started() {
    simulate(|| async {
        let mut cluster = Cluster::new();
        let [a, b, c] = cluster.start_all().await;
        write_and_read(&cluster.memory, 0..5, &NAMES).await;
        let known =
            async |name: &str| ask(&cluster.memory, name, Method::GET, "/members", "").await.1.contains("c:2379");
        while !(known("a").await && known("b").await) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let id = c.raft_status().id;
        c.stop().await;
        cluster.disks[2] = MemoryDisk::default();
        for state in [InitialClusterState::New, InitialClusterState::Existing] {
            let config = config(&cluster.memory, &cluster.disks[2], "c");
            let Err(error) = Node::start(Config { initial_cluster_state: state, ..config }).await else {
                panic!("it started")
            };
            let said = error.to_string();
            assert!(said.starts_with(&format!("member {id} has already been bootstrapped, as http://")), "{said}");
            assert!(said.contains(DIRECTORY) && said.lines().count() == 1, "{said}");
        }
        cluster.stop([a, b]).await;
    });
}

impl Cluster {
    async fn force(&self, place: usize) -> Result<Node, Error> {
        let config = config(&self.memory, &self.disks[place], NAMES[place]);
        Node::start(Config { force_new_cluster: true, ..config }).await
    }
}

/// The names of the members, as one of them has them.
async fn listed(memory: &Memory, name: &str) -> Vec<String> {
    let (_, body) = ask(memory, name, Method::GET, "/members?consistency=local", "").await;
    let body: serde_json::Value = serde_json::from_str(&body).expect("JSON");
    let members = body["members"].as_array().expect("a list").iter();
    let mut names: Vec<_> = members.map(|member| member["name"].as_str().expect("a name").to_owned()).collect();
    names.sort_unstable();
    names
}

/// Keeps what would be left of a disk if the power went while it syncs, each time that it does.
fn at_each_sync(disk: &MemoryDisk, seed: u64, left: &Arc<Mutex<Vec<MemoryDisk>>>) {
    let (again, kept) = (disk.clone(), left.clone());
    disk.before_a_sync(move || {
        kept.lock().expect("nobody panics").push(again.torn(seed));
        at_each_sync(&again, seed + 1, &kept);
    });
}

#[test]
fn a_new_cluster_is_forced_or_is_not_whenever_the_power_goes() {
    simulate(|| async {
        let mut cluster = Cluster::new();
        let nodes = cluster.start_all().await;
        write_and_read(&cluster.memory, 0..50, &NAMES).await;
        let id = nodes[0].raft_status().cluster;
        cluster.stop(nodes).await;
        let left = Arc::default();
        at_each_sync(&cluster.disks[0], 1, &left);
        let a = cluster.force(0).await.expect("the others are gone");
        until("it leads", || a.raft_status().role == Role::Leader).await;
        cluster.stop([a]).await;
        let left = std::mem::take(&mut *left.lock().expect("nobody panics"));
        assert!(left.len() > 4, "it syncs each step: {}", left.len());
        for (at, disk) in left.into_iter().enumerate() {
            cluster.disks[0] = disk.after_a_loss_of_power();
            let a = cluster.start(0).await;
            let members = listed(&cluster.memory, "a").await;
            assert!(members == ["a"] || members == NAMES, "the power went at sync {at}: {members:?}");
            cluster.stop([a]).await;
            cluster.disks[0] = disk;
            let a = cluster.force(0).await.expect("the others are gone");
            until("it leads", || a.raft_status().role == Role::Leader).await;
            assert_eq!(
                (listed(&cluster.memory, "a").await, a.raft_status().cluster),
                (vec!["a".to_owned()], id),
                "{at}"
            );
            for number in 0..50 {
                let read = ask(&cluster.memory, "a", Method::GET, &format!("/kv/{number}"), "").await;
                assert_eq!(read, (StatusCode::OK, format!("value {number}")), "the power went at sync {at}");
            }
            cluster.stop([a]).await;
        }
    });
}

#[test]
fn a_new_cluster_is_not_forced_while_enough_of_the_others_answer() {
    simulate(|| async {
        let cluster = Cluster::new();
        let [a, b, c] = cluster.start_all().await;
        write_and_read(&cluster.memory, 0..5, &NAMES).await;
        c.stop().await;
        let refused = async |names: &[&str]| {
            let Err(error) = cluster.force(2).await else { panic!("it was forced") };
            let said = error.to_string();
            assert!(said.contains("nothing is lost") && said.lines().count() == 1, "{said}");
            assert!(names.iter().all(|name| said.contains(&format!("http://{name}:2380"))), "{said}");
        };
        refused(&["a"]).await;
        b.stop().await;
        refused(&["a"]).await;
        // It is unchanged.
        let c = cluster.start(2).await;
        until("two are a quorum", || c.raft_status().leader.0 != 0).await;
        write_and_read(&cluster.memory, 5..10, &["a", "c"]).await;
        assert_eq!(listed(&cluster.memory, "c").await.len(), 3);
        cluster.stop([a, c]).await;
    });
}

/// They do not answer, and are not lost: the operator was wrong. What is said of them is nowhere on their disks.
#[test]
fn who_was_given_up_and_was_only_cut_off_goes_on_where_the_forced_member_is_stopped() {
    simulate(|| async {
        let cluster = Cluster::new();
        let [a, b, c] = cluster.start_all().await;
        write_and_read(&cluster.memory, 0..5, &NAMES).await;
        c.stop().await;
        cluster.memory.cut();
        let c = cluster.force(2).await.expect("nobody answers");
        until("it leads", || c.raft_status().role == Role::Leader).await;
        cluster.memory.heal();
        assert_eq!((a.stopped().await, b.stopped().await), (Stopped::Removed, Stopped::Removed));
        cluster.stop([a, b, c]).await;
        let (a, b) = (cluster.start(0).await, cluster.start(1).await);
        until("there is a leader", || a.raft_status().leader.0 != 0).await;
        write_and_read(&cluster.memory, 5..10, &["a", "b"]).await;
        let read = ask(&cluster.memory, "b", Method::GET, "/kv/4", "").await;
        assert_eq!(read, (StatusCode::OK, "value 4".to_owned()));
        cluster.stop([a, b]).await;
    });
}

#[test]
fn the_flag_that_stays_does_not_end_the_cluster_that_was_grown_since() {
    simulate(|| async {
        let mut cluster = Cluster::new();
        let nodes = cluster.start_all().await;
        write_and_read(&cluster.memory, 0..5, &NAMES).await;
        cluster.stop(nodes).await;
        let a = cluster.force(0).await.expect("the others are gone");
        until("it leads", || a.raft_status().role == Role::Leader).await;
        let body = r#"{"name":"b","peerURLs":["http://b:2380"]}"#;
        let (status, said) = ask(&cluster.memory, "a", Method::POST, "/members", body).await;
        assert_eq!(status, StatusCode::CREATED, "{said}");
        cluster.disks[1] = MemoryDisk::default();
        let existing = config(&cluster.memory, &cluster.disks[1], "b");
        let existing = Config { initial_cluster_state: InitialClusterState::Existing, ..existing };
        let b = Node::start(existing).await.expect("it was added");
        until("both lead or follow", || b.raft_status().leader.0 != 0).await;
        write_and_read(&cluster.memory, 5..10, &["a", "b"]).await;
        cluster.stop([a, b]).await;

        // Everything is started anew at once, and this one first: nobody answers.
        let a = cluster.force(0).await.expect("the flag is passed over");
        assert_eq!(listed(&cluster.memory, "a").await, ["a", "b"]);
        let b = cluster.start(1).await;
        until("both lead or follow", || b.raft_status().leader.0 != 0).await;
        write_and_read(&cluster.memory, 10..15, &["a", "b"]).await;
        cluster.stop([a, b]).await;

        // Without it once, it counts again.
        let a = cluster.start(0).await;
        cluster.stop([a]).await;
        let a = cluster.force(0).await.expect("the other is gone");
        until("it leads", || a.raft_status().role == Role::Leader).await;
        assert_eq!(listed(&cluster.memory, "a").await, ["a"]);
        cluster.stop([a]).await;
    });
}

#[test]
fn two_members_do_not_share_a_directory() {
    simulate(|| async {
        let cluster = Cluster::new();
        let nodes = cluster.start_all().await;
        let mut other = config(&cluster.memory, &cluster.disks[0], "a");
        other.listen_peer_urls = vec!["http://a:2480".parse().expect("a URL")];
        other.listen_client_urls = vec!["http://a:2479".parse().expect("a URL")];
        let Err(error) = Node::start(other).await else { panic!("it started") };
        assert_eq!(error.to_string(), format!("data directory {DIRECTORY}/a: it is in use by another process"));
        cluster.stop(nodes).await;
    });
}
