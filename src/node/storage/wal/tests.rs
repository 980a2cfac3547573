use proptest::prelude::*;

use super::*;

fn entry(index: u64, term: u64, size: usize) -> Entry {
    Entry { index, term, data: vec![b'x'; size].into(), ..Default::default() }
}

fn hard_state(term: u64) -> HardState {
    HardState { term, vote: 1, commit: 1, ..Default::default() }
}

/// The log, and its records.
fn opened(directory: &Path) -> Result<(Wal, Vec<Record>), StoreError> {
    let mut records = Vec::new();
    let wal = Wal::open(&Files::default(), directory, |record| {
        records.push(record);
        Ok(())
    })?;
    Ok((wal, records))
}

/// A log of one segment with records of these sizes, its only file, and where each record ends.
fn written(directory: &Path, sizes: &[usize]) -> (PathBuf, Vec<usize>) {
    let (mut wal, _) = opened(directory).expect("a new log");
    let ends = (1..).zip(sizes).map(|(index, size)| {
        wal.append(&[entry(index, 1, *size)], &hard_state(1)).expect("room");
        usize::try_from(wal.segments[0].end).expect("a small one")
    });
    (directory.join(segment::name(0)), ends.collect())
}

fn indexes(records: &[Record]) -> Vec<u64> {
    records.iter().flat_map(|record| &record.entries).map(|entry| entry.index).collect()
}

#[test]
fn records_come_back_as_they_were_written() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut wal, found) = opened(directory.path()).expect("a new log");
    assert_eq!(found, []);
    wal.append(&[entry(1, 1, 0), entry(2, 1, 100)], &hard_state(1)).expect("room");
    wal.append(&[], &hard_state(2)).expect("room");
    wal.reset((7, 3), &[entry(8, 3, 1 << 21)], &hard_state(3)).expect("room");
    drop(wal);
    let (_, found) = opened(directory.path()).expect("it opens");
    let expected = Record { reset: Some((7, 3)), hard_state: hard_state(3), entries: vec![entry(8, 3, 1 << 21)] };
    assert_eq!(found, [expected]);
}

#[test]
fn a_segment_that_the_power_went_in_is_no_part_of_the_log() {
    for left in [&[][..], &MAGIC[..5], &MAGIC[..], &[&MAGIC[..], &[1; 40]].concat(), &[0; 64]] {
        let directory = tempfile::tempdir().expect("a directory");
        written(directory.path(), &[10, 10]);
        std::fs::write(directory.path().join(segment::name(1)), left).expect("room");
        if left.len() == 56 {
            // It differs from what a tear leaves.
            assert!(matches!(opened(directory.path()), Err(StoreError::Damaged(_))));
            continue;
        }
        let (mut wal, found) = opened(directory.path()).expect("it opens");
        assert_eq!(indexes(&found), [1, 2]);
        wal.append(&[entry(3, 1, 10)], &hard_state(1)).expect("room");
        assert_eq!(indexes(&opened(directory.path()).expect("it opens").1), [1, 2, 3]);
    }
}

#[test]
fn segments_that_were_dropped_in_part_are_dropped() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut wal, _) = opened(directory.path()).expect("a new log");
    for index in 1..=5 {
        wal.append(&[entry(index, 1, 16 << 20)], &hard_state(1)).expect("room");
    }
    drop(wal);
    std::fs::remove_file(directory.path().join(segment::name(2))).expect("it is there");
    let (mut wal, found) = opened(directory.path()).expect("it opens");
    assert_eq!((indexes(&found), wal.segments.len()), (vec![4, 5], 2));
    wal.remove_dropped().expect("they are there");
    assert_eq!(std::fs::read_dir(directory.path()).expect("a directory").count(), 2);
}

#[test]
fn a_segment_of_nobodys_takes_no_other_with_it() {
    let directory = tempfile::tempdir().expect("a directory");
    written(directory.path(), &[10, 10]);
    std::fs::write(directory.path().join(segment::name(u64::MAX)), []).expect("room");
    assert!(matches!(opened(directory.path()), Err(StoreError::Damaged(_))));
    assert_eq!(indexes(&opened(directory.path()).expect("it opens").1), [1, 2]);
}

