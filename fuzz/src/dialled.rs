//! What a peer answers when it is dialled: streams, probes, messages and snapshots.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use prost::Message as _;
use rafthttp::{
    SnapshotBody, SnapshotStore,
    internals::world::{ByteStream, Disk},
    wire::raftpb::{Message, MessageType, Snapshot, SnapshotMetadata},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{
    disk::MemoryDisk,
    member::{CLUSTER, LOCAL, Member, Mood, PEER, nothing_is_left, simulate, until_idle},
    memory::Memory,
    script::{Step, steps},
};

/// The kinds of requests that are told apart, by the beginning of their first line.
const KINDS: [&[u8]; 5] = [
    b"GET /raft/stream/msgapp",
    b"GET /raft/stream/message",
    b"GET /raft/probing",
    b"POST /raft/snapshot",
    b"POST /raft ",
];
/// What a step can wait for.
const WAITS: [u64; 8] = [1, 10, 100, 500, 1000, 2000, 6000, 12_000];
/// Bits of how an answer is given: with the head of a good one before the bytes, in chunks, without an end, and slowly.
const WITH_HEAD: u8 = 1;
const CHUNKED: u8 = 2;
const OPEN: u8 = 4;
const SLOWLY: u8 = 8;

/// An answer that waits for a request of its kind.
struct Answer {
    how: u8,
    bytes: Vec<u8>,
}

/// The answers that were prepared, by kind.
type Prepared = Arc<Mutex<[VecDeque<Answer>; KINDS.len()]>>;

/// Whatever a peer answers: nobody panics, the ledger's laws hold after each step, no bound is exceeded, and when it is
/// over, nothing is left of it.
pub fn dialled(data: &[u8]) {
    simulate(async {
        let (memory, prepared) = (Memory::default(), Prepared::default());
        let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::default());
        let member = Member::start(&memory, None, |world, builder| {
            let store = SnapshotStore::open_in(world.clone().with_disk(disk), "/snap").expect("a store");
            builder.snapshots(store)
        });
        let member = member.await;
        let port = memory.place("member-2", [10, 0, 0, 2]).listen("member-2", 2380).await.expect("it is free");
        let answers = prepared.clone();
        let peer = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = port.accept().await {
                connections.spawn(serve(stream, answers.clone()));
                while connections.try_join_next().is_some() {}
            }
        });
        for step in steps(data) {
            take(step, &memory, &member, &prepared).await;
            until_idle().await;
            member.check();
        }
        member.stop().await;
        peer.abort();
        drop(peer.await);
        nothing_is_left(&memory).await;
    });
}

async fn take(step: Step<'_>, memory: &Memory, member: &Member, prepared: &Prepared) {
    let transport = &member.transport;
    match usize::from(step.what % 12) {
        kind @ 0..5 => {
            let answer = Answer { how: step.how, bytes: step.bytes.to_vec() };
            prepared.lock().expect("nobody panics while it holds this")[kind].push_back(answer);
        }
        5 if step.how % 4 == 3 => transport.remove_peer(PEER),
        5 => member.add_peer(),
        6 => {
            let message = Message::decode(step.bytes).unwrap_or_default();
            let kind = i32::from(step.how % 24);
            transport.send(vec![Message { r#type: kind, to: PEER.0, from: LOCAL.0, ..message }]);
        }
        7 => send_snapshot(member, step),
        8 if step.how.is_multiple_of(2) => memory.cut(),
        8 => memory.heal(),
        9 => member.raft.set([Mood::Takes, Mood::Refuses, Mood::Waits][usize::from(step.how % 3)]),
        _ => sleep(Duration::from_millis(WAITS[usize::from(step.how % 8)])).await,
    }
}

fn send_snapshot(member: &Member, step: Step<'_>) {
    let metadata = Some(SnapshotMetadata { index: u64::from(step.how), term: 1, ..SnapshotMetadata::default() });
    let message = Message {
        r#type: MessageType::MsgSnap as i32,
        from: LOCAL.0,
        to: PEER.0,
        term: 1,
        snapshot: Some(Snapshot { metadata, ..Snapshot::default() }.into()),
        ..Message::default()
    };
    let data = Bytes::copy_from_slice(step.bytes);
    let length = data.len() as u64;
    let rest = move |offset: u64| {
        let rest = data.slice(usize::try_from(offset).expect("it is in memory")..);
        futures_util::stream::iter([Ok(rest)])
    };
    member.transport.send_snapshot(message, SnapshotBody::from_streams(rest, length));
}

/// One connection: each request is given the next answer of its kind; without one, the connection is closed.
async fn serve(mut stream: Box<dyn ByteStream>, prepared: Prepared) {
    let mut read = Vec::new();
    loop {
        while !read.windows(4).any(|window| window == b"\r\n\r\n") {
            if !matches!(stream.read_buf(&mut read).await, Ok(1..)) {
                return;
            }
        }
        let Some(kind) = KINDS.iter().position(|kind| read.starts_with(kind)) else { return };
        let answer = prepared.lock().expect("nobody panics while it holds this")[kind].pop_front();
        let Some(answer) = answer else { return };
        if write(&mut stream, kind, &answer).await.is_err() || answer.how & OPEN == 0 {
            return;
        }
        // A probe comes again on the same connection. Other requests may have a body, which is passed over.
        read.clear();
        if KINDS[kind].starts_with(b"POST") {
            let mut rest = [0; 4096];
            while let Ok(Ok(1..)) = timeout(Duration::from_secs(1), stream.read(&mut rest)).await {}
        }
    }
}

async fn write(stream: &mut Box<dyn ByteStream>, kind: usize, answer: &Answer) -> std::io::Result<()> {
    let mut bytes = Vec::new();
    if answer.how & WITH_HEAD != 0 {
        let status = if KINDS[kind].starts_with(b"POST") { "204 No Content" } else { "200 OK" };
        let coding = match answer.how & CHUNKED {
            0 if kind == 2 => format!("Content-Length: {}\r\n", answer.bytes.len()),
            0 => String::new(),
            _ => "Transfer-Encoding: chunked\r\n".to_owned(),
        };
        let head = format!(
            "HTTP/1.1 {status}\r\nX-Etcd-Cluster-ID: {CLUSTER}\r\nX-Server-Version: 3.6.0\r\n\
             X-Rafthttp-Resumes: 1\r\n{coding}\r\n"
        );
        bytes.extend(head.into_bytes());
    }
    if answer.how & CHUNKED == 0 {
        bytes.extend(&answer.bytes);
    } else {
        for chunk in answer.bytes.chunks(64) {
            bytes.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
            bytes.extend(chunk);
            bytes.extend(b"\r\n");
        }
    }
    if answer.how & SLOWLY == 0 {
        return stream.write_all(&bytes).await;
    }
    for piece in bytes.chunks((bytes.len() / 4).max(1)) {
        stream.write_all(piece).await?;
        sleep(Duration::from_millis(300)).await;
    }
    Ok(())
}
