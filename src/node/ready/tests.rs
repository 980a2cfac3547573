//! Clusters in one thread: a network that loses, repeats and delays by a seed, and crashes that keep only what was synced.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    path::{Path, PathBuf},
    sync::Mutex,
};

use bytes::Bytes;
use futures_util::StreamExt as _;
use prost::Message as _;
use rand::{Rng as _, RngExt as _, SeedableRng as _, rngs::StdRng};
use tokio::sync::oneshot;

use super::*;
use crate::{
    id::{DirectoryId, Incarnation},
    node::{
        config::Config,
        force::Forced,
        guard,
        members::MemberRecord,
        proposals::{Payload, ProposalResult, ProposeError},
        request::{Command, Request, RequestId},
        status::{RaftStatus, Role},
        storage::{IncomingBuilder, StoredIdentity},
    },
    telemetry::{EventKind, Events},
    transport::raft::Source,
    wire::raftpb::{ConfChange, ConfChangeType, ConfState, Snapshot, SnapshotMetadata},
    world::Files,
};

const CLUSTER: ClusterId = ClusterId(0xc);
const TICK: Duration = Duration::from_millis(100);

type Sent = Arc<Mutex<VecDeque<TurnOutput>>>;

struct Running {
    core: Core,
    sent: Sent,
    ids: RequestIds,
    shared: Arc<NodeState>,
}

/// A cluster and its network.
struct Cluster {
    directory: tempfile::TempDir,
    running: BTreeMap<u64, Running>,
    flying: Vec<(u64, Message)>,
    random: StdRng,
    seed: u64,
    /// The percentage of messages that are lost.
    loss: u32,
    cut: Vec<u64>,
    now: Instant,
    snapshot_count: u64,
    max_bytes: u64,
    /// The bytes that must stay free on the disk of a member that starts.
    headroom: u64,
    strict: bool,
    /// Given to every member that starts.
    hearsay: Hearsay,
    /// The peers that members drop.
    dropped: Vec<(u64, MemberId)>,
    snapshots: usize,
    /// How long a snapshot is on its way, and the snapshots on their way: when each arrives, from whom, and its
    /// content.
    snapshot_ticks: u64,
    /// How long spooling takes, and what is being spooled: when it ends, and of whom.
    spool_ticks: u64,
    spooling: Vec<(u64, u64, Box<Spooling>)>,
    travelling: Vec<(u64, u64, Message, SnapshotBody)>,
    ticks: u64,
    runtime: tokio::runtime::Runtime,
    stopped: Vec<u64>,
}

fn record(id: u64) -> MemberRecord {
    MemberRecord { id, peer_urls: vec![format!("http://h:{id}")], ..MemberRecord::default() }
}

