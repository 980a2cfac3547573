//! A simulated network. It carries streams of bytes in order, as TCP does. A seed decides its faults.
//!
//! A link has latency, jitter, and a bandwidth that its streams share. It can be cut in one direction or both: nothing
//! gets through, and after the cut the bytes of that time are retransmitted. A connection can be reset, with bytes
//! still on their way.
//!
//! When a process ends, its connections are closed, as the kernel does. A machine without power sends nothing. So its
//! connections stay half open until the machine is back and gets a packet of such a connection. A frozen process can
//! still be dialled, because its kernel accepts connections.

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

/// A machine, as an index of the list of machines.
pub type Host = usize;

/// How long a member waits for the answer to a look-up, and how long it keeps one that came later, in milliseconds.
const LOOKUP_TIMEOUT: Time = 1000;
const LATE_KEPT: Time = 5000;

/// Later than every time.
const NEVER: Time = Time::MAX;
/// The most bytes that a connection buffers in each direction: about the value that Linux begins with.
const BUFFER: usize = 64 << 10;
/// The longest time from the end of a cut until a sender retransmits, in milliseconds.
const RETRANSMISSION: Time = 800;

/// The network. All clones are one network.
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
    /// When the connections between two machines were last reset.
    broken: BTreeMap<(Host, Host), Time>,
    /// When a cut of a link last ended.
    mended: BTreeMap<(Host, Host), Time>,
    names: BTreeMap<String, IpAddr>,
}

/// A machine on the network.
#[derive(Clone, Debug)]
struct Machine {
    name: String,
    address: IpAddr,
    is_on: bool,
    resolver: Resolver,
    /// Until when look-ups may be pending that began while the resolver was late.
    late_until: Time,
}

/// How a machine's resolver answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Resolver {
    /// At once, with the right address.
    #[default]
    Well,
    /// With the right address, after this many milliseconds.
    Late(Time),
    /// Not at all.
    Broken,
    /// With the address of this machine.
    Wrong(Host),
}

/// The link from one machine to another, in one direction.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    pub is_cut: bool,
    /// In milliseconds. It is at least one window, because the processes of a window run one after the other.
    pub latency: Time,
    /// The most that is added to the latency, in milliseconds.
    pub jitter: Time,
    /// In bytes per millisecond. 0 means no limit.
    pub bandwidth: u64,
    /// When the bytes that were sent before have left.
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
    /// The pipe at index 0 leads from end 0 to end 1, the other one back.
    pipes: [Pipe; 2],
}

#[derive(Clone, Copy, Debug)]
struct End {
    host: Host,
    state: Held,
}

/// The state of an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Held {
    /// A process has it.
    Open,
    /// No process has it. Its kernel answers data with a reset.
    Closed,
    /// The machine lost its power, and the other end does not know.
    Forgotten,
}

#[derive(Debug, Default)]
struct Pipe {
    chunks: VecDeque<Chunk>,
    bytes: usize,
    last: Time,
    /// When its end (FIN) arrives.
    end: Option<Time>,
    /// When the reset (RST) arrives.
    reset: Option<Time>,
    /// A reset was lost in a cut, or never sent by a machine without power. The reader of this pipe learns of it when
    /// it writes next.
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
    /// A network of machines with these names. The seed decides jitter, resets and retransmissions.
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
            mended: BTreeMap::new(),
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("nobody panics while it holds this")
    }

    /// The network as the processes of a machine see it.
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

    /// Gives a machine another address. Its name resolves to the new address.
    pub fn move_to(&self, host: Host, address: IpAddr) {
        let mut state = self.state();
        let machine = &mut state.hosts[host];
        machine.address = address;
        let name = machine.name.clone();
        state.names.insert(name, address);
    }

    /// Changes the link from one machine to another. When a cut ends, the bytes that it held up are retransmitted. When
    /// the bandwidth grows, waiting bytes leave at the new rate.
    pub fn change(&self, from: Host, to: Host, change: impl FnOnce(&mut Link)) {
        let mut state = self.state();
        let link = state.links.get_mut(&(from, to)).expect("both are there");
        let before = *link;
        change(link);
        let after = *link;
        match (before.is_cut, after.is_cut) {
            (false, true) => state.hold(from, to),
            (true, false) => {
                let now = state.timeline.now();
                state.mended.insert((from, to), now);
                state.send_again(from, to);
            }
            (false, false) if after.is_wider_than(&before) => state.hasten(from, to),
            _ => {}
        }
    }

    /// The link from one machine to another.
    pub fn link(&self, from: Host, to: Host) -> Link {
        self.state().links[&(from, to)]
    }

    /// Resets the connections between two machines, each with this probability. A part of the bytes on their way is
    /// lost.
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

    /// When the connections between two machines were last reset. 0 means never.
    pub fn broken(&self, one: Host, other: Host) -> Time {
        self.state().broken.get(&(one, other)).copied().unwrap_or(0)
    }

    /// When a cut between two machines, one way or the other, last ended; 0: never.
    pub fn mended(&self, one: Host, other: Host) -> Time {
        let state = self.state();
        [(one, other), (other, one)].iter().filter_map(|way| state.mended.get(way)).copied().max().unwrap_or(0)
    }

    /// Sets how a machine's resolver answers from now on.
    pub fn resolve(&self, host: Host, resolver: Resolver) {
        let mut state = self.state();
        let now = state.timeline.now();
        let host = &mut state.hosts[host];
        if let Resolver::Late(takes) = std::mem::replace(&mut host.resolver, resolver) {
            // A member keeps what came too late for whoever asked, for the next to find (`dial::resolver`).
            let kept = if takes >= LOOKUP_TIMEOUT { LATE_KEPT } else { 0 };
            host.late_until = host.late_until.max(now + takes + kept);
        }
    }

    /// Whether a machine's resolver answers at once, with the right address, and no earlier look-up is still pending, or
    /// was answered late a short time ago.
    pub fn resolves_well(&self, host: Host) -> bool {
        let state = self.state();
        let host = &state.hosts[host];
        host.resolver == Resolver::Well && host.late_until <= state.timeline.now()
    }

    /// Switches the power of a machine off or on.
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

    /// The process on a machine ends. Its connections are closed in the order in which they were made. If its tasks
    /// closed them, the order would be tokio's order of dropping tasks, which depends on how many tasks the program had
    /// before.
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

    /// The number of open ends of connections on a machine.
    pub fn open(&self, host: Host) -> usize {
        let state = self.state();
        let ends = state.connections.iter().flat_map(|connection| connection.ends);
        ends.filter(|end| end.host == host && end.state == Held::Open).count()
    }
}

