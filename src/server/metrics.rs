//! Metrics of a port's connections.

use prometheus::{IntCounterVec, IntGauge, Opts, Registry, core::Collector};

/// Metrics of peer ports. Cheap to clone: all clones are the same metrics, and several listeners may share them.
#[derive(Clone, Debug)]
pub struct ConnectionMetrics {
    open: IntGauge,
    shed: IntCounterVec,
}

/// Why a connection was closed although nothing was wrong with it: the label `reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shed {
    /// Its address had too many connections.
    Address,
    /// The port had too many connections.
    Port,
    /// The process had no file descriptor left.
    Descriptors,
    /// Too many closed connections had not ended yet.
    Busy,
}

impl Shed {
    const ALL: [Self; 4] = [Self::Address, Self::Port, Self::Descriptors, Self::Busy];

    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Address => "address",
            Self::Port => "port",
            Self::Descriptors => "descriptors",
            Self::Busy => "busy",
        }
    }
}

impl ConnectionMetrics {
    /// Metrics that are registered in `registry`.
    ///
    /// # Errors
    /// The registry already has metrics with these names.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let metrics = Self::new();
        let collectors: [Box<dyn Collector>; 2] = [Box::new(metrics.open.clone()), Box::new(metrics.shed.clone())];
        collectors.into_iter().try_for_each(|collector| registry.register(collector))?;
        Ok(metrics)
    }

    /// Metrics that are not shown anywhere.
    pub(super) fn new() -> Self {
        let open = IntGauge::new("rafthttp_connections", "Open connections on the peer port.");
        let shed =
            Opts::new("rafthttp_connections_shed_total", "Connections on the peer port that were closed to make room.");
        let shed = IntCounterVec::new(shed, &["reason"]).expect("the name and the label are legal");
        for reason in Shed::ALL {
            shed.with_label_values(&[reason.label()]);
        }
        Self { open: open.expect("the name is legal"), shed }
    }

    pub(super) fn opened(&self) {
        self.open.inc();
    }

    pub(super) fn closed(&self) {
        self.open.dec();
    }

    pub(super) fn shed(&self, reason: Shed) {
        self.shed.with_label_values(&[reason.label()]).inc();
    }
}
