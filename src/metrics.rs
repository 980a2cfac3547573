//! What is counted for each peer, and the names under which `/metrics` shows it.
//!
//! The counters are plain numbers in three small structs, one behind each of a peer's three locks: what goes out
//! ([`Outgoing`]), what comes in ([`Incoming`]), and how the link does ([`Link`]). They are read together, so the
//! ledger's laws hold in every scrape:
//!
//! - offered = sent + dropped + queued
//! - received = processed + rejected + waiting

use std::{
    collections::VecDeque,
    time::{Duration, SystemTime},
};

use crate::{
    id::MemberId,
    wire::{probing::Sight, stream::StreamKind},
};

mod collector;
mod etcd;
mod exposition;
mod families;
mod family;
mod raft;
mod traces;

pub use collector::Collector;
pub use exposition::Exposition;
pub use family::Options;
pub use raft::{RaftStatus, raft_collector};
pub use traces::{TraceExportStatus, trace_collector};

/// A way between two members: the label `channel`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Channel {
    /// The stream of compact appends (`/raft/stream/msgapp`).
    MsgApp,
    /// The stream of everything else (`/raft/stream/message`).
    Message,
    /// `POST /raft`.
    Pipeline,
    /// `POST /raft/snapshot`.
    Snapshot,
}

impl Channel {
    /// Every channel, in the order of their indexes.
    pub const ALL: [Self; 4] = [Self::MsgApp, Self::Message, Self::Pipeline, Self::Snapshot];
    /// How many there are.
    pub const COUNT: usize = Self::ALL.len();

    /// The value of the label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::MsgApp => "msgapp",
            Self::Message => "message",
            Self::Pipeline => "pipeline",
            Self::Snapshot => "snapshot",
        }
    }
}

impl StreamKind {
    /// The channel that a stream of this kind is.
    pub const fn channel(self) -> Channel {
        match self {
            Self::MsgApp => Channel::MsgApp,
            Self::Message => Channel::Message,
        }
    }
}

/// Which way: the label `direction`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// From the peer to us.
    In,
    /// From us to the peer.
    Out,
}

impl Direction {
    /// Both, in the order of the arrays that are indexed by it.
    pub const ALL: [Self; 2] = [Self::In, Self::Out];

    /// The value of the label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::In => "in",
            Self::Out => "out",
        }
    }
}

/// Why a message was given up before it left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DropReason {
    /// The channel's queue had its bound of messages or bytes.
    QueueFull,
    /// The stream it was queued on ended.
    StreamLost,
    /// The request failed before an answer, or was answered with an error of the server.
    PostFailed,
    /// The peer answered that it does not take the message.
    Refused,
    /// It exceeds what the peer would read.
    TooLarge,
    /// The peer is paused or cut (a test hook).
    Paused,
    /// The peer was removed.
    PeerRemoved,
    /// The transport stopped.
    Stopped,
}

impl DropReason {
    /// The value of the label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::StreamLost => "stream_lost",
            Self::PostFailed => "post_failed",
            Self::Refused => "refused",
            Self::TooLarge => "too_large",
            Self::Paused => "paused",
            Self::PeerRemoved => "peer_removed",
            Self::Stopped => "stopped",
        }
    }
}

/// Why a message that arrived was not taken by the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RejectReason {
    /// The receive queue had its bound of messages or bytes.
    QueueFull,
    /// The peer is paused or cut (a test hook).
    Paused,
    /// The application does not take it.
    Refused,
    /// The application failed on it, or a snapshot's body could not be read or saved.
    Failed,
    /// The transport stopped, or the peer was removed, before the application took it.
    Stopped,
}

impl RejectReason {
    /// The value of the label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::Paused => "paused",
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::Stopped => "stopped",
        }
    }
}

/// What became of a dial of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AttemptResult {
    /// Answered with 200: the stream is open.
    Ok,
    /// No connection, or it broke before the answer.
    Unreachable,
    /// The TLS handshake failed.
    Tls,
    /// No answer in time.
    Timeout,
    /// 404: the peer does not know us (yet).
    NotFound,
    /// 410: this member was removed from the cluster.
    Removed,
    /// 412, `cluster ID mismatch`.
    ClusterIdMismatch,
    /// 412, `incompatible version`, or an answer without a version we can read.
    IncompatibleVersion,
    /// 412, `to field mismatch`.
    ToMismatch,
    /// Any other answer.
    Refused,
}

