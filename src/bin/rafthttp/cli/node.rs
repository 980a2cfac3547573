//! `rafthttp node`: one member.

use std::{num::NonZeroU64, path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};
use rafthttp::{
    Limits, PeerUrl,
    metrics::{Options, trace_collector},
    node::{self, Config, InitialCluster, InitialClusterState, Node},
    telemetry::Telemetry,
};

use super::{
    BadFlag, Failure, Stop,
    listen::{CLIENTS, METRICS, listen_for_metrics},
    member_as_client::MemberAsClient,
    peer_tls::{PeerNames, PeerTls, require_certificate},
    port_tls::PortTls,
};
use crate::{
    config::{self, ListenUrl},
    serving::{MetricsListener, Serving, node_admin, waiting_admin},
};

/// The lowest `--snapshot-rate`, in bytes per second. A receiver cuts a body that is slower than half of it.
const SLOWEST_SNAPSHOTS: u64 = 2 << 10;
/// The upper limit of `--max-request-bytes`: a quarter of what a peer's queue holds.
const MAX_REQUEST_BYTES: u64 = 16 << 20;

/// Run one member of a replicated key-value store; the flags have etcd's names.
///
/// If there is a data directory, the --initial-* flags are ignored, because the member's identity is on the disk. The
/// exit status is 3 if this member was removed from its cluster. It is 4 if the member was started from another data
/// directory than before, or from an old copy: do not start it again then, but remove it and add it anew.
#[derive(Args, Debug)]
pub(crate) struct Flags {
    /// The name of this member, as in --initial-cluster.
    #[arg(long, default_value = "default")]
    name: String,

    /// The directory of this member's data [default: NAME.etcd]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,

    /// URLs to listen on for peers.
    #[arg(long, value_name = "URL,…", value_delimiter = ',', default_value = "http://localhost:2380")]
    listen_peer_urls: Vec<PeerUrl>,

    /// The peer URLs of this member that the other members use.
    #[arg(long, value_name = "URL,…", value_delimiter = ',', default_value = "http://localhost:2380")]
    initial_advertise_peer_urls: Vec<PeerUrl>,

    /// URLs to listen on for clients; https needs --cert-file.
    #[arg(long, value_name = "URL,…", value_delimiter = ',', default_value = "http://localhost:2379")]
    listen_client_urls: Vec<ListenUrl>,

    /// The client URLs of this member that it publishes to the cluster.
    #[arg(long, value_name = "URL,…", value_delimiter = ',', default_value = "http://localhost:2379")]
    advertise_client_urls: Vec<ListenUrl>,

    /// URLs that serve the page (/), /metrics, /livez, /readyz, /health, /api/peers and /api/events; https needs
    /// --cert-file, like the client port and as in etcd.
    #[arg(long, value_name = "URL,…", value_delimiter = ',', default_value = "http://127.0.0.1:2381")]
    listen_metrics_urls: Vec<ListenUrl>,

    /// All members of the new cluster, including this one [default: only this one]
    #[arg(long, value_name = "NAME=URL,…")]
    initial_cluster: Option<InitialCluster>,

    /// A token that tells clusters with the same URLs apart; it must be the same on all members.
    #[arg(long, value_name = "TOKEN", default_value = node::DEFAULT_TOKEN)]
    initial_cluster_token: String,

    /// Whether this member makes a new cluster (new), joins a running cluster that has already added it (existing), or
    /// finds out by itself (auto). With new and existing, a member without data ends if another member knows that it
    /// was started before: its disk was lost, and it must be removed and added anew. With auto, a member without data
    /// asks the others. They make the cluster once all of them run and none has a cluster. In a running cluster, the
    /// member has itself added as a learner and is promoted when it has caught up; if its disk was lost, it replaces
    /// its former self.
    #[arg(long, value_name = "STATE", value_enum, default_value_t)]
    initial_cluster_state: ClusterState,

    /// Make this member, with its data, a cluster of one; only for a quorum that is lost for good. All other members
    /// are removed for ever. Entries that only they had acknowledged are lost, this member's entries are kept, and the
    /// log names both. The flag is refused while enough of the others answer to form a quorum with this member: stop
    /// those that cannot take part. Afterwards remove the flag and add members anew, on empty directories. It takes
    /// effect once: later starts ignore it, until one was without it.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", action = clap::ArgAction::Set, value_parser = config::switch())]
    force_new_cluster: bool,

