//! The library's families of certificates and handshakes.

use super::{
    families::unix_seconds,
    family::{Family, MetricKind, Of},
};

/// The families of certificates, of handshakes, and of connections that were closed because of certificates.
pub(crate) static FAMILIES: &[Family] = &[
    Family {
        name: "rafthttp_tls_certificate_expiry_timestamp_seconds",
        help: "Expiry of the chain that we show to peers: the earliest of its certificates and its CA.",
        kind: MetricKind::Gauge,
        labels: &[],
        of: Of::Transport(|status, samples| {
            if let Some(expiry) = status.tls.as_ref().and_then(|tls| tls.certificate_expiry) {
                samples.gauge(&[], unix_seconds(expiry));
            }
        }),
    },
    Family {
        name: "rafthttp_tls_certificate_part_expiry_timestamp_seconds",
        help: "Expiry of each part of that chain: leaf, intermediate (the earliest), authority.",
        kind: MetricKind::Gauge,
        labels: &["part"],
        of: Of::Transport(|status, samples| {
            for (part, end) in status.tls.iter().flat_map(|tls| &tls.certificate_parts) {
                samples.gauge(&[part.label()], unix_seconds(*end));
            }
        }),
    },
    Family {
        name: "rafthttp_tls_reloads_total",
        help: "Changed certificate files, by result: ok, or failed (the old ones stay in use).",
        kind: MetricKind::Counter,
        labels: &["result"],
        of: Of::Transport(|status, samples| {
            if let Some(tls) = &status.tls {
                samples.count(&["ok"], tls.reloads_ok);
                samples.count(&["failed"], tls.reloads_failed);
            }
        }),
    },
    Family {
        name: "rafthttp_tls_handshake_failures_total",
        help: "Failed TLS handshakes with peers.",
        kind: MetricKind::Counter,
        labels: &["direction", "reason"],
        of: Of::Transport(|status, samples| {
            for ((direction, reason), count) in status.tls.iter().flat_map(|tls| tls.handshake_failures.iter()) {
                samples.count(&[direction.label(), reason], count);
            }
        }),
    },
    Family {
        name: "rafthttp_tls_connections_closed_total",
        help: "Open connections that were closed because the peer's certificate no longer verified.",
        kind: MetricKind::Counter,
        labels: &["direction", "reason"],
        of: Of::Transport(|status, samples| {
            for ((direction, reason), count) in status.tls.iter().flat_map(|tls| tls.connections_closed.iter()) {
                samples.count(&[direction.label(), reason], count);
            }
        }),
    },
    Family {
        name: "rafthttp_tls_crl_next_update_timestamp_seconds",
        help: "Time by which a newer list of revoked certificates is due.",
        kind: MetricKind::Gauge,
        labels: &[],
        of: Of::Transport(|status, samples| {
            if let Some(next) = status.tls.as_ref().and_then(|tls| tls.revocation_next_update) {
                samples.gauge(&[], unix_seconds(next));
            }
        }),
    },
    Family {
        name: "rafthttp_identity_mismatches_total",
        help: "Requests whose certificate is not valid for the member that they name as their sender.",
        kind: MetricKind::Counter,
        labels: &["request"],
        of: Of::Transport(|status, samples| {
            for (request, count) in status.tls.iter().flat_map(|tls| tls.identity_mismatches.iter()) {
                samples.count(&[request], count);
            }
        }),
    },
];
