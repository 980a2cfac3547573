//! A network in memory: each member has an address and a name on it, and no socket.

use std::{
    collections::{HashMap, VecDeque},
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use async_trait::async_trait;
use rafthttp::internals::world::{ByteStream, Listen, Network};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, ReadHalf, WriteHalf, duplex, split},
    sync::mpsc,
    task::JoinSet,
    time::sleep,
};

/// How long connecting takes.
pub const CONNECTING: Duration = Duration::from_millis(5);
/// How many bytes are carried at once.
const PIECE: usize = 8 << 10;
/// The most bytes between the two ends of a connection, each way and at each end.
const WINDOW: usize = 64 << 10;

/// The first bytes of a connection on which snapshots are sent.
const SNAPSHOT: &[u8] = b"POST /raft/snapshot ";

/// A fault of one connection on which snapshots are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mishap {
    /// The connection is closed when this many bytes have gone out.
    Cut(u64),
    /// A bit of the byte at this place is flipped.
    Turn(u64),
    /// The connection is closed when the second answer comes back. The first answer says how many bytes have arrived,
    /// the second that the snapshot was taken.
    LoseAnswer,
    /// Nothing is carried from the second answer on, and the connection stays open, as if the power had gone at the other
    /// end.
    Silence,
}

type Dialled = (Box<dyn ByteStream>, SocketAddr);

/// The network that all members share.
#[derive(Clone, Debug, Default)]
pub struct Memory(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    names: HashMap<String, IpAddr>,
    ports: HashMap<SocketAddr, mpsc::UnboundedSender<Dialled>>,
    connections: JoinSet<()>,
    is_cut: bool,
    dialled: usize,
    mishaps: VecDeque<Mishap>,
    befallen: usize,
    /// How long a window's worth of a snapshot takes.
    pace: Duration,
}

/// The network as one member sees it.
#[derive(Debug)]
struct Place {
    memory: Memory,
    address: IpAddr,
}

#[derive(Debug)]
struct Port {
    address: SocketAddr,
    dialled: tokio::sync::Mutex<mpsc::UnboundedReceiver<Dialled>>,
}

impl Memory {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("nobody panics while it holds this")
    }

    /// A place on the network for a member of this name.
    pub fn place(&self, name: &str, address: [u8; 4]) -> Arc<dyn Network> {
        self.state().names.insert(name.to_owned(), address.into());
        Arc::new(Place { memory: self.clone(), address: address.into() })
    }

    /// Closes every connection, and refuses new ones until [`Self::heal`].
    pub fn cut(&self) {
        let mut state = self.state();
        state.is_cut = true;
        state.connections.abort_all();
    }

    /// Ends what [`Self::cut`] began.
    pub fn heal(&self) {
        self.state().is_cut = false;
    }

    /// Sets the faults of the next connections on which snapshots are sent, one for each connection.
    pub fn befall(&self, mishaps: impl IntoIterator<Item = Mishap>) {
        self.state().mishaps.extend(mishaps);
    }

    /// How many faults are still to come.
    pub fn mishaps(&self) -> usize {
        self.state().mishaps.len()
    }

    /// How many connections were cut by a fault.
    pub fn befallen(&self) -> usize {
        self.state().befallen
    }

    /// Sets how long a window's worth of a snapshot takes from now on.
    pub fn set_pace(&self, pace: Duration) {
        self.state().pace = pace;
    }

    fn snapshot_begins(&self) -> (Option<Mishap>, Duration) {
        let mut state = self.state();
        (state.mishaps.pop_front(), state.pace)
    }

    /// How many connections there have been.
    pub fn dialled(&self) -> usize {
        self.state().dialled
    }

    /// How many connections there are.
    pub fn open(&self) -> usize {
        let mut state = self.state();
        while state.connections.try_join_next().is_some() {}
        state.connections.len()
    }
}

