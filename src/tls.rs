//! TLS between peers: certificates that are read again when their files change, and names that peers must bear.

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
use open::{Lease, Open, Role, Seen};
use parts::{InUse, Source};
use state::State;
pub use status::{CertificatePart, Reloads, TlsStatus};
pub use stream::VerifiedStream;

/// How long a handshake that we began may take.
pub(crate) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How often the files are looked at, at most.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// So many certificates are verified again before others may do something.
const VERIFIED_AT_ONCE: usize = 32;
/// How often a refusal of who dials us is told of again.
const REFUSALS_EVERY: Duration = Duration::from_secs(3600);
/// So many of them are remembered, and told of, within that time: a stranger has many addresses.
const REFUSALS: usize = 64;
/// So many IDs and certificates that did not go together are told of.
const MISMATCHES: usize = 256;

/// The certificates of a member, as they are now. Cheap to clone: every clone is the same.
#[derive(Clone, Debug)]
pub struct Tls {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: Source,
    state: Mutex<State>,
    open: Open,
    failures: Mutex<Tally<(Direction, HandshakeReason)>>,
    closed: Mutex<Tally<(Direction, HandshakeReason)>>,
    /// Of whoever verifies the open connections.
    verifying: tokio::sync::Mutex<()>,
    /// Who is told of a reload.
    told: Mutex<Vec<WeakEvents>>,
    /// Whose refusals were told of, by address and reason, and when.
    refused: Mutex<HashMap<(IpAddr, HandshakeReason), Instant>>,
    /// Requests that were from another than they said, by what they asked for.
    mismatches: Mutex<Tally<&'static str>>,
    /// Of which ID and certificate was told.
    mismatches_told: Mutex<HashSet<(MemberId, u64)>>,
}

impl Tls {
    /// Reads the files. Fails when a file cannot be read or parsed, or when the key is not the certificate's.
    pub fn load(config: TlsConfig) -> Result<Self, TlsError> {
        Self::of(Source::Member(config))
    }

    /// [`Self::load`], of who is dialled and does not dial: a port for clients. Its certificate need not be one for clients,
    /// and it offers HTTP/1.1 alone.
    pub fn load_server(config: TlsConfig) -> Result<Self, TlsError> {
        Self::of(Source::Server(config))
    }

    /// [`Self::load`], of who dials and is not dialled.
    pub fn load_client(config: TlsClientConfig) -> Result<Self, TlsError> {
        Self::of(Source::Client(config))
    }

    fn of(config: Source) -> Result<Self, TlsError> {
        let state = Mutex::new(State::load(&config)?);
        let (open, failures, closed, verifying, told, refused) = Default::default();
        let (mismatches, mismatches_told) = Default::default();
        let inner =
            Inner { config, state, open, failures, closed, verifying, told, refused, mismatches, mismatches_told };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// For dialling; none without a trusted CA. Looks first, at most once a second, whether the files changed.
    pub fn client(&self) -> Option<Arc<ClientConfig>> {
        self.in_use().client.clone()
    }

    /// For accepting; none for who only dials. Looks first, at most once a second, whether the files changed.
    pub fn server(&self) -> Option<Arc<ServerConfig>> {
        self.in_use().server.clone()
    }

    /// When the chain in use ends, as [`TlsStatus::certificate_expiry`] has it; none for who shows none.
    pub fn expiry(&self) -> Option<SystemTime> {
        self.in_use().first_to_end().map(|shown| shown.ends.earliest())
    }

    /// How often the files changed since they were loaded.
    pub fn reloads(&self) -> Reloads {
        self.current().reloads
    }

    /// The handshakes that failed, by direction and reason.
    pub fn handshake_failures(&self) -> Tally<(Direction, HandshakeReason)> {
        lock(&self.inner.failures).clone()
    }

    /// The open connections that were closed because the peer's certificate no longer verified, by direction and reason.
    pub fn connections_closed(&self) -> Tally<(Direction, HandshakeReason)> {
        lock(&self.inner.closed).clone()
    }

    /// All that `/metrics` shows of it.
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

    /// Speaks TLS with who dialled us; one that takes longer than `within` has failed.
    pub async fn accept<T>(&self, stream: T, within: Duration) -> Result<VerifiedStream<T>, HandshakeError>
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        let begun = self.in_use();
        let handshake = async {
            let server = begun.server.clone().ok_or_else(HandshakeError::no_certificate)?;
            let accepting = async move { TlsAcceptor::from(server).accept(stream).await };
            let accepted = self.within(Direction::In, within, accepting).await?;
            self.opened(accepted.into(), Role::DiallingUs, &begun)
        };
        handshake.await.inspect_err(|error| self.note_failure(Direction::In, error.reason()))
    }

