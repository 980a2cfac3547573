//! A network that replaces the system's.

use std::{
    fmt::Debug,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite};

/// A connection in such a network: bytes written at one end are read at the other.
pub trait ByteStream: AsyncRead + AsyncWrite + Debug + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Debug + Send + Unpin> ByteStream for T {}

/// The operations of a network that is not the system's. Every future may be dropped before it completes.
#[async_trait]
pub trait Network: Debug + Send + Sync {
    /// Connects to an address. The caller waits at most for the dial timeout.
    ///
    /// # Errors
    /// As for a socket: refused, unreachable, reset.
    async fn connect(&self, to: SocketAddr) -> io::Result<Box<dyn ByteStream>>;

    /// The addresses of a name, in the order in which to try them. It is not called for an address.
    ///
    /// # Errors
    /// Why there is no address, in words.
    async fn look_up(&self, name: &str) -> Result<Vec<IpAddr>, String>;

    /// Listens on a port.
    ///
    /// # Errors
    /// As for a socket: in use, or not an address of this member.
    async fn listen(&self, host: &str, port: u16) -> io::Result<Arc<dyn Listen>>;
}

/// A listening port in such a network, until its last handle is dropped.
#[async_trait]
pub trait Listen: Debug + Send + Sync {
    /// The next connection, and the address of its client.
    ///
    /// # Errors
    /// No connection can be accepted now. A later call may succeed.
    async fn accept(&self) -> io::Result<(Box<dyn ByteStream>, SocketAddr)>;

    /// The address that the port can be reached at.
    ///
    /// # Errors
    /// The port has no address any more.
    fn local_addr(&self) -> io::Result<SocketAddr>;
}