#[async_trait]
impl Network for Place {
    async fn connect(&self, to: SocketAddr) -> io::Result<Box<dyn ByteStream>> {
        sleep(CONNECTING).await;
        let (near, left) = duplex(WINDOW);
        let (right, far) = duplex(WINDOW);
        let mut state = self.memory.state();
        let port = state.ports.get(&to).filter(|_| !state.is_cut);
        let from = SocketAddr::new(self.address, 40_000);
        let taken = port.is_some_and(|port| port.send((Box::new(far), from)).is_ok());
        if !taken {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        state.dialled += 1;
        let (memory, (left, out), (right, back)) = (self.memory.clone(), split(left), split(right));
        let (tell, told) = tokio::sync::watch::channel(None);
        state.connections.spawn(async move {
            let _ = tokio::try_join!(forward(left, back, memory, tell), answer(right, out, told));
        });
        Ok(Box::new(near))
    }

    async fn look_up(&self, name: &str) -> Result<Vec<IpAddr>, String> {
        let known = self.memory.state().names.get(name).copied();
        known.map(|address| vec![address]).ok_or_else(|| "nobody has this name".to_owned())
    }

    async fn listen(&self, _host: &str, port: u16) -> io::Result<Arc<dyn Listen>> {
        let address = SocketAddr::new(self.address, port);
        let (sender, dialled) = mpsc::unbounded_channel();
        self.memory.state().ports.insert(address, sender);
        Ok(Arc::new(Port { address, dialled: dialled.into() }))
    }
}

/// What the dialler says.
async fn forward(
    mut from: ReadHalf<DuplexStream>,
    mut to: WriteHalf<DuplexStream>,
    memory: Memory,
    tell: tokio::sync::watch::Sender<Option<Mishap>>,
) -> io::Result<()> {
    let (mut buffer, mut passed, mut pace) = (vec![0; PIECE], 0, None);
    let (mut cut, mut turned) = (u64::MAX, u64::MAX);
    loop {
        let read = from.read(&mut buffer).await?;
        let piece = &mut buffer[..read];
        if read == 0 {
            return to.shutdown().await;
        }
        if passed == 0 && piece.starts_with(SNAPSHOT) {
            let (mishap, slow) = memory.snapshot_begins();
            pace = Some(slow);
            match mishap {
                Some(Mishap::Cut(at)) => cut = at,
                Some(Mishap::Turn(at)) => turned = at,
                Some(Mishap::LoseAnswer | Mishap::Silence) => drop(tell.send(mishap)),
                None => {}
            }
        }
        if let Some(slow) = pace.filter(|slow| !slow.is_zero()) {
            sleep(slow.mul_f64(read as f64 / WINDOW as f64)).await;
        }
        let end = passed + read as u64;
        if (passed..end).contains(&turned) {
            piece[usize::try_from(turned - passed).expect("within the piece")] ^= 4;
        }
        if end > cut {
            to.write_all(&piece[..usize::try_from(cut - passed).expect("within the piece")]).await?;
            memory.state().befallen += 1;
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        to.write_all(piece).await?;
        passed = end;
    }
}

/// What is answered.
async fn answer(
    mut from: ReadHalf<DuplexStream>,
    mut to: WriteHalf<DuplexStream>,
    mishap: tokio::sync::watch::Receiver<Option<Mishap>>,
) -> io::Result<()> {
    let (mut buffer, mut answers) = (vec![0; PIECE], 0);
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return to.shutdown().await;
        }
        answers += u32::from(buffer[..read].starts_with(b"HTTP/1.1 "));
        let mishap = *mishap.borrow();
        match mishap.filter(|_| answers > 1) {
            Some(Mishap::LoseAnswer) => return Err(io::ErrorKind::ConnectionReset.into()),
            Some(Mishap::Silence) => std::future::pending().await,
            _ => {}
        }
        to.write_all(&buffer[..read]).await?;
    }
}

#[async_trait]
impl Listen for Port {
    async fn accept(&self) -> io::Result<Dialled> {
        self.dialled.lock().await.recv().await.ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}
