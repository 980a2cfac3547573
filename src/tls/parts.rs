//! The files, in parts, and the rustls configurations that are made from them. Each part is read again by itself: a
//! part that cannot be used stays as it was, and does not hold up the others.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use rustls::{
    ClientConfig, ServerConfig, SupportedProtocolVersion,
    client::{Resumption, danger::ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs},
    server::{ServerSessionMemoryCache, danger::ClientCertVerifier},
    sign::SingleCertAndKey,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::{
    HandshakeError, TlsClientConfig, TlsConfig, TlsError,
    authorities::Authorities,
    certificate::{Certificate, Purpose},
    crl::RevocationList,
    files::{PartChange, TlsPart},
    key::TAKEN,
    open::{PeerChain, VerifiedAs},
    pem, refusal,
    shown::ShownCertificate,
    verifier::{Allowed, Anyone, Clients, Rules, ServerVerifier},
};

/// TLS 1.2 and 1.3, as in etcd by default.
const VERSIONS: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13, &rustls::version::TLS12];
/// How many TLS sessions are kept for resumption: rustls's default, enough for one for each of a few hundred peers.
const SESSIONS: usize = 256;

/// The kind of process that the files belong to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ProcessTls {
    /// A member, which dials and accepts.
    Member(TlsConfig),
    /// A process that only accepts.
    Server(TlsConfig),
    /// A process that only dials.
    Client(TlsClientConfig),
}

/// The files as they were read, each part as it is in use.
#[derive(Debug)]
pub(super) struct TlsParts {
    /// The certificate presented when accepting. It is also presented when dialling, unless there is another one for
    /// that.
    certificate: TlsPart<Keyed>,
    /// The certificate presented when dialling.
    client_certificate: TlsPart<Keyed>,
    authorities: TlsPart<Arc<Authorities>>,
    revoked: TlsPart<Arc<RevocationList>>,
}

/// A chain with the key of its leaf.
struct Keyed {
    file: PathBuf,
    chain: Vec<CertificateDer<'static>>,
    key: Arc<SingleCertAndKey>,
}

impl ProcessTls {
    /// Reads all files. Fails at the first file that cannot be used.
    pub(super) fn load(&self) -> Result<TlsParts, TlsError> {
        let (shown, dialling, authorities, revoked) = match self {
            Self::Member(config) | Self::Server(config) => {
                check_together(&config.client_cert_file, &config.client_key_file)?;
                (
                    [Some(&config.cert_file), Some(&config.key_file)],
                    [config.client_cert_file.as_ref(), config.client_key_file.as_ref()],
                    config.trusted_ca_file.as_ref(),
                    config.crl_file.as_ref(),
                )
            }
            Self::Client(config) => {
                check_together(&config.cert_file, &config.key_file)?;
                (
                    [None; 2],
                    [config.cert_file.as_ref(), config.key_file.as_ref()],
                    config.trusted_ca_file.as_ref(),
                    None,
                )
            }
        };
        if revoked.is_some() && authorities.is_none() {
            return Err(TlsError::Config("revoked certificates can only be refused with a trusted CA file"));
        }
        Ok(TlsParts {
            certificate: TlsPart::load("certificate", shown, Keyed::load)?,
            client_certificate: TlsPart::load("client certificate", dialling, Keyed::load)?,
            authorities: TlsPart::load("trusted CAs", [authorities], |files| read_authorities(&files[0]))?,
            revoked: TlsPart::load("revoked certificates", [revoked], |files| read_revoked(&files[0]))?,
        })
    }

    /// Makes the rustls configurations from the parts. New configurations have new session caches, so no session
    /// outlives the files that it began with.
    pub(super) fn build(&self, parts: &TlsParts) -> Result<InUse, TlsError> {
        match self {
            Self::Member(config) => InUse::of_member(config, parts),
            Self::Server(config) => InUse::of_server(config, parts),
            Self::Client(config) => InUse::of_client(config, parts),
        }
    }
}

fn check_together(certificate: &Option<PathBuf>, key: &Option<PathBuf>) -> Result<(), TlsError> {
    if certificate.is_some() == key.is_some() {
        Ok(())
    } else {
        Err(TlsError::Config("a certificate and its key are given together or not at all"))
    }
}

