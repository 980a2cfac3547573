//! One member of a replicated key-value store: raft-rs over this crate's [`Transport`](crate::Transport).
//!
//! ```text
//!  clients ──HTTP── client ──┐                              ┌── outbox ── transport ── peers
//!                            ├─ queue ─ task ─ ready (Core) ┤
//!  peers ─ transport ─ inlet ┘                │             └── answers to clients
//!                                          storage (redb, log)
//! ```
//!
//! In reading order: `start` puts the parts together. `birth` finds or makes the member's identity, `initial_cluster`
//! parses the first members, `join` finds a running cluster, `force` makes the member the only one, `listeners` binds
//! its ports. `task` is the thread that owns raft, and `ready` is what it does in a turn. `guard`, `history`,
//! `incarnations` and [`raft_rs`](crate::raft_rs) stand between the wire and raft. `inlet` and `snapshot` bring in what
//! peers send. `hearsay` and `vouching` know the peers that the log does not name yet. `storage` keeps the data and the
//! log; `state` and `members` apply entries. `reconfiguration` checks changes of the membership. `proposals` and
//! `reads` hold the waiting requests, and `client` is the interface for clients.

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

/// Parses the JSON of a stored membership, and returns it as it would be stored again. `None` if it is no membership.
pub(crate) fn kept_membership(json: &[u8]) -> Option<Vec<u8>> {
    members::Membership::parse(json).ok().map(|membership| membership.to_json())
}
