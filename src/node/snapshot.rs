//! The body of a snapshot: the whole state as of one index, streamed out of the store and into another.
//!
//! | bytes | content |
//! |---|---|
//! | 8 | `rafthttp` |
//! | 1 | version: 1 |
//! | 4 | length of the header |
//! | header | JSON: cluster, index, term, membership |
//! | records | each: length of the key (4), length of the value (4), key, value |
//! | 4 | `ff ff ff ff`: no more records |
//! | 8 | how many there were |
//! | 8 | how many bytes there were, up to and with this field |
//! | 16 | xxh3-128 of these bytes |
//!
//! All integers are unsigned and big-endian. A body is read to its end and found whole before raft hears of it, and
//! found whole again while it is installed.

use std::{
    io::{self, BufReader, Read},
    path::Path,
};

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::stream;
use serde::{Deserialize, Serialize};
use tokio::sync::OwnedSemaphorePermit;
use xxhash_rust::xxh3::Xxh3;

use super::{
    members::Membership,
    request::MAX_KEY_BYTES,
    storage::{DATA, Outgoing, StoreError},
};
use crate::{
    transport::snapshot::SnapshotBody,
    wire::raftpb::Snapshot,
    world::{File, Files, World},
};

const MAGIC: &[u8; 8] = b"rafthttp";
const VERSION: u8 = 1;
const END: u32 = u32::MAX;
/// A piece of the body on its way out.
const PIECE_BYTES: usize = 256 << 10;
/// What follows the records.
const TRAILER_BYTES: u64 = 4 + 8 + 8 + 16;
/// The longest header: room for all members and a million removed IDs.
const MAX_HEADER_BYTES: u32 = 32 << 20;

/// A key and its value.
type Record = (Bytes, Bytes);

