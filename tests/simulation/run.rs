//! The run of one seed, from the first start to the end of the last task.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use rafthttp::{
    metrics::Direction,
    node::{InitialClusterState, Role},
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use super::{
    clients::{Asking, Client, History, KEYS},
    clock::{Process, Time, Timeline, WINDOW},
    events::Events,
    faults::Ending,
    logs::Logs,
    member::{Member, Outcome, Surroundings},
    memory_disk::MemoryDisk,
    network::Net,
    operator::Job,
    oracles::{self, Oracles},
    order::Order,
    plan::{Bug, Kind, Plan},
    porcupine::Operation,
};

/// When faults begin and end, and how long the cluster may take to recover after that, in milliseconds.
const FAULTS_BEGIN: Time = 3_000;
const FAULTS_END: Time = 50_000;
const RECOVERY: Time = 40_000;
/// The interval between two checks of the oracles, in milliseconds.
const LOOK: Time = 48;
/// The interval between two comparisons of the logs, in milliseconds. It is longer, because a comparison reads whole
/// logs.
const COMPARE: Time = 4_000;
/// The longest time for a clean stop, in milliseconds.
const STOPPING: Time = 20_000;

/// The number of machines for members that are added later.
const SPARE: usize = 2;

/// A run in progress.
pub struct Simulation {
    pub plan: Plan,
    pub random: StdRng,
    pub around: Surroundings,
    pub members: Vec<Member>,
    pub clients: Process,
    pub asking: Asking,
    /// The jobs that the operator has begun.
    pub jobs: Vec<Job>,
    pub copies: BTreeMap<usize, MemoryDisk>,
    pub lost_a_disk: bool,
    /// How many times a machine got another address.
    pub moves: u8,
    pending: BTreeMap<(Time, u64), Ending>,
    endings: u64,
    oracles: Oracles,
    logs: Logs,
    order: Order,
    history: History,
    stop_clients: Arc<AtomicBool>,
    serving: Arc<Mutex<Vec<usize>>>,
}

/// The result of a seed.
pub struct Report {
    pub seed: u64,
    pub plan: Plan,
    /// The hash of all events, and their number.
    pub sum: (u64, u64),
    pub virtual_time: Time,
    pub failure: Option<String>,
    pub history: Vec<Operation>,
    pub known: usize,
    /// The last events, in words.
    pub last: Vec<String>,
}

impl Report {
    /// The report of a run that ended with a panic.
    pub fn broken(seed: u64, plan: Plan, failure: String) -> Self {
        let (history, last) = (Vec::new(), Vec::new());
        Self { seed, plan, sum: (0, 0), virtual_time: 0, failure: Some(failure), history, known: 0, last }
    }
}

impl Simulation {
    pub fn new(seed: u64, plan: Plan, is_traced: bool) -> Self {
        let timeline = Timeline::default();
        let events = Events::new(timeline.clone(), is_traced);
        let names: Vec<String> = (0..plan.members).map(|place| format!("m{place}")).collect();
        let spare = (plan.members..plan.members + SPARE).map(|place| format!("m{place}"));
        let machines: Vec<String> = names.iter().cloned().chain(spare).chain(["clients".to_owned()]).collect();
        let net = Net::new(&machines, seed, &timeline, &events);
        let members = names.iter().enumerate().map(|(host, name)| Member::new(name, host, &names)).collect();
        let snapshot_count = plan.snapshot_count;
        let clients = Process::new(machines.len() - 1, &timeline);
        let asking = Asking {
            place: net.place(machines.len() - 1),
            net: net.clone(),
            events: events.clone(),
            timeline: timeline.clone(),
            last: Arc::default(),
        };
        Self {
            random: StdRng::seed_from_u64(seed ^ 0x5eed),
            around: Surroundings { timeline, net, events, seed, snapshot_count, traces: plan.traces, bug: plan.bug },
            members,
            clients,
            asking,
            jobs: Vec::new(),
            moves: 0,
            copies: BTreeMap::new(),
            lost_a_disk: false,
            pending: BTreeMap::new(),
            endings: 0,
            oracles: Oracles::default(),
            logs: Logs::default(),
            order: Order::default(),
            history: History::default(),
            stop_clients: Arc::default(),
            serving: Arc::new(Mutex::new((0..plan.members).collect())),
            plan,
        }
    }

