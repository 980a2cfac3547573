//! How each kind of fault begins, and how it ends.

use rafthttp::node::InitialClusterState;
use rand::{RngExt as _, seq::IndexedRandom as _};

use super::{
    clock::Time,
    memory_disk::MemoryDisk,
    network::{Link, Resolver},
    operator::{Done, replace},
    plan::Kind,
    run::Simulation,
};

/// What ends a fault.
#[derive(Debug)]
pub enum Ending {
    Start(usize),
    Thaw(usize),
    Heal,
    QuickenLinks,
    MakeRoom(usize),
    Resolve(usize),
    /// A member that lost its disk has been refused by now: it is taken out, and added anew.
    TakeOut(usize),
}

impl Simulation {
    /// Brings a fault of one of the kinds about.
    pub fn bring(&mut self) {
        let kind = *self.plan.kinds.choose(&mut self.random).expect("there are some");
        let victim = self.victim();
        match kind {
            Kind::Kill | Kind::PowerLoss | Kind::PowerAtWrite | Kind::Blackout | Kind::Freeze => {
                self.stop_a_process(kind, victim);
            }
            Kind::CutPair | Kind::CutOneWay | Kind::Isolate | Kind::Part | Kind::Reset | Kind::Slow => {
                self.harm_the_network(kind, victim);
            }
            Kind::ClockJump => {
                let by = self.random.random_range(-3_600_000..3_600_000);
                self.say(&format!("{}'s clock jumps by {by} ms", self.members[victim].name));
                *self.members[victim].clock.lock().expect("nobody panics while it holds this") += by;
            }
            Kind::FullDisk => {
                self.say(&format!("{}'s disk is full", self.members[victim].name));
                self.members[victim].disk.fill();
                self.later(Ending::MakeRoom(victim));
            }
            Kind::FailedSync => {
                self.say(&format!("{}'s next sync fails", self.members[victim].name));
                self.members[victim].disk.fail_a_sync();
            }
            Kind::Names => {
                let other = self.random.random_range(0..self.members.len());
                let late = self.random.random_range(100..3000);
                let resolver = [Resolver::Late(late), Resolver::Broken, Resolver::Wrong(other)];
                let resolver = *resolver.choose(&mut self.random).expect("some");
                self.say(&format!("names are answered to {} so: {resolver:?}", self.members[victim].name));
                self.around.net.resolve(victim, resolver);
                self.later(Ending::Resolve(victim));
            }
            Kind::Wiped | Kind::RolledBack => self.lose_a_disk(kind, victim),
        }
    }

    /// The leader half of the time.
    fn victim(&mut self) -> usize {
        let leads = self.members.iter().position(|member| self.leads(member));
        match leads {
            Some(leader) if self.random.random_bool(0.5) => leader,
            _ => self.random.random_range(0..self.members.len()),
        }
    }

    fn stop_a_process(&mut self, kind: Kind, victim: usize) {
        let name = self.members[victim].name.clone();
        if self.members[victim].running.is_none() || self.members[victim].is_doubtful {
            return;
        }
        match kind {
            Kind::Freeze => {
                self.say(&format!("{name} stands still"));
                let until = self.now() + self.lasts();
                let running = self.members[victim].running.as_mut().expect("it runs");
                running.process.freeze();
                running.frozen_until = Some(until);
                self.at(until, Ending::Thaw(victim));
            }
            Kind::PowerAtWrite => {
                let (changes, seed) = (self.random.random_range(0..120), self.random.random());
                self.say(&format!("{name}'s power goes {changes} changes of its disk from now"));
                self.members[victim].running.as_ref().expect("it runs").disk.lose_power_after(changes, seed);
            }
            Kind::Blackout => {
                for place in 0..self.members.len() {
                    if !self.members[place].is_doubtful {
                        self.lose_power(place);
                    }
                }
            }
            Kind::PowerLoss => self.lose_power(victim),
            _ => {
                self.say(&format!("{name} is killed"));
                self.members[victim].kill();
                self.later(Ending::Start(victim));
            }
        }
    }

    /// The power of a member's machine goes.
    pub fn lose_power(&mut self, place: usize) {
        if self.members[place].running.is_none() {
            return;
        }
        self.say(&format!("{}'s power goes", self.members[place].name));
        let seed = self.random.random();
        let around = self.around.clone();
        self.members[place].lose_power(&around, seed);
        self.later(Ending::Start(place));
    }

    fn harm_the_network(&mut self, kind: Kind, victim: usize) {
        let others: Vec<usize> = (0..self.members.len()).filter(|other| *other != victim).collect();
        let other = *others.choose(&mut self.random).expect("two members");
        let name = |place: usize| self.members[place].name.clone();
        let (one, two) = (name(victim), name(other));
        match kind {
            Kind::CutPair => {
                self.say(&format!("nothing goes between {one} and {two}"));
                self.cut(&[(victim, other), (other, victim)]);
            }
            Kind::CutOneWay => {
                self.say(&format!("nothing goes from {one} to {two}"));
                self.cut(&[(victim, other)]);
            }
            Kind::Isolate => {
                let (to, from) = *[(true, true), (true, false), (false, true)].choose(&mut self.random).expect("some");
                self.say(&format!("{one} is alone: nothing comes to it: {to}, nothing from it: {from}"));
                let hosts = 0..=self.members.len();
                for other in hosts.filter(|other| *other != victim) {
                    let ways = [(other, victim), (victim, other)];
                    ways.into_iter()
                        .zip([to, from])
                        .filter(|(_, is_cut)| *is_cut)
                        .for_each(|(way, _)| self.cut(&[way]));
                }
            }
            Kind::Part => {
                let sides: Vec<bool> = self.members.iter().map(|_| self.random.random_bool(0.5)).collect();
                self.say(&format!("the members are parted: {sides:?}"));
                for from in 0..sides.len() {
                    for to in (0..sides.len()).filter(|to| sides[*to] != sides[from]) {
                        self.cut(&[(from, to)]);
                    }
                }
            }
            Kind::Reset => {
                let chance = *[0.2, 0.5, 1.0].choose(&mut self.random).expect("some");
                self.say(&format!("connections between {one} and {two} break, each by {chance}"));
                self.around.net.reset(victim, other, chance);
                return;
            }
            _ => self.slow_down(victim, &others),
        }
        self.later(Ending::Heal);
    }

