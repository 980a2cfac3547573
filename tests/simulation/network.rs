//! A network that a seed makes fail. It carries streams of bytes, as TCP does: in order, each piece at its time.
//!
//! What a link does to a stream: latency and jitter; a bandwidth that its streams share; a cut, one way or both, in which
//! nothing gets through, and after which what was sent meanwhile is sent again; a reset, in the middle of whatever is
//! under way. What a machine does: a process that ends closes its connections, as a kernel does for it; a machine without
//! power says nothing, so that its connections are half open until it is back and asked again. A process that stands still
//! is dialled all the same, since its kernel answers.

use std::{
    collections::{BTreeMap, VecDeque},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard},
    task::Waker,
};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use super::{
    clock::{Time, Timeline, WINDOW},
    events::Events,
};

mod place;
mod stream;

pub use place::Place;
use stream::Stream;

/// By its place in the list of machines.
pub type Host = usize;

/// Later than every time.
const NEVER: Time = Time::MAX;
/// What may lie between the two ends of a connection, in bytes each way: what Linux begins with, about.
const BUFFER: usize = 64 << 10;
/// The longest that a sender waits after a cut until it sends again, in milliseconds.
const RETRANSMISSION: Time = 800;

/// The network. Every clone is the same.
#[derive(Clone, Debug)]
pub struct Net(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    timeline: Timeline,
    random: StdRng,
    events: Events,
    hosts: Vec<Machine>,
    links: BTreeMap<(Host, Host), Link>,
    connections: Vec<Connection>,
    ports: BTreeMap<SocketAddr, Port>,
    /// When connections between two machines were last broken.
    broken: BTreeMap<(Host, Host), Time>,
    names: BTreeMap<String, IpAddr>,
}

/// A machine's part of it.
#[derive(Clone, Debug)]
struct Machine {
    name: String,
    address: IpAddr,
    is_on: bool,
    resolver: Resolver,
    /// When the last look-up is answered that was asked while names were answered late.
    late_until: Time,
}

/// How names are answered to a machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Resolver {
    /// At once, and rightly.
    #[default]
    Well,
    /// Rightly, after so many milliseconds.
    Late(Time),
    /// Not at all.
    Broken,
    /// With the address of this machine.
    Wrong(Host),
}

/// One way between two machines.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    pub is_cut: bool,
    /// In milliseconds; never below a window.
    pub latency: Time,
    /// What is added at most.
    pub jitter: Time,
    /// Bytes a millisecond; 0: without end.
    pub bandwidth: u64,
    /// When what was sent before has left.
    pub free_at: Time,
}

impl Default for Link {
    fn default() -> Self {
        Self { is_cut: false, latency: WINDOW, jitter: 0, bandwidth: 0, free_at: 0 }
    }
}

impl Link {
    fn is_wider_than(&self, other: &Self) -> bool {
        other.bandwidth != 0 && (self.bandwidth == 0 || self.bandwidth > other.bandwidth)
    }
}

#[derive(Debug)]
struct Port {
    dialled: VecDeque<(Stream, SocketAddr)>,
    acceptor: Option<Waker>,
}

#[derive(Debug)]
struct Connection {
    ends: [End; 2],
    /// From the end of the same place to the other.
    pipes: [Pipe; 2],
}

#[derive(Clone, Copy, Debug)]
struct End {
    host: Host,
    state: Held,
}

/// Who has an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Held {
    /// A process.
    Open,
    /// Nobody, and whoever writes to it is told so by its kernel.
    Closed,
    /// Nobody, and nobody knows that: the power went.
    Forgotten,
}

