//! Writes a snapshot that arrives in parts: its bytes, and every half second how many of them are synced.

use std::{
    io::{self, Read},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::{OwnedMutexGuard, mpsc},
    time::Instant,
};
use xxhash_rust::xxh3::Xxh3;

use super::{
    part::{Claim, Handing, PartState},
    place::{BodyBatch, LOOK_EACH, Placed},
    receiver::ReceiveError,
    record::{HEAD_BYTES, MARK_BYTES, Mark},
};
use crate::world::{DiskFile, UNSYNCED_BYTES, World};

/// How long it may take until it is on record that written bytes are synced. A receiver that is killed is sent the bytes
/// again that are not on record.
const SYNC_EACH: Duration = Duration::from_millis(500);
/// After a record, no other one comes for this many times as long as the record and its sync took, so that a slow disk can
/// also write.
const SYNC_SHARE: u32 = 8;
/// How much is read at once of the bytes that an earlier process has written.
const BLOCK: usize = 256 << 10;

/// Writes one part.
pub(super) struct Keeping {
    pub(super) world: World,
    pub(super) directory: PathBuf,
    /// The final place of the snapshot.
    pub(super) place: PathBuf,
    /// The bytes that must stay free on the file system.
    pub(super) headroom: u64,
    pub(super) turn: Arc<tokio::sync::Mutex<()>>,
    pub(super) claim: Claim,
    /// The term of its message.
    pub(super) term: u64,
    /// The file of its bytes, once it is open. `None` if the snapshot is in its place.
    pub(super) data: Option<Arc<dyn DiskFile>>,
}

/// Why a part did not become complete.
enum IncompleteError {
    /// No more bytes came. Those that are there are kept.
    BrokeOff(String),
    /// The bytes that are there are useless, or cannot be kept.
    Lost(ReceiveError),
}

impl From<io::Error> for IncompleteError {
    fn from(error: io::Error) -> Self {
        Self::Lost(ReceiveError::Save(error.to_string()))
    }
}

impl Keeping {
    /// Appends the arriving bytes, and moves the complete snapshot to its place.
    pub(super) async fn write(mut self, batches: mpsc::Receiver<BodyBatch>) -> Result<(Placed, Handing), ReceiveError> {
        let outcome = match self.gather(batches).await {
            Ok(()) => self.finish().await,
            Err(fault) => Err(fault),
        };
        let fault = match outcome {
            Ok(turn) => {
                let length = self.claim.part.head.of.length;
                // This comes before the right to write is given back.
                let (part, term) = (self.claim.part.clone(), self.term);
                part.set_state(PartState::Handing { term });
                return Ok((Placed { length, _turn: turn }, Handing { part, term }));
            }
            Err(fault) => fault,
        };
        let error = match fault {
            IncompleteError::BrokeOff(why) if self.claim.kept.offset > 0 => match self.sync() {
                Ok(()) => return Err(ReceiveError::BrokeOff { kept: self.claim.kept.offset, why }),
                Err(error) => ReceiveError::Save(error.to_string()),
            },
            IncompleteError::BrokeOff(why) => ReceiveError::Save(why),
            IncompleteError::Lost(error) => error,
        };
        self.claim.drop_files(self.world.files(), &self.directory);
        Err(error)
    }

    async fn gather(&mut self, mut batches: mpsc::Receiver<BodyBatch>) -> Result<(), IncompleteError> {
        let length = self.claim.part.head.of.length;
        // A snapshot in its place needs no file. A new one gets a file, even if it has no bytes.
        if !self.claim.kept.is_placed {
            let files = self.world.files();
            files.leave_free(&self.directory, self.headroom, length - self.claim.kept.offset)?;
            self.data = Some(files.open_kept(&self.claim.part.data(&self.directory))?);
        }
        let (mut looked, mut synced, mut took) = (self.claim.kept.offset, Instant::now(), Duration::ZERO);
        let mut on_disk = self.claim.kept.offset;
        loop {
            let batch = tokio::select! {
                biased;
                () = self.claim.stop.cancelled() => {
                    return Err(IncompleteError::BrokeOff("its sender comes on another connection".to_owned()));
                }
                batch = batches.recv() => batch,
            };
            let offset = self.claim.kept.offset;
            match batch {
                Some(Some(batch)) => self.append(&batch)?,
                Some(None) if offset == length => return Ok(()),
                Some(None) => {
                    return Err(IncompleteError::BrokeOff(format!("the body ended at {offset} of {length} bytes")));
                }
                None => return Err(IncompleteError::BrokeOff("the body ended before it was whole".to_owned())),
            }
            if self.claim.kept.offset - looked >= LOOK_EACH {
                looked = self.claim.kept.offset;
                self.world.files().leave_free(&self.directory, self.headroom, length - looked)?;
            }
            if let Some(data) = self.data.as_ref().filter(|_| self.claim.kept.offset - on_disk >= UNSYNCED_BYTES) {
                data.sync()?;
                on_disk = self.claim.kept.offset;
            }
            if self.claim.kept.offset > self.claim.kept.synced && synced.elapsed() >= SYNC_EACH.max(took * SYNC_SHARE) {
                let begin = Instant::now();
                self.sync()?;
                on_disk = self.claim.kept.offset;
                (synced, took) = (Instant::now(), begin.elapsed());
            }
        }
    }

