//! The state of the link to a peer.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::{
    AttemptResult, Channel, DialPhase, Direction, Histogram, Live, LossReason, PerDirection, PerPhase, PerStream,
    ProbeResult, RestartReason, RoundTrips, Snapshots, Tally,
};
use crate::{
    id::MemberId,
    wire::{probing::Sight, stream::StreamKind},
};

/// The state of the link to a peer: probes, streams, snapshots; everything that is not counted per message. A copy of
/// the live counts.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Link {
    /// Whether the last probe succeeded. `None` before the first probe.
    pub reachable: Option<bool>,
    /// Probes by result.
    pub probes: Tally<ProbeResult>,
    /// Round trips of the successful probes on a warm connection.
    pub probe_seconds: Histogram,
    /// The newest of these round trips.
    pub round_trip: Option<Duration>,
    /// The results of the last probes, including failures.
    pub round_trips: RoundTrips,
    /// When the newest probe ended.
    pub last_probe: Option<SystemTime>,
    /// How the peer reaches its own peers, as it said when it was last asked, and when that was. `None` if it was not
    /// asked yet, could not be asked the last time, or does not say.
    pub view: Option<(SystemTime, Vec<Sight>)>,
    /// How long the dials of the probes took, by phase.
    pub dial_seconds: PerPhase<Histogram>,
    /// The peer's clock minus ours, in seconds. `None` while it is not known.
    pub clock_offset: Option<f64>,
    /// Whether a stream is open, by stream channel (`MsgApp`, `Message`) and direction (`In`, `Out`).
    pub stream_up: PerStream<PerDirection<bool>>,
    /// Dials of streams by channel and result.
    pub attempts: Tally<(Channel, AttemptResult)>,
    /// Ends of open streams, by channel, direction and reason.
    pub losses: Tally<(Channel, Direction, LossReason)>,
    /// When the peer became active (etcd's `ActiveSince`). `None` while it is inactive.
    pub active_since: Option<SystemTime>,
    /// The same time by the monotonic clock, which nobody can set.
    active_from: Option<Instant>,
    /// Since when all streams are open in both directions.
    streams_from: Option<Instant>,
    /// How often the peer went from active to inactive: etcd's `disconnected_peers_total`.
    pub disconnected: u64,
    /// etcd's `peer_sent_failures_total`.
    pub sent_failures: u64,
    /// etcd's `peer_received_failures_total`.
    pub received_failures: u64,
    /// Snapshots by direction (`In`, `Out`).
    pub snapshots: PerDirection<Snapshots>,
    /// The last error, and when it happened.
    pub last_error: Option<(SystemTime, String)>,
}

impl Link {
    /// How long the peer has been connected, even if the time of day was set meanwhile. `None` while it is not: while it
    /// is inactive and a stream is missing.
    pub(crate) fn connected_for(&self) -> Option<Duration> {
        let from = [self.active_from, self.streams_from].into_iter().flatten().min();
        from.map(|from| from.elapsed())
    }

    /// How this member reaches the peer, as it reports that to others. `now` is the time of day, as are the probes'
    /// times.
    pub(crate) fn sight(&self, id: MemberId, now: SystemTime) -> Sight {
        let age = self.last_probe.map(|ended| now.duration_since(ended).unwrap_or_default().as_secs_f64());
        let round_trip = self.round_trip.map(|time| time.as_secs_f64());
        Sight { id, reachable: self.reachable, round_trip, age }
    }
}

impl Live<Link> {
    /// An incoming stream was dialled.
    pub(crate) fn attempted(&mut self, stream: StreamKind, result: AttemptResult) {
        self.0.attempts.add((stream.channel(), result), 1);
    }

    /// A stream is open. `open` says which outgoing streams are open now. The caller asks the outbox for it while it has
    /// the link, so that whoever comes last has seen the last change.
    pub(crate) fn stream_opened(&mut self, stream: StreamKind, direction: Direction, open: PerStream<bool>) {
        if direction == Direction::In {
            self.0.stream_up[stream][Direction::In] = true;
        }
        self.streams_changed(open);
    }

