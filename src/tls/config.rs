//! Where certificates are, and what those of others must say.

use std::path::PathBuf;

/// Where a member's certificates are, and what its peers' must say: etcd's `--peer-*` flags.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsConfig {
    /// The certificate, PEM, the leaf first and then what leads to the CA. Used as a server's and as a client's, as
    /// etcd does: its extended key usage must allow both, or any.
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
    /// The certificate to show to those whom we dial, PEM, where it is another than to those who dial us. Default: none,
    /// the same is shown to both.
    pub client_cert_file: Option<PathBuf>,
    /// Its private key, PEM; beside it.
    pub client_key_file: Option<PathBuf>,
    /// The certificates that were revoked, PEM or DER: whoever shows one of these serial numbers in its chain is refused.
    /// Needs a trusted CA. Default: none.
    pub crl_file: Option<PathBuf>,
    /// Whether a member that dials us may come from an address that its certificate is not for. Default: no, as at etcd: a
    /// certificate with alternative names must be for the address, directly or by look-ups of names.
    pub skip_client_san_verification: bool,
    /// Whether a request is refused whose certificate is not for the member that it says it is from. Default: no, it is
    /// counted and told of.
    pub bind_members: bool,
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
