//! Invariants that are checked during the whole run.

use std::collections::{BTreeMap, BTreeSet};

use rafthttp::{
    Limits, PeerStatus, TransportStatus,
    metrics::Channel,
    node::{RaftStatus, Role},
};

use super::{clock::Time, laws, member::Member, network::Net};

mod streams;

use streams::{OPENING, Streams};

/// The longest time until `peer_reachable` shows that a path has opened or closed, in milliseconds.
const TRUTH: Time = 1800;

/// The observations so far.
#[derive(Default)]
pub struct Oracles {
    /// The leader of each term.
    leaders: BTreeMap<u64, String>,
    /// The last commit index of each process, by machine and start.
    commits: BTreeMap<(usize, Time), u64>,
    /// The highest term of each member, by machine and ID.
    terms: BTreeMap<(usize, u64), u64>,
    /// Whether a member can reach another, and since when.
    paths: BTreeMap<(usize, usize), (Reach, Time)>,
    /// Pairs whose second member is frozen, and was reachable for long enough before that.
    frozen: BTreeSet<(usize, usize)>,
    /// The machine of each member ID.
    hosts: BTreeMap<u64, usize>,
    /// When a process first had a peer with this ID, by machine, start and ID.
    peers: BTreeMap<(usize, Time, u64), Time>,
    streams: Streams,
}

/// A member that serves or stands still, and its own status.
struct View<'a> {
    member: &'a Member,
    since: Time,
    raft: RaftStatus,
    transport: TransportStatus,
}

/// The state of a path between two processes, the reasons why it is closed, and when each process started and last went
/// on after it was frozen. A change of the reason begins a new spell, even if the path stays closed. A frozen process
/// answers old probes when it goes on. So the peer may look reachable for a moment, although another reason closes the
/// path by then.
type Reach = (Path, [bool; 4], [Option<(Time, Option<Time>)>; 2]);

/// Whether a probe gets from one member to another and its answer back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Path {
    Open,
    Closed,
    /// It may or may not get through in time.
    Unclear,
}

impl Oracles {
    /// Checks every member that serves.
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

    /// When the present time began in which two members can reach each other and have each other as peers. `None` if
    /// they cannot, or have not.
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