    /// An open stream ended. `open` is as for [`Self::stream_opened`].
    pub(crate) fn stream_lost(
        &mut self,
        stream: StreamKind,
        direction: Direction,
        reason: LossReason,
        open: PerStream<bool>,
    ) {
        self.0.losses.add((stream.channel(), direction, reason), 1);
        match direction {
            Direction::In => self.0.stream_up[stream][Direction::In] = false,
            // A newer stream may have taken its place by now.
            Direction::Out => {
                let failed = matches!(reason, LossReason::Error | LossReason::Stalled);
                self.0.sent_failures += u64::from(failed);
            }
        }
        self.0.streams_from = None;
        self.streams_changed(open);
    }

    fn streams_changed(&mut self, open: PerStream<bool>) {
        let all = StreamKind::ALL.iter().all(|kind| open[*kind] && self.0.stream_up[*kind][Direction::In]);
        self.0.streams_from = all.then(|| self.0.streams_from.unwrap_or_else(Instant::now));
    }

    /// This many messages were not sent. etcd counts them by peer alone.
    pub(crate) fn send_failed(&mut self, messages: u64) {
        self.0.sent_failures += messages;
    }

    /// This many messages were not received. etcd counts them by peer alone.
    pub(crate) fn receive_failed(&mut self, messages: u64) {
        self.0.received_failures += messages;
    }

    /// A stream or POST succeeded. Returns whether the peer was inactive before.
    pub(crate) fn succeeded(&mut self, now: SystemTime) -> bool {
        let became = self.0.active_since.is_none();
        self.0.active_since.get_or_insert(now);
        self.0.active_from.get_or_insert_with(Instant::now);
        became
    }

    /// A stream or POST failed. Returns whether the peer was active before.
    pub(crate) fn failed(&mut self, why: &str, now: SystemTime) -> bool {
        self.noted(why.to_owned(), now);
        let became = self.0.active_since.take().is_some();
        self.0.active_from = None;
        self.0.disconnected += u64::from(became);
        became
    }

    /// Something is wrong with the peer, but no stream, POST or probe failed.
    pub(crate) fn noted(&mut self, error: String, now: SystemTime) {
        self.0.last_error = Some((now, error));
    }

    /// There is no way to ask the peer.
    pub(crate) fn unreachable(&mut self, why: String, now: SystemTime) {
        self.0.reachable = Some(false);
        self.noted(why, now);
    }

    /// A snapshot begins. `length` is the length of its body, if known.
    pub(crate) fn snapshot_started(&mut self, direction: Direction, length: Option<u64>) {
        self.0.snapshots[direction].begin(length, Instant::now());
    }

    /// More of a snapshot's body has passed.
    pub(crate) fn snapshot_progressed(&mut self, direction: Direction, bytes: u64) {
        self.0.snapshots[direction].progressed(bytes, Instant::now());
    }

    /// A snapshot goes on at this offset. `passed` bytes of it had passed before.
    pub(crate) fn snapshot_resumed(&mut self, direction: Direction, passed: u64, offset: u64) {
        self.0.snapshots[direction].resume(passed, offset);
    }

    /// A snapshot that had broken off starts over.
    pub(crate) fn snapshot_restarted(&mut self, direction: Direction, reason: RestartReason) {
        self.0.snapshots[direction].restarts.add(reason, 1);
    }

    /// A connection no longer brings a snapshot, because the outcome is counted for another connection.
    pub(crate) fn snapshot_left(&mut self, length: Option<u64>, bytes: u64) {
        self.0.snapshots[Direction::In].leave(length, bytes);
    }

    /// An incoming snapshot has broken off. It began with this length, and this many bytes are there.
    pub(crate) fn snapshot_broke_off(&mut self, length: Option<u64>, bytes: u64) {
        self.0.snapshots[Direction::In].break_off(length, bytes);
    }

