//! How a transport is told to show its metrics.

use super::{Collector, Options};
use crate::transport::Builder;

impl Builder {
    /// The registry that shows the metrics. Default: none, and only [`Transport::status`](crate::Transport::status) does.
    #[must_use]
    pub fn registry(mut self, registry: &prometheus::Registry) -> Self {
        let registry = registry.clone();
        self.registration =
            Some(Box::new(move |source, etcd| registry.register(Box::new(Collector::new(source, Options { etcd })))));
        self
    }

    /// Whether etcd's own names are exported too. Default: true.
    #[must_use]
    pub fn etcd_metrics(mut self, on: bool) -> Self {
        self.etcd_metrics = on;
        self
    }
}
