//! etcd's raft network transport in Rust.

pub mod id;
pub mod metrics;
pub mod server;
pub mod telemetry;
pub mod tls;
pub mod transport;
pub mod wire;