    fn append(&mut self, batch: &[bytes::Bytes]) -> Result<(), IncompleteError> {
        let length = self.claim.part.head.of.length;
        let kept = &mut *self.claim.kept;
        for piece in batch {
            let end = kept.offset.saturating_add(piece.len() as u64);
            let Some(data) = self.data.as_ref().filter(|_| end <= length) else {
                let why = format!("the snapshot has more than the {length} bytes that it was to have");
                return Err(IncompleteError::Lost(ReceiveError::Save(why)));
            };
            data.write_at(kept.offset, piece)?;
            if let Some(hash) = &mut kept.hash {
                hash.update(piece);
            }
            kept.offset = end;
        }
        Ok(())
    }

    /// Syncs the bytes that are there, and records how many they are.
    fn sync(&mut self) -> io::Result<()> {
        let (files, head) = (self.world.files(), self.claim.part.head);
        let now = self.world.now();
        let kept = &mut *self.claim.kept;
        let Some(data) = self.data.as_ref().filter(|_| kept.marks == 0 || kept.synced < kept.offset) else {
            return Ok(());
        };
        data.sync()?;
        let record = files.open_kept(&self.claim.part.record(&self.directory))?;
        let is_new = kept.marks == 0;
        if is_new {
            record.write_at(0, &head.to_bytes())?;
        }
        let mark = head.mark(Mark { synced: kept.offset, at: now });
        record.write_at(HEAD_BYTES as u64 + kept.marks * MARK_BYTES as u64, &mark)?;
        record.sync()?;
        if is_new {
            files.sync_directory(&self.directory)?;
        }
        (kept.synced, kept.touched, kept.marks) = (kept.offset, now, kept.marks + 1);
        Ok(())
    }

    /// Verifies the snapshot, and moves it to its place.
    async fn finish(&mut self) -> Result<OwnedMutexGuard<()>, IncompleteError> {
        let files = self.world.files().clone();
        let Some(data) = self.data.clone() else {
            // Another snapshot of the same index may have come to the place. It is checked while nobody else may change
            // it.
            let turn = self.turn.clone().lock_owned().await;
            let mut file = files.open(&self.place)?;
            return self.verify(&mut file).map(|()| turn);
        };
        self.verify(&mut WholeFile { file: data.clone(), at: 0 })?;
        if self.claim.kept.marks > 0 {
            // After this, a complete snapshot need not be sent again if the process is killed before it is handed over.
            self.sync()?;
        } else {
            data.sync()?;
        }
        let turn = self.turn.clone().lock_owned().await;
        files.rename(&self.claim.part.data(&self.directory), &self.place)?;
        files.sync_directory(&self.directory)?;
        self.claim.kept.is_placed = true;
        // Others may change what is in the place. If it is handed over again, it is read again.
        self.claim.kept.hash = None;
        Ok(turn)
    }

    /// Checks that the bytes are the sender's. `file` is read only if they were not hashed as they came.
    fn verify(&self, file: &mut dyn Read) -> Result<(), IncompleteError> {
        let told = self.claim.part.head.of;
        let sum = match &self.claim.kept.hash {
            Some(hash) => hash.digest128(),
            None => sum_of(file, told.length)?,
        };
        if sum == told.checksum {
            return Ok(());
        }
        let why =
            format!("its {} bytes have the checksum {sum:032x}, its sender's have {:032x}", told.length, told.checksum);
        Err(IncompleteError::Lost(ReceiveError::Checksum(why)))
    }
}

/// Reads a file from its beginning to its end.
struct WholeFile {
    file: Arc<dyn DiskFile>,
    at: u64,
}

impl Read for WholeFile {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(self.at, into)?;
        self.at += read as u64;
        Ok(read)
    }
}

/// The xxh3-128 of the first bytes of a file, which must be all that it has.
fn sum_of(file: &mut dyn Read, length: u64) -> io::Result<u128> {
    let (mut hash, mut block, mut at) = (Xxh3::new(), vec![0; BLOCK], 0);
    loop {
        let read = file.read(&mut block)?;
        if read == 0 {
            break;
        }
        hash.update(&block[..read]);
        at += read as u64;
    }
    if at == length {
        return Ok(hash.digest128());
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, format!("the file has {at} bytes, and should have {length}")))
}
