//! The admin endpoints of a node that runs.

use std::{io, net::TcpListener as StdTcpListener, sync::Arc};

#[cfg(target_os = "linux")]
use prometheus::process_collector::ProcessCollector;
use rafthttp::{
    admin::{self, Admin},
    metrics::Options,
    node::Node,
};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;

/// Why the admin endpoints could not be served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServingError {
    /// The listener is none that the runtime takes.
    #[error("metrics listener: {0}")]
    Listener(#[from] io::Error),
    /// The registry has such metrics already.
    #[error("metrics of the process: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// The metrics listeners of a node.
pub(crate) struct Serving {
    tasks: JoinSet<()>,
    stop: CancellationToken,
}

impl Serving {
    /// Serves what operators look at on listeners that are bound already.
    pub(crate) fn start(
        listeners: Vec<StdTcpListener>,
        node: &Node,
        registry: prometheus::Registry,
        options: Options,
    ) -> Result<Self, ServingError> {
        #[cfg(target_os = "linux")]
        registry.register(Box::new(ProcessCollector::for_self()))?;
        let transport = node.transport().clone();
        let router = admin::router(Admin {
            registry,
            transport: Some(Arc::new(move || transport.status())),
            events: Some(node.transport().events().clone()),
            options,
            about: node.about(),
            health: node.health(),
        });
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        for listener in listeners {
            listener.set_nonblocking(true)?;
            tasks.spawn(admin::serve(TcpListener::from_std(listener)?, router.clone(), stop.clone()));
        }
        Ok(Self { tasks, stop })
    }

    /// Ends the listeners; returns when every connection has ended.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.tasks.join_all().await;
    }
}
