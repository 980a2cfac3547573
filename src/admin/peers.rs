//! `/api/peers`: everything about every peer, as JSON.
//!
//! Field names are stable; fields may be added. IDs are hexadecimal, times RFC 3339, durations seconds. What is not
//! known is `null`. Counts that never happened are left out of maps and lists.
//!
//! ```json
//! {"local": "8e9e05c52164694d",
//!  "peers": [{
//!    "id": "91bc3c398fb3c146", "name": "n2", "urls": ["http://127.0.0.1:2382"],
//!    "remote": false, "paused": false, "active": true, "active_since": "2026-01-01T00:00:00Z",
//!    "reachable": true, "round_trip_seconds": 0.0002, "round_trip_p50_seconds": 0.0002,
//!    "round_trip_p99_seconds": 0.0004, "clock_offset_seconds": 0.00001,
//!    "probes": {"ok": 12},
//!    "streams": [{"channel": "msgapp", "direction": "in", "up": true, "last_frame": "2026-01-01T00:00:12Z"}],
//!    "attempts": [{"channel": "msgapp", "result": "ok", "count": 1}],
//!    "losses": [{"channel": "msgapp", "direction": "in", "reason": "eof", "count": 1}],
//!    "frame_errors": [{"channel": "msgapp", "kind": "length", "count": 1}],
//!    "outgoing": {
//!      "balanced": true, "offered": {"MsgApp": 3},
//!      "sent": [{"type": "MsgApp", "channel": "msgapp", "count": 2}],
//!      "dropped": [{"type": "MsgApp", "channel": "msgapp", "reason": "queue_full", "count": 1}],
//!      "queued": {"msgapp": 0, "message": 0, "pipeline": 0, "snapshot": 0},
//!      "bytes": {"msgapp": 512, "message": 0, "pipeline": 0, "snapshot": 0}},
//!    "incoming": {
//!      "balanced": true, "received": [{"type": "MsgAppResp", "channel": "message", "count": 2}],
//!      "waiting": 0, "processed": {"MsgAppResp": 2}, "rejected": [],
//!      "bytes": {"msgapp": 0, "message": 128, "pipeline": 0, "snapshot": 0}},
//!    "snapshots": {"in": {"ok": 0, "failed": 0, "in_flight": 0, "bytes": 0},
//!                  "out": {"ok": 0, "failed": 0, "in_flight": 0, "bytes": 0}},
//!    "last_error": {"time": "2026-01-01T00:00:05Z", "error": "connection refused"}}],
//!  "strangers": {"balanced": true, "received": [], "waiting": 0, "processed": {}, "rejected": [], "bytes": {}},
//!  "unroutable": {"unknown_peer": 1},
//!  "tls": null}
//! ```

use std::{
    collections::BTreeMap,
    convert::Infallible,
    io::Write,
    time::{Duration, SystemTime},
};

use axum::{
    body::{Body, Bytes},
    http::header,
    response::{IntoResponse, Response},
};
use futures_util::stream;
use serde::Serialize;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::StatusSource;
use crate::{
    id::MemberId,
    metrics::{Channel, Direction, Incoming, KINDS, Link, Outgoing, Snapshots, Tally, kind_label},
    tls::TlsStatus,
    transport::status::{PeerStatus, TransportStatus},
};

type Counts = BTreeMap<&'static str, u64>;

#[derive(Serialize)]
struct Peer<'a> {
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
    clock_offset_seconds: Option<f64>,
    probes: Counts,
    streams: Vec<Stream>,
    attempts: Vec<Attempts>,
    losses: Vec<Losses>,
    frame_errors: Vec<FrameErrors>,
    outgoing: OutgoingLedger,
    incoming: IncomingLedger,
    snapshots: Ways<SnapshotCounts>,
    last_error: Option<LastError<'a>>,
}