    fn slow_down(&mut self, victim: usize, others: &[usize]) {
        let (latency, jitter) = (self.random.random_range(5..300), self.random.random_range(0..200));
        let bandwidth = *[0, 1, 5, 50].choose(&mut self.random).expect("some");
        let name = &self.members[victim].name;
        self.say(&format!("{name}'s links have {latency} ms, up to {jitter} more, and {bandwidth} kB/s"));
        for other in others {
            for (from, to) in [(victim, *other), (*other, victim)] {
                self.around.net.change(from, to, |link| {
                    *link = Link { latency, jitter, bandwidth, ..*link };
                });
            }
        }
        self.later(Ending::QuickenLinks);
    }

    fn cut(&self, ways: &[(usize, usize)]) {
        for (from, to) in ways {
            self.around.net.change(*from, *to, |link| link.is_cut = true);
        }
    }

    /// A member comes back without its disk, or on a copy of before its last start. One at a time: a cluster that loses
    /// more is beyond what is promised.
    fn lose_a_disk(&mut self, kind: Kind, victim: usize) {
        let is_well = |member: &super::member::Member| member.running.as_ref().is_some_and(|running| running.is_known);
        if !self.members.iter().all(|member| !member.is_doubtful && is_well(member)) {
            return;
        }
        let member = &self.members[victim];
        let name = member.name.clone();
        let copy = match kind {
            Kind::Wiped => MemoryDisk::default(),
            _ => match self.copies.get(&victim) {
                Some(copy) => copy.after_a_loss_of_power(),
                None => {
                    // It is started anew, so that what was kept is of an older start.
                    self.say(&format!("{name}'s disk is copied, and it is killed"));
                    self.members[victim].kill();
                    self.copies.insert(victim, self.members[victim].disk.torn(0));
                    self.later(Ending::Start(victim));
                    return;
                }
            },
        };
        self.say(&format!("{name} comes back on another disk: {kind:?}"));
        self.lost_a_disk = true;
        self.members[victim].kill();
        self.copies.remove(&victim);
        let around = self.around.clone();
        let member = &mut self.members[victim];
        member.disk = copy;
        member.is_doubtful = true;
        member.start(&around);
        let until = self.now() + self.random.random_range(1000..6000);
        self.at(until, Ending::TakeOut(victim));
    }

    /// Ends what a fault began.
    pub fn end(&mut self, ending: Ending) {
        let around = self.around.clone();
        match ending {
            Ending::Start(place) => {
                if self.members[place].running.is_none() && !self.members[place].is_doubtful {
                    self.members[place].start(&around);
                }
            }
            Ending::Thaw(place) => {
                if let Some(running) = &mut self.members[place].running
                    && running.frozen_until.is_some_and(|until| until <= around.timeline.now())
                {
                    running.frozen_until = None;
                    running.process.thaw();
                    self.say(&format!("{} goes on", self.members[place].name));
                }
            }
            Ending::Heal => {
                self.say("every cut ends");
                self.each_way(|link| link.is_cut = false);
            }
            Ending::QuickenLinks => {
                self.say("every link is quick again");
                self.each_way(|link| *link = Link { is_cut: link.is_cut, ..Link::default() });
            }
            Ending::MakeRoom(place) => {
                self.say(&format!("{}'s disk has room again", self.members[place].name));
                self.members[place].disk.make_room();
            }
            Ending::Resolve(place) => {
                self.say(&format!("names are answered to {} well", self.members[place].name));
                around.net.resolve(place, Resolver::Well);
            }
            Ending::TakeOut(place) => self.take_out(place),
        }
    }

    fn take_out(&mut self, place: usize) {
        let name = self.members[place].name.clone();
        self.say(&format!("{name} is taken out, and added anew"));
        self.members[place].kill();
        self.members[place].disk = MemoryDisk::default();
        let done = Done::default();
        let task = replace(self.asking.clone(), self.others_than(place), name, done.clone());
        self.clients.spawn(task);
        self.replaced.push((place, done));
    }

    /// Starts members that were added anew.
    pub fn start_replaced(&mut self) {
        let (ready, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.replaced).into_iter().partition(|(_, done)| done.is_done());
        self.replaced = rest;
        for (place, _) in ready {
            let around = self.around.clone();
            let member = &mut self.members[place];
            member.state = InitialClusterState::Existing;
            member.is_doubtful = false;
            member.start(&around);
        }
    }

    fn each_way(&self, mut change: impl FnMut(&mut Link)) {
        let hosts = self.members.len() + 1;
        for from in 0..hosts {
            for to in 0..hosts {
                self.around.net.change(from, to, &mut change);
            }
        }
    }

    /// Ends something after as long as a fault lasts.
    fn later(&mut self, ending: Ending) {
        let at = self.now() + self.lasts();
        self.at(at, ending);
    }

    fn lasts(&mut self) -> Time {
        self.random.random_range(0..self.plan.longest)
    }
}
