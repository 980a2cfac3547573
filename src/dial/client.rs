//! Connections to peers: dialled on behalf of their owner, and a small pool of them for POSTs.

use std::{
    error::Error,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::FutureExt as _;
use http::{HeaderMap, HeaderValue, Method, Request, header};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    dial::{
        connection::{DialPhases, Dialled, DialledConnection, full},
        failure::{DialError, PostError, innermost},
        identity::Identity,
        io::{DeadlineIo, IoStatus, PeerIo, WRITE_DEADLINE},
        pool::{IDLE_TIMEOUT, Pool, is_idle},
        post::{PostAnswer, exchange},
        resolver::Resolver,
        urls::PeerUrl,
    },
    ledger::{AttemptResult, Direction},
    telemetry::MessageSpan,
    tls::{HandshakeReason, Tls, VerifiedStream, rustls_error},
    wire::{headers, version::MIN_CLUSTER},
    world::{self, Socket, World},
};

/// How much hyper may read ahead of its consumer, and gather before it writes; also the limit of an answer's head. A
/// connection starts with 8 KiB and grows only while reads fill the buffer, so that idle connections cost little and a
/// stream of large messages takes few reads.
const READ_BUFFER: usize = 512 << 10;
/// Room for a `GET`, and later for its answer.
const REQUEST_BYTES: usize = 1024;

/// Dials peers, and posts to them over connections that it keeps for a while. There is one per transport.
pub(crate) struct Client {
    headers: HeaderMap,
    tls: Option<Tls>,
    dial_timeout: Duration,
    resolver: Resolver,
    pool: Arc<Pool>,
    tasks: TaskTracker,
    stop: CancellationToken,
    world: World,
}

impl Client {
    /// A client that sends the headers of `identity`. `dial_timeout` limits the time to connect, over all addresses of
    /// a name.
    pub(crate) fn new(identity: &Identity, tls: Option<Tls>, dial_timeout: Duration, world: &World) -> Self {
        Self::with(headers_of(identity), tls, dial_timeout, world)
    }

    /// A client whose requests do not say who asks.
    pub(crate) fn anonymous(tls: Option<Tls>, dial_timeout: Duration, world: &World) -> Self {
        Self::with(HeaderMap::new(), tls, dial_timeout, world)
    }

