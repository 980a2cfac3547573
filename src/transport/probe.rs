//! Probes of one member, one after the other over a connection that is kept warm. Knows nothing of peers: a peer's
//! prober stands on it, and so does who watches from outside.

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
        probing::Answer,
        reply::{Reply, ReplyError},
    },
};

pub(crate) mod clock;
mod exchange;

use exchange::{Broken, Exchange};

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

/// Asks one member whether it is there. Holds the connection, which moves only while a probe is under way.
#[derive(Default)]
pub(crate) struct Probe {
    warm: Option<Box<Warm>>,
}

/// A connection that is kept from request to request.
struct Warm {
    url: PeerUrl,
    exchange: Exchange<PeerIo>,
    dialled: Dialled,
    /// When the last answer was read; none before the first.
    used: Option<Instant>,
}

/// How a probe ended.
pub(crate) struct Outcome {
    /// The URL that was asked.
    pub(crate) url: PeerUrl,
    /// What the dial took; none on a kept connection, or when no connection came of it.
    pub(crate) dial: Option<DialPhases>,
    /// What was measured, or why nothing was.
    pub(crate) result: Result<Measured, Failure>,
}

/// What a successful probe measured.
pub(crate) struct Measured {
    /// From the request to the end of the answer, without the dial.
    pub(crate) round_trip: Duration,
    /// Our clock when the request went out.
    asked: OffsetDateTime,
    /// What the member said.
    pub(crate) answer: Answer,
}

/// Why a probe measured nothing.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    /// How it is counted.
    pub(crate) result: ProbeResult,
    /// In one line.
    pub(crate) why: String,
    /// Whether somebody answered, whatever it was.
    pub(crate) there: bool,
}

/// An answer that has arrived, and when.
struct Timed {
    reply: Reply,
    round_trip: Duration,
    /// Our clock when the request went out.
    asked: OffsetDateTime,
}

/// Why none has.
enum NoReply {
    /// Closed before the first byte of an answer: of a kept connection it says nothing about the member.
    Closed(Failure),
    Failed(Failure),
}

/// What is asked.
struct Question<'a> {
    path: &'a str,
    traceparent: Option<HeaderValue>,
    /// The most that the body of an answer may have.
    bytes: usize,
}

impl Probe {
    /// Asks once, on the kept connection or on one to the URL that is picked; the dial counts towards `timeout`. The
    /// request carries the headers of the client, and tells of its trace.
    pub(crate) async fn ask(
        &mut self,
        client: &Client,
        urls: &UrlPicker,
        timeout: Duration,
        trace: Option<&ProbeTrace>,
    ) -> Outcome {
        let traceparent = trace.map(ProbeTrace::traceparent);
        let question = Question { path: headers::RAFT_PROBING, traceparent, bytes: ANSWER_BYTES };
        let (url, dial, reply) = self.request(client, urls, timeout, question).await;
        let result = reply.and_then(Measured::read);
        if result.is_err() {
            // Whatever went wrong on this connection, the next probe begins with a new one.
            self.warm = None;
        }
        Outcome { url, dial, result }
    }

    /// Asks for something else in the same way: an answer of at most `bytes`, whatever its status.
    pub(crate) async fn get(
        &mut self,
        client: &Client,
        urls: &UrlPicker,
        timeout: Duration,
        path: &str,
        bytes: usize,
    ) -> Result<Reply, Failure> {
        let question = Question { path, traceparent: None, bytes };
        Ok(self.request(client, urls, timeout, question).await.2?.reply)
    }

    async fn request(
        &mut self,
        client: &Client,
        urls: &UrlPicker,
        timeout: Duration,
        question: Question<'_>,
    ) -> (PeerUrl, Option<DialPhases>, Result<Timed, Failure>) {
        let deadline = Instant::now() + timeout;
        let kept = self.warm.take().filter(|warm| urls.has(&warm.url)).and_then(Warm::usable);
        let url = kept.as_ref().map_or_else(|| urls.pick(), |warm| warm.url.clone());
        let mut dial = None;
        let reply = timeout_at(deadline, self.exchange(kept, &url, client, &question, &mut dial)).await;
        let reply = reply.unwrap_or_else(|_| Err(Failure::timeout(timeout)));
        (url, dial, reply)
    }

    async fn exchange(
        &mut self,
        kept: Option<Box<Warm>>,
        url: &PeerUrl,
        client: &Client,
        question: &Question<'_>,
        dial: &mut Option<DialPhases>,
    ) -> Result<Timed, Failure> {
        if let Some(warm) = kept {
            match warm.get(client, question).await {
                // Not a failure of the member's yet: it may close what is idle.
                Err(NoReply::Closed(_)) => {}
                outcome => return self.keep(outcome),
            }
        }
        let (io, dialled, _) = client.open(url).await?;
        *dial = Some(dialled.phases);
        let fresh = Box::new(Warm { url: url.clone(), exchange: Exchange::new(io), dialled, used: None });
        self.keep(fresh.get(client, question).await)
    }

