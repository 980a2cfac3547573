//! Snapshots whose connections break, and whose receivers and senders are killed or lose power in the middle.

use std::{
    io,
    num::NonZeroU64,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use futures_util::{Stream, stream};
use prost::Message as _;
use rafthttp::{
    Limits, MemberId, SnapshotBody, SnapshotStatus, SnapshotStore,
    id::{DirectoryId, Incarnation},
    internals::world::{ByteStream, Disk, Opening, World},
    metrics::{Direction, RestartReason, Snapshots},
    telemetry::EventKind,
    wire::raftpb::Message,
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::Instant,
};

use super::{CLUSTER, Member, Memory, disk::MemoryDisk, lock, memory::Mishap, simulate, snapshot, until};

const DIRECTORY: &str = "/rafthttp-in-memory/snap";
/// What comes before the body on a connection, at most: two heads and the envelope.
const HEADS: u64 = 2000;
const PIECE: usize = 16 << 10;

/// A member with a disk for snapshots.
async fn member(memory: &Memory, id: u64, disk: &MemoryDisk) -> Member {
    member_with(memory, id, disk, Limits { snapshot_headroom: 0, ..Limits::default() }).await
}

async fn member_with(memory: &Memory, id: u64, disk: &MemoryDisk, limits: Limits) -> Member {
    member_in(memory, id, disk, limits, |world| world).await
}

/// The same, with a transport that is built like this.
async fn member_built(
    memory: &Memory,
    id: u64,
    disk: &MemoryDisk,
    limits: Limits,
    build: impl FnOnce(rafthttp::Builder) -> rafthttp::Builder,
) -> Member {
    let disk = disk.clone();
    let build = |world: &World, builder: rafthttp::Builder| {
        let store = SnapshotStore::open_in(world.clone().with_disk(Arc::new(disk)), DIRECTORY).expect("a store");
        build(builder.snapshots(store).limits(limits))
    };
    Member::start_with(memory, id, build).await
}

/// The same, whose snapshots are kept in a world that is changed like this.
async fn member_in(
    memory: &Memory,
    id: u64,
    disk: &MemoryDisk,
    limits: Limits,
    change: impl FnOnce(World) -> World,
) -> Member {
    let build = |world: &World, builder: rafthttp::Builder| {
        let disk: Arc<dyn Disk> = Arc::new(disk.clone());
        let store = SnapshotStore::open_in(change(world.clone().with_disk(disk)), DIRECTORY).expect("a store");
        builder.snapshots(store).limits(limits)
    };
    Member::start_with(memory, id, build).await
}

/// Two that know each other.
async fn pair(memory: &Memory, disk: &MemoryDisk) -> (Member, Member) {
    let (one, two) = (member(memory, 1, &MemoryDisk::default()).await, member(memory, 2, disk).await);
    meet(&one, &two).await;
    (one, two)
}

async fn meet(one: &Member, two: &Member) {
    one.add(two);
    two.add(one);
    until("both are connected", || one.is_connected() && two.is_connected()).await;
}

/// Bytes that no two places have in common for long.
fn data(length: usize, seed: u64) -> Bytes {
    let mut random = StdRng::seed_from_u64(seed);
    (0..length.div_ceil(8)).flat_map(|_| random.random::<u64>().to_be_bytes()).take(length).collect()
}

fn pieces(data: Bytes) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    let count = data.len().div_ceil(PIECE);
    stream::iter((0..count).map(move |place| Ok(data.slice(place * PIECE..data.len().min((place + 1) * PIECE)))))
}

fn body(data: &Bytes) -> SnapshotBody {
    let (data, length) = (data.clone(), data.len() as u64);
    let rest = move |offset| pieces(data.slice(usize::try_from(offset).expect("it is in memory")..));
    SnapshotBody::from_streams(rest, length)
}

fn message(index: u64) -> Message {
    snapshot(1, 2, index)
}

fn path(index: u64) -> PathBuf {
    Path::new(DIRECTORY).join(format!("{index:016x}.snap.db"))
}

/// What a file has.
fn read(disk: &MemoryDisk, path: &Path) -> Vec<u8> {
    let file = disk.open(path, Opening::Read).expect("it is there");
    let mut bytes = vec![0; usize::try_from(file.len().expect("a length")).expect("it is in memory")];
    assert_eq!(file.read_at(0, &mut bytes).expect("it can be read"), bytes.len());
    bytes
}

fn outcomes(member: &Member) -> Vec<SnapshotStatus> {
    lock(&member.raft.snapshots).iter().map(|(_, status)| *status).collect()
}

fn counts(member: &Member, direction: Direction) -> Snapshots {
    member.transport.peers()[0].link.snapshots[direction].clone()
}

fn restarts(member: &Member, direction: Direction, reason: RestartReason) -> u64 {
    counts(member, direction).restarts.of(reason)
}

fn told(member: &Member, kind: EventKind) -> usize {
    member.transport.events().after(0).iter().filter(|event| event.kind == kind).count()
}

