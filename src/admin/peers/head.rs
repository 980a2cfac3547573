//! The fields of the member itself in the JSON of `/api/peers`.

use serde::Serialize;

use super::view::rfc3339;
use crate::{
    admin::{About, Check, RaftView},
    id::{ClusterId, MemberId},
    transport::status::TransportStatus,
};

#[derive(Serialize)]
pub(super) struct PeersHead<'a> {
    local: MemberId,
    name: &'a str,
    cluster: Option<ClusterId>,
    version: &'static str,
    time: Option<String>,
    started: Option<String>,
    probe: Option<ProbeView>,
    raft: Option<RaftView>,
    checks: Vec<CheckState<'a>>,
}

#[derive(Serialize)]
struct ProbeView {
    interval_seconds: f64,
    timeout_seconds: f64,
}

#[derive(Serialize)]
struct CheckState<'a> {
    name: &'static str,
    failure: Option<&'a str>,
}

pub(super) fn head<'a>(status: &TransportStatus, about: &'a About, checks: &'a [Check]) -> PeersHead<'a> {
    let check = |check: &'a Check| CheckState { name: check.name, failure: check.failure.as_deref() };
    PeersHead {
        local: status.local,
        name: &about.name,
        cluster: status.cluster,
        version: env!("CARGO_PKG_VERSION"),
        time: status.time.map(rfc3339),
        started: status.started.map(rfc3339),
        probe: status.probe.map(|(interval, timeout)| ProbeView {
            interval_seconds: interval.as_secs_f64(),
            timeout_seconds: timeout.as_secs_f64(),
        }),
        raft: about.raft,
        checks: checks.iter().map(check).collect(),
    }
}