    /// Runs to the end, or to the first violation of an oracle.
    pub fn run(mut self) -> Report {
        let order = self.order.clone();
        let failure = if self.plan.traces {
            tracing::subscriber::with_default(order, || self.whole()).err()
        } else {
            self.whole().err()
        };
        if let Some(why) = &failure {
            self.say(why);
        }
        let (timeline, events) = (self.around.timeline.clone(), self.around.events.clone());
        let history = self.history.clone();
        let (seed, plan, sum) = (self.around.seed, self.plan.clone(), events.sum());
        for member in &mut self.members {
            member.kill();
        }
        drop(self);
        Report {
            seed,
            plan,
            sum,
            virtual_time: timeline.now(),
            failure,
            known: history.known(),
            history: history.operations(),
            last: events.last(),
        }
    }

    fn whole(&mut self) -> Result<(), String> {
        self.say(&format!("{:?}", self.plan));
        let around = self.around.clone();
        self.members.iter_mut().for_each(|member| member.start(&around));
        self.until("the first leader", FAULTS_BEGIN * 4, Self::has_one_leader)?;
        self.start_clients();
        self.faults()?;
        self.end_faults();
        self.until("all are in step", RECOVERY, Self::is_in_step)?;
        self.stop_clients.store(true, Ordering::Relaxed);
        self.last_look()?;
        self.until("all are in step without clients", RECOVERY, Self::is_in_step)?;
        self.compare_logs()?;
        self.until("every message that was sent was read or is counted as lost", RECOVERY, |run| {
            if oracles::is_settled(&run.members)? { Ok(()) } else { Err("some are neither".to_owned()) }
        })?;
        self.stop()
    }

    /// Runs every process for one window. Returns the end of the window.
    fn step(&self) -> Time {
        let until = self.now() + WINDOW;
        for running in self.members.iter().filter_map(|member| member.running.as_ref()) {
            running.process.run_until(until);
        }
        self.clients.run_until(until);
        self.around.timeline.go_on();
        until
    }

    /// Runs every process for one window. Then ends the faults that are due, and checks the oracles.
    fn go_on(&mut self) -> Result<(), String> {
        let until = self.step();
        self.notice()?;
        while self.pending.first_key_value().is_some_and(|((at, _), _)| *at <= until) {
            let ending = self.pending.pop_first().expect("there is one").1;
            self.end(ending);
        }
        self.follow_up();
        if until % LOOK < WINDOW {
            let net = self.around.net.clone();
            self.oracles.look(until, &self.members, &net, self.lost_a_disk)?;
            self.order.look()?;
        }
        if until % COMPARE < WINDOW {
            self.compare_logs()?;
        }
        super::panics::take().map_or(Ok(()), Err)
    }

    /// Compares the committed entries of all members. It does nothing once a disk was lost: a member on an old or empty
    /// disk may then have entries of another history.
    fn compare_logs(&mut self) -> Result<(), String> {
        if self.lost_a_disk {
            return Ok(());
        }
        self.members.iter().try_for_each(|member| self.logs.look(member))
    }

    /// Looks which processes serve, have ended, or have lost their power.
    fn notice(&mut self) -> Result<(), String> {
        for place in 0..self.members.len() {
            let member = &mut self.members[place];
            let Some(running) = &mut member.running else { continue };
            if running.disk.left().is_some() {
                self.lose_power(place);
                continue;
            }
            running.is_known |= running.node().is_some();
            let why = match running.outcome() {
                Outcome::Starting => continue,
                Outcome::Failed(why) => format!("{} could not start: {why}", member.name),
                Outcome::Stopped(why) => format!("{} has stopped: {why}", member.name),
            };
            self.ended(place, why)?;
        }
        Ok(())
    }

