//! A peer's prober, which finds out whether the peer is reachable, its round trip and its clock (etcd's `prober`, over
//! one warm connection).

use std::{collections::VecDeque, sync::Arc};

use tokio::time::{Instant, sleep};

use crate::{
    telemetry::ProbeTrace,
    transport::{
        peer::Peer,
        probe::{Probe, ProbeConfig, ProbeFailure, clock::PeerClock},
    },
};

/// This many failed probes in a row end a peer's streams, if nothing was read from the peer meanwhile either.
const FAILURES_TO_RESET: usize = 3;

/// Probes one peer, with one probe in flight.
pub(crate) struct Prober {
    peer: Arc<Peer>,
    probe: Probe,
    /// When the last failed probes in a row started, at most [`FAILURES_TO_RESET`].
    failures: VecDeque<Instant>,
    clock: PeerClock,
}

impl Prober {
    pub(crate) fn new(peer: Arc<Peer>) -> Self {
        Self { peer, probe: Probe::default(), failures: VecDeque::new(), clock: PeerClock::default() }
    }

    pub(crate) async fn run(mut self) {
        let stop = self.peer.stop.clone();
        stop.run_until_cancelled(async {
            let ProbeConfig { interval, .. } = self.peer.shared.probe;
            // A thousand peers that were added together are not probed together.
            sleep(interval.mul_f64(self.peer.shared.world.fraction())).await;
            loop {
                let next = Instant::now() + interval.mul_f64(0.9 + 0.2 * self.peer.shared.world.fraction());
                Box::pin(self.probe()).await;
                tokio::time::sleep_until(next).await;
            }
        })
        .await;
    }

    async fn probe(&mut self) {
        let Self { peer, probe, .. } = self;
        let started = Instant::now();
        let trace = ProbeTrace::start(&peer.shared.world);
        peer.outbox.probe_starts();
        let mut outcome = probe.ask(&peer.shared.client, &peer.urls, peer.shared.probe.timeout, Some(&trace)).await;
        // Another member may answer at a peer's URL by now. Then the peer itself is not reachable, and what the answer
        // says about streams is about others. etcd's members do not say who they are.
        if let Some(other) = outcome.answered_by().filter(|member| *member != peer.id) {
            *probe = Probe::default();
            outcome.result = Err(ProbeFailure::another(other));
        }
        let report = outcome.result.as_ref().ok().and_then(|measured| measured.answer.report.as_ref());
        peer.outbox.probe_ended(report.map(|report| report.streams.as_slice()));
        let before = peer.link(|link| {
            let now = peer.shared.world.now();
            link.told(report.map(|report| report.peers.clone()), now);
            outcome.note(link, now)
        });
        peer.probed(&outcome);
        match &outcome.result {
            Ok(measured) => {
                if let Some(differs) = self.clock.news(measured.clock_offset()) {
                    self.peer.shared.events.clock(self.peer.id, measured.clock_offset(), differs);
                }
                self.failures.clear();
                if before != Some(true) {
                    self.peer.shared.events.peer_reachable(self.peer.id, before.is_none());
                }
            }
            Err(failure) => {
                trace.failed(self.peer.id, outcome.url.as_str(), failure.result);
                if before != Some(false) {
                    let ProbeFailure { result, why, .. } = failure;
                    self.peer.shared.events.peer_unreachable(self.peer.id, *result, why);
                }
                self.failed(started);
            }
        }
    }

    /// A probe failed. After a number of failures in a row, the peer's streams are ended.
    fn failed(&mut self, started: Instant) {
        self.failures.push_back(started);
        if let [first, .., _] = *self.failures.make_contiguous()
            && self.failures.len() >= FAILURES_TO_RESET
        {
            if self.peer.inbox.last_read().is_none_or(|read| read < first) {
                self.peer.reset_streams();
                self.failures.clear();
            } else {
                // So far, the peer may merely be busy.
                self.failures.pop_front();
            }
        }
    }
}
