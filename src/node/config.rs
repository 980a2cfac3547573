//! The configuration of a member.

use std::{net::TcpListener, path::PathBuf, str::FromStr, time::Duration};

use crate::{dial::urls::PeerUrl, tls::Tls, transport::limits::Limits, world::World};

/// etcd's default `--initial-cluster-token`.
pub const DEFAULT_TOKEN: &str = "etcd-cluster";

/// The longest election timeout (etcd's `maxElectionMs`).
pub const MAX_ELECTION_TIMEOUT: Duration = Duration::from_secs(50);

/// The configuration of a [`Node`](super::Node). The names are those of etcd's flags.
#[derive(Debug)]
pub struct Config {
    /// The name of this member. Default `default`.
    pub name: String,
    /// The directory for all data. It is created if it does not exist. Default `default.etcd`, as etcd's `{name}.etcd`.
    pub data_dir: PathBuf,
    /// The URLs to listen on for peers. Default `http://localhost:2380`.
    pub listen_peer_urls: Vec<PeerUrl>,
    /// Bound listeners for peers, in place of [`Self::listen_peer_urls`]. Default none.
    pub peer_listeners: Vec<TcpListener>,
    /// The peer URLs of this member, as the cluster knows them. Default `http://localhost:2380`.
    pub initial_advertise_peer_urls: Vec<PeerUrl>,
    /// The URLs to listen on for clients. Default `http://localhost:2379`.
    pub listen_client_urls: Vec<PeerUrl>,
    /// Bound listeners for clients, in place of [`Self::listen_client_urls`]. They speak TLS if a URL of
    /// [`Self::advertise_client_urls`] is `https`. Default none.
    pub client_listeners: Vec<TcpListener>,
    /// The client URLs of this member, as the cluster knows them. Default `http://localhost:2379`.
    pub advertise_client_urls: Vec<String>,
    /// The name and peer URL of every initial member. A member with several URLs is listed several times. Default
    /// `default=http://localhost:2380`.
    pub initial_cluster: Vec<(String, PeerUrl)>,
    /// A text that distinguishes clusters with the same URLs. Default `etcd-cluster`.
    pub initial_cluster_token: String,
    /// Whether the cluster is new, or exists and is joined. Default new.
    pub initial_cluster_state: InitialClusterState,
    /// Whether this member becomes a cluster of one, with its data, because the quorum is lost for good. The other
    /// members are removed. It is refused while enough of them answer to form a quorum with this one. It is done once,
    /// until a start without it. Default false.
    pub force_new_cluster: bool,
    /// The time between heartbeats, which is also raft's tick. Default 100 ms.
    pub heartbeat_interval: Duration,
    /// How long a follower waits for its leader at least; a multiple of the heartbeat. Default 1 s.
    pub election_timeout: Duration,
    /// The number of applied entries after which the log is compacted. Default 10 000, as in etcd 3.6.
    pub snapshot_count: u64,
    /// Bytes of entries that a compaction keeps in the log, on every member. Default 256 MiB.
    pub log_retention_bytes: u64,
    /// The most bytes of entries that a leader keeps for followers that need them: those that are being sent a
    /// snapshot, were just sent one, or are behind and heard. A follower that needs more is sent another snapshot.
    /// Default 1 GiB.
    pub log_retention_max_bytes: u64,
    /// The largest value that a client may write, in bytes. Default 1.5 MiB.
    pub max_request_bytes: usize,
    /// Whether a change of the membership is refused if it would leave no quorum of connected members. Both the member
    /// that gets the request and the leader check it, each by its own setting. Default true.
    pub strict_reconfig_check: bool,
    /// Bytes of all keys and values from which on the cluster refuses puts. `None`: no limit. Default 2 GiB, as in
    /// etcd.
    pub quota_backend_bytes: Option<u64>,
    /// Certificates for `https` peer URLs. Default none.
    pub tls: Option<Tls>,
    /// Certificates for `https` client URLs: [`Tls::load_server`]. Default none.
    pub client_tls: Option<Tls>,
    /// Certificates with which this member, as a client, dials the `https` client URLs of others: [`Tls::load_client`].
    /// It does so to have itself added to its cluster ([`InitialClusterState::Auto`]). Default none.
    pub tls_as_client: Option<Tls>,
    /// The registry for metrics. Default a new one.
    pub registry: prometheus::Registry,
    /// Whether the transport's metrics are also exported under etcd's own names. Default true.
    pub etcd_metrics: bool,
    /// The ratio of messages that are traced, 0 to 1. Default 0.
    pub trace_ratio: f64,
    /// How often a peer is probed. Default 1 s.
    pub probe_interval: Duration,
    /// How long a probe may take. Default 700 ms.
    pub probe_timeout: Duration,
    /// Whether the peer URLs that a stranger sends are dialled wherever they lead: see
    /// [`Builder::skip_url_verification`](crate::Builder::skip_url_verification). Default false.
    pub skip_peer_url_verification: bool,
    /// Limits of the transport.
    pub limits: Limits,
    /// The world that the member runs in. Default the real one.
    #[doc(hidden)]
    pub world: World,
}

