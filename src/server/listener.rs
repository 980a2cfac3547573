//! The port: accepts connections within limits, and ends all of them when it stops.

use std::{
    convert::Infallible,
    io,
    net::{IpAddr, SocketAddr},
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{Router, extract::Request};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::TcpListener,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower_service::Service;
use tracing::Instrument;

use crate::{
    dial::{
        io::{DeadlineIo, IoStatus, PeerIo, WRITE_DEADLINE},
        resolver::Resolver,
    },
    ledger::Direction,
    server::{
        connections::{AcceptedConnection, ConnectionLimits, Connections, Seat},
        head,
        linger::Lingering,
        metrics::{ConnectionMetrics, Shed},
        names::ClientNames,
        plain::{self, FirstBytes},
    },
    telemetry::Repeats,
    tls::{HandshakeReason, Tls},
    world::{Listener, Socket, World},
};

/// The most headers in a head, which is also the default of hyper.
const HEADERS: usize = 100;
/// How long accepting pauses after an error that does not concern one connection, such as having no file descriptor
/// left.
const ACCEPT_REST: Duration = Duration::from_millis(50);

/// Serves `app` on `listener` until `stop`: a [`Server`] with its defaults, without TLS.
pub async fn serve(listener: TcpListener, app: Router, stop: CancellationToken) {
    Server::new(app).serve(listener, stop).await;
}

/// A peer listener: HTTP/1.1, with or without TLS, within [`ConnectionLimits`].
#[derive(Clone)]
pub struct Server {
    app: Router,
    tls: Option<Tls>,
    plain: PlainRequests,
    limits: ConnectionLimits,
    metrics: ConnectionMetrics,
    world: World,
}

/// How plain HTTP on a TLS port is treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PlainRequests {
    /// The connection is closed, as etcd's listener does.
    Closed,
    /// The request is answered, as Go's server does.
    Answered,
}

impl Server {
    /// A server of `app`, which is usually [`router`](super::router)'s.
    pub fn new(app: Router) -> Self {
        Self {
            app,
            tls: None,
            plain: PlainRequests::Closed,
            limits: ConnectionLimits::default(),
            metrics: ConnectionMetrics::new(),
            world: World::default(),
        }
    }

    /// Makes the port speak TLS alone. Default: no TLS.
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Answers plain HTTP on a TLS port with 400 and `Client sent an HTTP request to an HTTPS server.`, as Go's server
    /// does, for people who forgot the `s`. Default: the connection is closed, as on etcd's peer port.
    pub fn answer_plain(mut self) -> Self {
        self.plain = PlainRequests::Answered;
        self
    }

    /// Sets the limits of its connections. Default: [`ConnectionLimits::default`].
    pub fn limits(mut self, limits: ConnectionLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets the metrics that count its connections. Default: none.
    pub fn metrics(mut self, metrics: &ConnectionMetrics) -> Self {
        self.metrics = metrics.clone();
        self
    }

    /// Sets the world in which names are looked up. Default: the real one.
    #[doc(hidden)]
    pub fn world(mut self, world: &World) -> Self {
        self.world = world.clone();
        self
    }

    /// Serves until `stop`. Requests under way then have [`ConnectionLimits::grace`] to complete. Returns when every
    /// connection is closed.
    ///
    /// An open stream is a request under way. Stop the transport too, which ends each stream cleanly.
    pub async fn serve(self, listener: TcpListener, stop: CancellationToken) {
        self.serve_on(listener.into(), stop).await;
    }

    /// As [`Self::serve`], on a port of any network.
    #[doc(hidden)]
    pub async fn serve_on(self, listener: Listener, stop: CancellationToken) {
        let connections = Connections::new(self.limits.clone(), self.metrics.clone());
        let checks_names = self.tls.as_ref().is_some_and(Tls::checks_client_names);
        let names = checks_names.then(|| ClientNames::new(Resolver::new(&self.world)));
        let port = Arc::new(PortServer { http: http(&self.limits), names, server: self });
        let tasks = TaskTracker::new();
        if let Some(tls) = port.server.tls.clone() {
            tasks.spawn(stop.clone().run_until_cancelled_owned(tls.watch()));
        }
        let failures = AcceptFailures::default();
        while let Some(accepted) = stop.run_until_cancelled(failures.told_beside(listener.accept())).await {
            match accepted {
                Ok((socket, address)) => {
                    // Without a seat there is no task, and dropping the connection closes it.
                    let Some(seat) = connections.seat(address.ip()) else { continue };
                    if port.server.tls.is_none() {
                        seat.greeted();
                    }
                    let (port, stop) = (Arc::clone(&port), stop.clone());
                    let span = tracing::debug_span!("connection", %address);
                    tasks.spawn(async move { port.keep(socket, address, seat, stop).await }.instrument(span));
                }
                Err(error) => failures.rest(error, &connections).await,
            }
        }
        drop(listener);
        tasks.close();
        tasks.wait().await;
        if let Some(names) = &port.names {
            names.close().await;
        }
    }
}

/// A server on one port.
struct PortServer {
    server: Server,
    http: http1::Builder,
    /// `None`: clients may come from any address.
    names: Option<ClientNames>,
}

impl PortServer {
    /// Serves one connection, from its first byte to its end.
    async fn keep(&self, socket: Socket, address: SocketAddr, seat: Seat, stop: CancellationToken) {
        let serving = async {
            let status = IoStatus::new(WRITE_DEADLINE);
            let opening = self.open(socket, address.ip(), Arc::clone(&status));
            let Some(io) = stop.run_until_cancelled(opening).await else { return Ok(()) };
            let io = io?;
            seat.greeted();
            let connection = AcceptedConnection::new(&seat, status, address, io.certificate());
            self.requests(io, connection, &stop).await
        };
        tokio::select! {
            biased;
            // A busy connection must not delay making room.
            () = seat.evicted() => {}
            outcome = serving => if let Err(error) = outcome {
                if let (ConnectionError::Handshake(error), Some(tls)) = (&error, &self.server.tls) {
                    tls.tell_refusal(address.ip().to_canonical(), error);
                }
                tracing::debug!(%error, "connection ended");
            }
        }
    }

