//! TLS between peers: certificates that are read again when their files change, and names that peers must bear.

use std::{
    collections::HashMap,
    error::Error,
    io,
    net::IpAddr,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use rustls::{ClientConfig, ServerConfig};
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, timeout},
};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server::TlsStream};

use crate::{
    ledger::{Direction, Tally},
    telemetry::{self, Events, WeakEvents},
};

mod authorities;
mod certificate;
mod der;
mod failure;
mod files;
mod key;
mod leaf;
mod pem;
mod refusal;
mod verifier;

use certificate::{Hosts, Purpose};
pub(crate) use failure::rustls_error;
pub use failure::{HandshakeError, HandshakeReason, TlsError};
use files::{Pair, Source, Stamps};

/// How long a handshake that we began may take.
pub(crate) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How often the files are looked at, at most.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often a refusal of who dials us is told of again.
const REFUSALS_EVERY: Duration = Duration::from_secs(3600);
/// So many of them are remembered, and told of, within that time: a stranger has many addresses.
const REFUSALS: usize = 64;

/// Where a member's certificates are, and what its peers' must say: etcd's `--peer-*` flags.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsConfig {
    /// The certificate, PEM, the leaf first and then what leads to the CA. Used as a server's and as a client's, as
    /// etcd does: its extended key usage must allow both.
    pub cert_file: PathBuf,
    /// Its private key, PEM: PKCS#8, PKCS#1 or SEC 1; RSA, P-256, P-384, P-521 or Ed25519.
    pub key_file: PathBuf,
    /// The CAs by which peers are verified. Default: none; then peers are served without a certificate of theirs, and
    /// none can be dialled, since there is nothing to verify it by (etcd would take the system's CAs, whose
    /// certificates anyone can get).
    pub trusted_ca_file: Option<PathBuf>,
    /// Whether those who dial us must show a certificate. Needs a trusted CA, and with one it is so even when false.
    pub client_cert_auth: bool,
    /// The common names that peers may bear. Default: none, any will do.
    pub allowed_common_names: Vec<String>,
    /// The host names of which a peer's certificate must be valid for one. Default: none, any will do.
    pub allowed_hostnames: Vec<String>,
}

/// Where the certificates are of who only dials: etcdctl's `--cacert`, `--cert`, `--key`, `--insecure-skip-tls-verify`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsClientConfig {
    /// The certificate to show, PEM. Default: none.
    pub cert_file: Option<PathBuf>,
    /// Its private key, PEM; beside a certificate.
    pub key_file: Option<PathBuf>,
    /// The CAs by which members are verified. Default: none, which needs `insecure_skip_verify`.
    pub trusted_ca_file: Option<PathBuf>,
    /// Whether whoever answers is taken for who was dialled. Default: no.
    pub insecure_skip_verify: bool,
}

/// The certificates of a member, as they are now. Cheap to clone: every clone is the same.
#[derive(Clone, Debug)]
pub struct Tls {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: Source,
    state: Mutex<State>,
    failures: Mutex<Tally<(Direction, HandshakeReason)>>,
    /// Who is told of a reload.
    told: Mutex<Vec<WeakEvents>>,
    /// Whose refusals were told of, by address and reason, and when.
    refused: Mutex<HashMap<(IpAddr, HandshakeReason), Instant>>,
}

#[derive(Debug)]
struct State {
    pair: Pair,
    stamps: Stamps,
    looked: Instant,
    reloads: Reloads,
}

/// How often the files changed, and what came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reloads {
    /// The new pair is in use.
    pub ok: u64,
    /// It could not be used, and the old one stays.
    pub failed: u64,
}