    fn keep(&mut self, outcome: Result<(Box<Warm>, Timed), NoReply>) -> Result<Timed, Failure> {
        let (warm, timed) = outcome.map_err(NoReply::failure)?;
        self.warm = timed.reply.keep.then_some(warm);
        Ok(timed)
    }
}

impl Warm {
    /// The connection, if it is open and so fresh that the other side will not close it just now.
    fn usable(mut self: Box<Self>) -> Option<Box<Self>> {
        let fresh = self.used.is_some_and(|used| used.elapsed() < IDLE_TIMEOUT);
        (fresh && self.exchange.is_idle()).then_some(self)
    }

    /// Asks, and returns with the answer. A connection that failed is gone.
    async fn get(mut self: Box<Self>, client: &Client, question: &Question<'_>) -> Result<(Box<Self>, Timed), NoReply> {
        let request = client.get(&self.url, question.path, question.traceparent.as_ref());
        let (asked, start) = (client.world().now().into(), Instant::now());
        match self.exchange.ask(request, question.bytes).await {
            Ok(reply) => {
                let now = Instant::now();
                self.used = Some(now);
                Ok((self, Timed { reply, round_trip: now - start, asked }))
            }
            Err(Broken::Unanswered(error)) => Err(self.unanswered(client, &error)),
            Err(Broken::Read(error)) => Err(NoReply::Failed(Failure::broken(format!("answer not read: {error}")))),
            Err(Broken::Reply(error)) => Err(NoReply::Failed(Failure::of(error))),
        }
    }

    fn unanswered(&self, client: &Client, error: &io::Error) -> NoReply {
        let failed = |why| NoReply::Failed(Failure { result: ProbeResult::Tls, why, there: false });
        let why = format!("not answered: {}", innermost(error));
        if self.used.is_none() {
            if let (AttemptResult::Tls, why) = client.first_request_failed(error) {
                return failed(why);
            }
            if let Some(why) = client.refused_in_silence(self.dialled) {
                return failed(why);
            }
        }
        NoReply::Closed(Failure::broken(why))
    }
}

impl Measured {
    /// What a probe's reply tells, if it is one.
    fn read(Timed { reply, round_trip, asked }: Timed) -> Result<Self, Failure> {
        let answered = |result, why: String| Failure { result, why, there: true };
        if reply.status != StatusCode::OK {
            return Err(answered(ProbeResult::Status, format!("probe answered {}", reply.status)));
        }
        let answer = Answer::parse(&reply.body);
        let answer = answer.ok_or_else(|| answered(ProbeResult::Body, "probe's answer is not one".to_owned()))?;
        Ok(Self { round_trip, asked, answer })
    }

    /// The member's clock minus ours, in seconds, at the middle of the round trip.
    pub(crate) fn clock_offset(&self) -> f64 {
        (self.answer.now - (self.asked + self.round_trip / 2)).as_seconds_f64()
    }
}

impl Failure {
    fn broken(why: String) -> Self {
        Self { result: ProbeResult::Connect, why, there: false }
    }

    /// Somebody answered, and it was no answer.
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

    /// Another member answered than the one that was asked.
    pub(crate) fn another(member: MemberId) -> Self {
        Self { result: ProbeResult::Body, why: format!("member {member} answered in its place"), there: true }
    }

    fn timeout(after: Duration) -> Self {
        Self { result: ProbeResult::Timeout, why: format!("no answer within {after:?}"), there: false }
    }
}

impl From<DialError> for Failure {
    fn from(error: DialError) -> Self {
        Self { result: error.probe_result(), why: error.to_string(), there: false }
    }
}

impl NoReply {
    fn failure(self) -> Failure {
        let (Self::Closed(failure) | Self::Failed(failure)) = self;
        failure
    }
}

impl Outcome {
    /// Who answered, if it said so.
    pub(crate) fn answered_by(&self) -> Option<MemberId> {
        self.result.as_ref().ok()?.answer.report.as_ref().map(|report| report.member)
    }

    /// Notes in `link` what the probe measured, and takes out what holds no longer. Returns whether the member was
    /// reachable before; none before the first probe. `now` is the time of day.
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
            Err(Failure { result, why, .. }) => link.probe_failed(*result, why, now),
        }
    }
}

#[cfg(test)]
mod tests;
