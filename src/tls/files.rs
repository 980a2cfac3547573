//! The files, and what rustls makes of them.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use rustls::{
    ClientConfig, Error, RootCertStore, ServerConfig, SupportedProtocolVersion,
    client::{Resumption, WebPkiServerVerifier, danger::ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs},
    server::WebPkiClientVerifier,
    sign::{CertifiedKey, SingleCertAndKey},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};

use super::{
    TlsClientConfig, TlsConfig, TlsError,
    certificate::{Certificate, Hosts, Unsupported},
    verifier::{Allowed, Anyone, Clients, Servers},
};

const VERSIONS: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13, &rustls::version::TLS12];

/// What tells a file from the one that was there before: a Kubernetes secret is a link to another file when it changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stamps(Vec<Option<(SystemTime, u64, u64)>>);

impl Stamps {
    /// Of the files that a configuration names; a file that is not there has none.
    pub(super) fn of(config: &Source) -> Self {
        let files = match config {
            Source::Member(config) | Source::Server(config) => {
                [Some(&config.cert_file), Some(&config.key_file), config.trusted_ca_file.as_ref()]
            }
            Source::Client(config) => {
                [config.cert_file.as_ref(), config.key_file.as_ref(), config.trusted_ca_file.as_ref()]
            }
        };
        Self(files.into_iter().flatten().map(|path| stamp(path).ok()).collect())
    }
}

fn stamp(path: &Path) -> io::Result<(SystemTime, u64, u64)> {
    let file = fs::metadata(path)?;
    #[cfg(unix)]
    let inode = std::os::unix::fs::MetadataExt::ino(&file);
    #[cfg(not(unix))]
    let inode = 0;
    Ok((file.modified()?, file.len(), inode))
}

/// Whose files they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// A member's, who dials and is dialled.
    Member(TlsConfig),
    /// Of who is dialled only.
    Server(TlsConfig),
    /// Of who dials only.
    Client(TlsClientConfig),
}

impl Source {
    /// Reads all files. New configurations have new session caches: no session outlives the files that it began with.
    pub(super) fn load(&self) -> Result<Pair, TlsError> {
        match self {
            Self::Member(config) => Pair::load(config),
            Self::Server(config) => Pair::load_server(config),
            Self::Client(config) => Pair::load_client(config),
        }
    }

    /// The file that stands for all of them in a line of the log.
    pub(super) fn main_file(&self) -> &Path {
        match self {
            Self::Member(config) | Self::Server(config) => &config.cert_file,
            Self::Client(TlsClientConfig { cert_file, trusted_ca_file, .. }) => {
                cert_file.as_ref().or(trusted_ca_file.as_ref()).map_or(Path::new(""), PathBuf::as_path)
            }
        }
    }
}

/// A certificate with its key, ready to be used both ways.
#[derive(Debug)]
pub(super) struct Pair {
    pub(super) client: Option<Arc<ClientConfig>>,
    /// None for who is not dialled.
    pub(super) server: Option<Arc<ServerConfig>>,
    /// None for who shows no certificate.
    pub(super) expiry: Option<SystemTime>,
    /// The hosts that the certificate is for.
    pub(super) hosts: Hosts,
}

impl Pair {
    fn load_client(config: &TlsClientConfig) -> Result<Self, TlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let (chain, key) = match (&config.cert_file, &config.key_file) {
            (Some(certificate), Some(file)) => {
                let chain = certificates(certificate)?;
                let shown = (check_leaf(certificate, &chain)?, hosts(&chain));
                let key = key((certificate, file), chain, &provider)?;
                (Some(shown), Some(Arc::new(SingleCertAndKey::from(key))))
            }
            (None, None) => (None, None),
            _ => return Err(TlsError::Config("a certificate and its key are given together or not at all")),
        };
        let builder = ClientConfig::builder_with_provider(provider.clone()).with_protocol_versions(VERSIONS);
        let builder = builder.map_err(|error| TlsError::Rustls(error.to_string()))?;
        let verifier: Arc<dyn ServerCertVerifier> = match &config.trusted_ca_file {
            _ if config.insecure_skip_verify => Arc::new(Anyone(provider.signature_verification_algorithms)),
            Some(path) => {
                let servers = WebPkiServerVerifier::builder_with_provider(roots(path)?, provider);
                let authority = servers.build().map_err(|error| content(path, error))?;
                Arc::new(Servers { authority, allowed: Allowed::default() })
            }
            None => return Err(TlsError::Config("a trusted CA file is needed to verify who is dialled")),
        };
        let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
        let mut client = match key {
            Some(key) => builder.with_client_cert_resolver(key),
            None => builder.with_no_client_auth(),
        };
        client.resumption = Resumption::in_memory_sessions(256);
        let (expiry, hosts) = chain.unzip();
        Ok(Self { client: Some(Arc::new(client)), server: None, expiry, hosts: hosts.unwrap_or_default() })
    }

    fn load_server(config: &TlsConfig) -> Result<Self, TlsError> {
        let mut pair = Self::load(config)?;
        pair.client = None;
        if let Some(server) = &mut pair.server {
            // h2 is for etcd's peers, which offer it and speak HTTP/1.1 all the same. A client would mean it.
            Arc::make_mut(server).alpn_protocols = vec![b"http/1.1".to_vec()];
        }
        Ok(pair)
    }

    fn load(config: &TlsConfig) -> Result<Self, TlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let allowed = allowed(config)?;
        let chain = certificates(&config.cert_file)?;
        let (expiry, hosts) = (check_leaf(&config.cert_file, &chain)?, hosts(&chain));
        let key = key((&config.cert_file, &config.key_file), chain, &provider)?;
        let roots = config.trusted_ca_file.as_deref().map(roots).transpose()?;
        let key = Arc::new(SingleCertAndKey::from(key));
        let server = ServerConfig::builder_with_provider(provider.clone());
        let server = server.with_protocol_versions(VERSIONS).map_err(|error| content(&config.cert_file, error))?;
        let (mut server, client) = match (&config.trusted_ca_file, roots) {
            (Some(path), Some(roots)) => {
                let clients = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone());
                let authority = clients.build().map_err(|error| content(path, error))?;
                let clients = Arc::new(Clients { authority, allowed: allowed.clone() });
                let servers = WebPkiServerVerifier::builder_with_provider(roots, provider.clone());
                let authority = servers.build().map_err(|error| content(path, error))?;
                let client = client(provider, Servers { authority, allowed }, key.clone());
                let client = client.map_err(|error| content(&config.cert_file, error))?;
                (server.with_client_cert_verifier(clients).with_cert_resolver(key), Some(Arc::new(client)))
            }
            _ => (server.with_no_client_auth().with_cert_resolver(key), None),
        };
        // As etcd's listener. Who offers nothing is served too; who offers only others gets the alert of RFC 7301.
        server.alpn_protocols = vec![b"http/1.1".to_vec(), b"h2".to_vec()];
        Ok(Self { client, server: Some(Arc::new(server)), expiry: Some(expiry), hosts })
    }
}

