//! A member: a machine, its disk, and the process on it.

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

/// Where members keep what they must not forget. The system has no such directory.
pub const DIRECTORY: &str = "/rafthttp-in-memory";
/// The ports for members and for clients.
pub const PEER_PORT: u16 = 2380;
pub const CLIENT_PORT: u16 = 2379;
/// The time of day at the beginning: in 2033.
const MORNING: Duration = Duration::from_secs(2_000_000_000);

/// How a process is doing.
#[derive(Clone, Debug, Default)]
pub enum Outcome {
    /// It has not started yet.
    #[default]
    Starting,
    /// It could not.
    Failed(String),
    /// It has stopped by itself.
    Stopped(Stopped),
}

/// What a process has told so far.
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
    /// Whether the machine has seen it serve.
    pub is_known: bool,
    pub frozen_until: Option<Time>,
}

/// A member, whether it runs or not.
pub struct Member {
    pub name: String,
    pub host: Host,
    pub disk: MemoryDisk,
    pub running: Option<Running>,
    pub state: InitialClusterState,
    /// The members that its next start is told.
    pub initial: Vec<String>,
    /// How far its clock is ahead of ours, in milliseconds.
    pub clock: Arc<Mutex<i64>>,
    /// Whether it lost its disk, and was not added anew yet.
    pub is_doubtful: bool,
    /// Whether it was removed for good, or soon is.
    pub is_leaving: bool,
    /// How often it was started.
    pub starts: u64,
}

/// What members need of the run that they are in.
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

    /// Starts its process, on what its disk has.
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
        self.running =
            Some(Running { process, disk, net: around.net.clone(), told, since, is_known: false, frozen_until: None });
    }

    fn config(&self, around: &Surroundings, disk: &ProcessDisk) -> Config {
        let (timeline, ahead) = (around.timeline.clone(), self.clock.clone());
        let now = move || {
            let ahead = *ahead.lock().expect("nobody panics while it holds this");
            let since = i64::try_from(timeline.now()).expect("a short run") + ahead;
            UNIX_EPOCH + MORNING + Duration::from_millis(u64::try_from(since).unwrap_or(0))
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

    /// Its process ends at once, with all of its tasks. Its disk has what it wrote, synced or not.
    pub fn kill(&mut self) {
        if let Some(running) = self.running.take() {
            running.disk.end();
            running.net.end_process(self.host);
            let Running { process, told, .. } = running;
            // The member is let go of where its clock is.
            let node = told.lock().expect("nobody panics while it holds this").node.take();
            process.within(|| drop(node));
            drop(process);
        }
    }

    /// The power of its machine goes: what was not synced is there, or not, or in part, as `seed` has it.
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
