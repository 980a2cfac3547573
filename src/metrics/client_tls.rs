//! Metrics of the TLS of a node's port for clients.

use prometheus::{
    core::{Collector, Desc},
    proto::MetricFamily,
};

use super::{
    collector::{Metrics, describe},
    families::unix_seconds,
    family::{MetricKind, Samples},
};
use crate::{
    ledger::Direction,
    tls::{Tls, TlsStatus},
};

/// A family: its name, help, type and labels, and a function that makes its samples.
struct TlsFamily {
    name: &'static str,
    help: &'static str,
    kind: MetricKind,
    labels: &'static [&'static str],
    of: fn(&TlsStatus, &mut Metrics),
}

static FAMILIES: [TlsFamily; 3] = [
    TlsFamily {
        name: "rafthttp_client_tls_certificate_expiry_timestamp_seconds",
        help: "Expiry of the certificate that we show to clients.",
        kind: MetricKind::Gauge,
        labels: &[],
        of: |tls, samples| {
            if let Some(expiry) = tls.certificate_expiry {
                samples.gauge(&[], unix_seconds(expiry));
            }
        },
    },
    TlsFamily {
        name: "rafthttp_client_tls_reloads_total",
        help: "Changed certificate files of the client port, by result: ok, or failed (the old ones stay in use).",
        kind: MetricKind::Counter,
        labels: &["result"],
        of: |tls, samples| {
            samples.count(&["ok"], tls.reloads_ok);
            samples.count(&["failed"], tls.reloads_failed);
        },
    },
    TlsFamily {
        name: "rafthttp_client_tls_handshake_failures_total",
        help: "Failed TLS handshakes on the ports for clients and metrics; plain HTTP has the reason protocol.",
        kind: MetricKind::Counter,
        labels: &["reason"],
        of: |tls, samples| {
            // If the certificates serve peers as well, they also count handshakes that this member dialled. Those would
            // be a second sample of the same reason.
            let accepted = tls.handshake_failures.iter().filter(|((direction, _), _)| *direction == Direction::In);
            for ((_, reason), count) in accepted {
                samples.count(&[reason], count);
            }
        },
    },
];

/// A collector of the three `rafthttp_client_tls_…` families for a `prometheus::Registry`. They are about the
/// certificates of the ports for clients and metrics.
pub fn client_tls_collector(tls: &Tls) -> Box<dyn Collector> {
    let descriptions = FAMILIES.iter().map(|family| describe(family.name, family.help, family.labels)).collect();
    Box::new(ClientTlsCollector { tls: tls.clone(), descriptions })
}

struct ClientTlsCollector {
    tls: Tls,
    descriptions: Vec<Desc>,
}

impl Collector for ClientTlsCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let status = self.tls.status();
        let collect = |TlsFamily { name, help, kind, labels, of }: &TlsFamily| {
            let mut metrics = Metrics::new(*kind, labels);
            of(&status, &mut metrics);
            metrics.into_family(name, help)
        };
        // A family without samples is left out: the text format cannot express it.
        FAMILIES.iter().map(collect).filter(|family| !family.get_metric().is_empty()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_certificates_dialled_is_no_handshake_on_the_port() {
        let mut status = TlsStatus::default();
        status.handshake_failures.add((Direction::In, "protocol"), 2);
        status.handshake_failures.add((Direction::Out, "protocol"), 7);
        let TlsFamily { name, help, kind, labels, of } = &FAMILIES[2];
        let mut metrics = Metrics::new(*kind, labels);
        of(&status, &mut metrics);
        let family = metrics.into_family(name, help);
        let counts: Vec<f64> = family.get_metric().iter().map(|metric| metric.get_counter().get_value()).collect();
        assert_eq!(counts, [2.0]);
    }
}
