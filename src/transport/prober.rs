//! The prober of a peer: is it there, how far is it, what does its clock say (etcd: `prober`, over one warm connection).

use std::{
    collections::VecDeque,
    pin::pin,
    sync::Arc,
    time::{Duration, SystemTime},
};

use http::{Method, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::client::conn::http1::SendRequest;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep, timeout_at},
};

use crate::{
    metrics::{AttemptResult, DialPhase, ProbeResult},
    telemetry::ProbeTrace,
    transport::{
        client::{Body, Connection, DialPhases, empty, failure::innermost},
        peer::Peer,
        urls::PeerUrl,
    },
    wire::headers,
};

/// So many failed probes in a row, while nothing was read either, end a peer's streams.
const FAILURES_TO_RESET: usize = 3;
/// A probe's answer is a small JSON object; more is not read.
const ANSWER_BYTES: usize = 64 << 10;

/// How often peers are probed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ProbeConfig {
    /// Between the starts of two probes of a peer, ± 10 %. Zero: no probes.
    pub(crate) interval: Duration,
    /// For a whole probe, its dial included.
    pub(crate) timeout: Duration,
}

impl ProbeConfig {
    pub(crate) fn is_on(&self) -> bool {
        !self.interval.is_zero()
    }

    /// Interval and time-out; none where there are no probes.
    pub(crate) fn when_on(&self) -> Option<(Duration, Duration)> {
        self.is_on().then_some((self.interval, self.timeout))
    }
}

impl Default for ProbeConfig {
    fn default() -> Self {
        Self { interval: Duration::from_secs(1), timeout: Duration::from_millis(700) }
    }
}

/// Probes one peer, one probe in flight.
pub(crate) struct Prober {
    peer: Arc<Peer>,
    warm: Option<Warm>,
    /// The URL that the probe under way asks.
    asked: Option<PeerUrl>,
    /// When the last failures in a row began, [`FAILURES_TO_RESET`] at most.
    failures: VecDeque<Instant>,
}

/// A connection that is kept from probe to probe.
struct Warm {
    url: PeerUrl,
    sender: SendRequest<Body>,
    driver: JoinHandle<()>,
}

impl Drop for Warm {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// What a successful probe measured.
struct Measured {
    round_trip: Duration,
    /// The peer's clock minus ours, in seconds, at the middle of the round trip.
    clock_offset: f64,
}

struct Failure {
    result: ProbeResult,
    why: String,
    /// Whether somebody answered, whatever it was.
    there: bool,
}

impl Prober {
    pub(crate) fn new(peer: Arc<Peer>) -> Self {
        Self { peer, warm: None, asked: None, failures: VecDeque::new() }
    }

    pub(crate) async fn run(mut self) {
        let stop = self.peer.stop.clone();
        stop.run_until_cancelled(async {
            let ProbeConfig { interval, .. } = self.peer.shared.probe;
            // A thousand peers that were added together are not probed together.
            sleep(interval.mul_f64(rand::random())).await;
            loop {
                let next = Instant::now() + interval.mul_f64(0.9 + 0.2 * rand::random::<f64>());
                Box::pin(self.probe()).await;
                tokio::time::sleep_until(next).await;
            }
        })
        .await;
    }

    async fn probe(&mut self) {
        let started = Instant::now();
        let deadline = started + self.peer.shared.probe.timeout;
        let trace = ProbeTrace::start();
        let outcome = match timeout_at(deadline, self.ask(&trace)).await {
            Ok(outcome) => outcome,
            Err(_) => {
                let why = format!("no answer to a probe within {:?}", self.peer.shared.probe.timeout);
                Err(Failure { result: ProbeResult::Timeout, why, there: false })
            }
        };
        match outcome {
            Ok(measured) => self.succeeded(&measured),
            Err(failure) => self.failed(failure, started, trace),
        }
    }

    fn succeeded(&mut self, measured: &Measured) {
        self.failures.clear();
        let before = self.peer.link(|link| {
            link.probes.add(ProbeResult::Ok, 1);
            link.probe_seconds.observe(measured.round_trip);
            link.round_trip = Some(measured.round_trip);
            link.clock_offset = Some(measured.clock_offset);
            link.reachable.replace(true)
        });
        self.peer.redial.answered();
        if before != Some(true) {
            self.peer.shared.events.peer_reachable(self.peer.id, before.is_none());
        }
    }

