//! The certificate flags of the ports for clients and metrics, named as etcd's.

use std::path::PathBuf;

use clap::Args;
use rafthttp::{Tls, TlsConfig};

use super::{BadFlag, Failure, key_pair::key_pair};
use crate::config::{self, ListenUrl};

/// Certificates of the ports for clients and metrics on https.
#[derive(Args, Debug, Default)]
pub(crate) struct PortTls {
    /// Certificate of the https ports for clients and metrics, PEM; read again when the file changes.
    #[arg(long, value_name = "FILE")]
    cert_file: Option<PathBuf>,

    /// The private key of --cert-file, PEM; read again when the file changes.
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,

    /// CAs of the clients' certificates, PEM; read again when the file changes. With this flag, every client must show
    /// a certificate, as in etcd.
    #[arg(long, value_name = "FILE")]
    trusted_ca_file: Option<PathBuf>,

    /// Require a certificate of every client. --trusted-ca-file does so by itself; without it, the system's CAs count,
    /// as in etcd, and anyone can get a certificate from those.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", action = clap::ArgAction::Set, value_parser = config::switch())]
    client_cert_auth: bool,

    /// Lists of revoked client certificates (CRL), PEM or DER; read again when the file changes.
    #[arg(long, value_name = "FILE")]
    client_crl_file: Option<PathBuf>,

    /// Host names of which a client's certificate must be valid for one [default: any]
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    client_cert_allowed_hostname: Vec<String>,
}

/// The files in which the system keeps its trusted CAs: Go's list (`crypto/x509`, `root_linux.go`), used if
/// `SSL_CERT_FILE` is not set.
const SYSTEM_CAS: [&str; 6] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

