use std::path::PathBuf;

use bytes::Bytes;
use raft::{Error as RaftError, GetEntriesContext, Storage as _, StorageError, eraftpb::SnapshotMetadata};

use super::*;
use crate::{id::DirectoryId, node::snapshot::Spooling, world::World};

fn entry(index: u64, term: u64) -> Entry {
    Entry { index, term, data: format!("{index}@{term}").into(), ..Default::default() }
}

fn hard_state(term: u64, vote: u64, commit: u64) -> HardState {
    HardState { term, vote, commit, ..Default::default() }
}

fn voters(ids: &[u64]) -> ConfState {
    ConfState { voters: ids.to_vec(), ..Default::default() }
}

fn metadata(index: u64, term: u64, members: &[u64]) -> SnapshotMetadata {
    let mut metadata = SnapshotMetadata { index, term, ..Default::default() };
    metadata.set_conf_state(voters(members));
    metadata
}

fn identity() -> StoredIdentity {
    StoredIdentity { member: 1, cluster: 2, name: "a".into(), token: "t".into(), joined: Vec::new() }
}

fn membership() -> Membership {
    Membership::parse(br#"{"members":[{"id":1,"peerURLs":["http://h:1"]}],"removed":[9]}"#).expect("valid")
}

/// A store of one member with entries 1 to `last` of term 1, entry 1 applied.
fn store(directory: &Path, last: u64) -> Store {
    let mut store = Store::open(&Files::default(), directory, 2).expect("a new store");
    store.bootstrap(&identity(), &[entry(1, 1)], &voters(&[1]), &membership()).expect("an empty disk");
    store.save((2..=last).map(|index| entry(index, 1)).collect(), None, true).expect("an empty disk");
    store
}

fn reopened(store: Store, directory: &Path) -> Store {
    drop(store);
    Store::open(&Files::default(), directory, 2).expect("what was written can be read")
}

/// The state after a crash: the files, copied while nobody has closed them.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to.join("log")).expect("a directory");
    let log = std::fs::read_dir(from.join("log")).expect("a directory");
    let log = log.map(|entry| Path::new("log").join(entry.expect("a file").file_name()));
    for file in log.chain([PathBuf::from("node.redb")]) {
        std::fs::copy(from.join(&file), to.join(&file)).expect("a copy");
    }
}

fn terms(store: &Store) -> Vec<(u64, u64)> {
    let (first, last) = store.first_and_last_index();
    let entries = store.entries(first, last + 1, None, GetEntriesContext::empty(false)).expect("they are there");
    entries.iter().map(|entry| (entry.index, entry.term)).collect()
}

/// The data of a snapshot, ready to be installed.
fn incoming(store: &Store, pairs: &'static [(&str, &str)]) -> IncomingDatabase {
    let mut left = pairs.iter();
    let records = || Ok::<_, StoreError>(left.next().map(|(key, value)| ((*key).into(), (*value).into())));
    store.builder(0).build(0, records).expect("room")
}

/// The names in a store's directory.
fn beside(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).expect("a directory");
    let names = entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

#[test]
fn what_was_made_lasting_is_there_after_each_step() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut store = reopened(store(directory.path(), 3), directory.path());
    assert_eq!(store.identity(), Some(&identity()));
    assert_eq!(store.membership().expect("kept"), membership());
    assert_eq!((terms(&store), store.applied()), (vec![(1, 1), (2, 1), (3, 1)], 1));

    store.save(vec![entry(3, 2), entry(4, 2)], Some(hard_state(2, 1, 2)), true).expect("room");
    store = reopened(store, directory.path());
    assert_eq!(terms(&store), [(1, 1), (2, 1), (3, 2), (4, 2)]);
    assert_eq!(store.initial_state().expect("kept").hard_state, hard_state(2, 1, 2));

    let write = Write::Put("k".into(), "v".into());
    store.apply(Effect { index: 2, writes: vec![write], ..Effect::default() }).expect("room");
    store.sync().expect("room");
    store = reopened(store, directory.path());
    assert_eq!((store.applied(), store.reader().value(b"k").expect("readable")), (2, Some(b"v".to_vec())));

    store.compact(2).expect("room");
    store = reopened(store, directory.path());
    assert_eq!((terms(&store), store.term(2)), (vec![(3, 2), (4, 2)], Ok(1)));
    assert_eq!(store.term(1), Err(RaftError::Store(StorageError::Compacted)));
}