impl AttemptResult {
    /// Every result.
    pub const ALL: [Self; 10] = [
        Self::Ok,
        Self::Unreachable,
        Self::Tls,
        Self::Timeout,
        Self::NotFound,
        Self::Removed,
        Self::ClusterIdMismatch,
        Self::IncompatibleVersion,
        Self::ToMismatch,
        Self::Refused,
    ];

    /// The value of the label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Unreachable => "unreachable",
            Self::Tls => "tls",
            Self::Timeout => "timeout",
            Self::NotFound => "not_found",
            Self::Removed => "removed",
            Self::ClusterIdMismatch => "cluster_id_mismatch",
            Self::IncompatibleVersion => "incompatible_version",
            Self::ToMismatch => "to_mismatch",
            Self::Refused => "refused",
        }
    }
}

/// Why an open stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LossReason {
    /// The other end closed it cleanly.
    Eof,
    /// The connection broke.
    Error,
    /// Nothing was read for the read deadline (5 s).
    Timeout,
    /// No byte could be written for the write deadline (5 s).
    Stalled,
    /// A frame that could not be read.
    Frame,
    /// A newer stream from the same peer took its place.
    Replaced,
    /// We ended it: the transport stopped, the peer was removed or is dialled anew.
    Stopped,
}

impl LossReason {
    /// The value of the label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Eof => "eof",
            Self::Error => "error",
            Self::Timeout => "timeout",
            Self::Stalled => "stalled",
            Self::Frame => "frame",
            Self::Replaced => "replaced",
            Self::Stopped => "stopped",
        }
    }

    /// Whether something went wrong, rather than that one end had no more use for the stream.
    pub const fn is_failure(self) -> bool {
        match self {
            Self::Error | Self::Timeout | Self::Stalled | Self::Frame => true,
            Self::Eof | Self::Replaced | Self::Stopped => false,
        }
    }
}

/// How a probe ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ProbeResult {
    /// 200 with a body that says so.
    Ok,
    /// No answer within the time-out.
    Timeout,
    /// No connection, or it broke.
    Connect,
    /// The TLS handshake failed.
    Tls,
    /// The name did not resolve.
    Dns,
    /// Answered with another status.
    Status,
    /// Answered with what is not a probe's answer: another body, or no HTTP at all.
    Body,
}

impl ProbeResult {
    /// Every result.
    pub const ALL: [Self; 7] = [Self::Ok, Self::Timeout, Self::Connect, Self::Tls, Self::Dns, Self::Status, Self::Body];

    /// The value of the label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Timeout => "timeout",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Dns => "dns",
            Self::Status => "status",
            Self::Body => "body",
        }
    }
}

/// A part of a dial that is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DialPhase {
    /// The name's look-up.
    Dns,
    /// The TCP connection.
    Connect,
    /// The TLS handshake.
    Tls,
}

impl DialPhase {
    /// Every phase, in the order of [`Link::dial_seconds`].
    pub const ALL: [Self; 3] = [Self::Dns, Self::Connect, Self::Tls];

    /// The value of the label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::Connect => "connect",
            Self::Tls => "tls",
        }
    }
}

/// How many kinds of messages are told apart: etcd's 24 and one for those that it does not know.
pub const KINDS: usize = 25;

/// The index of a message's type in the ledger's arrays; types that raftpb does not know share the last.
pub fn kind_index(message_type: i32) -> usize {
    usize::try_from(message_type).unwrap_or(KINDS - 1).min(KINDS - 1)
}

/// The label `type` for an index of the ledger's arrays, as raftpb writes it (`MsgApp`), or `other`.
pub fn kind_label(index: usize) -> &'static str {
    const LABELS: [&str; KINDS] = [
        "MsgHup",
        "MsgBeat",
        "MsgProp",
        "MsgApp",
        "MsgAppResp",
        "MsgVote",
        "MsgVoteResp",
        "MsgSnap",
        "MsgHeartbeat",
        "MsgHeartbeatResp",
        "MsgUnreachable",
        "MsgSnapStatus",
        "MsgCheckQuorum",
        "MsgTransferLeader",
        "MsgTimeoutNow",
        "MsgReadIndex",
        "MsgReadIndexResp",
        "MsgPreVote",
        "MsgPreVoteResp",
        "MsgStorageAppend",
        "MsgStorageAppendResp",
        "MsgStorageApply",
        "MsgStorageApplyResp",
        "MsgForgetLeader",
        "other",
    ];
    LABELS[index.min(KINDS - 1)]
}

