//! The shape of the JSON of `/api/peers`.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use serde::Serialize;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    id::{ClusterId, Incarnation, MemberId},
    ledger::{
        AttemptResult, Channel, Direction, Incoming, Link, LossReason, Outgoing, PerChannel, PerKind, PerStream,
        RestartReason, Snapshots, Tally,
    },
    tls::TlsStatus,
    transport::{
        incarnation::{PeerIncarnation, Refused},
        status::{self, PeerStatus},
    },
    wire::{probing::Sight, stream::StreamKind},
};

pub(super) type CountsByLabel = BTreeMap<&'static str, u64>;

#[derive(Serialize)]
pub(super) struct PeerView<'a> {
    id: MemberId,
    name: &'a str,
    urls: Vec<&'a str>,
    remote: bool,
    paused: bool,
    active: bool,
    active_since: Option<String>,
    reachable: Option<bool>,
    round_trip_seconds: Option<f64>,
    round_trip_p50_seconds: Option<f64>,
    round_trip_p99_seconds: Option<f64>,
    last_probe: Option<String>,
    round_trip_history_seconds: Vec<Option<f32>>,
    clock_offset_seconds: Option<f64>,
    probes: CountsByLabel,
    streams: Vec<StreamView>,
    attempts: Vec<Attempts>,
    losses: Vec<Losses>,
    frame_errors: Vec<FrameErrors>,
    outgoing: OutgoingLedger,
    incoming: IncomingLedger,
    unconfirmed: Streams<Option<u64>>,
    lost: Streams<u64>,
    append_round_trip_p50_seconds: Option<f64>,
    append_round_trip_p99_seconds: Option<f64>,
    snapshots: Ways<SnapshotCounts>,
    view: Option<View>,
    incarnation: Option<IncarnationView>,
    last_error: Option<LastError<'a>>,
    watched: Option<WatchedView>,
}

/// Which incarnation of a peer is heard. `told` is the incarnation that it sends, if any.
#[derive(Serialize)]
struct IncarnationView {
    /// `unknown`, `unchecked`, `met` or `refused`.
    state: &'static str,
    told: Option<String>,
    reason: Option<&'static str>,
    why: Option<String>,
    since: Option<String>,
}

#[derive(Serialize)]
struct WatchedView {
    cluster: Option<ClusterId>,
    foreign: Option<bool>,
    version: Option<String>,
    cluster_version: Option<String>,
    learner: bool,
    started: bool,
}

#[derive(Serialize)]
struct StreamView {
    channel: &'static str,
    direction: &'static str,
    up: bool,
    last_frame: Option<String>,
}

#[derive(Serialize)]
struct Attempts {
    channel: &'static str,
    result: &'static str,
    count: u64,
}

#[derive(Serialize)]
struct Losses {
    channel: &'static str,
    direction: &'static str,
    reason: &'static str,
    count: u64,
}

#[derive(Serialize)]
struct FrameErrors {
    channel: &'static str,
    kind: &'static str,
    count: u64,
}

#[derive(Serialize)]
pub(super) struct OutgoingLedger {
    balanced: bool,
    offered: CountsByLabel,
    sent: Vec<Passed>,
    dropped: Vec<DroppedView>,
    queued: CountsByLabel,
    bytes: CountsByLabel,
}

#[derive(Serialize)]
pub(super) struct IncomingLedger {
    balanced: bool,
    received: Vec<Passed>,
    waiting: u64,
    processed: CountsByLabel,
    rejected: Vec<RejectedView>,
    bytes: CountsByLabel,
}

#[derive(Serialize)]
struct Passed {
    r#type: &'static str,
    channel: &'static str,
    count: u64,
}

#[derive(Serialize)]
struct DroppedView {
    r#type: &'static str,
    channel: &'static str,
    reason: &'static str,
    count: u64,
}

#[derive(Serialize)]
struct RejectedView {
    r#type: &'static str,
    reason: &'static str,
    count: u64,
}

#[derive(Serialize)]
struct View {
    time: String,
    peers: Vec<SeenView>,
}

#[derive(Serialize)]
struct SeenView {
    id: MemberId,
    reachable: Option<bool>,
    round_trip_seconds: Option<f64>,
    age_seconds: Option<f64>,
}

#[derive(Serialize)]
struct Streams<T> {
    msgapp: T,
    message: T,
}

#[derive(Serialize)]
struct Ways<T> {
    r#in: T,
    out: T,
}

#[derive(Serialize)]
struct SnapshotCounts {
    ok: u64,
    failed: u64,
    broken_off: u64,
    in_flight: u64,
    bytes: u64,
    resumed_bytes: u64,
    resent_bytes: u64,
    restarts: Vec<Restarts>,
    progress_ratio: Option<f64>,
    bytes_left: Option<u64>,
    bytes_per_second: Option<f64>,
    seconds_left: Option<f64>,
}