    /// Checks the number of messages that each writer counts as sent and not yet read. Only for pairs whose processes
    /// were never restarted, because a restart begins the counts anew.
    fn unconfirmed(&mut self, now: Time, views: &[View<'_>], members: &[Member], net: &Net) -> Result<(), String> {
        let still: Vec<_> = members.iter().filter(|member| is_frozen(member)).filter_map(view).collect();
        for writer in views.iter().filter(|view| view.member.starts == 1) {
            for reader in members.iter().filter(|other| other.starts == 1 && other.host != writer.member.host) {
                // Between the last look and its standstill, it may have read more and told the writer.
                let view = views.iter().chain(&still).find(|view| view.member.host == reader.host);
                let id = self.hosts.iter().find(|(_, host)| **host == reader.host).map(|(id, _)| *id);
                let Some(to) = writer.peers().find(|peer| Some(peer.id.0) == id) else { continue };
                let from = view.and_then(|view| view.peer(writer));
                let since = self.open_since(writer, to, views, net);
                let is_open = from.is_some() && since.is_some_and(|since| now - since > OPENING);
                let is_frozen = self.frozen.contains(&(writer.member.host, reader.host));
                self.streams.written(now, (writer.member, reader), (to, from), [is_open, is_frozen])?;
            }
        }
        Ok(())
    }

    /// Checks raft's own invariants. A term has one leader. Commit index and term never go back. No member halts.
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
                "{name} has sent {} useless snapshots: its log no longer had the entries after them",
                status.snapshots_overtaken
            ));
        }
        let halted = status.halted.as_ref().filter(|_| !member.is_doubtful && !member.is_leaving);
        if let Some(why) = halted.or(status.two_histories.as_ref().filter(|_| !lost_a_disk)) {
            return Err(format!("{name} has halted: {why}"));
        }
        let term = (member.host, status.id.0);
        // When its disk works again, it begins with the state on the disk, as after a start.
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

    /// Records which paths are open to a prober.
    fn note_paths(&mut self, now: Time, members: &[Member], net: &Net) {
        for from in members {
            for to in members.iter().filter(|to| to.host != from.host) {
                // A process may go on and stand still again between two looks, and a probe may succeed in between.
                let began = |member: &Member| member.running.as_ref().map(|running| (running.since, running.thawed));
                let started = [from, to].map(began);
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

    /// Checks that `peer_reachable` is true.
    fn reachable(&self, now: Time, view: &View<'_>, views: &[View<'_>], net: &Net) -> Result<(), String> {
        let member = view.member;
        for peer in view.peers() {
            let Some(other) = self.hosts.get(&peer.id.0) else { continue };
            let Some(((path, ..), since)) = self.paths.get(&(member.host, *other)) else { continue };
            // A member that was removed and added again has another ID.
            let is_there = views.iter().any(|view| view.member.host == *other && view.raft.id == peer.id);
            let is_wrong = match path {
                Path::Open => is_there && peer.link.reachable != Some(true),
                Path::Closed => peer.link.reachable == Some(true),
                Path::Unclear => false,
            };
            let known = self.peers.get(&(member.host, view.since, peer.id.0)).copied().unwrap_or(now);
            // A cut may end and begin again between two looks, and a probe may succeed in between.
            let changed = net.broken(member.host, *other).max(net.mended(member.host, *other));
            let since = (*since).max(known).max(changed);
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

    /// Its status of another member. `None` if it does not have that member as a peer.
    fn peer(&self, other: &View<'_>) -> Option<&PeerStatus> {
        self.peers().find(|peer| peer.id == other.raft.id)
    }
}

/// The members that serve now.
fn views(members: &[Member]) -> Vec<View<'_>> {
    members.iter().filter(|member| !is_frozen(member)).filter_map(view).collect()
}

/// A member as it is now, or as it was when it came to stand still. `None` if it does not run.
fn view(member: &Member) -> Option<View<'_>> {
    let running = member.running.as_ref()?;
    let node = running.node()?;
    let (raft, transport) = running.process.within(|| (node.raft_status(), node.transport().status()));
    Some(View { member, since: running.since, raft, transport })
}

/// Whether every message that was sent on a stream was read or is counted as lost, between processes that were never
/// restarted.
pub fn is_settled(members: &[Member]) -> Result<bool, String> {
    losses(&views(members))
}

/// Compares the counts of both ends, for each pair of processes that were never restarted. On a stream, messages that
/// were read or lost cannot be more than were sent. On requests, messages that were acknowledged cannot be more than
/// were read. Returns whether every message that was sent on a stream is accounted for.
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
                        "{one} has sent {two} {sent} messages on {channel:?}, but {read} were read and {lost} lost"
                    ));
                }
                is_settled &= read + lost == sent;
            }
            for channel in [Channel::Pipeline, Channel::Snapshot] {
                let (sent, read) = counts(channel);
                // What came before the reader knew the writer is counted as from no peer.
                let early =
                    reader.transport.strangers.as_ref().map_or(0, |strangers| strangers.received[channel].total());
                if sent > read + early {
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

/// The reasons why a path is closed: the process is down, it is frozen, the link there is cut, the link back is cut.
fn closed(from: &Member, to: &Member, net: &Net) -> [bool; 4] {
    let is_cut = |from: &Member, to: &Member| net.link(from.host, to.host).is_cut;
    [to.running.is_none(), is_frozen(to), is_cut(from, to), is_cut(to, from)]
}

fn path(from: &Member, to: &Member, net: &Net) -> Path {
    let serves = |member: &Member| member.running.as_ref().is_some_and(|running| running.node().is_some());
    if !serves(from) || is_frozen(from) || from.is_doubtful || to.is_doubtful || !net.resolves_well(from.host) {
        return Path::Unclear;
    }
    // A process that starts or stops may answer or not, so its path is unclear below.
    if closed(from, to, net).contains(&true) {
        return Path::Closed;
    }
    let (there, back) = (net.link(from.host, to.host), net.link(to.host, from.host));
    let is_quick = |link: super::network::Link| link.latency + link.jitter <= 50 && link.bandwidth == 0;
    if serves(to) && is_quick(there) && is_quick(back) { Path::Open } else { Path::Unclear }
}
