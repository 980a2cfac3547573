//! The certificate flags for the case that a member asks others at their client URLs.

use std::path::PathBuf;

use clap::Args;
use rafthttp::{Tls, TlsClientConfig};

use super::{BadFlag, Failure, key_pair::key_pair, port_tls::PortTls};

/// What a member is to the others when it is a client of theirs: where it has itself added (`auto`).
#[derive(Args, Debug, Default)]
pub(crate) struct MemberAsClient {
    /// Certificate that this member shows as a client of the others: --initial-cluster-state auto asks at their client
    /// URLs to be added [default: --cert-file]
    #[arg(long, value_name = "FILE")]
    client_cert_file: Option<PathBuf>,

    /// The private key of --client-cert-file [default: --key-file]
    #[arg(long, value_name = "FILE")]
    client_key_file: Option<PathBuf>,

    /// CAs by which --initial-cluster-state auto verifies the others' https client URLs [default: --trusted-ca-file,
    /// else
    /// --peer-trusted-ca-file]
    #[arg(long, value_name = "FILE")]
    auto_trusted_ca_file: Option<PathBuf>,
}

impl MemberAsClient {
    /// Reads the certificates. `None` if there is no CA to verify the others against.
    pub(crate) fn load(self, port: &PortTls, peers_ca: Option<&PathBuf>) -> Result<Option<Tls>, Failure> {
        let config = self.config(port, peers_ca)?;
        config.map(Tls::load_client).transpose().map_err(Failure::failed)
    }

    fn config(self, port: &PortTls, peers_ca: Option<&PathBuf>) -> Result<Option<TlsClientConfig>, BadFlag> {
        let Self { client_cert_file, client_key_file, auto_trusted_ca_file } = self;
        let own = key_pair("client-cert-file", client_cert_file, "client-key-file", client_key_file)?;
        let (cert_file, key_file) = match own {
            Some((certificate, key)) => (Some(certificate), Some(key)),
            None => {
                let (certificate, key) = port.pair();
                (certificate.cloned(), key.cloned())
            }
        };
        let authority = auto_trusted_ca_file.or_else(|| port.trusted_ca_file().or(peers_ca).cloned());
        Ok(authority.map(|authority| TlsClientConfig {
            cert_file,
            key_file,
            trusted_ca_file: Some(authority),
            insecure_skip_verify: false,
        }))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        port: PortTls,
        #[command(flatten)]
        client: MemberAsClient,
    }

    fn config(line: &str, peers_ca: Option<&str>) -> Result<Option<TlsClientConfig>, BadFlag> {
        let Line { port, client } = Line::try_parse_from(["node"].into_iter().chain(line.split_whitespace())).unwrap();
        client.config(&port, peers_ca.map(PathBuf::from).as_ref())
    }

    fn files(config: &TlsClientConfig) -> [Option<&str>; 3] {
        [&config.cert_file, &config.key_file, &config.trusted_ca_file].map(|path| path.as_deref()?.to_str())
    }

    #[test]
    fn a_member_asks_as_it_answers_unless_told_otherwise() {
        let own = "--cert-file c --key-file k --trusted-ca-file ca";
        let as_it_answers = config(own, Some("peers")).unwrap().unwrap();
        assert_eq!(files(&as_it_answers), [Some("c"), Some("k"), Some("ca")]);
        let told = config(&format!("{own} --client-cert-file c2 --client-key-file k2 --auto-trusted-ca-file a"), None);
        assert_eq!(files(&told.unwrap().unwrap()), [Some("c2"), Some("k2"), Some("a")]);
        let peers = config("--cert-file c --key-file k", Some("peers")).unwrap().unwrap();
        assert_eq!(files(&peers), [Some("c"), Some("k"), Some("peers")]);
        assert_eq!(config("--cert-file c --key-file k", None), Ok(None));
    }

    #[test]
    fn half_a_pair_is_refused() {
        assert!(config("--client-cert-file c", Some("ca")).unwrap_err().to_string().contains("--client-key-file"));
        assert!(config("--client-key-file k", Some("ca")).unwrap_err().to_string().contains("--client-cert-file"));
    }
}