#[derive(Serialize)]
struct Stream {
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
struct OutgoingLedger {
    balanced: bool,
    offered: Counts,
    sent: Vec<Passed>,
    dropped: Vec<Dropped>,
    queued: Counts,
    bytes: Counts,
}

#[derive(Serialize)]
struct IncomingLedger {
    balanced: bool,
    received: Vec<Passed>,
    waiting: u64,
    processed: Counts,
    rejected: Vec<Rejected>,
    bytes: Counts,
}

#[derive(Serialize)]
struct Passed {
    r#type: &'static str,
    channel: &'static str,
    count: u64,
}

#[derive(Serialize)]
struct Dropped {
    r#type: &'static str,
    channel: &'static str,
    reason: &'static str,
    count: u64,
}

#[derive(Serialize)]
struct Rejected {
    r#type: &'static str,
    reason: &'static str,
    count: u64,
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
    in_flight: u64,
    bytes: u64,
}

#[derive(Serialize)]
struct LastError<'a> {
    time: String,
    error: &'a str,
}

#[derive(Serialize)]
struct TlsState {
    certificate_expiry: Option<String>,
    reloads_ok: u64,
    reloads_failed: u64,
    handshake_failures: Vec<HandshakeFailures>,
}

#[derive(Serialize)]
struct HandshakeFailures {
    direction: &'static str,
    reason: &'static str,
    count: u64,
}

pub(super) async fn answer(source: StatusSource) -> Response {
    let body = Body::from_stream(stream::iter(pieces(source()).map(Ok::<Bytes, Infallible>)));
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// The document, a peer at a time.
fn pieces(status: TransportStatus) -> impl Iterator<Item = Bytes> {
    let TransportStatus {
        local,
        peers,
        strangers,
        unroutable,
        tls,
    } = status;
    let head = format!("{{\"local\":\"{local}\",\"peers\":[");
    let mut tail = Vec::from(*b"],\"strangers\":");
    write_json(&mut tail, &incoming(&strangers));
    tail.extend_from_slice(b",\"unroutable\":");
    write_json(&mut tail, &unroutable.iter().collect::<Counts>());
    tail.extend_from_slice(b",\"tls\":");
    write_json(&mut tail, &tls.as_ref().map(tls_state));
    tail.extend_from_slice(b"}\n");
    let peers = peers.into_iter().enumerate().map(|(place, status)| {
        let mut text = Vec::new();
        if place > 0 {
            text.push(b',');
        }
        write_json(&mut text, &peer(&status));
        Bytes::from(text)
    });
    std::iter::once(Bytes::from(head))
        .chain(peers)
        .chain(std::iter::once(Bytes::from(tail)))
}

fn write_json(text: &mut Vec<u8>, value: &impl Serialize) {
    let mut writer = text;
    serde_json::to_writer(&mut writer, value).expect("our own types, with text for keys, always serialize");
    writer.flush().expect("a vector takes what is written to it");
}

fn peer(status: &PeerStatus) -> Peer<'_> {
    let link = &status.link;
    Peer {
        id: status.id,
        name: &status.name,
        urls: status.urls.iter().map(AsRef::as_ref).collect(),
        remote: status.remote,
        paused: status.paused,
        active: link.active_since.is_some(),
        active_since: link.active_since.map(rfc3339),
        reachable: link.reachable,
        round_trip_seconds: link.round_trip.as_ref().map(Duration::as_secs_f64),
        round_trip_p50_seconds: link.probe_seconds.quantile(0.5),
        round_trip_p99_seconds: link.probe_seconds.quantile(0.99),
        clock_offset_seconds: link.clock_offset,
        probes: link
            .probes
            .iter()
            .map(|(result, count)| (result.label(), count))
            .collect(),
        streams: streams(status),
        attempts: attempts(link),
        losses: losses(link),
        frame_errors: frame_errors(link),
        outgoing: outgoing(&status.outgoing),
        incoming: incoming(&status.incoming),
        snapshots: Ways {
            r#in: snapshots(&link.snapshots[Direction::In as usize]),
            out: snapshots(&link.snapshots[Direction::Out as usize]),
        },
        last_error: link.last_error.as_ref().map(|(time, error)| LastError {
            time: rfc3339(*time),
            error,
        }),
    }
}

