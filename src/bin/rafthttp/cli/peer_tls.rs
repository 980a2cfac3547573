//! The certificate flags between peers.

use std::path::PathBuf;

use clap::Args;
use rafthttp::{PeerUrl, Tls, TlsConfig};

use super::{BadFlag, Failure, key_pair::key_pair};
use crate::config;

/// Certificates towards peers, named as etcd's flags.
#[derive(Args, Debug, Default)]
pub(crate) struct PeerTls {
    /// Certificate of this member for peers on https, PEM; read again when the file changes.
    #[arg(long, value_name = "FILE")]
    peer_cert_file: Option<PathBuf>,

    /// The private key of --peer-cert-file, PEM; read again when the file changes.
    #[arg(long, value_name = "FILE")]
    peer_key_file: Option<PathBuf>,

    /// CAs of the peers' certificates, PEM; read again when the file changes. With this flag, every peer must show a
    /// certificate.
    #[arg(long, value_name = "FILE")]
    peer_trusted_ca_file: Option<PathBuf>,

    /// Certificate for the peers that this member dials, PEM; read again when the file changes [default:
    /// --peer-cert-file]
    #[arg(long, value_name = "FILE")]
    peer_client_cert_file: Option<PathBuf>,

    /// The private key of --peer-client-cert-file, PEM; read again when the file changes.
    #[arg(long, value_name = "FILE")]
    peer_client_key_file: Option<PathBuf>,
}

/// What the peers' certificates must say, beyond their CA.
#[derive(Args, Debug, Default)]
pub(crate) struct PeerNames {
    /// Require a certificate of every peer. --peer-trusted-ca-file does so by itself.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", action = clap::ArgAction::Set, value_parser = config::switch())]
    peer_client_cert_auth: bool,

    /// Common names that a peer's certificate may have, in both directions [default: any]
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    peer_cert_allowed_cn: Vec<String>,

    /// Host names of which a peer's certificate must be valid for one, in both directions [default: any]
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    peer_cert_allowed_hostname: Vec<String>,

    /// Lists of revoked certificates (CRL), PEM or DER, for both directions; read again when the file changes. A
    /// certificate that is on no list is accepted.
    #[arg(long, value_name = "FILE")]
    peer_crl_file: Option<PathBuf>,

    /// Accept a peer's client certificate from any address. Without this flag, a certificate with alternative names
    /// must be valid for the address of the connection, directly or by DNS.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", action = clap::ArgAction::Set, value_parser = config::switch())]
    peer_skip_client_san_verification: bool,

    /// Refuse a request if its certificate is not valid for a peer URL of the member that it names as its sender.
    /// Without this flag, such requests are counted and logged.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", action = clap::ArgAction::Set, value_parser = config::switch())]
    peer_cert_bind_members: bool,
}

impl PeerTls {
    /// Whether there is a certificate.
    pub(crate) fn is_given(&self) -> bool {
        self.peer_cert_file.is_some()
    }

    /// The CAs that peers are verified against.
    pub(crate) fn trusted_ca_file(&self) -> Option<&PathBuf> {
        self.peer_trusted_ca_file.as_ref()
    }

    /// Reads the certificates. `None` if none are given.
    pub(crate) fn load(self, names: PeerNames) -> Result<Option<Tls>, Failure> {
        let config = self.config(names)?;
        config.map(Tls::load).transpose().map_err(Failure::failed)
    }

    fn config(self, names: PeerNames) -> Result<Option<TlsConfig>, BadFlag> {
        let (certificate, key) = (self.peer_client_cert_file, self.peer_client_key_file);
        let client = key_pair("peer-client-cert-file", certificate, "peer-client-key-file", key)?;
        let (client_cert_file, client_key_file) = client.unzip();
        let pair = key_pair("peer-cert-file", self.peer_cert_file, "peer-key-file", self.peer_key_file)?;
        let Some((cert_file, key_file)) = pair else {
            let files =
                [("peer-trusted-ca-file", self.peer_trusted_ca_file), ("peer-client-cert-file", client_cert_file)];
            return refuse_without_certificate(files, names).map(|()| None);
        };
        if names.peer_client_cert_auth && self.peer_trusted_ca_file.is_none() {
            return Err(BadFlag::new("peer-client-cert-auth", true, "expected --peer-trusted-ca-file beside it"));
        }
        if names.peer_cert_bind_members && self.peer_trusted_ca_file.is_none() {
            return Err(BadFlag::new("peer-cert-bind-members", true, "expected --peer-trusted-ca-file beside it"));
        }
        if let (Some(file), None) = (&names.peer_crl_file, &self.peer_trusted_ca_file) {
            return Err(BadFlag::new("peer-crl-file", file.display(), "expected --peer-trusted-ca-file beside it"));
        }
        Ok(Some(TlsConfig {
            cert_file,
            key_file,
            trusted_ca_file: self.peer_trusted_ca_file,
            client_cert_auth: names.peer_client_cert_auth,
            allowed_common_names: names.peer_cert_allowed_cn,
            allowed_hostnames: names.peer_cert_allowed_hostname,
            client_cert_file,
            client_key_file,
            crl_file: names.peer_crl_file,
            skip_client_san_verification: names.peer_skip_client_san_verification,
            bind_members: names.peer_cert_bind_members,
        }))
    }
}