#[test]
fn applied_index_and_data_are_lost_together_or_kept_together() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut store = store(directory.path(), 5);
    for index in 2..=5 {
        let write = Write::Put("k".into(), index.to_string().into());
        store.apply(Effect { index, writes: vec![write], ..Effect::default() }).expect("room");
        // The state after a crash: the file, copied while nobody has closed it.
        let crashed = tempfile::tempdir().expect("a directory");
        copy(directory.path(), crashed.path());
        let found = Store::open(&Files::default(), crashed.path(), 2).expect("a crash leaves a store that opens");
        let value = found.reader().value(b"k").expect("readable").map(|value| String::from_utf8(value).expect("text"));
        let expected = (found.applied() > 1).then(|| found.applied().to_string());
        assert_eq!(value, expected);
        assert!(found.initial_state().expect("kept").hard_state.commit >= found.applied());
    }
}

#[test]
fn a_delete_says_whether_the_key_was_there() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut store = store(directory.path(), 2);
    let (put, delete) = (Write::Put("k".into(), "v".into()), Write::Delete("k".into()));
    let writes = vec![delete.clone(), put, delete.clone(), delete];
    let found = store.apply(Effect { index: 2, writes, ..Effect::default() }).expect("room");
    assert_eq!(found, [false, false, true, false]);
}

#[test]
fn a_snapshot_takes_the_place_of_everything() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut store = store(directory.path(), 4);
    let write = Write::Put("old".into(), "v".into());
    store.apply(Effect { index: 2, writes: vec![write], ..Effect::default() }).expect("room");
    let (entries, state) = (vec![entry(10, 4)], Some(hard_state(4, 2, 9)));
    let incoming = incoming(&store, &[("new", "v")]);
    store.install(&metadata(9, 3, &[1, 2]), &membership(), incoming, entries, state).expect("room");
    assert_eq!(store.reader().value(b"new").expect("readable"), Some(b"v".to_vec()));
    assert_eq!(beside(directory.path()), ["log", "node.redb"]);
    store = reopened(store, directory.path());
    assert_eq!((store.applied(), store.first_and_last_index(), store.term(9)), (9, (10, 10), Ok(3)));
    assert_eq!(store.reader().value(b"old").expect("readable"), None);
    assert_eq!(store.reader().value(b"new").expect("readable"), Some(b"v".to_vec()));
    let state = store.initial_state().expect("kept");
    assert_eq!((state.hard_state, state.conf_state), (hard_state(4, 2, 9), voters(&[1, 2])));
    assert_eq!(terms(&store), [(10, 4)]);
}

#[test]
fn a_snapshot_that_tears_changes_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = store(directory.path(), 4);
    let mut left = 3;
    let records = || {
        left -= 1;
        if left == 0 { Err(damaged("torn")) } else { Ok(Some((vec![left].into(), Bytes::new()))) }
    };
    let torn = store.builder(0).build::<StoreError>(0, records);
    assert!(matches!(torn, Err(StoreError::Damaged(_))), "{torn:?}");
    assert_eq!(beside(directory.path()), ["log", "node.redb"]);
    for store in [&store, &reopened_copy(directory.path())] {
        assert_eq!((terms(store).len(), store.applied()), (4, 1));
        assert_eq!(store.reader().value(&[2]).expect("readable"), None);
        assert_eq!(store.membership().expect("kept"), membership());
    }
}

fn reopened_copy(directory: &Path) -> Store {
    let copy = tempfile::tempdir().expect("a directory");
    self::copy(directory, copy.path());
    Store::open(&Files::default(), copy.path(), 2).expect("a crash leaves a store that opens")
}

/// What raft is told of a snapshot for this member.
fn asked(store: &Store, to: u64) -> Option<(u64, u64)> {
    let snapshot = store.snapshot(0, to);
    if let Err(error) = &snapshot {
        assert_eq!(*error, RaftError::Store(StorageError::SnapshotTemporarilyUnavailable));
    }
    snapshot.ok().map(|mut snapshot| (snapshot.mut_metadata().index, snapshot.mut_metadata().term))
}