fn streams(status: &PeerStatus) -> Vec<Stream> {
    let last_frames = [status.incoming.last_frame, status.outgoing.last_frame];
    let mut streams = Vec::new();
    for (index, ways) in status.link.stream_up.iter().enumerate().filter(|_| !status.remote) {
        for ((direction, up), last_frame) in Direction::ALL.iter().zip(ways).zip(last_frames) {
            streams.push(Stream {
                channel: Channel::ALL[index].label(),
                direction: direction.label(),
                up: *up,
                last_frame: last_frame[index].map(rfc3339),
            });
        }
    }
    streams
}

fn attempts(link: &Link) -> Vec<Attempts> {
    let row = |((channel, result), count): ((Channel, crate::metrics::AttemptResult), u64)| Attempts {
        channel: channel.label(),
        result: result.label(),
        count,
    };
    link.attempts.iter().map(row).collect()
}

fn losses(link: &Link) -> Vec<Losses> {
    let row = |((channel, direction, reason), count): ((Channel, Direction, crate::metrics::LossReason), u64)| Losses {
        channel: channel.label(),
        direction: direction.label(),
        reason: reason.label(),
        count,
    };
    link.losses.iter().map(row).collect()
}

fn frame_errors(link: &Link) -> Vec<FrameErrors> {
    link.frame_errors
        .iter()
        .map(|((channel, kind), count)| FrameErrors {
            channel: channel.label(),
            kind,
            count,
        })
        .collect()
}

fn outgoing(ledger: &Outgoing) -> OutgoingLedger {
    let dropped = ledger.dropped.iter().map(|((kind, channel, reason), count)| Dropped {
        r#type: kind_label(kind),
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

fn incoming(ledger: &Incoming) -> IncomingLedger {
    let rejected = ledger.rejected.iter().map(|((kind, reason), count)| Rejected {
        r#type: kind_label(kind),
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
    let Snapshots {
        ok,
        failed,
        in_flight,
        bytes,
        ..
    } = *snapshots;
    SnapshotCounts {
        ok,
        failed,
        in_flight,
        bytes,
    }
}

fn tls_state(tls: &TlsStatus) -> TlsState {
    let failures: &Tally<(Direction, &'static str)> = &tls.handshake_failures;
    TlsState {
        certificate_expiry: tls.certificate_expiry.map(rfc3339),
        reloads_ok: tls.reloads_ok,
        reloads_failed: tls.reloads_failed,
        handshake_failures: failures
            .iter()
            .map(|((direction, reason), count)| HandshakeFailures {
                direction: direction.label(),
                reason,
                count,
            })
            .collect(),
    }
}

fn by_type(counts: &[u64; KINDS]) -> Counts {
    used(counts).collect()
}

fn by_channel(counts: &[u64; Channel::COUNT]) -> Counts {
    Channel::ALL
        .iter()
        .map(|channel| channel.label())
        .zip(counts.iter().copied())
        .collect()
}

fn passed(counts: &[[u64; KINDS]; Channel::COUNT]) -> Vec<Passed> {
    let rows = Channel::ALL.iter().zip(counts).flat_map(|(channel, counts)| {
        used(counts).map(|(kind, count)| Passed {
            r#type: kind,
            channel: channel.label(),
            count,
        })
    });
    rows.collect()
}

fn used(counts: &[u64; KINDS]) -> impl Iterator<Item = (&'static str, u64)> + '_ {
    counts
        .iter()
        .enumerate()
        .filter(|(_, count)| **count > 0)
        .map(|(kind, count)| (kind_label(kind), *count))
}

/// Milliseconds are enough for people, and shorter.
fn rfc3339(time: SystemTime) -> String {
    let time = OffsetDateTime::from(time);
    let time = time.replace_millisecond(time.millisecond()).unwrap_or(time);
    time.format(&Rfc3339).unwrap_or_default()
}