    fn with(headers: HeaderMap, tls: Option<Tls>, dial_timeout: Duration, world: &World) -> Self {
        Self {
            headers,
            tls,
            dial_timeout,
            resolver: Resolver::new(world),
            pool: Arc::default(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            world: world.clone(),
        }
    }

    /// The world that it dials in.
    pub(crate) fn world(&self) -> &World {
        &self.world
    }

    /// Opens a connection for requests. The limits are 1 s for the look-up, the dial timeout for TCP, and 10 s for TLS.
    pub(crate) async fn dial(&self, url: &PeerUrl) -> Result<DialledConnection, DialError> {
        self.dial_at(url, None).await
    }

    /// As [`Self::dial`], but at no other address than `only`, if it is given.
    async fn dial_at(&self, url: &PeerUrl, only: Option<IpAddr>) -> Result<DialledConnection, DialError> {
        let (stream, Dialled { remote, .. }, io) = Box::pin(self.connect_and_secure(url, only)).await?;
        let mut http = http1::Builder::new();
        http.max_buf_size(READ_BUFFER);
        let handshake = http.handshake(TokioIo::new(stream)).await;
        let (sender, driver) = handshake.map_err(|error| DialError::Http { address: remote, error })?;
        Ok(DialledConnection { sender, driver: driver.fuse(), remote, io })
    }

    /// As [`Self::dial`], but without HTTP: nothing is spoken on the connection yet.
    pub(crate) async fn open(&self, url: &PeerUrl) -> Result<(PeerIo, Dialled, Arc<IoStatus>), DialError> {
        // Boxed, because a dial can wait long, and the future of a handshake is large.
        Box::pin(self.connect_and_secure(url, None)).await
    }

    async fn connect_and_secure(
        &self,
        url: &PeerUrl,
        only: Option<IpAddr>,
    ) -> Result<(PeerIo, Dialled, Arc<IoStatus>), DialError> {
        let mut phases = DialPhases::default();
        let tls = match url.is_tls() {
            true => Some(self.tls.as_ref().ok_or_else(|| DialError::NoTls(url.clone()))?),
            false => None,
        };
        let mut addresses = self.addresses(url, only.is_some(), &mut phases).await?;
        if let Some(only) = only {
            addresses.retain(|address| address.ip().to_canonical() == only);
            if addresses.is_empty() {
                return Err(DialError::Elsewhere { url: url.clone(), only });
            }
        }
        let begin = Instant::now();
        let (stream, remote) = self.connect(&addresses).await?;
        phases.connect = begin.elapsed();
        let local = stream.local_addr();
        let io = IoStatus::new(WRITE_DEADLINE);
        let stream = DeadlineIo::new(stream, io.clone());
        let stream = match tls {
            None => PeerIo::Plain(stream),
            Some(tls) => {
                let begin = Instant::now();
                // Boxed, so that a dial without TLS does not hold room for a handshake.
                let stream = Box::pin(secure(tls, url, remote, stream)).await?;
                phases.tls = Some(begin.elapsed());
                PeerIo::Tls(Box::new(stream))
            }
        };
        Ok((stream, Dialled { remote, local, phases }, io))
    }

    async fn addresses(
        &self,
        url: &PeerUrl,
        is_strangers: bool,
        phases: &mut DialPhases,
    ) -> Result<Vec<SocketAddr>, DialError> {
        if let Some(address) = url.address() {
            let at = SocketAddr::new(address, url.port());
            if !url.has_zone() {
                return Ok(vec![at]);
            }
            let in_zone = world::in_zone(url.host(), url.port());
            return in_zone.map(|at| vec![at]).map_err(|error| DialError::Connect { address: at, error });
        }
        let begin = Instant::now();
        let addresses = match is_strangers {
            true => self.resolver.lookup_for_a_stranger(url.host()).await?,
            false => self.resolver.lookup(url.host()).await?,
        };
        phases.dns = Some(begin.elapsed());
        Ok(addresses.iter().map(|address| SocketAddr::new(*address, url.port())).collect())
    }

    async fn connect(&self, addresses: &[SocketAddr]) -> Result<(Socket, SocketAddr), DialError> {
        let deadline = Instant::now() + self.dial_timeout;
        let mut last = None;
        for (tried, address) in addresses.iter().copied().enumerate() {
            // As in Go's dialer, a silent address may use up its own share of the time, but not that of the other
            // addresses.
            let left = deadline.saturating_duration_since(Instant::now());
            let share = left / u32::try_from(addresses.len() - tried).unwrap_or(u32::MAX);
            last = Some(match timeout(share, self.world.connect(address)).await {
                Ok(Ok(stream)) => match stream.prepare() {
                    Ok(()) => return Ok((stream, address)),
                    Err(error) => DialError::Connect { address, error },
                },
                Ok(Err(error)) => DialError::Connect { address, error },
                Err(_) => DialError::Timeout { address, after: self.dial_timeout },
            });
        }
        let address = SocketAddr::from(([0, 0, 0, 0], 0));
        Err(last.unwrap_or_else(|| DialError::Connect { address, error: io::ErrorKind::NotFound.into() }))
    }

    /// A request with the headers that every request to a peer carries. The caller adds a body and what its endpoint
    /// asks for.
    pub(crate) fn request(&self, method: Method, url: &PeerUrl, path: &str) -> http::request::Builder {
        let mut request = Request::builder().method(method).uri(path).header(header::HOST, url.authority());
        if let Some(headers) = request.headers_mut() {
            headers.extend(self.headers.iter().map(|(name, value)| (name.clone(), value.clone())));
        }
        request
    }

    /// A `GET` with the same headers, as the bytes that are written to the connection.
    pub(crate) fn get(&self, url: &PeerUrl, path: &str, traceparent: Option<&HeaderValue>) -> Vec<u8> {
        let mut request = Vec::with_capacity(REQUEST_BYTES);
        for part in ["GET ", path, " HTTP/1.1\r\nhost: ", url.authority(), "\r\n"] {
            request.extend_from_slice(part.as_bytes());
        }
        let traced = traceparent.map(|value| (headers::TRACEPARENT, value));
        for (name, value) in self.headers.iter().chain(traced.as_ref().map(|(name, value)| (name, *value))) {
            for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
                request.extend_from_slice(part);
            }
        }
        request.extend_from_slice(b"\r\n");
        request
    }

    /// Posts `body` and waits for the answer, at most 10 s after the last byte of the request was written. If no byte
    /// could be written to a pooled connection, the request is tried once more over a new one. If the message is
    /// traced, the request carries its `traceparent`, and its span learns the address that it went to. If `only` is
    /// given, the URL may lead to no other address.
    pub(crate) async fn post(
        &self,
        url: &PeerUrl,
        only: Option<IpAddr>,
        path: &str,
        content_type: &str,
        body: Bytes,
        span: Option<&MessageSpan>,
    ) -> Result<PostAnswer, PostError> {
        let traceparent = span.and_then(MessageSpan::traceparent);
        let went_to = |address| {
            if let Some(span) = span {
                span.address(address);
            }
        };
        let request = || {
            let mut request = self.request(Method::POST, url, path).header(header::CONTENT_TYPE, content_type);
            if let Some(traceparent) = &traceparent {
                request = request.header(headers::TRACEPARENT, traceparent);
            }
            request.body(full(body.clone())).map_err(|error| PostError::Request { url: url.clone(), error })
        };
        let may_go_to = |kept: &DialledConnection| only.is_none_or(|only| kept.remote.ip().to_canonical() == only);
        if let Some(mut kept) = self.pool.take(url.as_str()).filter(may_go_to) {
            let written = kept.io.written();
            match Box::pin(exchange(&mut kept, request()?)).await {
                Err(PostError::Broken(_)) if kept.io.written() == written => {}
                outcome => {
                    went_to(kept.remote);
                    if outcome.is_ok() {
                        self.keep(url, kept);
                    }
                    return outcome;
                }
            }
        }
        let request = request()?;
        let mut fresh = self.dial_at(url, only).await?;
        went_to(fresh.remote);
        let answer = Box::pin(exchange(&mut fresh, request)).await.inspect_err(|error| {
            if let PostError::Broken(error) = error {
                self.first_request_failed(error);
            }
        })?;
        self.keep(url, fresh);
        Ok(answer)
    }

