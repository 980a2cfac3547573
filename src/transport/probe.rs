//! Probes one member, one probe after the other, over a warm connection. It knows nothing of peers, because both a
//! peer's prober and the watch use it.

use std::{
    io,
    time::{Duration, SystemTime},
};

use http::{HeaderValue, StatusCode};
use time::OffsetDateTime;
use tokio::time::{Instant, timeout_at};

use crate::{
    dial::{
        client::Client,
        connection::{DialPhases, Dialled},
        failure::{DialError, innermost},
        io::PeerIo,
        pool::IDLE_TIMEOUT,
        urls::{PeerUrl, UrlPicker},
    },
    id::MemberId,
    ledger::{AttemptResult, DialPhase, Link, Live, ProbeResult},
    telemetry::ProbeTrace,
    wire::{
        headers,
        probing::ProbeAnswer,
        reply::{Reply, ReplyError},
    },
};

pub(crate) mod clock;
mod exchange;

use exchange::{Broken, Exchange};

/// The longest answer that is read, in bytes. A probe's answer is a small JSON object.
const ANSWER_BYTES: usize = 64 << 10;

/// How often peers are probed, and how long a probe may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ProbeConfig {
    /// The time between the starts of two probes of a peer, ± 10 %. Zero means no probes.
    pub(crate) interval: Duration,
    /// The time limit of a whole probe, including its dial.
    pub(crate) timeout: Duration,
}

impl ProbeConfig {
    pub(crate) fn is_on(&self) -> bool {
        !self.interval.is_zero()
    }

    /// The interval and the timeout. `None` if there are no probes.
    pub(crate) fn when_on(&self) -> Option<(Duration, Duration)> {
        self.is_on().then_some((self.interval, self.timeout))
    }
}

impl Default for ProbeConfig {
    fn default() -> Self {
        Self { interval: Duration::from_secs(1), timeout: Duration::from_millis(700) }
    }
}

/// Probes one member. It holds the connection, which moves only while a probe is under way.
#[derive(Default)]
pub(crate) struct Probe {
    warm: Option<Box<Warm>>,
}

/// A connection that is kept between requests.
struct Warm {
    url: PeerUrl,
    exchange: Exchange<PeerIo>,
    dialled: Dialled,
    /// When the last answer was read. `None` before the first.
    used: Option<Instant>,
}

/// The outcome of a probe.
pub(crate) struct ProbeOutcome {
    /// The URL that was probed.
    pub(crate) url: PeerUrl,
    /// How long the dial took. `None` on a kept connection, or if the dial failed.
    pub(crate) dial: Option<DialPhases>,
    /// The measurement, or the reason for a failure.
    pub(crate) result: Result<Measured, ProbeFailure>,
}

/// The measurement of a successful probe.
pub(crate) struct Measured {
    /// The time from the request to the end of the answer, without the dial.
    pub(crate) round_trip: Duration,
    /// Our clock when the request went out.
    asked: OffsetDateTime,
    /// The member's answer.
    pub(crate) answer: ProbeAnswer,
}

/// Why a probe failed.
#[derive(Clone, Debug)]
pub(crate) struct ProbeFailure {
    /// The result that it is counted under.
    pub(crate) result: ProbeResult,
    /// The reason, in one line.
    pub(crate) why: String,
    /// Whether there was any answer.
    pub(crate) there: bool,
}

/// An answer that has arrived, with its times.
struct Timed {
    reply: Reply,
    round_trip: Duration,
    /// Our clock when the request went out.
    asked: OffsetDateTime,
}

/// Why there is no answer.
enum NoReply {
    /// The connection was closed before the first byte of an answer. If it was a kept connection, this says nothing
    /// about the member.
    Closed(ProbeFailure),
    Failed(ProbeFailure),
}

/// A request and its limits.
struct ProbeRequest<'a> {
    path: &'a str,
    traceparent: Option<HeaderValue>,
    /// The longest body of an answer.
    bytes: usize,
}