    /// The time between a leader's heartbeats; a number without a unit is in milliseconds.
    #[arg(long, value_name = "DURATION", default_value = "100ms", value_parser = config::milliseconds)]
    heartbeat_interval: Duration,

    /// How long a follower waits for its leader, from five heartbeat intervals to 50 s; a number without a unit is in
    /// milliseconds.
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = config::milliseconds)]
    election_timeout: Duration,

    /// The number of applied entries after which a snapshot is made and the log is cut.
    #[arg(long, value_name = "N", default_value = "10000", value_parser = config::positive)]
    snapshot_count: u64,

    /// The size of the entries that stay in the log when it is cut, for members that come back and for the next leader.
    #[arg(long, value_name = "SIZE", default_value = "256MiB", value_parser = config::size)]
    log_retention_bytes: u64,

    /// The most that a leader keeps in the log for a member that is getting a snapshot, has just got one, or is behind.
    /// A member that needs more gets another snapshot. Set it to at least what is written while a snapshot is on its
    /// way.
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = config::size)]
    log_retention_max_bytes: u64,

    /// How many bytes a second all snapshots together may send; 0 means no bound, any other value is at least 2KiB. They
    /// become slower still while heartbeats are late. Set the same on all members: a peer that is slower than half of it,
    /// and slower than 64KiB a second, for a minute is given up.
    #[arg(long, value_name = "SIZE", default_value = "0", value_parser = config::size)]
    snapshot_rate: u64,

    /// The largest snapshot that this member accepts; at least --quota-backend-bytes.
    #[arg(long, value_name = "SIZE", default_value = "16GiB", value_parser = config::size)]
    max_snapshot_bytes: u64,

    /// The largest value that a client may write; at most 16MiB.
    #[arg(long, value_name = "SIZE", default_value = "1.5MiB", value_parser = config::size)]
    max_request_bytes: u64,

    /// Whether to refuse a change of the membership that would leave no quorum of started and connected members. The
    /// member that gets the request uses its own flag, and so does the leader.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true", action = clap::ArgAction::Set, value_parser = config::switch())]
    strict_reconfig_check: bool,

    /// Answer a sender that is not a member yet at any peer URL that it sends. Without this flag, only URLs count whose
    /// host is, or resolves to, the address of the request, unless the sender has a certificate of the peers' CA.
    /// Members are always answered at all of their URLs. Use it if addresses are translated between members.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", action = clap::ArgAction::Set, value_parser = config::switch())]
    peer_skip_url_verification: bool,

    /// The quota for the bytes of all keys and values: above it, the cluster refuses puts until the data are a tenth
    /// below it. 0 means 2GiB, a negative number means no quota.
    #[arg(long, value_name = "SIZE", default_value = "0", allow_negative_numbers = true, value_parser = config::quota)]
    quota_backend_bytes: i64,

    #[command(flatten)]
    tls: PeerTls,

    #[command(flatten)]
    names: PeerNames,

    #[command(flatten)]
    port: PortTls,

    #[command(flatten)]
    as_client: MemberAsClient,

    /// The time between two probes of a peer.
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = config::duration)]
    probe_interval: Duration,

    /// The longest time that a probe may take; shorter than the interval.
    #[arg(long, value_name = "DURATION", default_value = "700ms", value_parser = config::duration)]
    probe_timeout: Duration,

    /// Whether the transport's metrics also appear under etcd's names.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true", action = clap::ArgAction::Set, value_parser = config::switch())]
    etcd_metrics: bool,

    /// The share of messages that are traced, from 0 to 1.
    #[arg(long, value_name = "RATIO", default_value = "0", value_parser = config::ratio)]
    trace_ratio: f64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum ClusterState {
    #[default]
    New,
    Existing,
    Auto,
}

