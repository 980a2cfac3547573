//! The final place of a received snapshot, the disk space that it may take, and how its body gets from the network to
//! the task that writes it.

use std::io;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use tokio::sync::{OwnedMutexGuard, mpsc};

use crate::wire::resumption::Named;

/// How many batches may lie between the network and the file.
pub(super) const BATCHES_AHEAD: usize = 4;
/// The size of a batch, in bytes. etcd sends 32 KiB at a time, and each hand-over wakes one thread and may put another
/// to sleep.
pub(super) const BATCH_BYTES: usize = 256 << 10;
/// The most pieces in a batch, because a body in tiny pieces must not hold much more than its bytes.
pub(super) const BATCH_PIECES: usize = 64;
/// After this many bytes, the free space is checked again, because others write to the file system, too.
pub(super) const LOOK_EACH: u64 = 16 << 20;

/// A part of a body, in order. `None` says that the body is complete.
pub(super) type BodyBatch = Option<Vec<Bytes>>;

/// A snapshot in its final place. While this exists, no other snapshot comes to the place: two with the same index may
/// be under way, one of them from a stranger.
#[derive(Debug)]
pub(crate) struct Placed {
    /// Its length, in bytes.
    pub(crate) length: u64,
    pub(super) _turn: OwnedMutexGuard<()>,
}

/// The disk space that a snapshot may take that is sent whole.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    /// The longest body, in bytes.
    pub(crate) most: u64,
    /// The bytes that must stay free on the file system.
    pub(crate) headroom: u64,
    /// The length that its sender announced.
    pub(crate) told: Option<u64>,
    /// The identity that its sender announced.
    pub(crate) of: Option<Named>,
}

/// Passes on a body in batches. Only `None` says that the body is complete; a sender that is merely dropped says that
/// it is not. If nobody receives any more, this ends at once, and the receiving side reports the reason: a body that
/// does not move must not keep its place.
pub(super) async fn batch<S>(
    mut body: S,
    most: u64,
    batches: mpsc::Sender<BodyBatch>,
    mut progress: impl FnMut(u64),
) -> io::Result<()>
where
    S: Stream<Item = io::Result<Bytes>> + Unpin,
{
    let mut length = 0;
    let (mut batch, mut gathered) = (Vec::new(), 0);
    loop {
        let piece = tokio::select! {
            biased;
            () = batches.closed() => return Ok(()),
            piece = body.next() => piece,
        };
        let Some(piece) = piece else { break };
        let piece = match piece {
            Ok(piece) => piece,
            Err(error) => {
                // The bytes so far may still be worth keeping.
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
