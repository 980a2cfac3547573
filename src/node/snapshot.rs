//! The body of a snapshot: the whole state as of one index, passed from one store to another. `spooling` writes it.
//!
//! | bytes | content |
//! |---|---|
//! | 8 | `rafthttp` |
//! | 1 | version: 1 |
//! | 4 | length of the header |
//! | header | JSON: cluster, index, term, membership |
//! | records | each: length of the key (4), length of the value (4), key, value |
//! | 4 | `ff ff ff ff`: no more records |
//! | 8 | the number of records |
//! | 8 | the number of bytes, up to and including this field |
//! | 16 | xxh3-128 of these bytes |
//!
//! All integers are unsigned and big-endian. A body is read completely and verified before raft hears of it. By then,
//! everything that takes long is done, in a separate database beside the store.

use std::{
    io::{self, BufReader, Read},
    path::Path,
};

use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

use super::{
    members::Membership,
    request::MAX_KEY_BYTES,
    storage::{IncomingBuilder, IncomingDatabase, StoreError},
};
use crate::{
    wire::raftpb::Snapshot,
    world::{File, Files},
};

mod spooling;

pub(super) use spooling::{Spooling, body};

const MAGIC: &[u8; 8] = b"rafthttp";
const VERSION: u8 = 1;
const END: u32 = u32::MAX;
/// How much is read or written at once, in bytes.
const PIECE_BYTES: usize = 256 << 10;
/// The length of the fields after the records, in bytes.
const TRAILER_BYTES: u64 = 4 + 8 + 8 + 16;
/// The longest header, in bytes: it has room for all members and a million removed IDs.
const MAX_HEADER_BYTES: u32 = 32 << 20;

/// A key and its value.
type KeyValue = (Bytes, Bytes);

