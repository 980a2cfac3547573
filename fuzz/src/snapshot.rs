//! Snapshots that come in: the files that an earlier process has left, the requests that bring the rest, and a disk that
//! fails.

use std::{
    collections::{HashMap, HashSet},
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use prost::Message as _;
use rafthttp::{
    SnapshotStore,
    internals::world::{Disk, Opening, World},
    wire::raftpb::{Message, MessageType, Snapshot, SnapshotMetadata},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::{sleep, timeout},
};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed, xxh3_128};

use super::{
    disk::MemoryDisk,
    member::{CLUSTER, LOCAL, Look, Member, Mood, limits, nothing_is_left, simulate, until_idle},
    memory::Memory,
    script::{Step, steps},
};

const DIRECTORY: &str = "/snap";
/// What a step can wait for.
const WAITS: [u64; 4] = [1, 100, 3000, 25_000];
/// Bits of how a request is made: it names the snapshot, a byte of it is wrong, it breaks off, it is a stranger's, and it
/// has no body but asks.
const NAMED: u8 = 1;
const WRONG: u8 = 2;
const BROKEN: u8 = 4;
const STRANGER: u8 = 8;
const ASKS: u8 = 16;

/// The bytes that were sent for each index, whole, as their checksums.
type Sent = Arc<Mutex<HashMap<u64, HashSet<u128>>>>;

/// The member and its disk.
struct Scene {
    memory: Memory,
    disk: MemoryDisk,
    sent: Sent,
    member: Option<Member>,
}

/// Whatever is on the disk and whatever is sent: nobody panics; raft is handed only what somebody sent whole, in its
/// place; no more parts are kept than may be; and when it is over, nothing is left of it.
pub fn snapshot(data: &[u8]) {
    simulate(async {
        let (memory, disk) = (Memory::default(), MemoryDisk::default());
        disk.create_directory(Path::new(DIRECTORY)).expect("an empty disk");
        let mut scene = Scene { memory, disk, sent: Sent::default(), member: None };
        for step in steps(data) {
            scene.take(step).await;
            until_idle().await;
            scene.check();
        }
        scene.restart(MemoryDisk::clone).await;
        scene.stop().await;
        nothing_is_left(&scene.memory).await;
    });
}

/// What a snapshot of this name consists of.
fn content(name: u8, length: u16) -> Vec<u8> {
    (0..length).map(|place| (place / 7).to_le_bytes()[0] ^ name).collect()
}

impl Scene {
    async fn take(&mut self, step: Step<'_>) {
        match step.what % 8 {
            0 | 1 => {
                // What changes under a member that runs is nobody's to bear.
                self.stop().await;
                if step.what.is_multiple_of(8) { self.leave_part(step) } else { self.leave_file(step) }
            }
            2 => {
                let seed = u64::from(step.how);
                match step.how % 4 {
                    0 => self.restart(MemoryDisk::after_a_kill).await,
                    1 => self.restart(MemoryDisk::after_a_loss_of_power).await,
                    2 => self.restart(|disk| disk.torn(seed)).await,
                    _ => self.restart(MemoryDisk::clone).await,
                }
            }
            3 | 4 => self.send(step).await,
            5 => match step.how % 4 {
                0 => self.disk.fill(),
                1 => self.disk.fail_a_sync(),
                2 => self.disk.set_capacity(u64::from(step.number(0))),
                _ => self.disk.mend(),
            },
            6 => {
                if let Some(member) = &self.member {
                    member.raft.set([Mood::Takes, Mood::Refuses, Mood::Waits][usize::from(step.how % 3)]);
                }
            }
            _ => sleep(Duration::from_millis(WAITS[usize::from(step.how % 4)])).await,
        }
    }