/// Counts by a key of few values, most of which never occur: a list that is searched, nothing until the first count.
#[derive(Clone, Debug)]
pub struct Tally<K>(Vec<(K, u64)>);

impl<K> Default for Tally<K> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<K: Copy + PartialEq> Tally<K> {
    /// Adds `n` under `key`.
    pub fn add(&mut self, key: K, n: u64) {
        match self.0.iter_mut().find(|(known, _)| *known == key) {
            Some((_, count)) => *count += n,
            None => self.0.push((key, n)),
        }
    }

    /// The count under `key`.
    pub fn of(&self, key: K) -> u64 {
        self.0.iter().find(|(known, _)| *known == key).map_or(0, |(_, count)| *count)
    }

    /// The sum of all counts.
    pub fn total(&self) -> u64 {
        self.0.iter().map(|(_, count)| count).sum()
    }

    /// Each key that was counted, with its count.
    pub fn iter(&self) -> impl Iterator<Item = (K, u64)> + '_ {
        self.0.iter().copied()
    }
}

/// A histogram of seconds. Takes no memory for its buckets before its first observation.
#[derive(Clone, Debug)]
pub struct Histogram {
    bounds: &'static [f64],
    counts: Vec<u64>,
    sum: f64,
    count: u64,
}

/// With the buckets of [`Histogram::BOUNDS`].
impl Default for Histogram {
    fn default() -> Self {
        Self { bounds: &Self::BOUNDS, counts: Vec::new(), sum: 0.0, count: 0 }
    }
}

impl Histogram {
    /// Upper edges of the buckets, in seconds: from 100 µs, doubling, up to 26 s, with an edge at 0.15 s, where etcd's
    /// documentation draws the line for a peer's round trip. Holds every edge of etcd's round trip histogram.
    pub const BOUNDS: [f64; 20] = [
        0.0001, 0.0002, 0.0004, 0.0008, 0.0016, 0.0032, 0.0064, 0.0128, 0.0256, 0.0512, 0.1024, 0.15, 0.2048, 0.4096,
        0.8192, 1.6384, 3.2768, 6.5536, 13.1072, 26.2144,
    ];

    /// The edges for snapshots, in seconds: from 12.5 ms, doubling, up to 14 min. Holds every edge of etcd's snapshot
    /// histograms.
    pub const SNAPSHOT_BOUNDS: [f64; 17] =
        [0.0125, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 51.2, 102.4, 204.8, 409.6, 819.2];

    /// One with the buckets of [`Self::SNAPSHOT_BOUNDS`].
    pub fn for_snapshots() -> Self {
        Self { bounds: &Self::SNAPSHOT_BOUNDS, ..Self::default() }
    }

    /// Adds `n` observations of the same time.
    pub fn observe_many(&mut self, time: Duration, n: u64) {
        if self.counts.is_empty() {
            self.counts = vec![0; self.bounds.len()];
        }
        let seconds = time.as_secs_f64();
        if let Some(bucket) = self.bounds.iter().position(|bound| seconds <= *bound) {
            self.counts[bucket] += n;
        }
        self.sum += seconds * n as f64;
        self.count += n;
    }

    /// Adds one observation.
    pub fn observe(&mut self, time: Duration) {
        self.observe_many(time, 1);
    }

    /// How many observations there were.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Their sum, in seconds.
    pub fn sum(&self) -> f64 {
        self.sum
    }

    /// The number of observations at or below each edge.
    pub fn cumulative(&self) -> impl Iterator<Item = (f64, u64)> + '_ {
        let mut below = 0;
        self.bounds.iter().enumerate().map(move |(bucket, bound)| {
            below += self.counts.get(bucket).copied().unwrap_or(0);
            (*bound, below)
        })
    }

    /// The upper edge of the bucket that holds the given quantile (0 to 1), in seconds. None without observations, and
    /// for one above the last edge.
    pub fn quantile(&self, quantile: f64) -> Option<f64> {
        #[expect(clippy::cast_possible_truncation, reason = "a rank is whole, and the cast saturates")]
        let rank = (quantile * self.count as f64).ceil().max(1.0) as u64;
        self.cumulative().find(|(_, below)| *below >= rank).map(|(bound, _)| bound)
    }
}

/// The round trips of the last probes, oldest first: as many as fit three minutes, at the default interval.
#[derive(Clone, Debug, Default)]
pub struct RoundTrips(VecDeque<f32>);

