//! TLS between peers: certificates that are read again when their files change, and the names that peers' certificates
//! must have.

use std::{
    collections::{HashMap, HashSet},
    error::Error,
    io,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use rustls::{ClientConfig, HandshakeKind, ServerConfig};
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};
use xxhash_rust::xxh3::xxh3_64;

use crate::{
    id::MemberId,
    ledger::{Direction, Tally},
    telemetry::{Events, WeakEvents},
};

mod authorities;
mod certificate;
mod config;
mod crl;
mod der;
mod failure;
mod files;
mod key;
mod leaf;
mod names;
mod open;
mod parts;
mod pem;
mod refusal;
mod shown;
mod state;
mod status;
mod stream;
mod verifier;

pub(crate) use certificate::Hosts;
use certificate::{Certificate, Purpose};
pub use config::{TlsClientConfig, TlsConfig};
pub(crate) use failure::rustls_error;
pub use failure::{HandshakeError, HandshakeReason, TlsError};
use open::{Lease, OpenConnections, PeerChain, VerifiedAs};
use parts::{InUse, ProcessTls};
use state::TlsState;
pub use status::{CertificatePart, Reloads, TlsStatus};
pub use stream::VerifiedStream;

/// How long a handshake on a dialled connection may take.
pub(crate) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// The files are checked for changes at most this often.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// After verifying this many certificates, the task yields to others.
const VERIFIED_AT_ONCE: usize = 32;
/// How often the refusal of one client is logged again.
const REFUSALS_EVERY: Duration = Duration::from_secs(3600);
/// At most this many refusals are remembered and logged within that time, because a stranger can have many addresses.
const REFUSALS: usize = 64;
/// At most this many pairs of ID and certificate that do not belong together are logged.
const MISMATCHES: usize = 256;

/// The certificates of a member, kept current. Cheap to clone: all clones share one state.
///
/// The same value goes to the transport, which dials with it, and to the server, which accepts with it:
///
/// ```no_run
/// use rafthttp::{Server, Tls, TlsConfig, Transport};
///
/// # fn secured(builder: rafthttp::Builder) -> Result<(Transport, Server), Box<dyn std::error::Error>> {
/// let tls = Tls::load(TlsConfig {
///     cert_file: "peer.crt".into(),
///     key_file: "peer.key".into(),
///     trusted_ca_file: Some("ca.crt".into()),
///     client_cert_auth: true,
///     ..TlsConfig::default()
/// })?;
/// let transport = builder.tls(tls.clone()).build()?;
/// let server = Server::new(rafthttp::router(&transport)).tls(tls);
/// # Ok((transport, server))
/// # }
/// ```
///
/// Changed files are read again within a second.
#[derive(Clone, Debug)]
pub struct Tls {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: ProcessTls,
    state: Mutex<TlsState>,
    open: OpenConnections,
    failures: Mutex<Tally<(Direction, HandshakeReason)>>,
    closed: Mutex<Tally<(Direction, HandshakeReason)>>,
    /// Held while the open connections are verified.
    verifying: tokio::sync::Mutex<()>,
    /// The event lists that a reload is written to.
    told: Mutex<Vec<WeakEvents>>,
    /// The refusals that were logged, by address and reason, and when.
    refused: Mutex<HashMap<(IpAddr, HandshakeReason), Instant>>,
    /// Requests whose certificate was not for the member that they claimed to be from, by kind of request.
    mismatches: Mutex<Tally<&'static str>>,
    /// The pairs of ID and certificate that were logged.
    mismatches_told: Mutex<HashSet<(MemberId, u64)>>,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// A file cannot be read or parsed, or the key does not belong to the certificate.
    pub fn load(config: TlsConfig) -> Result<Self, TlsError> {
        Self::of(ProcessTls::Member(config))
    }

    /// As [`Self::load`], for a port for clients, where this process accepts connections and does not dial. The
    /// certificate need not allow client authentication, and the port offers HTTP/1.1 alone.
    pub fn load_server(config: TlsConfig) -> Result<Self, TlsError> {
        Self::of(ProcessTls::Server(config))
    }

    /// As [`Self::load`], for a process that dials and does not accept connections.
    pub fn load_client(config: TlsClientConfig) -> Result<Self, TlsError> {
        Self::of(ProcessTls::Client(config))
    }