/// Whether the cluster is new, or exists and is joined (`--initial-cluster-state`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum InitialClusterState {
    /// All members of the initial cluster start a new cluster. If another member lists this one with client URLs, this
    /// one has lost its disk, and does not start.
    #[default]
    New,
    /// This member was added to a running cluster, and learns the IDs from the others. If it was started before, it has
    /// lost its disk, and does not start.
    Existing,
    /// The member finds out which it is. If nobody has a cluster yet, it makes the cluster together with all other
    /// members of the initial cluster. If a cluster runs, it has itself added as a learner, and replaces its old self
    /// if its disk is gone. A learner that is started in this way asks to be promoted. It needs members that take
    /// changes of the membership at their client URLs, as [`Node`](super::Node)s do.
    Auto,
}

impl FromStr for InitialClusterState {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "new" => Ok(Self::New),
            "existing" => Ok(Self::Existing),
            "auto" => Ok(Self::Auto),
            _ => Err(format!("{text:?} is none of \"new\", \"existing\" and \"auto\"")),
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        let url = |text: &str| text.parse::<PeerUrl>().expect("a constant URL");
        Self {
            name: "default".to_owned(),
            data_dir: "default.etcd".into(),
            listen_peer_urls: vec![url("http://localhost:2380")],
            peer_listeners: Vec::new(),
            initial_advertise_peer_urls: vec![url("http://localhost:2380")],
            listen_client_urls: vec![url("http://localhost:2379")],
            client_listeners: Vec::new(),
            advertise_client_urls: vec!["http://localhost:2379".to_owned()],
            initial_cluster: vec![("default".to_owned(), url("http://localhost:2380"))],
            initial_cluster_token: DEFAULT_TOKEN.to_owned(),
            initial_cluster_state: InitialClusterState::New,
            force_new_cluster: false,
            heartbeat_interval: Duration::from_millis(100),
            election_timeout: Duration::from_secs(1),
            snapshot_count: 10_000,
            log_retention_bytes: 256 << 20,
            log_retention_max_bytes: 1 << 30,
            max_request_bytes: 3 << 19,
            quota_backend_bytes: Some(2 << 30),
            strict_reconfig_check: true,
            tls: None,
            client_tls: None,
            tls_as_client: None,
            registry: prometheus::Registry::new(),
            etcd_metrics: true,
            trace_ratio: 0.0,
            probe_interval: Duration::from_secs(1),
            probe_timeout: Duration::from_millis(700),
            skip_peer_url_verification: false,
            limits: Limits::default(),
            world: World::default(),
        }
    }
}

/// Why a config cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The heartbeat is zero.
    #[error("heartbeat-interval must be longer than 0")]
    Heartbeat,
    /// The election timeout is too close to the heartbeat. etcd also requires five times the heartbeat.
    #[error("election-timeout {election:?} must be at least five times heartbeat-interval {heartbeat:?}")]
    Election {
        /// The election timeout.
        election: Duration,
        /// The heartbeat.
        heartbeat: Duration,
    },
    /// The election timeout is longer than etcd allows (`maxElectionMs`).
    #[error("election-timeout {0:?} must be at most 50 s")]
    ElectionTooLong(Duration),
    /// The log would be compacted all the time.
    #[error("snapshot-count must be at least 1")]
    SnapshotCount,
    /// There is no peer URL to listen on, or to advertise.
    #[error("{0} must name at least one URL")]
    NoUrl(&'static str),
    /// The initial cluster does not name this member.
    #[error("initial-cluster does not name this member, {0:?}")]
    NotInCluster(String),
    /// The initial cluster lists other URLs for this member than it advertises.
    #[error("initial-cluster has {listed} for {name:?}, but initial-advertise-peer-urls is {advertised}")]
    UrlsDiffer {
        /// The member.
        name: String,
        /// The URLs in the initial cluster.
        listed: String,
        /// The URLs that the member advertises.
        advertised: String,
    },
    /// Two members of the initial cluster have the same URL.
    #[error("initial-cluster has {0} twice")]
    DuplicateUrl(String),
}