#[derive(Debug, Default)]
struct Pipe {
    chunks: VecDeque<Chunk>,
    bytes: usize,
    last: Time,
    /// When its end arrives.
    end: Option<Time>,
    /// When the news arrives that it is broken.
    reset: Option<Time>,
    /// A reset that a cut has swallowed, or that a machine without power did not send: told when the writer writes next.
    is_lost: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

#[derive(Debug)]
struct Chunk {
    arrives: Time,
    bytes: Vec<u8>,
    read: usize,
}

impl Net {
    /// A network of machines of these names, which a seed makes fail.
    pub fn new(names: &[String], seed: u64, timeline: &Timeline, events: &Events) -> Self {
        let address = |place: usize| Ipv4Addr::new(10, 0, 0, u8::try_from(place + 1).expect("few")).into();
        let machine = |(place, name): (usize, &String)| Machine {
            name: name.clone(),
            address: address(place),
            is_on: true,
            resolver: Resolver::default(),
            late_until: 0,
        };
        let hosts: Vec<Machine> = names.iter().enumerate().map(machine).collect();
        let pairs = (0..hosts.len()).flat_map(|from| (0..names.len()).map(move |to| ((from, to), Link::default())));
        Self(Arc::new(Mutex::new(State {
            timeline: timeline.clone(),
            random: StdRng::seed_from_u64(seed),
            events: events.clone(),
            names: hosts.iter().map(|host| (host.name.clone(), host.address)).collect(),
            links: pairs.collect(),
            hosts,
            connections: Vec::new(),
            ports: BTreeMap::new(),
            broken: BTreeMap::new(),
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("nobody panics while it holds this")
    }

    /// What a process on a machine sees of it.
    pub fn place(&self, host: Host) -> Arc<Place> {
        Arc::new(Place { net: self.clone(), host })
    }

    /// How many machines there are.
    pub fn machines(&self) -> usize {
        self.state().hosts.len()
    }

    /// The address of a machine.
    pub fn address(&self, host: Host) -> IpAddr {
        self.state().hosts[host].address
    }

    /// Gives a machine another address; its name leads there.
    pub fn move_to(&self, host: Host, address: IpAddr) {
        let mut state = self.state();
        let machine = &mut state.hosts[host];
        machine.address = address;
        let name = machine.name.clone();
        state.names.insert(name, address);
    }

    /// Changes one way between two machines. What a cut has held up is sent again when the cut ends. What waits for a
    /// narrow link leaves when the link gets wider.
    pub fn change(&self, from: Host, to: Host, change: impl FnOnce(&mut Link)) {
        let mut state = self.state();
        let link = state.links.get_mut(&(from, to)).expect("both are there");
        let before = *link;
        change(link);
        let after = *link;
        match (before.is_cut, after.is_cut) {
            (false, true) => state.hold(from, to),
            (true, false) => state.send_again(from, to),
            (false, false) if after.is_wider_than(&before) => state.hasten(from, to),
            _ => {}
        }
    }

    /// How one way between two machines is.
    pub fn link(&self, from: Host, to: Host) -> Link {
        self.state().links[&(from, to)]
    }

    /// Breaks the connections between two machines, each with this chance, in the middle of what is under way.
    pub fn reset(&self, one: Host, other: Host, chance: f64) {
        let mut state = self.state();
        let now = state.timeline.now();
        state.broken.extend([((one, other), now), ((other, one), now)]);
        let between = |ends: &[End; 2]| {
            [(one, other), (other, one)].contains(&(ends[0].host, ends[1].host))
                && ends.iter().all(|end| end.state == Held::Open)
        };
        let found: Vec<usize> =
            (0..state.connections.len()).filter(|place| between(&state.connections[*place].ends)).collect();
        for place in found {
            if state.random.random_bool(chance) {
                state.break_off(place);
            }
        }
    }

    /// When connections between two machines were last broken; 0: never.
    pub fn broken(&self, one: Host, other: Host) -> Time {
        self.state().broken.get(&(one, other)).copied().unwrap_or(0)
    }

    /// How names are answered to a machine from now on.
    pub fn resolve(&self, host: Host, resolver: Resolver) {
        let mut state = self.state();
        let now = state.timeline.now();
        let host = &mut state.hosts[host];
        if let Resolver::Late(takes) = std::mem::replace(&mut host.resolver, resolver) {
            host.late_until = host.late_until.max(now + takes);
        }
    }

    /// Whether names are answered to a machine at once, and rightly: a look-up that was asked before is still answered
    /// late.
    pub fn resolves_well(&self, host: Host) -> bool {
        let state = self.state();
        let host = &state.hosts[host];
        host.resolver == Resolver::Well && host.late_until <= state.timeline.now()
    }

    /// The power of a machine goes, or comes back.
    pub fn power(&self, host: Host, is_on: bool) {
        let mut state = self.state();
        state.hosts[host].is_on = is_on;
        let places: Vec<usize> = (0..state.connections.len()).collect();
        for place in places {
            for side in 0..2 {
                let end = &mut state.connections[place].ends[side];
                if end.host == host && end.state == Held::Open && !is_on {
                    end.state = Held::Forgotten;
                }
                if end.host == host && end.state == Held::Forgotten && is_on {
                    state.answer_for_nobody(place, side);
                }
            }
        }
    }

    /// The process on a machine ends: its kernel closes its connections, in the order in which they were made. Its tasks
    /// would close them in the order in which tokio drops tasks, which depends on how many the whole program had before.
    pub fn end_process(&self, host: Host) {
        let mut state = self.state();
        for place in 0..state.connections.len() {
            for side in 0..2 {
                if state.connections[place].ends[side].host == host {
                    state.close(place, side);
                }
            }
        }
    }

    /// How many ends of connections a machine's processes have.
    pub fn open(&self, host: Host) -> usize {
        let state = self.state();
        let ends = state.connections.iter().flat_map(|connection| connection.ends);
        ends.filter(|end| end.host == host && end.state == Held::Open).count()
    }
}

impl State {
    /// When so many bytes that leave now arrive.
    fn arrival(&mut self, from: Host, to: Host, bytes: usize) -> Time {
        let now = self.timeline.now();
        if !self.hosts[to].is_on || !self.hosts[from].is_on {
            return NEVER;
        }
        let link = self.links.get_mut(&(from, to)).expect("both are there");
        if link.is_cut {
            return NEVER;
        }
        let leaves = link.free_at.max(now);
        let gone = leaves + (bytes as u64).checked_div(link.bandwidth).unwrap_or(0);
        link.free_at = gone;
        let jitter = if link.jitter > 0 { self.random.random_range(0..=link.jitter) } else { 0 };
        gone + link.latency + jitter
    }

    /// When what has no size arrives.
    fn news(&mut self, from: Host, to: Host) -> Time {
        self.arrival(from, to, 0)
    }

    /// What is under way on a link is lost until it is sent again.
    fn hold(&mut self, from: Host, to: Host) {
        let now = self.timeline.now();
        for connection in &mut self.connections {
            for side in 0..2 {
                if (connection.ends[side].host, connection.ends[1 - side].host) != (from, to) {
                    continue;
                }
                let pipe = &mut connection.pipes[side];
                for chunk in pipe.chunks.iter_mut().filter(|chunk| chunk.arrives > now) {
                    chunk.arrives = NEVER;
                }
                pipe.end = pipe.end.map(|at| if at > now { NEVER } else { at });
                // Nobody sends a reset again.
                if pipe.reset.is_some_and(|at| at > now) {
                    pipe.reset = None;
                    pipe.is_lost = true;
                }
            }
        }
    }

    /// What waits for a link leaves at the link's present rate.
    fn hasten(&mut self, from: Host, to: Host) {
        let now = self.timeline.now();
        self.links.get_mut(&(from, to)).expect("both are there").free_at = now;
        for place in 0..self.connections.len() {
            for side in 0..2 {
                let ends = &self.connections[place].ends;
                if (ends[side].host, ends[1 - side].host) != (from, to) {
                    continue;
                }
                let mut last = now;
                for chunk in 0..self.connections[place].pipes[side].chunks.len() {
                    let Chunk { arrives, ref bytes, .. } = self.connections[place].pipes[side].chunks[chunk];
                    let bytes = bytes.len();
                    if (now + 1..NEVER).contains(&arrives) {
                        let arrives = arrives.min(self.arrival(from, to, bytes)).max(last);
                        self.connections[place].pipes[side].chunks[chunk].arrives = arrives;
                        last = arrives;
                    }
                }
                let news = self.news(from, to);
                let pipe = &mut self.connections[place].pipes[side];
                pipe.last = pipe.last.min(last);
                pipe.end = pipe.end.map(|at| if (now + 1..NEVER).contains(&at) { at.min(news).max(last) } else { at });
                wake(&mut pipe.reader);
            }
        }
    }

    /// What was held up on a link is under way again.
    fn send_again(&mut self, from: Host, to: Host) {
        for place in 0..self.connections.len() {
            for side in 0..2 {
                let ends = &self.connections[place].ends;
                if (ends[side].host, ends[1 - side].host) == (from, to) {
                    self.release(place, side);
                }
            }
        }
    }

    fn release(&mut self, place: usize, side: usize) {
        let ends = self.connections[place].ends;
        let pipe = &self.connections[place].pipes[side];
        let is_held = pipe.chunks.back().is_some_and(|chunk| chunk.arrives == NEVER) || pipe.end == Some(NEVER);
        if !is_held || ends[side].state == Held::Forgotten {
            return;
        }
        if ends[1 - side].state != Held::Open {
            self.answer_for_nobody(place, 1 - side);
        }
        let arrives = self.arrival(ends[side].host, ends[1 - side].host, 0);
        if arrives == NEVER {
            return;
        }
        let arrives = arrives + self.random.random_range(0..RETRANSMISSION);
        let pipe = &mut self.connections[place].pipes[side];
        pipe.last = pipe.last.max(arrives);
        let last = pipe.last;
        for chunk in pipe.chunks.iter_mut().filter(|chunk| chunk.arrives == NEVER) {
            chunk.arrives = last;
        }
        pipe.end = pipe.end.map(|at| if at == NEVER { last } else { at });
        wake(&mut pipe.reader);
    }

    /// An end that nobody has was written to: its kernel says so.
    fn answer_for_nobody(&mut self, place: usize, nobody: usize) {
        let ends = self.connections[place].ends;
        let unread = self.connections[place].pipes[1 - nobody].bytes > 0;
        if ends[1 - nobody].state != Held::Open || !unread {
            return;
        }
        let there = self.news(ends[1 - nobody].host, ends[nobody].host);
        let back = self.news(ends[nobody].host, ends[1 - nobody].host);
        if there == NEVER || back == NEVER {
            return;
        }
        let now = self.timeline.now();
        self.tell_reset(place, nobody, there - now + back);
    }

    /// The news that a connection is broken leaves one end.
    fn tell_reset(&mut self, place: usize, by: usize, arrives: Time) {
        let connection = &mut self.connections[place];
        let pipe = &mut connection.pipes[by];
        if arrives == NEVER {
            pipe.is_lost = true;
            return;
        }
        pipe.reset.get_or_insert(arrives);
        wake(&mut pipe.reader);
        wake(&mut connection.pipes[1 - by].writer);
    }

    /// Breaks a connection where it is: both ends are told, and of what is under way a part arrives.
    fn break_off(&mut self, place: usize) {
        let now = self.timeline.now();
        for side in 0..2 {
            let until = now + self.random.random_range(0..=2 * WINDOW);
            let cut = self.random.random_range(0.0..1.0);
            let pipe = &mut self.connections[place].pipes[side];
            pipe.chunks.retain(|chunk| chunk.arrives <= until);
            if let Some(last) = pipe.chunks.back_mut().filter(|last| last.arrives > now) {
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a part of a length")]
                let keep = (last.bytes.len() as f64 * cut) as usize;
                last.bytes.truncate(keep.max(last.read));
            }
            pipe.bytes = pipe.chunks.iter().map(|chunk| chunk.bytes.len() - chunk.read).sum();
            pipe.end = None;
            self.tell_reset(place, side, until);
        }
    }
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}