/// Has spooled what raft has asked for.
fn spool(store: &Store, now: Instant) -> bool {
    let begun = store.begin_spool(now).expect("readable");
    let is_begun = begun.is_some();
    if let Some((view, _)) = begun {
        let (index, term, conf_state) = (view.index, view.term, view.conf_state.clone());
        let file = Files::default().open_kept(&view.directory.join("spooled")).expect("room");
        let spooled = Spooled { index, term, conf_state, file, length: 0, checksum: 0, name: u128::from(index) };
        assert!(view.outcome.send(Ok(spooled)).is_ok(), "it is waited for");
    }
    store.look_at_spool(now);
    is_begun
}

#[test]
fn a_snapshot_is_there_once_it_is_spooled_and_each_that_it_serves_gets_the_same() {
    let (directory, now) = (tempfile::tempdir().expect("a directory"), Instant::now());
    let mut store = store(directory.path(), 9);
    store.apply(Effect { index: 2, conf_state: Some(voters(&[1, 7, 8, 9])), ..Effect::default() }).expect("room");
    assert_eq!(asked(&store, 7), None, "it is not spooled yet");
    assert!(spool(&store, now));
    store.apply(Effect { index: 3, ..Effect::default() }).expect("room");
    assert_eq!(asked(&store, 7), Some((2, 1)), "of the moment that it was begun at");
    assert_eq!(asked(&store, 8), Some((2, 1)));
    assert_eq!(asked(&store, 9), None, "two are on their way");
    let sent = [7, 8].map(|to| store.take_outgoing(to, 2).expect("raft was given it").spooled.name);
    assert_eq!(sent, [2, 2], "the same file");
    assert!(!spool(&store, now), "nobody needs another");
    assert_eq!(asked(&store, 9), Some((2, 1)), "their places are free");
    drop(store.take_outgoing(9, 2));
    // A member that joined after the snapshot would take it for one of another cluster.
    assert_eq!(asked(&store, 10), None);
    let conf_state = Some(voters(&[1, 7, 8, 9, 10]));
    store.apply(Effect { index: 4, conf_state, ..Effect::default() }).expect("room");
    assert!(spool(&store, now));
    assert_eq!(asked(&store, 10), Some((4, 1)));
    assert_eq!(asked(&store, 7), Some((4, 1)));
}

#[test]
fn a_spooled_snapshot_goes_when_nobody_asks_for_it_or_nobody_can_go_on_from_it() {
    let (directory, begun) = (tempfile::tempdir().expect("a directory"), Instant::now());
    let mut store = store(directory.path(), 9);
    let later = |seconds| begun + Duration::from_secs(seconds);
    assert_eq!(asked(&store, 1), None);
    assert!(spool(&store, begun));
    assert_eq!(store.spool_needs(), Some(1), "until it is handed out, the log has to wait for it");
    assert_eq!(asked(&store, 1), Some((1, 1)));
    assert_eq!(store.spool_needs(), None);
    let outgoing = store.take_outgoing(1, 1).expect("raft was given it");
    assert!(store.look_at_spool(later(1000)).outdated.is_none(), "it is being sent");
    drop(outgoing);
    assert!(store.look_at_spool(later(10)).outdated.is_none());
    assert!(store.look_at_spool(later(1000)).outdated.is_some(), "nobody asks for it");
    assert_eq!(asked(&store, 1), None);
    assert!(spool(&store, begun));
    assert_eq!(asked(&store, 1), Some((1, 1)));
    store.apply(Effect { index: 5, ..Effect::default() }).expect("room");
    store.compact(4).expect("room");
    assert_eq!(asked(&store, 1), None, "the log does not begin behind it any more");
    assert!(store.look_at_spool(begun).outdated.is_some());
}

#[test]
fn what_cannot_be_spooled_is_tried_again_after_a_while_and_who_spools_hears_when_nobody_waits() {
    let (directory, begun) = (tempfile::tempdir().expect("a directory"), Instant::now());
    let store = store(directory.path(), 3);
    let later = |seconds| begun + Duration::from_secs(seconds);
    assert_eq!(asked(&store, 1), None);
    let (view, _) = store.begin_spool(begun).expect("readable").expect("it is wanted");
    assert!(view.outcome.send(Err("no room".to_owned())).is_ok());
    assert_eq!(store.look_at_spool(begun).failed, Some("no room".to_owned()));
    assert_eq!((asked(&store, 1), spool(&store, later(1))), (None, false));
    assert_eq!(asked(&store, 1), None);
    let (view, _) = store.begin_spool(later(10)).expect("readable").expect("it is wanted");
    assert!(!view.outcome.is_closed());
    assert!(store.give_up_spool().is_none());
    assert!(view.outcome.is_closed(), "nobody waits for it");
}

