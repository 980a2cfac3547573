//! etcd's raft network transport in Rust.

pub mod id;
pub mod metrics;
#[cfg(feature = "raft-rs")]
pub mod node;
pub mod tls;
pub mod transport;
pub mod wire;