/// Why a received snapshot is not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum SnapshotError {
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
    #[error("it is not whole: {0}")]
    Torn(&'static str),
    #[error("it is not what its message says: {0}")]
    Contradicts(&'static str),
}

impl From<SnapshotError> for StoreError {
    fn from(error: SnapshotError) -> Self {
        match error {
            SnapshotError::Io(error) => Self::Files(error),
            other => Self::Damaged(format!("snapshot: {other}")),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Header {
    cluster: u64,
    index: u64,
    term: u64,
    membership: serde_json::Value,
}

/// The body of a snapshot that raft hands out, of which it knows the metadata.
pub(super) fn body(outgoing: Outgoing, cluster: u64, term: u64, world: &World) -> SnapshotBody {
    let pieces = Pieces::start(outgoing, cluster, term).map_err(io::Error::other);
    let length = pieces.as_ref().ok().map(|pieces| pieces.promised);
    let world = world.clone();
    let stream = stream::unfold(Some((pieces, world)), |state| async move {
        let (pieces, world) = state?;
        let mut pieces = match pieces {
            Ok(pieces) => pieces,
            Err(error) => return Some((Err(error), None)),
        };
        // The store reads from the disk: not on the threads that serve connections.
        let next = world.blocking(move || pieces.next().map(|piece| (piece, pieces))).await;
        match next {
            Ok(Ok((Some(piece), pieces))) => Some((Ok(piece), Some((Ok(pieces), world)))),
            Ok(Ok((None, _))) => None,
            Ok(Err(error)) => Some((Err(io::Error::other(error)), None)),
            Err(error) => Some((Err(error), None)),
        }
    });
    SnapshotBody::from_stream(stream, length)
}

/// The pieces of a body, one after the other.
struct Pieces {
    range: redb::Range<'static, &'static [u8], &'static [u8]>,
    piece: BytesMut,
    hash: Box<Xxh3>,
    records: u64,
    length: u64,
    /// How long the body will be.
    promised: u64,
    ended: bool,
    /// One of the few snapshots that may be on their way; given back when this ends, however it ends.
    _permit: OwnedSemaphorePermit,
}

impl Pieces {
    fn start(outgoing: Outgoing, cluster: u64, term: u64) -> Result<Self, StoreError> {
        let membership = serde_json::from_slice(&outgoing.membership()?);
        let membership = membership.map_err(|_| StoreError::Damaged("membership".into()))?;
        let header = Header { cluster, index: outgoing.index, term, membership };
        let header = serde_json::to_vec(&header).expect("texts and numbers make JSON");
        let open = || outgoing.read.open_table(DATA)?.range::<&[u8]>(..).map_err(redb::Error::from);
        let range = open().map_err(StoreError::Disk)?;
        let mut piece = BytesMut::with_capacity(PIECE_BYTES);
        piece.put_slice(MAGIC);
        piece.put_u8(VERSION);
        piece.put_u32(u32::try_from(header.len()).unwrap_or(u32::MAX));
        piece.put_slice(&header);
        let (records, bytes) = outgoing.size()?;
        let promised = piece.len() as u64 + 8 * records + bytes + TRAILER_BYTES;
        let hash = Box::new(Xxh3::new());
        Ok(Self { range, piece, hash, records: 0, length: 0, promised, ended: false, _permit: outgoing.permit })
    }

    fn next(&mut self) -> Result<Option<Bytes>, redb::Error> {
        if self.ended {
            return Ok(None);
        }
        while self.piece.len() < PIECE_BYTES {
            let Some(item) = self.range.next() else {
                self.ended = true;
                break;
            };
            let (key, value) = item?;
            for part in [key.value(), value.value()] {
                self.piece.put_u32(u32::try_from(part.len()).unwrap_or(END));
            }
            self.piece.put_slice(key.value());
            self.piece.put_slice(value.value());
            self.records += 1;
        }
        if self.ended {
            self.piece.put_u32(END);
            self.piece.put_u64(self.records);
            self.piece.put_u64(self.length + self.piece.len() as u64 + 8);
        }
        self.hash.update(&self.piece);
        self.length += self.piece.len() as u64;
        if self.ended {
            self.piece.put_u128(self.hash.digest128());
        }
        Ok(Some(self.piece.split().freeze()))
    }
}

/// A snapshot that was received and found whole. It is open and has no name any more: nothing else can take its place, and
/// nothing of it is left when this is dropped.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) index: u64,
    pub(super) term: u64,
    pub(super) membership: Membership,
    file: File,
}

impl Received {
    /// Takes a received snapshot out of its place, reads it to its end, and checks it against its message.
    pub(super) fn take(files: &Files, path: &Path, cluster: u64, snapshot: &Snapshot) -> Result<Self, SnapshotError> {
        let file = files.open(path)?;
        // What cannot be removed is overwritten by the next of its index.
        if let Err(error) = files.remove(path) {
            tracing::warn!(path = %path.display(), %error, "a snapshot cannot be removed");
        }
        Self::check(file, cluster, snapshot)
    }

    fn check(file: File, cluster: u64, snapshot: &Snapshot) -> Result<Self, SnapshotError> {
        let metadata = snapshot.metadata.as_ref().ok_or(SnapshotError::Contradicts("no metadata"))?;
        let mut reader = Reader::open(file)?;
        if reader.header.cluster != cluster {
            return Err(SnapshotError::Contradicts("the cluster differs"));
        }
        if (reader.header.index, reader.header.term) != (metadata.index, metadata.term) {
            return Err(SnapshotError::Contradicts("index or term differ"));
        }
        let membership = Membership::parse(reader.header.membership.to_string().as_bytes());
        let membership = membership.map_err(|_| SnapshotError::Torn("membership"))?;
        if !metadata.conf_state.as_ref().is_some_and(|state| membership.agrees_with(state)) {
            return Err(SnapshotError::Contradicts("the membership differs"));
        }
        while reader.record()?.is_some() {}
        let (index, term) = (metadata.index, metadata.term);
        Ok(Self { index, term, membership, file: reader.input.into_inner() })
    }

    /// The records, to install them.
    pub(super) fn records(&self) -> Result<impl FnMut() -> Result<Option<Record>, SnapshotError>, SnapshotError> {
        let mut reader = Reader::open(self.file.rewound()?)?;
        Ok(move || reader.record())
    }
}

/// Reads a body, and counts and hashes what it reads.
struct Reader {
    input: BufReader<File>,
    header: Header,
    hash: Box<Xxh3>,
    records: u64,
    length: u64,
    size: u64,
}

impl Reader {
    fn open(file: File) -> Result<Self, SnapshotError> {
        let size = file.length()?;
        let header = Header { cluster: 0, index: 0, term: 0, membership: serde_json::Value::Null };
        let input = BufReader::with_capacity(PIECE_BYTES, file);
        let mut reader = Self { input, header, hash: Box::new(Xxh3::new()), records: 0, length: 0, size };
        if reader.array()? != *MAGIC {
            return Err(SnapshotError::Torn("no snapshot of ours"));
        }
        if reader.array()? != [VERSION] {
            return Err(SnapshotError::Torn("a version that we do not know"));
        }
        let length = u32::from_be_bytes(reader.array()?);
        if length > MAX_HEADER_BYTES {
            return Err(SnapshotError::Torn("header too long"));
        }
        let header = reader.bytes(length)?;
        reader.header = serde_json::from_slice(&header).map_err(|_| SnapshotError::Torn("header"))?;
        Ok(reader)
    }

    /// The next record; none once the end was found, and found right.
    fn record(&mut self) -> Result<Option<Record>, SnapshotError> {
        let key = u32::from_be_bytes(self.array()?);
        if key == END {
            return self.end().map(|()| None);
        }
        let value = u32::from_be_bytes(self.array()?);
        if key == 0 || key as usize > MAX_KEY_BYTES {
            return Err(SnapshotError::Torn("a key without length, or too long"));
        }
        self.records += 1;
        Ok(Some((self.bytes(key)?, self.bytes(value)?)))
    }

    fn end(&mut self) -> Result<(), SnapshotError> {
        if u64::from_be_bytes(self.array()?) != self.records {
            return Err(SnapshotError::Torn("number of records"));
        }
        if u64::from_be_bytes(self.array()?) != self.length {
            return Err(SnapshotError::Torn("length"));
        }
        let expected = self.hash.digest128();
        if u128::from_be_bytes(self.array()?) != expected {
            return Err(SnapshotError::Torn("checksum"));
        }
        if self.length == self.size { Ok(()) } else { Err(SnapshotError::Torn("something after its end")) }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], SnapshotError> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    /// Never more than the file still has: a length is believed only as far as there are bytes.
    fn bytes(&mut self, length: u32) -> Result<Bytes, SnapshotError> {
        if u64::from(length) > self.size.saturating_sub(self.length) {
            return Err(SnapshotError::Torn("cut off"));
        }
        let mut bytes = BytesMut::zeroed(length as usize);
        self.fill(&mut bytes)?;
        Ok(bytes.freeze())
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), SnapshotError> {
        self.input.read_exact(bytes).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => SnapshotError::Torn("cut off"),
            _ => SnapshotError::Io(error),
        })?;
        self.hash.update(bytes);
        self.length += bytes.len() as u64;
        Ok(())
    }
}

/// A body without records.
#[cfg(test)]
pub(super) fn made(cluster: u64, index: u64, term: u64, membership: &Membership) -> Vec<u8> {
    let membership = serde_json::from_slice(&membership.to_json()).expect("JSON");
    let header = serde_json::to_vec(&Header { cluster, index, term, membership }).expect("JSON");
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
        node::storage::{Effect, Identity, Store, Write},
        wire::raftpb::{ConfState, SnapshotMetadata},
    };

    const CLUSTER: u64 = 2;

    fn store(directory: &Path, keys: usize) -> Store {
        let identity =
            Identity { member: 1, cluster: CLUSTER, name: "a".into(), token: "t".into(), joined: Vec::new() };
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
        store.snapshot(0, 7).expect("available");
        let outgoing = store.take_outgoing(7, 2).expect("raft was given it");
        let body = body(outgoing, CLUSTER, 3, &World::default());
        let promised = body.length;
        let pieces: Vec<_> = body.into_stream(&World::default()).collect().await;
        let bytes: Vec<u8> = pieces.into_iter().flat_map(|piece| piece.expect("readable")).collect();
        assert_eq!(promised, Some(bytes.len() as u64), "what it promised");
        bytes
    }

    fn check(directory: &Path, body: &[u8], snapshot: &Snapshot) -> Result<Received, SnapshotError> {
        let path = directory.join("received");
        std::fs::write(&path, body).expect("room");
        Received::take(&Files::default(), &path, CLUSTER, snapshot)
    }

    #[tokio::test]
    async fn what_one_store_sends_another_installs() {
        let directory = tempfile::tempdir().expect("a directory");
        let body = sent(&store(&directory.path().join("from"), 10_000)).await;
        assert!(body.len() > 4 * PIECE_BYTES);
        let received = check(directory.path(), &body, &message(2, 3, conf_state())).expect("whole");
        assert!(received.membership.is_removed(crate::id::MemberId(9)));
        let mut to = Store::open(&Files::default(), &directory.path().join("to"), 2).expect("a new store");
        let snapshot = crate::raft_rs::snapshot_from_raftpb(message(2, 3, conf_state())).take_metadata();
        let records = received.records().expect("open");
        to.install(&snapshot, &received.membership, records, Vec::new(), None).expect("whole");
        assert_eq!(to.reader().value(b"key 009999").expect("readable"), Some(b"9999".repeat(40)));
        assert_eq!(to.membership().expect("kept"), received.membership);
        drop(received);
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
        let received = check(directory.path(), &body, &message(2, 3, conf_state())).expect("whole");
        let mut to = store(&directory.path().join("to"), 7);
        let snapshot = crate::raft_rs::snapshot_from_raftpb(message(2, 3, conf_state())).take_metadata();
        to.install(&snapshot, &received.membership, received.records().expect("open"), Vec::new(), None)
            .expect("whole");
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
    async fn a_body_that_contradicts_its_message_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let body = sent(&store(&directory.path().join("from"), 3)).await;
        let other = ConfState { voters: vec![1, 2], ..Default::default() };
        for message in
            [message(3, 3, conf_state()), message(2, 4, conf_state()), message(2, 3, other), Snapshot::default()]
        {
            let error = check(directory.path(), &body, &message).expect_err("it contradicts");
            assert!(matches!(error, SnapshotError::Contradicts(_)), "{error}");
        }
        let path = directory.path().join("received");
        std::fs::write(&path, &body).expect("room");
        let error = Received::take(&Files::default(), &path, CLUSTER + 1, &message(2, 3, conf_state()))
            .expect_err("another cluster's");
        assert!(matches!(error, SnapshotError::Contradicts(_)), "{error}");
    }
}