#[test]
fn a_snapshot_that_the_log_overtakes_before_anyone_is_sent_it_has_failed() {
    let (directory, begun) = (tempfile::tempdir().expect("a directory"), Instant::now());
    let mut store = store(directory.path(), 9);
    let later = |seconds| begun + Duration::from_secs(seconds);
    assert_eq!(asked(&store, 1), None);
    let (view, _) = store.begin_spool(begun).expect("readable").expect("it is wanted");
    store.apply(Effect { index: 5, ..Effect::default() }).expect("room");
    store.compact(4).expect("room");
    let news = store.look_at_spool(begun);
    assert!(news.is_overtaken && news.failed.is_some_and(|why| why.contains("--log-retention-max-bytes")));
    assert!(view.outcome.is_closed(), "nobody waits for it");
    assert_eq!((asked(&store, 1), spool(&store, later(1))), (None, false), "not at once");
    assert_eq!(asked(&store, 1), None);
    assert!(spool(&store, later(10)), "it is whole, and nobody has asked for it since");
    store.apply(Effect { index: 8, ..Effect::default() }).expect("room");
    store.compact(7).expect("room");
    let news = store.look_at_spool(later(10));
    assert!(news.is_overtaken && news.failed.is_some() && !news.is_whole);
    assert!(news.outdated.is_some(), "its file goes");
    assert_eq!((asked(&store, 1), spool(&store, later(11))), (None, false), "not at once");
}

/// Under load, raft asks in every turn, and the turn in which the file is found complete is no exception.
#[test]
fn a_snapshot_that_is_asked_for_while_it_is_spooled_is_not_spooled_again() {
    let (directory, now) = (tempfile::tempdir().expect("a directory"), Instant::now());
    let store = store(directory.path(), 3);
    assert_eq!(asked(&store, 1), None);
    let (view, _) = store.begin_spool(now).expect("readable").expect("it is wanted");
    Spooling { view, cluster: 2, name: 1, headroom: 0 }.run();
    assert_eq!(asked(&store, 1), None, "it was not looked at yet");
    assert!(store.look_at_spool(now).is_whole);
    assert!(store.begin_spool(now).expect("readable").is_none());
    assert_eq!(asked(&store, 1), Some((1, 1)));
}

#[test]
fn a_snapshot_leaves_what_a_member_knows_of_itself_and_of_others() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut store = store(directory.path(), 3);
    let world = World::default();
    let before = store.boot(&world).expect("room");
    store.set_forced().expect("room");
    store.halt("for a reason").expect("room");
    store.meet(MemberId(1), start(5), &[]).expect("room");
    let incoming = incoming(&store, &[]);
    store.install(&metadata(9, 2, &[1]), &membership(), incoming, Vec::new(), None).expect("whole");
    for _ in 0..2 {
        assert_eq!(store.identity(), Some(&identity()));
        assert_eq!(store.halted().expect("readable"), Some("for a reason".to_owned()));
        assert!(store.is_forced().expect("readable"));
        assert_eq!(store.met().get(&MemberId(1)), Some(&start(5)));
        store = reopened(store, directory.path());
    }
    let after = store.boot(&world).expect("room");
    assert_eq!((after.directory, after.boot), (before.directory, before.boot + 1));
}

#[test]
fn a_start_removes_what_a_kill_left_of_a_snapshot() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = store(directory.path(), 3);
    for name in ["spool-1", "incoming-0"] {
        std::fs::write(directory.path().join(name), "part of a snapshot").expect("room");
    }
    drop(reopened(store, directory.path()));
    assert_eq!(beside(directory.path()), ["log", "node.redb"]);
}

#[test]
fn what_is_to_be_installed_leaves_the_disk_its_headroom() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = store(directory.path(), 3);
    let free = Files::default().free(directory.path()).expect("it says so");
    let error = store.builder(free / 2).build::<StoreError>(free, || Ok(None)).expect_err("there is no room");
    assert!(matches!(&error, StoreError::Files(error) if error.kind() == io::ErrorKind::StorageFull), "{error}");
    assert_eq!(beside(directory.path()), ["log", "node.redb"]);
}

