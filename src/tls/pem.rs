//! Reads certificates and keys from files. If a file cannot be used, the error says in one line what is in it.

use std::{fs, path::Path, sync::Arc};

use rustls::{
    crypto::CryptoProvider,
    sign::{CertifiedKey, SigningKey},
};
use rustls_pki_types::{
    CertificateDer, PrivateKeyDer,
    pem::{self, PemObject},
};

use super::{
    TlsError,
    certificate::Certificate,
    der::{INTEGER, OBJECT_IDENTIFIER, OCTET_STRING, SEQUENCE, expect, wrap},
    key::{KeyKind, TAKEN},
};

/// The expected content of a file, in the words of a message.
pub(super) const CERTIFICATE: &str = "a certificate in PEM";
pub(super) const AUTHORITIES: &str = "certificates of CAs in PEM";
pub(super) const REVOKED: &str = "one in PEM (X509 CRL) or DER";
const KEY: &str = "a private key in PEM that is not encrypted";

/// PEM labels, by their end, and the names that people use. The first match counts.
const LABELS: [(&str, &str); 12] = [
    ("ENCRYPTED PRIVATE KEY", "an encrypted private key"),
    ("OPENSSH PRIVATE KEY", "a private key in OpenSSH's own form"),
    ("PRIVATE KEY", "a private key"),
    ("PUBLIC KEY", "a public key"),
    ("EC PARAMETERS", "the parameters of a curve, without a key"),
    ("CERTIFICATE REQUEST", "a certificate request"),
    ("TRUSTED CERTIFICATE", "a certificate in OpenSSL's own form (TRUSTED CERTIFICATE)"),
    ("X509 CERTIFICATE", "a certificate under an old label (X509 CERTIFICATE)"),
    ("CERTIFICATE", "a certificate"),
    ("CRL", "a revocation list"),
    ("PKCS7", "a PKCS#7 bundle"),
    ("CMS", "a PKCS#7 bundle"),
];

/// Reads a chain, or a list of CAs, as `expected` says: at least one certificate. Anything else in the file is ignored,
/// as etcd does for chains.
pub(super) fn certificates(path: &Path, expected: &'static str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = read(path, expected)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let certificates = certificates.map_err(|error| broken(path, &error, expected))?;
    if certificates.is_empty() { Err(unexpected(path, &text, expected)) } else { Ok(certificates) }
}

