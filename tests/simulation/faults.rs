//! The begin and the end of each kind of fault.

use rafthttp::node::InitialClusterState;
use rand::{RngExt as _, seq::IndexedRandom as _};

use super::{
    clock::Time,
    member::Member,
    memory_disk::MemoryDisk,
    network::{Link, Resolver},
    operator::{Job, Operator, Task},
    plan::Kind,
    run::Simulation,
};

/// The end of a fault, by what has to be done. The number is the member's index.
#[derive(Debug)]
pub enum Ending {
    Start(usize),
    Thaw(usize),
    Heal,
    QuickenLinks,
    MakeRoom(usize),
    Resolve(usize),
    /// A member that lost its disk was refused by the others. The operator removes it and adds it again.
    TakeOut(usize),
}

impl Simulation {
    /// Begins a fault of one of the plan's kinds.
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
            Kind::Added | Kind::Removed => self.change_the_members(kind, victim),
            Kind::Moved => self.move_to_another_address(victim),
            Kind::Stranger => self.let_a_stranger_speak(victim),
            Kind::Behind => self.let_fall_behind(victim),
        }
    }

    /// Picks the member for a fault. Half of the time it is the leader, which a random pick would seldom be.
    fn victim(&mut self) -> usize {
        let leads = self.members.iter().position(|member| self.leads(member));
        match leads {
            Some(leader) if self.random.random_bool(0.5) => leader,
            _ => {
                let stay: Vec<usize> = self.staying().map(|member| member.host).collect();
                *stay.choose(&mut self.random).expect("some stay")
            }
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
                    if !self.members[place].is_doubtful && !self.members[place].is_leaving {
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

    /// A member's machine loses its power.
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
                let hosts = 0..self.around.net.machines();
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

    /// Kills a member. It comes back later over links so slow that a snapshot takes seconds.
    fn let_fall_behind(&mut self, victim: usize) {
        if self.members[victim].running.is_none() || self.members[victim].is_doubtful {
            return;
        }
        let (latency, bandwidth) = (self.random.random_range(100..400), self.random.random_range(2..10));
        let name = &self.members[victim].name;
        self.say(&format!("{name} is killed, and comes back over links with {latency} ms and {bandwidth} kB/s"));
        self.members[victim].kill();
        for other in (0..self.around.net.machines()).filter(|other| *other != victim) {
            for (from, to) in [(victim, other), (other, victim)] {
                self.around.net.change(from, to, |link| *link = Link { latency, bandwidth, ..*link });
            }
        }
        self.later(Ending::Start(victim));
        let until = self.now() + self.plan.longest + self.random.random_range(2000..10_000);
        self.at(until, Ending::QuickenLinks);
    }

    fn cut(&self, ways: &[(usize, usize)]) {
        for (from, to) in ways {
            self.around.net.change(*from, *to, |link| link.is_cut = true);
        }
    }

    /// Whether no disk is lost, no member is joining or leaving, and all members serve. Only then may one more disk or
    /// member be lost, because a cluster does not promise to survive several at once.
    fn is_whole(&self) -> bool {
        let is_well = |member: &Member| {
            member.is_leaving
                || (!member.is_doubtful && member.running.as_ref().is_some_and(|running| running.is_known))
        };
        self.jobs.is_empty() && self.members.iter().all(is_well)
    }

    /// Whether a member has a vote. One that was added begins as a learner, but its status does not say so before it has
    /// applied its addition.
    fn has_a_vote(&self, member: &Member) -> bool {
        let status = |member: &Member| Some(member.running.as_ref()?.node()?.raft_status());
        let committed = self.staying().filter_map(status).map(|status| status.commit).max();
        member.host < self.plan.members
            || status(member).is_some_and(|status| !status.is_learner && Some(status.applied) >= committed)
    }

    /// Restarts a member on an empty disk, or on a copy from before its last start. One member at a time, because a
    /// cluster does not promise to survive more.
    fn lose_a_disk(&mut self, kind: Kind, victim: usize) {
        // In a cluster of two, every acknowledged write needs both disks. A learner does not count: it has no vote.
        let others = self.staying().filter(|member| member.host != victim && self.has_a_vote(member));
        if !self.is_whole() || others.count() < 2 {
            return;
        }
        let member = &self.members[victim];
        let name = member.name.clone();
        let copy = match kind {
            Kind::Wiped => MemoryDisk::default(),
            _ => match self.copies.get(&victim) {
                Some(copy) => copy.after_a_loss_of_power(),
                None => {
                    // It is restarted after the copy was made, so that the copy belongs to an older start.
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
                let member = &self.members[place];
                if member.running.is_none() && !member.is_doubtful && !member.is_leaving {
                    self.start(place);
                }
            }
            Ending::Thaw(place) => {
                if let Some(running) = &mut self.members[place].running
                    && running.frozen_until.is_some_and(|until| until <= around.timeline.now())
                {
                    running.frozen_until = None;
                    running.thawed = Some(around.timeline.now());
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
        self.ask_for(place, Task::Replace);
    }

    /// Adds or removes a member, unless another change is in progress.
    fn change_the_members(&mut self, kind: Kind, victim: usize) {
        if !self.is_whole() {
            return;
        }
        if kind == Kind::Removed {
            if self.staying().count() > 2 {
                self.say(&format!("{} is to be removed", self.members[victim].name));
                self.members[victim].is_leaving = true;
                self.ask_for(victim, Task::Remove);
            }
            return;
        }
        let (place, is_auto) = (self.members.len(), self.random.random_bool(0.5));
        if place + 1 >= self.around.net.machines() {
            return;
        }
        let mut member = Member::new(&format!("m{place}"), place, &[]);
        self.say(&format!("{} is to be added, by itself: {is_auto}", member.name));
        member.state = if is_auto { InitialClusterState::Auto } else { InitialClusterState::Existing };
        // Without `auto`, the operator has to add it before it can start.
        member.is_doubtful = !is_auto;
        self.members.push(member);
        if is_auto { self.start(place) } else { self.ask_for(place, Task::Add) }
    }

    /// Kills a member and gives its machine another address, with which it restarts.
    fn move_to_another_address(&mut self, victim: usize) {
        if self.members[victim].is_doubtful || self.members[victim].running.is_none() {
            return;
        }
        self.moves += 1;
        let address = std::net::Ipv4Addr::new(10, 0, 1, self.moves).into();
        self.say(&format!("{} moves to {address}", self.members[victim].name));
        self.members[victim].kill();
        self.around.net.move_to(victim, address);
        self.later(Ending::Start(victim));
    }

    fn ask_for(&mut self, place: usize, task: Task) {
        let hosts = self.staying().map(|member| member.host).filter(|host| *host != place).collect();
        let job = Job::new(place, task);
        let operator = Operator { asking: self.asking.clone(), hosts, name: self.members[place].name.clone() };
        self.clients.spawn(operator.work(job.clone()));
        self.jobs.push(job);
    }

    /// Takes the next step after each job that the operator has finished.
    pub fn follow_up(&mut self) {
        let (done, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut self.jobs).into_iter().partition(Job::is_done);
        self.jobs = rest;
        for Job { place, task, .. } in done {
            match task {
                Task::Replace | Task::Add => {
                    self.members[place].is_doubtful = false;
                    self.members[place].state = InitialClusterState::Existing;
                    self.start(place);
                    if task == Task::Add {
                        self.ask_for(place, Task::Promote);
                    }
                }
                // A removed member ends by itself only if it hears of its removal. The operator stops it in any case.
                Task::Remove => self.members[place].kill(),
                Task::Promote => {}
            }
        }
    }

    /// Starts a member. A member that joins gets the present members as its initial cluster.
    fn start(&mut self, place: usize) {
        if self.members[place].state != InitialClusterState::New {
            let stay = |member: &&Member| !member.is_doubtful || member.host == place;
            self.members[place].initial = self.staying().filter(stay).map(|member| member.name.clone()).collect();
        }
        let around = self.around.clone();
        self.members[place].start(&around);
    }

    fn each_way(&self, mut change: impl FnMut(&mut Link)) {
        let hosts = self.around.net.machines();
        for from in 0..hosts {
            for to in 0..hosts {
                self.around.net.change(from, to, &mut change);
            }
        }
    }

    /// Plans the end of a fault after a random time.
    fn later(&mut self, ending: Ending) {
        let at = self.now() + self.lasts();
        self.at(at, ending);
    }

    fn lasts(&mut self) -> Time {
        self.random.random_range(0..self.plan.longest)
    }
}