#[test]
fn what_cannot_be_begun_leaves_nothing_behind() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = store(directory.path(), 3);
    // No database is made of it, as of a file that the disk had no room for.
    std::fs::write(directory.path().join("incoming-0"), "no database").expect("room");
    store.builder(0).build::<StoreError>(0, || Ok(None)).expect_err("it is none");
    assert_eq!(beside(directory.path()), ["log", "node.redb"]);
    incoming(&store, &[]);
}

#[test]
fn entries_come_by_size_from_disk_and_memory_alike() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut store = store(directory.path(), 1);
    let big = |index| Entry { index, term: 1, data: vec![b'x'; 3 << 20].into(), ..Default::default() };
    store.save((2..=10).map(big).collect(), None, true).expect("room");
    assert!(store.log.tail_from() > 2, "the oldest are on disk only");
    let indexes = |low, high, size| {
        let entries = store.entries(low, high, size, GetEntriesContext::empty(false)).expect("there");
        entries.iter().map(|entry| entry.index).collect::<Vec<_>>()
    };
    assert_eq!(indexes(1, 11, None), (1..=10).collect::<Vec<_>>());
    assert_eq!(indexes(2, 11, Some(7 << 20)), [2, 3]);
    assert_eq!(indexes(8, 11, Some(0)), [8]);
}

#[test]
fn a_directory_in_use_is_said_to_be() {
    let directory = tempfile::tempdir().expect("a directory");
    let _held = store(directory.path(), 1);
    assert!(matches!(Store::open(&Files::default(), directory.path(), 2), Err(StoreError::Locked)));
}

#[test]
fn who_finds_a_directory_in_use_removes_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let held = store(directory.path(), 1);
    let incoming = incoming(&held, &[("k", "v")]);
    assert!(matches!(Store::open(&Files::default(), directory.path(), 2), Err(StoreError::Locked)));
    assert_eq!(beside(directory.path()), ["incoming-0", "log", "node.redb"]);
    drop(incoming);
}

/// The next one there would use the same names.
#[test]
fn a_directory_is_in_use_until_what_is_made_in_it_has_ended() {
    let directory = tempfile::tempdir().expect("a directory");
    let open = || Store::open(&Files::default(), directory.path(), 2);
    let held = store(directory.path(), 1);
    let (builder, incoming) = (held.builder(0), incoming(&held, &[("k", "v")]));
    drop(held);
    assert!(matches!(open(), Err(StoreError::Locked)));
    drop(incoming);
    builder.build::<StoreError>(0, || Ok(None)).expect_err("nobody can install it any more");
    open().map(drop).expect("nobody uses it any more");
    assert_eq!(beside(directory.path()), ["log", "node.redb"]);
}

#[test]
fn what_was_left_of_a_snapshot_is_removed_before_the_data_are_given_up() {
    let directory = tempfile::tempdir().expect("a directory");
    for name in ["node.redb", "incoming-3", "spool-4"] {
        std::fs::write(directory.path().join(name), "no database").expect("room");
    }
    Store::open(&Files::default(), directory.path(), 2).map(drop).expect_err("they are damaged");
    assert_eq!(beside(directory.path()), ["node.redb"]);
}

#[test]
fn a_log_with_a_hole_is_not_taken() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut store = store(directory.path(), 4);
    store.wal.append(&[entry(6, 1)], &hard_state(1, 0, 1)).expect("room");
    drop(store);
    assert!(matches!(Store::open(&Files::default(), directory.path(), 2), Err(StoreError::Damaged(_))));
}

#[test]
fn a_log_that_is_gone_is_told() {
    let directory = tempfile::tempdir().expect("a directory");
    drop(store(directory.path(), 4));
    std::fs::remove_dir_all(directory.path().join("log")).expect("it is there");
    assert!(matches!(Store::open(&Files::default(), directory.path(), 2), Err(StoreError::Damaged(_))));
}

