//! Certificates for tests, made on the spot; what `rcgen` cannot make lies in `pem/`.
#![allow(dead_code, reason = "each test takes the part that it needs")]

use std::{
    fs,
    path::{Path, PathBuf},
    time::SystemTime,
};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber,
};

// The crate's own tests take part in this too, and there the crate has no name.
use super::TlsConfig;

/// The serial number of every intermediate CA.
pub const INTERMEDIATE: u64 = 0x7001;

/// A CA and its key.
pub struct Authority {
    pub pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate to be issued; a member's on loopback unless told otherwise.
pub struct Leaf {
    pub common_name: &'static str,
    pub names: Vec<&'static str>,
    pub key: KeyPair,
    pub not_before: i32,
    pub not_after: i32,
    /// In place of the year.
    pub expires: Option<SystemTime>,
    /// Any, unless it matters.
    pub serial: Option<u64>,
    pub is_authority: bool,
    /// Its extended key usages. If there are none, the extension is left out.
    pub usages: Vec<ExtendedKeyUsagePurpose>,
}

impl Default for Leaf {
    fn default() -> Self {
        Self {
            common_name: "member",
            names: vec!["localhost", "127.0.0.1"],
            key: KeyPair::generate().expect("aws-lc-rs makes P-256 keys"),
            not_before: 2020,
            not_after: 2190,
            expires: None,
            serial: None,
            is_authority: false,
            usages: vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
        }
    }
}

/// A certificate with its key, PEM.
pub struct Issued {
    pub cert: String,
    pub key: String,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        Self::with_key(name, KeyPair::generate().expect("aws-lc-rs makes P-256 keys"))
    }

    pub fn with_key(name: &str, key: KeyPair) -> Self {
        let (params, _) = authority(name);
        let pem = params.self_signed(&key).expect("parameters are complete").pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// One that changes what a CA's certificate says.
    pub fn changed(name: &str, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let (mut params, key) = authority(name);
        change(&mut params);
        let pem = params.self_signed(&key).expect("parameters are complete").pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// The same CA under its old key, with a certificate that says something else.
    pub fn renewed(&self, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let (mut params, _) = authority("ca");
        change(&mut params);
        let pem = self.issuer.key().serialize_pem();
        let key = KeyPair::from_pem(&pem).expect("it was one");
        let pem = params.self_signed(&key).expect("parameters are complete").pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// A CA below this one.
    pub fn intermediate(&self, name: &str) -> Self {
        self.below(name, |_| {})
    }

    /// The same, with what it says changed.
    pub fn below(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let (mut params, key) = authority(name);
        params.serial_number = Some(SerialNumber::from(INTERMEDIATE));
        change(&mut params);
        let pem = params.signed_by(&key, &self.issuer).expect("parameters are complete").pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// A list of these serial numbers as revoked, to be replaced in that year: PEM, and DER.
    pub fn revoke(&self, serials: &[u64], next_update: i32) -> (String, Vec<u8>) {
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: rcgen::date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: rcgen::date_time_ymd(2020, 1, 1),
            next_update: rcgen::date_time_ymd(next_update, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = params.signed_by(&self.issuer).expect("parameters are complete");
        (list.pem().expect("it was made"), list.der().to_vec())
    }

    pub fn issue(&self, leaf: Leaf) -> Issued {
        let params = params(&leaf);
        let cert = params.signed_by(&leaf.key, &self.issuer).expect("parameters are complete").pem();
        Issued { cert, key: leaf.key.serialize_pem() }
    }
}

/// A certificate that vouches for itself, as etcd's `--peer-auto-tls` makes them but for the key.
pub fn self_signed(leaf: Leaf) -> Issued {
    let cert = params(&leaf).self_signed(&leaf.key).expect("parameters are complete").pem();
    Issued { cert, key: leaf.key.serialize_pem() }
}

fn authority(name: &str) -> (CertificateParams, KeyPair) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::CrlSign];
    (params, KeyPair::generate().expect("aws-lc-rs makes P-256 keys"))
}

fn params(leaf: &Leaf) -> CertificateParams {
    let names: Vec<String> = leaf.names.iter().map(ToString::to_string).collect();
    let mut params = CertificateParams::new(names).expect("names are ASCII");
    params.distinguished_name.remove(DnType::CommonName);
    params.distinguished_name.push(DnType::CommonName, leaf.common_name);
    params.not_before = rcgen::date_time_ymd(leaf.not_before, 1, 1);
    params.not_after = rcgen::date_time_ymd(leaf.not_after, 1, 1);
    if let Some(expires) = leaf.expires {
        params.not_after = expires.into();
    }
    params.serial_number = leaf.serial.map(SerialNumber::from);
    params.extended_key_usages = leaf.usages.clone();
    if leaf.is_authority {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    }
    params
}

/// A directory with `cert.pem`, `key.pem` and `ca.pem`.
pub struct Files(tempfile::TempDir);

impl Files {
    pub fn new(issued: &Issued, authority: &str) -> Self {
        let files = Self(tempfile::tempdir().expect("a temporary directory"));
        files.replace(issued);
        files.write("ca.pem", authority);
        files
    }

    pub fn replace(&self, issued: &Issued) {
        self.write("cert.pem", &issued.cert);
        self.write("key.pem", &issued.key);
    }

    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        // Another file under the same name, so that two writes within a tick of the file system's clock differ.
        let next = self.path("next");
        fs::write(&next, text).and_then(|()| fs::rename(&next, self.path(name))).expect("the directory is ours");
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn config(&self) -> TlsConfig {
        TlsConfig {
            cert_file: self.path("cert.pem"),
            key_file: self.path("key.pem"),
            trusted_ca_file: Some(self.path("ca.pem")),
            client_cert_auth: true,
            ..TlsConfig::default()
        }
    }
}

/// What lies in `pem/`.
pub fn fixture(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/pem").join(name);
    fs::read_to_string(path).expect("the fixture is there")
}
