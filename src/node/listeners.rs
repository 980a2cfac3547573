//! The ports of a member, for peers and for clients.

use std::net::{SocketAddr, TcpListener};

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
    pub(super) peers: Vec<BoundPort>,
    pub(super) clients: Vec<BoundPort>,
}

/// A bound port.
pub(super) struct BoundPort {
    port: Port,
    /// The flag that asked for it.
    flag: &'static str,
    /// Whether it speaks TLS.
    tls: bool,
}

impl Listeners {
    /// Uses the listeners of the config, or binds one for each URL.
    pub(super) async fn bind(config: &mut Config) -> Result<Self, Error> {
        Ok(Self { peers: bind_peers(config).await?, clients: bind_clients(config).await? })
    }
}

impl BoundPort {
    pub(super) fn address(&self) -> Option<SocketAddr> {
        self.port.local_addr().ok()
    }

    /// A server for this port: with TLS if the port is for TLS and there are certificates, and otherwise plain HTTP.
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

    /// Makes another listener of the port. The first server may then stop, and leave the port to the next one.
    pub(super) fn listen_too(&self) -> Result<Listener, Error> {
        let (flag, tls) = (self.flag, self.tls);
        let copy = self.port.try_clone().map_err(|error| Error::Listen { url: self.name(), flag, error })?;
        Self { port: copy, flag, tls }.listen()
    }

    fn name(&self) -> String {
        self.address().map_or_else(|| "?".to_owned(), |address| address.to_string())
    }
}

async fn bind_peers(config: &mut Config) -> Result<Vec<BoundPort>, Error> {
    let flag = "listen-peer-urls";
    let bound = std::mem::take(&mut config.peer_listeners);
    if bound.is_empty() {
        require_certificate(&config.listen_peer_urls, flag, config.tls.as_ref())?;
        return bind(&config.world, &config.listen_peer_urls, flag).await;
    }
    let tls = config.initial_advertise_peer_urls.iter().any(PeerUrl::is_tls);
    taken(bound, flag, tls, config.tls.as_ref())
}

async fn bind_clients(config: &mut Config) -> Result<Vec<BoundPort>, Error> {
    let flag = "listen-client-urls";
    let bound = std::mem::take(&mut config.client_listeners);
    if bound.is_empty() {
        require_certificate(&config.listen_client_urls, flag, config.client_tls.as_ref())?;
        return bind(&config.world, &config.listen_client_urls, flag).await;
    }
    let tls = config.advertise_client_urls.iter().any(|url| url.starts_with("https://"));
    taken(bound, flag, tls, config.client_tls.as_ref())
}

/// Requires a certificate, because a TLS port is never served in plain text.
fn require_certificate(urls: &[PeerUrl], flag: &'static str, certificate: Option<&Tls>) -> Result<(), Error> {
    match urls.iter().find(|url| url.is_tls() && certificate.is_none()) {
        Some(url) => Err(Error::NoCertificate { flag, url: url.to_string() }),
        None => Ok(()),
    }
}

/// Takes over listeners that were bound by the caller.
fn taken(
    listeners: Vec<TcpListener>,
    flag: &'static str,
    tls: bool,
    certificate: Option<&Tls>,
) -> Result<Vec<BoundPort>, Error> {
    let bound = listeners.into_iter().map(|listener| BoundPort { port: Port::Tcp(listener), flag, tls });
    let bound: Vec<BoundPort> = bound.collect();
    match bound.first().filter(|_| tls && certificate.is_none()) {
        Some(first) => Err(Error::NoCertificate { flag, url: format!("https://{}", first.name()) }),
        None => Ok(bound),
    }
}

/// Binds a port for each socket that the URLs mean.
async fn bind(world: &World, urls: &[PeerUrl], flag: &'static str) -> Result<Vec<BoundPort>, Error> {
    let wanted: Vec<_> = urls.iter().map(|url| (url.host(), url.port())).collect();
    let failed = |(place, error): (usize, _)| Error::Listen { url: urls[place].to_string(), flag, error };
    let taken = world.take_ports(&wanted).await.map_err(failed)?;
    let bound = |(port, of): (Port, Vec<usize>)| {
        let (first, rest) = of.split_first().map_or((&urls[0], &[][..]), |(first, rest)| (&urls[*first], rest));
        match rest.iter().map(|place| &urls[*place]).find(|url| url.is_tls() != first.is_tls()) {
            Some(other) => Err(Error::OneSocket { flag, one: first.to_string(), other: other.to_string() }),
            None => Ok(BoundPort { port, flag, tls: first.is_tls() }),
        }
    };
    taken.into_iter().map(bound).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_in_use_is_named_with_its_flag() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}", taken.local_addr().expect("bound"));
        let error = refusal(&[&url]).await;
        assert!(error.contains(&url) && error.contains("listen-peer-urls"), "{error}");
    }

    #[tokio::test]
    async fn one_socket_speaks_tls_or_does_not() {
        let free = std::net::TcpListener::bind("0.0.0.0:0").and_then(|listener| listener.local_addr());
        let port = free.expect("a free port").port();
        let urls = [format!("http://0.0.0.0:{port}"), format!("https://[::]:{port}")];
        let error = refusal(&[&urls[0], &urls[1]]).await;
        assert!(error.contains("listen-peer-urls") && urls.iter().all(|url| error.contains(url)), "{error}");
    }

    async fn refusal(urls: &[&str]) -> String {
        let urls: Vec<PeerUrl> = urls.iter().map(|url| url.parse().expect("a URL")).collect();
        match bind(&World::default(), &urls, "listen-peer-urls").await {
            Ok(_) => panic!("{urls:?} can be listened on"),
            Err(error) => error.to_string(),
        }
    }
}