#[derive(Serialize)]
struct Restarts {
    reason: RestartReason,
    count: u64,
}

#[derive(Serialize)]
struct LastError<'a> {
    time: String,
    error: &'a str,
}

#[derive(Serialize)]
pub(super) struct TlsView {
    certificate_expiry: Option<String>,
    reloads_ok: u64,
    reloads_failed: u64,
    handshake_failures: Vec<ByReason>,
    connections_closed: Vec<ByReason>,
    identity_mismatches: CountsByLabel,
}

#[derive(Serialize)]
struct ByReason {
    direction: &'static str,
    reason: &'static str,
    count: u64,
}

pub(super) fn peer(status: &PeerStatus) -> PeerView<'_> {
    let link = &status.link;
    PeerView {
        id: status.id,
        name: &status.name,
        urls: status.urls.iter().map(AsRef::as_ref).collect(),
        remote: status.is_remote(),
        paused: status.paused,
        active: link.active_since.is_some(),
        active_since: link.active_since.map(rfc3339),
        reachable: link.reachable,
        round_trip_seconds: link.round_trip.as_ref().map(Duration::as_secs_f64),
        round_trip_p50_seconds: link.probe_seconds.quantile(0.5),
        round_trip_p99_seconds: link.probe_seconds.quantile(0.99),
        last_probe: link.last_probe.map(rfc3339),
        round_trip_history_seconds: link.round_trips.iter().collect(),
        clock_offset_seconds: link.clock_offset,
        probes: link.probes.iter().map(|(result, count)| (result.label(), count)).collect(),
        streams: streams(status),
        attempts: attempts(link),
        losses: losses(link),
        frame_errors: frame_errors(&status.incoming),
        outgoing: outgoing(&status.outgoing),
        incoming: incoming(&status.incoming),
        unconfirmed: by_stream(&status.outgoing.unconfirmed),
        lost: by_stream(&status.outgoing.lost),
        append_round_trip_p50_seconds: status.outgoing.append_round_trip.quantile(0.5),
        append_round_trip_p99_seconds: status.outgoing.append_round_trip.quantile(0.99),
        snapshots: Ways {
            r#in: snapshots(&link.snapshots[Direction::In]),
            out: snapshots(&link.snapshots[Direction::Out]),
        },
        view: link.view.as_ref().map(|(time, sights)| view(*time, sights)),
        incarnation: status.is_peer().then(|| incarnation(&status.incarnation)),
        last_error: link.last_error.as_ref().map(|(time, error)| LastError { time: rfc3339(*time), error }),
        watched: status.watched().map(watched),
    }
}

fn incarnation(incarnation: &PeerIncarnation) -> IncarnationView {
    let state = |state, told: Option<Incarnation>| IncarnationView {
        state,
        told: told.map(|told| told.to_string()),
        reason: None,
        why: None,
        since: None,
    };
    match incarnation {
        PeerIncarnation::Unknown => state("unknown", None),
        PeerIncarnation::Untold => state("unchecked", None),
        PeerIncarnation::Met(met) => state("met", Some(*met)),
        PeerIncarnation::Refused(Refused { told, why, since }) => IncarnationView {
            reason: Some(why.label()),
            why: Some(why.to_string()),
            since: Some(rfc3339(*since)),
            ..state("refused", Some(*told))
        },
    }
}

fn watched(watched: &status::Watched) -> WatchedView {
    let status::Watched { cluster, is_foreign, version, cluster_version, is_learner, is_started } = watched;
    WatchedView {
        cluster: *cluster,
        foreign: *is_foreign,
        version: version.map(|version| version.to_string()),
        cluster_version: cluster_version.map(|version| version.to_string()),
        learner: *is_learner,
        started: *is_started,
    }
}

fn by_stream<T: Copy>(values: &PerStream<T>) -> Streams<T> {
    Streams { msgapp: values[StreamKind::MsgApp], message: values[StreamKind::Message] }
}

fn view(time: SystemTime, sights: &[Sight]) -> View {
    let seen = |sight: &Sight| SeenView {
        id: sight.id,
        reachable: sight.reachable,
        round_trip_seconds: sight.round_trip,
        age_seconds: sight.age,
    };
    View { time: rfc3339(time), peers: sights.iter().map(seen).collect() }
}

fn streams(status: &PeerStatus) -> Vec<StreamView> {
    let mut streams = Vec::new();
    for (kind, ways) in status.link.stream_up.iter().filter(|_| status.is_peer()) {
        for (direction, up) in ways.iter() {
            let last_frame = match direction {
                Direction::In => status.incoming.last_frame[kind],
                Direction::Out => status.outgoing.last_frame[kind],
            };
            streams.push(StreamView {
                channel: kind.channel().label(),
                direction: direction.label(),
                up: *up,
                last_frame: last_frame.map(rfc3339),
            });
        }
    }
    streams
}