/// The first certificate of a chain, if it can be presented.
pub(super) fn leaf<'a>(path: &Path, chain: &'a [CertificateDer<'_>]) -> Result<Certificate<'a>, TlsError> {
    let leaf = chain.first().and_then(|leaf| Certificate::read(leaf));
    let leaf = leaf.ok_or_else(|| content(path, unreadable(0, CERTIFICATE)))?;
    if leaf.key.is_taken() {
        Ok(leaf)
    } else {
        Err(content(
            path,
            format!("the certificate {leaf} has a key that is not accepted, {}: expected {TAKEN}", leaf.key),
        ))
    }
}

/// The message for a certificate that cannot be parsed, by its place in the file.
pub(super) fn unreadable(place: usize, expected: &str) -> String {
    format!("certificate {} in it cannot be read: expected {expected}", place + 1)
}

/// A chain with its key.
pub(super) fn certified(
    cert: &Path,
    path: &Path,
    chain: Vec<CertificateDer<'static>>,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, TlsError> {
    let leaf = leaf(cert, &chain)?;
    let (key, kind) = key(path, provider)?;
    let public = key.public_key();
    if public.is_some_and(|public| public.as_ref() != wrap(SEQUENCE, leaf.key_info)) {
        return Err(TlsError::Mismatch {
            key: path.to_owned(),
            is: kind,
            cert: cert.to_owned(),
            expected: format!("that of the certificate {leaf}, {}", leaf.key),
        });
    }
    Ok(CertifiedKey::new(chain, key))
}

/// Reads a private key, ready to sign, and returns its kind in words.
fn key(path: &Path, provider: &CryptoProvider) -> Result<(Arc<dyn SigningKey>, String), TlsError> {
    let text = read(path, KEY)?;
    if is_encrypted(&text) {
        return Err(content(path, format!("holds an encrypted private key, expected {KEY}")));
    }
    let key = PrivateKeyDer::from_pem_slice(&text).map_err(|error| match error {
        pem::Error::NoItemsFound => unexpected(path, &text, KEY),
        error => broken(path, &error, KEY),
    })?;
    let (key, kind) = classified(key);
    let kind = kind.ok_or_else(|| content(path, format!("holds a private key that cannot be read, expected {KEY}")))?;
    match provider.key_provider.load_private_key(key) {
        Ok(key) => Ok((key, kind.name)),
        Err(_) if !kind.is_taken => {
            Err(content(path, format!("holds a key that is not accepted, {}: expected {TAKEN}", kind.name)))
        }
        Err(error) => Err(content(path, format!("holds a key that cannot be used, {}: {error}", kind.name))),
    }
}

struct NamedKeyKind {
    name: String,
    is_taken: bool,
}

/// Classifies the key by its content, whatever its label says. Go ignores the label too.
fn classified(key: PrivateKeyDer<'static>) -> (PrivateKeyDer<'static>, Option<NamedKeyKind>) {
    let der = key.secret_der().to_vec();
    let of = |kind: KeyKind<'_>| NamedKeyKind { name: kind.to_string(), is_taken: kind.is_taken() };
    if let Some(kind) = KeyKind::pkcs8(&der).map(of) {
        (PrivateKeyDer::Pkcs8(der.into()), Some(kind))
    } else if let Some(kind) = KeyKind::pkcs1(&der).map(of) {
        (PrivateKeyDer::Pkcs1(der.into()), Some(kind))
    } else if let Some(kind) = KeyKind::sec1(&der).map(of) {
        (PrivateKeyDer::Sec1(der.into()), Some(kind))
    } else {
        (key, None)
    }
}

/// Whether a key is encrypted: in the PKCS#8 form, or in OpenSSL's older form, which has a header for it.
fn is_encrypted(text: &[u8]) -> bool {
    let text = String::from_utf8_lossy(text);
    let mut lines = text.lines().skip_while(|line| label(line).is_none_or(|label| !label.ends_with("PRIVATE KEY")));
    let first = lines.next().and_then(label);
    first == Some("ENCRYPTED PRIVATE KEY") || lines.next().is_some_and(|line| line.contains("ENCRYPTED"))
}

pub(super) fn read(path: &Path, expected: &'static str) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|error| TlsError::Read { path: path.to_owned(), error, expected })
}

fn unexpected(path: &Path, text: &[u8], expected: &str) -> TlsError {
    content(path, format!("{}, expected {expected}", what_is(text)))
}

fn broken(path: &Path, error: &pem::Error, expected: &str) -> TlsError {
    let why = match error {
        pem::Error::MissingSectionEnd { .. } => "a section without its end".to_owned(),
        pem::Error::IllegalSectionStart { .. } => "a section whose first line is broken".to_owned(),
        pem::Error::Base64Decode(_) => "a section that is not base64".to_owned(),
        error => format!("{error:?}"),
    };
    content(path, format!("holds broken PEM ({why}), expected {expected}"))
}

pub(super) fn content(path: &Path, why: String) -> TlsError {
    TlsError::Content { path: path.to_owned(), why }
}

/// Describes the content of a file: its PEM blocks, or what it is instead.
fn what_is(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let name = |label: &str| LABELS.iter().find(|(end, _)| label.ends_with(end)).map(|(_, name)| *name);
    let mut labels = text.lines().filter_map(label).peekable();
    if labels.peek().is_some() {
        // Parameters often precede their key.
        let known = labels.clone().filter_map(name).max_by_key(|name| !name.starts_with("the parameters"));
        return match (known, labels.next()) {
            (None, Some(other)) => {
                format!("holds PEM of another kind ({})", super::certificate::quoted(other.as_bytes()))
            }
            (known, _) => format!("holds {}", known.unwrap_or_default()),
        };
    }
    if bytes.trim_ascii().is_empty() {
        "is empty".to_owned()
    } else {
        let der =
            binary(bytes).or_else(|| std::str::from_utf8(bytes).is_ok().then(|| "text that is not PEM".to_owned()));
        format!("holds {}", der.unwrap_or_else(|| "bytes that are not PEM".to_owned()))
    }
}

fn label(line: &str) -> Option<&str> {
    line.trim().strip_prefix("-----BEGIN ")?.strip_suffix("-----")
}

fn binary(bytes: &[u8]) -> Option<String> {
    if bytes.starts_with(&[0xfe, 0xed, 0xfe, 0xed]) {
        return Some("a Java key store".to_owned());
    }
    if Certificate::read(bytes).is_some() {
        return Some("a certificate in DER".to_owned());
    }
    let (fields, _) = expect(SEQUENCE, bytes)?;
    let key = KeyKind::pkcs8(bytes).or_else(|| KeyKind::pkcs1(bytes)).or_else(|| KeyKind::sec1(bytes));
    if let Some(kind) = key {
        return Some(format!("a private key in DER ({kind})"));
    }
    let encrypted = expect(SEQUENCE, fields).filter(|(algorithm, key)| {
        expect(OBJECT_IDENTIFIER, algorithm).is_some() && expect(OCTET_STRING, key).is_some()
    });
    let store = expect(INTEGER, fields).filter(|(version, rest)| *version == [3] && expect(SEQUENCE, rest).is_some());
    Some(match (encrypted, store) {
        (Some(_), _) => "an encrypted private key in DER".to_owned(),
        (_, Some(_)) => "a PKCS#12 store".to_owned(),
        _ => "something in DER".to_owned(),
    })
}
