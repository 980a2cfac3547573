//! The files, and what rustls makes of them.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use rustls::{
    ClientConfig, Error, RootCertStore, ServerConfig, SupportedProtocolVersion,
    client::{Resumption, WebPkiServerVerifier},
    crypto::{CryptoProvider, ring},
    server::WebPkiClientVerifier,
    sign::{CertifiedKey, SingleCertAndKey},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};

use super::{
    TlsConfig, TlsError,
    certificate::Certificate,
    verifier::{Allowed, Clients, Servers, Unsupported},
};

const VERSIONS: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13, &rustls::version::TLS12];

/// What tells a file from the one that was there before: a Kubernetes secret is a link to another file when it changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stamps(Vec<Option<(SystemTime, u64, u64)>>);

impl Stamps {
    /// Of the files that a configuration names; a file that is not there has none.
    pub(super) fn of(config: &TlsConfig) -> Self {
        let files = [Some(&config.cert_file), Some(&config.key_file), config.trusted_ca_file.as_ref()];
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

/// A certificate with its key, ready to be used both ways.
#[derive(Debug)]
pub(super) struct Pair {
    pub(super) client: Option<Arc<ClientConfig>>,
    pub(super) server: Arc<ServerConfig>,
    pub(super) expiry: SystemTime,
}

impl Pair {
    /// Reads all files. New configurations have new session caches: no session outlives the files that it began with.
    pub(super) fn load(config: &TlsConfig) -> Result<Self, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let allowed = allowed(config)?;
        let chain = certificates(&config.cert_file)?;
        let expiry = check_leaf(config, &chain)?;
        let key = key(config, chain, &provider)?;
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
        Ok(Self { client, server: Arc::new(server), expiry })
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

fn check_leaf(config: &TlsConfig, chain: &[CertificateDer<'_>]) -> Result<SystemTime, TlsError> {
    let path = &config.cert_file;
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
    config: &TlsConfig,
    chain: Vec<CertificateDer<'static>>,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, TlsError> {
    let path = &config.key_file;
    let key = PrivateKeyDer::from_pem_slice(&read(path)?);
    let key = key.map_err(|error| content(path, format!("no private key in PEM: {error}")))?;
    CertifiedKey::from_der(chain, key, provider).map_err(|error| match error {
        Error::InconsistentKeys(_) => TlsError::Mismatch { key: path.clone(), cert: config.cert_file.clone() },
        Error::InvalidCertificate(_) => content(&config.cert_file, error),
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
