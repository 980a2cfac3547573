//! What a process on a machine sees of the network.

use std::{
    collections::{VecDeque, btree_map},
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    task::Poll,
    time::Duration,
};

use async_trait::async_trait;
use rafthttp::internals::world::{ByteStream, Listen, Network};
use tokio::time::sleep;

use super::{Connection, End, Held, Host, NEVER, Net, Pipe, Port, Resolver, State, Stream, wake};

/// A place on the network.
#[derive(Debug)]
pub struct Place {
    pub(super) net: Net,
    pub(super) host: Host,
}

/// A port that a process listens on.
#[derive(Debug)]
struct Listening {
    net: Net,
    address: SocketAddr,
}

/// The outcome of one attempt to connect.
enum Attempt {
    Connected(Stream),
    Refused,
    /// No answer came.
    Silence,
}

impl State {
    /// How long the first packet of a connection and its answer take. `None` if one of them does not arrive.
    fn round_trip(&mut self, from: Host, to: Host) -> Option<u64> {
        let now = self.timeline.now();
        let (there, back) = (self.news(from, to), self.news(to, from));
        (there != NEVER && back != NEVER).then(|| there - now + (back - now))
    }

    fn owner(&self, address: IpAddr) -> Option<Host> {
        self.hosts.iter().position(|host| host.address == address)
    }

    fn connect(&mut self, net: &Net, from: Host, to: SocketAddr) -> Attempt {
        let Some(other) = self.owner(to.ip()) else { return Attempt::Refused };
        if self.round_trip(from, other).is_none() {
            return Attempt::Silence;
        }
        let connection = self.connections.len();
        let address = SocketAddr::new(self.hosts[from].address, 40_000);
        let Some(port) = self.ports.get_mut(&to) else { return Attempt::Refused };
        port.dialled.push_back((Stream::new(net.clone(), connection, 1), address));
        wake(&mut port.acceptor);
        let end = |host| End { host, state: Held::Open };
        self.connections.push(Connection { ends: [end(from), end(other)], pipes: [Pipe::default(), Pipe::default()] });
        self.events.took(&[4, connection as u64, from as u64, other as u64], &[]);
        Attempt::Connected(Stream::new(net.clone(), connection, 0))
    }
}

#[async_trait]
impl Network for Place {
    async fn connect(&self, to: SocketAddr) -> io::Result<Box<dyn ByteStream>> {
        // The first packet is sent again after one second, two, four and so on.
        let mut pause = 1000;
        loop {
            let takes = {
                let mut state = self.net.state();
                let other = state.owner(to.ip()).unwrap_or(self.host);
                state.round_trip(self.host, other)
            };
            if let Some(takes) = takes {
                sleep(Duration::from_millis(takes)).await;
                let attempt = self.net.state().connect(&self.net, self.host, to);
                match attempt {
                    Attempt::Connected(stream) => return Ok(Box::new(stream)),
                    Attempt::Refused => return Err(io::ErrorKind::ConnectionRefused.into()),
                    Attempt::Silence => {}
                }
            }
            sleep(Duration::from_millis(pause)).await;
            pause *= 2;
        }
    }

    async fn look_up(&self, name: &str) -> Result<Vec<IpAddr>, String> {
        let (known, resolver, others) = {
            let state = self.net.state();
            let addresses: Vec<IpAddr> = state.hosts.iter().map(|host| host.address).collect();
            (state.names.get(name).copied(), state.hosts[self.host].resolver, addresses)
        };
        let answer = known.map(|address| vec![address]).ok_or_else(|| "nobody has this name".to_owned());
        match resolver {
            Resolver::Well => answer,
            Resolver::Late(takes) => {
                sleep(Duration::from_millis(takes)).await;
                answer
            }
            Resolver::Broken => Err("the name server does not answer".to_owned()),
            Resolver::Wrong(host) => Ok(vec![others[host]]),
        }
    }

    async fn listen(&self, _host: &str, port: u16) -> io::Result<Arc<dyn Listen>> {
        let mut state = self.net.state();
        let address = SocketAddr::new(state.hosts[self.host].address, port);
        match state.ports.entry(address) {
            btree_map::Entry::Occupied(_) => return Err(io::ErrorKind::AddrInUse.into()),
            btree_map::Entry::Vacant(free) => {
                free.insert(Port { dialled: VecDeque::new(), acceptor: None });
            }
        }
        drop(state);
        Ok(Arc::new(Listening { net: self.net.clone(), address }))
    }
}

#[async_trait]
impl Listen for Listening {
    async fn accept(&self) -> io::Result<(Box<dyn ByteStream>, SocketAddr)> {
        std::future::poll_fn(|cx| {
            let mut state = self.net.state();
            let port = state.ports.get_mut(&self.address).ok_or(io::ErrorKind::NotConnected)?;
            match port.dialled.pop_front() {
                Some((stream, from)) => Poll::Ready(Ok((Box::new(stream) as Box<dyn ByteStream>, from))),
                None => {
                    port.acceptor = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        // Connections that nobody has accepted are closed with the port. Closing takes the lock, so it is not held
        // here.
        let port = self.net.state().ports.remove(&self.address);
        drop(port);
    }
}