    /// A process has ended by itself. This is an error, unless the member lost its disk, is being removed, could not
    /// join yet, or its disk failed.
    fn ended(&mut self, place: usize, why: String) -> Result<(), String> {
        let member = &mut self.members[place];
        member.kill();
        if member.is_doubtful || member.is_leaving {
            return Ok(());
        }
        // A member cannot start on a disk that is full or cannot sync.
        let a_disk_fails = self.plan.kinds.iter().any(|kind| matches!(kind, Kind::FullDisk | Kind::FailedSync));
        let is_of_the_disk = a_disk_fails && (why.contains("sector") || why.contains("no storage space"));
        let is_joining = member.state != InitialClusterState::New
            && ["no member", "not a member any more"].iter().any(|said| why.contains(said));
        if is_of_the_disk || is_joining {
            self.say(&format!("{why}: it is started again"));
            let at = self.now() + 1000;
            self.at(at, Ending::Start(place));
            return Ok(());
        }
        Err(why)
    }

    fn faults(&mut self) -> Result<(), String> {
        let mut next = self.now().max(FAULTS_BEGIN);
        while self.now() < FAULTS_END {
            if self.now() >= next {
                self.bring();
                next = self.now() + self.random.random_range(1..=2 * self.plan.interval);
            }
            self.go_on()?;
        }
        Ok(())
    }

    /// Ends every fault that has not ended yet.
    fn end_faults(&mut self) {
        self.say("the faults end");
        while let Some((_, ending)) = self.pending.pop_first() {
            self.end(ending);
        }
        for place in 0..self.members.len() {
            if let Some(running) = &mut self.members[place].running {
                running.frozen_until = running.frozen_until.map(|_| 0);
                running.disk.keep_power();
            }
            self.members[place].disk.mend();
            self.end(Ending::Thaw(place));
            self.end(Ending::MakeRoom(place));
            self.end(Ending::Resolve(place));
            self.end(Ending::Start(place));
        }
        let serving = self.staying().map(|member| member.host).collect();
        *self.serving.lock().expect("nobody panics while it holds this") = serving;
        self.end(Ending::Heal);
        self.end(Ending::QuickenLinks);
    }

    fn start_clients(&mut self) {
        let values = Arc::<AtomicU64>::default();
        for number in 0..self.plan.clients {
            let client = Client {
                asking: self.asking.clone(),
                history: self.history.clone(),
                stop: self.stop_clients.clone(),
                values: values.clone(),
                hosts: self.serving.clone(),
                patience: Duration::from_millis(self.plan.patience),
                pause: self.plan.pause,
                seed: self.around.seed ^ ((number as u64 + 1) << 40),
                reads_locally: self.plan.bug == Some(Bug::LocalReads),
                padding: self.plan.padding,
            };
            self.clients.spawn(client.run());
        }
    }

    /// Reads every key through every member.
    fn last_look(&mut self) -> Result<(), String> {
        let left = Arc::new(AtomicU64::new(self.staying().count() as u64));
        for member in self.staying() {
            let client = Client {
                asking: self.asking.clone(),
                history: self.history.clone(),
                stop: self.stop_clients.clone(),
                values: Arc::default(),
                hosts: self.serving.clone(),
                patience: Duration::from_secs(10),
                pause: 1,
                seed: 0,
                reads_locally: false,
                padding: 0,
            };
            let (host, left) = (member.host, left.clone());
            self.clients.spawn(async move {
                for key in KEYS {
                    client.read(host, key).await;
                }
                left.fetch_sub(1, Ordering::Relaxed);
            });
        }
        self.until("a last look at every key", STOPPING, |_| {
            if left.load(Ordering::Relaxed) == 0 { Ok(()) } else { Err("somebody still reads".to_owned()) }
        })
    }

    /// Runs on until `holds` returns no error. The last error says what was missing.
    fn until(&mut self, what: &str, patience: Time, holds: impl Fn(&Self) -> Result<(), String>) -> Result<(), String> {
        let end = self.now() + patience;
        loop {
            match holds(self) {
                Ok(()) => return Ok(()),
                Err(why) if self.now() >= end => return Err(format!("not within {patience} ms: {what}: {why}")),
                Err(_) => self.go_on()?,
            }
        }
    }