impl RoundTrips {
    /// So many are kept.
    pub const KEPT: usize = 180;

    /// A probe has ended: how long it took, or none when it failed.
    pub fn push(&mut self, round_trip: Option<Duration>) {
        if self.0.len() >= Self::KEPT {
            self.0.pop_front();
        }
        self.0.push_back(round_trip.map_or(f32::NAN, |time| time.as_secs_f32()));
    }

    /// In seconds; none for a probe that failed.
    pub fn iter(&self) -> impl Iterator<Item = Option<f32>> + '_ {
        self.0.iter().map(|seconds| (!seconds.is_nan()).then_some(*seconds))
    }
}

/// The ledger of what goes to a peer, behind the lock of its queues.
#[derive(Clone, Debug, Default)]
pub struct Outgoing {
    /// Handed to `send` or `send_snapshot`, by type.
    pub offered: [u64; KINDS],
    /// Given to a connection, or answered with success; by channel and type.
    pub sent: [[u64; KINDS]; Channel::COUNT],
    /// Given up, by type, channel and reason.
    pub dropped: Tally<(usize, Channel, DropReason)>,
    /// Not yet ended, by channel. Measured where it is read; kept here for who reads a copy.
    pub queued: [u64; Channel::COUNT],
    /// From `send` to written, by channel.
    pub queue_seconds: [Histogram; Channel::COUNT],
    /// Bytes of frames, link heartbeats included, by channel (`Snapshot`: envelope and body).
    pub bytes: [u64; Channel::COUNT],
    /// Protobuf size of the whole messages, link heartbeats included, and the bodies of snapshots that were delivered:
    /// etcd's `peer_sent_bytes_total`.
    pub etcd_bytes: u64,
    /// Messages written to the peer's streams before the newest probe and not known to be read, by stream channel
    /// (`MsgApp`, `Message`). None: the peer has not said what it has read on them.
    pub unconfirmed: [Option<u64>; 2],
    /// Messages written to streams that ended, and never read; by stream channel.
    pub lost: [u64; 2],
    /// From appends that were sent to the answers that cover them.
    pub append_round_trip: Histogram,
    /// When a frame last went out, on the two stream channels.
    pub last_frame: [Option<SystemTime>; 2],
}

impl Outgoing {
    /// The sum of a ledger's side: sent + dropped + queued. The first law says that it is the sum of `offered`.
    pub fn accounted(&self) -> u64 {
        self.sent.iter().flatten().sum::<u64>() + self.dropped.total() + self.queued.iter().sum::<u64>()
    }

    /// Whether the first law holds.
    pub fn balances(&self) -> bool {
        self.offered.iter().sum::<u64>() == self.accounted()
    }
}

/// The ledger of what comes from a peer, behind the lock of its receive queues.
#[derive(Clone, Debug, Default)]
pub struct Incoming {
    /// Decoded from the wire, by channel and type.
    pub received: [[u64; KINDS]; Channel::COUNT],
    /// Received, not yet taken or refused. Measured where it is read; kept here for who reads a copy.
    pub waiting: u64,
    /// Taken by the application, by type.
    pub processed: [u64; KINDS],
    /// Not taken, by type and reason.
    pub rejected: Tally<(usize, RejectReason)>,
    /// What the peer sent that could not be read, by channel and kind.
    pub frame_errors: Tally<(Channel, &'static str)>,
    /// The time that the application took for a batch.
    pub process_seconds: Histogram,
    /// Bytes of frames, link heartbeats included, by channel.
    pub bytes: [u64; Channel::COUNT],
    /// Protobuf size of the whole messages, link heartbeats included, and the bodies of snapshots that were saved:
    /// etcd's `peer_received_bytes_total`.
    pub etcd_bytes: u64,
    /// When a frame was last read, on the two stream channels.
    pub last_frame: [Option<SystemTime>; 2],
}

impl Incoming {
    /// Whether the second law holds.
    pub fn balances(&self) -> bool {
        let ended = self.processed.iter().sum::<u64>() + self.rejected.total() + self.waiting;
        self.received.iter().flatten().sum::<u64>() == ended
    }
}

/// How the snapshots of one direction do.
#[derive(Clone, Debug)]
pub struct Snapshots {
    /// Ended well.
    pub ok: u64,
    /// Ended badly.
    pub failed: u64,
    /// Under way.
    pub in_flight: u64,
    /// Bytes of bodies.
    pub bytes: u64,
    /// How long those that ended well took.
    pub seconds: Histogram,
    /// Bytes that the bodies of those under way have in all, where that is known.
    pub promised: u64,
    /// Bytes of these that have passed.
    pub passed: u64,
    /// So many of those under way are of unknown length.
    pub unmeasured: u64,
}

impl Snapshots {
    /// How far those under way are, 0 to 1. None: there is none, or one of unknown length.
    pub fn progress(&self) -> Option<f64> {
        let known = self.in_flight > 0 && self.unmeasured == 0 && self.passed <= self.promised;
        // One without a byte has nothing left to pass.
        known.then(|| if self.promised == 0 { 1.0 } else { self.passed as f64 / self.promised as f64 })
    }

