//! The peer port: a few connections, on which anything is said in any order.

use std::time::Duration;

use prost::Message as _;
use rafthttp::{internals::world::ByteStream, wire::raftpb::Message};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::{sleep, timeout},
};

use super::{
    member::{CLUSTER, Member, Mood, PEER, nothing_is_left, simulate, until_idle, url},
    memory::Memory,
    script::{Step, steps},
};

/// The most connections at a time.
const CONNECTIONS: usize = 8;
/// How long a step waits for the other side: it need not read or write.
const PATIENCE: Duration = Duration::from_millis(20);
/// What a step can wait for.
const WAITS: [u64; 8] = [1, 10, 50, 200, 1000, 3000, 6000, 12_000];
/// What is asked by a step that writes a whole request.
const ASKED: [&str; 8] = [
    "POST /raft",
    "POST /raft/snapshot",
    "GET /raft/stream/message/2",
    "GET /raft/stream/msgapp/2",
    "GET /raft/probing",
    "GET /members",
    "GET /version",
    "GET /raft/stream",
];

/// The clients, and the member that they talk to.
struct Scene {
    memory: Memory,
    member: Member,
    connections: Vec<Box<dyn ByteStream>>,
}

/// Whatever is said on the peer port: nobody panics, the ledger's laws hold after each step, no bound is exceeded, and
/// when it is over, nothing is left of it.
pub fn router(data: &[u8]) {
    simulate(async {
        let memory = Memory::default();
        let member = Member::start(&memory, None, |_, builder| builder).await;
        member.add_peer();
        let mut scene = Scene { memory, member, connections: Vec::new() };
        for step in steps(data) {
            scene.take(step).await;
            until_idle().await;
            scene.member.check();
        }
        let Scene { memory, member, connections } = scene;
        member.stop().await;
        drop(connections);
        nothing_is_left(&memory).await;
    });
}

impl Scene {
    async fn take(&mut self, step: Step<'_>) {
        match step.what % 12 {
            0 => self.dial(step.how).await,
            1 => self.write(step.how, step.bytes).await,
            2 => {
                let chunk = [format!("{:x}\r\n", step.bytes.len()).as_bytes(), step.bytes, b"\r\n"].concat();
                self.write(step.how, &chunk).await;
            }
            3 => self.ask(step).await,
            4 => {
                if let Some(connection) = self.at(step.how) {
                    let _ = timeout(PATIENCE, connection.shutdown()).await;
                }
            }
            5 if !self.connections.is_empty() => {
                let at = usize::from(step.how) % self.connections.len();
                drop(self.connections.swap_remove(at));
            }
            6 => sleep(Duration::from_millis(WAITS[usize::from(step.how % 8)])).await,
            7 => self.read(step.how).await,
            8 => {
                if let Ok(message) = Message::decode(step.bytes) {
                    self.member.transport.send(vec![Message { to: u64::from(step.how % 4), ..message }]);
                }
            }
            9 => self.change_members(step.how),
            10 => {
                let moods = [Mood::Takes, Mood::Refuses, Mood::Waits];
                self.member.raft.set(moods[usize::from(step.how) % moods.len()]);
                self.member.raft.set_removed(step.how & 0x80 != 0);
            }
            11 if step.how.is_multiple_of(2) => self.memory.cut(),
            11 => self.memory.heal(),
            _ => {}
        }
    }

    fn at(&mut self, number: u8) -> Option<&mut Box<dyn ByteStream>> {
        let count = self.connections.len();
        self.connections.get_mut(usize::from(number).checked_rem(count)?)
    }

    async fn dial(&mut self, how: u8) {
        if self.connections.len() < CONNECTIONS {
            let place = self.memory.place("client", [10, 0, 0, 2 + how % 4]);
            self.connections.extend(place.connect(([10, 0, 0, 1], 2380).into()).await.ok());
        }
    }

    /// Writes what the other side takes.
    async fn write(&mut self, number: u8, bytes: &[u8]) {
        if let Some(connection) = self.at(number) {
            let _ = timeout(PATIENCE, connection.write_all(bytes)).await;
        }
    }

    /// A whole request, as a member sends it, with the bytes as its body. `how`: three bits for what is asked, one each
    /// for chunks and for another sender than the peer, three for the connection.
    async fn ask(&mut self, step: Step<'_>) {
        let (what, from) = (ASKED[usize::from(step.how % 8)], if step.how & 16 == 0 { PEER.0 } else { 9 });
        let body = step.bytes;
        let (length, body) = if step.how & 8 == 0 {
            (format!("Content-Length: {}", body.len()), body.to_vec())
        } else {
            let chunk = |chunk: &[u8]| [format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat();
            let chunks: Vec<u8> = body.chunks(100).flat_map(chunk).collect();
            ("Transfer-Encoding: chunked".to_owned(), [&chunks[..], b"0\r\n\r\n"].concat())
        };
        let head = format!(
            "{what} HTTP/1.1\r\nHost: x\r\nX-Server-From: {from}\r\nX-Raft-To: 1\r\nX-Server-Version: 3.6.0\r\n\
             X-Min-Cluster-Version: 3.0.0\r\nX-Etcd-Cluster-ID: {CLUSTER}\r\nX-PeerURLs: {}\r\n\
             X-Rafthttp-Stream: 7\r\n{length}\r\n\r\n",
            url(2)
        );
        self.write(step.how >> 5, &[head.as_bytes(), &body].concat()).await;
    }

    /// Reads what is there: an answer begins as one.
    async fn read(&mut self, number: u8) {
        let Some(connection) = self.at(number) else { return };
        let mut bytes = [0; 8192];
        let mut read = 0;
        while let Ok(Ok(more @ 1..)) = timeout(PATIENCE, connection.read(&mut bytes[read..])).await {
            read += more;
        }
    }

    fn change_members(&self, how: u8) {
        let transport = &self.member.transport;
        match how % 5 {
            0 => transport.remove_peer(PEER),
            1 => drop(transport.add_peer(PEER, vec![url(2)])),
            2 => drop(transport.update_peer(PEER, vec![url(2), url(3)])),
            3 => transport.pause(),
            _ => transport.resume(),
        }
    }
}