#[test]
fn a_snapshot_that_is_cut_at_each_of_a_thousand_bytes_arrives_as_it_was_sent() {
    simulate(|| async {
        let (memory, disk) = (Memory::default(), MemoryDisk::default());
        let (one, two) = pair(&memory, &disk).await;
        let mut random = StdRng::seed_from_u64(14);
        let mut index = 0;
        while memory.befallen() < 1000 {
            index += 1;
            let data = data(random.random_range(0..60_000), index);
            let end = HEADS + data.len() as u64;
            let times = random.random_range(1..6);
            memory.befall((0..times).map(|_| Mishap::Cut(random.random_range(0..end))));
            one.transport.send_snapshot(message(index), body(&data));
            until("it was taken", || outcomes(&one).len() as u64 == index).await;
            assert_eq!(outcomes(&one).last(), Some(&SnapshotStatus::Finish), "of {} bytes", data.len());
            assert!(read(&disk, &path(index)) == data, "other bytes have arrived of snapshot {index}");
            disk.remove(&path(index)).expect("it is there");
            assert_eq!(disk.files(), Vec::<PathBuf>::new(), "nothing is left of it");
        }
        assert_eq!(lock(&two.raft.taken).len() as u64, index, "each was handed over once");
        let sent = counts(&one, Direction::Out);
        assert_eq!((sent.ok, sent.failed, sent.in_flight, sent.passed, sent.promised), (index, 0, 0, 0, 0));
        assert!(sent.resumed > 0 && sent.resent > 0);
        let received = counts(&two, Direction::In);
        assert_eq!((received.ok, received.in_flight, received.passed, received.promised), (index, 0, 0, 0));
        assert!(received.broken_off > 0);
        one.stop().await;
        two.stop().await;
    });
}

