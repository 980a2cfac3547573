//! A network in place of the system's.

use std::{
    fmt::Debug,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite};

/// A connection of such a network: what is written at one end is read at the other.
pub trait ByteStream: AsyncRead + AsyncWrite + Debug + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Debug + Send + Unpin> ByteStream for T {}

/// What a member may ask of a network that is not the system's. Every future may be dropped before its end.
#[async_trait]
pub trait Network: Debug + Send + Sync {
    /// Connects to an address. Nobody waits longer than the dial time-out.
    ///
    /// # Errors
    /// As a socket's: refused, unreachable, reset.
    async fn connect(&self, to: SocketAddr) -> io::Result<Box<dyn ByteStream>>;

    /// The addresses of a name, in the order in which to try them. Not asked for what is an address already.
    ///
    /// # Errors
    /// Why there is none, in words.
    async fn look_up(&self, name: &str) -> Result<Vec<IpAddr>, String>;

    /// Takes a port.
    ///
    /// # Errors
    /// As a socket's: in use, not an address of this member's.
    async fn listen(&self, host: &str, port: u16) -> io::Result<Arc<dyn Listen>>;
}

/// A port that is taken on such a network, until the last that has it lets it go.
#[async_trait]
pub trait Listen: Debug + Send + Sync {
    /// The next connection, and who dialled it.
    ///
    /// # Errors
    /// When none can be taken now; asked again, it may be.
    async fn accept(&self) -> io::Result<(Box<dyn ByteStream>, SocketAddr)>;

    /// Where it can be reached.
    ///
    /// # Errors
    /// When it cannot be any more.
    fn local_addr(&self) -> io::Result<SocketAddr>;
}
