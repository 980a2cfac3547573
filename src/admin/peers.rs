//! `/api/peers`: the state of every peer, as JSON.
//!
//! Field names are stable; new fields may be added. IDs are hexadecimal, times are RFC 3339, durations are in seconds.
//! An unknown value is `null`. Maps and lists leave out counts of zero. `time` is when the status was read, by the same
//! clock as all its other times. `checks` are those of `/readyz`. `round_trip_history_seconds` has one entry for each
//! of the last 180 probes, the newest last, with `null` for a failed probe. `view` is how the peer reaches its own
//! peers, as it answered the newest probe, and when. It is `null` if that probe failed, or if the peer does not say
//! (etcd). The numbers of snapshots under way cover all of them together; the rate is that of the last ten seconds.
//!
//! ```json
//! {"local": "8e9e05c52164694d", "name": "n1", "cluster": "cdf818194e3a8c32", "version": "0.1.0",
//!  "time": "2026-01-01T00:00:12.5Z", "started": "2026-01-01T00:00:00Z",
//!  "probe": {"interval_seconds": 1.0, "timeout_seconds": 0.7},
//!  "raft": {"role": "follower", "term": 2, "leader": "91bc3c398fb3c146", "commit": 12, "applied": 12},
//!  "checks": [{"name": "leader", "failure": null}],
//!  "peers": [{
//!    "id": "91bc3c398fb3c146", "name": "n2", "urls": ["http://127.0.0.1:2382"],
//!    "remote": false, "paused": false, "active": true, "active_since": "2026-01-01T00:00:00Z",
//!    "reachable": true, "round_trip_seconds": 0.0002, "round_trip_p50_seconds": 0.0002,
//!    "round_trip_p99_seconds": 0.0004, "clock_offset_seconds": 0.00001,
//!    "last_probe": "2026-01-01T00:00:12Z", "round_trip_history_seconds": [0.0002, null, 0.0003],
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
//!    "unconfirmed": {"msgapp": 0, "message": null}, "lost": {"msgapp": 0, "message": 0},
//!    "append_round_trip_p50_seconds": 0.0016, "append_round_trip_p99_seconds": 0.0032,
//!    "snapshots": {"in": {"ok": 0, "failed": 0, "broken_off": 0, "in_flight": 0, "bytes": 0, "resumed_bytes": 0,
//!                         "resent_bytes": 0, "restarts": [{"reason": "another", "count": 1}], "progress_ratio": null,
//!                         "bytes_left": null, "bytes_per_second": null, "seconds_left": null},
//!                  "out": {"ok": 0, "failed": 0, "broken_off": 0, "in_flight": 1, "bytes": 4096, "resumed_bytes": 0,
//!                          "resent_bytes": 0, "restarts": [], "progress_ratio": 0.25,
//!                          "bytes_left": 12288, "bytes_per_second": 1024.0, "seconds_left": 12.0}},
//!    "view": {"time": "2026-01-01T00:00:12Z", "peers": [
//!      {"id": "8e9e05c52164694d", "reachable": true, "round_trip_seconds": 0.0002, "age_seconds": 0.4}]},
//!    "last_error": {"time": "2026-01-01T00:00:05Z", "error": "connection refused"}}],
//!  "strangers": {"balanced": true, "received": [], "waiting": 0, "processed": {}, "rejected": [], "bytes": {}},
//!  "others": {"balanced": true, "offered": {}, "sent": [], "dropped": [], "queued": {}, "bytes": {}},
//!  "unroutable": {"unknown_peer": 1},
//!  "tls": null}
//! ```

use axum::{body::Bytes, response::Response};
use serde::Serialize;

use super::{AboutSource, HealthSource, StatusSource, pieces::Gate};
use crate::transport::status::TransportStatus;

mod head;
mod view;

pub(super) use view::rfc3339;

pub(super) fn answer(source: &StatusSource, about: &AboutSource, health: &HealthSource, gate: &Gate) -> Response {
    gate.answer("application/json", || {
        let status = source();
        let mut head = Vec::new();
        write_json(&mut head, &head::head(&status, &about(), &health().ready));
        pieces(head, status)
    })
}

/// The document, one peer per piece. The peers follow the fields of `head`.
fn pieces(mut head: Vec<u8>, status: TransportStatus) -> impl Iterator<Item = Bytes> {
    let TransportStatus { peers, strangers, others, unroutable, tls, .. } = status;
    head.pop(); // the brace that ends it
    head.extend_from_slice(b",\"peers\":[");
    let mut tail = Vec::from(*b"],\"strangers\":");
    write_json(&mut tail, &strangers.as_ref().map(view::incoming));
    tail.extend_from_slice(b",\"others\":");
    write_json(&mut tail, &others.as_ref().map(view::outgoing));
    tail.extend_from_slice(b",\"unroutable\":");
    write_json(&mut tail, &unroutable.iter().collect::<view::CountsByLabel>());
    tail.extend_from_slice(b",\"tls\":");
    write_json(&mut tail, &tls.as_ref().map(view::tls_state));
    tail.extend_from_slice(b"}\n");
    let peers = peers.into_iter().enumerate().map(|(place, status)| {
        let mut text = Vec::new();
        if place > 0 {
            text.push(b',');
        }
        write_json(&mut text, &view::peer(&status));
        Bytes::from(text)
    });
    std::iter::once(Bytes::from(head)).chain(peers).chain(std::iter::once(Bytes::from(tail)))
}

fn write_json(text: &mut Vec<u8>, value: &impl Serialize) {
    serde_json::to_writer(text, value).expect("our own types, with text for keys, always serialize");
}