    fn failed(&mut self, Failure { result, why, there }: Failure, started: Instant, trace: ProbeTrace) {
        // Whatever went wrong on this connection, the next probe begins with a new one.
        self.warm = None;
        if let Some(url) = &self.asked {
            self.peer.urls.unreachable(url);
        }
        let before = self.peer.link(|link| {
            link.probes.add(result, 1);
            link.round_trip = None;
            link.clock_offset = None;
            link.last_error = Some((SystemTime::now(), why.clone()));
            link.reachable.replace(false)
        });
        if there {
            self.peer.redial.answered();
        }
        let events = &self.peer.shared.events;
        trace.failed(self.peer.id, self.asked.as_ref().map_or("", PeerUrl::as_str), result);
        if before != Some(false) {
            events.peer_unreachable(self.peer.id, result, &why);
        }
        self.failures.push_back(started);
        if let [first, .., _] = *self.failures.make_contiguous()
            && self.failures.len() >= FAILURES_TO_RESET
        {
            if self.peer.inbox.last_read().is_none_or(|read| read < first) {
                self.peer.reset_streams();
                self.failures.clear();
            } else {
                // It is merely busy, so far.
                self.failures.pop_front();
            }
        }
    }

    async fn ask(&mut self, trace: &ProbeTrace) -> Result<Measured, Failure> {
        let warm = match self.warm.take() {
            Some(warm) if !warm.sender.is_closed() && self.peer.urls.all().contains(&warm.url) => warm,
            _ => self.dial().await?,
        };
        let warm = self.warm.insert(warm);
        self.asked = Some(warm.url.clone());
        let client = &self.peer.shared.client;
        let request = client.request(Method::GET, &warm.url, headers::RAFT_PROBING);
        let request = request.header(headers::TRACEPARENT, trace.traceparent()).body(empty());
        let request = request.map_err(|error| Failure::broken(error.to_string()))?;
        warm.sender.ready().await.map_err(|error| Failure::broken(error.to_string()))?;
        let (clock, start) = (OffsetDateTime::now_utc(), Instant::now());
        let answer = pin!(warm.sender.send_request(request)).await;
        let answer = answer.map_err(|error| {
            let result = match client.first_request_failed(&error) {
                AttemptResult::Tls => ProbeResult::Tls,
                _ => ProbeResult::Connect,
            };
            Failure { result, why: format!("probe not answered: {}", innermost(&error)), there: false }
        })?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER_BYTES).collect().await;
        let round_trip = start.elapsed();
        let body = body.map_err(|error| Failure::broken(format!("probe's answer not read: {error}")))?.to_bytes();
        if status != StatusCode::OK {
            let why = format!("probe answered {status}");
            return Err(Failure { result: ProbeResult::Status, why, there: true });
        }
        let Some(now) = parse(&body) else {
            let why = "probe's answer is not one".to_owned();
            return Err(Failure { result: ProbeResult::Body, why, there: true });
        };
        let clock_offset = (now - (clock + round_trip / 2)).as_seconds_f64();
        Ok(Measured { round_trip, clock_offset })
    }

    async fn dial(&mut self) -> Result<Warm, Failure> {
        let url = self.peer.urls.pick();
        self.asked = Some(url.clone());
        let shared = &self.peer.shared;
        match shared.client.dial(&url).await {
            Ok(Connection { sender, driver, phases, .. }) => {
                self.timed(&phases);
                // Its end is seen by the sender.
                let driver = shared.tasks.spawn_on(async move { drop(driver.await) }, &shared.runtime);
                Ok(Warm { url, sender, driver })
            }
            Err(error) => Err(Failure { result: error.probe_result(), why: error.to_string(), there: false }),
        }
    }

    fn timed(&self, phases: &DialPhases) {
        self.peer.link(|link| {
            let times = [
                (DialPhase::Dns, phases.dns),
                (DialPhase::Connect, Some(phases.connect)),
                (DialPhase::Tls, phases.tls),
            ];
            for (phase, time) in times {
                if let Some(time) = time {
                    link.dial_seconds[phase as usize].observe(time);
                }
            }
        });
    }
}

impl Failure {
    fn broken(why: String) -> Self {
        Self { result: ProbeResult::Connect, why, there: false }
    }
}

/// The peer's clock, from a body that says that all is well (`{"OK":true,"Now":"…"}`, other fields skipped).
fn parse(body: &[u8]) -> Option<OffsetDateTime> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Health<'a> {
        #[serde(rename = "OK")]
        ok: bool,
        now: &'a str,
    }
    let health: Health<'_> = serde_json::from_slice(body).ok()?;
    health.ok.then(|| OffsetDateTime::parse(health.now, &Rfc3339).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probes_answer_is_read_as_go_writes_it() {
        let now = parse(br#"{"OK":true,"Now":"2026-11-23T22:48:01.123456789+02:00"}"#);
        assert_eq!(now.map(|now| now.unix_timestamp_nanos()), Some(1_795_466_881_123_456_789));
        assert!(parse(br#"{"OK":true,"Now":"2026-11-23T20:48:01Z","More":{"a":[1]}}"#).is_some());
    }

    #[test]
    fn what_is_no_probes_answer_is_refused() {
        for body in ["", "OK", "{}", r#"{"OK":false,"Now":"2026-11-23T20:48:01Z"}"#, r#"{"OK":true,"Now":"yesterday"}"#]
        {
            assert!(parse(body.as_bytes()).is_none(), "{body:?}");
        }
    }
}