    /// One begins; so long is its body.
    pub(crate) fn begin(&mut self, length: Option<u64>) {
        self.in_flight += 1;
        match length {
            Some(length) => self.promised = self.promised.saturating_add(length),
            None => self.unmeasured += 1,
        }
    }

    /// More of a body has passed.
    pub(crate) fn progressed(&mut self, bytes: u64) {
        self.bytes += bytes;
        self.passed += bytes;
    }

    /// One that began with this length, and of which so many bytes passed, has ended; well in so much time, or badly.
    pub(crate) fn end(&mut self, length: Option<u64>, bytes: u64, took: Option<Duration>) {
        self.in_flight -= 1;
        self.passed -= bytes;
        match length {
            Some(length) => self.promised = self.promised.saturating_sub(length),
            None => self.unmeasured -= 1,
        }
        match took {
            Some(took) => {
                self.ok += 1;
                self.seconds.observe(took);
            }
            None => self.failed += 1,
        }
    }
}

impl Default for Snapshots {
    fn default() -> Self {
        Self {
            ok: 0,
            failed: 0,
            in_flight: 0,
            bytes: 0,
            seconds: Histogram::for_snapshots(),
            promised: 0,
            passed: 0,
            unmeasured: 0,
        }
    }
}

/// How the link to a peer does: probes, streams, snapshots; everything that is not counted per message.
#[derive(Clone, Debug, Default)]
pub struct Link {
    /// Whether the last probe succeeded; none before the first.
    pub reachable: Option<bool>,
    /// Probes by result.
    pub probes: Tally<ProbeResult>,
    /// Round trips of the successful ones on a warm connection.
    pub probe_seconds: Histogram,
    /// The last of them.
    pub round_trip: Option<Duration>,
    /// The last ones, failures among them.
    pub round_trips: RoundTrips,
    /// When the newest probe ended.
    pub last_probe: Option<SystemTime>,
    /// How the peer reaches its own peers, as it said when it was last asked, and when that was. None: it was not
    /// asked yet, could not be asked the last time, or does not say.
    pub view: Option<(SystemTime, Vec<Sight>)>,
    /// Times of the probes' dials by phase.
    pub dial_seconds: [Histogram; 3],
    /// The peer's clock minus ours, in seconds, while it is known.
    pub clock_offset: Option<f64>,
    /// Whether a stream is open, by stream channel (`MsgApp`, `Message`) and direction (`In`, `Out`).
    pub stream_up: [[bool; 2]; 2],
    /// Dials of streams by channel and result.
    pub attempts: Tally<(Channel, AttemptResult)>,
    /// Ends of open streams.
    pub losses: Tally<(Channel, Direction, LossReason)>,
    /// Since when the peer is active (etcd's `ActiveSince`).
    pub active_since: Option<SystemTime>,
    /// How often it went from active to inactive: etcd's `disconnected_peers_total`.
    pub disconnected: u64,
    /// etcd's `peer_sent_failures_total`.
    pub sent_failures: u64,
    /// etcd's `peer_received_failures_total`.
    pub received_failures: u64,
    /// Snapshots by direction (`In`, `Out`).
    pub snapshots: [Snapshots; 2],
    /// The last error, and when.
    pub last_error: Option<(SystemTime, String)>,
}

impl Link {
    /// How the peer is reached, as others are told.
    pub(crate) fn sight(&self, id: MemberId) -> Sight {
        let age = self.last_probe.map(|ended| ended.elapsed().unwrap_or_default().as_secs_f64());
        let round_trip = self.round_trip.map(|time| time.as_secs_f64());
        Sight { id, reachable: self.reachable, round_trip, age }
    }
}
