//! A steady load of writes, and the values that must be found afterwards.

use std::{fmt, time::Duration};

use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep},
};

use super::keys::{Keys, WriteOutcome};

/// How many keys are written in turn: enough that no key has two writes under way.
const KEYS: usize = 1000;
/// The most writes under way. Writes that the rate would add beyond them are skipped.
const IN_FLIGHT: usize = 256;
/// How often it checks which writes are due.
const TICK: Duration = Duration::from_millis(5);
/// How often progress is reported.
const PROGRESS: Duration = Duration::from_secs(5);
/// The pause between two checks of something that does not hold yet.
const PAUSE: Duration = Duration::from_millis(50);

/// A load of writes, and the state of each key.
pub(super) struct WriteLoad {
    client: Keys,
    urls: Vec<String>,
    rate: u64,
    /// The keys, in turn.
    keys: Vec<LoadKey>,
    /// Keys with a write of unknown outcome. They are not written again, because that write could still come through.
    retired: Vec<LoadKey>,
    named: u64,
    issued: u64,
    counts: WriteCounts,
    writes: JoinSet<EndedWrite>,
}

/// A key, and the writes to it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct LoadKey {
    name: String,
    /// The last write that was committed.
    committed: Option<u64>,
    /// A later write of unknown outcome.
    unknown: Option<u64>,
}

/// A write that has ended.
struct EndedWrite {
    slot: usize,
    number: u64,
    outcome: WriteOutcome,
    time: Duration,
}

#[derive(Clone, Copy, Debug, Default)]
struct WriteCounts {
    committed: u64,
    refused: u64,
    unknown: u64,
}

/// What happened in the last few seconds.
pub(super) struct Progress {
    since_start: Duration,
    committed: u64,
    per_second: f64,
    slowest: Option<(Duration, Duration)>,
}

impl LoadKey {
    fn new(name: String) -> Self {
        Self { name, committed: None, unknown: None }
    }

    /// Whether a member may hold this value.
    fn allows(&self, value: Option<u64>) -> bool {
        value == self.committed || (self.unknown.is_some() && value == self.unknown)
    }
}

impl WriteLoad {
    pub(super) fn new(client: Keys, urls: Vec<String>, rate: u64) -> Self {
        let mut load = Self {
            client,
            urls,
            rate,
            keys: Vec::with_capacity(KEYS),
            retired: Vec::new(),
            named: 0,
            issued: 0,
            counts: WriteCounts::default(),
            writes: JoinSet::new(),
        };
        for _ in 0..KEYS {
            let key = load.fresh_key();
            load.keys.push(key);
        }
        load
    }

    fn fresh_key(&mut self) -> LoadKey {
        self.named += 1;
        LoadKey::new(format!("demo-{}", self.named))
    }

    /// Writes until one write was committed. Returns false if none was within this time.
    pub(super) async fn first_write(&mut self, patience: Duration) -> bool {
        let end = Instant::now() + patience;
        while self.counts.committed == 0 {
            if Instant::now() >= end {
                return false;
            }
            self.write();
            self.finish().await;
            sleep(PAUSE).await;
        }
        true
    }

    /// Writes for ever at the rate, and reports progress now and then.
    pub(super) async fn run(&mut self, mut tell: impl FnMut(Progress)) {
        let start = Instant::now();
        let mut tick = interval(TICK);
        // A missed tick need not be made up for: `due_after` counts by the time that has passed.
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut progress = interval(PROGRESS);
        progress.tick().await;
        let (mut due, mut last, mut times) = (0, (start, self.counts.committed), Vec::new());
        loop {
            tokio::select! {
                biased;
                Some(ended) = self.writes.join_next() => if let Some(time) = self.ended(ended.ok()) { times.push(time) },
                now = progress.tick() => {
                    let seconds = (now - last.0).as_secs_f64();
                    let committed = self.counts.committed;
                    tell(Progress {
                        since_start: now - start,
                        committed,
                        per_second: (committed - last.1) as f64 / seconds,
                        slowest: percentiles(&mut times),
                    });
                    (last, times) = ((now, committed), Vec::new());
                }
                now = tick.tick() => {
                    let total = due_after(now - start, self.rate);
                    for _ in due..total {
                        if self.writes.len() < IN_FLIGHT {
                            self.write();
                        }
                    }
                    due = total;
                }
            }
        }
    }

    /// Waits for the writes under way.
    pub(super) async fn finish(&mut self) {
        while let Some(ended) = self.writes.join_next().await {
            self.ended(ended.ok());
        }
    }

    /// Starts the next write, through the next member.
    fn write(&mut self) {
        let number = self.issued;
        self.issued += 1;
        let turn = usize::try_from(number).unwrap_or(0);
        let slot = turn % self.keys.len();
        let (client, url, key) =
            (self.client.clone(), self.urls[turn % self.urls.len()].clone(), self.keys[slot].name.clone());
        self.writes.spawn(async move {
            let start = Instant::now();
            let outcome = client.put(&url, &key, number.to_string()).await;
            EndedWrite { slot, number, outcome, time: start.elapsed() }
        });
    }