impl Keyed {
    fn load(files: &[PathBuf]) -> Result<Self, TlsError> {
        let (file, key) = (&files[0], &files[1]);
        let chain = pem::certificates(file, pem::CERTIFICATE)?;
        pem::leaf(file, &chain)?;
        let key = pem::certified(file, key, chain.clone(), &aws_lc_rs::default_provider())?;
        Ok(Self { file: file.clone(), chain, key: Arc::new(SingleCertAndKey::from(key)) })
    }

    fn shown(&self, authorities: Option<&Authorities>, purposes: &[Purpose]) -> Result<ShownCertificate, TlsError> {
        ShownCertificate::of(&self.file, &self.chain, authorities, purposes)
    }
}

impl TlsParts {
    /// Reads the files that changed.
    pub(super) fn look(&mut self) -> Vec<PartChange> {
        let changes =
            [self.certificate.look(), self.client_certificate.look(), self.authorities.look(), self.revoked.look()];
        changes.into_iter().flatten().collect()
    }

    /// The revocation list, and when it has to be replaced.
    pub(super) fn revocation(&self) -> Option<(&Path, SystemTime)> {
        Some((self.revoked.files.first()?, self.revoked.value.as_ref()?.next_update?))
    }

    /// The certificate presented when dialling.
    fn dialling(&self) -> Option<&Keyed> {
        self.client_certificate.value.as_ref().or(self.certificate.value.as_ref())
    }

    /// The rules that peers' certificates are verified by.
    fn rules(&self, authorities: &Arc<Authorities>, allowed: Allowed) -> Rules {
        Rules { authorities: authorities.clone(), allowed, revoked: self.revoked.value.clone() }
    }
}

/// Certificates and CAs, ready for use in both directions.
#[derive(Debug)]
pub(super) struct InUse {
    /// `None` without a CA to verify peers against.
    pub(super) client: Option<Arc<ClientConfig>>,
    /// `None` for a process that only dials.
    pub(super) server: Option<Arc<ServerConfig>>,
    /// The certificates that are presented, by purpose.
    shown: Vec<(Purpose, Arc<ShownCertificate>)>,
    servers: Option<Arc<dyn ServerCertVerifier>>,
    clients: Option<Arc<dyn ClientCertVerifier>>,
    /// When each of the trusted CAs ends.
    authorities_end: Vec<SystemTime>,
}