    /// Speaks TLS with whom we dialled at this host; within 10 s.
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
            self.opened(connected.into(), Role::Dialled(name), &begun)
        };
        handshake.await.inspect_err(|error| self.note_failure(Direction::Out, error.reason()))
    }

    /// A handshake that began with these certificates has ended well. In a session that was resumed, the peer's
    /// certificate was not looked at, and with other certificates meanwhile it was by the old ones: then it is verified
    /// here.
    fn opened<T>(&self, io: TlsStream<T>, role: Role, begun: &Arc<InUse>) -> Result<VerifiedStream<T>, HandshakeError> {
        let session = io.get_ref().1;
        let Some(chain) = session.peer_certificates().filter(|chain| !chain.is_empty()) else {
            return Ok(VerifiedStream::new(io, None));
        };
        let resumed = session.handshake_kind() == Some(HandshakeKind::Resumed);
        // In the list before we look: a change after the look finds it there.
        let seen = Seen { chain: chain.to_vec(), role };
        let due = begun.next_end(&seen);
        let lease = self.inner.open.add(seen, due);
        let now = self.in_use();
        if resumed || !Arc::ptr_eq(&now, begun) {
            now.verify(&lease.seen)?;
            lease.verified(now.next_end(&lease.seen));
        }
        Ok(VerifiedStream::new(io, Some(lease)))
    }

    /// Looks once a second whether files changed or certificates expired, and closes the connections whose peer's
    /// certificate no longer verifies. Goes on until it is dropped; whoever opens connections has one run, and several do
    /// no harm.
    pub(crate) async fn watch(self) {
        loop {
            sleep(LOOK_EVERY).await;
            self.close_unverified().await;
        }
    }

    async fn close_unverified(&self) {
        // A transport, its server and others who share the certificates all watch: one at a time is enough.
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

    /// Ends these and counts them: whoever sees one end finds it counted.
    fn close(&self, leases: &[Arc<Lease>], seen: &Seen, error: &HandshakeError) -> u64 {
        let why: Arc<str> = error.to_string().into();
        let mut counted = lock(&self.inner.closed);
        let closed = leases.iter().filter(|lease| lease.end(why.clone())).count() as u64;
        if closed > 0 {
            counted.add((seen.direction(), error.reason()), closed);
        }
        closed
    }

    fn tell_closed(&self, seen: &Seen, error: &HandshakeError, connections: u64) {
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

    /// Whether a request is refused whose certificate is not of the member that it says it is from.
    pub(crate) fn binds_members(&self) -> bool {
        matches!(&self.inner.config, Source::Member(config) if config.bind_members)
    }

    /// Counts such a request, whether it is refused or not; true for the first with this certificate and ID, which is to be
    /// told of.
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

    /// Counts a request of which nothing shows whom it is from.
    pub(crate) fn note_mismatch(&self, request: &'static str) {
        lock(&self.inner.mismatches).add(request, 1);
    }

    /// Requests whose certificate was not of the member that they said they were from, by what they asked for: `stream`,
    /// `pipeline`, `snapshot`, `probing`.
    pub fn identity_mismatches(&self) -> Tally<&'static str> {
        lock(&self.inner.mismatches).clone()
    }

    /// Whether those who dial us are held against the addresses that they come from.
    pub(crate) fn checks_client_names(&self) -> bool {
        matches!(&self.inner.config, Source::Member(config) if !config.skip_client_san_verification)
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

    /// What the other side means by an alert about the certificate that we showed; none where it is about another thing.
    pub(crate) fn refused_ours(&self, direction: Direction, error: &(dyn Error + 'static)) -> Option<String> {
        let alert = failure::about_our_certificate(error)?;
        let purpose = match direction {
            Direction::In => Purpose::Server,
            Direction::Out => Purpose::Client,
        };
        let in_use = self.in_use();
        let Some(shown) = in_use.shown(purpose) else {
            return Some("the other side wants a certificate, and there is none to show".to_owned());
        };
        let known = shown.refused.iter().find(|(refused, _)| *refused == purpose);
        let why = known.map(|(_, why)| format!(": {why}")).unwrap_or_default();
        Some(format!("the other side refuses our certificate, {} (alert {alert}){why}", shown.file.display()))
    }

    /// Warns when who dials this member at this URL will refuse its certificate for its names.
    pub(crate) fn warn_of_names(&self, url: &str, host: &str) {
        let in_use = self.in_use();
        let Some(shown) = in_use.shown(Purpose::Server) else { return };
        if let Some(why) = shown.not_for(host) {
            let file = shown.file.display();
            tracing::warn!(%file, url, why, "peers that dial this URL will refuse this certificate");
        }
    }

    /// Writes reloads to this list, too.
    pub(crate) fn tell(&self, events: &Events) {
        let mut told = lock(&self.inner.told);
        told.retain(|events| events.upgrade().is_some());
        told.push(events.downgrade());
    }

    /// Says why a connection that `address` began was refused over a certificate, theirs or ours. They dial again and
    /// again: each address and reason has one line an hour.
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

    /// Why etcd may have closed a connection from `address` right after the handshake: its listener does so when our
    /// certificate has alternative names and none of them is the address that we come from (its
    /// `checkCertSAN` of `tlsListener`). None when
    /// that cannot be it. Names are not resolved here, and count as not ours.
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

    fn current(&self) -> MutexGuard<'_, State> {
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

/// What a certificate is called, in a line of the log.
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
