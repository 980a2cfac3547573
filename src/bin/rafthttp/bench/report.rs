//! The JSON line that each side prints.

use std::time::Duration;

use serde::Serialize;

use super::{
    plan::{Outline, Work},
    usage,
};

/// The side that reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Side {
    Source,
    Sink,
}

/// What a side has measured, of all sinks together.
#[derive(Clone, Copy, Debug)]
pub(super) struct RunMeasure {
    /// The number of sinks.
    pub(super) peers: usize,
    pub(super) messages: u64,
    pub(super) lost: u64,
    pub(super) elapsed: Duration,
    pub(super) processor: Duration,
}

/// One line.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    role: Side,
    work: Work,
    size: u64,
    window: u64,
    peers: usize,
    messages: u64,
    lost: u64,
    seconds: f64,
    messages_per_second: f64,
    bytes_per_second: f64,
    cpu_seconds: f64,
    peak_rss_bytes: Option<u64>,
    #[serde(flatten)]
    round_trips: Option<RoundTripQuantiles>,
}

/// Percentiles of round trips, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct RoundTripQuantiles {
    p50_us: f64,
    p99_us: f64,
}

impl Report {
    pub(super) fn new(role: Side, outline: Outline, seen: RunMeasure, round_trips: Option<RoundTripQuantiles>) -> Self {
        let Outline { work, size, window } = outline;
        let seconds = seen.elapsed.as_secs_f64();
        let rate = |count: f64| if seconds > 0.0 { count / seconds } else { 0.0 };
        let messages_per_second = rate(seen.messages as f64);
        Self {
            role,
            work,
            size,
            window,
            peers: seen.peers,
            messages: seen.messages,
            lost: seen.lost,
            seconds,
            messages_per_second,
            bytes_per_second: messages_per_second * size as f64,
            cpu_seconds: seen.processor.as_secs_f64(),
            peak_rss_bytes: usage::resident_bytes().1,
            round_trips,
        }
    }

    pub(super) fn print(&self) {
        println!("{}", serde_json::to_string(self).expect("numbers and names are always JSON"));
    }
}

impl RoundTripQuantiles {
    /// The percentiles of these times, by nearest rank. `None` if there are no times.
    pub(super) fn of(mut times: Vec<Duration>) -> Option<Self> {
        times.sort_unstable();
        let at = |percent: usize| {
            let rank = (times.len() * percent).div_ceil(100).saturating_sub(1);
            times.get(rank).map(|time| time.as_secs_f64() * 1e6)
        };
        Some(Self { p50_us: at(50)?, p99_us: at(99)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_the_nearest_rank() {
        let times = |count| (1..=count).rev().map(Duration::from_micros).collect();
        let round_trips =
            |count| RoundTripQuantiles::of(times(count)).map(|trips| (trips.p50_us.round(), trips.p99_us.round()));
        assert_eq!(round_trips(100), Some((50.0, 99.0)));
        assert_eq!(round_trips(1), Some((1.0, 1.0)));
        assert_eq!(round_trips(1000), Some((500.0, 990.0)));
        assert_eq!(round_trips(0), None);
    }

    #[test]
    fn a_line_has_the_names_that_scripts_read() {
        let outline = Outline { work: Work::Ping, size: 10, window: 1 };
        let second = Duration::from_secs(2);
        let seen =
            RunMeasure { peers: 1, messages: 100, lost: 0, elapsed: second, processor: Duration::from_millis(500) };
        let report = Report::new(Side::Source, outline, seen, RoundTripQuantiles::of(vec![Duration::from_micros(90)]));
        let value = serde_json::to_value(&report).unwrap();
        let mut names: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
        names.sort_unstable();
        let mut expected = [
            "role",
            "work",
            "size",
            "window",
            "peers",
            "messages",
            "lost",
            "seconds",
            "messages_per_second",
            "bytes_per_second",
            "cpu_seconds",
            "peak_rss_bytes",
            "p50_us",
            "p99_us",
        ];
        expected.sort_unstable();
        assert_eq!(names, expected);
        assert_eq!((&value["role"], &value["work"]), (&"source".into(), &"ping".into()));
        assert_eq!(
            (value["messages_per_second"].as_f64(), value["bytes_per_second"].as_f64()),
            (Some(50.0), Some(500.0))
        );
    }
}
