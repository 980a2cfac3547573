//! What must hold, and is looked at all along.

use std::collections::BTreeMap;

use rafthttp::{
    Limits, MemberId, PeerStatus, TransportStatus,
    metrics::Channel,
    node::{Node, Role},
};

use super::{clock::Time, member::Member, network::Net};

/// How long it may take until a peer is seen as it is, in milliseconds.
const TRUTH: Time = 1800;

/// What was seen so far.
#[derive(Default)]
pub struct Oracles {
    /// Who led in each term.
    leaders: BTreeMap<u64, String>,
    /// The last commit of each process, by member and start.
    commits: BTreeMap<(usize, Time), u64>,
    /// How a member could reach another, and since when.
    paths: BTreeMap<(usize, usize), (Reach, Time)>,
    /// What each member's peers are by ID.
    hosts: BTreeMap<u64, usize>,
    /// Since when a process has had a peer of this ID.
    peers: BTreeMap<(usize, Time, u64), Time>,
}

/// A path between two processes, what closes it, and when they were started. What was asked before a process stood still
/// is answered once it goes on: that it could not be reached then, and cannot be now for another reason, is not one spell.
type Reach = (Path, [bool; 4], [Option<Time>; 2]);

/// What a member's transport says of itself. It is asked once a look: an answer is a copy of all that is counted.
struct Said<'a> {
    member: &'a Member,
    node: Node,
    id: MemberId,
    since: Time,
    status: TransportStatus,
}

impl<'a> Said<'a> {
    /// `None` if the member does not run.
    fn of(member: &'a Member) -> Option<Self> {
        let (node, running) = (member.node()?, member.running.as_ref()?);
        let status = running.process.within(|| node.transport().status());
        Some(Self { member, id: node.raft_status().id, since: running.since, node, status })
    }

    /// What it knows of another.
    fn peer(&self, other: &Said<'_>) -> Option<&PeerStatus> {
        self.status.peers.iter().find(|peer| peer.id == other.id && peer.is_peer())
    }
}

/// How one member's question comes to another and back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Path {
    Open,
    Closed,
    /// Whether it gets through in time is not said.
    Unclear,
}

impl Oracles {
    /// Looks at every member that runs.
    pub fn look(&mut self, now: Time, members: &[Member], net: &Net, lost_a_disk: bool) -> Result<(), String> {
        self.note_paths(now, members, net);
        let all: Vec<Said<'_>> = members.iter().filter_map(Said::of).collect();
        for said in &all {
            self.hosts.insert(said.id.0, said.member.host);
            self.raft(said.member, said.since, &said.node, lost_a_disk)?;
            ledger(&said.member.name, &said.status)?;
            self.reachable(now, said, net)?;
        }
        losses(&all).map(drop)
    }

    /// Whether every message that was sent on a stream was read or is counted as lost, as far as [`losses`] knows.
    pub fn losses_are_settled(members: &[Member]) -> Result<bool, String> {
        losses(&members.iter().filter_map(Said::of).collect::<Vec<_>>())
    }

    /// One leader a term; what is committed stays; nobody has halted.
    fn raft(&mut self, member: &Member, since: Time, node: &Node, lost_a_disk: bool) -> Result<(), String> {
        let (status, name) = (node.raft_status(), &member.name);
        if status.role == Role::Leader {
            let other = self.leaders.entry(status.term).or_insert_with(|| name.clone());
            if other != name {
                return Err(format!("{other} and {name} both led in term {}", status.term));
            }
        }
        if status.applied > status.commit {
            return Err(format!("{name} has applied {} and committed {}", status.applied, status.commit));
        }
        let halted = status.halted.as_ref().filter(|_| !member.is_doubtful && !member.is_leaving);
        if let Some(why) = halted.or(status.two_histories.as_ref().filter(|_| !lost_a_disk)) {
            return Err(format!("{name} has halted: {why}"));
        }
        // Once its disk is well again, it begins with what that has, as after a start.
        if status.suspended.is_some() {
            self.commits.remove(&(member.host, since));
            return Ok(());
        }
        let commit = self.commits.entry((member.host, since)).or_default();
        if *commit > status.commit {
            return Err(format!("{name} had committed {commit}, and now {}", status.commit));
        }
        *commit = status.commit;
        Ok(())
    }

    /// Notes which questions of a prober get through.
    fn note_paths(&mut self, now: Time, members: &[Member], net: &Net) {
        for from in members {
            for to in members.iter().filter(|to| to.host != from.host) {
                let started = [from, to].map(|member| member.running.as_ref().map(|running| running.since));
                let path = (path(from, to, net), closed(from, to, net), started);
                let noted = self.paths.entry((from.host, to.host)).or_insert((path, now));
                if noted.0 != path {
                    *noted = (path, now);
                }
            }
        }
    }

