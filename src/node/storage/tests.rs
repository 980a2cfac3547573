use std::path::PathBuf;

use bytes::Bytes;
use raft::{Error as RaftError, GetEntriesContext, Storage as _, StorageError, eraftpb::SnapshotMetadata};

use super::*;
use crate::{id::DirectoryId, world::World};

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

fn identity() -> Identity {
    Identity { member: 1, cluster: 2, name: "a".into(), token: "t".into(), joined: Vec::new() }
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

/// What a crash leaves: the files, while nobody has closed them.
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

fn records(pairs: &'static [(&str, &str)]) -> impl FnMut() -> Result<Option<(Bytes, Bytes)>, StoreError> {
    let mut left = pairs.iter();
    move || Ok(left.next().map(|(key, value)| ((*key).into(), (*value).into())))
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
        // As a crash leaves it: the file, copied while nobody closed it.
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
    store.install(&metadata(9, 3, &[1, 2]), &membership(), records(&[("new", "v")]), entries, state).expect("room");
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
    let mut store = store(directory.path(), 4);
    let mut left = 3;
    let records = || {
        left -= 1;
        if left == 0 { Err(damaged("torn")) } else { Ok(Some((vec![left].into(), Bytes::new()))) }
    };
    let torn = store.install(&metadata(9, 3, &[2]), &Membership::default(), records, Vec::new(), None);
    assert!(matches!(torn, Err(StoreError::Damaged(_))), "{torn:?}");
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

#[test]
fn a_snapshot_shows_the_moment_it_was_asked_for_and_their_number_is_bounded() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut store = store(directory.path(), 3);
    let put = |value: &'static str| vec![Write::Put("k".into(), value.into())];
    store.apply(Effect { index: 2, writes: put("then"), ..Effect::default() }).expect("room");
    let metadata = store.snapshot(0, 7).expect("available").take_metadata();
    assert_eq!((metadata.index, metadata.term, metadata.get_conf_state()), (2, 1, &voters(&[1])));
    store.apply(Effect { index: 3, writes: put("now"), ..Effect::default() }).expect("room");
    let outgoing = store.take_outgoing(7, 2).expect("raft was given it");
    let data = outgoing.read.open_table(DATA).expect("a table");
    assert_eq!(data.get(b"k".as_slice()).expect("readable").expect("there").value(), b"then");
    store.snapshot(0, 8).expect("the second of two");
    let third = store.snapshot(0, 9).expect_err("two are on their way");
    assert_eq!(third, RaftError::Store(StorageError::SnapshotTemporarilyUnavailable));
    drop((data, outgoing));
    store.snapshot(0, 9).expect("one has ended");
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
    // The old log ends before the snapshot, or goes on behind it in another term.
    for last in [4, 12] {
        let directory = tempfile::tempdir().expect("a directory");
        let (mut store, before) = (store(directory.path(), last), tempfile::tempdir().expect("a directory"));
        copy(directory.path(), before.path());
        store.install(&metadata(9, 3, &[1, 2]), &membership(), records(&[("new", "v")]), vec![], None).expect("room");
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

/// What the files of a log have, by name.
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

/// A segment in the middle is lost: what is before it may be all that is left of what was acknowledged.
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
    store.install(&snapshot, &membership(), records(&[]), Vec::new(), None).expect("whole");
    assert_eq!(met(&store), []);
    assert_eq!(met(&reopened(store, directory.path())), []);
}