#[test]
fn who_takes_a_resumable_snapshot_too_slowly_loses_its_place_for_good() {
    simulate(|| async {
        let (memory, disk) = (Memory::default(), MemoryDisk::default());
        let (one, two) = pair(&memory, &disk).await;
        memory.set_pace(Duration::from_secs(4));
        let begun = Instant::now();
        one.transport.send_snapshot(message(1), body(&data(20 << 20, 1)));
        while outcomes(&one).is_empty() {
            assert!(begun.elapsed() < Duration::from_secs(200), "a place is not held for long by who is too slow");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        assert_eq!(outcomes(&one), [SnapshotStatus::Failure]);
        assert!(begun.elapsed() >= Duration::from_secs(60), "{:?}", begun.elapsed());
        assert_eq!(counts(&one, Direction::Out).in_flight, 0);
        one.stop().await;
        two.stop().await;
    });
}

#[test]
fn who_is_too_slow_loses_its_place_though_its_connection_breaks_every_few_seconds() {
    simulate(|| async {
        let (memory, disk) = (Memory::default(), MemoryDisk::default());
        let (one, two) = pair(&memory, &disk).await;
        memory.set_pace(Duration::from_secs(4));
        memory.befall([Mishap::Cut(HEADS + 100_000); 1000]);
        let begun = Instant::now();
        one.transport.send_snapshot(message(1), body(&data(20 << 20, 1)));
        while outcomes(&one).is_empty() {
            assert!(begun.elapsed() < Duration::from_secs(200), "a new connection is no new minute");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        assert_eq!(outcomes(&one), [SnapshotStatus::Failure]);
        assert!(memory.befallen() > 3, "{}", memory.befallen());
        one.stop().await;
        two.stop().await;
    });
}

/// As slow as this, one snapshot goes out after the other.
fn slow() -> Limits {
    Limits { snapshot_headroom: 0, snapshot_rate: NonZeroU64::new(16 << 10), ..Limits::default() }
}

#[test]
fn a_slow_line_may_break_after_any_time_if_it_has_carried_something_until_then() {
    simulate(|| async {
        let (memory, disk) = (Memory::default(), MemoryDisk::default());
        let one = member_with(&memory, 1, &MemoryDisk::default(), slow()).await;
        let two = member_with(&memory, 2, &disk, slow()).await;
        meet(&one, &two).await;
        let data = data(6 << 20, 1);
        // After 350 of 384 seconds.
        memory.befall([Mishap::Cut(350 * (16 << 10))]);
        one.transport.send_snapshot(message(1), body(&data));
        tokio::time::sleep(Duration::from_secs(400)).await;
        until("it was taken", || outcomes(&one) == [SnapshotStatus::Finish]).await;
        assert_eq!(memory.befallen(), 1);
        assert!(read(&disk, &path(1)) == data);
        assert_eq!(counts(&two, Direction::In).broken_off, 1);
        let events = two.transport.events().after(0);
        let last = events.iter().rfind(|event| event.kind == EventKind::SnapshotEnded);
        let last = last.and_then(|event| event.detail.as_deref()).unwrap_or_default();
        assert!(last.starts_with(&format!("{} bytes in", data.len())), "all of it is there: {last}");
        one.stop().await;
        two.stop().await;
    });
}

#[test]
fn who_waits_for_its_turn_to_be_sent_a_snapshot_is_dialled_meanwhile_and_keeps_its_time() {
    simulate(|| async {
        let memory = Memory::default();
        let one = member_built(&memory, 1, &MemoryDisk::default(), slow(), |builder| {
            builder.probe(Duration::ZERO, Duration::from_millis(700))
        })
        .await;
        let two = member_with(&memory, 2, &MemoryDisk::default(), slow()).await;
        let three = member_with(&memory, 3, &MemoryDisk::default(), slow()).await;
        for other in [&two, &three] {
            one.add(other);
            other.add(&one);
        }
        let peers = || one.transport.peers();
        let up = || peers().iter().all(|peer| peer.link.stream_up.values().all(|ways| ways[Direction::In]));
        until("it reads from both", up).await;
        one.transport.send_snapshot(snapshot(1, 2, 1), body(&data(6 << 20, 1)));
        three.stop().await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        one.transport.send_snapshot(snapshot(1, 3, 2), body(&data(1000, 2)));
        tokio::time::sleep(Duration::from_secs(10)).await;
        // It comes back, and does not dial.
        let disk = MemoryDisk::default();
        let three = member_with(&memory, 3, &disk, slow()).await;
        let dialled = memory.dialled();
        until("it is dialled", || memory.dialled() > dialled).await;
        assert_eq!(outcomes(&one), []);
        three.add(&one);
        // The first attempt fails, after more than the five minutes that a peer may make no progress.
        memory.befall([Mishap::Cut(10)]);
        tokio::time::sleep(Duration::from_secs(400)).await;
        until("both were taken", || outcomes(&one) == [SnapshotStatus::Finish; 2]).await;
        assert_eq!(memory.befallen(), 1);
        assert_eq!(disk.files(), [path(2)]);
        for member in [one, two, three] {
            member.stop().await;
        }
    });
}

#[test]
fn a_byte_that_is_turned_over_is_found_and_the_snapshot_sent_anew_once() {
    simulate(|| async {
        let (memory, disk) = (Memory::default(), MemoryDisk::default());
        let (one, two) = pair(&memory, &disk).await;
        let data = data(300_000, 1);
        // Well within the body, whatever of it is chunk heads: those break the request, and are no test of the checksum.
        memory.befall([Mishap::Turn(HEADS + 100_003)]);
        one.transport.send_snapshot(message(1), body(&data));
        until("it was taken", || outcomes(&one) == [SnapshotStatus::Finish]).await;
        assert!(read(&disk, &path(1)) == data);
        assert_eq!(restarts(&one, Direction::Out, RestartReason::Checksum), 1);
        assert_eq!(restarts(&two, Direction::In, RestartReason::Checksum), 1);
        assert!(told(&one, EventKind::SnapshotRestarted) == 1 && told(&two, EventKind::SnapshotRestarted) == 1);
        memory.befall([Mishap::Turn(HEADS + 100_003), Mishap::Turn(HEADS + 200_003)]);
        one.transport.send_snapshot(message(2), body(&data));
        until("it was given up", || outcomes(&one) == [SnapshotStatus::Finish, SnapshotStatus::Failure]).await;
        assert_eq!(lock(&two.raft.taken).len(), 1, "raft is not asked about what is not what was sent");
        assert_eq!(disk.files(), [path(1)], "nothing of it is kept");
        one.stop().await;
        two.stop().await;
    });
}

#[test]
fn a_snapshot_is_handed_over_once_though_its_answer_is_lost() {
    simulate(|| async {
        let (memory, disk) = (Memory::default(), MemoryDisk::default());
        let (one, two) = pair(&memory, &disk).await;
        let data = data(300_000, 1);
        memory.befall([Mishap::LoseAnswer; 3]);
        one.transport.send_snapshot(message(1), body(&data));
        until("it was taken", || outcomes(&one) == [SnapshotStatus::Finish]).await;
        assert_eq!(memory.mishaps(), 0);
        assert_eq!(lock(&two.raft.taken).len(), 1);
        assert_eq!(told(&two, EventKind::SnapshotEnded), 1, "its outcome is counted once");
        assert_eq!(counts(&one, Direction::Out).bytes, data.len() as u64, "nothing is sent twice");
        one.stop().await;
        two.stop().await;
    });
}

#[test]
fn a_receiver_whose_power_went_before_its_answer_is_asked_again_as_soon_as_it_is_back() {
    simulate(|| async {
        let (memory, disk) = (Memory::default(), MemoryDisk::default());
        let start = async |boot| {
            let incarnation = Incarnation { directory: DirectoryId(1), boot, nonce: boot };
            let limits = Limits { snapshot_headroom: 0, ..Limits::default() };
            member_built(&memory, 2, &disk, limits, |builder| builder.incarnation(incarnation)).await
        };
        let (one, two) = (member(&memory, 1, &MemoryDisk::default()).await, start(1).await);
        meet(&one, &two).await;
        let data = data(300_000, 1);
        memory.befall([Mishap::Silence]);
        one.transport.send_snapshot(message(1), body(&data));
        until("raft was asked about it", || lock(&two.raft.taken).len() == 1).await;
        two.stop().await;
        assert_eq!(outcomes(&one), [], "the connection says nothing");
        let two = start(2).await;
        two.add(&one);
        let begun = Instant::now();
        until("it was taken", || outcomes(&one) == [SnapshotStatus::Finish]).await;
        assert!(begun.elapsed() < Duration::from_secs(10), "after {:?}", begun.elapsed());
        one.stop().await;
        two.stop().await;
    });
}

/// Starts a member again that has stopped, on its disk.
async fn again(memory: &Memory, disk: &MemoryDisk, one: &Member) -> Member {
    let two = member(memory, 2, disk).await;
    two.add(one);
    two
}

#[test]
fn a_receiver_that_is_stopped_well_keeps_what_it_has_wherever_it_stops() {
    simulate(|| async {
        let (memory, disk) = (Memory::default(), MemoryDisk::default());
        let (one, mut two) = pair(&memory, &disk).await;
        let data = data(2 << 20, 1);
        memory.set_pace(Duration::from_millis(20));
        one.transport.send_snapshot(message(1), body(&data));
        until("half of it is there", || counts(&two, Direction::In).passed > 1 << 20).await;
        two.stop().await;
        assert_eq!((outcomes(&one), disk.files().len()), (vec![], 2), "while it arrives");

        two = again(&memory, &disk, &one).await;
        let raft = two.raft.clone();
        let judging = raft.judgement.lock().await;
        until("it is being judged", || two.transport.peers()[0].link.snapshots[Direction::In].in_flight == 1).await;
        two.stop().await;
        assert_eq!((outcomes(&one), disk.files().len()), (vec![], 2), "before it is judged");
        drop(judging);

        two = again(&memory, &disk, &one).await;
        let raft = two.raft.clone();
        let asking = raft.rest.lock().await;
        until("raft is asked", || disk.files().contains(&path(1))).await;
        two.stop().await;
        assert_eq!((outcomes(&one), disk.files().len()), (vec![], 2), "before raft has answered");
        drop(asking);

        two = again(&memory, &disk, &one).await;
        until("it was taken", || !outcomes(&one).is_empty()).await;
        assert_eq!(outcomes(&one), [SnapshotStatus::Finish]);
        assert_eq!(lock(&two.raft.taken).len(), 1);
        assert!(read(&disk, &path(1)) == data && disk.files() == [path(1)]);
        assert_eq!(restarts(&one, Direction::Out, RestartReason::Lost), 0);
        one.stop().await;
        two.stop().await;
    });
}

#[test]
fn what_raft_did_not_take_it_is_asked_about_again() {
    simulate(|| async {
        let (memory, disk) = (Memory::default(), MemoryDisk::default());
        let (one, two) = pair(&memory, &disk).await;
        let data = data(300_000, 1);
        let send = |term| one.transport.send_snapshot(Message { term, ..message(1) }, body(&data).with_name(5));
        *lock(&two.raft.refuses) = true;
        send(1);
        until("it was refused", || outcomes(&one) == [SnapshotStatus::Failure]).await;
        *lock(&two.raft.refuses) = false;
        send(1);
        until("it was taken", || outcomes(&one).len() == 2).await;
        assert_eq!(outcomes(&one)[1], SnapshotStatus::Finish);
        assert_eq!(lock(&two.raft.taken).len(), 1);
        // The answer is remembered for this message, and not for one of a later term.
        let sent = counts(&one, Direction::Out).bytes;
        send(1);
        until("its answer is known", || outcomes(&one).len() == 3).await;
        assert_eq!((lock(&two.raft.taken).len(), counts(&one, Direction::Out).bytes), (1, sent));
        send(2);
        until("it was taken again", || outcomes(&one).len() == 4).await;
        assert_eq!(outcomes(&one)[2..], [SnapshotStatus::Finish; 2]);
        let terms: Vec<u64> = lock(&two.raft.taken).iter().map(|(_, message)| message.term).collect();
        assert_eq!(terms, [1, 2]);
        assert_eq!(disk.files(), [path(1)]);
        one.stop().await;
        two.stop().await;
    });
}

/// Sends a snapshot to a member that dies in the middle, again and again, and starts on the disk that `left` says. Tells how
/// many bytes were sent twice.
async fn through_deaths(left: impl Fn(&MemoryDisk, u64) -> MemoryDisk) -> u64 {
    let (memory, mut disk) = (Memory::default(), MemoryDisk::default());
    let (one, mut two) = pair(&memory, &disk).await;
    // 8 MiB in windows of 64 KiB: 2.6 s.
    memory.set_pace(Duration::from_millis(20));
    let data = data(8 << 20, 1);
    one.transport.send_snapshot(message(1), body(&data));
    let mut random = StdRng::seed_from_u64(3);
    for death in 0..5 {
        tokio::time::sleep(Duration::from_millis(random.random_range(300..1200))).await;
        assert_eq!(outcomes(&one), []);
        disk = left(&disk, death);
        // What it writes from then on is on a disk that nobody has any more.
        memory.cut();
        two.stop().await;
        memory.heal();
        two = member(&memory, 2, &disk).await;
        two.add(&one);
    }
    until("it was taken", || !outcomes(&one).is_empty()).await;
    assert_eq!(outcomes(&one), [SnapshotStatus::Finish]);
    assert!(read(&disk, &path(1)) == data);
    assert_eq!(disk.files(), [path(1)]);
    assert_eq!(lock(&two.raft.taken).len(), 1);
    assert_eq!(restarts(&one, Direction::Out, RestartReason::Lost), 0);
    let resent = counts(&one, Direction::Out).resent;
    assert_eq!(counts(&one, Direction::Out).bytes, data.len() as u64 + resent);
    one.stop().await;
    two.stop().await;
    resent
}

/// Half a second's worth at most is not synced, and what lies between the two is on its way: five times.
const UNSYNCED: u64 = 5 * (26 * (64 << 10) + 4 * (64 << 10) + (2 << 20));

#[test]
fn a_receiver_that_is_killed_is_sent_what_was_not_synced() {
    simulate(|| async {
        let resent = through_deaths(|disk, _| disk.clone()).await;
        assert!((1..UNSYNCED).contains(&resent), "{resent} bytes were sent twice");
    });
}

#[test]
fn a_receiver_that_loses_power_is_sent_what_was_not_synced() {
    simulate(|| async {
        let resent = through_deaths(|disk, _| disk.after_a_loss_of_power()).await;
        assert!((1..UNSYNCED).contains(&resent), "{resent} bytes were sent twice");
        let torn = through_deaths(|disk, seed| disk.torn(seed)).await;
        assert!((1..UNSYNCED).contains(&torn), "{torn} bytes were sent twice");
    });
}

#[test]
fn few_bytes_of_a_received_snapshot_are_unsynced_at_any_time() {
    simulate(|| async {
        let (memory, disk) = (Memory::default(), MemoryDisk::default());
        let (one, two) = pair(&memory, &disk).await;
        let data = data(40 << 20, 1);
        // In parts, and whole as etcd sends it.
        let whole = SnapshotBody::from_stream(pieces(data.clone()), Some(data.len() as u64));
        for (index, body) in [(1, body(&data)), (2, whole)] {
            one.transport.send_snapshot(message(index), body);
            until("it was taken", || outcomes(&one).len() as u64 == index).await;
            assert!(read(&disk, &path(index)) == data);
            // 2 MiB, and what comes in one batch.
            assert!(disk.most_unsynced() <= 3 << 20, "{}", disk.most_unsynced());
        }
        assert_eq!(outcomes(&one), [SnapshotStatus::Finish; 2]);
        one.stop().await;
        two.stop().await;
    });
}

#[test]
fn what_turns_over_on_the_receivers_disk_is_found() {
    simulate(|| async {
        let (memory, disk) = (Memory::default(), MemoryDisk::default());
        let (one, two) = pair(&memory, &disk).await;
        let data = data(1 << 20, 1);
        memory.befall([Mishap::Cut(HEADS + 500_000)]);
        memory.set_pace(Duration::from_millis(20));
        one.transport.send_snapshot(message(1), body(&data));
        until("it broke off", || counts(&two, Direction::In).broken_off == 1).await;
        memory.cut();
        two.stop().await;
        let part = disk.files().into_iter().find(|path| path.to_string_lossy().ends_with(".data")).expect("a part");
        let file = disk.open(&part, Opening::Kept).expect("it is there");
        file.write_at(1000, &[!data[1000]]).expect("there is room");
        memory.heal();
        let two = member(&memory, 2, &disk).await;
        two.add(&one);
        until("it was taken", || outcomes(&one) == [SnapshotStatus::Finish]).await;
        assert_eq!(restarts(&two, Direction::In, RestartReason::Checksum), 1);
        assert!(read(&disk, &path(1)) == data);
        one.stop().await;
        two.stop().await;
    });
}

#[test]
fn a_sender_that_was_killed_starts_anew_and_that_is_said() {
    simulate(|| async {
        let (memory, disk) = (Memory::default(), MemoryDisk::default());
        let (one, two) = pair(&memory, &disk).await;
        let (first, second) = (data(1 << 20, 1), data(1 << 20, 2));
        memory.set_pace(Duration::from_millis(20));
        one.transport.send_snapshot(message(1), body(&first));
        until("half of it is there", || counts(&two, Direction::In).passed > 500_000).await;
        memory.cut();
        one.stop().await;
        until("it broke off", || counts(&two, Direction::In).broken_off == 1).await;
        assert_eq!(disk.files().len(), 2, "its bytes, and what is said of them");
        memory.heal();
        let one = member(&memory, 1, &MemoryDisk::default()).await;
        one.add(&two);
        until("both are connected", || one.is_connected() && two.is_connected()).await;
        one.transport.send_snapshot(message(2), body(&second));
        until("it was taken", || outcomes(&one) == [SnapshotStatus::Finish]).await;
        assert_eq!(restarts(&two, Direction::In, RestartReason::Another), 1);
        assert_eq!(told(&two, EventKind::SnapshotRestarted), 1);
        assert!(read(&disk, &path(2)) == second);
        assert_eq!(disk.files(), [path(2)], "nothing is left of the first");
        one.stop().await;
        two.stop().await;
    });
}

#[test]
fn what_is_kept_of_a_snapshot_has_an_age() {
    simulate(|| async {
        let (memory, disk) = (Memory::default(), MemoryDisk::default());
        let (one, two) = pair(&memory, &disk).await;
        memory.befall([Mishap::Cut(HEADS + 100_000)]);
        one.transport.send_snapshot(message(1), body(&data(300_000, 1)));
        until("it broke off", || counts(&two, Direction::In).broken_off == 1).await;
        memory.cut();
        one.stop().await;
        two.stop().await;
        assert_eq!(disk.files().len(), 2);
        memory.heal();
        let limits = Limits { snapshot_headroom: 0, ..Limits::default() };
        let age = limits.snapshot_part_age;
        let later = move || SystemTime::now() + age + Duration::from_secs(1);
        let two = member_in(&memory, 2, &disk, limits, |world| world.with_clock(later)).await;
        until("it is gone", || disk.files().is_empty()).await;
        two.stop().await;
    });
}

#[test]
fn a_peer_of_another_software_is_sent_the_whole() {
    simulate(|| async {
        let (memory, disk) = (Memory::default(), MemoryDisk::default());
        let one = member(&memory, 1, &MemoryDisk::default()).await;
        // One without a place for snapshots does not say that it resumes them, as etcd's members do not.
        let two = Member::start(&memory, 2).await;
        meet(&one, &two).await;
        one.transport.send_snapshot(message(1), body(&data(300_000, 1)));
        until("it was refused", || outcomes(&one) == [SnapshotStatus::Failure]).await;
        two.stop().await;
        // It has said so, and then another takes its place that does not know it yet.
        let two = member(&memory, 2, &disk).await;
        two.add(&one);
        until("both are connected", || one.is_connected() && two.is_connected()).await;
        two.stop().await;
        let port = memory.place("member-2", [10, 0, 0, 2]).listen("member-2", 2380).await.expect("it is free");
        let answering = tokio::spawn(async move {
            while let Ok((stream, _)) = port.accept().await {
                tokio::spawn(answer_as_etcd(stream));
            }
        });
        one.transport.send_snapshot(message(2), body(&data(300_000, 2)));
        until("it was taken", || outcomes(&one).len() == 2).await;
        assert_eq!(outcomes(&one)[1], SnapshotStatus::Finish);
        assert_eq!(told(&one, EventKind::SnapshotResumed), 0);
        answering.abort();
        one.stop().await;
    });
}

/// Refuses a snapshot without an envelope, and takes a whole one.
async fn answer_as_etcd(mut stream: Box<dyn ByteStream>) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let Ok(byte) = stream.read_u8().await else { return };
        request.push(byte);
    }
    let head = String::from_utf8_lossy(&request).to_ascii_lowercase();
    if !head.starts_with("post /raft/snapshot") {
        return;
    }
    if !head.contains("transfer-encoding") {
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await;
        return;
    }
    assert!(!head.contains("x-rafthttp-snapshot"), "{head}");
    let mut body = Vec::new();
    while !body.ends_with(b"\r\n0\r\n\r\n") {
        if !matches!(stream.read_buf(&mut body).await, Ok(1..)) {
            return;
        }
    }
    let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await;
}