    /// Whether `peer_reachable` tells the truth.
    fn reachable(&mut self, now: Time, said: &Said<'_>, net: &Net) -> Result<(), String> {
        let member = said.member;
        for peer in said.status.peers.iter().filter(|peer| peer.is_peer()) {
            let Some(other) = self.hosts.get(&peer.id.0) else { continue };
            let Some(((path, ..), since)) = self.paths.get(&(member.host, *other)) else { continue };
            let is_wrong = match path {
                Path::Open => peer.link.reachable != Some(true),
                Path::Closed => peer.link.reachable == Some(true),
                Path::Unclear => false,
            };
            let known = *self.peers.entry((member.host, said.since, peer.id.0)).or_insert(now);
            let since = (*since).max(known).max(net.broken(member.host, *other));
            if is_wrong && now - since > TRUTH {
                let (name, other) = (&member.name, &peer.name);
                let said = peer.link.reachable;
                return Err(format!(
                    "{name} says of {other} that it is reachable: {said:?}, and it is {path:?} for {} ms",
                    now - since
                ));
            }
        }
        Ok(())
    }
}

/// What was sent on streams, and what became of it, for each two processes that live since the beginning: what was
/// read and what was lost are no more than what was sent. Says whether they are just as much.
fn losses(all: &[Said<'_>]) -> Result<bool, String> {
    let mut is_settled = true;
    let lives = |said: &&Said<'_>| said.member.starts == 1;
    for writer in all.iter().filter(lives) {
        for reader in all.iter().filter(lives).filter(|reader| reader.id != writer.id) {
            let (Some(to), Some(from)) = (writer.peer(reader), reader.peer(writer)) else { continue };
            for channel in [Channel::MsgApp, Channel::Message] {
                let kind = channel.stream().expect("it is one of a stream");
                let (sent, lost) = (to.outgoing.sent[channel].total(), to.outgoing.lost[kind]);
                let read = from.incoming.received[channel].total();
                if read + lost > sent {
                    let (writer, reader) = (&writer.member.name, &reader.member.name);
                    return Err(format!(
                        "{writer} has sent {reader} {sent} messages on {channel:?}, of which {read} were read and {lost} lost"
                    ));
                }
                is_settled &= read + lost == sent;
            }
        }
    }
    Ok(is_settled)
}

fn is_frozen(member: &Member) -> bool {
    member.running.as_ref().is_some_and(|running| running.frozen_until.is_some())
}

/// What closes a path: there is no process, it stands still, nothing gets there, or nothing comes back.
fn closed(from: &Member, to: &Member, net: &Net) -> [bool; 4] {
    let is_cut = |from: &Member, to: &Member| net.link(from.host, to.host).is_cut;
    [to.running.is_none(), is_frozen(to), is_cut(from, to), is_cut(to, from)]
}

fn path(from: &Member, to: &Member, net: &Net) -> Path {
    let serves = |member: &Member| member.running.as_ref().is_some_and(|running| running.node().is_some());
    if !serves(from) || is_frozen(from) || from.is_doubtful || to.is_doubtful || !net.resolves_well(from.host) {
        return Path::Unclear;
    }
    // A process that is about to start, or is half stopped, may answer or not.
    if closed(from, to, net).contains(&true) {
        return Path::Closed;
    }
    let (there, back) = (net.link(from.host, to.host), net.link(to.host, from.host));
    let is_quick = |link: super::network::Link| link.latency + link.jitter <= 50 && link.bandwidth == 0;
    if serves(to) && is_quick(there) && is_quick(back) { Path::Open } else { Path::Unclear }
}

/// The laws of the ledger, and the bounds of the queues.
fn ledger(name: &str, status: &TransportStatus) -> Result<(), String> {
    let limits = Limits::default();
    for peer in &status.peers {
        let PeerStatus { outgoing, incoming, .. } = peer;
        if !outgoing.balances() {
            return Err(format!("{name}'s ledger of what goes to {} does not balance: {outgoing:?}", peer.name));
        }
        if !incoming.balances() {
            return Err(format!("{name}'s ledger of what comes from {} does not balance: {incoming:?}", peer.name));
        }
        for (channel, queued) in outgoing.queued.iter() {
            let bound = match channel {
                Channel::MsgApp | Channel::Message => limits.stream_queue,
                Channel::Pipeline => limits.pipeline_queue + 4,
                Channel::Snapshot => limits.snapshots,
                other => return Err(format!("{name} queues messages on {other:?}, of which no bound is known here")),
            };
            if *queued > bound as u64 {
                return Err(format!("{name} has {queued} messages to {} in the queue of {channel:?}", peer.name));
            }
        }
        if incoming.waiting > 2 * limits.receive_queue as u64 + 512 {
            return Err(format!("{name} has {} messages of {} waiting", incoming.waiting, peer.name));
        }
    }
    let strangers = status.strangers.as_ref().is_none_or(|strangers| strangers.balances());
    let others = status.others.as_ref().is_none_or(|others| others.balances());
    if !strangers || !others {
        return Err(format!("{name}'s ledger of others does not balance"));
    }
    Ok(())
}