    /// The files of a part, as a process may have left them: a record with marks, and the bytes.
    fn leave_part(&mut self, step: Step<'_>) {
        let (name, index, length) = (step.number(0).to_le_bytes()[0], step.number(1) % 8, step.number(2));
        let (synced, there) = (step.number(4), step.number(6));
        let bytes = content(name, length);
        let checksum = if step.how & 1 == 0 { xxh3_128(&bytes) } else { 7 };
        let sender = 2 + u64::from(step.how & 2) / 2;
        let mut record = Vec::new();
        record.extend(b"raftpart\x01");
        record.extend(sender.to_be_bytes());
        record.extend(u128::from(name).to_be_bytes());
        record.extend(u64::from(index).to_be_bytes());
        record.extend(u64::from(length).to_be_bytes());
        record.extend(checksum.to_be_bytes());
        let seed = xxh3_64(&record);
        record.extend(seed.to_be_bytes());
        for synced in [0, synced / 2, synced] {
            let mut mark = u64::from(synced).to_be_bytes().to_vec();
            let seconds = if step.how & 4 == 0 { 1_700_000_000 } else { u64::MAX };
            mark.extend(seconds.to_be_bytes());
            mark.extend(xxh3_64_with_seed(&mark, seed).to_be_bytes());
            record.extend(mark);
        }
        if step.how & 8 != 0 {
            record.truncate(usize::from(there));
        }
        let stem = format!("part-{sender:016x}-{:032x}", u128::from(name));
        self.put(&format!("{stem}.record"), &record);
        if step.how & 16 == 0 {
            let there = bytes.len().min(usize::from(there));
            self.put(&format!("{stem}.data"), &bytes[..there]);
        } else {
            self.put(&format!("{index:016x}.snap.db"), &bytes);
        }
    }

    /// Any bytes under a name that means something.
    fn leave_file(&mut self, step: Step<'_>) {
        let names = [
            "part-0000000000000002-00000000000000000000000000000000.record",
            "part-0000000000000002-00000000000000000000000000000000.data",
            "part-.record",
            "part-2-é.record",
            "0000000000000001.snap.db",
            "tmp-1",
        ];
        self.put(names[usize::from(step.how) % names.len()], step.bytes);
    }

    fn put(&self, name: &str, bytes: &[u8]) {
        let Ok(file) = self.disk.open(&Path::new(DIRECTORY).join(name), Opening::Kept) else { return };
        let _ = file.set_len(0).and_then(|()| file.write_at(0, bytes)).and_then(|()| file.sync());
    }

    /// Stops the member, and starts it on what is left of its disk.
    async fn restart(&mut self, left: impl FnOnce(&MemoryDisk) -> MemoryDisk) {
        let disk = left(&self.disk);
        self.stop().await;
        self.disk = disk;
        self.start().await;
    }

    async fn stop(&mut self) {
        if let Some(member) = self.member.take() {
            member.stop().await;
        }
    }

    /// Starts a member. It does not start on a disk that fails; then there is none.
    async fn start(&mut self) {
        let disk: Arc<dyn Disk> = Arc::new(self.disk.clone());
        let world = World::default().with_seed(1).with_one_thread().with_disk(disk);
        let Ok(store) = SnapshotStore::open_in(world, DIRECTORY) else { return };
        let member = Member::start(&self.memory, Some(self.look()), |_, builder| builder.snapshots(store)).await;
        member.add_peer();
        self.member = Some(member);
    }

