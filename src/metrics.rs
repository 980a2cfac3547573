//! The metrics of `/metrics`: the names under which the counts of each peer's ledger are shown, and the ledger's types.

pub use crate::ledger::{
    AttemptResult, Channel, DialPhase, Direction, DropReason, Exemplar, Histogram, Incoming, Key, Link, LossReason,
    MessageKind, Outgoing, Per, PerChannel, PerDirection, PerDropReason, PerKind, PerPhase, PerRejectReason, PerStream,
    ProbeResult, RejectReason, RestartReason, RoundTrips, SnapshotPace, Snapshots, Tally, TraceExportStatus,
};

mod builder;
mod client_tls;
mod collector;
mod etcd;
mod exposition;
mod families;
mod family;
mod format;
mod gathered;
#[cfg(feature = "node")]
mod histories;
mod lines;
mod options;
mod raft;
mod singles;
mod store;
#[cfg(feature = "node")]
mod ticks;
mod tls;
mod traces;

pub use client_tls::client_tls_collector;
pub use collector::Collector;
pub use exposition::Exposition;
pub use format::Format;
#[cfg(feature = "node")]
pub(crate) use histories::{HistoriesStatus, histories_collector};
pub use options::Options;
pub use raft::{RaftStatus, raft_collector};
pub use store::{StoreStatus, store_collector};
#[cfg(feature = "node")]
pub(crate) use ticks::ticks_collector;
pub use traces::trace_collector;