    /// Records the outcome of a write, and returns how long it took if it was committed.
    fn ended(&mut self, write: Option<EndedWrite>) -> Option<Duration> {
        let EndedWrite { slot, number, outcome, time } = write?;
        match outcome {
            WriteOutcome::Committed => {
                self.counts.committed += 1;
                self.keys[slot].committed = Some(number);
                return Some(time);
            }
            WriteOutcome::Refused => self.counts.refused += 1,
            WriteOutcome::Unknown => {
                self.counts.unknown += 1;
                let fresh = self.fresh_key();
                let mut key = std::mem::replace(&mut self.keys[slot], fresh);
                key.unknown = Some(number);
                self.retired.push(key);
            }
        }
        None
    }

    /// How many keys of the member at `url` differ from what they must be, once the member has had time to catch up.
    pub(super) async fn differing(&self, url: &str, patience: Duration) -> usize {
        let end = Instant::now() + patience;
        let mut keys: Vec<&LoadKey> = self.written().collect();
        loop {
            let mut differing = Vec::new();
            for key in keys {
                let value = self.client.local_value(url, &key.name).await;
                let value = value.and_then(|value| std::str::from_utf8(&value).ok()?.parse().ok());
                if !key.allows(value) {
                    differing.push(key);
                }
            }
            if differing.is_empty() || Instant::now() >= end {
                return differing.len();
            }
            keys = differing;
            sleep(PAUSE).await;
        }
    }

    fn written(&self) -> impl Iterator<Item = &LoadKey> {
        self.keys.iter().chain(&self.retired).filter(|key| key.committed.is_some())
    }

    /// How many keys hold a committed value.
    pub(super) fn keys(&self) -> usize {
        self.written().count()
    }

    /// How many writes were committed.
    pub(super) fn committed(&self) -> u64 {
        self.counts.committed
    }

    /// A summary of the writes.
    pub(super) fn summary(&self) -> String {
        let WriteCounts { committed, refused, unknown } = self.counts;
        format!("{committed} writes committed, {refused} refused, {unknown} with unknown outcome")
    }
}

/// How many writes are due at this time after the start.
fn due_after(time: Duration, rate: u64) -> u64 {
    let due = time.as_micros().saturating_mul(u128::from(rate)) / 1_000_000;
    u64::try_from(due).unwrap_or(u64::MAX)
}

/// The median and the 99th percentile.
fn percentiles(times: &mut [Duration]) -> Option<(Duration, Duration)> {
    times.sort_unstable();
    let at = |percent: usize| times.get((times.len() * percent).div_ceil(100).saturating_sub(1)).copied();
    Some((at(50)?, at(99)?))
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { since_start, committed, per_second, slowest } = self;
        write!(f, "{:>5} s  {committed} writes committed, {per_second:.0} a second", since_start.as_secs())?;
        if let Some((median, high)) = slowest {
            let milliseconds = |time: &Duration| time.as_secs_f64() * 1e3;
            write!(f, ", p50 {:.1} ms, p99 {:.1} ms", milliseconds(median), milliseconds(high))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::MemberClient;

    #[test]
    fn writes_become_due_at_the_rate() {
        assert_eq!(due_after(Duration::from_millis(5), 100), 0);
        assert_eq!(due_after(Duration::from_millis(10), 100), 1);
        assert_eq!(due_after(Duration::from_secs(20), 100), 2000);
        assert_eq!(due_after(Duration::MAX, u64::MAX), u64::MAX);
    }

    #[test]
    fn a_member_may_hold_what_was_committed_or_what_nobody_knows_of() {
        let mut key = LoadKey::new("k".to_owned());
        key.committed = Some(7);
        assert!(key.allows(Some(7)));
        assert!(!key.allows(Some(6)) && !key.allows(Some(8)) && !key.allows(None));
        key.unknown = Some(8);
        assert!(key.allows(Some(7)) && key.allows(Some(8)));
        assert!(!key.allows(None));
    }

    #[test]
    fn a_key_whose_write_has_an_unknown_outcome_is_not_written_again() {
        let mut load = WriteLoad::new(Keys::new(MemberClient::new(None)), vec!["http://127.0.0.1:1".to_owned()], 1);
        let name = load.keys[3].name.clone();
        let ended = |outcome, number| Some(EndedWrite { slot: 3, number, outcome, time: Duration::ZERO });
        load.ended(ended(WriteOutcome::Committed, 3));
        load.ended(ended(WriteOutcome::Unknown, 1003));
        assert_ne!(load.keys[3].name, name);
        let key = LoadKey { name, committed: Some(3), unknown: Some(1003) };
        assert_eq!(load.retired, [key]);
        assert_eq!(load.keys(), 1);
    }
}
