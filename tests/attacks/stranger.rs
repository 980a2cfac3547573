//! A stranger: a client that belongs to no cluster, can reach a peer port, and sends whatever it likes.

use http::StatusCode;
use prost::Message as _;
use rafthttp::wire::raftpb::{Message, MessageType};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::process::Cluster;

/// A member that nobody knows.
pub(crate) const STRANGER: u64 = 0x5747_a06e;

/// What a stranger has found out: the IDs, which every probe and refusal tells.
pub(crate) struct Target {
    authority: String,
    pub(crate) id: u64,
    pub(crate) cluster: String,
}

impl Target {
    pub(crate) async fn of(cluster: &Cluster, member: usize) -> Self {
        let status = cluster.status(member).await.expect("it answers its clients");
        let id = status["id"].as_str().expect("an ID");
        Self {
            authority: cluster.members[member].peer.trim_start_matches("http://").to_owned(),
            id: u64::from_str_radix(id, 16).expect("hexadecimal"),
            cluster: status["cluster"].as_str().expect("an ID").to_owned(),
        }
    }

    /// A message to this member.
    pub(crate) fn message(&self, kind: MessageType, from: u64, term: u64) -> Message {
        Message { r#type: kind as i32, from, to: self.id, term, ..Message::default() }
    }

    /// `POST /raft` with a message, in the name of its sender, and whatever else the head is to say.
    pub(crate) async fn post(&self, message: &Message, headers: &str) -> StatusCode {
        let body = message.encode_to_vec();
        self.ask("POST /raft", message.from, &format!("Content-Length: {}\r\n{headers}", body.len()), &body).await.0
    }

    /// `POST /raft` from each of these senders, each with a heartbeat and these URLs, over a few connections.
    pub(crate) async fn invent(&self, senders: std::ops::Range<u64>, term: u64, urls: &str) {
        let at_a_time = 8;
        let shares = (0..at_a_time)
            .map(|first| self.invent_one_by_one(senders.clone().skip(first).step_by(at_a_time), term, urls));
        futures_util::future::join_all(shares).await;
    }

    async fn invent_one_by_one(&self, senders: impl Iterator<Item = u64>, term: u64, urls: &str) {
        let mut stream = TcpStream::connect(&self.authority).await.expect("it listens");
        for sender in senders {
            let body = self.message(MessageType::MsgHeartbeat, sender, term).encode_to_vec();
            let headers = format!("Content-Length: {}\r\nX-PeerURLs: {urls}\r\n", body.len());
            let head = self.head("POST /raft", sender, &headers).replace("Connection: close\r\n", "");
            stream.write_all(&[head.as_bytes(), &body].concat()).await.expect("it reads");
            // A busy member says so, and closes the connection.
            if read_answer(&mut stream).await.contains("connection: close") {
                stream = TcpStream::connect(&self.authority).await.expect("it listens");
            }
        }
    }

    /// Begins a `POST /raft/snapshot` that announces a body of `length` bytes: sends the frame of `message`, and
    /// `body`.
    pub(crate) async fn begin_snapshot(&self, message: &Message, length: usize, body: &[u8]) -> TcpStream {
        let envelope = message.encode_to_vec();
        let frame = [&(envelope.len() as u64).to_be_bytes()[..], &envelope].concat();
        let headers = format!("Content-Length: {}\r\n", frame.len() + length);
        let head = self.head("POST /raft/snapshot", message.from, &headers);
        let mut stream = TcpStream::connect(&self.authority).await.expect("it listens");
        stream.write_all(&[head.as_bytes(), &frame, body].concat()).await.expect("it reads");
        stream
    }

    /// A request as this cluster's members make it.
    pub(crate) async fn ask(&self, what: &str, from: u64, headers: &str, body: &[u8]) -> (StatusCode, String) {
        let head = self.head(what, from, headers);
        let mut stream = TcpStream::connect(&self.authority).await.expect("it listens");
        stream.write_all(&[head.as_bytes(), body].concat()).await.expect("it reads");
        answer(&mut stream).await
    }

    fn head(&self, what: &str, from: u64, headers: &str) -> String {
        format!(
            "{what} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Server-From: {from:x}\r\nX-Server-Version: 3.6.0\r\n\
             X-Min-Cluster-Version: 3.0.0\r\nX-Etcd-Cluster-ID: {}\r\n{headers}\r\n",
            self.cluster
        )
    }
}

/// Reads one answer of a connection that may stay open: its head, in lower case.
async fn read_answer(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&answer).to_ascii_lowercase();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
            if body.len() >= length.unwrap_or(0) {
                return head.to_owned();
            }
        }
        assert!(stream.read_buf(&mut answer).await.expect("it answers") > 0, "it closed the connection: {text}");
    }
}

/// What a connection is answered until it is closed.
pub(crate) async fn answer(stream: &mut TcpStream) -> (StatusCode, String) {
    let mut answer = Vec::new();
    // Who is refused may find the connection reset behind the answer.
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("an answer");
    (status, answer)
}
