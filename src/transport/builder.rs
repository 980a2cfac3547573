//! Builds a transport, and starts the tasks that belong to no peer.

use std::{
    sync::{Arc, Mutex, atomic::AtomicBool},
    time::Duration,
};

use arc_swap::ArcSwap;
use http::HeaderValue;
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Inner, Transport, TransportError, inbox::Inbox, limits::Limits, pace::Pace, peer::PeerContext, probe::ProbeConfig,
    raft::Raft, refusals::Untold, roster, snapshot::store::SnapshotStore, status::TransportStatus, summary,
};
use crate::{
    dial::{client::Client, identity::Identity, urls::PeerUrl},
    id::{ClusterId, Incarnation, MemberId},
    telemetry::{Events, Sampler},
    tls::Tls,
    wire::version::{DEFAULT_SERVER, Version},
    world::{LONGEST, World},
};

/// Reads the status of a transport. `None` once the transport is gone.
pub(crate) type ReadStatus = Box<dyn Fn() -> Option<TransportStatus> + Send + Sync>;

/// Registers a transport's metrics in a registry, with or without etcd's own names. `metrics` provides it, because that
/// module is above the transport, which does not know it.
pub(crate) type Registration = Box<dyn FnOnce(ReadStatus, bool) -> Result<(), prometheus::Error> + Send + Sync>;

/// Builds a [`Transport`]. Only the member, its cluster and its raft must be given.
///
/// ```
/// # use std::sync::Arc;
/// use std::time::Duration;
///
/// use rafthttp::{ClusterId, Limits, MemberId, Raft, SnapshotStore, Transport, TransportError};
///
/// # #[expect(dead_code, reason = "it is compiled, not run")]
/// fn build(raft: Arc<dyn Raft>, snapshots: SnapshotStore) -> Result<Transport, TransportError> {
///     let registry = prometheus::Registry::new();
///     Transport::builder(MemberId(1), ClusterId(0x1000), raft)
///         .urls(vec!["http://10.0.0.1:2380".parse()?]) // told to peers, so that strangers can be answered
///         .snapshots(snapshots)
///         .registry(&registry)
///         .trace_ratio(0.001)
///         .probe(Duration::from_secs(1), Duration::from_millis(700))
///         .limits(Limits { stream_queue: 8192, ..Limits::default() })
///         .build()
/// }
/// ```
pub struct Builder {
    identity: Identity,
    raft: Arc<dyn Raft>,
    tls: Option<Tls>,
    snapshots: Option<SnapshotStore>,
    pub(crate) registration: Option<Registration>,
    pub(crate) etcd_metrics: bool,
    limits: Limits,
    probe: ProbeConfig,
    dial_timeout: Duration,
    skips_url_verification: bool,
    trace_ratio: f64,
    trace_heartbeats: bool,
    events: Events,
    world: World,
}

impl Transport {
    /// Starts to build a transport for `member` of `cluster`, which serves `raft`.
    pub fn builder(member: MemberId, cluster: ClusterId, raft: Arc<dyn Raft>) -> Builder {
        Builder {
            identity: Identity { member, cluster, urls: Vec::new(), incarnation: None, server_version: DEFAULT_SERVER },
            raft,
            tls: None,
            snapshots: None,
            registration: None,
            etcd_metrics: true,
            limits: Limits::default(),
            probe: ProbeConfig::default(),
            dial_timeout: Duration::from_secs(1),
            skips_url_verification: false,
            trace_ratio: 0.0,
            trace_heartbeats: false,
            events: Events::default(),
            world: World::default(),
        }
    }
}

impl Builder {
    /// This member's own peer URLs, which are sent to peers in `X-PeerURLs`. Default: none.
    #[must_use]
    pub fn urls(mut self, urls: Vec<PeerUrl>) -> Self {
        self.identity.urls = urls;
        self
    }

    /// The etcd version that this member claims to be. Default: 3.6.0.
    #[must_use]
    pub fn server_version(mut self, version: Version) -> Self {
        self.identity.server_version = version;
        self
    }

    /// The incarnation of this start of the member, which is sent with every request to a peer and with every answer.
    /// [`Raft::meet`] decides which incarnations of peers are heard. Default: none is sent.
    #[must_use]
    pub fn incarnation(mut self, own: Incarnation) -> Self {
        self.identity.incarnation = Some(own);
        self
    }

    /// Certificates for `https` peers. Default: none, and such peers cannot be dialled.
    #[must_use]
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// The store in which received snapshots are saved. Default: none, and `POST /raft/snapshot` answers 500.
    #[must_use]
    pub fn snapshots(mut self, store: SnapshotStore) -> Self {
        self.snapshots = Some(store);
        self
    }