    pub fn leads(&self, member: &Member) -> bool {
        member.node().is_some_and(|node| node.raft_status().role == Role::Leader)
    }

    fn has_one_leader(&self) -> Result<(), String> {
        let leaders = self.staying().filter(|member| self.leads(member)).count();
        if leaders == 1 { Ok(()) } else { Err(format!("{leaders} leaders")) }
    }

    /// Whether there is one leader, all members have applied the same entries, and all streams are open.
    fn is_in_step(&self) -> Result<(), String> {
        self.has_one_leader()?;
        if let Some(job) = self.jobs.first() {
            return Err(format!("{job:?} is not done"));
        }
        let mut applied = Vec::new();
        for member in self.staying() {
            let node = member.node().ok_or_else(|| format!("{} does not serve", member.name))?;
            let status = node.raft_status();
            applied.push(status.applied);
            if let Some(why) = status.suspended {
                return Err(format!("{} takes no part: {why}", member.name));
            }
            let peers = member.running.as_ref().expect("it serves").process.within(|| node.transport().peers());
            let peers: Vec<_> = peers.into_iter().filter(rafthttp::PeerStatus::is_peer).collect();
            if status.is_learner {
                return Err(format!("{} has no vote", member.name));
            }
            if peers.len() + 1 != self.staying().count() {
                return Err(format!("{} has {} peers", member.name, peers.len()));
            }
            for peer in peers {
                let is_open =
                    |ways: &rafthttp::metrics::PerDirection<bool>| ways[Direction::In] && ways[Direction::Out];
                if !peer.link.stream_up.values().all(is_open) || peer.link.reachable != Some(true) {
                    return Err(format!(
                        "{}'s link to {} is not whole: {:?}",
                        member.name, peer.name, peer.link.stream_up
                    ));
                }
            }
        }
        let (least, most) = (applied.iter().min(), applied.iter().max());
        // While clients write, a follower applies an entry a little later than the leader.
        let slack = if self.stop_clients.load(Ordering::Relaxed) { 0 } else { 50 };
        if least.zip(most).is_some_and(|(least, most)| most - least <= slack) {
            Ok(())
        } else {
            Err(format!("applied: {applied:?}"))
        }
    }

    /// Stops every member cleanly. No task and no connection may be left.
    fn stop(&mut self) -> Result<(), String> {
        self.say("everybody is stopped");
        let left = Arc::new(AtomicU64::new(self.staying().count() as u64));
        for member in self.staying() {
            let (node, left) = (member.node().expect("it serves"), left.clone());
            let running = member.running.as_ref().expect("it serves");
            running.process.spawn(async move {
                node.stop().await;
                left.fetch_sub(1, Ordering::Relaxed);
            });
        }
        let end = self.now() + STOPPING;
        while left.load(Ordering::Relaxed) > 0 || self.remains().is_err() {
            if self.now() >= end {
                let why = self.remains().err().unwrap_or_default();
                return Err(format!(
                    "{} members have not stopped within {STOPPING} ms: {why}",
                    left.load(Ordering::Relaxed)
                ));
            }
            self.step();
            super::panics::take().map_or(Ok(()), Err)?;
        }
        Ok(())
    }

    /// Fails if a stopped member still has tasks or connections.
    fn remains(&self) -> Result<(), String> {
        for member in &self.members {
            let tasks = member.running.as_ref().map_or(0, |running| running.process.tasks());
            let connections = self.around.net.open(member.host);
            if tasks > 0 || connections > 0 {
                return Err(format!("{} has {tasks} tasks and {connections} connections left", member.name));
            }
        }
        Ok(())
    }

    pub fn now(&self) -> Time {
        self.around.timeline.now()
    }

    pub fn say(&self, what: &str) {
        self.around.events.say(what);
    }

    /// Plans the end of a fault.
    pub fn at(&mut self, at: Time, ending: Ending) {
        self.endings += 1;
        self.pending.insert((at, self.endings), ending);
    }

    /// The members that are not being removed.
    pub fn staying(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| !member.is_leaving)
    }
}
