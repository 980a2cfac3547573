//! One member of a replicated key-value store: raft-rs over this crate's [`Transport`](crate::transport::Transport).

pub mod convert;

#[cfg(feature = "cli")]
mod config;
#[cfg(feature = "cli")]
mod guard;
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
mod state;
#[cfg(feature = "cli")]
mod status;
#[cfg(feature = "cli")]
mod storage;

#[cfg(feature = "cli")]
pub use config::{Config, ConfigError, DEFAULT_TOKEN, InitialClusterState};
