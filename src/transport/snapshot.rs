//! Snapshots: their bodies, how one is sent, and where received ones are stored.

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::FileExt as _,
    sync::Arc,
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream, stream::BoxStream};
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use crate::world::World;

mod keeping;
pub(super) mod part;
pub(crate) mod parts;
pub(crate) mod place;
pub(crate) mod receiver;
mod record;
pub(crate) mod sender;
pub(crate) mod store;

/// How much of a file is read at once, in bytes.
const BLOCK: usize = 256 << 10;
/// How many blocks may lie between the file and the network.
const BLOCKS_AHEAD: usize = 4;

/// The data of a snapshot on its way out.
///
/// A body from a file, or [from several streams](Self::from_streams), can be read more than once. If the connection to
/// a member of this crate breaks, that member is then sent only the bytes that it does not have yet. By a checksum, it
/// verifies that the bytes that it has are those that were sent.
pub struct SnapshotBody {
    source: BodySource,
    /// The length of the data, in bytes, if known.
    pub(crate) length: Option<u64>,
    /// The xxh3-128 of all bytes, if known.
    pub(crate) checksum: Option<u128>,
    /// The name of the snapshot, if the application gave it one.
    pub(crate) name: Option<u128>,
    /// The threads that read the data, if there are any. They end soon after the streams are dropped.
    pub(crate) reading: TaskTracker,
}

/// The source of a body. An error cuts the connection, so that the receiver cannot mistake a part for the whole.
enum BodySource {
    Once(Bytestream),
    /// Can be opened at any offset, any number of times.
    Again(OpenAt),
}

/// Returns the bytes from an offset on.
type OpenAt = Arc<dyn Fn(u64) -> Bytestream + Send + Sync>;

/// A sequence of bytes.
enum Bytestream {
    Pieces(BoxStream<'static, io::Result<Bytes>>),
    Reader(Box<dyn Read + Send>),
}

impl SnapshotBody {
    /// Bytes that come in pieces, once.
    pub fn from_stream(stream: impl Stream<Item = io::Result<Bytes>> + Send + 'static, length: Option<u64>) -> Self {
        Self::new(BodySource::Once(Bytestream::Pieces(stream.boxed())), length)
    }

    /// Bytes that come in pieces, from any offset: `open` returns the bytes from there to the end. The bytes must be
    /// the same each time, and `length` in total.
    pub fn from_streams<S>(open: impl Fn(u64) -> S + Send + Sync + 'static, length: u64) -> Self
    where
        S: Stream<Item = io::Result<Bytes>> + Send + 'static,
    {
        let open = move |offset| Bytestream::Pieces(open(offset).boxed());
        Self::new(BodySource::Again(Arc::new(open)), Some(length))
    }

    /// The bytes of a blocking reader, once. It is read on a thread of its own. A transport that stops waits for the
    /// current read to return.
    pub fn from_reader(reader: impl Read + Send + 'static, length: Option<u64>) -> Self {
        Self::new(BodySource::Once(Bytestream::Reader(Box::new(reader))), length)
    }

    /// The bytes of a file, from its current position to its end. They can be read more than once. The file must not
    /// change until its snapshot has ended.
    ///
    /// # Errors
    /// The file's length cannot be read.
    pub fn from_file(mut file: File) -> io::Result<Self> {
        let (from, end) = (io::Seek::stream_position(&mut file)?, file.metadata()?.len());
        Ok(Self::from_places(move |place, into| file.read_at(into, place), from, end.max(from)))
    }

    /// The bytes from one position to another, which can be read more than once. `read` reads at a position, as a file's
    /// `read_at` does. It is dropped when the snapshot has ended.
    pub(crate) fn from_places<R>(read: R, from: u64, end: u64) -> Self
    where
        R: Fn(u64, &mut [u8]) -> io::Result<usize> + Send + Sync + 'static,
    {
        let read = Arc::new(read);
        let open = move |offset: u64| {
            let place = from.saturating_add(offset).min(end);
            Bytestream::Reader(Box::new(Places { read: read.clone(), place, end }))
        };
        Self::new(BodySource::Again(Arc::new(open)), Some(end - from))
    }

    fn new(source: BodySource, length: Option<u64>) -> Self {
        Self { source, length, checksum: None, name: None, reading: TaskTracker::new() }
    }

    /// Sets the xxh3-128 (seed 0) of all bytes, by which a member of this crate verifies what it has received. Default:
    /// if the body can be read more than once, one more pass computes it before a byte is sent. It protects against
    /// bits that flip on the way, not against an attacker.
    #[must_use]
    pub fn with_checksum(mut self, checksum: u128) -> Self {
        self.checksum = Some(checksum);
        self
    }

    /// Sets the name. If a member of this crate already has bytes of a snapshot with this name, length and checksum, it
    /// is not sent them again, even if an earlier call sent them. The same name must stand for the same bytes. Default:
    /// another name each time.
    #[must_use]
    pub fn with_name(mut self, name: u128) -> Self {
        self.name = Some(name);
        self
    }

    /// The body, if it can be read more than once.
    pub(crate) fn repeatable(&self) -> Option<Repeatable> {
        let BodySource::Again(open) = &self.source else { return None };
        let Self { length, checksum, name, reading, .. } = self;
        Some(Repeatable {
            open: open.clone(),
            length: (*length)?,
            checksum: *checksum,
            name: *name,
            reading: reading.clone(),
        })
    }

    /// The bytes, in pieces.
    pub(crate) fn into_stream(self, world: &World) -> BoxStream<'static, io::Result<Bytes>> {
        let bytes = match self.source {
            BodySource::Once(bytes) => bytes,
            BodySource::Again(open) => open(0),
        };
        bytes.pieces(self.reading, world)
    }
}

/// A body that can be read more than once.
pub(crate) struct Repeatable {
    open: OpenAt,
    /// Its length, in bytes.
    pub(crate) length: u64,
    /// As [`SnapshotBody::checksum`].
    pub(crate) checksum: Option<u128>,
    /// As [`SnapshotBody::name`].
    pub(crate) name: Option<u128>,
    reading: TaskTracker,
}

impl Repeatable {
    /// The bytes from an offset on, in pieces.
    pub(crate) fn pieces(&self, offset: u64, world: &World) -> BoxStream<'static, io::Result<Bytes>> {
        (self.open)(offset).pieces(self.reading.clone(), world)
    }
}