impl Flags {
    /// Runs the member until it is told to stop, fails, or is removed.
    pub(crate) async fn run(self: Box<Self>, stop: &Stop, telemetry: &Telemetry) -> Result<(), Failure> {
        let metrics = self.listen_metrics_urls.clone();
        let config = (*self).config()?;
        let metrics = listen_for_metrics(&metrics, config.client_tls.clone())?;
        let registry = config.registry.clone();
        if let Some(exported) = telemetry.export_status() {
            registry.register(trace_collector(exported)).map_err(Failure::failed)?;
        }
        let options = Options { etcd: config.etcd_metrics };
        // A member that joins a cluster waits for it, and shows that on its metrics port. The wait ends when the
        // process is told to stop.
        let copies =
            metrics.iter().map(MetricsListener::try_clone).collect::<Result<_, _>>().map_err(Failure::failed)?;
        let waiting = Serving::start(copies, waiting_admin()).map_err(Failure::failed)?;
        let started = stop.token().run_until_cancelled(Node::start(config)).await;
        waiting.stop().await;
        let Some(started) = started else { return Ok(()) };
        let node = started.map_err(refusal)?;
        let serving = Serving::start(metrics, node_admin(&node, registry, options)).map_err(Failure::failed)?;

        let outcome = tokio::select! {
            () = stop.requested() => Ok(()),
            reason = node.stopped() => ended(&reason),
        };
        node.stop().await;
        serving.stop().await;
        outcome
    }

    fn config(mut self) -> Result<Config, Failure> {
        // As in --initial-cluster, spaces around a name do not belong to it.
        self.name = self.name.trim().to_owned();
        self.check()?;
        let listeners: [(_, &[ListenUrl]); 2] =
            [(CLIENTS, &self.listen_client_urls), (METRICS, &self.listen_metrics_urls)];
        let client_tls = self.port.load(&listeners)?;
        self.port.warn_of_plain(CLIENTS, &self.listen_client_urls);
        let tls_as_client = match self.initial_cluster_state {
            ClusterState::Auto => self.as_client.load(&self.port, self.tls.trusted_ca_file())?,
            ClusterState::New | ClusterState::Existing => None,
        };
        let tls = self.tls.load(self.names)?;
        let data_dir = self.data_dir.unwrap_or_else(|| format!("{}.etcd", self.name).into());
        let alone = || self.initial_advertise_peer_urls.iter().map(|url| (self.name.clone(), url.clone())).collect();
        let initial_cluster = self.initial_cluster.map_or_else(alone, |InitialCluster(members)| members);
        Ok(Config {
            data_dir,
            listen_peer_urls: self.listen_peer_urls,
            listen_client_urls: self.listen_client_urls.iter().map(|url| url.as_peer_url().clone()).collect(),
            advertise_client_urls: self.advertise_client_urls.iter().map(ListenUrl::to_string).collect(),
            initial_cluster,
            initial_advertise_peer_urls: self.initial_advertise_peer_urls,
            name: self.name,
            initial_cluster_token: self.initial_cluster_token,
            initial_cluster_state: match self.initial_cluster_state {
                ClusterState::New => InitialClusterState::New,
                ClusterState::Existing => InitialClusterState::Existing,
                ClusterState::Auto => InitialClusterState::Auto,
            },
            force_new_cluster: self.force_new_cluster,
            heartbeat_interval: self.heartbeat_interval,
            election_timeout: self.election_timeout,
            snapshot_count: self.snapshot_count,
            log_retention_bytes: self.log_retention_bytes,
            log_retention_max_bytes: self.log_retention_max_bytes,
            quota_backend_bytes: quota(self.quota_backend_bytes),
            max_request_bytes: usize::try_from(self.max_request_bytes).unwrap_or(usize::MAX),
            strict_reconfig_check: self.strict_reconfig_check,
            tls,
            client_tls,
            tls_as_client,
            skip_peer_url_verification: self.peer_skip_url_verification,
            etcd_metrics: self.etcd_metrics,
            trace_ratio: self.trace_ratio,
            probe_interval: self.probe_interval,
            probe_timeout: self.probe_timeout,
            limits: Limits {
                snapshot_rate: NonZeroU64::new(self.snapshot_rate),
                snapshot_bytes: self.max_snapshot_bytes,
                ..Limits::default()
            },
            ..Config::default()
        })
    }