    /// What raft is handed is whole and in its place. As an application does, it takes the file away.
    fn look(&self) -> Look {
        let (disk, sent) = (self.disk.clone(), self.sent.clone());
        Box::new(move |message| {
            let index = message.snapshot.as_ref().and_then(|snapshot| snapshot.metadata.as_ref()).map(|of| of.index);
            let Some(index) = index.filter(|_| message.r#type == MessageType::MsgSnap as i32) else { return };
            let path = Path::new(DIRECTORY).join(format!("{index:016x}.snap.db"));
            let file = disk.open(&path, Opening::Read).expect("a snapshot that is handed over is in its place");
            let length = file.len().expect("a length");
            assert!(length <= limits().snapshot_bytes, "{length} bytes are more than a snapshot may have");
            let mut bytes = vec![0; usize::try_from(length).expect("it is in memory")];
            assert_eq!(file.read_at(0, &mut bytes).expect("readable"), bytes.len());
            let sent = sent.lock().expect("nobody panics while it holds this");
            let is_sent = sent.get(&index).is_some_and(|sent| sent.contains(&xxh3_128(&bytes)));
            assert!(is_sent, "of snapshot {index}, other bytes are there than anybody has sent");
            disk.remove(&path).expect("it is there");
        })
    }

    /// Sends a snapshot, or what is said to be one, and waits for the answer.
    async fn send(&mut self, step: Step<'_>) {
        if self.member.is_none() {
            self.start().await;
        }
        let (name, index, length) = (step.number(0).to_le_bytes()[0], u64::from(step.number(1) % 8), step.number(2));
        let offset = step.number(4).min(length);
        let whole = content(name, length);
        let mut body = if step.how & NAMED == 0 { whole.clone() } else { whole[usize::from(offset)..].to_vec() };
        let place = usize::from(step.number(6));
        if let Some(byte) = body.get_mut(place).filter(|_| step.how & WRONG != 0) {
            *byte ^= 1;
        }
        // What names its checksum is what it says or is refused; what does not is what came.
        let is = if step.how & NAMED == 0 { xxh3_128(&body) } else { xxh3_128(&whole) };
        self.sent.lock().expect("nobody panics while it holds this").entry(index).or_default().insert(is);
        let from = if step.how & STRANGER == 0 { 2 } else { 9 };
        let envelope = envelope(from, index);
        let mut request = head(step.how, from, Told { name, whole: &whole, offset }, envelope.len() + body.len());
        if step.how & ASKS == 0 {
            request.extend(envelope);
            let end = if step.how & BROKEN == 0 { body.len() } else { place.min(body.len()) };
            request.extend(&body[..end]);
        }
        let place = self.memory.place("member-2", [10, 0, 0, 2]);
        let Ok(mut stream) = place.connect(([10, 0, 0, 1], 2380).into()).await else { return };
        let _ = timeout(Duration::from_secs(1), stream.write_all(&request)).await;
        if step.how & BROKEN == 0 {
            let _ = timeout(Duration::from_secs(1), stream.read_to_end(&mut Vec::new())).await;
        }
    }

    fn check(&self) {
        let Some(member) = &self.member else { return };
        member.check();
        let parts = self.disk.files().into_iter().filter(|path| path.to_string_lossy().ends_with(".data")).count();
        assert!(parts <= 2 * limits().snapshot_parts, "{parts} parts are kept");
    }
}

/// What a request says of a snapshot.
struct Told<'a> {
    name: u8,
    whole: &'a [u8],
    offset: u16,
}

fn envelope(from: u64, index: u64) -> Vec<u8> {
    let metadata = Some(SnapshotMetadata { index, term: 1, ..SnapshotMetadata::default() });
    let snapshot = Some(Snapshot { metadata, ..Snapshot::default() }.into());
    let kind = MessageType::MsgSnap as i32;
    let message = Message { r#type: kind, from, to: LOCAL.0, term: 1, snapshot, ..Message::default() }.encode_to_vec();
    [&(message.len() as u64).to_be_bytes()[..], &message].concat()
}

fn head(how: u8, from: u64, told: Told<'_>, length: usize) -> Vec<u8> {
    let length = if how & ASKS == 0 { length } else { 0 };
    let Told { name, whole, offset } = told;
    let named = format!(
        "X-Rafthttp-Snapshot: {name:032x}\r\nX-Rafthttp-Length: {}\r\nX-Rafthttp-Checksum: {:032x}\r\n\
         X-Rafthttp-Offset: {offset}\r\n",
        whole.len(),
        xxh3_128(whole)
    );
    let named = if how & NAMED == 0 { "" } else { &named };
    let head = format!(
        "POST /raft/snapshot HTTP/1.1\r\nHost: x\r\nX-Server-From: {from}\r\nX-Server-Version: 3.6.0\r\n\
         X-Min-Cluster-Version: 3.0.0\r\nX-Etcd-Cluster-ID: {CLUSTER}\r\nContent-Length: {length}\r\n\
         Connection: close\r\n{named}\r\n"
    );
    head.into_bytes()
}