    /// The result of a dial whose first request was not answered, and the reason. With TLS 1.3, a client learns only
    /// now that its certificate was refused: this then counts the handshake as failed.
    pub(crate) fn first_request_failed(&self, error: &(dyn Error + 'static)) -> (AttemptResult, String) {
        match (rustls_error(error), &self.tls) {
            (Some(broken), Some(tls)) => {
                tls.note_failure(Direction::Out, HandshakeReason::of(broken));
                let refused = tls.refused_ours(Direction::Out, error);
                (AttemptResult::Tls, refused.unwrap_or_else(|| format!("no answer: {}", innermost(error))))
            }
            _ => (AttemptResult::Unreachable, format!("no answer: {}", innermost(error))),
        }
    }

    /// Why a TLS connection may have ended before its first answer, without an alert: see [`Tls::refused_names`].
    /// Counts it as a failed handshake.
    pub(crate) fn refused_in_silence(&self, Dialled { remote, local, phases }: Dialled) -> Option<String> {
        let tls = self.tls.as_ref().filter(|_| phases.tls.is_some())?;
        let why = tls.refused_names(local?.ip())?;
        tls.note_failure(Direction::Out, HandshakeReason::Name);
        Some(format!("TLS with {remote}: {why}"))
    }

    fn keep(&self, url: &PeerUrl, mut connection: DialledConnection) {
        if !is_idle(&mut connection) {
            return;
        }
        // A closed pool takes nothing.
        if self.pool.put(url.as_str(), connection) {
            let (pool, stop) = (Arc::downgrade(&self.pool), self.stop.clone());
            self.tasks.spawn(async move {
                let sweep = async {
                    let mut next = IDLE_TIMEOUT;
                    loop {
                        tokio::time::sleep(next).await;
                        match pool.upgrade().and_then(|pool| pool.sweep()) {
                            Some(wait) => next = wait,
                            None => return,
                        }
                    }
                };
                stop.run_until_cancelled(sweep).await;
            });
        }
    }

    /// Closes the pool and waits until no task is left. A later POST dials and keeps no connection. Names that only a
    /// DNS server knows are not looked up any more.
    pub(crate) async fn stop(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.pool.close();
        self.resolver.close();
        self.tasks.wait().await;
        self.resolver.closed().await;
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// The headers that every request carries, built once.
fn headers_of(identity: &Identity) -> HeaderMap {
    let urls: Vec<&str> = identity.urls.iter().map(PeerUrl::as_str).collect();
    let fields = [
        (headers::X_SERVER_FROM, identity.member.to_string()),
        (headers::X_SERVER_VERSION, identity.server_version.to_string()),
        (headers::X_MIN_CLUSTER_VERSION, MIN_CLUSTER.to_string()),
        (headers::X_ETCD_CLUSTER_ID, identity.cluster.to_string()),
        (headers::X_PEER_URLS, urls.join(",")),
        (headers::X_RAFTHTTP_INCARNATION, identity.incarnation.map_or_else(String::new, |told| told.to_string())),
    ];
    let written = fields.into_iter().filter(|(_, value)| !value.is_empty());
    // A URL that does not fit into a header is left out.
    written.filter_map(|(name, value)| Some((name, HeaderValue::try_from(value).ok()?))).collect()
}

async fn secure(
    tls: &Tls,
    url: &PeerUrl,
    address: SocketAddr,
    stream: DeadlineIo<Socket>,
) -> Result<VerifiedStream<DeadlineIo<Socket>>, DialError> {
    if tls.client().is_none() {
        return Err(DialError::NoTls(url.clone()));
    }
    // The certificate is verified for an address without its zone, and for an IPv4 address as such, however it is
    // written.
    let name = url.address().map_or_else(|| url.host().to_owned(), |address| address.to_string());
    tls.connect(&name, stream).await.map_err(|error| DialError::Tls { address, error })
}

#[cfg(test)]
mod tests;