impl Probe {
    /// Probes once, on the kept connection or on a new one to the picked URL; the dial counts towards `timeout`. The
    /// request has the client's headers and the probe's trace.
    pub(crate) async fn ask(
        &mut self,
        client: &Client,
        urls: &UrlPicker,
        timeout: Duration,
        trace: Option<&ProbeTrace>,
    ) -> ProbeOutcome {
        let traceparent = trace.map(ProbeTrace::traceparent);
        let question = ProbeRequest { path: headers::RAFT_PROBING, traceparent, bytes: ANSWER_BYTES };
        let (url, dial, reply) = self.request(client, urls, timeout, question).await;
        let result = reply.and_then(Measured::read);
        if result.is_err() {
            // After any error on this connection, the next probe begins with a new one.
            self.warm = None;
        }
        ProbeOutcome { url, dial, result }
    }

    /// Sends another request in the same way. Its answer has at most `bytes` bytes, and may have any status.
    pub(crate) async fn get(
        &mut self,
        client: &Client,
        urls: &UrlPicker,
        timeout: Duration,
        path: &str,
        bytes: usize,
    ) -> Result<Reply, ProbeFailure> {
        let question = ProbeRequest { path, traceparent: None, bytes };
        Ok(self.request(client, urls, timeout, question).await.2?.reply)
    }

    async fn request(
        &mut self,
        client: &Client,
        urls: &UrlPicker,
        timeout: Duration,
        question: ProbeRequest<'_>,
    ) -> (PeerUrl, Option<DialPhases>, Result<Timed, ProbeFailure>) {
        let deadline = Instant::now() + timeout;
        let kept = self.warm.take().filter(|warm| urls.has(&warm.url)).and_then(Warm::usable);
        let url = kept.as_ref().map_or_else(|| urls.pick(), |warm| warm.url.clone());
        let mut dial = None;
        let reply = timeout_at(deadline, self.exchange(kept, &url, client, &question, &mut dial)).await;
        let reply = reply.unwrap_or_else(|_| Err(ProbeFailure::timeout(timeout)));
        (url, dial, reply)
    }

    async fn exchange(
        &mut self,
        kept: Option<Box<Warm>>,
        url: &PeerUrl,
        client: &Client,
        question: &ProbeRequest<'_>,
        dial: &mut Option<DialPhases>,
    ) -> Result<Timed, ProbeFailure> {
        if let Some(warm) = kept {
            match warm.get(client, question).await {
                // This is not a failure of the member yet: it may close idle connections.
                Err(NoReply::Closed(_)) => {}
                outcome => return self.keep(outcome),
            }
        }
        let (io, dialled, _) = client.open(url).await?;
        *dial = Some(dialled.phases);
        let fresh = Box::new(Warm { url: url.clone(), exchange: Exchange::new(io), dialled, used: None });
        self.keep(fresh.get(client, question).await)
    }

    fn keep(&mut self, outcome: Result<(Box<Warm>, Timed), NoReply>) -> Result<Timed, ProbeFailure> {
        let (warm, timed) = outcome.map_err(NoReply::failure)?;
        self.warm = timed.reply.keep.then_some(warm);
        Ok(timed)
    }
}

impl Warm {
    /// The connection, if it is open, and was used so recently that the other side will not close it just now.
    fn usable(mut self: Box<Self>) -> Option<Box<Self>> {
        let fresh = self.used.is_some_and(|used| used.elapsed() < IDLE_TIMEOUT);
        (fresh && self.exchange.is_idle()).then_some(self)
    }

    /// Sends a request and returns the answer. After a failure, the connection is gone.
    async fn get(
        mut self: Box<Self>,
        client: &Client,
        question: &ProbeRequest<'_>,
    ) -> Result<(Box<Self>, Timed), NoReply> {
        let request = client.get(&self.url, question.path, question.traceparent.as_ref());
        let (asked, start) = (client.world().now().into(), Instant::now());
        match self.exchange.ask(request, question.bytes).await {
            Ok(reply) => {
                let now = Instant::now();
                self.used = Some(now);
                Ok((self, Timed { reply, round_trip: now - start, asked }))
            }
            Err(Broken::Unanswered(error)) => Err(self.unanswered(client, &error)),
            Err(Broken::Read(error)) => Err(NoReply::Failed(ProbeFailure::broken(format!("answer not read: {error}")))),
            Err(Broken::Reply(error)) => Err(NoReply::Failed(ProbeFailure::of(error))),
        }
    }

