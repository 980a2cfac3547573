//! Writes the body of a snapshot into a file, from which it is sent.

use std::io;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::time::Instant;
use xxhash_rust::xxh3::Xxh3;

use super::{END, InstallError, MAGIC, PIECE_BYTES, SnapshotHeader, TRAILER_BYTES, VERSION};
use crate::{
    node::storage::{DATA, HandedOut, Spooled, StoreError, StoreView},
    transport::snapshot::SnapshotBody,
    world::UNSYNCED_BYTES,
};

/// A snapshot that has to be spooled, on a thread that may wait for the disk.
pub(in crate::node) struct Spooling {
    pub(in crate::node) view: StoreView,
    pub(in crate::node) cluster: u64,
    /// The name of the snapshot.
    pub(in crate::node) name: u128,
    /// The bytes that must stay free on the file system.
    pub(in crate::node) headroom: u64,
}

impl Spooling {
    /// Spools it, and passes on the result, if anybody still waits for it.
    pub(in crate::node) fn run(self) {
        let begun = Instant::now();
        let spooled = self.spool();
        let StoreView { index, term, outcome, .. } = self.view;
        if let Ok(Spooled { length, .. }) = &spooled {
            let seconds = begun.elapsed().as_secs_f64();
            tracing::debug!(index, term, bytes = length, seconds, "a snapshot is spooled");
        }
        let _ = outcome.send(spooled.map_err(|error| error.to_string()));
    }

    fn spool(&self) -> Result<Spooled, InstallError> {
        let StoreView { index, term, conf_state, files, directory, outcome, .. } = &self.view;
        let mut pieces = BodyPieces::start(&self.view, self.cluster)?;
        files.leave_free(directory, self.headroom, pieces.promised)?;
        let path = directory.join(&self.view.file_name);
        let file = files.open_kept(&path)?;
        files.remove(&path)?;
        let (mut length, mut synced) = (0, 0);
        while let Some(piece) = pieces.next().map_err(StoreError::Disk)? {
            if outcome.is_closed() {
                return Err(io::Error::new(io::ErrorKind::Interrupted, "nobody waits for it any more").into());
            }
            file.write_at(length, &piece)?;
            length += piece.len() as u64;
            if length - synced >= UNSYNCED_BYTES {
                file.sync()?;
                files.leave_free(directory, self.headroom, 0)?;
                synced = length;
            }
        }
        let (index, term, conf_state) = (*index, *term, conf_state.clone());
        Ok(Spooled { index, term, conf_state, file, length, checksum: pieces.hash.digest128(), name: self.name })
    }
}

/// The body of a snapshot that raft has handed out.
pub(in crate::node) fn body(outgoing: HandedOut) -> SnapshotBody {
    let Spooled { length, checksum, name, .. } = *outgoing.spooled;
    let read = move |place, into: &mut [u8]| outgoing.spooled.file.read_at(place, into);
    SnapshotBody::from_places(read, 0, length).with_checksum(checksum).with_name(name)
}

/// The pieces of a body, in order.
struct BodyPieces {
    range: redb::Range<'static, &'static [u8], &'static [u8]>,
    piece: BytesMut,
    /// The hash of the pieces so far. The trailer holds the hash of everything before it, and is hashed last.
    hash: Box<Xxh3>,
    records: u64,
    length: u64,
    /// The announced length of the body.
    promised: u64,
    ended: bool,
}

impl BodyPieces {
    fn start(view: &StoreView, cluster: u64) -> Result<Self, StoreError> {
        let membership = serde_json::from_slice(&view.membership()?);
        let membership = membership.map_err(|_| StoreError::Damaged("membership".into()))?;
        let header = SnapshotHeader { cluster, index: view.index, term: view.term, membership };
        let header = serde_json::to_vec(&header).expect("texts and numbers make JSON");
        let open = || view.read.open_table(DATA)?.range::<&[u8]>(..).map_err(redb::Error::from);
        let range = open().map_err(StoreError::Disk)?;
        let mut piece = BytesMut::with_capacity(PIECE_BYTES);
        piece.put_slice(MAGIC);
        piece.put_u8(VERSION);
        piece.put_u32(u32::try_from(header.len()).unwrap_or(u32::MAX));
        piece.put_slice(&header);
        let (records, bytes) = view.size()?;
        let promised = piece.len() as u64 + 8 * records + bytes + TRAILER_BYTES;
        let hash = Box::new(Xxh3::new());
        Ok(Self { range, piece, hash, records: 0, length: 0, promised, ended: false })
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
            let trailer = self.hash.digest128().to_be_bytes();
            self.piece.put_slice(&trailer);
            self.hash.update(&trailer);
        }
        Ok(Some(self.piece.split().freeze()))
    }
}