    async fn open(&self, socket: Socket, from: IpAddr, status: Arc<IoStatus>) -> Result<PeerIo, ConnectionError> {
        socket.prepare()?;
        let mut io = DeadlineIo::new(socket, status);
        let Some(tls) = &self.server.tls else { return Ok(PeerIo::Plain(io)) };
        let mut left = self.server.limits.handshake_timeout;
        if self.server.plain == PlainRequests::Answered {
            left = match plain::opening(&mut io, left).await? {
                FirstBytes::Left(left) => left,
                FirstBytes::Plain => {
                    tls.note_failure(Direction::In, HandshakeReason::Protocol);
                    plain::refuse(io).await?;
                    return Err(ConnectionError::Plain);
                }
            };
        }
        let io = tls.accept(io, left).await?;
        if let (Some(names), Some(certificate)) = (&self.names, io.certificate()) {
            let outcome = names.check(certificate, from).await;
            outcome.inspect_err(|error| tls.note_failure(Direction::In, error.reason()))?;
        }
        Ok(PeerIo::Tls(Box::new(io)))
    }

    async fn requests(
        &self,
        io: PeerIo,
        connection: AcceptedConnection,
        stop: &CancellationToken,
    ) -> Result<(), ConnectionError> {
        let service = service_fn(|request: hyper::Request<Incoming>| {
            let mut request: Request = request.map(axum::body::Body::new);
            request.extensions_mut().insert(connection.clone());
            let refused = head::refuse(&request);
            let answer = self.server.app.clone().call(request);
            async {
                Ok::<_, Infallible>(match refused {
                    Some(refusal) => refusal,
                    None => answer.await.unwrap_or_else(|never| match never {}),
                })
            }
        });
        let mut serving = pin!(self.http.serve_connection(TokioIo::new(Lingering::new(io)), service));
        if let Some(outcome) = stop.run_until_cancelled(serving.as_mut()).await {
            return Ok(outcome?);
        }
        serving.as_mut().graceful_shutdown();
        // A connection that does not end in time is cut: its future is dropped.
        timeout(self.server.limits.grace, serving).await.unwrap_or(Ok(()))?;
        Ok(())
    }
}

/// Why a connection failed.
#[derive(Debug, thiserror::Error)]
enum ConnectionError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Handshake(#[from] crate::tls::HandshakeError),
    #[error("plain HTTP on a port for TLS")]
    Plain,
    #[error(transparent)]
    Http(#[from] hyper::Error),
}

fn http(limits: &ConnectionLimits) -> http1::Builder {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(limits.head_timeout)
        .max_header_size(limits.head_bytes)
        .max_headers(HEADERS)
        // Go writes header names in this form, and people compare packet traces.
        .title_case_headers(true);
    http
}

/// Errors of accepting connections, usually because no file descriptor is left. The first is logged at once, and later
/// ones in sums while they go on.
#[derive(Default)]
struct AcceptFailures {
    repeats: Repeats,
    last: Mutex<Option<io::Error>>,
}

impl AcceptFailures {
    async fn rest(&self, error: io::Error, connections: &Connections) {
        // These errors concern one connection, and say nothing about the next one.
        if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) {
            return;
        }
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        if let Some(failures) = self.repeats.note() {
            self.tell(failures);
        }
        connections.evict_oldest(Shed::Descriptors);
        sleep(ACCEPT_REST).await;
    }

    /// Waits for `next`, and meanwhile logs the errors that were withheld.
    async fn told_beside<T>(&self, next: impl Future<Output = T>) -> T {
        let mut next = pin!(next);
        loop {
            tokio::select! {
                biased;
                next = next.as_mut() => return next,
                failures = self.repeats.due() => self.tell(failures),
            }
        }
    }

    fn tell(&self, failures: u64) {
        let error = self.last.lock().unwrap_or_else(PoisonError::into_inner).take();
        let error = error.as_ref().map(tracing::field::display);
        tracing::warn!(error, failures, "cannot accept connections, closing the oldest that no peer needs");
    }
}