#[test]
fn after_a_failure_nothing_is_written() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut wal, _) = opened(directory.path()).expect("a new log");
    wal.append(&[entry(1, 1, 10)], &hard_state(1)).expect("room");
    wal.guarded(|_| Err(io::ErrorKind::StorageFull.into())).expect_err("it is told");
    wal.append(&[entry(2, 1, 10)], &hard_state(1)).expect_err("what the log ends with is not known");
    wal.compact(1).expect_err("likewise");
    assert_eq!(indexes(&opened(directory.path()).expect("it opens").1), [1]);
}

proptest! {
    // Each case syncs a dozen times.
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever part of the last write reached the disk: the record is there or not, and those before it are there.
    #[test]
    fn a_torn_write_leaves_all_before_it(
        sizes in proptest::collection::vec(0_usize..2000, 1..6),
        last in 0_usize..3000,
        kept in proptest::collection::vec(any::<bool>(), 8),
        prefix in any::<Option<prop::sample::Index>>(),
    ) {
        let directory = tempfile::tempdir().expect("a directory");
        let all = [&sizes[..], &[last]].concat();
        let (path, ends) = written(directory.path(), &all);
        let mut bytes = std::fs::read(&path).expect("it is there");
        let (start, end) = (ends[ends.len() - 2], ends[ends.len() - 1]);
        match prefix {
            // A disk that writes bytes in order.
            Some(prefix) => bytes[start + prefix.index(end - start)..end].fill(0),
            // A disk that writes sectors in any order.
            None => for sector in start / 512..=end / 512 {
                if !kept[sector % kept.len()] {
                    bytes[(sector * 512).max(start)..(sector * 512 + 512).clamp(start, end)].fill(0);
                }
            }
        }
        std::fs::write(&path, &bytes).expect("room");
        let before: Vec<u64> = (1..=sizes.len() as u64).collect();
        let (mut wal, found) = opened(directory.path()).expect("it opens");
        let found = indexes(&found);
        prop_assert!(found == before || found[..] == [&before[..], &[before.len() as u64 + 1]].concat());
        let next = found.len() as u64 + 1;
        wal.append(&[entry(next, 1, 10)], &hard_state(1)).expect("room");
        let (wal, found) = opened(directory.path()).expect("it opens");
        prop_assert_eq!(indexes(&found), (1..=next).collect::<Vec<_>>());
        let mut read = Vec::new();
        wal.read(1, |entry| { read.push(entry.index); ControlFlow::Continue(()) }).expect("readable");
        prop_assert_eq!(read, (1..=next).collect::<Vec<_>>());
    }

    /// A changed byte in what was synced before is damage, never the end of the log.
    #[test]
    fn damage_is_told(
        sizes in proptest::collection::vec(0_usize..2000, 2..6),
        at in any::<prop::sample::Index>(),
        flip in 1_u8..,
    ) {
        let directory = tempfile::tempdir().expect("a directory");
        let (path, ends) = written(directory.path(), &sizes);
        let mut bytes = std::fs::read(&path).expect("it is there");
        let at = HEADER_BYTES + at.index(ends[ends.len() - 2] - HEADER_BYTES);
        bytes[at] ^= flip;
        std::fs::write(&path, &bytes).expect("room");
        match opened(directory.path()) {
            Err(StoreError::Damaged(_)) => {}
            Err(other) => prop_assert!(false, "{other}"),
            // The padding before the next record does not matter.
            Ok((_, found)) => prop_assert_eq!(indexes(&found), (1..=sizes.len() as u64).collect::<Vec<_>>()),
        }
    }

    /// No bytes make the process panic.
    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200), sequence in any::<u64>()) {
        let _ = segment::scan(&bytes, sequence);
        let _ = segment::scan(&[&MAGIC[..], &bytes].concat(), sequence);
        let _ = Record::parse(&bytes);
    }
}
