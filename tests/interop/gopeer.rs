//! A member on etcd's rafthttp, in a process of its own, driven over its standard input.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use prost::Message as _;
use rafthttp::{MemberId, PeerUrl, wire::raftpb::Message};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::{Instant, sleep},
};

use crate::scrape::Scrape;

/// Longer than any command takes on a machine that has other things to do.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct GoPeer {
    pub(crate) id: MemberId,
    pub(crate) url: PeerUrl,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    /// Received snapshots.
    directory: tempfile::TempDir,
    /// Killed when it is dropped; it ends by itself when its standard input does.
    _child: Child,
}

/// What it says of itself.
#[derive(Debug, Deserialize)]
pub(crate) struct State {
    /// Messages that its raft was given and nobody has taken yet.
    pub(crate) received: usize,
    /// Peers that it holds for active.
    pub(crate) active: Vec<u64>,
    /// How often each was reported unreachable.
    #[serde(default)]
    pub(crate) unreachable: BTreeMap<u64, u64>,
    pub(crate) snapshots: Vec<Snapshot>,
    /// Streams that its writers have taken over since it started. Its handler answers 200 first.
    pub(crate) attached: u64,
    /// What came out of its `ErrorC`.
    pub(crate) critical: Vec<String>,
}

/// A snapshot that it was told of, as etcd's raft is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Snapshot {
    pub(crate) id: u64,
    pub(crate) delivered: bool,
}

impl GoPeer {
    pub(crate) async fn start(program: &Path, id: u64, arguments: &[String]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut command = Command::new(program);
        command.args(["-role", "member", "-id", &id.to_string(), "-dir"]).arg(directory.path()).args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let stdin = child.stdin.take().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let (answer, _) = read_answer(&mut stdout).await;
        let url = answer["url"].as_str().unwrap().parse().unwrap();
        Self { id: MemberId(id), url, stdin, stdout, directory, _child: child }
    }

    pub(crate) async fn add_peer(&mut self, id: MemberId, url: &PeerUrl) {
        self.add_peer_at(id, std::slice::from_ref(url)).await;
    }

    pub(crate) async fn add_peer_at(&mut self, id: MemberId, urls: &[PeerUrl]) {
        self.with_urls("add peer", id, urls).await;
    }

    pub(crate) async fn update_peer(&mut self, id: MemberId, url: &PeerUrl) {
        self.with_urls("update peer", id, std::slice::from_ref(url)).await;
    }

    pub(crate) async fn add_remote(&mut self, id: MemberId, url: &PeerUrl) {
        self.with_urls("add remote", id, std::slice::from_ref(url)).await;
    }

    pub(crate) async fn remove_peer(&mut self, id: MemberId) {
        self.tell(json!({"do": "remove peer", "id": id.0})).await;
    }

    /// Its raft says from now on that this member was removed.
    pub(crate) async fn mark_removed(&mut self, id: MemberId) {
        self.tell(json!({"do": "is removed", "id": id.0, "on": true})).await;
    }

    /// Whether its raft refuses everything.
    pub(crate) async fn refuse(&mut self, on: bool) {
        self.tell(json!({"do": "refuse", "on": on})).await;
    }

    pub(crate) async fn pause(&mut self) {
        self.tell(json!({"do": "pause"})).await;
    }

    pub(crate) async fn resume(&mut self) {
        self.tell(json!({"do": "resume"})).await;
    }

    pub(crate) async fn cut_peer(&mut self, id: MemberId) {
        self.tell(json!({"do": "cut", "id": id.0})).await;
    }

    pub(crate) async fn mend_peer(&mut self, id: MemberId) {
        self.tell(json!({"do": "mend", "id": id.0})).await;
    }

    pub(crate) async fn send(&mut self, messages: &[Message]) {
        self.ask(json!({"do": "send"}), &frame(messages)).await;
    }

    /// Sends a snapshot whose body is the pattern of this seed and size, and whose source fails at `cut`, if that is not 0.
    pub(crate) async fn send_snapshot(&mut self, message: &Message, seed: u64, size: u64, cut: u64) {
        let command = json!({"do": "send snapshot", "seed": seed, "size": size, "cut": cut});
        self.ask(command, &frame(std::slice::from_ref(message))).await;
    }