    fn of(config: ProcessTls) -> Result<Self, TlsError> {
        let state = Mutex::new(TlsState::load(&config)?);
        let (open, failures, closed, verifying, told, refused) = Default::default();
        let (mismatches, mismatches_told) = Default::default();
        let inner =
            Inner { config, state, open, failures, closed, verifying, told, refused, mismatches, mismatches_told };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The configuration for dialling. `None` without a trusted CA. Checks first, at most once a second, whether the
    /// files changed.
    pub fn client(&self) -> Option<Arc<ClientConfig>> {
        self.in_use().client.clone()
    }

    /// The configuration for accepting. `None` for a process that only dials. Checks first, at most once a second,
    /// whether the files changed.
    pub fn server(&self) -> Option<Arc<ServerConfig>> {
        self.in_use().server.clone()
    }

    /// When the chain in use ends, as in [`TlsStatus::certificate_expiry`]. `None` if no certificate is presented.
    pub fn expiry(&self) -> Option<SystemTime> {
        self.in_use().first_to_end().map(|shown| shown.ends.earliest())
    }

    /// How often the files changed since they were loaded.
    pub fn reloads(&self) -> Reloads {
        self.current().reloads
    }

    /// The failed handshakes, by direction and reason.
    pub fn handshake_failures(&self) -> Tally<(Direction, HandshakeReason)> {
        lock(&self.inner.failures).clone()
    }

    /// The open connections that were closed because the peer's certificate no longer verified, by direction and reason.
    pub fn connections_closed(&self) -> Tally<(Direction, HandshakeReason)> {
        lock(&self.inner.closed).clone()
    }

    /// Everything that `/metrics` shows about TLS.
    pub(crate) fn status(&self) -> TlsStatus {
        let (in_use, reloads, revocation) = {
            let current = self.current();
            (current.in_use.clone(), current.reloads, current.revocation_end())
        };
        let ends = in_use.first_to_end().map(|shown| shown.ends);
        TlsStatus {
            certificate_expiry: ends.map(|ends| ends.earliest()),
            certificate_parts: ends.map(|ends| ends.parts().collect()).unwrap_or_default(),
            reloads_ok: reloads.ok,
            reloads_failed: reloads.failed,
            handshake_failures: labelled(&self.handshake_failures()),
            connections_closed: labelled(&self.connections_closed()),
            revocation_next_update: revocation,
            identity_mismatches: self.identity_mismatches(),
        }
    }

    /// Performs the handshake on an accepted connection. It fails if it takes longer than `within`.
    pub async fn accept<T>(&self, stream: T, within: Duration) -> Result<VerifiedStream<T>, HandshakeError>
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        let begun = self.in_use();
        let handshake = async {
            let server = begun.server.clone().ok_or_else(HandshakeError::no_certificate)?;
            let accepting = async move { TlsAcceptor::from(server).accept(stream).await };
            let accepted = self.within(Direction::In, within, accepting).await?;
            self.opened(accepted.into(), VerifiedAs::Client, &begun)
        };
        handshake.await.inspect_err(|error| self.note_failure(Direction::In, error.reason()))
    }

