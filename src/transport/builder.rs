//! Builds a transport: what it is made of, and the tasks that belong to no peer.

use std::{
    sync::{Arc, Mutex, atomic::AtomicBool},
    time::Duration,
};

use arc_swap::ArcSwap;
use http::HeaderValue;
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Inner, Transport, TransportError, inbox::Inbox, limits::Limits, peer::Shared, probe::ProbeConfig, raft::Raft,
    refusals::Untold, roster, snapshot::store::SnapshotStore, status::TransportStatus, summary,
};
use crate::{
    dial::{client::Client, identity::Identity, urls::PeerUrl},
    id::{ClusterId, Incarnation, MemberId},
    telemetry::{Events, Sampler},
    tls::Tls,
    wire::version::{DEFAULT_SERVER, Version},
    world::{LONGEST, World},
};

/// Where the status of a transport comes from. None: it is gone.
pub(crate) type Source = Box<dyn Fn() -> Option<TransportStatus> + Send + Sync>;

/// Shows a transport in a registry, with etcd's own names or without. `metrics` gives it: it stands above, and the
/// transport does not know it.
pub(crate) type Registration = Box<dyn FnOnce(Source, bool) -> Result<(), prometheus::Error> + Send + Sync>;

/// Builds a [`Transport`].
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
    /// A transport for `member` of `cluster` that serves `raft`.
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
    /// Own peer URLs, told to peers in `X-PeerURLs`. Default: none.
    #[must_use]
    pub fn urls(mut self, urls: Vec<PeerUrl>) -> Self {
        self.identity.urls = urls;
        self
    }

    /// The etcd version that this member speaks as. Default: 3.6.0.
    #[must_use]
    pub fn server_version(mut self, version: Version) -> Self {
        self.identity.server_version = version;
        self
    }

    /// Which start of the member this is: told on every request to a peer, and on every answer. Default: not told. Whom
    /// of those who tell it this member hears, [`Raft::meet`] says.
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

    /// Where received snapshots are saved. Default: none, and `POST /raft/snapshot` answers 500.
    #[must_use]
    pub fn snapshots(mut self, store: SnapshotStore) -> Self {
        self.snapshots = Some(store);
        self
    }

    /// Bounds of queues and frames. Default: [`Limits::default`].
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// How often peers are probed, and how long a probe may take. Default: 1 s and 700 ms. An interval of zero: never.
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

    /// Whether the URLs that a request tells in `X-PeerURLs` are dialled wherever they lead, of a sender that is neither a
    /// peer nor shows a certificate of the CA. Default: false, and only where the host is, or resolves to, the address that
    /// asked; nowhere if that is not known, since a listener of another's does not say it (axum's `ConnectInfo` does).
    /// etcd dials all of them. True is for members that reach each other by addresses that are translated on the way.
    #[must_use]
    pub fn skip_url_verification(mut self, skips: bool) -> Self {
        self.skips_url_verification = skips;
        self
    }

    /// The share of messages that are traced, 0 to 1. Default: 0, which costs nothing.
    #[must_use]
    pub fn trace_ratio(mut self, ratio: f64) -> Self {
        self.trace_ratio = ratio;
        self
    }

    /// Whether heartbeats are traced like other messages. Default: false.
    #[must_use]
    pub fn trace_heartbeats(mut self, traced: bool) -> Self {
        self.trace_heartbeats = traced;
        self
    }

    /// The list that what happens is written to, where something else writes to it as well. Default: one of its own.
    #[must_use]
    pub fn events(mut self, events: &Events) -> Self {
        self.events = events.clone();
        self
    }

    /// The world that the transport lives in. Default: the real one.
    #[doc(hidden)]
    #[must_use]
    pub fn world(mut self, world: &World) -> Self {
        self.world = world.clone();
        self
    }

    /// Builds the transport, which runs on the tokio runtime that this is called in.
    ///
    /// # Errors
    /// When the registry already has metrics of these names.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn build(self) -> Result<Transport, TransportError> {
        let tasks = TaskTracker::new();
        let identity = Arc::new(self.identity);
        let stop = CancellationToken::new();
        let shared = Arc::new(Shared {
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