impl InUse {
    fn of_client(config: &TlsClientConfig, parts: &TlsParts) -> Result<Self, TlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier: Arc<dyn ServerCertVerifier> = match &parts.authorities.value {
            _ if config.insecure_skip_verify => Arc::new(Anyone(provider.signature_verification_algorithms)),
            Some(authorities) => Arc::new(ServerVerifier(parts.rules(authorities, Allowed::default()))),
            None => return Err(TlsError::Config("a trusted CA file is needed to verify the members that are dialled")),
        };
        let client = Some(client(&provider, verifier.clone(), parts)?);
        // The members decide which CAs they verify it against.
        let shown = parts.dialling().map(|keyed| keyed.shown(None, &[Purpose::Client])).transpose()?;
        let shown = shown.into_iter().map(|shown| (Purpose::Client, Arc::new(shown))).collect();
        let authorities_end = ends(parts);
        Ok(Self { client, server: None, shown, servers: Some(verifier), clients: None, authorities_end })
    }

    fn of_member(config: &TlsConfig, parts: &TlsParts) -> Result<Self, TlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let allowed = allowed(config)?;
        let keyed =
            parts.certificate.value.as_ref().ok_or(TlsError::Config("a certificate is needed to be dialled"))?;
        let builder = ServerConfig::builder_with_provider(provider.clone()).with_protocol_versions(VERSIONS);
        let builder = builder.map_err(|error| TlsError::Rustls(error.to_string()))?;
        let (mut server, client, servers, clients) = match &parts.authorities.value {
            Some(authorities) => {
                let clients = Arc::new(Clients::new(parts.rules(authorities, allowed.clone())));
                let servers = Arc::new(ServerVerifier(parts.rules(authorities, allowed)));
                let client = client(&provider, servers.clone(), parts)?;
                let server = builder.with_client_cert_verifier(clients.clone()).with_cert_resolver(keyed.key.clone());
                (server, Some(client), Some(servers as _), Some(clients as _))
            }
            None => (builder.with_no_client_auth().with_cert_resolver(keyed.key.clone()), None, None, None),
        };
        // As in etcd's listener. A client that offers no protocol is served too. A client that offers only other
        // protocols gets the alert of RFC 7301.
        server.alpn_protocols = vec![b"http/1.1".to_vec(), b"h2".to_vec()];
        server.session_storage = ServerSessionMemoryCache::new(SESSIONS);
        let (shown, server) = (shown_by_members(keyed, parts)?, Some(Arc::new(server)));
        Ok(Self { client, server, shown, servers, clients, authorities_end: ends(parts) })
    }

    fn of_server(config: &TlsConfig, parts: &TlsParts) -> Result<Self, TlsError> {
        let mut in_use = Self::of_member(config, parts)?;
        in_use.client = None;
        // The CA that verifies clients need not be the CA that clients trust.
        let shown = parts.certificate.value.as_ref().map(|keyed| keyed.shown(None, &[Purpose::Server])).transpose()?;
        in_use.shown = shown.into_iter().map(|shown| (Purpose::Server, Arc::new(shown))).collect();
        if let Some(server) = &mut in_use.server {
            // h2 is offered for etcd's peers, which offer it and still speak HTTP/1.1. A client of this port that
            // offers h2 would speak it.
            Arc::make_mut(server).alpn_protocols = vec![b"http/1.1".to_vec()];
        }
        Ok(in_use)
    }

    /// The certificate that is presented for this purpose.
    pub(super) fn shown(&self, purpose: Purpose) -> Option<&ShownCertificate> {
        self.shown.iter().find(|(of, _)| *of == purpose).map(|(_, shown)| shown.as_ref())
    }

    /// The presented certificate that ends first.
    pub(super) fn first_to_end(&self) -> Option<&ShownCertificate> {
        self.shown.iter().map(|(_, shown)| shown.as_ref()).min_by_key(|shown| shown.ends.earliest())
    }

    /// Warns of certificates that others will refuse.
    pub(super) fn warn(&self) {
        let mut told: Option<&Arc<ShownCertificate>> = None;
        for (_, shown) in &self.shown {
            if !told.is_some_and(|told| Arc::ptr_eq(told, shown)) {
                shown.warn();
            }
            told = Some(shown);
        }
    }

    /// Whether the chain that a peer presented would be accepted now.
    pub(super) fn verify(&self, seen: &PeerChain) -> Result<(), HandshakeError> {
        let Some((end_entity, intermediates)) = seen.chain.split_first() else { return Ok(()) };
        let now = UnixTime::now();
        let (outcome, words) = refusal::heard_now(|| match (&seen.verified_as, &self.servers, &self.clients) {
            (VerifiedAs::Server(name), Some(servers), _) => {
                servers.verify_server_cert(end_entity, intermediates, name, &[], now).map(drop)
            }
            (VerifiedAs::Client, _, Some(clients)) => {
                clients.verify_client_cert(end_entity, intermediates, now).map(drop)
            }
            _ => Ok(()),
        });
        outcome.map_err(|error| HandshakeError::verified(&error, words))
    }

    /// When the next certificate ends that matters for the chain that a peer presented: one of its own, or a CA. A
    /// certificate is still valid in the second of its `notAfter`.
    pub(super) fn next_end(&self, seen: &PeerChain) -> Option<SystemTime> {
        let now = SystemTime::now();
        let own = seen.chain.iter().filter_map(|der| Some(Certificate::read(der)?.not_after));
        let ended = own.chain(self.authorities_end.iter().copied()).map(|end| end + Duration::from_secs(1));
        ended.filter(|end| *end > now).min()
    }
}