/// How the certificates and handshakes of a member do.
#[derive(Clone, Debug, Default)]
pub struct TlsStatus {
    /// When the chain that we show ends: the earliest of its certificates and of the CA under which it verifies. Of
    /// several such CAs, as while one is renewed, the one that lasts longest. None where no certificate is shown.
    pub certificate_expiry: Option<SystemTime>,
    /// When each part of it ends; of several intermediate certificates, the earliest.
    pub certificate_parts: Vec<(CertificatePart, SystemTime)>,
    /// How often changed files were read again and taken.
    pub reloads_ok: u64,
    /// How often they were not taken: unreadable, not a certificate, or not a pair.
    pub reloads_failed: u64,
    /// Handshakes that failed: `In` for those that we accepted, `Out` for those that we dialled. The reason is from a
    /// closed set, never what the other end said.
    pub handshake_failures: Tally<(Direction, &'static str)>,
}

/// A part of the chain that we show: the label `part`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CertificatePart {
    /// Our own certificate.
    Leaf,
    /// Those between it and the CA.
    Intermediate,
    /// The CA in the trusted file to which it leads.
    Authority,
}

impl CertificatePart {
    /// The value of the label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Leaf => "leaf",
            Self::Intermediate => "intermediate",
            Self::Authority => "authority",
        }
    }
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
        let stamps = Stamps::of(&config);
        let pair = config.load()?;
        if let Some(shown) = &pair.shown {
            shown.warn();
        }
        let state = State { pair, stamps, looked: Instant::now(), reloads: Reloads::default() };
        let (failures, told, refused) = Default::default();
        Ok(Self { inner: Arc::new(Inner { config, state: Mutex::new(state), failures, told, refused }) })
    }

    /// For dialling; none without a trusted CA. Looks first, at most once a second, whether the files changed.
    pub fn client(&self) -> Option<Arc<ClientConfig>> {
        self.current().pair.client.clone()
    }

    /// For accepting; none for who only dials. Looks first, at most once a second, whether the files changed.
    pub fn server(&self) -> Option<Arc<ServerConfig>> {
        self.current().pair.server.clone()
    }

    /// When the chain in use ends, as [`TlsStatus::certificate_expiry`] has it; none for who shows none.
    pub fn expiry(&self) -> Option<SystemTime> {
        self.current().pair.shown.as_ref().map(|shown| shown.ends.earliest())
    }

    /// How often the files changed since they were loaded.
    pub fn reloads(&self) -> Reloads {
        self.current().reloads
    }

    /// The handshakes that failed, by direction and reason.
    pub fn handshake_failures(&self) -> Tally<(Direction, HandshakeReason)> {
        self.inner.failures.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// All that `/metrics` shows of it.
    pub(crate) fn status(&self) -> TlsStatus {
        let (ends, reloads) = {
            let current = self.current();
            (current.pair.shown.as_ref().map(|shown| shown.ends), current.reloads)
        };
        let mut handshake_failures = Tally::default();
        for ((direction, reason), count) in self.handshake_failures().iter() {
            handshake_failures.add((direction, reason.label()), count);
        }
        TlsStatus {
            certificate_expiry: ends.map(|ends| ends.earliest()),
            certificate_parts: ends.map(|ends| ends.parts().collect()).unwrap_or_default(),
            reloads_ok: reloads.ok,
            reloads_failed: reloads.failed,
            handshake_failures,
        }
    }

    /// Speaks TLS with who dialled us; one that takes longer than `within` has failed.
    pub async fn accept<T>(&self, stream: T, within: Duration) -> Result<TlsStream<T>, HandshakeError>
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        let outcome = match self.server() {
            None => Err(HandshakeError::no_certificate()),
            Some(server) => {
                self.within(Direction::In, within, async move { TlsAcceptor::from(server).accept(stream).await }).await
            }
        };
        outcome.inspect_err(|error| self.note_failure(Direction::In, error.reason()))
    }

    /// Speaks TLS with whom we dialled at this host, by what [`Self::client`] gave; within 10 s.
    pub(crate) async fn connect<T>(
        &self,
        client: Arc<ClientConfig>,
        host: &str,
        stream: T,
    ) -> Result<client::TlsStream<T>, HandshakeError>
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        let outcome = match ServerName::try_from(host.to_owned()) {
            Err(_) => Err(HandshakeError::not_a_name(host)),
            Ok(name) => {
                let dialling = async move { TlsConnector::from(client).connect(name, stream).await };
                self.within(Direction::Out, HANDSHAKE_TIMEOUT, dialling).await
            }
        };
        outcome.inspect_err(|error| self.note_failure(Direction::Out, error.reason()))
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
        let shown = self.current().pair.shown.clone();
        let Some(shown) = shown else {
            return Some("the other side wants a certificate, and there is none to show".to_owned());
        };
        let purpose = match direction {
            Direction::In => Purpose::Server,
            Direction::Out => Purpose::Client,
        };
        let known = shown.refused.iter().find(|(refused, _)| *refused == purpose);
        let why = known.map(|(_, why)| format!(": {why}")).unwrap_or_default();
        Some(format!("the other side refuses our certificate, {} (alert {alert}){why}", shown.file.display()))
    }

    /// Writes reloads to this list, too.
    pub(crate) fn tell(&self, events: &Events) {
        let mut told = self.inner.told.lock().unwrap_or_else(PoisonError::into_inner);
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
            let mut refused = self.inner.refused.lock().unwrap_or_else(PoisonError::into_inner);
            refused.retain(|_, told| told.elapsed() < REFUSALS_EVERY);
            if refused.len() >= REFUSALS || refused.contains_key(&key) {
                return;
            }
            refused.insert(key, Instant::now());
        }
        let told = self.inner.told.lock().unwrap_or_else(PoisonError::into_inner);
        for events in told.iter().filter_map(WeakEvents::upgrade) {
            events.handshake_refused(address, error.reason().label(), &error.to_string());
        }
    }

    pub(crate) fn note_failure(&self, direction: Direction, reason: HandshakeReason) {
        self.inner.failures.lock().unwrap_or_else(PoisonError::into_inner).add((direction, reason), 1);
    }

    /// Why etcd may have closed a connection from `address` right after the handshake: its listener does so when our
    /// certificate has alternative names and none of them is the address that we come from (its
    /// `checkCertSAN` of `tlsListener`). None when
    /// that cannot be it. Names are not resolved here, and count as not ours.
    pub(crate) fn refused_names(&self, address: IpAddr) -> Option<String> {
        let Hosts { addresses, names } = self.current().pair.shown.as_ref()?.hosts.clone();
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

    fn current(&self) -> MutexGuard<'_, State> {
        let mut state = self.inner.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.looked.elapsed() >= LOOK_EVERY {
            state.look(&self.inner.config, &self.inner.told);
        }
        state
    }
}

impl State {
    /// Reads the files again if one of them is another than the last time: one line for each change, none for a broken
    /// pair that stays as it is.
    fn look(&mut self, config: &Source, told: &Mutex<Vec<WeakEvents>>) {
        self.looked = Instant::now();
        let stamps = Stamps::of(config);
        if stamps == self.stamps {
            return;
        }
        // The stamps are older than what is read, so a change in between is seen the next time.
        self.stamps = stamps;
        let loaded = config.load();
        let error = loaded.as_ref().err().map(ToString::to_string);
        for events in told.lock().unwrap_or_else(PoisonError::into_inner).iter().filter_map(WeakEvents::upgrade) {
            events.tls_reloaded(error.as_deref());
        }
        match loaded {
            Ok(pair) => {
                self.reloads.ok += 1;
                telemetry::tls_reloaded(None);
                tracing::info!(file = %config.main_file().display(), "the certificate changed and is in use");
                if let Some(shown) = &pair.shown {
                    shown.warn();
                }
                self.pair = pair;
            }
            Err(error) => {
                self.reloads.failed += 1;
                telemetry::tls_reloaded(Some(&error));
                tracing::warn!(%error, "the certificate changed and cannot be used: the old one stays");
            }
        }
    }
}
