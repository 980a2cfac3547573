//! Faults of every kind in a loop, under load. In the end every acknowledged write is there, and the history is
//! linearizable. The ledgers balance all the time.
//!
//! Members are killed, frozen and cut off from what the others send; their disks fill up. They also lose their disks: a
//! member comes back with an empty directory, with an old copy of it, or beside a clone of itself. With its old flags
//! it is refused. Removed and added anew, it takes part again. Losses of power need a simulated disk: see
//! `tests/world`.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use http::{Method, StatusCode};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};

#[path = "cluster/history.rs"]
mod history;
#[path = "cluster/http_client.rs"]
mod http_client;
#[path = "cluster/ledger.rs"]
#[allow(dead_code, reason = "each test binary uses its part")]
mod ledger;
#[path = "support/ports.rs"]
mod ports;
#[path = "cluster/process.rs"]
#[allow(dead_code, reason = "each test binary uses its part")]
mod process;
#[path = "chaos/relay.rs"]
mod relay;
#[path = "support/tier.rs"]
mod tier;

use history::History;
use process::{Cluster, cannot_mount, copy};
use relay::Relay;

/// Members that are killed, cut off and so on. Each has all others as its way back.
const MEMBERS: usize = 3;
/// Room on each disk: what a snapshot leaves free, and more than the keys below need.
const ROOM_BYTES: u64 = 320 << 20;
/// How long a change of the membership, or a return, may take while nothing else is wrong.
const PATIENCE: Duration = Duration::from_secs(30);