    /// A snapshot ended. `length` is the length that it began with, and `bytes` is how much of its body has passed.
    /// `took` is the duration if it succeeded, and `None` if it failed.
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

    /// A phase of a probe's dial has succeeded.
    pub(crate) fn dialled(&mut self, phase: DialPhase, took: Duration) {
        self.0.dial_seconds[phase].observe(took);
    }

    /// A probe succeeded with this round trip. `clock_offset` is the peer's clock minus ours, in seconds. Returns
    /// whether the peer was reachable before, or `None` if this is the first probe.
    pub(crate) fn probe_succeeded(&mut self, round_trip: Duration, clock_offset: f64, now: SystemTime) -> Option<bool> {
        self.0.probe_seconds.observe(round_trip);
        self.0.clock_offset = Some(clock_offset);
        self.probed(ProbeResult::Ok, Some(round_trip), now)
    }

    /// A probe failed, so the measurements of the probe before it no longer hold. Returns whether the peer was
    /// reachable before, or `None` if this is the first probe.
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

    /// How the peer reaches its own peers, as it said just now. `None` if it did not say.
    pub(crate) fn told(&mut self, view: Option<Vec<Sight>>, now: SystemTime) {
        self.0.view = view.map(|view| (now, view));
    }

    /// A copy. `open` says which outgoing streams are open now.
    pub(crate) fn copy(&self, open: PerStream<bool>) -> Link {
        let mut link = self.0.clone();
        for (stream, open) in open.iter() {
            link.stream_up[stream][Direction::Out] = *open;
        }
        link
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn how_old_a_probe_is_is_told_by_the_clock_that_it_was_noted_by() {
        let ended = UNIX_EPOCH + Duration::from_secs(3_000_000_000);
        let link = Link { last_probe: Some(ended), ..Link::default() };
        let age = |now| link.sight(MemberId(1), now).age;
        assert_eq!(age(ended + Duration::from_millis(1500)), Some(1.5));
        assert_eq!(age(ended - Duration::from_secs(1)), Some(0.0), "the clock was set back");
        assert_eq!(Link::default().sight(MemberId(1), ended).age, None);
    }

    #[tokio::test(start_paused = true)]
    async fn how_long_a_peer_is_connected_does_not_depend_on_the_time_of_day() {
        let (mut link, noon) = (Live::<Link>::default(), UNIX_EPOCH + Duration::from_secs(12 * 3600));
        assert!(link.succeeded(noon));
        tokio::time::advance(Duration::from_secs(6)).await;
        // The clock was put back by an hour since.
        assert!(!link.succeeded(noon - Duration::from_secs(3600)));
        assert_eq!(link.read().connected_for(), Some(Duration::from_secs(6)));
        assert!(link.failed("gone", noon));
        assert_eq!(link.read().connected_for(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_post_that_fails_late_does_not_disconnect_a_peer_whose_streams_are_all_open() {
        let (mut link, now) = (Live::<Link>::default(), UNIX_EPOCH);
        let mut open = PerStream::<bool>::default();
        for kind in StreamKind::ALL {
            assert_eq!(link.read().connected_for(), None);
            open[kind] = true;
            link.stream_opened(kind, Direction::Out, open);
            assert_eq!(link.read().connected_for(), None);
            link.stream_opened(kind, Direction::In, open);
        }
        link.succeeded(now);
        tokio::time::advance(Duration::from_secs(6)).await;
        assert!(link.failed("a POST that began before the streams were open", now));
        assert_eq!(link.read().active_since, None, "etcd's rule");
        assert_eq!(link.read().connected_for(), Some(Duration::from_secs(6)));

        // A stream that is lost and opened again begins anew.
        link.stream_lost(StreamKind::Message, Direction::Out, LossReason::Replaced, open);
        assert_eq!(link.read().connected_for(), Some(Duration::ZERO));
        link.stream_lost(StreamKind::Message, Direction::In, LossReason::Eof, open);
        assert_eq!(link.read().connected_for(), None);
    }
}
