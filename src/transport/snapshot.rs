//! Snapshots: their bodies, how one is sent, and where received ones are kept.

use std::{
    fs::File,
    io::{self, Read},
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream, stream::BoxStream};
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use crate::world::World;

pub(crate) mod receiver;
pub(crate) mod sender;
pub(crate) mod store;

/// How much of a file is read at once.
const BLOCK: usize = 256 << 10;
/// How many blocks may lie between the file and the network.
const BLOCKS_AHEAD: usize = 4;

/// The data of a snapshot on its way out.
pub struct SnapshotBody {
    source: Source,
    /// How many there will be, where it is known.
    pub(crate) length: Option<u64>,
    /// The thread that reads them, where one does. It ends soon after the stream is dropped.
    pub(crate) reading: TaskTracker,
}

/// Where a body comes from. An error cuts the connection, so that the receiver cannot take a part for the whole.
enum Source {
    Pieces(BoxStream<'static, io::Result<Bytes>>),
    Reader(Box<dyn Read + Send>),
}

impl SnapshotBody {
    /// Bytes that come in pieces.
    pub fn from_stream(stream: impl Stream<Item = io::Result<Bytes>> + Send + 'static, length: Option<u64>) -> Self {
        Self { source: Source::Pieces(stream.boxed()), length, reading: TaskTracker::new() }
    }

    /// What a blocking reader gives, read on a thread of its own. A transport that stops waits for the read that is under
    /// way.
    pub fn from_reader(reader: impl Read + Send + 'static, length: Option<u64>) -> Self {
        Self { source: Source::Reader(Box::new(reader)), length, reading: TaskTracker::new() }
    }

    /// The bytes of a file, from where it stands to its end.
    ///
    /// # Errors
    /// When the file's length cannot be read.
    pub fn from_file(mut file: File) -> io::Result<Self> {
        let length = file.metadata()?.len().saturating_sub(io::Seek::stream_position(&mut file)?);
        Ok(Self::from_reader(file, Some(length)))
    }

    /// The bytes, in pieces.
    pub(crate) fn into_stream(self, world: &World) -> BoxStream<'static, io::Result<Bytes>> {
        match self.source {
            Source::Pieces(pieces) => pieces,
            Source::Reader(reader) => blocks(reader, self.reading, world.clone()),
        }
    }
}

/// The blocks that a blocking reader gives. It is begun when the first is asked for: what waits for its turn holds no
/// thread.
fn blocks(reader: Box<dyn Read + Send>, owner: TaskTracker, world: World) -> BoxStream<'static, io::Result<Bytes>> {
    let begun = stream::once(async move {
        let (sender, receiver) = mpsc::channel(BLOCKS_AHEAD);
        world.spawn_blocking(owner.track_future(read_blocks(reader, sender)));
        stream::unfold(receiver, |mut receiver| async move { Some((receiver.recv().await?, receiver)) })
    });
    begun.flatten().boxed()
}

async fn read_blocks(mut reader: Box<dyn Read + Send>, sender: mpsc::Sender<io::Result<Bytes>>) {
    loop {
        let mut block = Vec::with_capacity(BLOCK);
        let read = match reader.by_ref().take(BLOCK as u64).read_to_end(&mut block) {
            Ok(0) => return,
            Ok(_) => Ok(Bytes::from(block)),
            Err(error) => Err(error),
        };
        let failed = read.is_err();
        // Nobody takes it any more: the snapshot was given up.
        if sender.send(read).await.is_err() || failed {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        sync::{
            Arc,
            atomic::{AtomicBool, Ordering},
        },
        time::Duration,
    };

    use super::*;

    /// Zeros without end, slowly; notes when it is dropped.
    struct Slow(Arc<AtomicBool>);

    impl Read for Slow {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            std::thread::sleep(Duration::from_millis(5));
            into.fill(0);
            Ok(into.len())
        }
    }

    impl Drop for Slow {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    #[tokio::test]
    async fn the_thread_that_reads_is_waited_for() {
        let ended = Arc::new(AtomicBool::new(false));
        let body = SnapshotBody::from_reader(Slow(ended.clone()), None);
        let reading = body.reading.clone();
        let mut stream = body.into_stream(&World::default());
        assert!(stream.next().await.is_some_and(|block| block.is_ok()));
        assert!(!ended.load(Ordering::Relaxed));
        drop(stream);
        reading.close();
        reading.wait().await;
        assert!(ended.load(Ordering::Relaxed));
    }

    #[tokio::test]
    async fn a_files_bytes_come_out_as_they_are() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("data");
        let data: Vec<u8> = (0..=250).cycle().take(BLOCK * 3 + 17).collect();
        fs::write(&path, &data).expect("a file");
        for world in [World::default(), World::default().with_one_thread()] {
            let body = SnapshotBody::from_file(File::open(&path).expect("a file")).expect("a body");
            assert_eq!(body.length, Some(data.len() as u64));
            let read: Vec<Bytes> = body.into_stream(&world).map(|block| block.expect("a block")).collect().await;
            assert_eq!(read.concat(), data);
        }
    }
}