impl PortTls {
    /// Reads the certificates. `None` if no URL of these flags is https: the certificate flags are then not checked, as
    /// in etcd.
    pub(crate) fn load(&self, listeners: &[(&'static str, &[ListenUrl])]) -> Result<Option<Tls>, Failure> {
        let config = self.config(listeners)?;
        config.map(Tls::load_server).transpose().map_err(Failure::failed)
    }

    /// The certificate and its key, if given.
    pub(crate) fn pair(&self) -> (Option<&PathBuf>, Option<&PathBuf>) {
        (self.cert_file.as_ref(), self.key_file.as_ref())
    }

    pub(crate) fn trusted_ca_file(&self) -> Option<&PathBuf> {
        self.trusted_ca_file.as_ref()
    }

    /// Warns of URLs that are served in plain text although there are certificates, which these URLs do not use: etcd's
    /// warnings.
    pub(crate) fn warn_of_plain(&self, flag: &'static str, urls: &[ListenUrl]) {
        for url in urls.iter().filter(|url| !url.is_tls()) {
            if self.cert_file.is_some() {
                tracing::warn!(%url, flag, "the scheme is http: the certificate is not used for this URL");
            }
            if self.client_cert_auth || self.trusted_ca_file.is_some() {
                tracing::warn!(%url, flag, "the scheme is http: no client is asked for a certificate at this URL");
            }
        }
    }

    fn config(&self, listeners: &[(&'static str, &[ListenUrl])]) -> Result<Option<TlsConfig>, BadFlag> {
        let pair = key_pair("cert-file", self.cert_file.clone(), "key-file", self.key_file.clone())?;
        let Some((cert_file, key_file)) = pair else {
            return refuse_https(listeners).map(|()| None);
        };
        if https(listeners).is_none() {
            return Ok(None);
        }
        let trusted_ca_file = self.clients_ca()?;
        if let (Some(file), None) = (&self.client_crl_file, &trusted_ca_file) {
            return Err(BadFlag::new("client-crl-file", file.display(), "expected --trusted-ca-file beside it"));
        }
        Ok(Some(TlsConfig {
            cert_file,
            key_file,
            trusted_ca_file,
            crl_file: self.client_crl_file.clone(),
            client_cert_auth: self.client_cert_auth,
            allowed_hostnames: self.client_cert_allowed_hostname.clone(),
            ..TlsConfig::default()
        }))
    }

    /// The CAs that clients are verified against. `None`: clients are not verified.
    fn clients_ca(&self) -> Result<Option<PathBuf>, BadFlag> {
        if self.trusted_ca_file.is_some() || !self.client_cert_auth {
            return Ok(self.trusted_ca_file.clone());
        }
        let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
        let mut places = named.into_iter().chain(SYSTEM_CAS.map(PathBuf::from));
        let Some(found) = places.find(|place| place.is_file()) else {
            let expected = "expected --trusted-ca-file beside it: this system has no CAs";
            return Err(BadFlag::new("client-cert-auth", true, expected));
        };
        tracing::warn!(
            file = %found.display(),
            "clients must show a certificate, but there is no --trusted-ca-file: certificates of all the system's CAs are accepted"
        );
        Ok(Some(found))
    }
}

/// The first https URL, and its flag.
fn https<'a>(listeners: &[(&'static str, &'a [ListenUrl])]) -> Option<(&'static str, &'a ListenUrl)> {
    listeners.iter().find_map(|(flag, urls)| Some((*flag, urls.iter().find(|url| url.is_tls())?)))
}

/// Requires a certificate for https URLs, as etcd does.
fn refuse_https(listeners: &[(&'static str, &[ListenUrl])]) -> Result<(), BadFlag> {
    match https(listeners) {
        Some((flag, url)) => Err(BadFlag::new(flag, url, "expected --cert-file and --key-file for an https URL")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(certificate: Option<&str>, key: Option<&str>, ca: Option<&str>) -> PortTls {
        PortTls {
            cert_file: certificate.map(PathBuf::from),
            key_file: key.map(PathBuf::from),
            trusted_ca_file: ca.map(PathBuf::from),
            ..PortTls::default()
        }
    }

    fn urls(text: &str) -> Vec<ListenUrl> {
        text.split(',').map(|url| url.parse().expect("a URL")).collect()
    }

    #[test]
    fn a_certificate_and_its_key_come_together() {
        let urls = urls("https://127.0.0.1:1");
        let listeners: [(_, &[ListenUrl]); 1] = [("listen-client-urls", &urls)];
        assert!(flags(Some("c"), None, None).config(&listeners).unwrap_err().to_string().contains("--key-file"));
        assert!(flags(None, Some("k"), None).config(&listeners).unwrap_err().to_string().contains("--cert-file"));
        let config = flags(Some("c"), Some("k"), Some("ca")).config(&listeners).unwrap().unwrap();
        assert_eq!(config.trusted_ca_file, Some(PathBuf::from("ca")));
    }

    #[test]
    fn an_https_url_needs_a_certificate_whichever_flag_has_it() {
        let (http, https) = (urls("http://127.0.0.1:1"), urls("http://127.0.0.1:1,https://127.0.0.1:2"));
        for flag in ["listen-client-urls", "listen-metrics-urls"] {
            let said = flags(None, None, None).config(&[("other", &http), (flag, &https)]).unwrap_err().to_string();
            assert!(said.contains(flag) && said.contains("https://127.0.0.1:2"), "{said}");
            assert!(said.contains("--cert-file and --key-file"), "{said}");
        }
    }

    #[test]
    fn revoked_certificates_need_a_ca() {
        let urls = urls("https://127.0.0.1:1");
        let listeners: [(_, &[ListenUrl]); 1] = [("listen-client-urls", &urls)];
        let revoked = |ca| PortTls { client_crl_file: Some("crl".into()), ..flags(Some("c"), Some("k"), ca) };
        let said = revoked(None).config(&listeners).unwrap_err().to_string();
        assert!(said.contains("--client-crl-file") && said.contains("--trusted-ca-file"), "{said}");
        assert_eq!(revoked(Some("ca")).config(&listeners).unwrap().unwrap().crl_file, Some("crl".into()));
    }

    #[test]
    fn beside_http_alone_certificates_are_not_even_read() {
        let http = urls("http://127.0.0.1:1");
        for flags in [flags(None, None, Some("ca")), flags(Some("none"), Some("none"), Some("none"))] {
            assert_eq!(flags.config(&[("listen-client-urls", &http)]), Ok(None));
        }
        let auth = PortTls { client_cert_auth: true, ..PortTls::default() };
        assert_eq!(auth.config(&[("listen-client-urls", &http)]), Ok(None));
    }
}
