//! TLS between peers: certificates that are read again when their files change, and names that peers must bear.

use std::{
    net::IpAddr,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use rustls::{ClientConfig, ServerConfig};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::{
    ledger::{Direction, Tally},
    telemetry::{self, Events, WeakEvents},
};

mod certificate;
mod failure;
mod files;
mod verifier;

use certificate::Hosts;
pub use failure::{HandshakeError, HandshakeReason, TlsError};
use files::{Pair, Source, Stamps};

/// How long a handshake that we began may take.
pub(crate) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How often the files are looked at, at most.
const LOOK_EVERY: Duration = Duration::from_secs(1);

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
    /// When the first certificate of the chain that we show expires.
    pub certificate_expiry: Option<SystemTime>,
    /// How often changed files were read again and taken.
    pub reloads_ok: u64,
    /// How often they were not taken: unreadable, not a certificate, or not a pair.
    pub reloads_failed: u64,
    /// Handshakes that failed: `In` for those that we accepted, `Out` for those that we dialled. The reason is from a
    /// closed set, never what the other end said.
    pub handshake_failures: Tally<(Direction, &'static str)>,
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
        let state = State { pair, stamps, looked: Instant::now(), reloads: Reloads::default() };
        let (failures, told) = Default::default();
        Ok(Self { inner: Arc::new(Inner { config, state: Mutex::new(state), failures, told }) })
    }

    /// For dialling; none without a trusted CA. Looks first, at most once a second, whether the files changed.
    pub fn client(&self) -> Option<Arc<ClientConfig>> {
        self.current().pair.client.clone()
    }

    /// For accepting; none for who only dials. Looks first, at most once a second, whether the files changed.
    pub fn server(&self) -> Option<Arc<ServerConfig>> {
        self.current().pair.server.clone()
    }

    /// Until when the certificate in use is valid; none for who shows none.
    pub fn expiry(&self) -> Option<SystemTime> {
        self.current().pair.expiry
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
        let (expiry, reloads) = {
            let current = self.current();
            (current.pair.expiry, current.reloads)
        };
        let mut handshake_failures = Tally::default();
        for ((direction, reason), count) in self.handshake_failures().iter() {
            handshake_failures.add((direction, reason.label()), count);
        }
        TlsStatus {
            certificate_expiry: expiry,
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
            Some(server) => match timeout(within, TlsAcceptor::from(server).accept(stream)).await {
                Ok(outcome) => outcome.map_err(HandshakeError::from),
                Err(_) => Err(HandshakeError::timeout(within)),
            },
        };
        outcome.inspect_err(|error| self.note_failure(Direction::In, error.reason()))
    }

    /// Writes reloads to this list, too.
    pub(crate) fn tell(&self, events: &Events) {
        let mut told = self.inner.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.retain(|events| events.upgrade().is_some());
        told.push(events.downgrade());
    }

    pub(crate) fn note_failure(&self, direction: Direction, reason: HandshakeReason) {
        self.inner.failures.lock().unwrap_or_else(PoisonError::into_inner).add((direction, reason), 1);
    }

    /// Why etcd may have closed a connection from `address` right after the handshake: its listener does so when our
    /// certificate has alternative names and none of them is the address that we come from (its
    /// `checkCertSAN` of `tlsListener`). None when
    /// that cannot be it. Names are not resolved here, and count as not ours.
    pub(crate) fn refused_names(&self, address: IpAddr) -> Option<String> {
        let Hosts { addresses, names } = self.current().pair.hosts.clone();
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