/// The beginning of a snapshot of so many bytes, as a member sends it that says that it is `from`: a connection on which
/// more may follow.
async fn begin(memory: &Memory, from: u64, name: u128, length: u64, offset: u64, body: &[u8]) -> Box<dyn ByteStream> {
    let message = Message { from, ..message(1) }.encode_to_vec();
    let frame = [&(message.len() as u64).to_be_bytes()[..], &message, body].concat();
    let head = format!(
        "{}Content-Length: {}\r\n{}\r\n",
        head("POST /raft/snapshot", from),
        frame.len() as u64 + (length - offset).saturating_sub(body.len() as u64),
        named(name, length, offset)
    );
    let mut stream = dial(memory).await;
    stream.write_all(&[head.as_bytes(), &frame].concat()).await.expect("it reads");
    stream
}

async fn dial(memory: &Memory) -> Box<dyn ByteStream> {
    memory.place("anyone", [10, 0, 0, 9]).connect(([10, 0, 0, 2], 2380).into()).await.expect("it listens")
}

fn head(what: &str, from: u64) -> String {
    format!(
        "{what} HTTP/1.1\r\nHost: x\r\nX-Server-From: {from:x}\r\nX-Server-Version: 3.6.0\r\n\
         X-Min-Cluster-Version: 3.0.0\r\nX-Etcd-Cluster-ID: {CLUSTER}\r\nX-Raft-To: 2\r\nConnection: close\r\n"
    )
}

