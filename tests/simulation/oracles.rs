//! What must hold, and is looked at all along.

use std::collections::{BTreeMap, BTreeSet};

use rafthttp::{
    Limits, PeerStatus, TransportStatus,
    metrics::Channel,
    node::{RaftStatus, Role},
};

use super::{clock::Time, laws, member::Member, network::Net};

mod streams;

use streams::{OPENING, Streams};

/// How long it may take until a peer is seen as it is, in milliseconds.
const TRUTH: Time = 1800;

/// What was seen so far.
#[derive(Default)]
pub struct Oracles {
    /// Who led in each term.
    leaders: BTreeMap<u64, String>,
    /// The last commit of each process, by member and start.
    commits: BTreeMap<(usize, Time), u64>,
    /// The highest term of each member, by machine and ID.
    terms: BTreeMap<(usize, u64), u64>,
    /// How a member could reach another, and since when.
    paths: BTreeMap<(usize, usize), (Reach, Time)>,
    /// Pairs of which the second stands still, and could be reached long enough before.
    frozen: BTreeSet<(usize, usize)>,
    /// What each member's peers are by ID.
    hosts: BTreeMap<u64, usize>,
    /// Since when a process has had a peer of this ID.
    peers: BTreeMap<(usize, Time, u64), Time>,
    streams: Streams,
}

/// A member that serves, and what it says of itself.
struct View<'a> {
    member: &'a Member,
    since: Time,
    raft: RaftStatus,
    transport: TransportStatus,
}

/// A path between two processes, what closes it, and when they were started. What was asked before a process stood still
/// is answered once it goes on: that it could not be reached then, and cannot be now for another reason, is not one spell.
type Reach = (Path, [bool; 4], [Option<Time>; 2]);

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
        let views = views(members);
        for view in &views {
            let of = |peer: &PeerStatus| ((view.member.host, view.since, peer.id.0), now);
            view.peers().map(of).for_each(|(peer, now)| {
                self.peers.entry(peer).or_insert(now);
            });
            self.hosts.insert(view.raft.id.0, view.member.host);
        }
        for view in &views {
            self.raft(view, lost_a_disk)?;
            let (name, said) = (&view.member.name, &view.transport);
            laws::ledgers(said)
                .and_then(|()| laws::queues(said, &Limits::default()))
                .map_err(|why| format!("{name}: {why}"))?;
            self.reachable(now, view, &views, net)?;
            for peer in view.peers() {
                let open_since = self.open_since(view, peer, &views, net);
                self.streams.reads(now, (view.member, view.since), peer, open_since)?;
            }
        }
        self.unconfirmed(now, &views, members, net)?;
        losses(&views).map(drop)
    }

    /// Since when two members can reach each other and have each other as peers; none: they cannot now.
    fn open_since(&self, view: &View<'_>, peer: &PeerStatus, views: &[View<'_>], net: &Net) -> Option<Time> {
        let (here, there) = (view.member.host, *self.hosts.get(&peer.id.0)?);
        let other = views.iter().find(|other| other.raft.id == peer.id && other.member.host == there)?;
        let open = |way| self.paths.get(&way).filter(|((path, ..), _)| *path == Path::Open).map(|(_, since)| *since);
        let knows = |of: &View<'_>, id| self.peers.get(&(of.member.host, of.since, id)).copied();
        let is_well =
            |one: &View<'_>| one.raft.halted.is_none() && one.raft.suspended.is_none() && !one.member.is_leaving;
        let spells = [
            open((here, there))?,
            open((there, here))?,
            knows(view, peer.id.0)?,
            knows(other, view.raft.id.0)?,
            net.broken(here, there),
        ];
        spells.into_iter().max().filter(|_| is_well(view) && is_well(other))
    }

    /// Whether each writer knows what of its messages is not read yet, where both processes live since the beginning.
    fn unconfirmed(&mut self, now: Time, views: &[View<'_>], members: &[Member], net: &Net) -> Result<(), String> {
        for writer in views.iter().filter(|view| view.member.starts == 1) {
            for reader in members.iter().filter(|other| other.starts == 1 && other.host != writer.member.host) {
                let view = views.iter().find(|view| view.member.host == reader.host);
                let id = self.hosts.iter().find(|(_, host)| **host == reader.host).map(|(id, _)| *id);
                let Some(to) = writer.peers().find(|peer| Some(peer.id.0) == id) else { continue };
                let from = view.and_then(|view| view.peer(writer));
                let since = self.open_since(writer, to, views, net);
                let is_open = from.is_some() && since.is_some_and(|since| now - since > OPENING);
                let is_frozen = self.frozen.contains(&(writer.member.host, reader.host));
                let is_known = is_open || is_frozen;
                self.streams.written(now, (writer.member, reader), (to, from), is_known)?;
            }
        }
        Ok(())
    }

    /// One leader a term; what is committed stays, and no term is forgotten; nobody has halted.
    fn raft(&mut self, view: &View<'_>, lost_a_disk: bool) -> Result<(), String> {
        let View { member, raft: status, since, .. } = view;
        let name = &member.name;
        if status.role == Role::Leader {
            let other = self.leaders.entry(status.term).or_insert_with(|| name.clone());
            if other != name {
                return Err(format!("{other} and {name} both led in term {}", status.term));
            }
            if member.is_doubtful {
                return Err(format!("{name}, which has lost its disk, leads in term {}", status.term));
            }
        }
        if status.applied > status.commit {
            return Err(format!("{name} has applied {} and committed {}", status.applied, status.commit));
        }
        if status.snapshots_overtaken > 0 {
            return Err(format!(
                "{name} has sent {} snapshots that were of no use: its log no longer had what comes after them",
                status.snapshots_overtaken
            ));
        }
        let halted = status.halted.as_ref().filter(|_| !member.is_doubtful && !member.is_leaving);
        if let Some(why) = halted.or(status.two_histories.as_ref().filter(|_| !lost_a_disk)) {
            return Err(format!("{name} has halted: {why}"));
        }
        let term = (member.host, status.id.0);
        // Once its disk is well again, it begins with what that has, as after a start.
        if status.suspended.is_some() {
            self.commits.remove(&(member.host, *since));
            self.terms.remove(&term);
            return Ok(());
        }
        let term = self.terms.entry(term).or_default();
        if *term > status.term && !member.is_doubtful {
            return Err(format!("{name} was in term {term}, and is in {}", status.term));
        }
        *term = status.term;
        let commit = self.commits.entry((member.host, *since)).or_default();
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
                    let was_open = noted.0.0 == Path::Open && now - noted.1 > OPENING;
                    let stands_still = path.1 == [false, true, false, false] && started == noted.0.2;
                    if was_open && stands_still {
                        self.frozen.insert((from.host, to.host));
                    } else {
                        self.frozen.remove(&(from.host, to.host));
                    }
                    *noted = (path, now);
                }
            }
        }
    }

    /// Whether `peer_reachable` tells the truth.
    fn reachable(&self, now: Time, view: &View<'_>, views: &[View<'_>], net: &Net) -> Result<(), String> {
        let member = view.member;
        for peer in view.peers() {
            let Some(other) = self.hosts.get(&peer.id.0) else { continue };
            let Some(((path, ..), since)) = self.paths.get(&(member.host, *other)) else { continue };
            // Who was removed and added anew is another member there.
            let is_there = views.iter().any(|view| view.member.host == *other && view.raft.id == peer.id);
            let is_wrong = match path {
                Path::Open => is_there && peer.link.reachable != Some(true),
                Path::Closed => peer.link.reachable == Some(true),
                Path::Unclear => false,
            };
            let known = self.peers.get(&(member.host, view.since, peer.id.0)).copied().unwrap_or(now);
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

impl View<'_> {
    fn peers(&self) -> impl Iterator<Item = &PeerStatus> {
        self.transport.peers.iter().filter(|peer| peer.is_peer())
    }

    /// What it knows of another.
    fn peer(&self, other: &View<'_>) -> Option<&PeerStatus> {
        self.peers().find(|peer| peer.id == other.raft.id)
    }
}

/// The members that serve now.
fn views(members: &[Member]) -> Vec<View<'_>> {
    let view = |member| {
        let (node, running) = (Member::node(member)?, Option::as_ref(&member.running)?);
        let (raft, transport) = running.process.within(|| (node.raft_status(), node.transport().status()));
        Some(View { member, since: running.since, raft, transport })
    };
    members.iter().filter_map(view).collect()
}

