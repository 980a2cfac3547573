//! How the link to a peer does.

use std::time::{Duration, SystemTime};

use super::{
    AttemptResult, Channel, Direction, Histogram, LossReason, PerDirection, PerPhase, PerStream, ProbeResult,
    RoundTrips, Snapshots, Tally,
};
use crate::{id::MemberId, wire::probing::Sight};

/// How the link to a peer does: probes, streams, snapshots; everything that is not counted per message.
#[derive(Clone, Debug, Default)]
pub struct Link {
    /// Whether the last probe succeeded; none before the first.
    pub reachable: Option<bool>,
    /// Probes by result.
    pub probes: Tally<ProbeResult>,
    /// Round trips of the successful ones on a warm connection.
    pub probe_seconds: Histogram,
    /// The last of them.
    pub round_trip: Option<Duration>,
    /// The last ones, failures among them.
    pub round_trips: RoundTrips,
    /// When the newest probe ended.
    pub last_probe: Option<SystemTime>,
    /// How the peer reaches its own peers, as it said when it was last asked, and when that was. None: it was not
    /// asked yet, could not be asked the last time, or does not say.
    pub view: Option<(SystemTime, Vec<Sight>)>,
    /// Times of the probes' dials by phase.
    pub dial_seconds: PerPhase<Histogram>,
    /// The peer's clock minus ours, in seconds, while it is known.
    pub clock_offset: Option<f64>,
    /// Whether a stream is open, by stream channel (`MsgApp`, `Message`) and direction (`In`, `Out`).
    pub stream_up: PerStream<PerDirection<bool>>,
    /// Dials of streams by channel and result.
    pub attempts: Tally<(Channel, AttemptResult)>,
    /// Ends of open streams.
    pub losses: Tally<(Channel, Direction, LossReason)>,
    /// Since when the peer is active (etcd's `ActiveSince`).
    pub active_since: Option<SystemTime>,
    /// How often it went from active to inactive: etcd's `disconnected_peers_total`.
    pub disconnected: u64,
    /// etcd's `peer_sent_failures_total`.
    pub sent_failures: u64,
    /// etcd's `peer_received_failures_total`.
    pub received_failures: u64,
    /// Snapshots by direction (`In`, `Out`).
    pub snapshots: PerDirection<Snapshots>,
    /// The last error, and when.
    pub last_error: Option<(SystemTime, String)>,
}

impl Link {
    /// How the peer is reached, as others are told.
    pub(crate) fn sight(&self, id: MemberId) -> Sight {
        let age = self.last_probe.map(|ended| ended.elapsed().unwrap_or_default().as_secs_f64());
        let round_trip = self.round_trip.map(|time| time.as_secs_f64());
        Sight { id, reachable: self.reachable, round_trip, age }
    }
}