    /// Checks the values that depend on each other. The node checks the initial cluster, because only the node knows
    /// whether it counts.
    fn check(&self) -> Result<(), BadFlag> {
        if self.name.is_empty() || self.name.contains(['=', ',']) {
            return Err(BadFlag::new("name", &self.name, "expected a name without = and ,"));
        }
        self.check_times()?;
        self.check_snapshots()?;
        if self.log_retention_max_bytes < self.log_retention_bytes {
            let given = bytesize::ByteSize(self.log_retention_bytes);
            let expected = format!("expected at least --log-retention-bytes {given}");
            return Err(BadFlag::new(
                "log-retention-max-bytes",
                bytesize::ByteSize(self.log_retention_max_bytes),
                expected,
            ));
        }
        if !(1..=MAX_REQUEST_BYTES).contains(&self.max_request_bytes) {
            return Err(BadFlag::new("max-request-bytes", self.max_request_bytes, "expected 1 to 16MiB"));
        }
        let given = self.tls.is_given();
        require_certificate("listen-peer-urls", &self.listen_peer_urls, given)?;
        require_certificate("initial-advertise-peer-urls", &self.initial_advertise_peer_urls, given)
    }

    fn check_snapshots(&self) -> Result<(), BadFlag> {
        if (1..SLOWEST_SNAPSHOTS).contains(&self.snapshot_rate) {
            return Err(BadFlag::new("snapshot-rate", self.snapshot_rate, "expected 0, or at least 2KiB"));
        }
        // A member that lost its disk could not be given what its cluster may hold.
        let quota = quota(self.quota_backend_bytes).unwrap_or(0);
        if self.max_snapshot_bytes < quota {
            let expected = format!("expected at least --quota-backend-bytes {}", bytesize::ByteSize(quota));
            return Err(BadFlag::new("max-snapshot-bytes", bytesize::ByteSize(self.max_snapshot_bytes), expected));
        }
        Ok(())
    }

    fn check_times(&self) -> Result<(), BadFlag> {
        let text = |time| humantime::format_duration(time);
        if self.heartbeat_interval < Duration::from_millis(1) {
            let expected = "expected 1ms or more";
            return Err(BadFlag::new("heartbeat-interval", text(self.heartbeat_interval), expected));
        }
        if self.election_timeout < self.heartbeat_interval.saturating_mul(5) {
            let expected =
                format!("expected at least five times --heartbeat-interval {}", text(self.heartbeat_interval));
            return Err(BadFlag::new("election-timeout", text(self.election_timeout), expected));
        }
        if self.election_timeout > node::MAX_ELECTION_TIMEOUT {
            let expected = format!("expected at most {}", text(node::MAX_ELECTION_TIMEOUT));
            return Err(BadFlag::new("election-timeout", text(self.election_timeout), expected));
        }
        if self.probe_timeout.is_zero() || self.probe_timeout >= self.probe_interval {
            let expected = format!("expected less than --probe-interval {}", text(self.probe_interval));
            return Err(BadFlag::new("probe-timeout", text(self.probe_timeout), expected));
        }
        Ok(())
    }
}

/// The meaning of a quota, as in etcd (`NewBackendQuota`): 0 is the default, and below 0 is none.
fn quota(bytes: i64) -> Option<u64> {
    if bytes == 0 { Config::default().quota_backend_bytes } else { u64::try_from(bytes).ok() }
}

/// Why a member did not start: bad usage if the flags contradict each other, and a failure otherwise.
fn refusal(error: node::Error) -> Failure {
    match error {
        node::Error::Config(config) => Failure::Config(config),
        node::Error::OneSocket { flag, one, other } => {
            let expected = format!("expected both http or both https: it is one socket with {other}");
            BadFlag::new(flag, one, expected).into()
        }
        node::Error::Removed => Failure::Removed(error.to_string()),
        other => Failure::failed(other),
    }
}

