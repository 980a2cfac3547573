//! The certificate flags of a client that dials members, named as etcdctl's.

use std::{fmt::Display, path::PathBuf};

use clap::Args;
use rafthttp::{Tls, TlsClientConfig};

use super::{BadFlag, Failure, key_pair::key_pair};
use crate::config;

/// Certificates towards members on https.
#[derive(Args, Debug, Default)]
pub(crate) struct ClientTls {
    /// CAs of the members' certificates, PEM; read again when the file changes.
    #[arg(long, global = true, value_name = "FILE")]
    cacert: Option<PathBuf>,

    /// Certificate for members that ask for one, PEM; read again when the file changes.
    #[arg(long, global = true, value_name = "FILE")]
    cert: Option<PathBuf>,

    /// The private key of --cert, PEM; read again when the file changes.
    #[arg(long, global = true, value_name = "FILE")]
    key: Option<PathBuf>,

    /// Do not verify the members' certificates: any server is accepted as the member.
    #[arg(long, global = true, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", action = clap::ArgAction::Set, value_parser = config::switch())]
    insecure_skip_tls_verify: bool,
}

impl ClientTls {
    /// Reads the certificates. `None` if none are given and no URL needs them. `missing` names the flag with a URL that
    /// needs them, and what is expected beside it.
    pub(crate) fn load(
        self,
        https: Option<impl Display>,
        missing: fn(String, &'static str) -> BadFlag,
    ) -> Result<Option<Tls>, Failure> {
        let config = self.config(https.map(|url| url.to_string()), missing)?;
        config.map(Tls::load_client).transpose().map_err(Failure::failed)
    }

    /// The same settings as flags of curl, with a space before each.
    pub(crate) fn as_curl(&self) -> String {
        let mut flags = String::new();
        for (flag, file) in [("cacert", &self.cacert), ("cert", &self.cert), ("key", &self.key)] {
            if let Some(file) = file {
                flags.push_str(&format!(" --{flag} {}", file.display()));
            }
        }
        if self.insecure_skip_tls_verify {
            flags.push_str(" --insecure");
        }
        flags
    }

    fn config(
        self,
        https: Option<String>,
        missing: fn(String, &'static str) -> BadFlag,
    ) -> Result<Option<TlsClientConfig>, BadFlag> {
        const EXPECTED: &str = "expected --cacert beside it, or --insecure-skip-tls-verify";
        let Self { cacert, cert, key, insecure_skip_tls_verify } = self;
        let (cert, key) = key_pair("cert", cert, "key", key)?.unzip();
        if cacert.is_none() && !insecure_skip_tls_verify {
            if let Some(cert) = &cert {
                return Err(BadFlag::new("cert", cert.display(), EXPECTED));
            }
            if let Some(url) = https {
                return Err(missing(url, EXPECTED));
            }
            return Ok(None);
        }
        Ok(Some(TlsClientConfig {
            cert_file: cert,
            key_file: key,
            trusted_ca_file: cacert,
            insecure_skip_verify: insecure_skip_tls_verify,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(cacert: Option<&str>, cert: Option<&str>, key: Option<&str>, skip: bool) -> ClientTls {
        let path = |text: Option<&str>| text.map(PathBuf::from);
        ClientTls { cacert: path(cacert), cert: path(cert), key: path(key), insecure_skip_tls_verify: skip }
    }

    fn missing(url: String, expected: &'static str) -> BadFlag {
        BadFlag::argument("URL", url, expected)
    }

    fn https() -> Option<String> {
        Some("https://b:2".to_owned())
    }

    #[test]
    fn what_does_not_go_together_is_refused_and_named() {
        for (flags, word) in [
            (flags(Some("ca"), Some("c"), None, false), "--cert"),
            (flags(Some("ca"), None, Some("k"), false), "--key"),
            (flags(None, Some("c"), Some("k"), false), "--cacert"),
            (flags(None, None, None, false), "https://b:2"),
        ] {
            let said = flags.config(https(), missing).expect_err(word).to_string();
            assert!(said.contains(word), "{said}");
        }
    }

    #[test]
    fn no_verification_can_be_taken_back_as_with_any_switch_of_gos() {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            tls: ClientTls,
        }
        for (flag, skips) in
            [("", false), ("--insecure-skip-tls-verify", true), ("--insecure-skip-tls-verify=false", false)]
        {
            let line = ["x", flag].into_iter().filter(|word| !word.is_empty());
            let line = <Line as clap::Parser>::try_parse_from(line).expect(flag);
            assert_eq!(line.tls.insecure_skip_tls_verify, skips, "{flag}");
        }
    }

    #[test]
    fn a_ca_or_no_verification_will_do_and_http_needs_nothing() {
        assert_eq!(flags(None, None, None, false).config(None, missing), Ok(None));
        assert!(flags(Some("ca"), None, None, false).config(https(), missing).is_ok_and(|config| config.is_some()));
        let config = flags(None, Some("c"), Some("k"), true).config(https(), missing).unwrap().unwrap();
        assert!(config.insecure_skip_verify && config.cert_file.is_some());
    }
}