fn named(name: u128, length: u64, offset: u64) -> String {
    format!(
        "X-Rafthttp-Snapshot: {name:032x}\r\nX-Rafthttp-Length: {length}\r\nX-Rafthttp-Checksum: {:032x}\r\n\
         X-Rafthttp-Offset: {offset}\r\n",
        7
    )
}

/// What is answered, to its end.
async fn answer(mut stream: Box<dyn ByteStream>) -> String {
    let mut answer = String::new();
    // Whoever sends more than is wanted may see the connection break behind the answer.
    let _ = stream.read_to_string(&mut answer).await;
    answer.to_ascii_lowercase()
}

async fn has(memory: &Memory, from: u64, name: u128, length: u64) -> String {
    let ask = format!("{}Content-Length: 0\r\n{}\r\n", head("POST /raft/snapshot", from), named(name, length, 0));
    let mut stream = dial(memory).await;
    stream.write_all(ask.as_bytes()).await.expect("it reads");
    answer(stream).await
}

/// A member that has others as peers, who never start.
async fn with_peers(memory: &Memory, disk: &MemoryDisk, peers: impl IntoIterator<Item = u64>) -> Member {
    let two = member(memory, 2, disk).await;
    for id in peers {
        let url = "http://10.0.0.99:2380".parse().expect("a URL");
        two.transport.add_peer(MemberId(id), vec![url]).expect("a peer");
    }
    two
}