    fn unanswered(&self, client: &Client, error: &io::Error) -> NoReply {
        let failed = |why| NoReply::Failed(ProbeFailure { result: ProbeResult::Tls, why, there: false });
        let why = format!("not answered: {}", innermost(error));
        if self.used.is_none() {
            if let (AttemptResult::Tls, why) = client.first_request_failed(error) {
                return failed(why);
            }
            if let Some(why) = client.refused_in_silence(self.dialled) {
                return failed(why);
            }
        }
        NoReply::Closed(ProbeFailure::broken(why))
    }
}

impl Measured {
    /// Parses a probe's answer.
    fn read(Timed { reply, round_trip, asked }: Timed) -> Result<Self, ProbeFailure> {
        let answered = |result, why: String| ProbeFailure { result, why, there: true };
        if reply.status != StatusCode::OK {
            return Err(answered(ProbeResult::Status, format!("probe answered {}", reply.status)));
        }
        let answer = ProbeAnswer::parse(&reply.body);
        let answer = answer.ok_or_else(|| answered(ProbeResult::Body, "probe's answer is not one".to_owned()))?;
        Ok(Self { round_trip, asked, answer })
    }

    /// The member's clock minus ours, in seconds, at the middle of the round trip.
    pub(crate) fn clock_offset(&self) -> f64 {
        (self.answer.now - (self.asked + self.round_trip / 2)).as_seconds_f64()
    }
}

impl ProbeFailure {
    fn broken(why: String) -> Self {
        Self { result: ProbeResult::Connect, why, there: false }
    }

    /// There was an answer, but it is invalid.
    fn of(error: ReplyError) -> Self {
        let why = match error {
            ReplyError::Cut => return Self::broken(format!("answer not read: {error}")),
            ReplyError::TooLong(_) => {
                format!("answered without end: {error}, which is more than such an answer can have")
            }
            _ => format!("answered in something else than HTTP: {error}"),
        };
        Self { result: ProbeResult::Body, why, there: true }
    }

    /// Another member answered than the probed one.
    pub(crate) fn another(member: MemberId) -> Self {
        Self { result: ProbeResult::Body, why: format!("member {member} answered in its place"), there: true }
    }

    fn timeout(after: Duration) -> Self {
        Self { result: ProbeResult::Timeout, why: format!("no answer within {after:?}"), there: false }
    }
}

impl From<DialError> for ProbeFailure {
    fn from(error: DialError) -> Self {
        Self { result: error.probe_result(), why: error.to_string(), there: false }
    }
}

impl NoReply {
    fn failure(self) -> ProbeFailure {
        let (Self::Closed(failure) | Self::Failed(failure)) = self;
        failure
    }
}

impl ProbeOutcome {
    /// The member that answered, if it said so.
    pub(crate) fn answered_by(&self) -> Option<MemberId> {
        self.result.as_ref().ok()?.answer.report.as_ref().map(|report| report.member)
    }

    /// Records the measurements of the probe in `link`, and clears those that no longer hold. Returns whether the
    /// member was reachable before, or `None` if this is the first probe. `now` is the time of day.
    pub(crate) fn note(&self, link: &mut Live<Link>, now: SystemTime) -> Option<bool> {
        let dial = self.dial.iter().flat_map(|DialPhases { dns, connect, tls }| {
            [(DialPhase::Dns, *dns), (DialPhase::Connect, Some(*connect)), (DialPhase::Tls, *tls)]
        });
        for (phase, time) in dial {
            if let Some(time) = time {
                link.dialled(phase, time);
            }
        }
        match &self.result {
            Ok(measured) => link.probe_succeeded(measured.round_trip, measured.clock_offset(), now),
            Err(ProbeFailure { result, why, .. }) => link.probe_failed(*result, why, now),
        }
    }
}

#[cfg(test)]
mod tests;