    /// Limits of queues and frames. Default: [`Limits::default`].
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// How often peers are probed, and how long a probe may take. Default: 1 s and 700 ms. An interval of zero means no
    /// probes.
    #[must_use]
    pub fn probe(mut self, interval: Duration, timeout: Duration) -> Self {
        let (interval, timeout) = (interval.min(LONGEST), timeout.min(LONGEST));
        self.probe = ProbeConfig { interval, timeout };
        self
    }

    /// How long a connection attempt may take. Default: 1 s.
    #[must_use]
    pub fn dial_timeout(mut self, timeout: Duration) -> Self {
        self.dial_timeout = timeout.min(LONGEST);
        self
    }

    /// Whether the URLs in a request's `X-PeerURLs` are dialled wherever they lead, if the sender is not a peer and has
    /// presented no certificate of the CA. Default: false. Such a URL is then dialled only if its host is, or resolves
    /// to, the address that the request came from. It is not dialled if that address is unknown, as on a listener that
    /// is not this crate's (axum's `ConnectInfo` provides it). etcd dials all of them. True is for members whose
    /// addresses are translated on the way to each other.
    #[must_use]
    pub fn skip_url_verification(mut self, skips: bool) -> Self {
        self.skips_url_verification = skips;
        self
    }

    /// The ratio of messages that are traced, 0 to 1. Default: 0, which costs nothing.
    #[must_use]
    pub fn trace_ratio(mut self, ratio: f64) -> Self {
        self.trace_ratio = ratio;
        self
    }

    /// Whether raft's heartbeats are traced like other messages. Default: false.
    #[must_use]
    pub fn trace_heartbeats(mut self, traced: bool) -> Self {
        self.trace_heartbeats = traced;
        self
    }

    /// The event list, if something else writes to it as well. Default: a list of its own.
    #[must_use]
    pub fn events(mut self, events: &Events) -> Self {
        self.events = events.clone();
        self
    }

    /// The world that the transport runs in. Default: the real one.
    #[doc(hidden)]
    #[must_use]
    pub fn world(mut self, world: &World) -> Self {
        self.world = world.clone();
        self
    }

    /// Builds the transport, on the current tokio runtime.
    ///
    /// # Errors
    /// The registry already has metrics with these names.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn build(self) -> Result<Transport, TransportError> {
        let tasks = TaskTracker::new();
        let identity = Arc::new(self.identity);
        let stop = CancellationToken::new();
        let shared = Arc::new(PeerContext {
            client: Client::new(&identity, self.tls.clone(), self.dial_timeout, &self.world),
            sampler: Sampler::new(self.trace_ratio, identity.cluster).heartbeats(self.trace_heartbeats),
            incarnation: identity.incarnation.and_then(|own| HeaderValue::try_from(own.to_string()).ok()),
            identity,
            raft: self.raft,
            probe: self.probe,
            tasks,
            runtime: tokio::runtime::Handle::current(),
            removed: AtomicBool::new(false),
            events: self.events,
            pace: Arc::new(Pace::new(self.limits.snapshot_rate)),
            limits: self.limits,
            skips_url_verification: self.skips_url_verification,
            world: self.world,
        });
        if let Some(tls) = &self.tls {
            tls.tell(&shared.events);
            for url in shared.identity.urls.iter().filter(|url| url.is_tls()) {
                tls.warn_of_names(url.as_str(), url.host());
            }
            shared.tasks.spawn(stop.clone().run_until_cancelled_owned(tls.clone().watch()));
        }
        shared.events.speak_as(shared.identity.member, &shared.world);
        let inner = Arc::new(Inner {
            known: ArcSwap::default(),
            changes: Mutex::default(),
            strangers: Inbox::new(&shared.world),
            others: Arc::default(),
            refusals: Untold::default(),
            unroutable: Mutex::default(),
            snapshots: self.snapshots,
            receiving: Semaphore::new(shared.limits.snapshots),
            receiving_others: Semaphore::new(1),
            tls: self.tls,
            started: shared.world.now(),
            _ends: stop.clone().drop_guard(),
            stop,
            shared,
        });
        if let Some(register) = self.registration {
            let source = Arc::downgrade(&inner);
            let source = move || source.upgrade().map(|inner| Transport { inner }.status());
            register(Box::new(source), self.etcd_metrics)?;
        }
        let aging = roster::age_remotes(Arc::downgrade(&inner), inner.stop.clone());
        inner.shared.tasks.spawn(aging);
        let (summing_up, stop) = (summary::sum_up(Arc::downgrade(&inner)), inner.stop.clone());
        inner.shared.tasks.spawn(async move {
            stop.run_until_cancelled(summing_up).await;
        });
        Ok(Transport { inner })
    }
}