#[test]
fn a_loss_of_power_between_a_snapshots_data_and_its_place_in_the_log_is_made_up_for() {
    // The old log ends before the snapshot, or continues past it in another term.
    for last in [4, 12] {
        let directory = tempfile::tempdir().expect("a directory");
        let (mut store, before) = (store(directory.path(), last), tempfile::tempdir().expect("a directory"));
        copy(directory.path(), before.path());
        let incoming = incoming(&store, &[("new", "v")]);
        drop(store.install(&metadata(9, 3, &[1, 2]), &membership(), incoming, vec![], None).expect("room"));
        drop(store);
        std::fs::remove_dir_all(directory.path().join("log")).expect("it is there");
        std::fs::rename(before.path().join("log"), directory.path().join("log")).expect("it is there");
        let mut store = Store::open(&Files::default(), directory.path(), 2).expect("it opens");
        for _ in 0..2 {
            assert_eq!((store.applied(), store.first_and_last_index(), store.term(9)), (9, (10, 9), Ok(3)));
            assert_eq!(store.initial_state().expect("kept").hard_state, hard_state(3, 0, 9));
            store = reopened(store, directory.path());
        }
        store.save(vec![entry(10, 3)], None, true).expect("room");
        assert_eq!(terms(&reopened(store, directory.path())), [(10, 3)]);
    }
}

#[test]
fn what_was_cut_leaves_the_disk_by_segments_and_the_hard_state_stays() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut store = store(directory.path(), 1);
    let big = |index| Entry { index, term: 1, data: vec![b'x'; 1 << 20].into(), ..Default::default() };
    for index in 2..=60 {
        store.save(vec![big(index)], Some(hard_state(1, 1, index)), true).expect("room");
        store.apply(Effect { index, ..Effect::default() }).expect("room");
    }
    let files = || std::fs::read_dir(directory.path().join("log")).expect("a directory").count();
    assert_eq!(files(), 4);
    store.compact(40).expect("room");
    assert_eq!(files(), 2);
    store = reopened(store, directory.path());
    assert_eq!(store.first_and_last_index(), (41, 60));
    assert_eq!(store.initial_state().expect("kept").hard_state, hard_state(1, 1, 60));
    let entries = store.entries(41, 61, None, GetEntriesContext::empty(false)).expect("they are there");
    assert_eq!(entries.len(), 20);
}

#[test]
fn entries_that_were_replaced_are_not_read_from_the_disk() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut store = store(directory.path(), 1);
    let big = |index, term| Entry { index, term, data: vec![b'x'; 1 << 20].into(), ..Default::default() };
    store.save((2..=30).map(|index| big(index, 1)).collect(), None, true).expect("room");
    store.save((10..=40).map(|index| big(index, 2)).collect(), Some(hard_state(2, 0, 1)), true).expect("room");
    for store in [&store, &reopened_copy(directory.path())] {
        assert!(store.log.tail_from() > 20);
        let expected: Vec<_> = (1..=40).map(|index| (index, if index < 10 { 1 } else { 2 })).collect();
        assert_eq!(terms(store), expected);
    }
}

#[test]
fn a_store_whose_log_is_in_the_database_is_taken_over() {
    const LOG: redb::TableDefinition<'_, u64, &[u8]> = redb::TableDefinition::new("log");
    let directory = tempfile::tempdir().expect("a directory");
    let store = store(directory.path(), 1);
    let earlier = |write: &WriteTransaction| {
        let (mut log, mut meta) = (write.open_table(LOG)?, write.open_table(META)?);
        meta.insert("hard_state", bytes(&hard_state(2, 3, 2))?.as_slice())?;
        for index in 1..=9 {
            let data = vec![b'x'; 1 << 20];
            log.insert(index, bytes(&Entry { index, term: 1, data: data.into(), ..Default::default() })?.as_slice())?;
        }
        Ok(())
    };
    store.write(Durability::Immediate, earlier).expect("room");
    drop(store);
    std::fs::remove_dir_all(directory.path().join("log")).expect("it is there");
    let mut store = Store::open(&Files::default(), directory.path(), 2).expect("it opens");
    for _ in 0..2 {
        assert_eq!(terms(&store), (1..=9).map(|index| (index, 1)).collect::<Vec<_>>());
        assert_eq!(store.initial_state().expect("kept").hard_state, hard_state(2, 3, 2));
        store = reopened(store, directory.path());
    }
}

/// The contents of a log's files, by name.
fn log_of(directory: &Path) -> BTreeMap<std::ffi::OsString, Vec<u8>> {
    let files = std::fs::read_dir(directory.join("log")).expect("a directory").map(|entry| entry.expect("a file"));
    files.map(|file| (file.file_name(), std::fs::read(file.path()).expect("a file"))).collect()
}

