//! Load between two transports, and what it costs.
//!
//! The source is member 1, the sink member 2 of cluster `1000`. The source sends a plan ahead of its load and the sum
//! after it, each in the context of a `MsgHeartbeat`, so that both sides can say the same of a run; everything else is
//! what raft itself would send. Acknowledgements are the raft's own, one for each batch that the sink's application
//! took: `MsgAppResp` with the last index, `MsgHeartbeatResp` with the number of the last heartbeat in `index`.

use rafthttp::{ClusterId, MemberId, PeerUrlError, TransportError};

mod arrivals;
mod endpoint;
mod idle;
mod plan;
mod report;
mod sink;
mod source;
mod usage;
mod window;

pub(crate) use endpoint::EndpointConfig;
pub(crate) use idle::{Idle, idle};
pub(crate) use plan::{Extent, Plan, Work};
pub(crate) use sink::sink;
pub(crate) use source::source;

/// The member that sends.
const SOURCE: MemberId = MemberId(1);
/// The member that receives.
const SINK: MemberId = MemberId(2);
/// Their cluster.
const CLUSTER: ClusterId = ClusterId(0x1000);
/// The one term of a bench: nobody votes.
const TERM: u64 = 1;

/// Why a bench did not end well.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BenchError {
    /// The listener cannot be had.
    #[error("cannot listen on {address}: {error}")]
    Listen {
        /// Where.
        address: String,
        /// Why not.
        error: std::io::Error,
    },
    /// A directory or file cannot be had.
    #[error("cannot keep snapshots: {0}")]
    Store(#[source] std::io::Error),
    /// The transport cannot be built, or the peer not be added.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// A `HOST:PORT` that is no peer's.
    #[error(transparent)]
    Url(#[from] PeerUrlError),
    /// The streams to the peer did not open in time.
    #[error("no streams to {peer} within {seconds} s{why}")]
    NoStreams {
        /// The other end.
        peer: String,
        /// How long it was waited for.
        seconds: u64,
        /// The last error, after a colon.
        why: String,
    },
    /// The other end went away.
    #[error("the source ended before it had finished")]
    Abandoned,
    /// Told to stop.
    #[error("stopped before the work was finished")]
    Stopped,
    /// Messages are missing.
    #[error("{lost} of {messages} messages were lost")]
    Lost {
        /// How many are missing.
        lost: u64,
        /// How many were sent.
        messages: u64,
    },
}
