//! The task that watches one member: it probes, and sometimes asks who the members are and which version runs.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep_until};

use super::{
    fault::WatchFault,
    hub::Hub,
    question::{MemberQuestion, ToldMembers},
    target::{Target, TargetState},
};
use crate::{
    id::ClusterId,
    telemetry::{ProbeTrace, Repeats},
    transport::probe::{Probe, clock::PeerClock},
};

/// How often the version is asked for. A version changes with a restart, which breaks the connection and leads to a
/// question at once. The cluster's version changes once all members have the new one.
const VERSION_EVERY: Duration = Duration::from_secs(10);

/// Watches one member, with one request in flight.
pub(super) struct Watcher {
    hub: Arc<Hub>,
    target: Arc<Target>,
    probe: Probe,
    clock: PeerClock,
    begun: Instant,
    /// Its place, from 0 to 1, in the order in which members are asked for their members.
    place: f64,
    members_asked: Option<Instant>,
    version_asked: Option<Instant>,
    /// How often the member began to answer for another cluster. Two members may share one address in turn.
    foreign: Repeats,
}

impl Watcher {
    /// Starts to watch these targets.
    pub(super) fn start_all(hub: &Arc<Hub>, targets: Vec<Arc<Target>>) {
        for target in targets {
            let watcher = hub.tasks.spawn(Self::new(hub.clone(), target.clone()).run());
            target.watched_by(watcher.abort_handle());
        }
    }

    fn new(hub: Arc<Hub>, target: Arc<Target>) -> Self {
        let place = hub.world().fraction();
        Self {
            hub,
            target,
            probe: Probe::default(),
            clock: PeerClock::default(),
            begun: Instant::now(),
            place,
            members_asked: None,
            version_asked: None,
            foreign: Repeats::default(),
        }
    }

    async fn run(mut self) {
        // A thousand members that were found together are not probed together.
        sleep_until(self.hub.beat(Instant::now() + self.hub.spread().mul_f64(self.hub.world().fraction()))).await;
        loop {
            let pause = self.hub.interval.mul_f64(0.9 + 0.2 * self.hub.world().fraction());
            let next = self.hub.beat(Instant::now() + pause);
            Box::pin(self.turn(next)).await;
            sleep_until(next).await;
        }
    }

    async fn turn(&mut self, next: Instant) {
        let Self { hub, target, probe, clock, .. } = self;
        if target.urls.is_empty() {
            return target.known(|known| known.note_no_url(hub.world().now()));
        }
        let trace = ProbeTrace::start(hub.world());
        let outcome = probe.ask(&hub.client, &target.urls, hub.timeout, Some(&trace)).await;
        let before = target.known(|known| {
            if outcome.result.is_err() {
                known.note_silence();
            }
            outcome.note(&mut known.link, hub.world().now())
        });
        if let Err(failure) = &outcome.result {
            trace.failed(target.id, outcome.url.as_str(), failure.result);
            target.urls.unreachable(&outcome.url);
            if before != Some(false) {
                hub.events.peer_unreachable(target.id, failure.result, &failure.why);
            }
            let new = hub.silent(target.id);
            Self::start_all(hub, new);
            return;
        }
        if let Ok(measured) = &outcome.result
            && let Some(differs) = clock.news(measured.clock_offset())
        {
            hub.events.clock(target.id, measured.clock_offset(), differs);
        }
        if before != Some(true) {
            hub.events.peer_reachable(target.id, before.is_none());
        }
        if self.is_version_due(outcome.dial.is_some()) {
            self.ask_version(next).await;
        }
        if self.are_members_due() {
            self.ask_members(next).await;
        }
    }

    fn is_version_due(&self, dialled: bool) -> bool {
        let every = VERSION_EVERY.max(self.hub.members_every());
        dialled || self.version_asked.is_none_or(|asked| asked.elapsed() >= every)
    }

    /// If there are too many members to ask all of them in each interval, they take turns, from a random start.
    fn are_members_due(&self) -> bool {
        let every = self.hub.members_every();
        if every <= self.hub.interval {
            return true;
        }
        let elapsed = match self.members_asked {
            Some(asked) => asked.elapsed(),
            None => self.begun.elapsed() + every.mul_f64(self.place),
        };
        elapsed >= every
    }

    async fn ask_version(&mut self, next: Instant) {
        self.version_asked = Some(Instant::now());
        match self.question(next).versions().await {
            Ok(versions) => self.target.known(|known| known.note_versions(versions)),
            Err(fault) => self.fault(&fault),
        }
    }

    async fn ask_members(&mut self, next: Instant) {
        self.members_asked = Some(Instant::now());
        let told = self.question(next).members().await;
        let outcome = told.and_then(|ToldMembers { cluster, body }| {
            if !self.is_of_the_cluster(cluster) {
                return Ok(self.hub.silent(self.target.id));
            }
            self.hub.told(self.target.id, cluster, &body)
        });
        let new = outcome.unwrap_or_else(|fault| {
            self.target.known(TargetState::forget_cluster);
            self.fault(&fault);
            self.hub.silent(self.target.id)
        });
        Self::start_all(&self.hub, new);
    }

    /// Compares the member's cluster with the watched one, and logs a foreign one when it is new.
    fn is_of_the_cluster(&self, cluster: ClusterId) -> bool {
        let wanted = self.hub.wanted();
        let Some(watched) = wanted.cluster else { return true };
        let checked = wanted.check(cluster);
        let before = self.target.known(|known| {
            let before = known.told.cluster;
            known.note_cluster(cluster, checked.is_err());
            before
        });
        if let Err(fault) = &checked
            && before != Some(cluster)
        {
            if let Some(times) = self.foreign.note() {
                tracing::warn!(peer = %self.target.id, %cluster, %watched, times, "the member answers for another cluster");
            }
            self.fault(fault);
        }
        checked.is_ok()
    }

    /// A question beside the probe, within the time that is left until the next probe.
    fn question(&mut self, next: Instant) -> MemberQuestion<'_> {
        let timeout = self.hub.timeout.min(next.saturating_duration_since(Instant::now()));
        let Self { hub, target, probe, .. } = self;
        MemberQuestion { probe, client: &hub.client, urls: &target.urls, timeout }
    }

    fn fault(&self, fault: &WatchFault) {
        let now = self.hub.world().now();
        self.target.known(|known| known.link.noted(fault.to_string(), now));
    }
}
