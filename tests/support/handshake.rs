//! A handshake between two members, without a network.

use std::{io, sync::Arc, time::Duration};

use rafthttp::tls::{HandshakeReason, Tls};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;

/// A listener's default.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// The outcome at the dialled end, and at the dialling end.
pub type Outcome = (Result<(), HandshakeReason>, Result<(), String>);

/// A handshake over memory, and one byte each way: with TLS 1.3 a client learns only then that it was refused.
pub async fn meet(server: &Tls, client: Arc<ClientConfig>, name: &str) -> Outcome {
    let (near, far) = tokio::io::duplex(64 << 10);
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    let accepting = async {
        let mut stream = server.accept(far, HANDSHAKE_TIMEOUT).await.map_err(|error| error.reason())?;
        let echoed = async {
            let byte = stream.read_u8().await?;
            stream.write_u8(byte).await?;
            stream.shutdown().await
        };
        echoed.await.map_err(|_: io::Error| HandshakeReason::Closed)
    };
    let dialling = async {
        let mut stream = TlsConnector::from(client).connect(name, near).await?;
        stream.write_u8(7).await?;
        stream.read_u8().await.map(drop)
    };
    let both = async { tokio::join!(accepting, dialling) };
    let (server, client) = tokio::time::timeout(Duration::from_secs(10), both).await.expect("a handshake ends");
    (server, client.map_err(|error: io::Error| error.to_string()))
}
