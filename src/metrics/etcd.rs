//! etcd's own names, so that its alerts and dashboards work unchanged. Names, labels, help and buckets are as in etcd's
//! `rafthttp/metrics.go`, which is the same from 3.4 to 3.7.

use super::family::{Family, LabelledMember, MetricKind, Of};
use crate::ledger::{Direction, Snapshots};

/// etcd's `ExponentialBuckets(0.0001, 2, 16)`.
const ROUND_TRIP_BOUNDS: [f64; 16] = [
    0.0001, 0.0002, 0.0004, 0.0008, 0.0016, 0.0032, 0.0064, 0.0128, 0.0256, 0.0512, 0.1024, 0.2048, 0.4096, 0.8192,
    1.6384, 3.2768,
];

/// etcd's `ExponentialBuckets(0.1, 2, 10)`.
const SNAPSHOT_BOUNDS: [f64; 10] = [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 51.2];

/// The 15 families of etcd's rafthttp.
pub(crate) static FAMILIES: &[Family] = &[
    Family {
        name: "etcd_network_active_peers",
        help: "The current number of active peer connections.",
        kind: MetricKind::Gauge,
        labels: &["Local", "Remote"],
        of: Of::Peers(|member, samples| {
            let active = member.status.link.active_since.is_some();
            samples.gauge(&[member.local, member.id], f64::from(u8::from(active)));
        }),
    },
    Family {
        name: "etcd_network_disconnected_peers_total",
        help: "The total number of disconnected peers.",
        kind: MetricKind::Counter,
        labels: &["Local", "Remote"],
        of: Of::Peers(|member, samples| {
            samples.count(&[member.local, member.id], member.status.link.disconnected);
        }),
    },
    Family {
        name: "etcd_network_peer_sent_bytes_total",
        help: "The total number of bytes sent to peers.",
        kind: MetricKind::Counter,
        labels: &["To"],
        of: Of::Peers(|member, samples| samples.count(&[member.id], member.status.outgoing.etcd_bytes)),
    },
    Family {
        name: "etcd_network_peer_received_bytes_total",
        help: "The total number of bytes received from peers.",
        kind: MetricKind::Counter,
        labels: &["From"],
        of: Of::Peers(|member, samples| samples.count(&[member.id], member.status.incoming.etcd_bytes)),
    },
    Family {
        name: "etcd_network_peer_sent_failures_total",
        help: "The total number of send failures from peers.",
        kind: MetricKind::Counter,
        labels: &["To"],
        of: Of::Peers(|member, samples| samples.count(&[member.id], member.status.link.sent_failures)),
    },
    Family {
        name: "etcd_network_peer_received_failures_total",
        help: "The total number of receive failures from peers.",
        kind: MetricKind::Counter,
        labels: &["From"],
        of: Of::Peers(|member, samples| samples.count(&[member.id], member.status.link.received_failures)),
    },
    Family {
        name: "etcd_network_snapshot_send_success",
        help: "Total number of successful snapshot sends",
        kind: MetricKind::Counter,
        labels: &["To"],
        of: Of::Peers(|member, samples| samples.count(&[member.id], sent(member).ok)),
    },
    Family {
        name: "etcd_network_snapshot_send_inflights_total",
        help: "Total number of inflight snapshot sends",
        kind: MetricKind::Gauge,
        labels: &["To"],
        of: Of::Peers(|member, samples| samples.gauge(&[member.id], sent(member).in_flight as f64)),
    },
    Family {
        name: "etcd_network_snapshot_send_failures",
        help: "Total number of snapshot send failures",
        kind: MetricKind::Counter,
        labels: &["To"],
        of: Of::Peers(|member, samples| samples.count(&[member.id], sent(member).failed)),
    },
    Family {
        name: "etcd_network_snapshot_send_total_duration_seconds",
        help: "Total latency distributions of v3 snapshot sends",
        kind: MetricKind::Histogram,
        labels: &["To"],
        of: Of::Peers(|member, samples| samples.histogram(&[member.id], &sent(member).seconds, &SNAPSHOT_BOUNDS)),
    },
    Family {
        name: "etcd_network_snapshot_receive_success",
        help: "Total number of successful snapshot receives",
        kind: MetricKind::Counter,
        labels: &["From"],
        of: Of::Peers(|member, samples| samples.count(&[member.id], received(member).ok)),
    },
    Family {
        name: "etcd_network_snapshot_receive_inflights_total",
        help: "Total number of inflight snapshot receives",
        kind: MetricKind::Gauge,
        labels: &["From"],
        of: Of::Peers(|member, samples| samples.gauge(&[member.id], received(member).in_flight as f64)),
    },
    Family {
        name: "etcd_network_snapshot_receive_failures",
        help: "Total number of snapshot receive failures",
        kind: MetricKind::Counter,
        labels: &["From"],
        of: Of::Peers(|member, samples| samples.count(&[member.id], received(member).failed)),
    },
    Family {
        name: "etcd_network_snapshot_receive_total_duration_seconds",
        help: "Total latency distributions of v3 snapshot receives",
        kind: MetricKind::Histogram,
        labels: &["From"],
        of: Of::Peers(|member, samples| {
            samples.histogram(&[member.id], &received(member).seconds, &SNAPSHOT_BOUNDS);
        }),
    },
    Family {
        name: "etcd_network_peer_round_trip_time_seconds",
        help: "Round-Trip-Time histogram between peers",
        kind: MetricKind::Histogram,
        labels: &["To"],
        of: Of::Probed(|peer, samples| {
            samples.histogram(&[peer.id], &peer.status.link.probe_seconds, &ROUND_TRIP_BOUNDS);
        }),
    },
];

fn sent<'a>(member: &LabelledMember<'a>) -> &'a Snapshots {
    &member.status.link.snapshots[Direction::Out]
}

fn received<'a>(member: &LabelledMember<'a>) -> &'a Snapshots {
    &member.status.link.snapshots[Direction::In]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Histogram;

    #[test]
    fn our_histograms_have_every_edge_of_etcds() {
        assert!(ROUND_TRIP_BOUNDS.iter().all(|edge| Histogram::BOUNDS.contains(edge)));
        assert!(SNAPSHOT_BOUNDS.iter().all(|edge| Histogram::SNAPSHOT_BOUNDS.contains(edge)));
    }

    /// Go computes the edges by multiplication; the literals must be the same numbers.
    #[test]
    fn the_edges_are_those_that_go_computes() {
        for (bounds, start) in [(&ROUND_TRIP_BOUNDS[..], 0.0001), (&SNAPSHOT_BOUNDS[..], 0.1)] {
            let mut edge = start;
            for bound in bounds {
                assert_eq!(bound.to_bits(), f64::to_bits(edge));
                edge *= 2.0;
            }
        }
    }
}
