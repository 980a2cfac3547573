//! The transport of one side, and the listener in front of it.

use std::{sync::Arc, time::Duration};

use rafthttp::{
    MemberId, PeerStatus, PeerUrl, Raft, Server, SnapshotStore, Tls, Transport,
    metrics::{Channel, Direction},
    router,
};
use tokio::{net::TcpListener, task::JoinSet, time::sleep};
use tokio_util::sync::CancellationToken;

use super::{BenchError, CLUSTER};
use crate::config::HostPort;

/// How often the state of the streams is checked while they open and close.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// The settings of either side.
#[derive(Debug)]
pub(crate) struct EndpointConfig {
    pub(crate) listen: HostPort,
    /// The certificates. With them, everything is https.
    pub(crate) tls: Option<Tls>,
    /// Whether the metrics are in a registry and gathered each second.
    pub(crate) metrics: bool,
    /// The share of messages that are traced.
    pub(crate) trace_ratio: f64,
}

/// A transport with its listener.
pub(super) struct Endpoint {
    pub(super) transport: Transport,
    scheme: &'static str,
    stop: CancellationToken,
    /// The listener, and the task that gathers the metrics.
    tasks: JoinSet<()>,
}

/// How often the metrics are gathered, as by a scrape. Most scrapes are less frequent.
const SCRAPE_EVERY: Duration = Duration::from_secs(1);

/// Gathers what a scrape of a member would, and discards it.
async fn scrape(registry: prometheus::Registry) {
    loop {
        sleep(SCRAPE_EVERY).await;
        drop(std::hint::black_box(registry.gather()));
    }
}

impl Endpoint {
    /// Listens, and builds the transport of `member`.
    pub(super) async fn start(
        config: EndpointConfig,
        member: MemberId,
        raft: Arc<dyn Raft>,
        snapshots: Option<SnapshotStore>,
    ) -> Result<Self, BenchError> {
        let cannot_listen = |error| BenchError::Listen { address: config.listen.to_string(), error };
        let listener = TcpListener::bind(config.listen.as_str()).await.map_err(cannot_listen)?;
        let address = listener.local_addr().map_err(cannot_listen)?;
        let scheme = if config.tls.is_some() { "https" } else { "http" };
        let registry = config.metrics.then(prometheus::Registry::new);

        let own = format!("{scheme}://{}:{}", config.listen.host(), address.port()).parse::<PeerUrl>()?;
        let mut builder = Transport::builder(member, CLUSTER, raft).urls(vec![own]).trace_ratio(config.trace_ratio);
        // The sink takes the first member that asks, which may listen on any address.
        builder = builder.skip_url_verification(true);
        if let Some(tls) = &config.tls {
            builder = builder.tls(tls.clone());
        }
        if let Some(registry) = &registry {
            builder = builder.registry(registry);
        }
        if let Some(snapshots) = snapshots {
            builder = builder.snapshots(snapshots);
        }
        let transport = builder.build()?;

        let stop = CancellationToken::new();
        let mut server = Server::new(router(&transport));
        if let Some(tls) = config.tls {
            server = server.tls(tls);
        }
        let mut tasks = JoinSet::new();
        tasks.spawn(server.serve(listener, stop.clone()));
        tracing::info!(%address, member = %member, "bench listens");
        if let Some(registry) = registry {
            let stop = stop.clone();
            tasks.spawn(async move { stop.run_until_cancelled(scrape(registry)).await.unwrap_or_default() });
        }
        Ok(Self { transport, scheme, stop, tasks })
    }

    /// The URL of a peer that listens at `address`.
    pub(super) fn url_of(&self, address: &HostPort) -> Result<PeerUrl, BenchError> {
        Ok(format!("{}://{address}", self.scheme).parse()?)
    }

    /// Waits until `condition` holds for the status of `peer`. Returns false if it does not within `time`.
    pub(super) async fn until(
        &self,
        peer: MemberId,
        time: Duration,
        condition: impl Fn(Option<&PeerStatus>) -> bool,
    ) -> bool {
        let holds = async {
            while !condition(self.transport.peers().iter().find(|status| status.id == peer)) {
                sleep(LOOK_EVERY).await;
            }
        };
        tokio::time::timeout(time, holds).await.is_ok()
    }

    /// Ends every stream and the listener. Returns when every task has ended.
    pub(super) async fn stop(mut self) {
        self.transport.stop().await;
        self.stop.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            if let Err(error) = ended {
                tracing::warn!(%error, "the listener did not end in good order");
            }
        }
    }
}

/// Whether both streams to the peer and both from it are open.
pub(super) fn is_connected(peer: Option<&PeerStatus>) -> bool {
    let up = |peer: &PeerStatus| {
        [Channel::MsgApp, Channel::Message]
            .into_iter()
            .all(|channel| is_up(peer, channel, Direction::In) && is_up(peer, channel, Direction::Out))
    };
    peer.is_some_and(up)
}

/// Whether no stream from the peer is open.
pub(super) fn is_gone(peer: Option<&PeerStatus>) -> bool {
    let silent = |peer: &PeerStatus| {
        [Channel::MsgApp, Channel::Message].into_iter().all(|channel| !is_up(peer, channel, Direction::In))
    };
    peer.is_none_or(silent)
}

fn is_up(peer: &PeerStatus, channel: Channel, direction: Direction) -> bool {
    channel.stream().is_some_and(|kind| peer.link.stream_up[kind][direction])
}