/// Refuses settings that need a certificate if there is none, because they would silently have no effect.
fn refuse_without_certificate(files: [(&'static str, Option<PathBuf>); 2], names: PeerNames) -> Result<(), BadFlag> {
    const EXPECTED: &str = "expected --peer-cert-file and --peer-key-file beside it";
    for (flag, file) in files.into_iter().chain([("peer-crl-file", names.peer_crl_file)]) {
        if let Some(file) = file {
            return Err(BadFlag::new(flag, file.display(), EXPECTED));
        }
    }
    for (flag, given) in [
        ("peer-client-cert-auth", names.peer_client_cert_auth),
        ("peer-cert-bind-members", names.peer_cert_bind_members),
        ("peer-skip-client-san-verification", names.peer_skip_client_san_verification),
    ] {
        if given {
            return Err(BadFlag::new(flag, true, EXPECTED));
        }
    }
    for (flag, given) in [
        ("peer-cert-allowed-cn", &names.peer_cert_allowed_cn),
        ("peer-cert-allowed-hostname", &names.peer_cert_allowed_hostname),
    ] {
        if !given.is_empty() {
            return Err(BadFlag::new(flag, given.join(","), EXPECTED));
        }
    }
    Ok(())
}

/// Requires a certificate for https URLs to listen on, as etcd does.
pub(crate) fn require_certificate(flag: &'static str, urls: &[PeerUrl], given: bool) -> Result<(), BadFlag> {
    match urls.iter().find(|url| url.is_tls() && !given) {
        Some(url) => Err(BadFlag::new(flag, url, "expected --peer-cert-file and --peer-key-file for an https URL")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(certificate: Option<&str>, key: Option<&str>, ca: Option<&str>) -> PeerTls {
        PeerTls {
            peer_cert_file: certificate.map(PathBuf::from),
            peer_key_file: key.map(PathBuf::from),
            peer_trusted_ca_file: ca.map(PathBuf::from),
            ..PeerTls::default()
        }
    }

    #[test]
    fn a_certificate_and_its_key_come_together() {
        assert!(flags(Some("c"), None, None).config(PeerNames::default()).is_err());
        assert!(flags(None, Some("k"), None).config(PeerNames::default()).is_err());
        assert_eq!(flags(None, None, None).config(PeerNames::default()), Ok(None));
        let config = flags(Some("c"), Some("k"), Some("ca")).config(PeerNames::default()).unwrap().unwrap();
        assert_eq!(config.trusted_ca_file, Some(PathBuf::from("ca")));
    }

    #[test]
    fn what_needs_a_certificate_or_a_ca_is_refused_without() {
        assert!(flags(None, None, Some("ca")).config(PeerNames::default()).is_err());
        let auth = || PeerNames { peer_client_cert_auth: true, ..PeerNames::default() };
        assert!(flags(None, None, None).config(auth()).is_err());
        assert!(flags(Some("c"), Some("k"), None).config(auth()).is_err());
        let named = PeerNames { peer_cert_allowed_cn: vec!["etcd".to_owned()], ..PeerNames::default() };
        assert!(flags(None, None, None).config(named).is_err());
    }

    #[test]
    fn a_client_certificate_and_a_list_of_revoked_ones_need_what_they_go_with() {
        let client = |cert: Option<&str>, key: Option<&str>| PeerTls {
            peer_client_cert_file: cert.map(PathBuf::from),
            peer_client_key_file: key.map(PathBuf::from),
            ..flags(Some("c"), Some("k"), Some("ca"))
        };
        for (cert, key, word) in
            [(Some("cc"), None, "--peer-client-key-file"), (None, Some("ck"), "--peer-client-cert-file")]
        {
            let said = client(cert, key).config(PeerNames::default()).unwrap_err().to_string();
            assert!(said.contains(word), "{said}");
        }
        let revoked = || PeerNames { peer_crl_file: Some(PathBuf::from("crl")), ..PeerNames::default() };
        let config = client(Some("cc"), Some("ck")).config(revoked()).unwrap().unwrap();
        assert_eq!((config.client_cert_file, config.crl_file), (Some("cc".into()), Some("crl".into())));
        for without in [flags(Some("c"), Some("k"), None), flags(None, None, None)] {
            let said = without.config(revoked()).unwrap_err().to_string();
            assert!(said.contains("--peer-crl-file"), "{said}");
        }
    }

    #[test]
    fn an_https_listener_needs_a_certificate() {
        let urls = PeerUrl::list("http://h:1,https://h:2").unwrap();
        assert!(require_certificate("listen-peer-urls", &urls, false).unwrap_err().to_string().contains("https://h:2"));
        assert_eq!(require_certificate("listen-peer-urls", &urls, true), Ok(()));
    }
}
