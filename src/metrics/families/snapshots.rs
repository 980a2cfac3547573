//! The families of snapshots.

use crate::{
    ledger::{Direction, Histogram, RestartReason, Snapshots},
    metrics::family::{Family, LabelledMember, MetricKind, Of, Samples},
};

/// The families of the results, the progress and the rate of snapshots.
pub(crate) static FAMILIES: &[Family] = &[
    Family {
        name: "rafthttp_snapshots_total",
        help: "Snapshots by result.",
        kind: MetricKind::Counter,
        labels: &["peer", "direction", "result"],
        of: Of::Peers(|member, samples| {
            for (direction, snapshots) in member.status.link.snapshots.iter() {
                samples.count(&[member.id, direction.label(), "ok"], snapshots.ok);
                samples.count(&[member.id, direction.label(), "failed"], snapshots.failed);
            }
            let received = &member.status.link.snapshots[Direction::In];
            samples.count(&[member.id, Direction::In.label(), "broken_off"], received.broken_off);
        }),
    },
    Family {
        name: "rafthttp_snapshot_resumed_bytes_total",
        help: "Bytes of snapshots that were there already, each time that one went on where it had broken off.",
        kind: MetricKind::Counter,
        labels: &["peer", "direction"],
        of: Of::Peers(|member, samples| counts(member, samples, |snapshots| snapshots.resumed)),
    },
    Family {
        name: "rafthttp_snapshot_resent_bytes_total",
        help: "Bytes of snapshots that were sent, and had to be sent again after the snapshot broke off.",
        kind: MetricKind::Counter,
        labels: &["peer"],
        of: Of::Peers(|member, samples| {
            samples.count(&[member.id], member.status.link.snapshots[Direction::Out].resent);
        }),
    },
    Family {
        name: "rafthttp_snapshot_restarts_total",
        help: "Snapshots that had broken off and started over, by reason: their sender sent another one, the checksum \
               was not the sender's, or their receiver had lost what was there.",
        kind: MetricKind::Counter,
        labels: &["peer", "direction", "reason"],
        of: Of::Peers(|member, samples| {
            for (direction, snapshots) in member.status.link.snapshots.iter() {
                for reason in RestartReason::ALL.into_iter().filter(|reason| reason.is_of(direction)) {
                    let count = snapshots.restarts.of(reason);
                    samples.count(&[member.id, direction.label(), reason.label()], count);
                }
            }
        }),
    },
    Family {
        name: "rafthttp_snapshot_seconds",
        help: "Duration of successful snapshots.",
        kind: MetricKind::Histogram,
        labels: &["peer", "direction"],
        of: Of::Peers(|member, samples| {
            for (direction, snapshots) in member.status.link.snapshots.iter() {
                let labels = [member.id, direction.label()];
                samples.histogram(&labels, &snapshots.seconds, &Histogram::SNAPSHOT_BOUNDS);
            }
        }),
    },
    Family {
        name: "rafthttp_snapshot_bytes_total",
        help: "Bytes of snapshot bodies.",
        kind: MetricKind::Counter,
        labels: &["peer", "direction"],
        of: Of::Peers(|member, samples| counts(member, samples, |snapshots| snapshots.bytes)),
    },
    Family {
        name: "rafthttp_snapshots_in_flight",
        help: "Snapshots in progress.",
        kind: MetricKind::Gauge,
        labels: &["peer", "direction"],
        of: Of::Peers(|member, samples| gauges(member, samples, |snapshots| Some(snapshots.in_flight as f64))),
    },
    Family {
        name: "rafthttp_snapshot_progress_ratio",
        help: "Transferred share of the snapshots in progress, if their length is known.",
        kind: MetricKind::Gauge,
        labels: &["peer", "direction"],
        of: Of::Peers(|member, samples| gauges(member, samples, Snapshots::progress)),
    },
    Family {
        name: "rafthttp_snapshot_left_bytes",
        help: "Bytes that the snapshots in progress still lack, if their length is known.",
        kind: MetricKind::Gauge,
        labels: &["peer", "direction"],
        of: Of::Peers(|member, samples| gauges(member, samples, |snapshots| snapshots.left().map(|left| left as f64))),
    },
    Family {
        name: "rafthttp_snapshot_bytes_per_second",
        help: "Bytes per second of the snapshots in progress, over the last ten seconds.",
        kind: MetricKind::Gauge,
        labels: &["peer", "direction"],
        of: Of::Peers(|member, samples| gauges(member, samples, Snapshots::rate)),
    },
    Family {
        name: "rafthttp_snapshot_limit_bytes_per_second",
        help: "Bytes per second that all sent snapshots together may have, while there is a bound.",
        kind: MetricKind::Gauge,
        labels: &[],
        of: Of::Transport(|status, samples| {
            if let Some(limit) = status.pace.and_then(|pace| pace.limit) {
                samples.gauge(&[], limit);
            }
        }),
    },
    Family {
        name: "rafthttp_snapshot_yields_total",
        help: "How often snapshots became slower because heartbeats were late.",
        kind: MetricKind::Counter,
        labels: &[],
        of: Of::Transport(|status, samples| {
            if let Some(pace) = status.pace {
                samples.count(&[], pace.yields);
            }
        }),
    },
];

/// A counter of each direction.
fn counts(member: &LabelledMember<'_>, samples: &mut dyn Samples, of: impl Fn(&Snapshots) -> u64) {
    for (direction, snapshots) in member.status.link.snapshots.iter() {
        samples.count(&[member.id, direction.label()], of(snapshots));
    }
}

/// A gauge of each direction that has a value.
fn gauges(member: &LabelledMember<'_>, samples: &mut dyn Samples, of: impl Fn(&Snapshots) -> Option<f64>) {
    for (direction, snapshots) in member.status.link.snapshots.iter() {
        if let Some(value) = of(snapshots) {
            samples.gauge(&[member.id, direction.label()], value);
        }
    }
}
