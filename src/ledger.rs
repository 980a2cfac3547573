//! What is counted for each peer. A leaf: anyone may use it, and it knows nothing of who does.
//!
//! The counters are plain numbers in three small structs, one behind each of a peer's three locks: what goes out
//! ([`Outgoing`]), what comes in ([`Incoming`]), and how the link does ([`Link`]). They are read together, so the
//! ledger's laws hold in every scrape:
//!
//! - offered = sent + dropped + queued
//! - received = processed + rejected + waiting
//!
//! Behind the locks they are [`Live`]: what happens is told by a verb (`offered`, `sent`, `dropped`), and no counter can
//! be touched from outside this module. What is read is a copy, plain numbers with public fields. A test that needs a
//! ledger of its own begins with the default of the copy and sets what it wants.

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
pub use reasons::{AttemptResult, DialPhase, DropReason, LossReason, ProbeResult, RejectReason};
pub use round_trips::RoundTrips;
pub use snapshots::Snapshots;
pub use spans::TraceExportStatus;
pub use tally::Tally;