impl State {
    /// When `bytes` arrive that are sent now. Takes up the link's bandwidth for them.
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

    /// When a packet without data arrives.
    fn news(&mut self, from: Host, to: Host) -> Time {
        self.arrival(from, to, 0)
    }

    /// The pipes of connections that carry bytes from one machine to another: the place of each connection, and the side.
    fn pipes(&self, from: Host, to: Host) -> Vec<(usize, usize)> {
        let all = self.connections.iter().enumerate().flat_map(|(place, connection)| {
            [0, 1].map(|side| ((place, side), (connection.ends[side].host, connection.ends[1 - side].host)))
        });
        all.filter(|(_, way)| *way == (from, to)).map(|(pipe, _)| pipe).collect()
    }

    /// A cut begins: the bytes on their way do not arrive until they are retransmitted.
    fn hold(&mut self, from: Host, to: Host) {
        let now = self.timeline.now();
        for (place, side) in self.pipes(from, to) {
            let pipe = &mut self.connections[place].pipes[side];
            for chunk in pipe.chunks.iter_mut().filter(|chunk| chunk.arrives > now) {
                chunk.arrives = NEVER;
            }
            pipe.end = pipe.end.map(|at| if at > now { NEVER } else { at });
            // TCP does not retransmit a reset.
            if pipe.reset.is_some_and(|at| at > now) {
                pipe.reset = None;
                pipe.is_lost = true;
            }
        }
    }

    /// Lets the bytes that wait for a link leave at its present rate.
    fn hasten(&mut self, from: Host, to: Host) {
        let now = self.timeline.now();
        let is_on_its_way = |at: Time| (now + 1..NEVER).contains(&at);
        self.links.get_mut(&(from, to)).expect("both are there").free_at = now;
        for (place, side) in self.pipes(from, to) {
            let mut chunks = std::mem::take(&mut self.connections[place].pipes[side].chunks);
            let mut last = now;
            for chunk in chunks.iter_mut().filter(|chunk| is_on_its_way(chunk.arrives)) {
                last = chunk.arrives.min(self.arrival(from, to, chunk.bytes.len())).max(last);
                chunk.arrives = last;
            }
            let news = self.news(from, to);
            let pipe = &mut self.connections[place].pipes[side];
            pipe.chunks = chunks;
            pipe.last = pipe.last.min(last);
            pipe.end = pipe.end.map(|at| if is_on_its_way(at) { at.min(news).max(last) } else { at });
            pipe.reset = pipe.reset.map(|at| if at > now { at.min(news) } else { at });
            wake(&mut pipe.reader);
        }
    }

    /// Retransmits the bytes that a cut has held up on a link.
    fn send_again(&mut self, from: Host, to: Host) {
        for (place, side) in self.pipes(from, to) {
            self.release(place, side);
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

    /// Data came for an end that no process has: the kernel there answers with a reset.
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

    /// One end sends a reset, which arrives at `arrives`.
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

    /// Resets a connection at both ends. A part of the bytes on their way arrives.
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
