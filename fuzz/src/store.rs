//! The store of a member: its log and its database, with any bytes in them.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::Duration,
};

use rafthttp::{
    PeerUrl,
    internals::world::{Disk, Opening, World},
    node::{Config, Node},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::{sleep, timeout},
};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::{
    disk::MemoryDisk,
    member::{nothing_is_left, simulate},
    memory::Memory,
    script::{Step, steps},
};

const DIRECTORY: &str = "/data";
/// Where a member keeps its store, in its directory.
const DATABASE: &str = "member/node.redb";
const LOG: &str = "member/log/0000000000000000.wal";
/// Names of files that a start looks at besides.
const OTHERS: [&str; 6] = [
    "member/log/0000000000000001.wal",
    "member/log/0000000000000003.wal",
    "member/log/ffffffffffffffff.wal",
    "member/log/x.wal",
    "member/spool-0",
    "member/node.unfinished",
];
/// The longest time that a start takes, and how long the member then runs.
const STARTING: Duration = Duration::from_secs(60);
const RUNNING: Duration = Duration::from_secs(2);
/// The layout of a segment of the log: the head of the file, and of each record.
const SEGMENT_HEAD: usize = 16;
const RECORD_HEAD: usize = 16;

/// Whatever is on its disk, a member starts or says why it does not. If it starts, it runs, and it stops.
pub fn store(data: &[u8]) {
    let disk = kept().after_a_kill();
    for step in steps(data) {
        damage(&disk, step);
    }
    simulate(async {
        let memory = Memory::default();
        match timeout(STARTING, Node::start(config(&memory, &disk))).await.expect("a start ends") {
            Ok(node) => {
                sleep(RUNNING).await;
                timeout(STARTING, node.stop()).await.expect("it stops in time");
            }
            Err(error) => {
                let said = error.to_string();
                assert!(!said.is_empty() && !said.contains('\n'), "{said:?} is not one line");
            }
        }
        nothing_is_left(&memory).await;
    });
}

fn config(memory: &Memory, disk: &MemoryDisk) -> Config {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let world = World::default().with_seed(1).with_network(memory.place("a", [10, 0, 0, 1]));
    let peers: Vec<PeerUrl> = vec!["http://a:2380".parse().expect("a URL")];
    Config {
        name: "a".to_owned(),
        data_dir: PathBuf::from(DIRECTORY),
        listen_peer_urls: peers.clone(),
        initial_advertise_peer_urls: peers.clone(),
        listen_client_urls: vec!["http://a:2379".parse().expect("a URL")],
        advertise_client_urls: vec!["http://a:2379".to_owned()],
        initial_cluster: vec![("a".to_owned(), peers[0].clone())],
        world: world.with_disk(disk).with_one_thread(),
        ..Config::default()
    }
}

/// The disk of a member that has written something and was killed.
fn kept() -> MemoryDisk {
    static KEPT: OnceLock<MemoryDisk> = OnceLock::new();
    let make = || {
        let (memory, disk) = (Memory::default(), MemoryDisk::default());
        let mut left = None;
        simulate(async {
            let node = Node::start(config(&memory, &disk)).await.expect("a member");
            sleep(Duration::from_secs(3)).await;
            for number in 0..3 {
                put(&memory, number).await;
            }
            left = Some(disk.after_a_kill());
            node.stop().await;
        });
        left.expect("just set")
    };
    KEPT.get_or_init(make).clone()
}

async fn put(memory: &Memory, number: u8) {
    let place = memory.place("client", [10, 0, 0, 9]);
    let mut stream = place.connect(([10, 0, 0, 1], 2379).into()).await.expect("it listens");
    let request =
        format!("PUT /kv/{number} HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nConnection: close\r\n\r\nvalue");
    stream.write_all(request.as_bytes()).await.expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("it answers");
    assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
}

fn damage(disk: &MemoryDisk, step: Step<'_>) {
    match step.what % 7 {
        0 => change(disk, DATABASE, |bytes| patch(bytes, step)),
        1 => change(disk, LOG, |bytes| patch(bytes, step)),
        2 => change(disk, LOG, |bytes| {
            patch(bytes, step);
            repair(bytes);
        }),
        3 => change(disk, LOG, |bytes| {
            bytes.clear();
            bytes.extend(step.bytes);
            if step.how & 1 != 0 {
                repair(bytes);
            }
        }),
        4 => {
            let length = usize::from(step.number(0)) << (step.how & 8);
            let name = if step.how & 1 == 0 { DATABASE } else { LOG };
            change(disk, name, |bytes| bytes.truncate(length));
        }
        5 => change(disk, OTHERS[usize::from(step.how) % OTHERS.len()], |bytes| bytes.clone_from(&step.bytes.to_vec())),
        _ => {
            let name = if step.how & 1 == 0 { DATABASE } else { LOG };
            let _ = disk.remove(&Path::new(DIRECTORY).join(name));
        }
    }
}

/// Changes what a file has, which is made if it is not there.
fn change(disk: &MemoryDisk, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
    let Ok(file) = disk.open(&Path::new(DIRECTORY).join(name), Opening::Kept) else { return };
    let mut bytes = vec![0; usize::try_from(file.len().expect("a length")).expect("it is in memory")];
    let _ = file.read_at(0, &mut bytes);
    change(&mut bytes);
    let written = file.set_len(0).and_then(|()| file.write_at(0, &bytes));
    written.and_then(|()| file.sync()).expect("there is room");
}

/// Puts bytes where the first three say, or turns over those that are there.
fn patch(bytes: &mut [u8], step: Step<'_>) {
    let Some(([low, middle, high], new)) = step.bytes.split_first_chunk() else { return };
    let Some(at) = (u32::from_le_bytes([*low, *middle, *high, 0]) as usize).checked_rem(bytes.len()) else { return };
    for (old, new) in bytes[at..].iter_mut().zip(new) {
        *old = if step.how & 1 == 0 { *new } else { *old ^ new };
    }
}

/// Gives each record of a segment the checksums that fit, as far as their lengths lead from one to the next: a fuzzer does
/// not find them.
fn repair(bytes: &mut [u8]) {
    let mut at = SEGMENT_HEAD;
    while let Some(record) = bytes.get_mut(at..).filter(|rest| rest.len() >= RECORD_HEAD) {
        let (head, rest) = record.split_at_mut(RECORD_HEAD);
        let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let Some(body) = rest.get(..length).filter(|_| length > 0) else { return };
        // The number of the segment is 0.
        let seed = at as u64;
        head[4..8].fill(0);
        head[8..].copy_from_slice(&xxh3_64_with_seed(body, seed).to_le_bytes());
        let check = xxh3_64_with_seed(head, seed).to_le_bytes();
        head[4..8].copy_from_slice(&check[..4]);
        at += RECORD_HEAD + length.next_multiple_of(16);
    }
}
