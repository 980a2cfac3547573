//! The smallest cluster: a replicated map on raft-rs, three members, each with a transport of its own.
//!
//! `cargo run --example cluster` elects a leader, puts a key by each member, stops member 1, and goes on with the rest.
//! Yours adds a log on disk (`Member::turn` says what is synced when), snapshots once that log is cut, and mTLS.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures_util::{FutureExt as _, future::try_join_all};
use raft::{Config, RawNode, eraftpb::MessageType as Type, storage::MemStorage};
use rafthttp::{
    ClusterId, Critical, MemberId, PeerUrl, Raft, Rejected, Rejection, RejectionKind, SnapshotStatus, Source,
    Transport, raft_rs, wire::raftpb,
};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::{task::JoinSet, time};
use tokio_util::sync::CancellationToken;

/// raft-rs's clock. By its defaults a leader sends a heartbeat every 2 ticks, and an election begins after 20 without.
const TICK: Duration = Duration::from_millis(25);
type Map = BTreeMap<String, String>;
type Failure = Box<dyn std::error::Error + Send + Sync>;

enum Input {
    Messages(MemberId, Vec<raftpb::Message>, oneshot::Sender<Result<(), Rejected>>),
    Put(String),
    Unreachable(MemberId),
}

/// The transport's way to raft.
struct Inlet(mpsc::Sender<Input>);

#[async_trait::async_trait]
impl Raft for Inlet {
    async fn process(&self, from: MemberId, _: Source, batch: Vec<raftpb::Message>) -> Result<(), Rejected> {
        let (count, (reply, answer)) = (batch.len(), oneshot::channel());
        // This waits for room: meanwhile the transport keeps what arrives, within its limits.
        let _ = self.0.send(Input::Messages(from, batch, reply)).await;
        answer.await.unwrap_or_else(|_| rejected((0..count).map(|n| (n, "this member has stopped".to_owned()))))
    }
    fn is_removed(&self, _: MemberId) -> bool {
        false // nobody is ever removed here
    }
    fn report_unreachable(&self, id: MemberId) {
        let _ = self.0.try_send(Input::Unreachable(id)); // must not wait; the next failure brings another
    }
    fn report_snapshot(&self, _: MemberId, _: SnapshotStatus) {} // no log is cut here, so no snapshot is sent
    fn critical(&self, error: Critical) {
        eprintln!("{error}"); // this member was removed: its ID is never used again
        std::process::exit(3);
    }
}

fn rejected(which: impl Iterator<Item = (usize, String)>) -> Result<(), Rejected> {
    let list: Vec<_> = which.map(|(position, why)| Rejection { position, kind: RejectionKind::Refused, why }).collect();
    if list.is_empty() { Ok(()) } else { Err(Rejected(list)) }
}

/// Raft's task. Nothing else touches raft or its log.
struct Member {
    raft: RawNode<MemStorage>,
    transport: Transport,
    map: watch::Sender<Map>,
}

impl Member {
    async fn run(mut self, mut inbox: mpsc::Receiver<Input>, stop: CancellationToken) -> Result<(), Failure> {
        let mut ticks = time::interval(TICK);
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                _ = ticks.tick() => drop(self.raft.tick()),
                Some(input) = inbox.recv() => self.take(input),
            }
            while self.raft.has_ready() {
                self.turn()?;
            }
        }
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Messages(from, batch, reply) => {
                let steps = batch.into_iter().map(|message| self.step(from, message)).enumerate();
                let _ = reply.send(rejected(steps.filter_map(|(n, step)| Some((n, step.err()?.to_string())))));
            }
            // Raft drops it while nobody leads, and it may be lost on its way to a leader: `put` tries again.
            Input::Put(pair) => drop(self.raft.propose(Vec::new(), pair.into_bytes())),
            Input::Unreachable(id) => self.raft.report_unreachable(id.0),
        }
    }

    fn step(&mut self, from: MemberId, message: raftpb::Message) -> Result<(), Failure> {
        let (message, raft) = (raft_rs::message_from_raftpb(message)?, &self.raft.raft);
        let (kind, last) = (message.msg_type, raft.raft_log.last_index());
        let mut places = (message.index.saturating_add(1)..).zip(&message.entries);
        // raft-rs panics on messages that no raft sends. The likeliest stop here; mTLS keeps out who would send others.
        let fits = match kind {
            Type::MsgPropose => message.term == 0 && !message.entries.is_empty(), // a follower passes these on
            _ if (message.to, message.from) != (raft.id, from.0) || message.term == 0 => false,
            Type::MsgHeartbeat => message.commit <= last,
            Type::MsgAppend => places.all(|(place, entry)| entry.index == place),
            Type::MsgAppendResponse => message.reject || message.index <= last,
            _ => kind != Type::MsgSnapshot, // no log is cut here, so no snapshot is sent
        };
        if fits { Ok(self.raft.step(message)?) } else { Err(format!("raft cannot take this {kind:?}").into()) }
    }

    fn turn(&mut self) -> Result<(), Failure> {
        let (mut ready, log) = (self.raft.ready(), self.raft.store().clone());
        let (mut messages, mut committed) = (ready.take_messages(), ready.take_committed_entries());
        if let Some(soft) = ready.ss().filter(|soft| soft.leader_id != 0) {
            println!("member {}: member {} leads", self.raft.raft.id, soft.leader_id);
        }
        log.wl().append(ready.entries())?;
        if let Some(hard) = ready.hs() {
            log.wl().set_hardstate(hard.clone());
        }
        // Messages promise that entries, term and vote are kept: a log on disk is synced here, before any of them goes.
        messages.append(&mut ready.take_persisted_messages());
        let mut light = self.raft.advance(ready);
        messages.append(&mut light.take_messages());
        committed.append(&mut light.take_committed_entries());
        if let Some(commit) = light.commit_index() {
            log.wl().mut_hard_state().set_commit(commit);
        }
        self.transport.send(raft_rs::messages_to_raftpb(messages)?);
        let pairs = committed.iter().filter_map(|entry| str::from_utf8(&entry.data).ok()?.split_once('='));
        self.map.send_modify(|map| map.extend(pairs.map(|(key, value)| (key.to_owned(), value.to_owned()))));
        self.raft.advance_apply();
        Ok(())
    }
}

