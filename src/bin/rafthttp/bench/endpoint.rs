//! The transport of one side, and the listener in front of it.

use std::{sync::Arc, time::Duration};

use rafthttp::{
    ConnectionLimits, MemberId, PeerStatus, PeerUrl, Raft, Server, SnapshotStore, Tls, Transport,
    admin::{About, Admin, Health},
    metrics::{Channel, Direction, Exposition, Options},
    router,
};
use tokio::{net::TcpListener, task::JoinSet, time::sleep};
use tokio_util::sync::CancellationToken;

use super::{BenchError, CLUSTER};
use crate::{
    config::HostPort,
    serving::{MetricsListener, Serving},
};

/// How often the state of the streams is checked while they open and close.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(10);

/// The settings of either side.
#[derive(Clone, Debug)]
pub(crate) struct EndpointConfig {
    pub(crate) listen: HostPort,
    /// The certificates. With them, everything is https.
    pub(crate) tls: Option<Tls>,
    /// How often the metrics are read, as by a scrape. `None` means never.
    pub(crate) scrape_every: Option<Duration>,
    /// The share of messages that are traced.
    pub(crate) trace_ratio: f64,
    /// How many other members there are. They may all have one address, unlike those of a cluster.
    pub(crate) peers: usize,
}

/// A transport with its listener.
pub(super) struct BenchEndpoint {
    pub(super) transport: Transport,
    scheme: &'static str,
    stop: CancellationToken,
    /// The listener, and the task that reads the metrics.
    tasks: JoinSet<()>,
}

/// Writes what a scrape of a member would, and discards it.
async fn scrape(transport: Transport, every: Duration) {
    // Half an interval before and after each, so that a time of whole intervals has as many scrapes.
    sleep(every / 2).await;
    loop {
        for piece in Exposition::new(transport.status(), &Options::default()) {
            drop(std::hint::black_box(piece));
        }
        sleep(every).await;
    }
}

impl BenchEndpoint {
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

        let own = format!("{scheme}://{}:{}", config.listen.host(), address.port()).parse::<PeerUrl>()?;
        let mut builder = Transport::builder(member, CLUSTER, raft).urls(vec![own]).trace_ratio(config.trace_ratio);
        // The sink takes the first member that asks, which may listen on any address.
        builder = builder.skip_url_verification(true);
        if let Some(tls) = &config.tls {
            builder = builder.tls(tls.clone());
        }
        if let Some(snapshots) = snapshots {
            builder = builder.snapshots(snapshots);
        }
        let transport = builder.build()?;

        let stop = CancellationToken::new();
        let limits = ConnectionLimits::default();
        let mut server = Server::new(router(&transport)).limits(ConnectionLimits {
            per_address: limits.per_address * config.peers,
            handshakes_per_address: limits.handshakes_per_address * config.peers,
            ..limits
        });
        if let Some(tls) = config.tls {
            server = server.tls(tls);
        }
        let mut tasks = JoinSet::new();
        tasks.spawn(server.serve(listener, stop.clone()));
        tracing::info!(%address, member = %member, "bench listens");
        if let Some(every) = config.scrape_every {
            let (scraped, stop) = (transport.clone(), stop.clone());
            tasks.spawn(async move { stop.run_until_cancelled(scrape(scraped, every)).await.unwrap_or_default() });
        }
        Ok(Self { transport, scheme, stop, tasks })
    }

    /// The URL of a peer that listens at `address`.
    pub(super) fn url_of(&self, address: &HostPort) -> Result<PeerUrl, BenchError> {
        Ok(format!("{}://{address}", self.scheme).parse()?)
    }

    /// Waits until `condition` holds for the status of the peers, which is read this often. Returns false if it does
    /// not hold within `time`.
    pub(super) async fn until(
        &self,
        time: Duration,
        every: Duration,
        condition: impl Fn(&[PeerStatus]) -> bool,
    ) -> bool {
        let holds = async {
            while !condition(&self.transport.peers()) {
                sleep(every).await;
            }
        };
        tokio::time::timeout(time, holds).await.is_ok()
    }

    /// Serves the metrics at this address, as a member does, until the process is told to stop.
    pub(super) async fn hold(&self, address: &HostPort, stop: &CancellationToken) -> Result<(), BenchError> {
        let cannot_listen = |error| BenchError::Listen { address: address.to_string(), error };
        let listener = std::net::TcpListener::bind(address.as_str()).map_err(cannot_listen)?;
        let transport = self.transport.clone();
        let admin = Admin {
            registry: prometheus::Registry::new(),
            transport: Some(Arc::new(move || transport.status())),
            events: Some(self.transport.events().clone()),
            options: Options::default(),
            about: Arc::new(About::default),
            health: Arc::new(Health::default),
        };
        let serving = Serving::start(vec![MetricsListener { listener, tls: None }], admin)?;
        stop.cancelled().await;
        serving.stop().await;
        Ok(())
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
pub(super) fn is_connected(peer: &PeerStatus) -> bool {
    [Channel::MsgApp, Channel::Message]
        .into_iter()
        .all(|channel| is_up(peer, channel, Direction::In) && is_up(peer, channel, Direction::Out))
}

/// Whether no stream from any of the peers is open.
pub(super) fn are_gone(peers: &[PeerStatus]) -> bool {
    let is_gone = |peer: &PeerStatus| {
        [Channel::MsgApp, Channel::Message].into_iter().all(|channel| !is_up(peer, channel, Direction::In))
    };
    peers.iter().all(is_gone)
}

fn is_up(peer: &PeerStatus, channel: Channel, direction: Direction) -> bool {
    channel.stream().is_some_and(|kind| peer.link.stream_up[kind][direction])
}
