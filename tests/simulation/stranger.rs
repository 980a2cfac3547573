//! A stranger: whoever reaches a peer port without being a member, and without anything to show for it.

use std::{net::SocketAddr, time::Duration};

use prost::Message as _;
use rafthttp::{
    internals::world::Network as _,
    wire::raftpb::{Message, MessageType},
};
use rand::{RngExt as _, seq::IndexedRandom as _};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};

use super::{
    member::{Member, PEER_PORT},
    run::Simulation,
};

/// How long it waits for an answer.
const PATIENCE: Duration = Duration::from_secs(2);

impl Simulation {
    /// A stranger posts a few messages to a member, in its own name or in another member's.
    ///
    /// Only what the documents promise to pass over: a stranger that knows a member's name can append entries in it, as
    /// with etcd, and only TLS keeps it from that.
    pub fn let_a_stranger_speak(&mut self, victim: usize) {
        let Some(node) = self.members[victim].node() else { return };
        let status = node.raft_status();
        let id = |member: &Member| Some(member.node()?.raft_status().id.0);
        let others: Vec<u64> = self.staying().filter(|one| one.host != victim).filter_map(id).collect();
        let invented = self.random.random_range(1..=u64::MAX / 2);
        let from =
            others.choose(&mut self.random).copied().filter(|_| self.random.random_bool(0.3)).unwrap_or(invented);
        let kind = *[MessageType::MsgHeartbeat, MessageType::MsgHeartbeat, MessageType::MsgPreVote]
            .choose(&mut self.random)
            .expect("some");
        let messages: Vec<Message> = (0..2)
            .map(|place| Message {
                r#type: kind as i32,
                from,
                to: status.id.0,
                term: status.term + 1,
                // First nothing, so that it is heard, and then more than anybody has.
                commit: if kind == MessageType::MsgHeartbeat { place * (status.last_index + 1000) } else { 0 },
                ..Message::default()
            })
            .collect();
        self.say(&format!("a stranger posts {kind:?} to {} as {from:x}", self.members[victim].name));
        let cluster = status.cluster.to_string();
        let (place, address) = (self.asking.place.clone(), self.around.net.address(victim));
        self.clients.spawn(async move {
            for message in messages {
                let Ok(Ok(mut stream)) = timeout(PATIENCE, place.connect(SocketAddr::new(address, PEER_PORT))).await
                else {
                    return;
                };
                let body = message.encode_to_vec();
                let head = format!(
                    "POST /raft HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Server-From: {from:x}\r\n\
                     X-Server-Version: 3.6.0\r\nX-Min-Cluster-Version: 3.0.0\r\nX-Etcd-Cluster-ID: {cluster}\r\n\
                     Content-Length: {}\r\n\r\n",
                    body.len()
                );
                let asked = async {
                    stream.write_all(&[head.as_bytes(), &body].concat()).await?;
                    stream.read_to_end(&mut Vec::new()).await
                };
                // Whether it is heard is not its business.
                let _ = timeout(PATIENCE, asked).await;
            }
        });
    }
}