    /// Performs the handshake on a connection that was dialled to this host. It fails if it takes longer than 10 s.
    pub(crate) async fn connect<T>(&self, host: &str, stream: T) -> Result<VerifiedStream<T>, HandshakeError>
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        let begun = self.in_use();
        let handshake = async {
            let name = ServerName::try_from(host.to_owned()).map_err(|_| HandshakeError::not_a_name(host))?;
            let client = begun.client.clone().ok_or_else(HandshakeError::no_authority)?;
            let dialled = name.clone();
            let dialling = async move { TlsConnector::from(client).connect(dialled, stream).await };
            let connected = self.within(Direction::Out, HANDSHAKE_TIMEOUT, dialling).await?;
            self.opened(connected.into(), VerifiedAs::Server(name), &begun)
        };
        handshake.await.inspect_err(|error| self.note_failure(Direction::Out, error.reason()))
    }

    /// A handshake that began with the certificates `begun` has succeeded. Two cases have to be verified again here. A
    /// resumed session does not verify the peer's certificate. A handshake during which our certificates changed has
    /// verified it against the old ones.
    fn opened<T>(
        &self,
        io: TlsStream<T>,
        verified_as: VerifiedAs,
        begun: &Arc<InUse>,
    ) -> Result<VerifiedStream<T>, HandshakeError> {
        let session = io.get_ref().1;
        let Some(chain) = session.peer_certificates().filter(|chain| !chain.is_empty()) else {
            return Ok(VerifiedStream::new(io, None));
        };
        let resumed = session.handshake_kind() == Some(HandshakeKind::Resumed);
        // The lease is added before the check, so that `watch` finds it if a change comes after the check.
        let seen = PeerChain { chain: chain.to_vec(), verified_as };
        let due = begun.next_end(&seen);
        let lease = self.inner.open.add(seen, due);
        let now = self.in_use();
        if resumed || !Arc::ptr_eq(&now, begun) {
            now.verify(&lease.seen)?;
            lease.verified(now.next_end(&lease.seen));
        }
        Ok(VerifiedStream::new(io, Some(lease)))
    }

    /// Checks once a second whether files changed or certificates expired, and closes the connections whose peer's
    /// certificate no longer verifies. It runs until it is dropped. Everyone who opens connections runs one; several do
    /// no harm.
    pub(crate) async fn watch(self) {
        loop {
            sleep(LOOK_EVERY).await;
            self.close_unverified().await;
        }
    }

    async fn close_unverified(&self) {
        // A transport, its server and others share the certificates and all watch. One at a time is enough.
        let Ok(_alone) = self.inner.verifying.try_lock() else { return };
        let (in_use, generation, changed) = {
            let current = self.current();
            (current.in_use.clone(), current.generation, current.verified < current.generation)
        };
        for (number, (seen, leases)) in self.inner.open.to_verify(changed).into_iter().enumerate() {
            if number % VERIFIED_AT_ONCE == VERIFIED_AT_ONCE - 1 {
                tokio::task::yield_now().await;
            }
            match in_use.verify(&seen) {
                Ok(()) => {
                    let due = in_use.next_end(&seen);
                    leases.iter().for_each(|lease| lease.verified(due));
                }
                Err(error) => {
                    let closed = self.close(&leases, &seen, &error);
                    self.tell_closed(&seen, &error, closed);
                }
            }
        }
        let mut state = self.current();
        state.verified = state.verified.max(generation);
    }

    /// Ends these leases and counts them. They are counted under the lock, so that everyone who sees one end also sees
    /// it counted.
    fn close(&self, leases: &[Arc<Lease>], seen: &PeerChain, error: &HandshakeError) -> u64 {
        let why: Arc<str> = error.to_string().into();
        let mut counted = lock(&self.inner.closed);
        let closed = leases.iter().filter(|lease| lease.end(why.clone())).count() as u64;
        if closed > 0 {
            counted.add((seen.direction(), error.reason()), closed);
        }
        closed
    }

    fn tell_closed(&self, seen: &PeerChain, error: &HandshakeError, connections: u64) {
        if connections == 0 {
            return;
        }
        let (direction, reason) = (seen.direction(), error.reason());
        let certificate = seen.chain.first().map(name_of).unwrap_or_default();
        tracing::warn!(direction = direction.label(), reason = reason.label(), connections, certificate, %error,
            "connections closed: the peer's certificate no longer verifies");
        for events in lock(&self.inner.told).iter().filter_map(WeakEvents::upgrade) {
            events.tls_connections_closed(direction, reason.label(), connections, &certificate);
        }
    }

    /// Whether a request is refused if its certificate is not for the member that it claims to be from.
    pub(crate) fn binds_members(&self) -> bool {
        matches!(&self.inner.config, ProcessTls::Member(config) if config.bind_members)
    }

    /// Counts a request whose certificate is not for the member that it claims to be from, whether or not it is
    /// refused. Returns true for the first one with this certificate and ID, which the caller logs.
    pub(crate) fn mismatched(
        &self,
        request: &'static str,
        claimed: MemberId,
        certificate: &CertificateDer<'_>,
    ) -> bool {
        self.note_mismatch(request);
        let mut told = lock(&self.inner.mismatches_told);
        let key = (claimed, xxh3_64(certificate));
        told.len() < MISMATCHES && told.insert(key)
    }

    /// Counts a request whose sender nothing confirms.
    pub(crate) fn note_mismatch(&self, request: &'static str) {
        lock(&self.inner.mismatches).add(request, 1);
    }

    /// Requests whose certificate was not for the member that they claimed to be from, by kind of request: `stream`,
    /// `pipeline`, `snapshot`, `probing`.
    pub fn identity_mismatches(&self) -> Tally<&'static str> {
        lock(&self.inner.mismatches).clone()
    }

    /// Whether clients' certificates are checked against the addresses that they come from.
    pub(crate) fn checks_client_names(&self) -> bool {
        matches!(&self.inner.config, ProcessTls::Member(config) if !config.skip_client_san_verification)
    }

    async fn within<S>(
        &self,
        direction: Direction,
        within: Duration,
        handshake: impl Future<Output = io::Result<S>>,
    ) -> Result<S, HandshakeError> {
        let (outcome, words) = refusal::heard(timeout(within, handshake)).await;
        let outcome = outcome.map_err(|_| HandshakeError::timeout(within))?;
        outcome.map_err(|error| {
            let words = words.or_else(|| self.refused_ours(direction, &error));
            HandshakeError::of(error, words)
        })
    }

    /// What an alert of the other side means for the certificate that we presented. `None` if the alert is about
    /// something else.
    pub(crate) fn refused_ours(&self, direction: Direction, error: &(dyn Error + 'static)) -> Option<String> {
        let alert = failure::about_our_certificate(error)?;
        let purpose = match direction {
            Direction::In => Purpose::Server,
            Direction::Out => Purpose::Client,
        };
        let in_use = self.in_use();
        let Some(shown) = in_use.shown(purpose) else {
            return Some("the other side requires a certificate, but there is none to show".to_owned());
        };
        let known = shown.refused.iter().find(|(refused, _)| *refused == purpose);
        let why = known.map(|(_, why)| format!(": {why}")).unwrap_or_default();
        Some(format!("the other side refuses our certificate, {} (alert {alert}){why}", shown.file.display()))
    }

    /// Warns if members that dial this URL will refuse this member's certificate because of its names.
    pub(crate) fn warn_of_names(&self, url: &str, host: &str) {
        let in_use = self.in_use();
        let Some(shown) = in_use.shown(Purpose::Server) else { return };
        if let Some(why) = shown.not_for(host) {
            let file = shown.file.display();
            tracing::warn!(%file, url, why, "peers that dial this URL will refuse this certificate");
        }
    }

    /// Adds an event list that reloads are written to.
    pub(crate) fn tell(&self, events: &Events) {
        let mut told = lock(&self.inner.told);
        told.retain(|events| events.upgrade().is_some());
        told.push(events.downgrade());
    }

    /// Logs why a connection from `address` was refused because of a certificate, theirs or ours. Such clients dial
    /// again and again, so each address and reason gets one line an hour.
    pub(crate) fn tell_refusal(&self, address: IpAddr, error: &HandshakeError) {
        let key = (address, error.reason());
        if !error.reason().is_of_certificates() {
            return;
        }
        {
            let mut refused = lock(&self.inner.refused);
            refused.retain(|_, told| told.elapsed() < REFUSALS_EVERY);
            if refused.len() >= REFUSALS || refused.contains_key(&key) {
                return;
            }
            refused.insert(key, Instant::now());
        }
        let told = lock(&self.inner.told);
        for events in told.iter().filter_map(WeakEvents::upgrade) {
            events.handshake_refused(address, error.reason().label(), &error.to_string());
        }
    }

    pub(crate) fn note_failure(&self, direction: Direction, reason: HandshakeReason) {
        lock(&self.inner.failures).add((direction, reason), 1);
    }

    /// Why etcd may have closed a connection from `address` right after the handshake. Its listener does so if our
    /// certificate has alternative names and none of them is the address that we come from (`checkCertSAN` of its
    /// `tlsListener`). `None` if that cannot be the reason. Names are not resolved here, and do not count as ours.
    pub(crate) fn refused_names(&self, address: IpAddr) -> Option<String> {
        let Hosts { addresses, names } = self.in_use().shown(Purpose::Client)?.hosts.clone();
        if (addresses.is_empty() && names.is_empty()) || addresses.contains(&address.to_canonical()) {
            return None;
        }
        let hosts: Vec<String> = addresses.iter().map(ToString::to_string).chain(names).collect();
        Some(format!(
            "closed right after the TLS handshake, as etcd does when none of the alternative names of a client \
             certificate is the address that it comes from: ours has {}, and we come from {address}",
            hosts.join(", ")
        ))
    }

    fn in_use(&self) -> Arc<InUse> {
        self.current().in_use.clone()
    }

    fn current(&self) -> MutexGuard<'_, TlsState> {
        let mut state = lock(&self.inner.state);
        if state.looked.elapsed() >= LOOK_EVERY {
            state.look(&self.inner.config, &lock(&self.inner.told));
        }
        state
    }
}

/// Whether a certificate is for this host, by the rule by which one that we dial is.
pub(crate) fn is_for(certificate: &CertificateDer<'_>, host: &str) -> bool {
    ServerName::try_from(host).is_ok_and(|host| names::verify(certificate, &host).is_ok())
}

/// The name of a certificate in a log line.
pub(crate) fn name_of(certificate: &CertificateDer<'_>) -> String {
    Certificate::read(certificate).map(|certificate| certificate.to_string()).unwrap_or_default()
}

/// The hosts that a certificate is for.
pub(crate) fn hosts_of(certificate: &CertificateDer<'_>) -> Hosts {
    Certificate::read(certificate).map(|certificate| certificate.hosts()).unwrap_or_default()
}

fn labelled(counts: &Tally<(Direction, HandshakeReason)>) -> Tally<(Direction, &'static str)> {
    let mut labelled = Tally::default();
    for ((direction, reason), count) in counts.iter() {
        labelled.add((direction, reason.label()), count);
    }
    labelled
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
