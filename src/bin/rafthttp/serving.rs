//! The admin endpoints of a process.

use std::{io, net::TcpListener as StdTcpListener, sync::Arc};

#[cfg(target_os = "linux")]
use prometheus::process_collector::ProcessCollector;
use rafthttp::{
    Tls,
    admin::{self, About, Admin, Check, Health},
    metrics::Options,
    node::Node,
};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;

/// Why the admin endpoints cannot be served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServingError {
    /// The runtime does not accept the listener.
    #[error("metrics listener: {0}")]
    Listener(#[from] io::Error),
    /// The registry already has these metrics.
    #[error("metrics of the process: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// The admin endpoints of a node.
pub(crate) fn node_admin(node: &Node, registry: prometheus::Registry, options: Options) -> Admin {
    let transport = node.transport().clone();
    Admin {
        registry,
        events: Some(transport.events().clone()),
        transport: Some(Arc::new(move || transport.status())),
        options,
        about: node.about(),
        health: node.health(),
    }
}

/// The admin endpoints of a node that waits for its cluster: it is alive, and not ready.
pub(crate) fn waiting_admin() -> Admin {
    let health = || Health {
        live: Vec::new(),
        ready: vec![Check::failed("started", "this member waits for its cluster: its log says for which members")],
    };
    Admin {
        registry: prometheus::Registry::new(),
        events: None,
        transport: None,
        options: Options::default(),
        about: Arc::new(About::default),
        health: Arc::new(health),
    }
}

/// A bound metrics listener, with its certificates if it is https.
pub(crate) struct MetricsListener {
    pub(crate) listener: StdTcpListener,
    pub(crate) tls: Option<Tls>,
}

impl MetricsListener {
    /// Another handle of the same port, to be served later.
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { listener: self.listener.try_clone()?, tls: self.tls.clone() })
    }

    /// The URL of the listener.
    pub(crate) fn url(&self) -> io::Result<String> {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        Ok(format!("{scheme}://{}", self.listener.local_addr()?))
    }
}

/// The metrics listeners of a process.
pub(crate) struct Serving {
    tasks: JoinSet<()>,
    stop: CancellationToken,
}

impl Serving {
    /// Serves the admin endpoints, with the process's own metrics, on bound listeners.
    pub(crate) fn start(listeners: Vec<MetricsListener>, admin: Admin) -> Result<Self, ServingError> {
        #[cfg(target_os = "linux")]
        admin.registry.register(Box::new(ProcessCollector::for_self()))?;
        let router = admin::router(admin);
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        for MetricsListener { listener, tls } in listeners {
            listener.set_nonblocking(true)?;
            let server = admin::server(router.clone());
            let server = match tls {
                Some(tls) => server.tls(tls),
                None => server,
            };
            tasks.spawn(server.serve(TcpListener::from_std(listener)?, stop.clone()));
        }
        Ok(Self { tasks, stop })
    }

    /// Ends the listeners, and returns when every connection has ended.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.tasks.join_all().await;
    }
}