fn attempts(link: &Link) -> Vec<Attempts> {
    let row = |((channel, result), count): ((Channel, AttemptResult), u64)| Attempts {
        channel: channel.label(),
        result: result.label(),
        count,
    };
    link.attempts.iter().map(row).collect()
}

fn losses(link: &Link) -> Vec<Losses> {
    let row = |((channel, direction, reason), count): ((Channel, Direction, LossReason), u64)| Losses {
        channel: channel.label(),
        direction: direction.label(),
        reason: reason.label(),
        count,
    };
    link.losses.iter().map(row).collect()
}

fn frame_errors(incoming: &Incoming) -> Vec<FrameErrors> {
    incoming
        .frame_errors
        .iter()
        .map(|((channel, kind), count)| FrameErrors { channel: channel.label(), kind, count })
        .collect()
}

pub(super) fn outgoing(ledger: &Outgoing) -> OutgoingLedger {
    let dropped = ledger.dropped.iter().map(|((kind, channel, reason), count)| DroppedView {
        r#type: kind.label(),
        channel: channel.label(),
        reason: reason.label(),
        count,
    });
    OutgoingLedger {
        balanced: ledger.balances(),
        offered: by_type(&ledger.offered),
        sent: passed(&ledger.sent),
        dropped: dropped.collect(),
        queued: by_channel(&ledger.queued),
        bytes: by_channel(&ledger.bytes),
    }
}

pub(super) fn incoming(ledger: &Incoming) -> IncomingLedger {
    let rejected = ledger.rejected.iter().map(|((kind, reason), count)| RejectedView {
        r#type: kind.label(),
        reason: reason.label(),
        count,
    });
    IncomingLedger {
        balanced: ledger.balances(),
        received: passed(&ledger.received),
        waiting: ledger.waiting,
        processed: by_type(&ledger.processed),
        rejected: rejected.collect(),
        bytes: by_channel(&ledger.bytes),
    }
}

fn snapshots(snapshots: &Snapshots) -> SnapshotCounts {
    let Snapshots { ok, failed, broken_off, in_flight, bytes, resumed, resent, .. } = *snapshots;
    SnapshotCounts {
        ok,
        failed,
        broken_off,
        in_flight,
        bytes,
        resumed_bytes: resumed,
        resent_bytes: resent,
        restarts: snapshots.restarts.iter().map(|(reason, count)| Restarts { reason, count }).collect(),
        progress_ratio: snapshots.progress(),
        bytes_left: snapshots.left(),
        bytes_per_second: snapshots.rate(),
        seconds_left: snapshots.time_left().map(|time| time.as_secs_f64()),
    }
}

pub(super) fn tls_state(tls: &TlsStatus) -> TlsView {
    TlsView {
        certificate_expiry: tls.certificate_expiry.map(rfc3339),
        reloads_ok: tls.reloads_ok,
        reloads_failed: tls.reloads_failed,
        handshake_failures: by_reason(&tls.handshake_failures),
        connections_closed: by_reason(&tls.connections_closed),
        identity_mismatches: tls.identity_mismatches.iter().collect(),
    }
}

fn by_reason(counts: &Tally<(Direction, &'static str)>) -> Vec<ByReason> {
    let row = |((direction, reason), count): ((Direction, &'static str), u64)| ByReason {
        direction: direction.label(),
        reason,
        count,
    };
    counts.iter().map(row).collect()
}

fn by_type(counts: &PerKind<u64>) -> CountsByLabel {
    used(counts).collect()
}

fn by_channel(counts: &PerChannel<u64>) -> CountsByLabel {
    counts.iter().map(|(channel, count)| (channel.label(), *count)).collect()
}

fn passed(counts: &PerChannel<PerKind<u64>>) -> Vec<Passed> {
    let rows = counts.iter().flat_map(|(channel, counts)| {
        used(counts).map(move |(kind, count)| Passed { r#type: kind, channel: channel.label(), count })
    });
    rows.collect()
}

fn used(counts: &PerKind<u64>) -> impl Iterator<Item = (&'static str, u64)> {
    counts.iter().filter(|(_, count)| **count > 0).map(|(kind, count)| (kind.label(), *count))
}

/// Milliseconds are precise enough for people, and shorter.
pub(in crate::admin) fn rfc3339(time: SystemTime) -> String {
    let time = OffsetDateTime::from(time);
    let time = time.replace_millisecond(time.millisecond()).unwrap_or(time);
    time.format(&Rfc3339).unwrap_or_default()
}
