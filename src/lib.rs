//! etcd's raft network transport in Rust.

pub mod admin;
pub mod id;
pub mod metrics;
#[cfg(feature = "raft-rs")]
pub mod node;
pub mod server;
pub mod telemetry;
pub mod tls;
mod transport;
pub mod wire;

pub use id::{ClusterId, MemberId};
pub use server::{ConnectionLimits, Server, router, serve};
pub use tls::{Tls, TlsConfig, TlsError};
pub use transport::{
    Builder, Identity, Transport, TransportError,
    limits::Limits,
    raft::{Critical, Member, Members, Raft, Rejected, Rejection, RejectionKind, SnapshotStatus},
    snapshot::{SnapshotBody, store::SnapshotStore},
    status::{PeerStatus, TransportStatus},
    urls::{PeerUrl, PeerUrlError},
};