/// Whether all that was sent on streams between processes that live since the beginning was read or is lost.
pub fn is_settled(members: &[Member]) -> Result<bool, String> {
    losses(&views(members))
}

/// What was sent, and what became of it, for each two processes that live since the beginning: what was read and what was
/// lost are no more than what was sent, and no more was acknowledged than was read. Says whether they are just as much.
fn losses(views: &[View<'_>]) -> Result<bool, String> {
    let mut is_settled = true;
    let lives = |view: &&View<'_>| view.member.starts == 1;
    for writer in views.iter().filter(lives) {
        for reader in views.iter().filter(lives).filter(|reader| reader.member.host != writer.member.host) {
            let (Some(to), Some(from)) = (writer.peer(reader), reader.peer(writer)) else { continue };
            let (one, two) = (&writer.member.name, &reader.member.name);
            let counts = |channel| (to.outgoing.sent[channel].total(), from.incoming.received[channel].total());
            for channel in [Channel::MsgApp, Channel::Message] {
                let ((sent, read), lost) =
                    (counts(channel), to.outgoing.lost[channel.stream().expect("one of a stream")]);
                if read + lost > sent {
                    return Err(format!(
                        "{one} has sent {two} {sent} messages on {channel:?}, of which {read} were read and {lost} lost"
                    ));
                }
                is_settled &= read + lost == sent;
            }
            for channel in [Channel::Pipeline, Channel::Snapshot] {
                let (sent, read) = counts(channel);
                if sent > read {
                    return Err(format!(
                        "{two} has acknowledged {sent} messages of {one} on {channel:?}, and read {read}"
                    ));
                }
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