/// Why a received snapshot is refused.
#[derive(Debug, thiserror::Error)]
pub(super) enum InstallError {
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
    #[error("it is not whole: {0}")]
    Torn(&'static str),
    #[error("it is not what its message says: {0}")]
    Contradicts(&'static str),
    #[error("it cannot be installed: {0}")]
    Store(#[from] StoreError),
    #[error("nobody waits for it any more")]
    Unwanted,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct SnapshotHeader {
    cluster: u64,
    index: u64,
    term: u64,
    membership: serde_json::Value,
}

/// A snapshot that was received and verified. Its data are in a database that is ready to replace the store's.
/// Everything is deleted when this is dropped, which takes a while.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) index: u64,
    pub(super) term: u64,
    pub(super) membership: Membership,
    pub(super) incoming: IncomingDatabase,
}

impl Received {
    /// Takes a received snapshot from its place, checks it against its message, and reads it completely into a
    /// database. Before each record, `is_wanted` is asked whether to go on.
    pub(super) fn take(
        files: &Files,
        path: &Path,
        cluster: u64,
        snapshot: &Snapshot,
        builder: &IncomingBuilder,
        is_wanted: impl Fn() -> bool,
    ) -> Result<Self, InstallError> {
        let file = files.open_to_remove(path)?;
        // A file that cannot be removed is overwritten by the next one of its index.
        if let Err(error) = files.remove(path) {
            tracing::warn!(path = %path.display(), %error, "a snapshot cannot be removed");
        }
        let (mut reader, membership) = Self::check(file, cluster, snapshot)?;
        let (index, term, bytes) = (reader.header.index, reader.header.term, reader.size);
        let record = || if is_wanted() { reader.record() } else { Err(InstallError::Unwanted) };
        let incoming = builder.build(bytes, record)?;
        Ok(Self { index, term, membership, incoming })
    }

    /// Checks the fields before the records.
    fn check(file: File, cluster: u64, snapshot: &Snapshot) -> Result<(SnapshotReader, Membership), InstallError> {
        let metadata = snapshot.metadata.as_ref().ok_or(InstallError::Contradicts("no metadata"))?;
        let reader = SnapshotReader::open(file)?;
        if reader.header.cluster != cluster {
            return Err(InstallError::Contradicts("the cluster differs"));
        }
        if (reader.header.index, reader.header.term) != (metadata.index, metadata.term) {
            return Err(InstallError::Contradicts("index or term differ"));
        }
        let membership = Membership::parse(reader.header.membership.to_string().as_bytes());
        let membership = membership.map_err(|_| InstallError::Torn("membership"))?;
        if !metadata.conf_state.as_ref().is_some_and(|state| membership.agrees_with(state)) {
            return Err(InstallError::Contradicts("the membership differs"));
        }
        Ok((reader, membership))
    }
}

/// Reads a body, and counts and hashes its bytes.
struct SnapshotReader {
    input: BufReader<File>,
    header: SnapshotHeader,
    hash: Box<Xxh3>,
    records: u64,
    length: u64,
    size: u64,
}

impl SnapshotReader {
    fn open(file: File) -> Result<Self, InstallError> {
        let size = file.length()?;
        let header = SnapshotHeader { cluster: 0, index: 0, term: 0, membership: serde_json::Value::Null };
        let input = BufReader::with_capacity(PIECE_BYTES, file);
        let mut reader = Self { input, header, hash: Box::new(Xxh3::new()), records: 0, length: 0, size };
        if reader.array()? != *MAGIC {
            return Err(InstallError::Torn("no snapshot of ours"));
        }
        if reader.array()? != [VERSION] {
            return Err(InstallError::Torn("a version that we do not know"));
        }
        let length = u32::from_be_bytes(reader.array()?);
        if length > MAX_HEADER_BYTES {
            return Err(InstallError::Torn("header too long"));
        }
        let header = reader.bytes(length)?;
        reader.header = serde_json::from_slice(&header).map_err(|_| InstallError::Torn("header"))?;
        Ok(reader)
    }

    /// The next record. `None` once the end was reached and verified.
    fn record(&mut self) -> Result<Option<KeyValue>, InstallError> {
        let key = u32::from_be_bytes(self.array()?);
        if key == END {
            return self.end().map(|()| None);
        }
        let value = u32::from_be_bytes(self.array()?);
        if key == 0 || key as usize > MAX_KEY_BYTES {
            return Err(InstallError::Torn("a key without length, or too long"));
        }
        self.records += 1;
        Ok(Some((self.bytes(key)?, self.bytes(value)?)))
    }

    fn end(&mut self) -> Result<(), InstallError> {
        if u64::from_be_bytes(self.array()?) != self.records {
            return Err(InstallError::Torn("number of records"));
        }
        if u64::from_be_bytes(self.array()?) != self.length {
            return Err(InstallError::Torn("length"));
        }
        let expected = self.hash.digest128();
        if u128::from_be_bytes(self.array()?) != expected {
            return Err(InstallError::Torn("checksum"));
        }
        if self.length == self.size { Ok(()) } else { Err(InstallError::Torn("something after its end")) }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], InstallError> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    /// Reads at most what the file still has: an announced length is believed only as far as there are bytes.
    fn bytes(&mut self, length: u32) -> Result<Bytes, InstallError> {
        if u64::from(length) > self.size.saturating_sub(self.length) {
            return Err(InstallError::Torn("cut off"));
        }
        let mut bytes = BytesMut::zeroed(length as usize);
        self.fill(&mut bytes)?;
        Ok(bytes.freeze())
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), InstallError> {
        self.input.read_exact(bytes).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => InstallError::Torn("cut off"),
            _ => InstallError::Io(error),
        })?;
        self.hash.update(bytes);
        self.length += bytes.len() as u64;
        Ok(())
    }
}

/// A body without records.
#[cfg(test)]
pub(super) fn made(cluster: u64, index: u64, term: u64, membership: &Membership) -> Vec<u8> {
    use bytes::BufMut as _;
    let membership = serde_json::from_slice(&membership.to_json()).expect("JSON");
    let header = serde_json::to_vec(&SnapshotHeader { cluster, index, term, membership }).expect("JSON");
    let mut body = Vec::new();
    body.put_slice(MAGIC);
    body.put_u8(VERSION);
    body.put_u32(u32::try_from(header.len()).expect("short"));
    body.put_slice(&header);
    body.put_u32(END);
    body.put_u64(0);
    body.put_u64(body.len() as u64 + 8);
    let hash = xxhash_rust::xxh3::xxh3_128(&body);
    body.put_u128(hash);
    body
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt as _;
    use raft::Storage as _;

    use super::*;
    use crate::{
        node::storage::{Effect, Store, StoredIdentity, Write},
        wire::raftpb::{ConfState, SnapshotMetadata},
        world::World,
    };

    const CLUSTER: u64 = 2;

    fn store(directory: &Path, keys: usize) -> Store {
        let identity =
            StoredIdentity { member: 1, cluster: CLUSTER, name: "a".into(), token: "t".into(), joined: Vec::new() };
        let json = br#"{"members":[{"id":1,"peerURLs":["http://h:1"]}],"removed":[9]}"#;
        let membership = Membership::parse(json).expect("valid");
        let mut store = Store::open(&Files::default(), directory, 2).expect("a new store");
        let entry = |index| {
            crate::raft_rs::entry_from_raftpb(crate::wire::raftpb::Entry { term: 3, index, ..Default::default() })
        };
        let state = crate::raft_rs::conf_state_from_raftpb(conf_state());
        store.bootstrap(&identity, &[entry(1).expect("a normal entry")], &state, &membership).expect("room");
        store.save(vec![entry(2).expect("a normal entry")], None, true).expect("room");
        let put = |n: usize| Write::Put(format!("key {n:06}").into(), n.to_string().repeat(40).into());
        store.apply(Effect { index: 2, writes: (0..keys).map(put).collect(), ..Effect::default() }).expect("room");
        store
    }

    fn conf_state() -> ConfState {
        ConfState { voters: vec![1], ..Default::default() }
    }

    fn message(index: u64, term: u64, conf_state: ConfState) -> Snapshot {
        Snapshot {
            metadata: Some(SnapshotMetadata { conf_state: Some(conf_state), index, term }),
            ..Default::default()
        }
    }

    async fn sent(store: &Store) -> Vec<u8> {
        let now = tokio::time::Instant::now();
        store.snapshot(0, 1).expect_err("it is not spooled yet");
        let (view, _) = store.begin_spool(now).expect("readable").expect("it is wanted");
        Spooling { view, cluster: CLUSTER, name: 9, headroom: 0 }.run();
        store.look_at_spool(now);
        store.snapshot(0, 1).expect("available");
        let body = body(store.take_outgoing(1, 2).expect("raft was given it"));
        let (told, name) = (body.checksum, body.name);
        let promised = body.length;
        let pieces: Vec<_> = body.into_stream(&World::default()).collect().await;
        let bytes: Vec<u8> = pieces.into_iter().flat_map(|piece| piece.expect("readable")).collect();
        assert_eq!(promised, Some(bytes.len() as u64), "what it promised");
        assert_eq!((told, name), (Some(xxhash_rust::xxh3::xxh3_128(&bytes)), Some(9)));
        bytes
    }

    /// Reads a body completely.
    fn check(directory: &Path, body: &[u8], snapshot: &Snapshot) -> Result<(), InstallError> {
        let path = directory.join("received");
        std::fs::write(&path, body).expect("room");
        let (mut reader, _) = Received::check(Files::default().open(&path)?, CLUSTER, snapshot)?;
        while reader.record()?.is_some() {}
        Ok(())
    }

    /// Prepares it for installation.
    fn take(directory: &Path, body: &[u8], to: &Store) -> Result<Received, InstallError> {
        let path = directory.join("received");
        std::fs::write(&path, body).expect("room");
        Received::take(&Files::default(), &path, CLUSTER, &message(2, 3, conf_state()), &to.builder(0), || true)
    }

    #[tokio::test]
    async fn what_one_store_sends_another_installs() {
        let directory = tempfile::tempdir().expect("a directory");
        let body = sent(&store(&directory.path().join("from"), 10_000)).await;
        assert!(body.len() > 4 * PIECE_BYTES);
        let mut to = Store::open(&Files::default(), &directory.path().join("to"), 2).expect("a new store");
        let received = take(directory.path(), &body, &to).expect("whole");
        assert!(received.membership.is_removed(crate::id::MemberId(9)));
        let snapshot = crate::raft_rs::snapshot_from_raftpb(message(2, 3, conf_state())).take_metadata();
        to.install(&snapshot, &received.membership, received.incoming, Vec::new(), None).expect("whole");
        assert_eq!(to.reader().value(b"key 009999").expect("readable"), Some(b"9999".repeat(40)));
        assert_eq!(to.membership().expect("kept"), received.membership);
        assert!(!directory.path().join("received").exists());
    }

    #[tokio::test]
    async fn a_body_tells_its_length_before_it_is_read_whatever_was_written_and_installed_before() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut from = store(&directory.path().join("from"), 100);
        let writes = vec![
            Write::Put("key 000001".into(), "longer".repeat(99).into()),
            Write::Put("key 000002".into(), "".into()),
            Write::Put("new".into(), "value".into()),
            Write::Delete("key 000003".into()),
            Write::Delete("never there".into()),
        ];
        from.apply(Effect { index: 2, writes, ..Effect::default() }).expect("room");
        let body = sent(&from).await;
        drop(from);
        assert_eq!(
            sent(&Store::open(&Files::default(), &directory.path().join("from"), 2).expect("it opens again")).await,
            body
        );
        let mut to = store(&directory.path().join("to"), 7);
        let received = take(directory.path(), &body, &to).expect("whole");
        let snapshot = crate::raft_rs::snapshot_from_raftpb(message(2, 3, conf_state())).take_metadata();
        to.install(&snapshot, &received.membership, received.incoming, Vec::new(), None).expect("whole");
        assert_eq!(sent(&to).await, body);
    }