fn client(provider: Arc<CryptoProvider>, servers: Servers, key: Arc<SingleCertAndKey>) -> Result<ClientConfig, Error> {
    let client = ClientConfig::builder_with_provider(provider).with_protocol_versions(VERSIONS)?;
    let client = client.dangerous().with_custom_certificate_verifier(Arc::new(servers));
    let mut client = client.with_client_cert_resolver(key);
    // A session for each of a few hundred peers, as rustls has it by default.
    client.resumption = Resumption::in_memory_sessions(256);
    Ok(client)
}

fn allowed(config: &TlsConfig) -> Result<Allowed, TlsError> {
    if config.client_cert_auth && config.trusted_ca_file.is_none() {
        return Err(TlsError::Config("client certificates can only be required with a trusted CA file"));
    }
    let binds = !config.allowed_common_names.is_empty() || !config.allowed_hostnames.is_empty();
    if binds && config.trusted_ca_file.is_none() {
        return Err(TlsError::Config("allowed names can only be checked with a trusted CA file"));
    }
    // As etcd: it is not clear whether one or both should be asked for.
    if !config.allowed_common_names.is_empty() && !config.allowed_hostnames.is_empty() {
        return Err(TlsError::Config("allowed common names and allowed host names exclude each other"));
    }
    let hostnames = config.allowed_hostnames.iter().map(|name| ServerName::try_from(name.clone())).collect();
    let hostnames: Result<Vec<_>, _> = hostnames;
    let hostnames = hostnames.map_err(|_| TlsError::Config("an allowed host name is not a host name"))?;
    Ok(Allowed { common_names: config.allowed_common_names.clone(), hostnames })
}

fn hosts(chain: &[CertificateDer<'_>]) -> Hosts {
    chain.first().and_then(|leaf| Certificate::read(leaf)).map(|leaf| leaf.hosts()).unwrap_or_default()
}

fn check_leaf(path: &Path, chain: &[CertificateDer<'_>]) -> Result<SystemTime, TlsError> {
    let leaf = chain.first().and_then(|leaf| Certificate::read(leaf));
    let leaf = leaf.ok_or_else(|| content(path, "the first certificate cannot be read"))?;
    match leaf.unsupported() {
        // Go's peers take it; rustls's do not.
        Some(Unsupported::Authority) => {
            tracing::warn!(file = %path.display(), "the certificate is marked as a CA's own: peers on rustls refuse it");
        }
        Some(unsupported) => return Err(content(path, format!("the certificate {unsupported}"))),
        None => {}
    }
    Ok(leaf.not_after)
}

fn key(
    (cert, path): (&Path, &Path),
    chain: Vec<CertificateDer<'static>>,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, TlsError> {
    let key = PrivateKeyDer::from_pem_slice(&read(path)?);
    let key = key.map_err(|error| content(path, format!("no private key in PEM: {error}")))?;
    CertifiedKey::from_der(chain, key, provider).map_err(|error| match error {
        Error::InconsistentKeys(_) => TlsError::Mismatch { key: path.to_owned(), cert: cert.to_owned() },
        Error::InvalidCertificate(_) => content(cert, error),
        error => content(path, error),
    })
}

fn roots(path: &Path) -> Result<Arc<RootCertStore>, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|error| content(path, error))?;
    }
    Ok(Arc::new(roots))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = read(path)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let certificates = certificates.map_err(|error| content(path, format!("not PEM: {error}")))?;
    if certificates.is_empty() { Err(content(path, "no certificate in PEM")) } else { Ok(certificates) }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|error| TlsError::Read { path: path.to_owned(), error })
}

fn content(path: &Path, why: impl ToString) -> TlsError {
    TlsError::Content { path: PathBuf::from(path), why: why.to_string() }
}