    /// Where it saves the snapshot at this index.
    pub(crate) fn snapshot_path(&self, index: u64) -> PathBuf {
        self.directory.path().join(format!("{index:016x}.snap.db"))
    }

    /// What lies where it saves snapshots.
    pub(crate) fn snapshot_files(&self) -> usize {
        std::fs::read_dir(self.directory.path()).unwrap().count()
    }

    pub(crate) async fn state(&mut self) -> State {
        let (answer, _) = self.ask(json!({"do": "state"}), &[]).await;
        serde_json::from_value(answer).unwrap()
    }

    /// Waits until something is so, for half a minute at most.
    pub(crate) async fn until(&mut self, what: &str, holds: impl Fn(&State) -> bool) -> State {
        let start = Instant::now();
        loop {
            let state = self.state().await;
            if holds(&state) {
                return state;
            }
            assert!(start.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}: {state:?}");
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits for as many messages, and takes them, in the order in which its raft was given them.
    pub(crate) async fn take(&mut self, count: usize) -> Vec<Message> {
        let what = format!("{count} messages received");
        self.until(&what, |state| state.received >= count).await;
        let (_, body) = self.ask(json!({"do": "take received"}), &[]).await;
        let messages = unframe(&body);
        assert_eq!(messages.len(), count, "what was received");
        messages
    }

    pub(crate) async fn metrics(&mut self) -> Scrape {
        let (_, body) = self.ask(json!({"do": "metrics"}), &[]).await;
        Scrape::parse(std::str::from_utf8(&body).unwrap())
    }

    /// The lines of its log from the level of a warning on, since they were last taken.
    pub(crate) async fn take_log(&mut self) -> Vec<Value> {
        let (_, body) = self.ask(json!({"do": "take log"}), &[]).await;
        let lines = std::str::from_utf8(&body).unwrap().lines();
        lines.map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    async fn with_urls(&mut self, what: &str, id: MemberId, urls: &[PeerUrl]) {
        let urls: Vec<String> = urls.iter().map(ToString::to_string).collect();
        self.tell(json!({"do": what, "id": id.0, "urls": urls})).await;
    }

    async fn tell(&mut self, command: Value) {
        self.ask(command, &[]).await;
    }

    async fn ask(&mut self, mut command: Value, body: &[u8]) -> (Value, Vec<u8>) {
        command["bytes"] = body.len().into();
        let line = format!("{command}\n");
        // It reads a command whole before it answers.
        self.stdin.write_all(line.as_bytes()).await.unwrap();
        self.stdin.write_all(body).await.unwrap();
        self.stdin.flush().await.unwrap();
        let (answer, body) = read_answer(&mut self.stdout).await;
        assert!(answer.get("error").is_none(), "{line}: {answer}");
        (answer, body)
    }
}

async fn read_answer(stdout: &mut BufReader<ChildStdout>) -> (Value, Vec<u8>) {
    let reading = async {
        let mut line = String::new();
        stdout.read_line(&mut line).await.unwrap();
        let answer: Value = serde_json::from_str(&line).expect("it lives and answers in JSON");
        let mut body = vec![0; usize::try_from(answer["bytes"].as_u64().unwrap()).unwrap()];
        stdout.read_exact(&mut body).await.unwrap();
        (answer, body)
    };
    tokio::time::timeout(PATIENCE, reading).await.expect("an answer in time")
}

/// Framed as on etcd's message stream.
fn frame(messages: &[Message]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for message in messages {
        bytes.extend((message.encoded_len() as u64).to_be_bytes());
        message.encode(&mut bytes).unwrap();
    }
    bytes
}

fn unframe(mut bytes: &[u8]) -> Vec<Message> {
    let mut messages = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk() {
        let (message, rest) = rest.split_at(usize::try_from(u64::from_be_bytes(*length)).unwrap());
        messages.push(Message::decode(message).unwrap());
        bytes = rest;
    }
    messages
}
