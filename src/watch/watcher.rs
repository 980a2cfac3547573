//! The task of one member: it probes, and asks now and then who the members are and which version runs.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::time::{Instant, sleep_until};

use super::{
    hub::Hub,
    members::{Fault, MEMBERS_BYTES, Told, VERSION_BYTES, versions},
    target::{Known, Target},
};
use crate::{
    id::ClusterId,
    telemetry::ProbeTrace,
    transport::prober::{clock::Clock, probe::Probe},
    wire::{headers, reply::Reply},
};

/// A version changes with a restart, which costs the connection and is asked about at once; that of the cluster changes
/// once all members have theirs.
const VERSION_EVERY: Duration = Duration::from_secs(10);

/// Watches one member, one request in flight.
pub(super) struct Watcher {
    hub: Arc<Hub>,
    target: Arc<Target>,
    probe: Probe,
    clock: Clock,
    members_asked: Option<Instant>,
    version_asked: Option<Instant>,
}

impl Watcher {
    pub(super) fn new(hub: Arc<Hub>, target: Arc<Target>) -> Self {
        Self { hub, target, probe: Probe::default(), clock: Clock::default(), members_asked: None, version_asked: None }
    }

    pub(super) async fn run(mut self) {
        // A thousand members that were found together are not probed together.
        sleep_until(self.hub.beat(Instant::now() + self.hub.spread().mul_f64(rand::random()))).await;
        loop {
            let pause = self.hub.interval.mul_f64(0.9 + 0.2 * rand::random::<f64>());
            let next = self.hub.beat(Instant::now() + pause);
            Box::pin(self.turn(next)).await;
            sleep_until(next).await;
        }
    }

    async fn turn(&mut self, next: Instant) {
        let Self { hub, target, probe, clock, .. } = self;
        if target.urls.is_empty() {
            return target.known(Known::has_no_url);
        }
        let trace = ProbeTrace::start();
        let outcome = probe.ask(&hub.client, &target.urls, hub.timeout, Some(&trace)).await;
        let before = target.known(|known| {
            if outcome.result.is_err() {
                known.is_silent();
            }
            outcome.note(&mut known.link)
        });
        if let Err(failure) = &outcome.result {
            trace.failed(target.id, outcome.url.as_str(), failure.result);
            target.urls.unreachable(&outcome.url);
            if before != Some(false) {
                hub.events.peer_unreachable(target.id, failure.result, &failure.why);
            }
            hub.silent(target.id);
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

    /// Where there are so many members that not all are asked in each interval, they come in turn, from a random place.
    fn are_members_due(&mut self) -> bool {
        let every = self.hub.members_every();
        if every <= self.hub.interval {
            return true;
        }
        let now = Instant::now();
        let asked =
            *self.members_asked.get_or_insert_with(|| now.checked_sub(every.mul_f64(rand::random())).unwrap_or(now));
        asked.elapsed() >= every
    }

    async fn ask_version(&mut self, next: Instant) {
        self.version_asked = Some(Instant::now());
        match self.get(next, (headers::VERSION, VERSION_BYTES), |reply| versions(&reply)).await {
            Ok(versions) => self.target.known(|known| known.runs(versions)),
            Err(fault) => self.fault(fault),
        }
    }

    async fn ask_members(&mut self, next: Instant) {
        self.members_asked = Some(Instant::now());
        let told = self.get(next, (headers::MEMBERS, MEMBERS_BYTES), Told::read).await;
        let outcome = told.and_then(|Told { cluster, body }| {
            if !self.is_of_the_cluster(cluster) {
                self.hub.silent(self.target.id);
                return Ok(());
            }
            self.hub.told(self.target.id, cluster, &body)
        });
        if let Err(fault) = outcome {
            self.hub.silent(self.target.id);
            self.target.known(Known::says_no_cluster);
            self.fault(fault);
        }
    }

    fn is_of_the_cluster(&self, cluster: ClusterId) -> bool {
        let Some(watched) = self.hub.cluster() else { return true };
        if self.target.known(|known| known.answers_for(cluster, watched)) {
            let why = format!("answers for another cluster: {cluster}, watched is {watched}");
            tracing::warn!(peer = %self.target.id, %cluster, %watched, "the member answers for another cluster");
            self.fault(why);
        }
        cluster == watched
    }

    /// Asks for something beside the probe, in what is left until the next one.
    async fn get<T>(
        &mut self,
        next: Instant,
        (path, bytes): (&str, usize),
        read: impl FnOnce(Reply) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let timeout = self.hub.timeout.min(next.saturating_duration_since(Instant::now()));
        let Self { hub, target, probe, .. } = self;
        let reply = probe.get(&hub.client, &target.urls, timeout, (path, bytes)).await;
        reply.map_err(|failure| format!("{path}: {}", failure.why)).and_then(read)
    }

    fn fault(&self, why: Fault) {
        self.target.known(|known| known.link.last_error = Some((SystemTime::now(), why)));
    }
}
