//! One member of a replicated key-value store: raft-rs over this crate's [`Transport`](crate::Transport).
//!
//! ```text
//!  clients ──HTTP── client ──┐                              ┌── outbox ── transport ── peers
//!                            ├─ queue ─ task ─ ready (Core) ┤
//!  peers ─ transport ─ inlet ┘                │             └── answers to clients
//!                                          storage (redb)
//! ```
//!
//! In reading order: `start` puts the parts together, `birth` says who the member is, `listeners` where it is reached;
//! `task` is the thread that owns raft, `ready` what it does in a turn; `guard` and [`convert`] stand between the wire
//! and raft-rs, `inlet` and `snapshot` bring in what peers send; `storage` keeps, `state` and `members` apply;
//! `proposals` and `reads` are who waits; `client` is what clients see, `join` how a member finds its cluster.

pub mod convert;

#[cfg(feature = "cli")]
mod birth;
#[cfg(feature = "cli")]
mod client;
#[cfg(feature = "cli")]
mod config;
#[cfg(feature = "cli")]
mod error;
#[cfg(feature = "cli")]
mod guard;
#[cfg(feature = "cli")]
mod inlet;
#[cfg(feature = "cli")]
mod join;
#[cfg(feature = "cli")]
mod listeners;
#[cfg(feature = "cli")]
mod members;
#[cfg(feature = "cli")]
mod proposals;
#[cfg(feature = "cli")]
mod reads;
#[cfg(feature = "cli")]
mod ready;
#[cfg(feature = "cli")]
mod request;
#[cfg(feature = "cli")]
mod snapshot;
#[cfg(feature = "cli")]
mod start;
#[cfg(feature = "cli")]
mod state;
#[cfg(feature = "cli")]
mod status;
#[cfg(feature = "cli")]
mod storage;
#[cfg(feature = "cli")]
mod task;

#[cfg(feature = "cli")]
pub use config::{Config, ConfigError, DEFAULT_TOKEN, InitialClusterState};
#[cfg(feature = "cli")]
pub use error::Error;
#[cfg(feature = "cli")]
pub use start::Node;
#[cfg(feature = "cli")]
pub use status::{RaftStatus, Role};
#[cfg(feature = "cli")]
pub use storage::StoreError;
#[cfg(feature = "cli")]
pub use task::Stopped;