    #[tokio::test]
    async fn a_body_that_was_cut_anywhere_or_changed_anywhere_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let body = sent(&store(&directory.path().join("from"), 3)).await;
        let message = message(2, 3, conf_state());
        check(directory.path(), &body, &message).expect("whole");
        for place in 0..body.len() {
            check(directory.path(), &body[..place], &message).expect_err("cut off");
            let mut changed = body.clone();
            changed[place] ^= 0x41;
            check(directory.path(), &changed, &message).expect_err("changed");
        }
        let longer = [&body[..], b"x"].concat();
        check(directory.path(), &longer, &message).expect_err("something after its end");
    }

    #[tokio::test]
    async fn a_body_that_is_found_torn_while_it_is_made_ready_leaves_nothing_behind() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut body = sent(&store(&directory.path().join("from"), 3)).await;
        *body.last_mut().expect("it has a checksum") ^= 1;
        let to = store(&directory.path().join("to"), 3);
        let error = take(directory.path(), &body, &to).expect_err("torn");
        assert!(matches!(error, InstallError::Torn("checksum")), "{error}");
        let left = std::fs::read_dir(directory.path().join("to")).expect("a directory").count();
        assert_eq!(left, 2, "log and data");
        assert!(!directory.path().join("received").exists());
    }

    #[tokio::test]
    async fn a_body_that_nobody_waits_for_any_more_is_not_read_to_its_end_and_leaves_nothing_behind() {
        let directory = tempfile::tempdir().expect("a directory");
        let body = sent(&store(&directory.path().join("from"), 100)).await;
        let to = store(&directory.path().join("to"), 3);
        let path = directory.path().join("received");
        std::fs::write(&path, body).expect("room");
        let asked = std::cell::Cell::new(0);
        let is_wanted = || asked.replace(asked.get() + 1) < 10;
        let snapshot = message(2, 3, conf_state());
        let taken = Received::take(&Files::default(), &path, CLUSTER, &snapshot, &to.builder(0), is_wanted);
        assert!(matches!(taken, Err(InstallError::Unwanted)), "{taken:?}");
        assert_eq!(asked.get(), 11);
        let left = std::fs::read_dir(directory.path().join("to")).expect("a directory").count();
        assert_eq!(left, 2, "log and data");
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn what_is_spooled_leaves_the_disk_its_headroom_and_has_no_name() {
        let directory = tempfile::tempdir().expect("a directory");
        let from = store(&directory.path().join("from"), 100);
        let begun = tokio::time::Instant::now();
        let spool = |headroom, now| {
            from.snapshot(0, 1).expect_err("it is not spooled");
            let (view, _) = from.begin_spool(now).expect("readable").expect("it is wanted");
            Spooling { view, cluster: CLUSTER, name: 9, headroom }.run();
            from.look_at_spool(now)
        };
        let why = spool(1 << 62, begun).failed.expect("there is no room");
        assert!(why.contains(&format!("is to keep {} beside ", 1_u64 << 62)), "{why}");
        assert!(spool(0, begun + std::time::Duration::from_secs(60)).is_whole);
        let left = std::fs::read_dir(directory.path().join("from")).expect("a directory").count();
        assert_eq!(left, 2, "log and data");
    }

    #[tokio::test]
    async fn a_body_that_contradicts_its_message_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let body = sent(&store(&directory.path().join("from"), 3)).await;
        let other = ConfState { voters: vec![1, 2], ..Default::default() };
        for message in
            [message(3, 3, conf_state()), message(2, 4, conf_state()), message(2, 3, other), Snapshot::default()]
        {
            let error = check(directory.path(), &body, &message).expect_err("it contradicts");
            assert!(matches!(error, InstallError::Contradicts(_)), "{error}");
        }
        let path = directory.path().join("received");
        std::fs::write(&path, &body).expect("room");
        let file = Files::default().open(&path).expect("it is there");
        let Err(error) = Received::check(file, CLUSTER + 1, &message(2, 3, conf_state())) else {
            panic!("it is another cluster's");
        };
        assert!(matches!(error, InstallError::Contradicts(_)), "{error}");
    }
}