#[test]
fn who_is_no_peer_has_nothing_kept_of_its_snapshot() {
    simulate(|| async {
        let (memory, disk) = (Memory::default(), MemoryDisk::default());
        let two = with_peers(&memory, &disk, [1]).await;
        let connection = begin(&memory, 9, 1, 1000, 0, &[5; 600]).await;
        until("it is being written", || !disk.files().is_empty()).await;
        drop(connection);
        until("nothing of it is left", || disk.files().is_empty()).await;
        let refused = answer(begin(&memory, 9, 1, 1000, 600, &[5; 400]).await).await;
        assert!(refused.starts_with("http/1.1 409") && refused.contains("x-rafthttp-offset: 0"), "{refused}");
        let refused = has(&memory, 9, 1, 1000).await;
        assert!(refused.starts_with("http/1.1 404") && !refused.contains("x-rafthttp-offset"), "{refused}");
        two.stop().await;
    });
}

#[test]
fn parts_of_many_snapshots_give_way_to_the_newest() {
    simulate(|| async {
        let (memory, disk) = (Memory::default(), MemoryDisk::default());
        let two = with_peers(&memory, &disk, [1, 3, 4]).await;
        for (round, from) in [1, 3, 4, 1, 1, 3].into_iter().enumerate() {
            drop(begin(&memory, from, round as u128, 1000, 0, &[5; 600]).await);
            let there =
                || two.transport.peers().iter().map(|peer| peer.link.snapshots[Direction::In].broken_off).sum::<u64>();
            until("it broke off", || there() == round as u64 + 1).await;
            assert!(disk.files().len() <= 4, "two of them, in two files each: {:?}", disk.files());
        }
        let kept = has(&memory, 3, 5, 1000).await;
        assert!(kept.starts_with("http/1.1 204") && kept.contains("x-rafthttp-offset: 600"), "{kept}");
        let gone = has(&memory, 4, 2, 1000).await;
        assert!(gone.contains("x-rafthttp-offset: 0"), "{gone}");
        two.stop().await;
        // Another start finds the same.
        let two = with_peers(&memory, &disk, [1, 3, 4]).await;
        let kept = has(&memory, 3, 5, 1000).await;
        assert!(kept.contains("x-rafthttp-offset: 600"), "{kept}");
        two.stop().await;
    });
}