impl Bytestream {
    fn pieces(self, reading: TaskTracker, world: &World) -> BoxStream<'static, io::Result<Bytes>> {
        match self {
            Self::Pieces(pieces) => pieces,
            Self::Reader(reader) => blocks(reader, reading, world.clone()),
        }
    }
}

/// Reads a file from one position to the end.
struct Places<R> {
    read: Arc<R>,
    place: u64,
    end: u64,
}

impl<R: Fn(u64, &mut [u8]) -> io::Result<usize>> Read for Places<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.place).unwrap_or(usize::MAX);
        let room = into.len().min(left);
        let read = (self.read)(self.place, &mut into[..room])?;
        self.place += read as u64;
        Ok(read)
    }
}

/// The blocks of a blocking reader. The thread starts when the first block is asked for, so that a snapshot that waits
/// for its turn holds no thread.
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
        // Nobody takes the block, because the snapshot was given up.
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

    /// Zeros without end, slowly. Notes when it is dropped.
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

    #[tokio::test]
    async fn a_files_bytes_can_be_had_again_from_any_offset_whoever_else_reads_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("data");
        let data: Vec<u8> = (0..=250).cycle().take(BLOCK * 2 + 5).collect();
        fs::write(&path, &data).expect("a file");
        let world = World::default();
        let mut opened = File::open(&path).expect("a file");
        io::Seek::seek(&mut opened, io::SeekFrom::Start(3)).expect("it has a fourth byte");
        let (kept, length) = (File::open(&path).expect("a file"), data.len() as u64);
        let bodies = [
            (SnapshotBody::from_file(opened).expect("a body"), 3),
            (SnapshotBody::from_places(move |place, into| kept.read_at(into, place), 0, length), 0),
        ];
        for (body, from) in bodies {
            let whole = data.get(from..).expect("it is longer");
            assert_eq!(body.length, Some(whole.len() as u64));
            let BodySource::Again(open) = &body.source else { panic!("it can be read once only") };
            for offset in [0, 1, BLOCK, whole.len() - 1, whole.len(), whole.len() + 1] {
                let pieces = open(offset as u64).pieces(TaskTracker::new(), &world);
                let read: Vec<Bytes> = pieces.map(|block| block.expect("a block")).collect().await;
                assert_eq!(read.concat(), whole.get(offset..).unwrap_or_default(), "from {offset}");
            }
        }
    }
}
