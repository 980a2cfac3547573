//! Measures the load between one transport and one or more others, and its cost.
//!
//! The source is member 1 of cluster `1000`. The sinks are the members from 2 on, all of them in one process. The source
//! sends a plan before its load and the sum after it, each in the context of a `MsgHeartbeat`, so that both sides report
//! the same about a run. Each sink is sent the whole load, and has a window of its own. All other
//! messages are those that raft itself would send. Acknowledgements are raft's own, one for each batch that the sink's
//! application took: `MsgAppResp` with the last index, or `MsgHeartbeatResp` with the number of the last heartbeat in
//! `index`.

use std::time::Duration;

use rafthttp::{ClusterId, MemberId, PeerUrlError, TransportError};

use crate::serving::ServingError;

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
/// The first member that receives. The others have the IDs after it.
const FIRST_SINK: u64 = 2;
/// Their cluster.
const CLUSTER: ClusterId = ClusterId(0x1000);
/// How often the metrics are read, as by a scrape. Most scrapes are less frequent.
pub(crate) const SCRAPE_EVERY: Duration = Duration::from_secs(1);
/// The one term of a bench. There is no election.
const TERM: u64 = 1;

/// The IDs of the sinks, in the order of their addresses.
fn sink_ids() -> impl Iterator<Item = MemberId> {
    (FIRST_SINK..).map(MemberId)
}

/// Why a bench failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BenchError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {error}")]
    Listen {
        /// The address.
        address: String,
        /// The reason.
        error: std::io::Error,
    },
    /// A directory or file cannot be used.
    #[error("cannot keep snapshots: {0}")]
    Store(#[source] std::io::Error),
    /// The metrics cannot be served.
    #[error(transparent)]
    Serving(#[from] ServingError),
    /// The transport cannot be built, or the peer cannot be added.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// A `HOST:PORT` that cannot be a peer's.
    #[error(transparent)]
    Url(#[from] PeerUrlError),
    /// The streams to the peer did not open in time.
    #[error("no streams to {peer} within {seconds} s{why}")]
    NoStreams {
        /// The other end.
        peer: String,
        /// How long it was waited for, in seconds.
        seconds: u64,
        /// The last error, after a colon, or nothing.
        why: String,
    },
    /// The other end went away.
    #[error("the source ended before it had finished")]
    Abandoned,
    /// The process was told to stop.
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
