//! One member of a replicated key-value store: raft-rs over this crate's [`Transport`](crate::Transport).
//!
//! ```text
//!  clients ──HTTP── client ──┐                              ┌── outbox ── transport ── peers
//!                            ├─ queue ─ task ─ ready (Core) ┤
//!  peers ─ transport ─ inlet ┘                │             └── answers to clients
//!                                          storage (redb, log)
//! ```
//!
//! In reading order: `start` puts the parts together; `birth` says who the member is, `initial_cluster` who the first are,
//! `join` how a member finds its cluster, `force` how it becomes the only one, `listeners` where it is reached; `task` is
//! the thread that owns raft, `ready` what it does in a turn; `guard`, `history`, `incarnations` and
//! [`raft_rs`](crate::raft_rs) stand between the wire and raft, `inlet` and `snapshot` bring in what peers send, `hearsay`
//! and `vouching` know the peers of which the log says nothing yet; `storage` keeps, `state` and `members` apply;
//! `reconfiguration` says which change of the members is taken; `proposals` and `reads` are who waits, `client` is what
//! clients see.

mod birth;
mod client;
mod config;
mod error;
mod force;
mod guard;
mod hearsay;
mod history;
mod incarnations;
mod initial_cluster;
mod inlet;
mod join;
mod listeners;
mod members;
mod proposals;
mod reads;
mod ready;
mod reconfiguration;
mod request;
mod snapshot;
mod start;
mod state;
mod status;
mod storage;
mod task;
mod vouching;

pub use config::{Config, ConfigError, DEFAULT_TOKEN, InitialClusterState, MAX_ELECTION_TIMEOUT};
pub use error::Error;
pub use initial_cluster::{InitialCluster, InitialClusterError, InitialIds};
pub use start::Node;
pub use status::{RaftStatus, Role};
pub use storage::StoreError;
pub use task::Stopped;