/// Why a member ended by itself.
fn ended(reason: &node::Stopped) -> Result<(), Failure> {
    match reason {
        node::Stopped::Asked => Ok(()),
        node::Stopped::Removed => Err(Failure::Removed(reason.to_string())),
        node::Stopped::Refused(_) => Err(Failure::Refused(reason.to_string())),
        failed => Err(Failure::failed(failed.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        flags: Flags,
    }

    fn flags(line: &str) -> Flags {
        Line::try_parse_from(["node"].into_iter().chain(line.split_whitespace())).expect(line).flags
    }

    #[test]
    fn defaults_are_etcds() {
        let flags = flags("");
        assert_eq!(flags.check(), Ok(()));
        assert_eq!(
            (flags.heartbeat_interval, flags.election_timeout),
            (Duration::from_millis(100), Duration::from_secs(1))
        );
        assert_eq!((flags.snapshot_count, flags.max_request_bytes), (10_000, 3 << 19));
        assert_eq!(flags.listen_metrics_urls, ["http://127.0.0.1:2381".parse().unwrap()]);
    }

    #[test]
    fn a_quota_is_read_as_etcd_reads_it() {
        let read = |line| quota(flags(line).quota_backend_bytes);
        assert_eq!(read(""), Some(2 << 30));
        assert_eq!(read("--quota-backend-bytes 0"), Some(2 << 30));
        assert_eq!(read("--quota-backend-bytes -1"), None);
        assert_eq!(read("--quota-backend-bytes=-1"), None);
        assert_eq!(read("--quota-backend-bytes 8589934592"), Some(8 << 30));
        assert_eq!(read("--quota-backend-bytes 64MiB"), Some(64 << 20));
        assert!(Line::try_parse_from(["node", "--quota-backend-bytes", "much"]).is_err());
    }

    #[test]
    fn snapshots_have_a_rate_and_a_size_that_fit() {
        let limits = |line| flags(line).config().expect(line).limits;
        let default = limits("");
        assert_eq!((default.snapshot_rate, default.snapshot_bytes), (None, 16 << 30));
        let set = limits("--snapshot-rate 20MiB --max-snapshot-bytes 2GiB");
        assert_eq!((set.snapshot_rate.map(NonZeroU64::get), set.snapshot_bytes), (Some(20 << 20), 2 << 30));
        assert_eq!(flags("--max-snapshot-bytes 1 --quota-backend-bytes -1").check(), Ok(()), "there is no quota");
        for (line, said) in [
            ("--snapshot-rate 2047", "'2047' for '--snapshot-rate': expected 0, or at least 2KiB"),
            (
                "--max-snapshot-bytes 1GiB",
                "'1.0 GiB' for '--max-snapshot-bytes': expected at least --quota-backend-bytes 2.0 GiB",
            ),
            ("--quota-backend-bytes 17GiB", "'16.0 GiB' for '--max-snapshot-bytes': expected at least"),
        ] {
            let refused = flags(line).check().expect_err(line).to_string();
            assert!(refused.contains(said), "{line}: {refused}");
        }
    }

    #[test]
    fn times_that_do_not_fit_each_other_are_refused() {
        for (line, flag) in [
            ("--heartbeat-interval 0", "--heartbeat-interval"),
            ("--heartbeat-interval 250", "--election-timeout"),
            ("--election-timeout 51s", "--election-timeout"),
            ("--probe-interval 500ms", "--probe-timeout"),
        ] {
            let said = flags(line).check().expect_err(line).to_string();
            assert!(said.contains(flag), "{line}: {said}");
        }
    }

    #[test]
    fn a_member_alone_is_its_own_initial_cluster() {
        let config =
            flags("--name n1 --initial-advertise-peer-urls http://h:1 --listen-client-urls http://127.0.0.1:0")
                .config();
        let config = config.unwrap();
        assert_eq!(config.initial_cluster, [("n1".to_owned(), "http://h:1".parse().unwrap())]);
        assert_eq!(config.data_dir, PathBuf::from("n1.etcd"));
    }

    #[test]
    fn an_https_peer_url_needs_a_certificate() {
        for flag in ["--listen-peer-urls", "--initial-advertise-peer-urls"] {
            let said = flags(&format!("{flag} https://h:2380")).check().expect_err(flag).to_string();
            assert!(said.contains(flag) && said.contains("--peer-cert-file"), "{said}");
        }
    }
}
