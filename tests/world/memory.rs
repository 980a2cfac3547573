//! A network in memory: each member has an address and a name on it, and no socket.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use async_trait::async_trait;
use rafthttp::internals::world::{ByteStream, Listen, Network};
use tokio::{
    io::{copy_bidirectional, duplex},
    sync::mpsc,
    task::JoinSet,
    time::sleep,
};

/// How long connecting takes.
pub const CONNECTING: Duration = Duration::from_millis(5);
/// What lies between the two ends of a connection at most, in bytes each way and at each end.
const WINDOW: usize = 64 << 10;

type Dialled = (Box<dyn ByteStream>, SocketAddr);

/// What all members share.
#[derive(Clone, Debug, Default)]
pub struct Memory(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    names: HashMap<String, IpAddr>,
    ports: HashMap<SocketAddr, mpsc::UnboundedSender<Dialled>>,
    connections: JoinSet<()>,
    is_cut: bool,
    dialled: usize,
}

/// What one member sees of it.
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

    /// A place on it for a member of this name.
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

    /// How many connections there ever were.
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
        let (near, mut left) = duplex(WINDOW);
        let (mut right, far) = duplex(WINDOW);
        let mut state = self.memory.state();
        let port = state.ports.get(&to).filter(|_| !state.is_cut);
        let from = SocketAddr::new(self.address, 40_000);
        let taken = port.is_some_and(|port| port.send((Box::new(far), from)).is_ok());
        if !taken {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        state.dialled += 1;
        state.connections.spawn(async move {
            let _ = copy_bidirectional(&mut left, &mut right).await;
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

#[async_trait]
impl Listen for Port {
    async fn accept(&self) -> io::Result<Dialled> {
        self.dialled.lock().await.recv().await.ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}
