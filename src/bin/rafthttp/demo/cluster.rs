//! The members of a demo.

use std::{io, net::TcpListener};

use futures_util::future::join_all;
use rafthttp::{
    PeerUrl, Tls,
    metrics::Options,
    node::{Config, Node},
};
use tempfile::TempDir;

use super::{Certificates, DemoError};
use crate::serving::{MetricsListener, Serving, node_admin};

/// The members, which run in this process.
pub(super) struct DemoCluster {
    members: Vec<DemoMember>,
    /// Their data, removed when this is dropped.
    _directory: TempDir,
}

/// One member.
pub(super) struct DemoMember {
    pub(super) name: String,
    urls: Urls,
    pub(super) node: Node,
    serving: Serving,
}

/// The addresses of a member.
#[derive(Clone, Debug)]
struct Urls {
    peer: PeerUrl,
    client: String,
    metrics: String,
}

/// The ports of a member. All ports are bound before any member starts, so every member knows the addresses of the
/// others.
struct Ports {
    peer: TcpListener,
    client: TcpListener,
    metrics: TcpListener,
    urls: Urls,
}

impl Ports {
    fn bind(certificates: &Certificates) -> io::Result<Self> {
        let bind = || TcpListener::bind(("127.0.0.1", 0));
        let url = |listener: &TcpListener, tls: &Option<Tls>| {
            let scheme = if tls.is_some() { "https" } else { "http" };
            Ok::<_, io::Error>(format!("{scheme}://{}", listener.local_addr()?))
        };
        let (peer, client, metrics) = (bind()?, bind()?, bind()?);
        let urls = Urls {
            peer: url(&peer, &certificates.peer)?.parse().expect("an address with its port is a peer URL"),
            client: url(&client, &certificates.client)?,
            metrics: url(&metrics, &certificates.client)?,
        };
        Ok(Self { peer, client, metrics, urls })
    }
}

impl DemoCluster {
    /// Starts members that know each other.
    pub(super) async fn start(count: u64, certificates: &Certificates) -> Result<Self, DemoError> {
        let directory = tempfile::Builder::new().prefix("rafthttp-demo-").tempdir()?;
        let named = (1..=count).map(|number| Ok((format!("demo-{number}"), Ports::bind(certificates)?)));
        let named: Vec<(String, Ports)> = named.collect::<io::Result<_>>()?;
        let everyone: Vec<(String, PeerUrl)> =
            named.iter().map(|(name, ports)| (name.clone(), ports.urls.peer.clone())).collect();
        let mut cluster = Self { members: Vec::new(), _directory: directory };
        let start = |(name, ports): (String, Ports)| {
            let config = Config {
                tls: certificates.peer.clone(),
                client_tls: certificates.client.clone(),
                ..cluster.config(&name, &everyone, &ports.urls)
            };
            DemoMember::start(name, ports, config)
        };
        // All start at once: each asks the others, whose ports are bound already, and would wait for one that is not
        // started.
        let (mut failed, starting) = (None, named.into_iter().map(start).collect::<Vec<_>>());
        for started in join_all(starting).await {
            match started {
                Ok(member) => cluster.members.push(member),
                Err(error) => failed = Some(error),
            }
        }
        match failed {
            None => Ok(cluster),
            Some(error) => {
                cluster.stop().await;
                Err(error)
            }
        }
    }

    fn config(&self, name: &str, everyone: &[(String, PeerUrl)], urls: &Urls) -> Config {
        Config {
            name: name.to_owned(),
            data_dir: self._directory.path().join(name),
            initial_cluster: everyone.to_vec(),
            initial_advertise_peer_urls: vec![urls.peer.clone()],
            advertise_client_urls: vec![urls.client.clone()],
            initial_cluster_token: "demo".to_owned(),
            ..Config::default()
        }
    }

    pub(super) fn members(&self) -> &[DemoMember] {
        &self.members
    }

    /// The name and client URL of each member.
    pub(super) fn clients(&self) -> impl Iterator<Item = (&str, &str)> {
        self.members.iter().map(|member| (member.name.as_str(), member.urls.client.as_str()))
    }

    /// The client URL of each member.
    pub(super) fn client_urls(&self) -> Vec<String> {
        self.members.iter().map(|member| member.urls.client.clone()).collect()
    }

    /// Prints the URLs. `flags` are the flags that curl needs for them.
    pub(super) fn print(&self, flags: &str) {
        println!("{:<8} {:<17} {:<24} {:<24} metrics", "member", "id", "peers", "clients");
        for DemoMember { name, urls, node, .. } in &self.members {
            let id = node.transport().identity().member.to_string();
            println!("{name:<8} {id:<17} {:<24} {:<24} {}/metrics", urls.peer.as_str(), urls.client, urls.metrics);
        }
        if let Some(DemoMember { urls, .. }) = self.members.first() {
            println!("\nopen {}/", urls.metrics);
            println!("try  curl{flags} {}/api/peers", urls.metrics);
            println!("     curl{flags} -X PUT -d hello {0}/kv/greeting; curl{flags} {0}/kv/greeting", urls.client);
        }
    }

    /// Stops every member, and returns when all have stopped.
    pub(super) async fn stop(self) {
        for member in &self.members {
            member.node.stop().await;
        }
        for member in self.members {
            member.serving.stop().await;
        }
    }
}

impl DemoMember {
    async fn start(name: String, ports: Ports, config: Config) -> Result<Self, DemoError> {
        let Ports { peer, client, metrics, urls } = ports;
        let registry = config.registry.clone();
        let (options, tls) = (Options { etcd: config.etcd_metrics }, config.client_tls.clone());
        let config = Config { peer_listeners: vec![peer], client_listeners: vec![client], ..config };
        let node = Node::start(config).await.map_err(|error| DemoError::Member { name: name.clone(), error })?;
        let metrics = MetricsListener { listener: metrics, tls };
        let serving = Serving::start(vec![metrics], node_admin(&node, registry, options))?;
        Ok(Self { name, urls, node, serving })
    }
}
