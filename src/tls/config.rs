//! The files of certificates, and the rules for the certificates of others.

use std::path::PathBuf;

/// The certificate files of a member, and the rules for its peers' certificates: etcd's `--peer-*` flags.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsConfig {
    /// The certificate, PEM, the leaf first and then the certificates that lead to the CA. As in etcd, it is presented
    /// both when accepting and when dialling: its extended key usage must allow both, or any.
    pub cert_file: PathBuf,
    /// Its private key, PEM: PKCS#8, PKCS#1 or SEC 1; RSA, P-256, P-384, P-521 or Ed25519.
    pub key_file: PathBuf,
    /// The CAs that peers are verified against. Default: none. Peers are then served without a certificate of theirs,
    /// and none can be dialled, because there is nothing to verify it against. (etcd would take the system's CAs, from
    /// which anyone can get a certificate.)
    pub trusted_ca_file: Option<PathBuf>,
    /// Whether members that dial this one must present a certificate. It needs a trusted CA. With a trusted CA, a
    /// certificate is required even if this is false.
    pub client_cert_auth: bool,
    /// The common names that peers may have. Default: none, which allows any.
    pub allowed_common_names: Vec<String>,
    /// The host names of which a peer's certificate must be valid for at least one. Default: none, which allows any.
    pub allowed_hostnames: Vec<String>,
    /// The certificate, PEM, to present when dialling, if it differs from the one to present when accepting. Default:
    /// none, the same certificate is presented in both cases.
    pub client_cert_file: Option<PathBuf>,
    /// The private key of `client_cert_file`, PEM. Both must be set together.
    pub client_key_file: Option<PathBuf>,
    /// The revoked certificates, PEM or DER. A peer is refused if one of these serial numbers is in its chain. It needs
    /// a trusted CA. Default: none.
    pub crl_file: Option<PathBuf>,
    /// Whether a member may dial this one from an address that its certificate is not valid for. Default: false, as in
    /// etcd: a certificate with alternative names must be valid for the address, directly or by looking up its names.
    pub skip_client_san_verification: bool,
    /// Whether a request is refused if its certificate is not for the member that it claims to be from. Default: false,
    /// the request is counted and logged.
    pub bind_members: bool,
}

/// The certificate files of a client that only dials: etcdctl's `--cacert`, `--cert`, `--key`,
/// `--insecure-skip-tls-verify`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsClientConfig {
    /// The certificate to present, PEM. Default: none.
    pub cert_file: Option<PathBuf>,
    /// The private key of the certificate, PEM. Both must be set together.
    pub key_file: Option<PathBuf>,
    /// The CAs that members are verified against. Default: none, which needs `insecure_skip_verify`.
    pub trusted_ca_file: Option<PathBuf>,
    /// Whether the certificate of the dialled member is not verified. Default: false.
    pub insecure_skip_verify: bool,
}