struct Handle {
    transport: Transport,
    inbox: mpsc::Sender<Input>,
    map: watch::Receiver<Map>,
    stop: CancellationToken,
    tasks: JoinSet<Result<(), Failure>>,
}

impl Handle {
    fn start(id: u64, listener: TcpListener, urls: &BTreeMap<u64, PeerUrl>) -> Result<Self, Failure> {
        let (stop, (inbox, inputs)) = (CancellationToken::new(), mpsc::channel(1024));
        let (sender, map) = watch::channel(Map::new());
        let builder = Transport::builder(MemberId(id), ClusterId(0x1000), Arc::new(Inlet(inbox.clone())));
        let transport = builder.urls(vec![urls[&id].clone()]).build()?;
        for (&peer, url) in urls.iter().filter(|(peer, _)| **peer != id) {
            transport.add_peer(MemberId(peer), vec![url.clone()])?;
        }
        let config = Config { id, check_quorum: true, pre_vote: true, ..Config::default() };
        let log = MemStorage::new_with_conf_state((urls.keys().copied().collect::<Vec<_>>(), vec![]));
        let raft = RawNode::new(&config, log, &slog::Logger::root(slog::Discard, slog::o!()))?;
        let member = Member { raft, transport: transport.clone(), map: sender };
        let (mut tasks, app) = (JoinSet::new(), rafthttp::router(&transport));
        tasks.spawn(member.run(inputs, stop.clone()));
        tasks.spawn(rafthttp::serve(listener, app, stop.clone()).map(Ok));
        Ok(Self { transport, inbox, map, stop, tasks })
    }

    /// Puts a key, and returns once this member has applied it.
    async fn put(&mut self, key: &str, value: &str) -> Result<(), Failure> {
        loop {
            self.inbox.send(Input::Put(format!("{key}={value}"))).await?;
            let applied = self.map.wait_for(|map| map.get(key).is_some_and(|it| it == value));
            if time::timeout(40 * TICK, applied).await.is_ok_and(|applied| applied.is_ok()) {
                return Ok(());
            }
        }
    }

    async fn stop(self) -> Result<(), Failure> {
        self.transport.stop().await; // ends every stream cleanly
        self.stop.cancel();
        self.tasks.join_all().await.into_iter().collect()
    }
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let (mut listeners, mut urls, mut members) = (Vec::new(), BTreeMap::new(), Vec::new());
    for id in 1..=3 {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        urls.insert(id, format!("http://{}", listener.local_addr()?).parse()?);
        listeners.push((id, listener));
    }
    for (id, listener) in listeners {
        members.push(Handle::start(id, listener, &urls)?);
    }
    for (id, member) in (1..).zip(&mut members) {
        member.put(&format!("put-by-{id}"), "hello").await?; // a follower's goes to the leader
    }
    members.remove(0).stop().await?;
    members[0].put("later", "hello again").await?;
    for member in &mut members {
        println!("a member has {:?}", *member.map.wait_for(|map| map.len() == 4).await?);
    }
    try_join_all(members.into_iter().map(Handle::stop)).await.map(drop)
}
