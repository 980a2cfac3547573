//! `/api/events`: the last 256 transitions as JSON, oldest first. `?after=ID` leaves out the events up to that ID.
//!
//! Field names and kinds are stable; new ones may be added. An `id` grows by one with each event and is not reused
//! while the member runs. If an `id` is below one that was seen before, the member was restarted.
//!
//! ```json
//! {"events": [{"id": 7, "time": "2026-01-01T00:00:05Z", "kind": "stream_lost", "peer": "91bc3c398fb3c146",
//!              "channel": "msgapp", "direction": "in", "reason": "eof", "detail": null}]}
//! ```
//!
//! | kind | `reason` |
//! |---|---|
//! | `peer_added`, `peer_updated`, `peer_removed`, `remote_added`, `remote_removed` | – |
//! | `peer_reachable`, `peer_unreachable` | –; how the probe failed (the `result` of `rafthttp_probes_total`) |
//! | `peer_active`, `peer_inactive` | – |
//! | `stream_attached`, `stream_lost` | –; the `reason` of `rafthttp_stream_losses_total` |
//! | `snapshot_started`, `snapshot_ended` | –; `ok`, `failed`, or `broken_off` where what came is kept |
//! | `snapshot_resumed`, `snapshot_restarted` | –; the `reason` of `rafthttp_snapshot_restarts_total` |
//! | `tls_reloaded` | `ok` or `failed` |
//! | `tls_connections_closed` | the `reason` of `rafthttp_tls_connections_closed_total` |
//! | `identity_mismatch` | `taken` or `refused` |
//! | `member_removed` | –; `peer` says that this member was removed |
//! | `snapshot_overtaken` | –; `peer` starts over with another snapshot, because the log was compacted past the last one |
//! | `snapshot_not_spooled` | –; members that are behind get no snapshot, and `detail` says why |
//! | `no_space`, `space_again` | –; `peer` is the member whose data exceeded their quota, this one or another |
//! | `two_histories` | –; the history of `peer` contradicts this member's, and `detail` says where |
//! | `suspended`, `resumed` | –; `detail` says why, or from which entry on |
//! | `leader_changed`, `role_changed` | –; the role. `peer` is the leader, `null` while there is none |

use axum::{
    Json,
    extract::Query,
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};

use super::peers::rfc3339;
use crate::{
    id::MemberId,
    ledger::{Channel, Direction},
    telemetry::{Event, EventKind, Events},
};

#[derive(Deserialize)]
pub(super) struct EventRange {
    #[serde(default)]
    after: u64,
}

#[derive(Serialize)]
struct EventsView {
    events: Vec<EventView>,
}

#[derive(Serialize)]
struct EventView {
    id: u64,
    time: String,
    kind: EventKind,
    peer: Option<MemberId>,
    channel: Option<Channel>,
    direction: Option<Direction>,
    reason: Option<&'static str>,
    detail: Option<String>,
}

pub(super) fn answer(events: &Events, Query(EventRange { after }): Query<EventRange>) -> Response {
    Json(EventsView { events: events.after(after).into_iter().map(EventView::from).collect() }).into_response()
}

impl From<Event> for EventView {
    fn from(event: Event) -> Self {
        let Event { id, time, kind, peer, channel, direction, reason, detail } = event;
        Self { id, time: rfc3339(time), kind, peer, channel, direction, reason, detail }
    }
}
