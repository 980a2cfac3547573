//! The answer of `GET /raft/probing`. It is JSON, of which etcd (`xiang90/probing`) writes and reads two fields, `OK`
//! and `Now`.
//!
//! A member that this one knows gets more: how far this member has read the streams that the other one writes, and how
//! this member reaches its own peers. The field names are stable. A client that does not know them ignores them, and an
//! answer without them is complete.
//!
//! | field | meaning |
//! |---|---|
//! | `member` | the ID of the member that answers, hexadecimal |
//! | `streams` | for each channel, the stream that it reads from the asking member, or is asking for, and the last ones that ended |
//! | `streams[].channel` | `msgapp` or `message` |
//! | `streams[].name` | the ID of the stream, which it sent in `X-Rafthttp-Stream`, hexadecimal |
//! | `streams[].read` | how many messages were read on it, without link heartbeats |
//! | `streams[].open` | false if no more will be read on it |
//! | `peers` | how it reaches its peers |
//! | `peers[].id` | the ID of one of its peers, hexadecimal |
//! | `peers[].reachable` | whether its last probe of that peer succeeded; null before the first |
//! | `peers[].round_trip_seconds` | the round trip of that probe; null if it failed |
//! | `peers[].age_seconds` | how long ago that probe ended; null before the first |
//!
//! A stream on which nothing was read is not listed once it has ended.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    id::MemberId,
    wire::stream::{StreamId, StreamKind},
};

/// The most entries of each list that are read and written. An answer is therefore at most 64 KiB, whatever the
/// cluster.
const ENTRIES: usize = 64;

/// A probe's answer in which the member says that all is well.
#[derive(Clone, Debug, PartialEq)]
pub struct ProbeAnswer {
    /// The member's clock when it answered.
    pub now: OffsetDateTime,
    /// What it says to a member that it knows. `None` from etcd, and from a member that does not know this one.
    pub report: Option<ProbeReport>,
}

/// What a member says to another one that it knows.
#[derive(Clone, Debug, PartialEq)]
pub struct ProbeReport {
    /// The member that answers.
    pub member: MemberId,
    /// The streams that it reads from the member that asks.
    pub streams: Vec<ReadStream>,
    /// How it reaches its peers.
    pub peers: Vec<Sight>,
}

/// How far a stream was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadStream {
    /// Its kind.
    pub kind: StreamKind,
    /// The ID of the stream.
    pub id: StreamId,
    /// Messages read, link heartbeats not counted.
    pub read: u64,
    /// Whether more may be read.
    pub open: bool,
}

/// How one member reaches another.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Sight {
    /// The other member.
    pub id: MemberId,
    /// Whether the last probe succeeded. `None` before the first probe.
    pub reachable: Option<bool>,
    /// The round trip of the last probe, in seconds. `None` if it failed.
    pub round_trip: Option<f64>,
    /// The age of the last probe when this was said, in seconds. `None` before the first probe.
    pub age: Option<f64>,
}

/// etcd's two fields.
#[derive(Serialize, Deserialize)]
struct HealthJson<'a> {
    #[serde(rename = "OK")]
    ok: bool,
    #[serde(rename = "Now", borrow)]
    now: Cow<'a, str>,
}

#[derive(Serialize)]
struct AnswerJson<'a> {
    #[serde(flatten)]
    health: HealthJson<'a>,
    #[serde(flatten)]
    more: Option<More>,
}

#[derive(Serialize, Deserialize)]
struct More {
    member: String,
    #[serde(default)]
    streams: Vec<StreamEntry>,
    #[serde(default)]
    peers: Vec<PeerEntry>,
}

#[derive(Serialize, Deserialize)]
struct StreamEntry {
    channel: String,
    name: String,
    read: u64,
    open: bool,
}

#[derive(Serialize, Deserialize)]
struct PeerEntry {
    id: String,
    reachable: Option<bool>,
    round_trip_seconds: Option<f64>,
    age_seconds: Option<f64>,
}

impl ProbeAnswer {
    /// Parses an answer. `None` if it is not one. The fields beyond etcd's two are taken as a whole or not at all;
    /// errors in them never make the answer invalid.
    pub fn parse(body: &[u8]) -> Option<Self> {
        let health: HealthJson<'_> = serde_json::from_slice(body).ok().filter(|health: &HealthJson<'_>| health.ok)?;
        let now = OffsetDateTime::parse(&health.now, &Rfc3339).ok()?;
        Some(Self { now, report: serde_json::from_slice(body).ok().and_then(ProbeReport::read) })
    }

    /// The answer as it is sent, with the newline that etcd adds at the end.
    pub fn encode(&self) -> String {
        let now = self.now.format(&Rfc3339).unwrap_or_default();
        let health = HealthJson { ok: true, now: now.into() };
        let whole = AnswerJson { health, more: self.report.as_ref().map(More::of) };
        serde_json::to_string(&whole).expect("our own types, with text for keys, always serialize") + "\n"
    }
}

impl ProbeReport {
    fn read(more: More) -> Option<Self> {
        let streams = more.streams.into_iter().take(ENTRIES).map(|StreamEntry { channel, name, read, open }| {
            let kind = StreamKind::from_segment(&channel)?;
            Some(ReadStream { kind, id: name.parse().ok()?, read, open })
        });
        let seconds = |seconds: Option<f64>| seconds.filter(|seconds| *seconds >= 0.0);
        let peers = more.peers.into_iter().take(ENTRIES).map(|entry| {
            let PeerEntry { id, reachable, round_trip_seconds, age_seconds } = entry;
            let (round_trip, age) = (seconds(round_trip_seconds), seconds(age_seconds));
            Some(Sight { id: id.parse().ok()?, reachable, round_trip, age })
        });
        Some(Self {
            member: more.member.parse().ok()?,
            streams: streams.collect::<Option<_>>()?,
            peers: peers.collect::<Option<_>>()?,
        })
    }
}