fn conf_change(id: u64, kind: ConfChangeType, record: &MemberRecord) -> ConfChange {
    ConfChange { id, r#type: kind as i32, node_id: record.id, context: record.to_json() }
}

impl Cluster {
    fn new(size: u64, seed: u64) -> Self {
        let mut cluster = Self {
            directory: tempfile::tempdir().expect("a directory"),
            running: BTreeMap::new(),
            flying: Vec::new(),
            random: StdRng::seed_from_u64(seed),
            seed,
            loss: 0,
            cut: Vec::new(),
            now: Instant::now(),
            snapshot_count: 1000,
            max_bytes: 1 << 30,
            headroom: 0,
            strict: false,
            hearsay: Hearsay::default(),
            dropped: Vec::new(),
            snapshots: 0,
            snapshot_ticks: 0,
            spool_ticks: 0,
            spooling: Vec::new(),
            travelling: Vec::new(),
            ticks: 0,
            runtime: tokio::runtime::Builder::new_current_thread().build().expect("a runtime"),
            stopped: Vec::new(),
        };
        for id in 1..=size {
            cluster.bootstrap(id, size);
            cluster.start(id);
        }
        cluster
    }

    fn path(&self, id: u64) -> PathBuf {
        self.directory.path().join(id.to_string())
    }

    fn bootstrap(&self, id: u64, size: u64) {
        let mut store = Store::open(&Files::default(), &self.path(id), 2).expect("a new store");
        let mut membership = Membership::default();
        let mut entries = Vec::new();
        for member in 1..=size {
            let change = conf_change(0, ConfChangeType::ConfChangeAddNode, &record(member));
            membership.apply(&change).expect("a new member");
            let entry = Entry { r#type: 1, term: 1, index: member, data: change.encode_to_vec().into() };
            entries.push(raft_rs::entry_from_raftpb(entry).expect("a good entry"));
        }
        let state = raft_rs::conf_state_from_raftpb(ConfState { voters: (1..=size).collect(), ..Default::default() });
        let (cluster, joined) = (CLUSTER.0, Vec::new());
        let identity = StoredIdentity { member: id, cluster, name: id.to_string(), token: "t".into(), joined };
        store.bootstrap(&identity, &entries, &state, &membership).expect("room");
    }

    /// Makes the empty directory of a member that joins.
    fn empty(&self, id: u64) {
        let mut store = Store::open(&Files::default(), &self.path(id), 2).expect("a new store");
        let (cluster, joined) = (CLUSTER.0, Vec::new());
        let identity = StoredIdentity { member: id, cluster, name: id.to_string(), token: "t".into(), joined };
        let nothing = raft_rs::conf_state_from_raftpb(ConfState::default());
        store.bootstrap(&identity, &[], &nothing, &Membership::default()).expect("room");
    }

    fn start(&mut self, id: u64) {
        self.start_with(id, &Events::default());
    }

    fn start_with(&mut self, id: u64, events: &Events) {
        let store = Store::open(&Files::default(), &self.path(id), 2).expect("a store that opens");
        let ids = RequestIds::new(id, store.boot(&World::default()).expect("room").boot);
        let sent = Sent::default();
        let shared = NodeState::new(RaftStatus::default(), store.membership().expect("kept"), events.clone());
        let settings = CoreSettings {
            member: MemberId(id),
            cluster: CLUSTER,
            election_ticks: 10,
            election_timeout: TICK * 10,
            retention: Retention { snapshot_count: self.snapshot_count, bytes: 0, max_bytes: self.max_bytes },
            max_request_bytes: 1 << 20,
            strict_reconfig_check: self.strict,
            hearsay: self.hearsay.clone(),
            quota: None,
            headroom: self.headroom,
            world: World::default().with_seed(self.seed << 8 | id),
        };
        let queue = sent.clone();
        let outbox: OutputSink = Box::new(move |outgoing| queue.lock().expect("one thread").push_back(outgoing));
        let core = Core::new(settings, store, ids.clone(), shared.clone(), outbox).expect("a store that raft takes");
        self.running.insert(id, Running { core, sent, ids, shared });
    }

    /// Stops a member as a crash would: what was not synced is lost.
    fn crash(&mut self, id: u64) {
        let kept = self.directory.path().join("kept");
        self.back_up(id, &kept);
        self.running.remove(&id);
        self.restore(id, &kept);
    }

    /// Copies the disk of a member.
    fn back_up(&self, id: u64, to: &Path) {
        std::fs::create_dir_all(to.join("log")).expect("a directory");
        for file in files(&self.path(id)) {
            std::fs::copy(self.path(id).join(&file), to.join(&file)).expect("a copy");
        }
    }

    /// Replaces the disk of a member by a copy.
    fn restore(&self, id: u64, from: &Path) {
        std::fs::remove_dir_all(self.path(id)).expect("it is there");
        std::fs::rename(from, self.path(id)).expect("a rename");
    }

    fn status(&self, id: u64) -> RaftStatus {
        self.running[&id].shared.status()
    }

    fn leader(&self) -> Option<u64> {
        self.running.keys().copied().find(|id| !self.cut.contains(id) && self.status(*id).role == Role::Leader)
    }

    /// One tick of every member's clock, and the messages in between.
    fn tick(&mut self) {
        self.now += TICK;
        self.ticks += 1;
        let now = self.ticks;
        for (.., spooling) in self.spooling.extract_if(.., |(due, ..)| *due <= now) {
            spooling.run();
        }
        for (_, from, message, body) in self.travelling.extract_if(.., |(due, ..)| *due <= now).collect::<Vec<_>>() {
            self.hand_over_snapshot(from, &message, body);
        }
        for id in self.running.keys().copied().collect::<Vec<_>>() {
            if let Some(member) = self.running.get_mut(&id) {
                member.core.tick(self.now, self.now);
            }
            self.turn(id);
        }
        for _ in 0..20 {
            self.deliver();
        }
    }

    fn turn(&mut self, id: u64) {
        let Some(member) = self.running.get_mut(&id) else { return };
        if member.core.turn(self.now).expect("the disk is fine") == Flow::Removed {
            self.stopped.push(id);
        }
        let sent: Vec<_> = member.sent.lock().expect("one thread").drain(..).collect();
        for outgoing in sent {
            match outgoing {
                TurnOutput::Messages(messages) => self.flying.extend(messages.into_iter().map(|message| (id, message))),
                TurnOutput::Snapshot(message, body) => self.carry_snapshot(id, &message, body),
                TurnOutput::Peer(PeerChange::Remove(peer)) => self.dropped.push((id, peer)),
                TurnOutput::Peer(PeerChange::Set(..)) => {}
                TurnOutput::Spool(spooling) if self.spool_ticks == 0 => spooling.run(),
                TurnOutput::Spool(spooling) => self.spooling.push((self.ticks + self.spool_ticks, id, spooling)),
                TurnOutput::Discard(what) => drop(what),
            }
        }
        if self.stopped.contains(&id) {
            self.running.remove(&id);
        }
    }

    fn deliver(&mut self) {
        for (from, message) in std::mem::take(&mut self.flying) {
            let (to, draw) = (message.to, self.random.random_range(0..100));
            if draw < self.loss || self.cut.contains(&from) || self.cut.contains(&to) {
                continue;
            }
            // The message is encoded and decoded, as on the wire.
            let message = Message::decode(message.encode_to_vec().as_slice()).expect("it was encoded");
            let Some(member) = self.running.get_mut(&to) else { continue };
            if member.core.must_turn_before(message.r#type) {
                self.turn(to);
            }
            let Some(member) = self.running.get_mut(&to) else { continue };
            let _ = member.core.step(MemberId(from), Source::Member, message);
        }
        for id in self.running.keys().copied().collect::<Vec<_>>() {
            self.turn(id);
        }
    }

    fn carry_snapshot(&mut self, from: u64, message: &Message, body: SnapshotBody) {
        self.snapshots += 1;
        if self.snapshot_ticks > 0 {
            let due = self.ticks + self.snapshot_ticks;
            return self.travelling.push((due, from, message.clone(), body));
        }
        self.hand_over_snapshot(from, message, body);
    }

    fn hand_over_snapshot(&mut self, from: u64, message: &Message, body: SnapshotBody) {
        let pieces: Vec<_> = self.runtime.block_on(body.into_stream(&World::default()).collect());
        let bytes: Vec<u8> = pieces.into_iter().flat_map(|piece| piece.expect("readable")).collect();
        let path = self.directory.path().join(format!("snapshot-{}-{}", self.snapshots, self.ticks));
        std::fs::write(&path, bytes).expect("room");
        let snapshot = message.snapshot.clone().expect("it is a MsgSnap");
        let arrives = !self.cut.contains(&from) && !self.cut.contains(&message.to);
        let status = match self.running.get_mut(&message.to).filter(|_| arrives) {
            Some(member) => {
                let builder = member.core.raw.store().builder(0);
                let received = Received::take(&Files::default(), &path, CLUSTER.0, &snapshot, &builder, || true);
                let received = received.expect("whole");
                let _ = member.core.step_snapshot(MemberId(from), message.clone(), received);
                SnapshotStatus::Finish
            }
            None => SnapshotStatus::Failure,
        };
        if let Some(member) = self.running.get_mut(&from) {
            member.core.report_snapshot(MemberId(message.to), status);
        }
    }

    fn until(&mut self, what: &str, mut done: impl FnMut(&Self) -> bool) {
        for _ in 0..600 {
            if done(self) {
                return;
            }
            self.tick();
        }
        let states: Vec<_> = self.running.keys().map(|id| self.status(*id)).collect();
        assert!(done(self), "{what} did not come to be: {states:#?}");
    }

    fn propose(&mut self, id: u64, payload: impl FnOnce(RequestId) -> Payload) -> oneshot::Receiver<ProposalResult> {
        let (reply, answer) = oneshot::channel();
        let now = self.now;
        let member = self.running.get_mut(&id).expect("it runs");
        let payload = payload(member.ids.next());
        member.core.propose(now, Proposal { payload, reply });
        answer
    }

    fn put(&mut self, id: u64, key: &str, value: &str) -> oneshot::Receiver<ProposalResult> {
        let command = Command::Put { key: key.to_owned().into(), value: value.to_owned().into() };
        self.propose(id, |id| Payload::Request(id, Request { id, command }.encode()))
    }

    fn change(&mut self, id: u64, kind: ConfChangeType, record: &MemberRecord) -> oneshot::Receiver<ProposalResult> {
        self.propose(id, |request| Payload::ConfChange(conf_change(request.conf_change_id(), kind, record)))
    }

    fn answer(&mut self, mut answer: oneshot::Receiver<ProposalResult>) -> ProposalResult {
        for _ in 0..300 {
            match answer.try_recv() {
                Ok(answer) => return answer,
                Err(oneshot::error::TryRecvError::Closed) => return Err(ProposeError::Unknown),
                Err(oneshot::error::TryRecvError::Empty) => self.tick(),
            }
        }
        Err(ProposeError::Unknown)
    }

    fn value(&self, id: u64, key: &str) -> Option<Vec<u8>> {
        self.running[&id].core.raw.store().reader().value(key.as_bytes()).expect("readable")
    }

    fn settle(&mut self) {
        (self.loss, self.cut) = (0, Vec::new());
        self.until("everyone has applied the same", |cluster| {
            let applied: Vec<_> = cluster.running.keys().map(|id| cluster.status(*id).applied).collect();
            let commit = cluster.leader().map(|id| cluster.status(id).commit);
            commit.is_some_and(|commit| applied.iter().all(|applied| *applied == commit))
        });
    }
}

#[test]
fn one_member_alone_writes_and_reads() {
    let mut cluster = Cluster::new(1, 1);
    let answer = cluster.put(1, "k", "v");
    assert_eq!(cluster.answer(answer), Ok(ProposalOutcome::Written { found: false }));
    let again = cluster.put(1, "k", "w");
    assert_eq!(cluster.answer(again), Ok(ProposalOutcome::Written { found: true }));
    let (waiter, mut read) = oneshot::channel();
    cluster.running.get_mut(&1).expect("it runs").core.read(waiter);
    cluster.tick();
    assert!(read.try_recv().is_ok());
    assert_eq!(cluster.value(1, "k"), Some(b"w".to_vec()));
}

#[test]
fn a_write_through_any_member_reaches_all() {
    let mut cluster = Cluster::new(3, 2);
    for id in 1..=3 {
        let answer = cluster.put(id, &format!("k{id}"), "v");
        assert_eq!(cluster.answer(answer), Ok(ProposalOutcome::Written { found: false }));
        assert!(cluster.value(id, &format!("k{id}")).is_some(), "applied where it was taken");
    }
    cluster.settle();
    for (id, key) in [(1, "k3"), (2, "k1"), (3, "k2")] {
        assert_eq!(cluster.value(id, key), Some(b"v".to_vec()));
    }
}

#[test]
fn a_read_through_any_member_waits_for_what_was_written_before() {
    let mut cluster = Cluster::new(3, 3);
    let answer = cluster.put(1, "k", "v");
    cluster.answer(answer).expect("written");
    for id in 1..=3 {
        let (waiter, mut read) = oneshot::channel();
        cluster.running.get_mut(&id).expect("it runs").core.read(waiter);
        let mut ticks = 0;
        while read.try_recv().is_err() {
            ticks += 1;
            assert!(ticks < 100, "member {id} does not answer");
            cluster.tick();
        }
        assert_eq!(cluster.value(id, "k"), Some(b"v".to_vec()), "member {id}");
    }
}

impl Cluster {
    /// A cluster of three that has a leader and is quiet. Returns the leader, and a follower.
    fn quiet(seed: u64) -> (Self, u64, u64) {
        let mut cluster = Self::new(3, seed);
        cluster.until("a leader", |cluster| cluster.leader().is_some());
        cluster.settle();
        let leader = cluster.leader().expect("a leader");
        let follower = cluster.running.keys().copied().find(|id| *id != leader).expect("three members");
        (cluster, leader, follower)
    }

    /// Takes turns and delivers messages, without a tick of any clock, until nothing flies. Returns how many appends
    /// without entries flew.
    fn hush(&mut self) -> usize {
        let mut empty = 0;
        for id in self.running.keys().copied().collect::<Vec<_>>() {
            self.turn(id);
        }
        while !self.flying.is_empty() {
            let is_empty =
                |message: &Message| message.r#type == MessageType::MsgApp as i32 && message.entries.is_empty();
            empty += self.flying.iter().filter(|(_, message)| is_empty(message)).count();
            self.deliver();
        }
        empty
    }
}

#[test]
fn a_commit_is_told_by_the_next_append_and_alone_if_none_comes() {
    let (mut cluster, leader, follower) = Cluster::quiet(11);
    for key in ["a", "b", "c"] {
        let mut answer = cluster.put(leader, key, "v");
        assert_eq!(cluster.hush(), 0, "nothing but appends of entries, and their answers");
        assert_eq!(answer.try_recv(), Ok(Ok(ProposalOutcome::Written { found: false })));
    }
    assert_eq!(cluster.value(follower, "b"), Some(b"v".to_vec()), "it was told with c");
    assert_eq!(cluster.value(follower, "c"), None);
    let due = cluster.running[&leader].core.tells_at().expect("there is something to tell");
    assert!(due <= cluster.now + Duration::from_millis(10));
    cluster.now = due;
    assert_eq!(cluster.hush(), 2, "each follower is told once");
    assert_eq!(cluster.value(follower, "c"), Some(b"v".to_vec()));
    assert_eq!(cluster.running[&leader].core.tells_at(), None);
    let _first = cluster.put(leader, "d", "v");
    cluster.hush();
    cluster.now = cluster.running[&leader].core.tells_at().expect("there is something to tell");
    let _second = cluster.put(leader, "e", "v");
    assert_eq!(cluster.hush(), 0, "a write that comes when it is due tells it");
    assert_eq!(cluster.value(follower, "d"), Some(b"v".to_vec()));
}

#[test]
fn a_follower_that_waits_is_told_at_once() {
    let (mut cluster, leader, follower) = Cluster::quiet(12);
    let mut answer = cluster.put(follower, "k", "v");
    cluster.hush();
    assert_eq!(answer.try_recv(), Ok(Ok(ProposalOutcome::Written { found: false })));
    // A follower whose acknowledgement is still on its way, when it asks for a read.
    let mut answer = cluster.put(leader, "k", "w");
    cluster.turn(leader);
    let late: Vec<_> = cluster.flying.extract_if(.., |(_, message)| message.to == follower).collect();
    cluster.hush();
    assert_eq!(answer.try_recv(), Ok(Ok(ProposalOutcome::Written { found: true })));
    let (waiter, mut read) = oneshot::channel();
    cluster.running.get_mut(&follower).expect("it runs").core.read(waiter);
    cluster.turn(follower);
    cluster.flying.splice(..0, late);
    cluster.hush();
    assert!(read.try_recv().is_ok(), "the read is answered without a tick");
    assert_eq!(cluster.value(follower, "k"), Some(b"w".to_vec()));
}

#[test]
fn a_leader_that_halts_has_nothing_to_tell_and_sets_no_timer() {
    let (mut cluster, leader, _) = Cluster::quiet(13);
    let answer = cluster.put(leader, "k", "v");
    cluster.hush();
    drop(answer);
    let core = &mut cluster.running.get_mut(&leader).expect("it runs").core;
    assert!(core.tells_at().is_some());
    core.halt("for a test");
    assert_eq!(core.tells_at(), None);
}

#[test]
fn without_a_leader_a_proposal_is_refused_in_time_and_was_never_proposed() {
    let mut cluster = Cluster::new(3, 4);
    cluster.until("a leader", |cluster| cluster.leader().is_some());
    cluster.crash(2);
    cluster.crash(3);
    cluster.until("it knows that it is alone", |cluster| cluster.status(1).leader == MemberId(0));
    let answer = cluster.put(1, "k", "v");
    assert_eq!(cluster.answer(answer), Err(ProposeError::NoLeader));
    cluster.start(2);
    cluster.start(3);
    cluster.settle();
    assert_eq!(cluster.value(1, "k"), None);
}

/// Everything that members say and do, in order, while messages are lost and members crash.
fn history(seed: u64) -> Vec<String> {
    let mut cluster = Cluster::new(3, seed);
    cluster.loss = 10;
    let mut told = Vec::new();
    for turn in 0..400 {
        if turn % 10 == 0 {
            drop(cluster.put(turn / 10 % 3 + 1, "k", &format!("{turn}")));
        }
        if turn % 100 == 99 {
            let victim = cluster.leader().unwrap_or(1);
            cluster.crash(victim);
            cluster.start(victim);
        }
        cluster.tick();
        told.push(format!("{:?}", cluster.flying));
        told.extend((1..=3).map(|id| format!("{:?}", RaftStatus { followed: None, ..cluster.status(id) })));
    }
    told
}

#[test]
fn one_seed_gives_one_history_elections_included() {
    let (once, again) = (history(21), history(21));
    let differs = once.iter().zip(&again).position(|(once, again)| once != again);
    assert_eq!(differs, None, "{:?}", differs.map(|at| (&once[at], &again[at])));
    assert_ne!(once, history(22));
}

/// The main property: whatever is lost on the way, and whichever members crash, acknowledged writes are there.
#[test]
fn what_was_acknowledged_survives_losses_and_crashes() {
    for seed in 0..6 {
        let mut cluster = Cluster::new(3, 100 + seed);
        cluster.snapshot_count = 20;
        for id in 1..=3 {
            cluster.crash(id);
            cluster.start(id);
        }
        cluster.loss = 10;
        let mut acknowledged: BTreeMap<String, String> = BTreeMap::new();
        for round in 0..60 {
            let victim = cluster.random.random_range(1..=3);
            match cluster.random.random_range(0..10) {
                0 if cluster.running.len() == 3 => cluster.crash(victim),
                1 | 2 => {
                    for id in 1..=3 {
                        if !cluster.running.contains_key(&id) {
                            cluster.start(id);
                        }
                    }
                }
                3 => cluster.cut = vec![victim],
                4 | 5 => cluster.cut.clear(),
                _ => {}
            }
            let ids: Vec<_> = cluster.running.keys().copied().collect();
            let id = ids[cluster.random.random_range(0..ids.len())];
            let (key, value) = (format!("k{round}"), format!("{seed}.{round}"));
            let mut answer = cluster.put(id, &key, &value);
            for _ in 0..cluster.random.random_range(1..30) {
                cluster.tick();
            }
            if let Ok(Ok(ProposalOutcome::Written { .. })) = answer.try_recv() {
                acknowledged.insert(key, value);
            }
        }
        for id in 1..=3 {
            if !cluster.running.contains_key(&id) {
                cluster.start(id);
            }
        }
        cluster.settle();
        assert!(acknowledged.len() > 10, "seed {seed}: only {} writes were acknowledged", acknowledged.len());
        for (key, value) in &acknowledged {
            for id in 1..=3 {
                let found = cluster.value(id, key);
                assert_eq!(found.as_deref(), Some(value.as_bytes()), "seed {seed}: {key} on member {id}");
            }
        }
    }
}

#[test]
fn a_member_that_missed_more_than_the_log_has_gets_a_snapshot() {
    let mut cluster = Cluster::new(3, 5);
    for id in 1..=3 {
        cluster.crash(id);
    }
    cluster.snapshot_count = 10;
    for id in 1..=3 {
        cluster.start(id);
    }
    cluster.until("a leader", |cluster| cluster.leader().is_some());
    let leader = cluster.leader().expect("there is one");
    let away = if leader == 1 { 2 } else { 1 };
    cluster.crash(away);
    for round in 0..60 {
        let answer = cluster.put(leader, &format!("k{round}"), "v");
        cluster.answer(answer).expect("two of three are there");
    }
    assert!(cluster.status(leader).first_index > 20, "the log was cut");
    cluster.start(away);
    cluster.settle();
    assert!(cluster.snapshots > 0, "it came by snapshot");
    assert_eq!(cluster.value(away, "k0"), Some(b"v".to_vec()));
    cluster.crash(away);
    cluster.start(away);
    cluster.settle();
    assert_eq!(cluster.value(away, "k59"), Some(b"v".to_vec()));
}

/// How many snapshots a joining member needs if each takes 30 ticks, while the cluster writes on each tick.
fn snapshots_of_a_joiner_under_load(max_bytes: u64, change_of_leader: bool) -> usize {
    let mut cluster = Cluster::new(3, 31);
    (cluster.snapshot_count, cluster.max_bytes, cluster.snapshot_ticks) = (5, max_bytes, 30);
    for id in 1..=3 {
        cluster.crash(id);
        cluster.start(id);
    }
    cluster.until("a leader", |cluster| cluster.leader().is_some());
    let (mut written, mut answers) = (0, Vec::new());
    let mut write = |cluster: &mut Cluster| {
        written += 1;
        let leader = cluster.leader().unwrap_or(1);
        answers.push(cluster.put(leader, &format!("k{written}"), &"v".repeat(10_000)));
        cluster.tick();
    };
    (0..30).for_each(|_| write(&mut cluster));
    let added = cluster.change(1, ConfChangeType::ConfChangeAddLearnerNode, &record(4));
    assert_eq!(cluster.answer(added), Ok(ProposalOutcome::Membership));
    cluster.empty(4);
    cluster.start(4);
    for round in 0..200 {
        if change_of_leader && round == 15 {
            let leader = cluster.leader().expect("there is one");
            cluster.running.get_mut(&leader).expect("it runs").core.transfer_leadership();
        }
        write(&mut cluster);
        let (joiner, leader) = (cluster.status(4), cluster.status(cluster.leader().unwrap_or(1)));
        if joiner.applied > 0 && joiner.applied + 3 >= leader.applied {
            break;
        }
    }
    let overtaken: u64 = (1..=3).map(|id| cluster.status(id).snapshots_overtaken).sum();
    assert_eq!(overtaken > 1, cluster.snapshots > 3, "{overtaken} of {}", cluster.snapshots);
    cluster.snapshots
}

#[test]
fn a_joiner_under_load_needs_one_snapshot_and_one_more_after_a_change_of_leader() {
    assert_eq!(snapshots_of_a_joiner_under_load(1 << 30, false), 1);
    assert!(snapshots_of_a_joiner_under_load(1 << 30, true) <= 2);
    // The limit holds: if it is less than what is written meanwhile, the member starts over and over.
    assert!(snapshots_of_a_joiner_under_load(100_000, false) > 3);
}

/// While more is written than the log keeps for it, no snapshot is of any use. That is counted, and the store is not
/// read without a pause.
#[test]
fn a_snapshot_that_is_overtaken_while_it_is_spooled_is_counted_and_not_made_again_at_once() {
    let mut cluster = Cluster::new(1, 33);
    (cluster.snapshot_count, cluster.max_bytes, cluster.spool_ticks) = (5, 100_000, 40);
    cluster.crash(1);
    cluster.start(1);
    cluster.until("a leader", |cluster| cluster.leader().is_some());
    let write = |cluster: &mut Cluster, key: u64| {
        let answer = cluster.put(1, &key.to_string(), &"v".repeat(10_000));
        cluster.answer(answer).expect("it writes alone");
    };
    (0..30).for_each(|key| write(&mut cluster, key));
    let added = cluster.change(1, ConfChangeType::ConfChangeAddLearnerNode, &record(2));
    assert_eq!(cluster.answer(added), Ok(ProposalOutcome::Membership));
    cluster.empty(2);
    cluster.start(2);
    let (begun, mut spooled) = (cluster.ticks, BTreeSet::new());
    (0..200).for_each(|key| {
        write(&mut cluster, key);
        spooled.extend(cluster.spooling.iter().map(|(due, ..)| *due));
    });
    let seconds = (cluster.ticks - begun) / 10;
    assert!(seconds >= 15, "{seconds}");
    assert_eq!(cluster.snapshots, 0, "none is of any use");
    assert!(spooled.len() as u64 <= 1 + seconds / 5, "{} in {seconds} s", spooled.len());
    let overtaken = cluster.status(1).snapshots_overtaken;
    assert!(overtaken >= 2 && overtaken <= spooled.len() as u64, "{overtaken} of {}", spooled.len());
    cluster.settle();
    assert_eq!(cluster.snapshots, 1);
}

/// A leader that has spooled, or spools, a snapshot for a learner, if its disk keeps so much room.
fn leader_of_a_joiner(seed: u64, spool_ticks: u64, headroom: u64) -> Cluster {
    let mut cluster = Cluster::new(1, seed);
    (cluster.snapshot_count, cluster.spool_ticks, cluster.snapshot_ticks) = (5, spool_ticks, 1000);
    cluster.headroom = headroom;
    cluster.crash(1);
    cluster.start(1);
    cluster.until("a leader", |cluster| cluster.leader().is_some());
    for key in 0..30 {
        let answer = cluster.put(1, &key.to_string(), "v");
        cluster.answer(answer).expect("it writes alone");
    }
    let added = cluster.change(1, ConfChangeType::ConfChangeAddLearnerNode, &record(2));
    assert_eq!(cluster.answer(added), Ok(ProposalOutcome::Membership));
    cluster.empty(2);
    cluster.start(2);
    cluster
}

#[test]
fn a_leader_that_halts_spools_no_more_and_hands_nothing_out() {
    let halt = |cluster: &mut Cluster| cluster.running.get_mut(&1).expect("it runs").core.halt("of the test");
    let mut cluster = leader_of_a_joiner(34, 1000, 0);
    cluster.until("it is spooled", |cluster| !cluster.spooling.is_empty());
    halt(&mut cluster);
    assert!(cluster.spooling[0].2.view.outcome.is_closed(), "nobody waits for it");

    let mut cluster = leader_of_a_joiner(35, 0, 0);
    cluster.until("it is sent", |cluster| !cluster.travelling.is_empty());
    let asked = |cluster: &Cluster| raft::Storage::snapshot(cluster.running[&1].core.raw.store(), 0, 2);
    let index = asked(&cluster).expect("it is there").get_metadata().index;
    halt(&mut cluster);
    assert!(cluster.running[&1].core.raw.store().take_outgoing(2, index).is_none(), "it takes a place of two");
    asked(&cluster).expect_err("its file is given up");
}

/// It may be another failure, of which nobody has heard.
#[test]
fn a_snapshot_that_cannot_be_spooled_is_told_again_while_that_goes_on() {
    let mut cluster = leader_of_a_joiner(39, 0, 1 << 62);
    let told = |cluster: &Cluster| {
        let events = cluster.running[&1].shared.events().after(0);
        events.iter().filter(|event| event.kind == EventKind::SnapshotNotSpooled).count()
    };
    cluster.until("it is told", |cluster| told(cluster) == 1);
    (0..600).for_each(|_| cluster.tick());
    let after_a_minute = told(&cluster);
    assert!((3..=7).contains(&after_a_minute), "{after_a_minute} in a minute of failures each five seconds");
    cluster.now += Duration::from_secs(3600);
    (0..100).for_each(|_| cluster.tick());
    assert!(told(&cluster) > after_a_minute);
}

/// Such a body may have gigabytes.
#[test]
fn a_member_that_takes_no_part_keeps_no_snapshot_that_it_is_brought() {
    let (mut cluster, victim, leader) = with_a_disk_that_lost_data(36);
    let RaftStatus { term, commit, .. } = cluster.status(leader);
    let conf_state = Some(ConfState { voters: vec![1, 2, 3], ..ConfState::default() });
    let metadata = SnapshotMetadata { conf_state, index: commit, term };
    let snapshot = Some(Snapshot { data: Bytes::new(), metadata: Some(metadata) }.into());
    let message = Message { r#type: 7, to: victim, from: leader, term, snapshot, ..Message::default() };
    let brought = |cluster: &mut Cluster, id: u64| {
        let core = &mut cluster.running.get_mut(&id).expect("it runs").core;
        let body = body_of(&cluster.directory, &message, &core.raw.store().builder(0));
        let message = Message { to: id, ..message.clone() };
        core.step_snapshot(MemberId(leader), message, body)
    };
    let kept = |cluster: &Cluster, id| {
        files(&cluster.path(id)).into_iter().find(|name| name.to_string_lossy().starts_with("incoming-"))
    };
    brought(&mut cluster, victim).expect_err("it has halted");
    cluster.turn(victim);
    assert_eq!(kept(&cluster, victim), None);

    let other = (1..=3).find(|id| *id != victim && *id != leader).expect("there are three");
    brought(&mut cluster, other).expect("raft looks at it");
    assert!(kept(&cluster, other).is_some(), "until the next turn");
    cluster.running.get_mut(&other).expect("it runs").core.withdraw("of the test");
    cluster.turn(other);
    assert_eq!(kept(&cluster, other), None);
}

/// Its leader sends it nothing but heartbeats, because it lacks nothing.
#[test]
fn who_refused_an_append_while_it_was_suspended_follows_an_idle_leader_again() {
    let mut cluster = Cluster::new(3, 37);
    cluster.until("a leader", |cluster| cluster.leader().is_some());
    cluster.settle();
    let leader = cluster.leader().expect("it is settled");
    let follower = if leader == 1 { 2 } else { 1 };
    let RaftStatus { term, last_index: index, commit, .. } = cluster.status(leader);
    let append =
        Message { r#type: 3, to: follower, from: leader, term, index, log_term: term, commit, ..Message::default() };
    let core = &mut cluster.running.get_mut(&follower).expect("it runs").core;
    core.suspend(&CoreError::Store(StoreError::Files(std::io::Error::other("of the test"))));
    core.step(MemberId(leader), Source::Member, append).expect_err("it takes no part");
    assert_eq!(core.resume().expect("the disk is fine"), Flow::Continue);
    core.following.since = None;
    cluster.until("it follows", |cluster| cluster.running[&follower].core.following.since.is_some());
}

#[test]
fn a_learner_joins_is_promoted_votes_and_is_removed() {
    let mut cluster = Cluster::new(3, 6);
    let fourth = record(4);
    let added = cluster.change(2, ConfChangeType::ConfChangeAddLearnerNode, &fourth);
    assert_eq!(cluster.answer(added), Ok(ProposalOutcome::Membership));
    cluster.empty(4);
    cluster.start(4);
    cluster.settle();
    assert!(cluster.status(4).is_learner);
    let promote = MemberRecord { is_promote: true, ..fourth.clone() };
    let promoted = cluster.change(3, ConfChangeType::ConfChangeAddNode, &promote);
    assert_eq!(cluster.answer(promoted), Ok(ProposalOutcome::Membership));
    cluster.settle();
    assert!(!cluster.status(4).is_learner);
    let answer = cluster.put(4, "k", "v");
    assert_eq!(cluster.answer(answer), Ok(ProposalOutcome::Written { found: false }));
    let removed = cluster.change(1, ConfChangeType::ConfChangeRemoveNode, &fourth);
    assert_eq!(cluster.answer(removed), Ok(ProposalOutcome::Membership));
    for member in cluster.running.values() {
        assert!(member.shared.membership.load().is_removed(MemberId(4)));
    }
}

/// By the log or by a snapshot, it learns that one of them was removed meanwhile, and that another never was a member.
#[test]
fn who_joins_drops_whom_it_was_told_of_and_who_is_no_member() {
    for snapshot_count in [1000, 10] {
        let mut cluster = Cluster::new(3, 24);
        cluster.snapshot_count = snapshot_count;
        for id in 1..=3 {
            cluster.crash(id);
            cluster.start(id);
        }
        for record in [record(4), record(5)] {
            let added = cluster.change(1, ConfChangeType::ConfChangeAddLearnerNode, &record);
            assert_eq!(cluster.answer(added), Ok(ProposalOutcome::Membership));
        }
        let removed = cluster.change(2, ConfChangeType::ConfChangeRemoveNode, &record(5));
        assert_eq!(cluster.answer(removed), Ok(ProposalOutcome::Membership));
        for round in 0..40 {
            let answer = cluster.put(1, &format!("k{round}"), "v");
            cluster.answer(answer).expect("all are there");
        }
        cluster.empty(4);
        cluster.hearsay = Hearsay::default();
        [1, 2, 3, 5, 6].iter().for_each(|id| cluster.hearsay.add(MemberId(*id)));
        cluster.dropped.clear();
        cluster.start(4);
        cluster.settle();
        assert_eq!(cluster.snapshots > 0, snapshot_count == 10, "it came as it was to come");
        cluster
            .until("both are dropped", |cluster| [5, 6].iter().all(|id| cluster.dropped.contains(&(4, MemberId(*id)))));
        for peer in [1, 2, 3] {
            assert!(!cluster.dropped.contains(&(4, MemberId(peer))), "{peer} is a member");
        }
        // Another member vouched for this one, but the log does not contain it.
        cluster.hearsay.add(MemberId(7));
        let answer = cluster.put(1, "again", "v");
        cluster.answer(answer).expect("all are there");
        cluster.until("it is dropped, too", |cluster| cluster.dropped.contains(&(4, MemberId(7))));
    }
}

#[test]
fn a_leader_that_is_removed_stops_and_the_others_go_on() {
    let mut cluster = Cluster::new(3, 7);
    cluster.until("a leader", |cluster| cluster.leader().is_some());
    let leader = cluster.leader().expect("there is one");
    let writes: Vec<_> = (0..5).map(|n| cluster.put(leader, &format!("k{n}"), "v")).collect();
    let removal = cluster.change(leader, ConfChangeType::ConfChangeRemoveNode, &record(leader));
    let late: Vec<_> = (5..9).map(|n| cluster.put(leader, &format!("k{n}"), "v")).collect();
    cluster.until("it stops", |cluster| cluster.stopped.contains(&leader));
    drop((writes, removal, late));
    cluster.until("another leader", |cluster| cluster.leader().is_some());
    let other = cluster.leader().expect("there is one");
    let answer = cluster.put(other, "after", "v");
    assert_eq!(cluster.answer(answer), Ok(ProposalOutcome::Written { found: false }));
}

#[test]
fn a_change_that_the_leader_refuses_is_told_to_the_follower_that_asked() {
    let mut cluster = Cluster::new(3, 8);
    cluster.until("a leader", |cluster| cluster.leader().is_some());
    let follower = (1..=3).find(|id| Some(*id) != cluster.leader()).expect("two of them");
    let again = cluster.change(follower, ConfChangeType::ConfChangeAddNode, &record(2));
    assert_eq!(cluster.answer(again), Ok(ProposalOutcome::Refused(ConfRefusal::Exists)));
    let learner = cluster.change(follower, ConfChangeType::ConfChangeAddLearnerNode, &record(4));
    assert_eq!(cluster.answer(learner), Ok(ProposalOutcome::Membership));
    let promote = MemberRecord { is_promote: true, ..record(4) };
    let early = cluster.change(follower, ConfChangeType::ConfChangeAddNode, &promote);
    assert_eq!(cluster.answer(early), Ok(ProposalOutcome::Refused(ConfRefusal::NotReady)));
}

/// Its streams stay open.
#[test]
fn a_member_that_has_halted_does_not_count_where_the_membership_changes() {
    let mut cluster = Cluster::new(3, 23);
    cluster.strict = true;
    for id in 1..=3 {
        cluster.crash(id);
        cluster.start(id);
    }
    for id in 1..=3 {
        let told = MemberRecord { client_urls: vec![format!("http://c:{id}")], ..record(id) };
        let command = Command::Attributes { member: told.to_json() };
        let answer = cluster.propose(id, |id| Payload::Request(id, Request { id, command }.encode()));
        assert_eq!(cluster.answer(answer), Ok(ProposalOutcome::Membership));
    }
    cluster.settle();
    let leader = cluster.leader().expect("it is settled");
    let others: Vec<u64> = (1..=3).filter(|id| *id != leader).collect();
    let learner = cluster.change(others[0], ConfChangeType::ConfChangeAddLearnerNode, &record(8));
    assert_eq!(cluster.answer(learner), Ok(ProposalOutcome::Membership));

    cluster.running.get_mut(&others[1]).expect("it runs").core.halt("for this test");
    for _ in 0..40 {
        cluster.tick();
    }
    assert_eq!(cluster.leader(), Some(leader), "two of three are there");
    for asked in [leader, others[0]] {
        let voter = cluster.change(asked, ConfChangeType::ConfChangeAddNode, &record(7));
        assert_eq!(cluster.answer(voter), Ok(ProposalOutcome::Refused(ConfRefusal::Unhealthy)));
    }
    let healthy = cluster.change(leader, ConfChangeType::ConfChangeRemoveNode, &record(others[0]));
    assert_eq!(cluster.answer(healthy), Ok(ProposalOutcome::Refused(ConfRefusal::Unhealthy)));
    let halted = cluster.change(leader, ConfChangeType::ConfChangeRemoveNode, &record(others[1]));
    assert_eq!(cluster.answer(halted), Ok(ProposalOutcome::Membership));
}

#[test]
fn leadership_is_handed_over_when_asked() {
    let mut cluster = Cluster::new(3, 9);
    let answer = cluster.put(1, "k", "v");
    cluster.answer(answer).expect("written");
    let leader = cluster.leader().expect("it was written");
    assert!(cluster.running.get_mut(&leader).expect("it runs").core.transfer_leadership());
    for _ in 0..5 {
        cluster.tick();
    }
    assert!(cluster.leader().is_some_and(|other| other != leader));
}

/// The files of a member.
fn files(directory: &Path) -> Vec<PathBuf> {
    let names = |directory: &Path| {
        let entries = std::fs::read_dir(directory).expect("a directory");
        entries.map(|entry| entry.expect("a file").path()).filter(|path| path.is_file()).collect::<Vec<_>>()
    };
    let all = names(directory).into_iter().chain(names(&directory.join("log")));
    all.map(|path| path.strip_prefix(directory).expect("it is in there").to_owned()).collect()
}

/// A cluster in which one member halts, that member, and the leader. The member's disk was replaced by an older copy,
/// so it has lost entries that it acknowledged.
fn with_a_disk_that_lost_data(seed: u64) -> (Cluster, u64, u64) {
    let mut cluster = Cluster::new(3, seed);
    cluster.until("a leader", |cluster| cluster.leader().is_some());
    let leader = cluster.leader().expect("there is one");
    let victim = if leader == 1 { 2 } else { 1 };
    let backup = cluster.directory.path().join("backup");
    cluster.settle();
    cluster.crash(victim);
    cluster.back_up(victim, &backup);
    cluster.start(victim);
    for round in 0..20 {
        let answer = cluster.put(leader, &format!("k{round}"), "v");
        cluster.answer(answer).expect("written");
    }
    cluster.settle();
    cluster.crash(victim);
    cluster.restore(victim, &backup);
    cluster.start(victim);
    cluster.until("it says so", |cluster| cluster.status(victim).halted.is_some());
    (cluster, victim, leader)
}

/// A halted member neither votes nor proposes.
fn assert_takes_no_part(cluster: &mut Cluster, victim: u64, leader: u64) {
    let member = cluster.running.get_mut(&victim).expect("it stays up");
    let vote =
        Message { r#type: 5, to: victim, from: leader, term: 99, index: 999, log_term: 98, ..Message::default() };
    assert!(member.core.step(MemberId(leader), Source::Member, vote).is_err());
    let answer = cluster.put(victim, "k", "v");
    assert_eq!(cluster.answer(answer), Err(ProposeError::Halted));
}

#[test]
fn a_member_whose_disk_lost_data_neither_votes_nor_acknowledges_and_says_so() {
    let (mut cluster, victim, leader) = with_a_disk_that_lost_data(10);
    let [takes_part, ..] = cluster.status(victim).checks(|_| None);
    assert!(takes_part.failure.is_some_and(|why| why.contains("shorter than what was committed")));
    assert_takes_no_part(&mut cluster, victim, leader);
}

#[test]
fn a_halt_outlives_restarts_and_needs_nobody_who_says_so_again() {
    let (mut cluster, victim, leader) = with_a_disk_that_lost_data(13);
    let RaftStatus { halted: why, term, .. } = cluster.status(victim);
    for _ in 0..2 {
        cluster.crash(victim);
        // A member that knows of the lost data is silent, and a candidate asks.
        cluster.cut = vec![victim];
        cluster.start(victim);
        assert_eq!(cluster.status(victim).halted, why, "at once");
        for _ in 0..50 {
            cluster.tick();
        }
        assert_takes_no_part(&mut cluster, victim, leader);
    }
    assert_eq!(cluster.status(victim).term, term, "it has not stood for election");
}

/// An acknowledged write is on a quorum, and the other members learn that with the next heartbeat.
#[test]
fn who_is_left_keeps_what_was_acknowledged_and_nobody_has_told_it_so() {
    let mut cluster = Cluster::new(3, 14);
    cluster.until("a leader", |cluster| cluster.leader().is_some());
    cluster.settle();
    let leader = cluster.leader().expect("it is settled");
    let left = if leader == 1 { 2 } else { 1 };
    let mut answer = cluster.put(leader, "k", "v");
    cluster.turn(leader);
    cluster.deliver();
    cluster.deliver();
    assert_eq!(answer.try_recv(), Ok(Ok(ProposalOutcome::Written { found: false })));
    assert!(cluster.status(left).commit < cluster.status(leader).commit, "it has not heard of it");
    (1..=3).for_each(|id| cluster.crash(id));
    cluster.flying.clear();

    let config = Config { data_dir: cluster.path(left), ..Config::default() };
    let mut store = Store::open(&Files::default(), &cluster.path(left), 2).expect("it opens");
    let met = Incarnation { directory: DirectoryId(7), boot: 1, nonce: 7 };
    store.meet(MemberId(leader), met, &[]).expect("room");
    let forced = Forced::of(&config, &store, MemberId(left)).expect("it has data");
    forced.write(&config, &mut store).expect("room");
    drop(store);
    cluster.start(left);
    cluster.until("it leads", |cluster| cluster.leader() == Some(left));
    assert_eq!(cluster.value(left, "k"), Some(b"v".to_vec()));
    let membership = cluster.running[&left].shared.membership.load_full();
    assert_eq!(membership.iter().map(|member| member.id.0).collect::<Vec<_>>(), [left]);
    for gone in (1..=3).filter(|id| *id != left) {
        assert!(membership.is_removed(MemberId(gone)), "{gone} never comes back under its ID");
    }
    assert_eq!(cluster.running[&left].core.raw.store().met().len(), 0, "whom it had met is forgotten");
    let after = cluster.put(left, "after", "v");
    assert_eq!(cluster.answer(after), Ok(ProposalOutcome::Written { found: false }));
}

/// A remaining learner is promoted; a halt ends; an entry that would remove the remaining member is not kept; and a
/// repetition changes nothing.
#[test]
fn a_new_cluster_is_forced_of_a_learner_that_has_halted_and_was_about_to_be_removed() {
    let mut cluster = Cluster::new(1, 15);
    let learner = cluster.change(1, ConfChangeType::ConfChangeAddLearnerNode, &record(2));
    assert_eq!(cluster.answer(learner), Ok(ProposalOutcome::Membership));
    let joined = vec![record(1), record(2)];
    let mut store = Store::open(&Files::default(), &cluster.path(2), 2).expect("a new store");
    let identity = StoredIdentity { member: 2, cluster: CLUSTER.0, name: "2".into(), token: "t".into(), joined };
    store
        .bootstrap(&identity, &[], &raft_rs::conf_state_from_raftpb(ConfState::default()), &Membership::default())
        .expect("room");
    let config = Config { data_dir: cluster.path(2), ..Config::default() };
    let nothing = Forced::of(&config, &store, MemberId(2)).expect_err("it has heard nothing yet").to_string();
    assert!(nothing.contains("has no data of a cluster"), "{nothing}");
    drop(store);
    cluster.start(2);
    cluster.settle();
    cluster.crash(1);
    cluster.crash(2);

    let mut store = Store::open(&Files::default(), &cluster.path(2), 2).expect("it opens");
    let (last, term) = (store.first_and_last_index().1, 2);
    let command = Command::Put { key: "k".into(), value: "v".into() };
    let put = Request { id: RequestId { member: 1, boot: 9, counter: 1 }, command }.encode();
    let removal = conf_change(0, ConfChangeType::ConfChangeRemoveNode, &record(2)).encode_to_vec().into();
    let tail = [(0, put.clone()), (1, removal), (0, put)].into_iter().zip(last + 1..).map(|((kind, data), index)| {
        raft_rs::entry_from_raftpb(Entry { r#type: kind, term, index, data }).expect("a good entry")
    });
    store.save(tail.collect(), None, true).expect("room");
    store.halt("for this test").expect("room");
    for once in [true, false] {
        let forced = Forced::of(&config, &store, MemberId(2)).expect("it has data");
        forced.write(&config, &mut store).expect("room");
        assert_eq!(store.halted().expect("readable"), None);
        assert!(store.is_forced().expect("readable"));
        let after = raft::Storage::initial_state(&store).expect("in memory").hard_state;
        // The put, a leader's first entry, the promotion, and the removal of the other member; then another leader's
        // first entry.
        let entries = if once { 4 } else { 5 };
        assert_eq!((after.commit, after.vote), (last + entries, 2));
    }
    drop(store);
    cluster.start(2);
    cluster.until("it leads", |cluster| cluster.leader() == Some(2));
    assert_eq!(cluster.value(2, "k"), Some(b"v".to_vec()));
    assert!(!cluster.status(2).is_learner);
}

/// Three members. Two of them had everything that was written; both lose power, and one of them also its disk. Then the
/// third comes back, which knew none of it. `late` says whether the third was up for a moment before. Returns the
/// member that kept everything, and the leader of the others.
fn two_histories(seed: u64, late: bool) -> (Cluster, u64, u64) {
    let mut cluster = Cluster::new(3, seed);
    if late {
        cluster.until("a leader", |cluster| cluster.leader().is_some());
        cluster.settle();
    } else {
        cluster.crash(3);
    }
    cluster.until("a leader", |cluster| cluster.leader().is_some());
    let kept = cluster.leader().expect("there is one");
    let away = if late { (1..=3).find(|id| *id != kept).expect("three") } else { 3 };
    if late {
        cluster.crash(away);
    }
    let wiped = (1..=3).find(|id| ![kept, away].contains(id)).expect("three");
    for round in 0..20 {
        let answer = cluster.put(kept, &format!("k{round}"), "acknowledged");
        assert_eq!(cluster.answer(answer), Ok(ProposalOutcome::Written { found: false }));
    }
    cluster.settle();
    cluster.crash(kept);
    cluster.crash(wiped);
    std::fs::remove_dir_all(cluster.path(wiped)).expect("it is there");
    cluster.bootstrap(wiped, 3);
    cluster.start(wiped);
    cluster.start(away);
    cluster.until("a leader of the two", |cluster| cluster.leader().is_some());
    let leader = cluster.leader().expect("there is one");
    let answer = cluster.put(leader, "k0", "another");
    assert_eq!(cluster.answer(answer), Ok(ProposalOutcome::Written { found: false }), "what was acknowledged is gone");
    (cluster, kept, leader)
}

#[test]
fn two_histories_are_said_on_both_sides() {
    let mut seen = Vec::new();
    for seed in 30..36 {
        let (mut cluster, kept, leader) = two_histories(seed, seed % 2 == 0);
        let events = Events::default();
        cluster.start_with(kept, &events);
        let (before, after) = (cluster.status(kept).term, cluster.status(leader).term);
        cluster.until("it says so", |cluster| cluster.status(kept).halted.is_some());
        let status = cluster.status(kept);
        let words = status.two_histories.clone().expect("that is why");
        assert!(words.starts_with("two histories: ") && words.contains(&MemberId(leader).to_string()), "{words}");
        let failing: Vec<_> = status
            .checks(|_| None)
            .into_iter()
            .filter(|check| check.failure.is_some())
            .map(|check| check.name)
            .collect();
        assert_eq!(failing, ["takes_part", "leader", "caught_up", "one_history"]);
        let event = events.after(0).into_iter().find(|event| event.kind == EventKind::TwoHistories);
        assert_eq!(event.and_then(|event| event.peer), Some(MemberId(leader)));
        assert!(cluster.running[&kept].shared.histories().two);
        let cause = if before == after { "differs" } else { "contradicts_committed" };
        assert_eq!(cluster.running[&kept].shared.histories().refused.of(cause), 1, "{words}");
        let theirs = cluster.status(leader).two_histories.expect("the leader sees that it lacks what was committed");
        assert!(theirs.contains(&MemberId(kept).to_string()), "{theirs}");
        assert_eq!(cluster.status(leader).halted, None, "one member alone does not end it");
        // It keeps its data, and says the same after a restart.
        assert_eq!(cluster.value(kept, "k0"), Some(b"acknowledged".to_vec()));
        let (waiter, mut read) = oneshot::channel();
        cluster.running.get_mut(&kept).expect("it stays up").core.read(waiter);
        cluster.tick();
        assert!(read.try_recv().is_err(), "nor does it serve it as what all have");
        cluster.crash(kept);
        cluster.start(kept);
        assert_eq!(cluster.status(kept).two_histories, Some(words));
        // Once it is removed, the others have one history.
        let removed = cluster.change(leader, ConfChangeType::ConfChangeRemoveNode, &record(kept));
        assert_eq!(cluster.answer(removed), Ok(ProposalOutcome::Membership));
        cluster.tick();
        assert_eq!(cluster.status(leader).two_histories, None);
        seen.push(cause);
    }
    assert!(seen.contains(&"differs") && seen.contains(&"contradicts_committed"), "{seen:?}");
}

/// Anyone who can reach the port can POST in a leader's name.
#[test]
fn what_is_posted_and_contradicts_is_refused_and_counted_and_halts_nobody() {
    let mut cluster = Cluster::new(3, 37);
    let answer = cluster.put(1, "k", "v");
    cluster.answer(answer).expect("written");
    cluster.settle();
    let leader = cluster.leader().expect("it is settled");
    let follower = if leader == 1 { 2 } else { 1 };
    let status = cluster.status(follower);
    let contradicting = Message {
        r#type: MessageType::MsgApp as i32,
        from: leader,
        to: follower,
        term: status.term + 1,
        log_term: status.term + 1,
        index: status.commit,
        ..Message::default()
    };
    let member = cluster.running.get_mut(&follower).expect("it runs");
    assert!(member.core.step(MemberId(leader), Source::Anyone, contradicting).is_err());
    assert_eq!(member.shared.histories().refused.of("contradicts_committed"), 1);
    for _ in 0..40 {
        cluster.tick();
        assert!(cluster.status(follower).followed.is_some_and(|followed| cluster.now - followed <= TICK));
    }
    let status = cluster.status(follower);
    assert_eq!((status.halted, status.two_histories), (None, None));
}

#[test]
fn an_election_does_not_make_a_member_that_is_caught_up_one_that_is_not() {
    for seed in 40..46 {
        let mut cluster = Cluster::new(3, seed);
        cluster.settle();
        let gone = cluster.leader().expect("it is settled");
        cluster.crash(gone);
        for _ in 0..100 {
            cluster.tick();
            for id in cluster.running.keys() {
                let status = cluster.status(*id);
                let since = cluster.now - status.followed.expect("it had followed");
                assert!(since <= status.patience, "seed {seed}: {since:?}");
            }
        }
        let left = *cluster.running.keys().next().expect("two are left");
        cluster.crash(left);
        let alone = *cluster.running.keys().next().expect("one is left");
        for _ in 0..60 {
            cluster.tick();
        }
        let status = cluster.status(alone);
        assert!(cluster.now - status.followed.expect("it had") > status.patience, "alone, it follows nobody");
    }
}

/// Messages that an enemy or a broken peer might send: almost correct, and wrong in every possible way.
#[test]
fn no_message_from_the_network_ends_the_process() {
    let mut cluster = Cluster::new(3, 11);
    let answer = cluster.put(1, "k", "v");
    cluster.answer(answer).expect("written");
    cluster.settle();
    let mut taken = 0;
    for round in 0..30_000 {
        let id = 1 + round % 3;
        if cluster.status(id).halted.is_some() {
            cluster.crash(id);
            Store::open(&Files::default(), &cluster.path(id), 2).expect("it opens").forget_halt();
            cluster.start(id);
        }
        let (status, from) = (cluster.status(id), cluster.random.random_range(0..6));
        let message = odd_message(&mut cluster.random, id, from, &status);
        // The messages of a broken member come on its streams, those of an enemy by POST.
        let source = if cluster.random.random_range(0..2) == 0 { Source::Member } else { Source::Anyone };
        let member = cluster.running.get_mut(&id).expect("it runs");
        if member.core.must_turn_before(message.r#type) {
            cluster.turn(id);
        }
        let member = cluster.running.get_mut(&id).expect("it runs");
        // This is what raft would fail on in a snapshot's message. Its body has tests of its own.
        let taken_now = if message.r#type == MessageType::MsgSnap as i32 {
            let sender = guard::MessageSender { peer: MemberId(from), source, nobody_vouches: false };
            let fits = guard::check(&member.core.raw.raft, sender, &message, 1 << 20).is_ok();
            let body = fits.then(|| body_of(&cluster.directory, &message, &member.core.raw.store().builder(0)));
            body.is_some_and(|body| member.core.step_snapshot(MemberId(from), message.clone(), body).is_ok())
        } else {
            member.core.step(MemberId(from), source, message).is_ok()
        };
        taken += usize::from(taken_now);
        assert!(source == Source::Member || cluster.status(id).halted.is_none(), "halted by a POST");
        match cluster.random.random_range(0..8) {
            0 => cluster.tick(),
            1 | 2 => cluster.turn(id),
            _ => {}
        }
        if !cluster.stopped.is_empty() {
            // The member was made to apply its own removal, so a new cluster begins.
            let seed = cluster.random.random();
            cluster = Cluster::new(3, seed);
            cluster.until("a leader", |cluster| cluster.leader().is_some());
        }
    }
    assert!(taken > 1000, "only {taken} were near enough to be taken");
}

/// A body that matches its message.
fn body_of(directory: &tempfile::TempDir, message: &Message, builder: &IncomingBuilder) -> Received {
    let snapshot = message.snapshot.clone().expect("it is a MsgSnap");
    let metadata = snapshot.metadata.clone().expect("it was checked");
    let state = metadata.conf_state.clone().expect("it was checked");
    let mut membership = Membership::default();
    for (id, kind) in state.voters.iter().map(|id| (*id, ConfChangeType::ConfChangeAddNode)) {
        membership.apply(&conf_change(0, kind, &record(id))).expect("a new member");
    }
    let path = directory.path().join("made");
    std::fs::write(&path, snapshot::made(CLUSTER.0, metadata.index, metadata.term, &membership)).expect("room");
    Received::take(&Files::default(), &path, CLUSTER.0, &snapshot, builder, || true).expect("whole")
}

fn odd_message(random: &mut StdRng, to: u64, from: u64, status: &RaftStatus) -> Message {
    let near = |random: &mut StdRng, middle: u64| match random.random_range(0..20) {
        0 => 0,
        1 => u64::MAX,
        2 => random.next_u64(),
        3..8 => middle,
        _ => middle.saturating_add(random.random_range(0..5)).saturating_sub(2),
    };
    let kind = random.random_range(0..26);
    let index = near(random, status.last_index);
    let local = matches!(kind, 2 | 15);
    let term = if local && random.random_range(0..4) > 0 { 0 } else { near(random, status.term) };
    let mut message = Message {
        r#type: kind,
        to,
        from,
        term,
        index,
        log_term: near(random, status.term),
        commit: near(random, status.commit),
        reject: random.random_range(0..3) == 0,
        reject_hint: near(random, status.last_index),
        context: vec![7; random.random_range(0..3) * 12].into(),
        ..Message::default()
    };
    for place in 0..random.random_range(0..4) {
        let sane = random.random_range(0..4) > 0;
        let next = index.saturating_add(1 + place);
        let term = if sane { term } else { near(random, term) };
        let next = if sane { next } else { near(random, next) };
        message.entries.push(odd_entry(random, next, term));
    }
    if kind == 7 {
        let voters = (0..random.random_range(0..4)).map(|_| random.random_range(0..5)).collect();
        let conf_state = Some(ConfState { voters, ..ConfState::default() });
        let metadata = SnapshotMetadata { conf_state, index, term: near(random, status.term) };
        message.snapshot = Some(Snapshot { data: Bytes::new(), metadata: Some(metadata) }.into());
    }
    message
}

fn odd_entry(random: &mut StdRng, index: u64, term: u64) -> Entry {
    let member = record(random.random_range(0..6));
    let data: Bytes = match random.random_range(0..6) {
        0 => Bytes::new(),
        1 => vec![random.random(); 40].into(),
        2 => "garbage".into(),
        3 => conf_change(1, ConfChangeType::ConfChangeAddLearnerNode, &member).encode_to_vec().into(),
        4 => conf_change(1, ConfChangeType::ConfChangeUpdateNode, &member).encode_to_vec().into(),
        _ => {
            let id = RequestId { member: 9, boot: 1, counter: index };
            Request { id, command: Command::Delete { key: "k".into() } }.encode()
        }
    };
    Entry { r#type: random.random_range(0..4), term, index, data }
}
