//! A member: its machine, its disk, and its process.

use std::{
    path::Path,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, UNIX_EPOCH},
};

use rafthttp::{
    PeerUrl,
    internals::world::World,
    node::{Config, InitialClusterState, Node, Stopped},
};

use super::{
    clock::{Process, Time, Timeline},
    disk::ProcessDisk,
    events::Events,
    memory_disk::MemoryDisk,
    network::{Host, Net},
    plan::Bug,
};

/// The parent of all data directories. The real file system has no such directory, so an access that bypasses the
/// simulated disk fails.
pub const DIRECTORY: &str = "/rafthttp-in-memory";
/// The ports for peers and for clients.
pub const PEER_PORT: u16 = 2380;
pub const CLIENT_PORT: u16 = 2379;
/// The time of day when a run begins, as time since 1970. It is in 2033.
const MORNING: Duration = Duration::from_secs(2_000_000_000);

/// The state of a process.
#[derive(Clone, Debug, Default)]
pub enum Outcome {
    /// It has not started yet.
    #[default]
    Starting,
    /// It could not start.
    Failed(String),
    /// It has stopped by itself.
    Stopped(Stopped),
}

/// The results of a process so far. The simulation reads them between two windows.
#[derive(Default)]
struct Told {
    node: Option<Node>,
    outcome: Outcome,
}

/// A process that runs a member.
pub struct Running {
    pub process: Process,
    pub disk: ProcessDisk,
    net: Net,
    told: Arc<Mutex<Told>>,
    pub since: Time,
    /// Whether the simulation has seen it serve.
    pub is_known: bool,
    pub frozen_until: Option<Time>,
    /// When it last went on after it was frozen.
    pub thawed: Option<Time>,
}

/// A member. It may run or not.
pub struct Member {
    pub name: String,
    pub host: Host,
    pub disk: MemoryDisk,
    pub running: Option<Running>,
    pub state: InitialClusterState,
    /// The names in the `--initial-cluster` of its next start.
    pub initial: Vec<String>,
    /// How far its clock is ahead of the simulation's, in milliseconds.
    pub clock: Arc<Mutex<i64>>,
    /// Whether it lost its disk or has not joined yet, so that it is no full member.
    pub is_doubtful: bool,
    /// Whether it was removed, or is being removed.
    pub is_leaving: bool,
    /// The number of its starts.
    pub starts: u64,
}

/// The parts of a run that its members need.
#[derive(Clone)]
pub struct Surroundings {
    pub timeline: Timeline,
    pub net: Net,
    pub events: Events,
    pub seed: u64,
    pub snapshot_count: u64,
    pub traces: bool,
    pub bug: Option<Bug>,
}

pub fn peer_url(name: &str) -> PeerUrl {
    format!("http://{name}:{PEER_PORT}").parse().expect("a URL")
}

impl Running {
    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().expect("nobody panics while it holds this")
    }

    /// The member, once it has started.
    pub fn node(&self) -> Option<Node> {
        self.told().node.clone()
    }

    pub fn outcome(&self) -> Outcome {
        self.told().outcome.clone()
    }
}

impl Member {
    pub fn new(name: &str, host: Host, initial: &[String]) -> Self {
        Self {
            name: name.to_owned(),
            host,
            disk: MemoryDisk::default(),
            running: None,
            state: InitialClusterState::New,
            initial: initial.to_vec(),
            clock: Arc::default(),
            is_doubtful: false,
            is_leaving: false,
            starts: 0,
        }
    }

    /// Starts its process on its disk.
    pub fn start(&mut self, around: &Surroundings) {
        self.starts += 1;
        around.events.say(&format!("{} starts ({:?})", self.name, self.state));
        around.net.power(self.host, true);
        let process = Process::new(self.host, &around.timeline);
        let disk = ProcessDisk::new(&self.disk, self.host, &around.net, &around.events, around.bug);
        let config = self.config(around, &disk);
        let told = Arc::new(Mutex::new(Told::default()));
        let (telling, events, name) = (told.clone(), around.events.clone(), self.name.clone());
        let tell = move |change: &dyn Fn(&mut Told)| {
            change(&mut telling.lock().expect("nobody panics while it holds this"));
        };
        process.spawn(async move {
            match Node::start(config).await {
                Ok(node) => {
                    events.say(&format!("{name} serves as {}", node.raft_status().id));
                    tell(&|told| told.node = Some(node.clone()));
                    let why = node.stopped().await;
                    events.say(&format!("{name} has stopped: {why}"));
                    tell(&|told| told.outcome = Outcome::Stopped(why.clone()));
                }
                Err(error) => {
                    events.say(&format!("{name} cannot start: {error}"));
                    tell(&|told| told.outcome = Outcome::Failed(error.to_string()));
                }
            }
        });
        let since = around.timeline.now();
        self.running = Some(Running {
            process,
            disk,
            net: around.net.clone(),
            told,
            since,
            is_known: false,
            frozen_until: None,
            thawed: None,
        });
    }

    fn config(&self, around: &Surroundings, disk: &ProcessDisk) -> Config {
        let (timeline, ahead) = (around.timeline.clone(), self.clock.clone());
        let now = move || {
            let ahead = *ahead.lock().expect("nobody panics while it holds this");
            let (now, by) =
                (MORNING + Duration::from_millis(timeline.now()), Duration::from_millis(ahead.unsigned_abs()));
            // A clock that was set back goes on from there, also before that morning.
            UNIX_EPOCH + if ahead < 0 { now - by } else { now + by }
        };
        let seed = around.seed.wrapping_mul(1_000_003) ^ ((self.host as u64) << 32) ^ (self.starts << 16);
        let world = World::default().with_seed(seed).with_clock(now).with_network(around.net.place(self.host));
        let name = &self.name;
        Config {
            name: name.clone(),
            data_dir: Path::new(DIRECTORY).join(name),
            listen_peer_urls: vec![peer_url(name)],
            initial_advertise_peer_urls: vec![peer_url(name)],
            listen_client_urls: vec![format!("http://{name}:{CLIENT_PORT}").parse().expect("a URL")],
            advertise_client_urls: vec![format!("http://{name}:{CLIENT_PORT}")],
            initial_cluster: self.initial.iter().map(|name| (name.clone(), peer_url(name))).collect(),
            initial_cluster_state: self.state,
            snapshot_count: around.snapshot_count,
            log_retention_bytes: 0,
            trace_ratio: if around.traces { 1.0 } else { 0.0 },
            world: world.with_disk(Arc::new(disk.clone())).with_one_thread(),
            ..Config::default()
        }
    }

    /// Kills its process with all tasks. The disk keeps everything that was written, synced or not.
    pub fn kill(&mut self) {
        if let Some(running) = self.running.take() {
            running.disk.end();
            running.net.end_process(self.host);
            let Running { process, told, .. } = running;
            // The node is dropped within its process, because its tasks use that process's clock.
            let node = told.lock().expect("nobody panics while it holds this").node.take();
            process.within(|| drop(node));
            drop(process);
        }
    }

    /// Its machine loses its power. `seed` decides which of the unsynced bytes are on the disk afterwards.
    pub fn lose_power(&mut self, around: &Surroundings, seed: u64) {
        if let Some(running) = &self.running {
            self.disk = running.disk.left().unwrap_or_else(|| self.disk.torn(seed));
            around.net.power(self.host, false);
        }
        self.kill();
    }

    pub fn node(&self) -> Option<Node> {
        self.running.as_ref().filter(|running| running.frozen_until.is_none()).and_then(Running::node)
    }
}