#[test]
fn a_log_whose_database_is_lost_is_not_written_over() {
    let directory = tempfile::tempdir().expect("a directory");
    drop(store(directory.path(), 3));
    let before = log_of(directory.path());
    let database = directory.path().join("node.redb");
    for lost in [true, false] {
        if lost {
            std::fs::remove_file(&database).expect("it is there");
        } else {
            std::fs::write(&database, []).expect("room");
        }
        let opened = Store::open(&Files::default(), directory.path(), 2).map(drop);
        assert!(matches!(opened, Err(StoreError::Damaged(_))), "{opened:?}");
        assert_eq!(log_of(directory.path()), before);
    }
}

#[test]
fn a_start_that_was_interrupted_before_there_was_a_member_is_begun_anew() {
    let directory = tempfile::tempdir().expect("a directory");
    for _ in 0..2 {
        let mut begun = Store::open(&Files::default(), directory.path(), 2).expect("there is no member yet");
        // The log is written first.
        begun.wal.reset((0, 0), &[entry(1, 1)], &hard_state(1, 0, 1)).expect("room");
    }
    let store = reopened(store(directory.path(), 3), directory.path());
    assert_eq!(terms(&store), [(1, 1), (2, 1), (3, 1)]);
}

/// A segment in the middle is lost: the segments before it may be all that is left of what was acknowledged.
#[test]
fn a_log_of_which_a_part_is_lost_keeps_the_rest() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut store = store(directory.path(), 1);
    for index in 2..=5 {
        let data = vec![b'x'; 16 << 20].into();
        store.save(vec![Entry { index, term: 1, data, ..Default::default() }], None, true).expect("room");
    }
    drop(store);
    let segments = log_of(directory.path());
    std::fs::remove_file(directory.path().join("log").join(segments.keys().nth(2).expect("some")))
        .expect("it is there");
    let opened = Store::open(&Files::default(), directory.path(), 2).map(drop);
    assert!(matches!(opened, Err(StoreError::Damaged(_))), "{opened:?}");
    assert_eq!(log_of(directory.path()).len(), segments.len() - 1);
}

#[test]
fn each_start_has_its_number() {
    let directory = tempfile::tempdir().expect("a directory");
    let (store, world) = (store(directory.path(), 1), World::default());
    let starts = [0; 2].map(|_| store.boot(&world).expect("room"));
    let third = reopened(store, directory.path()).boot(&world).expect("room");
    assert_eq!([starts[0].boot, starts[1].boot, third.boot], [1, 2, 3]);
    assert!(starts.iter().all(|start| start.directory == third.directory), "{starts:?}, {third}");
    assert!(starts.iter().all(|start| start.nonce != third.nonce), "{starts:?}, {third}");
    let other = tempfile::tempdir().expect("a directory");
    let wiped = Store::open(&Files::default(), other.path(), 2).expect("a new store").boot(&world).expect("room");
    assert_ne!(wiped.directory, third.directory);
}

fn start(boot: u64) -> Incarnation {
    Incarnation { directory: DirectoryId(7), boot, nonce: u64::MAX }
}

#[test]
fn who_was_met_is_known_until_it_is_removed() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut store = store(directory.path(), 3);
    for (id, boot) in [(2, 1), (3, 9), (2, 5)] {
        store.meet(MemberId(id), start(boot), &[]).expect("room");
    }
    let mut store = reopened(store, directory.path());
    let met = |store: &Store| store.met().iter().map(|(id, met)| (id.0, *met)).collect::<Vec<_>>();
    assert_eq!(met(&store), [(2, start(5)), (3, start(9))]);
    store.apply(Effect { index: 2, gone: vec![MemberId(2)], ..Effect::default() }).expect("room");
    assert_eq!(met(&store), [(3, start(9))]);
    let mut store = reopened(store, directory.path());
    assert_eq!(met(&store), [(3, start(9))]);
    // A snapshot without it.
    let snapshot = metadata(9, 2, &[1]);
    let incoming = incoming(&store, &[]);
    store.install(&snapshot, &membership(), incoming, Vec::new(), None).expect("whole");
    assert_eq!(met(&store), []);
    assert_eq!(met(&reopened(store, directory.path())), []);
}