impl Config {
    /// Checks everything that does not depend on whether the member was started before.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        if self.heartbeat_interval.is_zero() {
            return Err(ConfigError::Heartbeat);
        }
        if self.election_timeout < self.heartbeat_interval.saturating_mul(5) {
            let (election, heartbeat) = (self.election_timeout, self.heartbeat_interval);
            return Err(ConfigError::Election { election, heartbeat });
        }
        if self.election_timeout > MAX_ELECTION_TIMEOUT {
            return Err(ConfigError::ElectionTooLong(self.election_timeout));
        }
        if self.snapshot_count == 0 {
            return Err(ConfigError::SnapshotCount);
        }
        if self.listen_peer_urls.is_empty() && self.peer_listeners.is_empty() {
            return Err(ConfigError::NoUrl("listen-peer-urls"));
        }
        if self.listen_client_urls.is_empty() && self.client_listeners.is_empty() {
            return Err(ConfigError::NoUrl("listen-client-urls"));
        }
        // A member without client URLs could not be distinguished from one that was never started.
        if self.advertise_client_urls.is_empty() {
            return Err(ConfigError::NoUrl("advertise-client-urls"));
        }
        Ok(())
    }

    /// The members of the initial cluster: each name once, with its URLs, in the order of the flag. The checks are
    /// those of etcd's `VerifyBootstrap`: this member is listed, with the URLs that it advertises, and no URL is listed
    /// twice.
    pub(crate) fn initial_members(&self) -> Result<Vec<InitialMember>, ConfigError> {
        let mut members: Vec<InitialMember> = Vec::new();
        for (place, (name, url)) in self.initial_cluster.iter().enumerate() {
            if self.initial_cluster[..place].iter().any(|(_, earlier)| earlier == url) {
                return Err(ConfigError::DuplicateUrl(url.to_string()));
            }
            match members.iter_mut().find(|known| known.name == *name) {
                Some(known) => known.urls.push(url.clone()),
                None => members.push(InitialMember { name: name.clone(), urls: vec![url.clone()] }),
            }
        }
        if self.initial_advertise_peer_urls.is_empty() {
            return Err(ConfigError::NoUrl("initial-advertise-peer-urls"));
        }
        let own = members.iter().find(|member| member.name == self.name);
        let listed = &own.ok_or_else(|| ConfigError::NotInCluster(self.name.clone()))?.urls;
        // A repeated URL counts once (etcd's `UniqueURLs`).
        let mut told = self.initial_advertise_peer_urls.clone();
        told.sort_unstable();
        told.dedup();
        if !same_urls(listed, &told) {
            let join = |urls: &[PeerUrl]| urls.iter().map(PeerUrl::as_str).collect::<Vec<_>>().join(",");
            return Err(ConfigError::UrlsDiffer {
                name: self.name.clone(),
                listed: join(listed),
                advertised: join(&self.initial_advertise_peer_urls),
            });
        }
        Ok(members)
    }

    /// The election timeout in ticks. A tick is a heartbeat.
    pub(crate) fn election_ticks(&self) -> usize {
        let ticks = self.election_timeout.as_nanos() / self.heartbeat_interval.as_nanos().max(1);
        usize::try_from(ticks).unwrap_or(usize::MAX / 4).clamp(2, usize::MAX / 4)
    }
}

/// A member of the initial cluster.
#[derive(Clone, Debug)]
pub(crate) struct InitialMember {
    pub(crate) name: String,
    pub(crate) urls: Vec<PeerUrl>,
}

/// Whether two lists have the same URLs, in any order.
pub(crate) fn same_urls(one: &[PeerUrl], other: &[PeerUrl]) -> bool {
    one.len() == other.len() && one.iter().all(|url| other.contains(url))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(cluster: &str, own: &str) -> Config {
        let initial_cluster = cluster
            .split(',')
            .map(|pair| pair.split_once('=').expect("name=url"))
            .map(|(name, url)| (name.to_owned(), url.parse().expect("a URL")))
            .collect();
        let initial_advertise_peer_urls = PeerUrl::list(own).expect("URLs");
        Config { name: "a".to_owned(), initial_cluster, initial_advertise_peer_urls, ..Config::default() }
    }

    #[test]
    fn a_member_may_have_several_urls() {
        let members = config("a=http://h:1,b=http://h:2,a=http://h:3", "http://h:3,http://h:1")
            .initial_members()
            .expect("a good cluster");
        assert_eq!(members.len(), 2);
        assert_eq!(members[0].urls.len(), 2);
    }

    #[test]
    fn a_cluster_without_us_or_with_other_urls_of_ours_is_refused() {
        let error = |cluster| config(cluster, "http://h:1").initial_members().expect_err("must be refused");
        assert_eq!(error("b=http://h:1"), ConfigError::NotInCluster("a".to_owned()));
        assert!(matches!(error("a=http://h:2"), ConfigError::UrlsDiffer { .. }));
        assert_eq!(error("a=http://h:1,b=http://h:1"), ConfigError::DuplicateUrl("http://h:1".to_owned()));
    }

    #[test]
    fn a_member_tells_a_client_url() {
        let config = Config { advertise_client_urls: Vec::new(), ..Config::default() };
        assert_eq!(config.check(), Err(ConfigError::NoUrl("advertise-client-urls")));
    }

    #[test]
    fn the_election_timeout_leaves_room_for_heartbeats() {
        let config = Config { election_timeout: Duration::from_millis(499), ..Config::default() };
        assert!(matches!(config.check(), Err(ConfigError::Election { .. })));
        let config = Config { heartbeat_interval: Duration::MAX, ..Config::default() };
        assert!(matches!(config.check(), Err(ConfigError::Election { .. })));
        let config = Config { election_timeout: Duration::MAX, ..Config::default() };
        assert_eq!(config.check(), Err(ConfigError::ElectionTooLong(Duration::MAX)));
        assert_eq!(Config::default().check(), Ok(()));
        assert_eq!(Config::default().election_ticks(), 10);
    }
}
