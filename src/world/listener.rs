//! A listening port, of the system or of another network.

use std::{
    io,
    net::{SocketAddr, TcpListener as StdTcpListener},
    sync::Arc,
};

use tokio::net::TcpListener;

use super::{network::Listen, ports::canonical, socket::Socket};

/// A listening port that is not served yet. Clients that dial it wait.
#[derive(Debug)]
pub(crate) enum Port {
    /// The system's.
    Tcp(StdTcpListener),
    /// Another network's.
    Other(Arc<dyn Listen>),
}

impl Port {
    /// The address that it can be reached at.
    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr(),
            Self::Other(listener) => listener.local_addr(),
        }
    }

    /// Another handle of the same port.
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        Ok(match self {
            Self::Tcp(listener) => Self::Tcp(listener.try_clone()?),
            Self::Other(listener) => Self::Other(listener.clone()),
        })
    }

    /// Prepares it to be served on this runtime.
    pub(crate) fn listen(self) -> io::Result<Listener> {
        Ok(match self {
            Self::Tcp(listener) => {
                listener.set_nonblocking(true)?;
                Listener(ListenerKind::Tcp(TcpListener::from_std(listener)?))
            }
            Self::Other(listener) => Listener(ListenerKind::Other(listener)),
        })
    }
}

/// A port that is served.
#[derive(Debug)]
pub struct Listener(ListenerKind);

#[derive(Debug)]
enum ListenerKind {
    Tcp(TcpListener),
    Other(Arc<dyn Listen>),
}

impl Listener {
    /// The next connection, and the address of its client. An IPv4 client has an IPv4 address, whatever the socket.
    pub(crate) async fn accept(&self) -> io::Result<(Socket, SocketAddr)> {
        let (socket, from) = match &self.0 {
            ListenerKind::Tcp(listener) => listener.accept().await.map(|(stream, from)| (Socket::Tcp(stream), from)),
            ListenerKind::Other(listener) => {
                listener.accept().await.map(|(stream, from)| (Socket::Other(stream), from))
            }
        }?;
        Ok((socket, canonical(from)))
    }
}

impl From<TcpListener> for Listener {
    fn from(listener: TcpListener) -> Self {
        Self(ListenerKind::Tcp(listener))
    }
}

impl From<Arc<dyn Listen>> for Listener {
    fn from(listener: Arc<dyn Listen>) -> Self {
        Self(ListenerKind::Other(listener))
    }
}