#[test]
fn a_connection_that_a_newer_one_has_taken_over_gives_its_place_back() {
    simulate(|| async {
        let (memory, disk) = (Memory::default(), MemoryDisk::default());
        let limits = Limits { snapshot_headroom: 0, snapshots: 1, ..Limits::default() };
        let two = member_with(&memory, 2, &disk, limits).await;
        for id in [1, 3, 4] {
            let url = "http://10.0.0.99:2380".parse().expect("a URL");
            two.transport.add_peer(MemberId(id), vec![url]).expect("a peer");
        }
        drop(begin(&memory, 4, 4, 1000, 0, &[5; 600]).await);
        until("it is kept", || disk.files().len() == 2).await;
        // It has sent something, and nothing more comes.
        let stalled = begin(&memory, 1, 1, 1000, 0, &[5; 600]).await;
        until("it is being written", || disk.files().len() == 3).await;
        // Another has to wait for the only place, and nobody loses anything for it.
        let refused = answer(begin(&memory, 3, 3, 1000, 0, &[5; 1000]).await).await;
        assert!(refused.starts_with("http/1.1 503") && refused.contains("too many snapshots at a time"), "{refused}");
        let kept = has(&memory, 4, 4, 1000).await;
        assert!(kept.contains("x-rafthttp-offset: 600"), "{kept}");
        // The same sender comes again. Its bytes are not what it says that they are, which is only seen at the end.
        let whole = answer(begin(&memory, 1, 1, 1000, 0, &[5; 1000]).await).await;
        assert!(whole.starts_with("http/1.1 422"), "{whole}");
        drop(stalled);
        two.stop().await;
    });
}

#[test]
fn parts_that_nobody_brings_give_way_where_there_is_no_room() {
    simulate(|| async {
        let (memory, disk) = (Memory::default(), MemoryDisk::default());
        let two = with_peers(&memory, &disk, [1, 3]).await;
        disk.set_capacity(1200);
        drop(begin(&memory, 1, 1, 1000, 0, &[5; 600]).await);
        until("it is kept", || disk.files().len() == 2).await;
        // Not for one that has no room even then.
        let too_long = answer(begin(&memory, 3, 2, 5000, 0, &[5; 10]).await).await;
        assert!(too_long.starts_with("http/1.1 500") && too_long.contains("bytes left"), "{too_long}");
        let kept = has(&memory, 1, 1, 1000).await;
        assert!(kept.contains("x-rafthttp-offset: 600"), "{kept}");
        let whole = answer(begin(&memory, 3, 3, 800, 0, &[5; 800]).await).await;
        assert!(whole.starts_with("http/1.1 422"), "it has come to the end: {whole}");
        let gone = has(&memory, 1, 1, 1000).await;
        assert!(gone.contains("x-rafthttp-offset: 0"), "{gone}");
        two.stop().await;
    });
}