/// Seconds of faults in the test below; more in a soak.
fn chaos_time() -> Duration {
    let seconds = std::env::var("RAFTHTTP_CHAOS_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(40))
}

#[derive(Clone, Copy, Debug)]
enum Fault {
    /// The leader, or any.
    Kill,
    KillAll,
    /// It runs no more, and its connections stay open.
    Freeze,
    /// What the others send and ask does not come to it; what it sends does.
    Cut,
    FullDisk,
    /// Its directory is empty.
    Wiped,
    /// It has an old backup: its next start was met, and one after it.
    RolledBack,
    /// It has a clone: its next start was met, of the same number.
    Cloned,
}

const FAULTS: [Fault; 8] = [
    Fault::Kill,
    Fault::KillAll,
    Fault::Freeze,
    Fault::Cut,
    Fault::FullDisk,
    Fault::Wiped,
    Fault::RolledBack,
    Fault::Cloned,
];

#[tokio::test(flavor = "multi_thread")]
async fn under_faults_reads_are_linearizable_and_nothing_acknowledged_is_lost() {
    let cluster = Cluster::new(MEMBERS, &["--snapshot-count", "100", "--log-retention-bytes", "0"]);
    let mut chaos = Chaos::start(cluster).await;
    let load = Load::start(&chaos.cluster);
    let end = Instant::now() + chaos_time();
    let (mut faults, mut rounds) = (FAULTS.to_vec(), 0);
    if !chaos.has_rooms() {
        faults.retain(|fault| !matches!(fault, Fault::FullDisk));
    }
    while Instant::now() < end || rounds < faults.len() {
        // Each kind once, then by chance.
        let fault = match faults.get(rounds) {
            Some(fault) => *fault,
            None => *faults.choose(&mut chaos.random).expect("there are some"),
        };
        rounds += 1;
        println!("{:?} {fault:?}", end.saturating_duration_since(Instant::now()));
        chaos.wait(200..1500).await;
        chaos.bring(fault).await;
        chaos.cluster.caught_up().await;
        ledger::assert_laws(&chaos.cluster).await;
    }
    let history = load.stop().await;
    chaos.cluster.caught_up().await;
    for member in 0..MEMBERS {
        // A last look at every key, through every member.
        for key in KEYS {
            read(&chaos.cluster.http, &chaos.cluster.members[member].client, key, &history).await;
        }
    }
    ledger::assert_laws(&chaos.cluster).await;
    assert!(history.known() > 200, "only {} operations have a known outcome", history.known());
    println!("{rounds} faults, {} operations with a known outcome", history.known());
    history.check();
}

/// A cluster, and what is done to it.
struct Chaos {
    cluster: Cluster,
    relays: Vec<Relay>,
    /// Each keeps a file system mounted; none where that is not possible.
    rooms: Vec<Room>,
    random: StdRng,
}

/// A process in a mount namespace of its own, in which a directory is a file system of a size.
struct Room(Child);

impl Room {
    fn new(directory: &Path) -> Self {
        const MOUNT: &str = r#"mount -t tmpfs -o "size=$1" none "$2" && echo mounted && exec sleep infinity"#;
        std::fs::create_dir_all(directory).expect("a directory");
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", MOUNT, "sh", &ROOM_BYTES.to_string()]);
        let mut child = command.arg(directory).stdout(Stdio::piped()).spawn().expect("unshare, as was tried");
        let mut said = [0; 8];
        let mut output = child.stdout.take().expect("piped");
        std::io::Read::read_exact(&mut output, &mut said).expect("it mounts, as was tried");
        Self(child)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Chaos {
    async fn start(mut cluster: Cluster) -> Self {
        let mut relays = Vec::new();
        for member in &mut cluster.members {
            let listen = ports::free_url();
            relays.push(Relay::start(&member.peer, &listen).await);
            member.listen = Some(listen);
        }
        let rooms = match cannot_mount() {
            Some(why) => {
                tier::not_run(&format!("full disks among the faults: {why}"));
                Vec::new()
            }
            None => cluster.members.iter().map(|member| Room::new(&member.directory)).collect::<Vec<_>>(),
        };
        for (member, room) in cluster.members.iter_mut().zip(&rooms) {
            member.namespace = Some(room.0.id());
        }
        cluster.start_all();
        let chaos = Self { cluster, relays, rooms, random: StdRng::seed_from_u64(7) };
        for member in 0..MEMBERS {
            chaos.cluster.put(member, &format!("first-{member}"), "v").await;
        }
        chaos
    }

    fn has_rooms(&self) -> bool {
        !self.rooms.is_empty()
    }

    async fn wait(&mut self, milliseconds: std::ops::Range<u64>) {
        tokio::time::sleep(Duration::from_millis(self.random.random_range(milliseconds))).await;
    }

    /// The leader half of the time.
    async fn victim(&mut self) -> usize {
        let leader = self.cluster.leader().await;
        if self.random.random_bool(0.5) { leader } else { self.random.random_range(0..MEMBERS) }
    }

    /// Brings a fault about, and ends it.
    async fn bring(&mut self, fault: Fault) {
        let victim = self.victim().await;
        match fault {
            Fault::Kill => {
                self.cluster.kill(victim);
                self.wait(0..2500).await;
                self.cluster.start(victim);
            }
            Fault::KillAll => {
                (0..MEMBERS).for_each(|member| self.cluster.kill(member));
                self.wait(0..500).await;
                self.cluster.start_all();
            }
            Fault::Freeze => {
                self.cluster.signal(victim, rustix::process::Signal::STOP);
                self.wait(500..4000).await;
                self.cluster.signal(victim, rustix::process::Signal::CONT);
            }
            Fault::Cut => {
                self.relays[victim].cut(true);
                self.wait(500..4000).await;
                self.relays[victim].cut(false);
            }
            Fault::FullDisk => self.fill(victim).await,
            Fault::Wiped => {
                self.cluster.kill(victim);
                wipe(&self.directory(victim));
                self.come_back_refused(victim).await;
                self.add_anew(victim).await;
            }
            Fault::RolledBack => self.come_back_on_a_copy(victim, 2).await,
            Fault::Cloned => self.come_back_on_a_copy(victim, 1).await,
        }
    }

    /// Where a member's directory is for this process.
    fn directory(&self, member: usize) -> PathBuf {
        let directory = &self.cluster.members[member].directory;
        match self.rooms.get(member) {
            None => directory.clone(),
            Some(room) => {
                let inside = directory.strip_prefix("/").expect("an absolute path");
                Path::new("/proc").join(room.0.id().to_string()).join("root").join(inside)
            }
        }
    }

    /// Fills a member's disk to the last byte, and makes room again: it goes on without a restart.
    async fn fill(&mut self, victim: usize) {
        let ballast = self.directory(victim).join("ballast");
        let mut file = std::fs::File::create(&ballast).expect("a small file");
        for piece in [vec![7; 1 << 20], vec![7; 4096]] {
            while std::io::Write::write_all(&mut file, &piece).is_ok() {}
        }
        drop(file);
        self.wait(1000..4000).await;
        std::fs::remove_file(&ballast).expect("it is there");
        assert!(self.cluster.runs(victim), "a full disk ends nobody");
    }

    /// A copy of a member's disk, of before its last starts, comes back in its place.
    async fn come_back_on_a_copy(&mut self, victim: usize, starts: usize) {
        let kept = self.cluster.path().join("kept");
        self.cluster.kill(victim);
        copy(&self.directory(victim), &kept);
        for _ in 0..starts {
            let before = self.told(victim).await;
            self.cluster.start(victim);
            self.met_after(victim, &before).await;
            self.wait(0..1000).await;
            self.cluster.kill(victim);
        }
        wipe(&self.directory(victim));
        copy(&kept, &self.directory(victim));
        wipe(&kept);
        self.come_back_refused(victim).await;
        self.add_anew(victim).await;
    }

    /// The incarnation of a member that each of the others hears now. `None` for one that does not hear it.
    async fn told(&self, by: usize) -> Vec<Option<String>> {
        let name = &self.cluster.members[by].name;
        let mut told = Vec::new();
        for other in (0..MEMBERS).filter(|member| *member != by) {
            let url = format!("{}/api/peers", self.cluster.members[other].metrics);
            let peers = async || {
                let (_, body) = self.cluster.http.ask(Method::GET, url.clone(), String::new()).await?;
                let peers: serde_json::Value = serde_json::from_str(&body).ok()?;
                let is_it = |peer: &&serde_json::Value| peer["name"] == *name && peer["incarnation"]["state"] == "met";
                let peer = peers["peers"].as_array()?.iter().find(is_it)?;
                peer["incarnation"]["told"].as_str().map(str::to_owned)
            };
            told.push(peers().await);
        }
        told
    }

    /// Waits until all others hear another start of a member than this one.
    async fn met_after(&self, victim: usize, before: &[Option<String>]) {
        self.cluster
            .until("a member that is met", PATIENCE, async |_: &Cluster| {
                let told = self.told(victim).await;
                told.iter().zip(before).all(|(now, before)| now.is_some() && now != before).then_some(())
            })
            .await;
    }

    /// Starts a member with its old flags on another disk, on which it must end by itself.
    async fn come_back_refused(&mut self, victim: usize) {
        self.cluster.members[victim].state = "new";
        self.cluster.start(victim);
        let status = self.cluster.exit(victim, PATIENCE).await;
        assert!(matches!(status.code(), Some(1 | 4)), "{status}: {}", self.cluster.log(victim));
    }

    async fn add_anew(&mut self, victim: usize) {
        let (peer, client) = (self.cluster.members[victim].peer.clone(), self.cluster.members[victim].client.clone());
        let (other, before) = ((victim + 1) % MEMBERS, self.told(victim).await);
        let (_, members) = self
            .cluster
            .until("the members", PATIENCE, async |cluster: &Cluster| {
                cluster.ask(other, Method::GET, "/members", "").await
            })
            .await;
        let members: serde_json::Value = serde_json::from_str(&members).expect("JSON");
        let members = members["members"].as_array().expect("a list");
        let old = members.iter().find(|member| member["peerURLs"][0] == peer.as_str());
        if let Some(old) = old {
            let id = old["id"].as_str().expect("an ID");
            self.change(
                other,
                Method::DELETE,
                &format!("/members/{id}"),
                "",
                &[StatusCode::NO_CONTENT, StatusCode::NOT_FOUND],
            )
            .await;
        }
        let body = format!(r#"{{"peerURLs":["{peer}"]}}"#);
        // Of a change without a known outcome, the next says that it was made.
        self.change(other, Method::POST, "/members", &body, &[StatusCode::CREATED, StatusCode::CONFLICT]).await;
        wipe(&self.directory(victim));
        self.cluster.members[victim].state = "existing";
        self.cluster.start(victim);
        self.cluster.caught_up().await;
        self.met_after(victim, &before).await;
        self.cluster
            .until("a member that serves", PATIENCE, async |cluster: &Cluster| {
                let (status, _) = cluster.http.ask(Method::GET, format!("{client}/status"), String::new()).await?;
                (status == StatusCode::OK).then_some(())
            })
            .await;
    }

    async fn change(&self, through: usize, method: Method, path: &str, body: &str, done: &[StatusCode]) {
        self.cluster
            .until("a change of the membership", PATIENCE, async |cluster: &Cluster| {
                let (status, _) = cluster.ask(through, method.clone(), path, body).await?;
                done.contains(&status).then_some(())
            })
            .await;
    }
}

/// Takes away all that is in a directory, which may be where a file system is mounted.
fn wipe(directory: &Path) {
    for entry in std::fs::read_dir(directory).expect("it is there") {
        let entry = entry.expect("it is there");
        let path = entry.path();
        let is_directory = entry.file_type().expect("it has one").is_dir();
        if is_directory { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) }.expect("it is ours");
    }
}

const KEYS: [&str; 12] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"];

/// Clients that write and read as fast as they are answered.
struct Load {
    history: Arc<History>,
    stop: Arc<AtomicBool>,
    clients: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    fn start(cluster: &Cluster) -> Self {
        let (history, stop) = (Arc::new(History::new()), Arc::new(AtomicBool::new(false)));
        let values = Arc::new(AtomicU64::new(0));
        let urls: Vec<String> = cluster.members.iter().map(|member| member.client.clone()).collect();
        let clients = (0..6).map(|number| {
            let (http, url, history) = (cluster.http.clone(), urls[number % urls.len()].clone(), history.clone());
            let (stop, values) = (stop.clone(), values.clone());
            tokio::spawn(async move {
                let mut random = StdRng::seed_from_u64(number as u64);
                while !stop.load(Ordering::Relaxed) {
                    let key = KEYS.choose(&mut random).expect("there are keys");
                    match random.random_range(0..10) {
                        0 => delete(&http, &url, key, &history).await,
                        1..5 => write(&http, &url, key, values.fetch_add(1, Ordering::Relaxed), &history).await,
                        _ => read(&http, &url, key, &history).await,
                    }
                    // The checker's time grows with what overlaps.
                    tokio::time::sleep(Duration::from_millis(random.random_range(5..40))).await;
                }
            })
        });
        Self { clients: clients.collect(), history, stop }
    }

    async fn stop(self) -> Arc<History> {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.await.expect("a client does not panic");
        }
        self.history
    }
}

async fn write(http: &http_client::HttpClient, url: &str, key: &str, value: u64, history: &History) {
    let (call, value) = (history.now(), format!("v{value}"));
    match http.ask(Method::PUT, format!("{url}/kv/{key}"), value.clone()).await {
        Some((StatusCode::NO_CONTENT, _)) => history.record("put", key, Some(value), call, true),
        // Certainly not proposed: it never happened.
        Some((StatusCode::SERVICE_UNAVAILABLE, _)) => rest().await,
        _ => history.record("put", key, Some(value), call, false),
    }
}

async fn delete(http: &http_client::HttpClient, url: &str, key: &str, history: &History) {
    let call = history.now();
    match http.ask(Method::DELETE, format!("{url}/kv/{key}"), String::new()).await {
        Some((StatusCode::NO_CONTENT | StatusCode::NOT_FOUND, _)) => history.record("delete", key, None, call, true),
        Some((StatusCode::SERVICE_UNAVAILABLE, _)) => rest().await,
        _ => history.record("delete", key, None, call, false),
    }
}

async fn read(http: &http_client::HttpClient, url: &str, key: &str, history: &History) {
    let call = history.now();
    match http.ask(Method::GET, format!("{url}/kv/{key}"), String::new()).await {
        Some((StatusCode::OK, value)) => history.record("get", key, Some(value), call, true),
        Some((StatusCode::NOT_FOUND, _)) => history.record("get", key, None, call, true),
        _ => rest().await,
    }
}

/// A member that is down answers at once, and should not be asked a thousand times a second.
async fn rest() {
    tokio::time::sleep(Duration::from_millis(100)).await;
}
