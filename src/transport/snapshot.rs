//! Snapshots: their bodies, and where received ones are kept.

use std::{io, path::PathBuf};

use bytes::Bytes;
use futures_util::stream::BoxStream;

/// The data of a snapshot on its way out.
pub struct SnapshotBody {
    /// The bytes, in pieces.
    pub stream: BoxStream<'static, io::Result<Bytes>>,
    /// How many there will be, where it is known.
    pub length: Option<u64>,
}

impl SnapshotBody {
    /// The bytes of a file, from its current position to its end.
    pub fn from_file(_file: std::fs::File) -> io::Result<Self> { todo!() }
}

/// A directory of received snapshots, as etcd's `Snapshotter` keeps them: `{index:016x}.snap.db`.
#[derive(Clone, Debug)]
pub struct SnapshotStore {
    /// directory
    pub directory: PathBuf,
}

impl SnapshotStore {
    /// A store in `directory`, which is made if it is not there; what a crash left half written is removed.
    pub fn open(_directory: impl Into<PathBuf>) -> io::Result<Self> { todo!() }
    /// Where the snapshot at `index` is, once [`Raft::process`](super::Raft::process) is given its message.
    pub fn path(&self, _index: u64) -> PathBuf { todo!() }
}
