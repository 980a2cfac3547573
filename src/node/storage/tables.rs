//! The tables of the database, and the form of their values.
//!
//! | table | key | value |
//! |---|---|---|
//! | `meta` | `identity` | JSON: the identity of this member and its cluster |
//! | | `boot` | how often it was started |
//! | | `directory` | the ID of the data directory |
//! | | `conf_state` | raft-rs's, protobuf |
//! | | `truncated` | index and term of the entry before the log's first |
//! | | `applied` | the index of the last entry whose effect is in `data` |
//! | | `membership` | JSON: members, and the IDs of those that were removed |
//! | | `data_bytes` | bytes of all keys and values in `data` |
//! | | `halted` | why this member takes no part any more; absent while it does |
//! | | `forced` | empty; present while each start since a new cluster was forced had the flag, too |
//! | `met` | member | the newest incarnation of it that was met: directory, boot and nonce |
//! | `data` | key | value |

use protobuf::Message as _;
use raft::eraftpb::Entry;
use redb::{ReadTransaction, TableDefinition};

use super::StoreError;

pub(super) const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
pub(in crate::node) const DATA: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("data");
pub(super) const MET: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("met");
/// The bytes of all keys and values of [`DATA`]. It is updated with every change of the table, because a snapshot
/// announces its length before it is read.
pub(super) const DATA_BYTES: &str = "data_bytes";

pub(super) fn bytes(message: &impl protobuf::Message) -> Result<Vec<u8>, redb::Error> {
    message.write_to_bytes().map_err(|error| redb::Error::Corrupted(error.to_string()))
}

pub(super) fn parse_entry(bytes: &[u8]) -> Result<Entry, StoreError> {
    let mut entry = Entry::default();
    entry.merge_from_bytes(bytes).map_err(|_| damaged("an entry of the log"))?;
    Ok(entry)
}

pub(super) fn damaged(what: &str) -> StoreError {
    StoreError::Damaged(what.to_owned())
}

pub(super) fn meta(read: &ReadTransaction, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
    let value = || Ok::<_, redb::Error>(read.open_table(META)?.get(key)?.map(|guard| guard.value().to_vec()));
    value().map_err(StoreError::Disk)
}

/// How much a key and its value count in [`DATA_BYTES`].
pub(super) fn length(key: &[u8], value: &[u8]) -> u64 {
    key.len() as u64 + value.len() as u64
}

pub(super) fn number(read: &ReadTransaction, key: &str) -> Result<u64, StoreError> {
    match meta(read, key)? {
        Some(bytes) => bytes.try_into().map(u64::from_be_bytes).map_err(|_| damaged(key)),
        None => Ok(0),
    }
}

pub(super) fn message<M: protobuf::Message>(read: &ReadTransaction, key: &str) -> Result<M, StoreError> {
    let mut message = M::new();
    if let Some(bytes) = meta(read, key)? {
        message.merge_from_bytes(&bytes).map_err(|_| damaged(key))?;
    }
    Ok(message)
}

pub(super) fn pair_bytes(index: u64, term: u64) -> [u8; 16] {
    (u128::from(index) << 64 | u128::from(term)).to_be_bytes()
}

pub(super) fn pair(bytes: &[u8]) -> Option<(u64, u64)> {
    let (index, term) = bytes.split_at_checked(8)?;
    Some((u64::from_be_bytes(index.try_into().ok()?), u64::from_be_bytes(term.try_into().ok()?)))
}
