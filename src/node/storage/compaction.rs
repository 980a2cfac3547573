//! Makes the database's file smaller, if that gains enough.
//!
//! Freed pages are reused, and the file keeps its size, so after many deletes most of it may be unused. redb moves the
//! rest to the front of the file only while nobody reads or writes, for as long as that takes. So it is done at the
//! start of a member, before it is reachable: a running member never stops for it.

use std::time::Instant;

use redb::Database;

use super::tables::{DATA_BYTES, number};
use crate::node::storage::StoreError;

/// The least gain, in bytes.
pub(super) const LEAST_GAIN_BYTES: u64 = 64 << 20;

/// Compacts a database whose file has this many bytes, if that gives back at least `least` bytes and at least half of
/// the file. Returns whether it did.
pub(super) fn compact(database: &mut Database, file_bytes: u64, least: u64) -> Result<bool, StoreError> {
    let is_worth_it = |used: u64| file_bytes.saturating_sub(used) >= least.max(file_bytes / 2);
    // The size of the data is cheap to look up, and a lower limit of the size of their pages.
    if !is_worth_it(data_bytes(database)?) || !is_worth_it(page_bytes(database)?) {
        return Ok(false);
    }
    let begun = Instant::now();
    tracing::info!(file_bytes, "compacting the data");
    database.compact().map_err(|error| StoreError::Disk(error.into()))?;
    tracing::info!(seconds = begun.elapsed().as_secs_f64(), "compacted the data");
    Ok(true)
}

fn data_bytes(database: &Database) -> Result<u64, StoreError> {
    let read = redb::ReadableDatabase::begin_read(database).map_err(redb::Error::from)?;
    // `None`: the database was created just now.
    match read.open_table(super::META) {
        Ok(_) => number(&read, DATA_BYTES),
        Err(redb::TableError::TableDoesNotExist(_)) => Ok(0),
        Err(error) => Err(StoreError::Disk(error.into())),
    }
}

/// The bytes of all pages in use. Reads each of them.
fn page_bytes(database: &Database) -> Result<u64, StoreError> {
    let count = || {
        let write = database.begin_write()?;
        let stats = write.stats()?;
        write.abort()?;
        Ok::<_, redb::Error>(stats.allocated_pages() * stats.page_size() as u64)
    };
    count().map_err(StoreError::Disk)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{
        node::storage::{DATA, backend},
        world::Files,
    };

    static VALUE: [u8; 100_000] = [7; 100_000];

    fn open(path: &Path) -> Database {
        backend::open(&Files::default(), path).expect("it opens")
    }

    fn change(database: &Database, change: impl Fn(&mut redb::Table<'_, &'static [u8], &'static [u8]>, u32)) {
        for ten in 0..20 {
            let write = database.begin_write().expect("alone");
            {
                let mut data = write.open_table(DATA).expect("a table");
                (ten * 10..ten * 10 + 10).for_each(|number| change(&mut data, number));
            }
            write.commit().expect("room");
        }
    }

    #[test]
    fn a_file_of_which_most_holds_nothing_shrinks_and_keeps_what_is_left() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("data");
        let mut database = open(&path);
        let length = || std::fs::metadata(&path).expect("a file").len();
        let put = |data: &mut redb::Table<'_, &'static [u8], &'static [u8]>, number: u32| {
            data.insert(number.to_be_bytes().as_slice(), VALUE.as_slice()).expect("room");
        };
        change(&database, put);
        let full = length();
        assert!(full > 20_000_000, "{full}");
        assert!(!compact(&mut database, full, 1 << 20).expect("it can be read"), "nothing is gained");
        change(&database, |data, number| {
            if number % 20 != 0 {
                data.remove(number.to_be_bytes().as_slice()).expect("it is there");
            }
        });
        let before = length();
        assert!(!compact(&mut database, before, 1 << 30).expect("it can be read"), "it gains too little");
        assert!(compact(&mut database, before, 1 << 20).expect("it can be written"));
        let after = length();
        assert!(after < before / 2, "{before} bytes, then {after}");
        drop(database);
        let database = open(&path);
        let read = redb::ReadableDatabase::begin_read(&database).expect("it opens");
        let data = read.open_table(DATA).expect("a table");
        let left: Vec<u32> = (0..200)
            .filter(|number: &u32| {
                let value = data.get(number.to_be_bytes().as_slice()).expect("readable");
                value.is_some_and(|value| value.value() == VALUE)
            })
            .collect();
        assert_eq!(left, (0..200).step_by(20).collect::<Vec<_>>());
    }
}
