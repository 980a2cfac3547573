//! The place that a received snapshot comes to, what it may take of the disk on the way, and how its body gets from the
//! network to who writes it.

use std::{io, path::Path};

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use tokio::sync::{OwnedMutexGuard, mpsc};

use crate::{wire::resumption::Named, world::Files};

/// How many batches may lie between the network and the file.
pub(super) const BATCHES_AHEAD: usize = 4;
/// What a batch gathers. etcd sends 32 KiB at a time, and each hand-over wakes a thread and may put another to sleep.
pub(super) const BATCH_BYTES: usize = 256 << 10;
/// So many pieces make a batch too: a body in crumbs must not hold much more than its bytes.
pub(super) const BATCH_PIECES: usize = 64;
/// After so many bytes it is looked again whether the file system has room: others write to it, too.
pub(super) const LOOK_EACH: u64 = 16 << 20;

/// A part of a body, in order. `None` says that the body is whole.
pub(super) type Batch = Option<Vec<Bytes>>;

/// A snapshot in its place. While this is there, no other one comes to the place: two may be on their way under one index,
/// of which one may be a stranger's.
#[derive(Debug)]
pub(crate) struct Placed {
    /// How many bytes it has.
    pub(crate) length: u64,
    pub(super) _turn: OwnedMutexGuard<()>,
}

/// What a snapshot may take of the disk.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    /// Its longest body.
    pub(crate) most: u64,
    /// The file system keeps so many bytes free.
    pub(crate) headroom: u64,
    /// How long its sender says that it is.
    pub(crate) told: Option<u64>,
    /// What it is to be, as its sender says.
    pub(crate) of: Option<Named>,
}

impl Room {
    /// Whether the headroom stays in a directory if so many bytes more are written.
    pub(super) fn is_there_for(&self, bytes: u64, files: &Files, directory: &Path) -> io::Result<()> {
        let headroom = self.headroom;
        let free = files.free(directory)?;
        if free >= headroom.saturating_add(bytes) {
            return Ok(());
        }
        let why =
            format!("the file system has {free} bytes left, and is to keep {headroom} beside {bytes} of a snapshot");
        Err(io::Error::new(io::ErrorKind::StorageFull, why))
    }
}

/// Hands a body on in batches. Only `None` says that it is whole; a sender that is merely dropped says that it is not.
/// Where nobody receives, who does not says why.
pub(super) async fn batch<S>(
    mut body: S,
    most: u64,
    batches: mpsc::Sender<Batch>,
    mut progress: impl FnMut(u64),
) -> io::Result<()>
where
    S: Stream<Item = io::Result<Bytes>> + Unpin,
{
    let mut length = 0;
    let (mut batch, mut gathered) = (Vec::new(), 0);
    while let Some(piece) = body.next().await {
        let piece = match piece {
            Ok(piece) => piece,
            Err(error) => {
                // What came before is worth keeping to some.
                let _ = batches.send(Some(batch)).await;
                return Err(error);
            }
        };
        length += piece.len() as u64;
        if length > most {
            let why = format!("the snapshot has more than {most} bytes");
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, why));
        }
        progress(piece.len() as u64);
        gathered += piece.len();
        batch.push(piece);
        if gathered >= BATCH_BYTES || batch.len() == BATCH_PIECES {
            gathered = 0;
            if batches.send(Some(std::mem::take(&mut batch))).await.is_err() {
                return Ok(());
            }
        }
    }
    let _ = batches.send(Some(batch)).await;
    let _ = batches.send(None).await;
    Ok(())
}
