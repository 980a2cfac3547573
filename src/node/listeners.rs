//! Where a member listens: its ports for peers and for clients.

use std::net::SocketAddr;

use axum::Router;

use super::{config::Config, error::Error};
use crate::{
    dial::urls::PeerUrl,
    server::Server,
    tls::Tls,
    world::{Listener, Port, World},
};

/// The ports of a member, bound and not served yet.
pub(super) struct Listeners {
    pub(super) peers: Vec<Bound>,
    pub(super) clients: Vec<Bound>,
}

/// One port that is bound.
pub(super) struct Bound {
    port: Port,
    /// What asked for it.
    flag: &'static str,
    /// Whether it is for TLS.
    tls: bool,
}

impl Listeners {
    /// The listeners that were bound for us, or one for each URL.
    pub(super) async fn bind(config: &mut Config) -> Result<Self, Error> {
        Ok(Self { peers: bind_peers(config).await?, clients: bind_clients(config).await? })
    }
}

impl Bound {
    pub(super) fn address(&self) -> Option<SocketAddr> {
        self.port.local_addr().ok()
    }

    /// A server for this port: by TLS if the port is for it and there are certificates, else of plain HTTP.
    pub(super) fn server(&self, app: Router, tls: Option<&Tls>) -> Server {
        let server = Server::new(app);
        match tls.filter(|_| self.tls) {
            Some(tls) => server.tls(tls.clone()),
            None => server,
        }
    }

    pub(super) fn listen(self) -> Result<Listener, Error> {
        let url = self.name();
        self.port.listen().map_err(|error| Error::Listen { url, flag: self.flag, error })
    }

    /// Listens by a copy: what serves it may stop and leave the port to who comes after.
    pub(super) fn listen_too(&self) -> Result<Listener, Error> {
        let (flag, tls) = (self.flag, self.tls);
        let copy = self.port.try_clone().map_err(|error| Error::Listen { url: self.name(), flag, error })?;
        Self { port: copy, flag, tls }.listen()
    }

    fn name(&self) -> String {
        self.address().map_or_else(|| "?".to_owned(), |address| address.to_string())
    }
}

async fn bind_peers(config: &mut Config) -> Result<Vec<Bound>, Error> {
    let flag = "listen-peer-urls";
    let bound = std::mem::take(&mut config.peer_listeners);
    if !bound.is_empty() {
        let tls = config.initial_advertise_peer_urls.iter().any(PeerUrl::is_tls);
        return Ok(bound.into_iter().map(|listener| Bound { port: Port::Tcp(listener), flag, tls }).collect());
    }
    let mut bound = Vec::new();
    for url in &config.listen_peer_urls {
        if url.is_tls() && config.tls.is_none() {
            return Err(Error::NoCertificate(url.to_string()));
        }
        bound.push(Bound { port: bind(&config.world, url, flag).await?, flag, tls: url.is_tls() });
    }
    Ok(bound)
}

async fn bind_clients(config: &mut Config) -> Result<Vec<Bound>, Error> {
    let (flag, tls) = ("listen-client-urls", false);
    let bound = std::mem::take(&mut config.client_listeners);
    if !bound.is_empty() {
        return Ok(bound.into_iter().map(|listener| Bound { port: Port::Tcp(listener), flag, tls }).collect());
    }
    let mut bound = Vec::new();
    for url in &config.listen_client_urls {
        bound.push(Bound { port: bind(&config.world, url, flag).await?, flag, tls });
    }
    Ok(bound)
}

async fn bind(world: &World, url: &PeerUrl, flag: &'static str) -> Result<Port, Error> {
    let failed = |error| Error::Listen { url: url.to_string(), flag, error };
    world.take_port(url.host(), url.port()).await.map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_in_use_is_named_with_its_flag() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}", taken.local_addr().expect("bound")).parse().expect("a URL");
        let error = bind(&World::default(), &url, "listen-peer-urls").await.expect_err("it is in use").to_string();
        assert!(error.contains(url.as_str()) && error.contains("listen-peer-urls"), "{error}");
    }
}
