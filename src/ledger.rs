//! The counts for each peer. A leaf module: every other module may use it, and it uses none of them.
//!
//! The counters are plain numbers in three small structs, one behind each of a peer's three locks: messages out
//! ([`Outgoing`]), messages in ([`Incoming`]), and the state of the link ([`Link`]). Each is read in one go, so the
//! ledger's laws hold in every scrape:
//!
//! - offered = sent + dropped + queued
//! - received = processed + rejected + waiting
//!
//! Behind the locks, the structs are wrapped in [`Live`]: other modules report events by its methods (`offered`,
//! `sent`, `dropped`), and cannot touch a counter. A reader gets a copy: plain numbers with public fields. A test that
//! needs a ledger of its own starts from the copy's default and sets the fields that it wants.

mod channel;
mod exemplar;
mod histogram;
mod incoming;
mod kind;
mod link;
mod live;
mod outgoing;
mod per;
mod reasons;
mod round_trips;
mod snapshots;
mod spans;
mod tally;

pub use channel::{Channel, Direction};
pub use exemplar::Exemplar;
pub use histogram::Histogram;
pub use incoming::Incoming;
pub use kind::MessageKind;
pub use link::Link;
pub(crate) use live::Live;
pub use outgoing::Outgoing;
pub use per::{Key, Per, PerChannel, PerDirection, PerDropReason, PerKind, PerPhase, PerRejectReason, PerStream};
pub use reasons::{AttemptResult, DialPhase, DropReason, LossReason, ProbeResult, RejectReason, RestartReason};
pub use round_trips::RoundTrips;
pub use snapshots::{SnapshotPace, Snapshots};
pub use spans::TraceExportStatus;
pub use tally::Tally;
