//! The files, and what rustls makes of them.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use rustls::{
    ClientConfig, ServerConfig, SupportedProtocolVersion,
    client::{Resumption, danger::ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs},
    sign::SingleCertAndKey,
};
use rustls_pki_types::{CertificateDer, ServerName};

use super::{
    TlsClientConfig, TlsConfig, TlsError,
    authorities::{Authorities, Chain, Ends, unix_time},
    certificate::{Certificate, Hosts, Purpose, date},
    key::TAKEN,
    pem, refusal,
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
    /// What is shown; none for who shows no certificate.
    pub(super) shown: Option<Shown>,
}

/// The certificate that we show.
#[derive(Clone, Debug)]
pub(super) struct Shown {
    /// Its file.
    pub(super) file: PathBuf,
    /// When it ends, and what leads to its CA.
    pub(super) ends: Ends,
    /// The hosts that it is for.
    pub(super) hosts: Hosts,
    /// Why others will refuse it, by what it is shown for.
    pub(super) refused: Vec<(Purpose, String)>,
}

impl Shown {
    /// Looks at a chain as others will who trust the same CAs; without any, at what it says of itself.
    fn of(
        file: &Path,
        chain: &[CertificateDer<'static>],
        authorities: Option<&Authorities>,
        purposes: &[Purpose],
    ) -> Result<Self, TlsError> {
        let leaf = pem::leaf(file, chain)?;
        let now = SystemTime::now();
        let all = Chain { leaf: &chain[0], others: &chain[1..] };
        let between = all.others.iter().filter_map(|other| Certificate::read(other)).map(|other| other.not_after).min();
        let alone = Ends { leaf: leaf.not_after, intermediate: between, authority: None };
        let ends = authorities.and_then(|authorities| authorities.ends(all, now)).unwrap_or(alone);
        let why_not = |purpose: Purpose| match authorities {
            Some(authorities) => {
                let refused = authorities.verify(all, purpose, unix_time(now)).err();
                refused.map(|error| refusal::words(&error, all, authorities, purpose))
            }
            None if !leaf.allows(purpose) => Some(refusal::lacks(&leaf, purpose)),
            None => (leaf.not_after < now).then(|| format!("the certificate {leaf} ended on {}", date(leaf.not_after))),
        };
        let refused = purposes.iter().filter_map(|purpose| Some((*purpose, why_not(*purpose)?))).collect();
        Ok(Self { file: file.to_owned(), ends, hosts: leaf.hosts(), refused })
    }

    /// Says what others will refuse, before they do.
    pub(super) fn warn(&self) {
        let file = self.file.display();
        match &self.refused[..] {
            [(_, server), (_, client)] if server == client => {
                tracing::warn!(%file, why = server, "peers that trust the same CAs will refuse this certificate");
            }
            refused => {
                for (purpose, why) in refused {
                    let when = match purpose {
                        Purpose::Server => "when they dial us",
                        Purpose::Client => "when we dial them",
                    };
                    tracing::warn!(%file, why, "peers that trust the same CAs will refuse this certificate {when}");
                }
            }
        }
    }
}

impl Pair {
    fn load_client(config: &TlsClientConfig) -> Result<Self, TlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let (shown, key) = match (&config.cert_file, &config.key_file) {
            (Some(certificate), Some(file)) => {
                let chain = pem::certificates(certificate, pem::CERTIFICATE)?;
                // By which CAs it is verified is the members' to say.
                let shown = Shown::of(certificate, &chain, None, &[Purpose::Client])?;
                let key = pem::certified(certificate, file, chain, &provider)?;
                (Some(shown), Some(Arc::new(SingleCertAndKey::from(key))))
            }
            (None, None) => (None, None),
            _ => return Err(TlsError::Config("a certificate and its key are given together or not at all")),
        };
        let verifier: Arc<dyn ServerCertVerifier> = match &config.trusted_ca_file {
            _ if config.insecure_skip_verify => Arc::new(Anyone(provider.signature_verification_algorithms)),
            Some(path) => {
                let authorities = authorities(path, &provider)?;
                Arc::new(Servers { authorities, allowed: Allowed::default() })
            }
            None => return Err(TlsError::Config("a trusted CA file is needed to verify who is dialled")),
        };
        let client = client(provider, verifier, key)?;
        Ok(Self { client: Some(Arc::new(client)), server: None, shown })
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
        let chain = pem::certificates(&config.cert_file, pem::CERTIFICATE)?;
        let authorities = config.trusted_ca_file.as_deref().map(|path| authorities(path, &provider)).transpose()?;
        // Without a CA nobody is dialled.
        let purposes = if authorities.is_some() { &Purpose::ALL[..] } else { &[Purpose::Server] };
        let shown = Shown::of(&config.cert_file, &chain, authorities.as_deref(), purposes)?;
        let key = pem::certified(&config.cert_file, &config.key_file, chain, &provider)?;
        let key = Arc::new(SingleCertAndKey::from(key));
        let server = ServerConfig::builder_with_provider(provider.clone()).with_protocol_versions(VERSIONS);
        let server = server.map_err(|error| TlsError::Rustls(error.to_string()))?;
        let (mut server, client) = match authorities {
            Some(authorities) => {
                let clients = Arc::new(Clients::new(authorities.clone(), allowed.clone()));
                let client = client(provider, Arc::new(Servers { authorities, allowed }), Some(key.clone()))?;
                (server.with_client_cert_verifier(clients).with_cert_resolver(key), Some(Arc::new(client)))
            }
            None => (server.with_no_client_auth().with_cert_resolver(key), None),
        };
        // As etcd's listener. Who offers nothing is served too; who offers only others gets the alert of RFC 7301.
        server.alpn_protocols = vec![b"http/1.1".to_vec(), b"h2".to_vec()];
        Ok(Self { client, server: Some(Arc::new(server)), shown: Some(shown) })
    }
}

fn client(
    provider: Arc<CryptoProvider>,
    verifier: Arc<dyn ServerCertVerifier>,
    key: Option<Arc<SingleCertAndKey>>,
) -> Result<ClientConfig, TlsError> {
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(VERSIONS);
    let builder = builder.map_err(|error| TlsError::Rustls(error.to_string()))?;
    let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
    let mut client = match key {
        Some(key) => builder.with_client_cert_resolver(key),
        None => builder.with_no_client_auth(),
    };
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

fn authorities(path: &Path, provider: &CryptoProvider) -> Result<Arc<Authorities>, TlsError> {
    let certificates = pem::certificates(path, pem::AUTHORITIES)?;
    let authorities = Authorities::new(certificates, provider.signature_verification_algorithms);
    let authorities = authorities.map_err(|place| pem::content(path, pem::unreadable(place, pem::AUTHORITIES)))?;
    for authority in authorities.certificates().filter(|authority| !authority.key.is_taken()) {
        let (file, key) = (path.display(), authority.key);
        tracing::warn!(%file, %authority, %key, "this CA's key is not taken, nor is what it signed: expected {TAKEN}");
    }
    Ok(Arc::new(authorities))
}
