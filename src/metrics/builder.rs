//! The settings of a transport's metrics.

use super::{Collector, Options};
use crate::transport::Builder;

impl Builder {
    /// The registry that shows the metrics. Default: none; the metrics are then only in
    /// [`Transport::status`](crate::Transport::status).
    #[must_use]
    pub fn registry(mut self, registry: &prometheus::Registry) -> Self {
        let registry = registry.clone();
        self.registration =
            Some(Box::new(move |source, etcd| registry.register(Box::new(Collector::new(source, Options { etcd })))));
        self
    }

    /// Whether the metrics are also exported under etcd's own names. Default: true.
    #[must_use]
    pub fn etcd_metrics(mut self, on: bool) -> Self {
        self.etcd_metrics = on;
        self
    }
}