impl More {
    fn of(report: &ProbeReport) -> Self {
        let streams = report.streams.iter().take(ENTRIES).map(|stream| StreamEntry {
            channel: stream.kind.segment().to_owned(),
            name: stream.id.to_string(),
            read: stream.read,
            open: stream.open,
        });
        let peers = report.peers.iter().take(ENTRIES).map(|sight| PeerEntry {
            id: sight.id.to_string(),
            reachable: sight.reachable,
            round_trip_seconds: sight.round_trip,
            age_seconds: sight.age,
        });
        Self { member: report.member.to_string(), streams: streams.collect(), peers: peers.collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sight(id: u64) -> Sight {
        Sight { id: MemberId(id), reachable: Some(true), round_trip: Some(0.000_25), age: Some(0.5) }
    }

    fn report() -> ProbeReport {
        let unknown = Sight { reachable: None, round_trip: None, age: None, ..sight(3) };
        let stream = |kind, id, open| ReadStream { kind, id: StreamId(id), read: 7, open };
        let streams = vec![stream(StreamKind::MsgApp, u64::MAX, true), stream(StreamKind::Message, 0, false)];
        ProbeReport { member: MemberId(0x91bc), streams, peers: vec![sight(2), unknown] }
    }

    #[test]
    fn an_answer_is_read_as_go_writes_it() {
        let answer = ProbeAnswer::parse(br#"{"OK":true,"Now":"2026-11-23T22:48:01.123456789+02:00"}"#).expect("one");
        assert_eq!(answer.now.unix_timestamp_nanos(), 1_795_466_881_123_456_789);
        assert_eq!(answer.report, None);
        assert!(ProbeAnswer::parse(br#"{"OK":true,"Now":"2026-11-23T20:48:01Z","More":{"a":[1]}}"#).is_some());
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        for body in ["", "OK", "{}", r#"{"OK":false,"Now":"2026-11-23T20:48:01Z"}"#, r#"{"OK":true,"Now":"yesterday"}"#]
        {
            assert!(ProbeAnswer::parse(body.as_bytes()).is_none(), "{body:?}");
        }
    }

    #[test]
    fn what_is_written_is_what_is_read() {
        let now = OffsetDateTime::UNIX_EPOCH;
        for report in [None, Some(report())] {
            let answer = ProbeAnswer { now, report };
            assert_eq!(ProbeAnswer::parse(answer.encode().as_bytes()), Some(answer));
        }
        let plain = ProbeAnswer { now, report: None };
        assert_eq!(plain.encode(), "{\"OK\":true,\"Now\":\"1970-01-01T00:00:00Z\"}\n", "as etcd's, to the letter");
    }

    #[test]
    fn no_field_is_one_that_go_would_take_for_its_own() {
        // Go's decoder does not distinguish `ok` from `OK`.
        let answer = ProbeAnswer { now: OffsetDateTime::UNIX_EPOCH, report: Some(report()) };
        let document: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(&answer.encode()).expect("an object");
        let mut names: Vec<String> = document.keys().map(|name| name.to_lowercase()).collect();
        names.sort();
        assert_eq!(names, ["member", "now", "ok", "peers", "streams"]);
    }

    #[test]
    fn nonsense_beyond_the_two_fields_is_no_report_and_no_failure() {
        for more in [
            r#""member":5"#,
            r#""member":"xyz""#,
            r#""member":"1","streams":7"#,
            r#""member":"1","streams":[{"channel":"other","name":"1","read":1,"open":true}]"#,
            r#""member":"1","streams":[{"channel":"msgapp","name":"-1","read":1,"open":true}]"#,
            r#""member":"1","streams":[{"channel":"msgapp","name":"1","read":-1,"open":true}]"#,
            r#""member":"1","streams":[{"channel":"msgapp","name":"1","read":1e99,"open":true}]"#,
            r#""member":"1","peers":[{"id":""}]"#,
        ] {
            let body = format!(r#"{{"OK":true,"Now":"2026-11-23T20:48:01Z",{more}}}"#);
            assert_eq!(ProbeAnswer::parse(body.as_bytes()).map(|answer| answer.report), Some(None), "{more}");
        }
        let odd = r#"{"OK":true,"Now":"2026-11-23T20:48:01Z","member":"1","peers":[{"id":"2","age_seconds":-4}]}"#;
        let sight = ProbeAnswer::parse(odd.as_bytes()).and_then(|answer| answer.report).map(|report| report.peers[0]);
        assert_eq!(sight.map(|sight| (sight.age, sight.reachable)), Some((None, None)));
    }

    #[test]
    fn an_answer_stays_small_whatever_the_cluster() {
        let long = Sight { round_trip: Some(0.123_456_789_012_345_67), age: Some(f64::MAX), ..sight(u64::MAX) };
        let stream = ReadStream { kind: StreamKind::Message, id: StreamId(u64::MAX), read: u64::MAX, open: false };
        let report = ProbeReport { member: MemberId(1), streams: vec![stream; 1000], peers: vec![long; 1000] };
        let text = ProbeAnswer { now: OffsetDateTime::UNIX_EPOCH, report: Some(report) }.encode();
        assert!(text.len() < 48 << 10, "{}", text.len());
        let read = ProbeAnswer::parse(text.as_bytes()).and_then(|answer| answer.report).expect("a report");
        assert_eq!((read.streams.len(), read.peers.len()), (ENTRIES, ENTRIES));
    }
}