#[test]
fn nothing_is_kept_of_the_snapshots_of_a_removed_peer() {
    simulate(|| async {
        let (memory, disk) = (Memory::default(), MemoryDisk::default());
        let two = with_peers(&memory, &disk, [1, 3]).await;
        for from in [1, 3] {
            drop(begin(&memory, from, from.into(), 1000, 0, &[5; 600]).await);
        }
        until("both are kept", || disk.files().len() == 4).await;
        two.transport.remove_peer(MemberId(1));
        until("one is gone", || disk.files().len() == 2).await;
        let kept = has(&memory, 3, 3, 1000).await;
        assert!(kept.contains("x-rafthttp-offset: 600"), "{kept}");
        two.stop().await;
    });
}

#[test]
fn what_a_peer_says_of_a_snapshot_is_checked() {
    simulate(|| async {
        let (memory, disk) = (Memory::default(), MemoryDisk::default());
        let two = with_peers(&memory, &disk, [1]).await;
        let limit = Limits::default().snapshot_bytes;
        let too_long = answer(begin(&memory, 1, 1, limit + 1, limit, &[]).await).await;
        assert!(too_long.starts_with("http/1.1 500") && too_long.contains("more than"), "{too_long}");
        for (what, told) in [
            (
                "a name that is a path",
                named(1, 10, 0).replace(&format!("{:032x}", 1), "../../../../../../../../etc/passw"),
            ),
            ("an offset behind its end", named(1, 10, 11)),
            ("a length that is none", named(1, 10, 0).replace("Length: 10", "Length: -10")),
            ("no checksum", named(1, 10, 0).replace("Checksum", "Sum")),
        ] {
            let mut stream = dial(&memory).await;
            let ask = format!("{}Content-Length: 0\r\n{told}\r\n", head("POST /raft/snapshot", 1));
            stream.write_all(ask.as_bytes()).await.expect("it reads");
            let refused = answer(stream).await;
            assert!(
                refused.starts_with("http/1.1 400") && refused.contains("invalid snapshot headers"),
                "{what}: {refused}"
            );
        }
        // More than it was to have, in one body or behind what is there.
        let more = answer(begin(&memory, 1, 2, 100, 0, &[5; 101]).await).await;
        assert!(more.is_empty() || more.starts_with("http/1.1 500"), "{more}");
        let part = begin(&memory, 1, 3, 100, 0, &[5; 60]).await;
        drop(part);
        until("it broke off", || two.transport.peers()[0].link.snapshots[Direction::In].broken_off == 1).await;
        for offset in [0, 59, 61, 100] {
            let other =
                answer(begin(&memory, 1, 3, 100, offset, &vec![5; 100 - usize::try_from(offset).expect("few")]).await)
                    .await;
            assert!(other.starts_with("http/1.1 409") && other.contains("x-rafthttp-offset: 60"), "{other}");
        }
        // Whole, and not what was told.
        let whole = answer(begin(&memory, 1, 3, 100, 60, &[5; 40]).await).await;
        assert!(whole.starts_with("http/1.1 422") && whole.contains("checksum mismatch"), "{whole}");
        assert_eq!(disk.files(), Vec::<PathBuf>::new(), "nothing is kept");
        assert_eq!(lock(&two.raft.taken).len(), 0);
        two.stop().await;
    });
}

#[test]
fn who_is_no_member_of_ours_hears_and_is_sent_what_etcd_says() {
    simulate(|| async {
        let (memory, disk) = (Memory::default(), MemoryDisk::default());
        let two = with_peers(&memory, &disk, [1]).await;
        for (name, says) in [("", false), ("X-Rafthttp-Stream: 1f\r\n", true)] {
            let mut stream = dial(&memory).await;
            let ask = format!("{}{name}\r\n", head("GET /raft/stream/message/1", 1));
            stream.write_all(ask.as_bytes()).await.expect("it reads");
            let mut answer = vec![0; 1000];
            let read = stream.read(&mut answer).await.expect("an answer");
            let answer = String::from_utf8_lossy(&answer[..read]).to_ascii_lowercase();
            assert!(answer.starts_with("http/1.1 200"), "{answer}");
            assert_eq!(answer.contains("x-rafthttp-resumes: 1"), says, "{answer}");
        }
        two.stop().await;
        // One that listens at its peer's address, and has not said that it resumes.
        let one = member(&memory, 1, &MemoryDisk::default()).await;
        let port = memory.place("member-2", [10, 0, 0, 2]).listen("member-2", 2380).await.expect("it is free");
        one.transport.add_peer(MemberId(2), vec!["http://member-2:2380".parse().expect("a URL")]).expect("a peer");
        one.transport.send_snapshot(message(1), body(&data(1000, 1)));
        let sent = loop {
            let (mut stream, _) = port.accept().await.expect("it is dialled");
            let mut sent = vec![0; 4096];
            let read = stream.read(&mut sent).await.expect("a request");
            let sent = String::from_utf8_lossy(&sent[..read]).to_ascii_lowercase();
            if sent.starts_with("post /raft/snapshot") {
                break sent;
            }
        };
        let names: Vec<&str> = sent.lines().filter_map(|line| line.split_once(": ")).map(|(name, _)| name).collect();
        let ours: Vec<&&str> = names.iter().filter(|name| name.starts_with("x-rafthttp")).collect();
        assert_eq!(ours, [&"x-rafthttp-length"], "{sent}");
        one.stop().await;
    });
}