/// The certificates that a member presents: one for both purposes, or one for each.
fn shown_by_members(keyed: &Keyed, parts: &TlsParts) -> Result<Vec<(Purpose, Arc<ShownCertificate>)>, TlsError> {
    let Some(authorities) = parts.authorities.value.as_deref() else {
        // Without a CA, this member dials nobody.
        return Ok(vec![(Purpose::Server, Arc::new(keyed.shown(None, &[Purpose::Server])?))]);
    };
    let Some(client) = &parts.client_certificate.value else {
        let shown = Arc::new(keyed.shown(Some(authorities), &Purpose::ALL)?);
        return Ok(Purpose::ALL.into_iter().map(|purpose| (purpose, shown.clone())).collect());
    };
    let each = [(Purpose::Server, keyed), (Purpose::Client, client)];
    let shown =
        each.into_iter().map(|(purpose, keyed)| Ok((purpose, Arc::new(keyed.shown(Some(authorities), &[purpose])?))));
    shown.collect()
}

fn ends(parts: &TlsParts) -> Vec<SystemTime> {
    let authorities = parts.authorities.value.iter().flat_map(|authorities| authorities.certificates());
    authorities.map(|authority| authority.not_after).collect()
}

fn client(
    provider: &Arc<CryptoProvider>,
    servers: Arc<dyn ServerCertVerifier>,
    parts: &TlsParts,
) -> Result<Arc<ClientConfig>, TlsError> {
    let client = ClientConfig::builder_with_provider(provider.clone()).with_protocol_versions(VERSIONS);
    let client = client.map_err(|error| TlsError::Rustls(error.to_string()))?;
    let client = client.dangerous().with_custom_certificate_verifier(servers);
    let mut client = match parts.dialling() {
        Some(keyed) => client.with_client_cert_resolver(keyed.key.clone()),
        None => client.with_no_client_auth(),
    };
    client.resumption = Resumption::in_memory_sessions(SESSIONS);
    Ok(Arc::new(client))
}

fn allowed(config: &TlsConfig) -> Result<Allowed, TlsError> {
    if config.client_cert_auth && config.trusted_ca_file.is_none() {
        return Err(TlsError::Config("client certificates can only be required with a trusted CA file"));
    }
    if config.bind_members && config.trusted_ca_file.is_none() {
        return Err(TlsError::Config("members can only be bound to their certificates with a trusted CA file"));
    }
    let binds = !config.allowed_common_names.is_empty() || !config.allowed_hostnames.is_empty();
    if binds && config.trusted_ca_file.is_none() {
        return Err(TlsError::Config("allowed names can only be checked with a trusted CA file"));
    }
    // As in etcd: with both lists it would be unclear whether a peer has to match one of them or both.
    if !config.allowed_common_names.is_empty() && !config.allowed_hostnames.is_empty() {
        return Err(TlsError::Config("allowed common names and allowed host names exclude each other"));
    }
    let hostnames = config.allowed_hostnames.iter().map(|name| ServerName::try_from(name.clone())).collect();
    let hostnames: Result<Vec<_>, _> = hostnames;
    let hostnames = hostnames.map_err(|_| TlsError::Config("an allowed host name is not a host name"))?;
    Ok(Allowed { common_names: config.allowed_common_names.clone(), hostnames })
}

fn read_authorities(path: &Path) -> Result<Arc<Authorities>, TlsError> {
    let certificates = pem::certificates(path, pem::AUTHORITIES)?;
    let authorities = Authorities::new(certificates, aws_lc_rs::default_provider().signature_verification_algorithms);
    let authorities = authorities.map_err(|place| pem::content(path, pem::unreadable(place, pem::AUTHORITIES)))?;
    for authority in authorities.certificates().filter(|authority| !authority.key.is_taken()) {
        let (file, key) = (path.display(), authority.key);
        tracing::warn!(%file, %authority, %key, "this CA's key is not accepted, nor are certificates that it signed: expected {TAKEN}");
    }
    Ok(Arc::new(authorities))
}

fn read_revoked(path: &Path) -> Result<Arc<RevocationList>, TlsError> {
    let list = RevocationList::read(&pem::read(path, pem::REVOKED)?);
    list.map(Arc::new)
        .ok_or_else(|| pem::content(path, format!("no list of revoked certificates: expected {}", pem::REVOKED)))
}
