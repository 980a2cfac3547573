//! Stores of earlier versions, where the log was a table of the database, and the hard state a value of `meta`.

use std::path::Path;

use raft::eraftpb::Entry;
use redb::{Database, ReadableDatabase, TableDefinition};

use super::{
    StoreError,
    tables::{META, message, meta, pair, parse_entry},
    wal::Wal,
};
use crate::world::Files;

const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");
/// Bytes of entries that are moved at a time.
const MOVED_AT_ONCE: usize = 4 << 20;

/// Moves the log and the hard state to the log's own files, if they are in the database. If a start is interrupted, the
/// next one repeats this.
pub(super) fn move_log(database: &Database, files: &Files, directory: &Path) -> Result<(), StoreError> {
    let read = database.begin_read().map_err(redb::Error::from)?;
    if meta(&read, "hard_state")?.is_none() {
        return Ok(());
    }
    let hard_state = message(&read, "hard_state")?;
    let truncated = meta(&read, "truncated")?.and_then(|bytes| pair(&bytes)).unwrap_or_default();
    // Existing files are what an interrupted start has left.
    let mut wal = Wal::open(files, directory, |_| Ok(()))?;
    wal.reset(truncated, &[], &hard_state)?;
    let (mut entries, mut bytes) = (Vec::<Entry>::new(), 0);
    for item in read.open_table(LOG).and_then(|table| Ok(table.range::<u64>(..)?)).map_err(redb::Error::from)? {
        let (_, value) = item.map_err(redb::Error::from)?;
        bytes += value.value().len();
        entries.push(parse_entry(value.value())?);
        if bytes >= MOVED_AT_ONCE {
            wal.append(&std::mem::take(&mut entries), &hard_state)?;
            bytes = 0;
        }
    }
    wal.append(&entries, &hard_state)?;
    let forget = || {
        let write = database.begin_write()?;
        write.delete_table(LOG)?;
        write.open_table(META)?.remove("hard_state")?;
        Ok::<_, redb::Error>(write.commit()?)
    };
    forget()?;
    tracing::info!("moved the log out of the database, to {}", directory.display());
    Ok(())
}
