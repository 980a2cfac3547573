//! How the link to a peer does.

use std::time::{Duration, SystemTime};

use super::{
    AttemptResult, Channel, DialPhase, Direction, Histogram, Live, LossReason, PerDirection, PerPhase, PerStream,
    ProbeResult, RoundTrips, Snapshots, Tally,
};
use crate::{
    id::MemberId,
    wire::{probing::Sight, stream::StreamKind},
};

/// How the link to a peer did: probes, streams, snapshots; everything that is not counted per message. A copy of what is
/// kept.
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

impl Live<Link> {
    /// A stream that we read was dialled.
    pub(crate) fn attempted(&mut self, stream: StreamKind, result: AttemptResult) {
        self.0.attempts.add((stream.channel(), result), 1);
    }

    /// A stream that we read is open. Of those that we write, the outbox knows: see [`Self::copy`].
    pub(crate) fn stream_opened(&mut self, stream: StreamKind) {
        self.0.stream_up[stream][Direction::In] = true;
    }

    /// An open stream ended.
    pub(crate) fn stream_lost(&mut self, stream: StreamKind, direction: Direction, reason: LossReason) {
        self.0.losses.add((stream.channel(), direction, reason), 1);
        match direction {
            Direction::In => self.0.stream_up[stream][Direction::In] = false,
            // A newer one may have taken its place by now.
            Direction::Out => {
                let failed = matches!(reason, LossReason::Error | LossReason::Stalled);
                self.0.sent_failures += u64::from(failed);
            }
        }
    }

    /// So many messages were not sent: etcd counts them by peer alone.
    pub(crate) fn send_failed(&mut self, messages: u64) {
        self.0.sent_failures += messages;
    }

    /// So many messages were not received: etcd counts them by peer alone.
    pub(crate) fn receive_failed(&mut self, messages: u64) {
        self.0.received_failures += messages;
    }

    /// A stream or POST succeeded. Says whether the peer was inactive.
    pub(crate) fn succeeded(&mut self, now: SystemTime) -> bool {
        let became = self.0.active_since.is_none();
        self.0.active_since.get_or_insert(now);
        became
    }

    /// A stream or POST failed. Says whether the peer was active.
    pub(crate) fn failed(&mut self, why: &str, now: SystemTime) -> bool {
        self.noted(why.to_owned(), now);
        let became = self.0.active_since.take().is_some();
        self.0.disconnected += u64::from(became);
        became
    }

    /// Something is wrong with the peer that is no failure of a stream, POST or probe.
    pub(crate) fn noted(&mut self, error: String, now: SystemTime) {
        self.0.last_error = Some((now, error));
    }

    /// There is no way to ask the peer.
    pub(crate) fn unreachable(&mut self, why: String, now: SystemTime) {
        self.0.reachable = Some(false);
        self.noted(why, now);
    }

    /// A snapshot begins; so long is its body, where that is known.
    pub(crate) fn snapshot_started(&mut self, direction: Direction, length: Option<u64>) {
        self.0.snapshots[direction].begin(length);
    }

    /// More of a snapshot's body has passed.
    pub(crate) fn snapshot_progressed(&mut self, direction: Direction, bytes: u64) {
        self.0.snapshots[direction].progressed(bytes);
    }

    /// A snapshot that began with this length, and of which so many bytes passed, has ended: well in so much time, or
    /// badly.
    pub(crate) fn snapshot_ended(
        &mut self,
        direction: Direction,
        length: Option<u64>,
        bytes: u64,
        took: Option<Duration>,
    ) {
        self.0.snapshots[direction].end(length, bytes, took);
        let failed = u64::from(took.is_none());
        match direction {
            Direction::In => self.receive_failed(failed),
            Direction::Out => self.send_failed(failed),
        }
    }

    /// A part of a probe's dial has ended well.
    pub(crate) fn dialled(&mut self, phase: DialPhase, took: Duration) {
        self.0.dial_seconds[phase].observe(took);
    }

    /// A probe succeeded: how long its round trip took, and the peer's clock minus ours in seconds. Says whether the
    /// peer was reachable before; none before the first probe.
    pub(crate) fn probe_succeeded(&mut self, round_trip: Duration, clock_offset: f64, now: SystemTime) -> Option<bool> {
        self.0.probe_seconds.observe(round_trip);
        self.0.clock_offset = Some(clock_offset);
        self.probed(ProbeResult::Ok, Some(round_trip), now)
    }

    /// A probe failed: what the one before measured holds no longer. Says whether the peer was reachable before; none
    /// before the first probe.
    pub(crate) fn probe_failed(&mut self, result: ProbeResult, why: &str, now: SystemTime) -> Option<bool> {
        self.0.clock_offset = None;
        self.noted(why.to_owned(), now);
        self.probed(result, None, now)
    }

    fn probed(&mut self, result: ProbeResult, round_trip: Option<Duration>, now: SystemTime) -> Option<bool> {
        self.0.probes.add(result, 1);
        self.0.round_trip = round_trip;
        self.0.round_trips.push(round_trip);
        self.0.last_probe = Some(now);
        self.0.reachable.replace(round_trip.is_some())
    }

    /// How the peer reaches its own peers, as it said just now; none: it did not.
    pub(crate) fn told(&mut self, view: Option<Vec<Sight>>, now: SystemTime) {
        self.0.view = view.map(|view| (now, view));
    }

    /// A copy, with the streams that we write and that are open now.
    pub(crate) fn copy(&self, open: PerStream<bool>) -> Link {
        let mut link = self.0.clone();
        for (stream, open) in open.iter() {
            link.stream_up[stream][Direction::Out] = *open;
        }
        link
    }
}
