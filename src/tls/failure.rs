//! TLS errors, each in one line.

use std::{io, net::IpAddr, path::PathBuf, time::Duration};

use rustls::{AlertDescription, CertificateError, Error};
use rustls_pki_types::CertificateDer;

use super::certificate::{Certificate, quoted};

/// Why certificates cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{}: {error}, expected {expected}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        error: io::Error,
        /// What the file should hold.
        expected: &'static str,
    },
    /// A file does not contain what it should.
    #[error("{}: {why}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The key does not belong to the certificate.
    #[error("{}: holds another key ({is}) than {expected}, in {}", key.display(), cert.display())]
    Mismatch {
        /// The key's file.
        key: PathBuf,
        /// The kind of the key in the file.
        is: String,
        /// The certificate's file.
        cert: PathBuf,
        /// The expected key: its owner and its kind.
        expected: String,
    },
    /// The settings contradict each other.
    #[error("{0}")]
    Config(&'static str),
    /// The cryptography provider in use cannot do what we ask of it.
    #[error("TLS: {0}")]
    Rustls(String),
}

/// Why a handshake failed: the label `reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum HandshakeReason {
    /// The client showed no certificate.
    NoCertificate,
    /// The certificate leads to no CA that the other side trusts.
    UnknownAuthority,
    /// The certificate has expired, or is not valid yet.
    Expired,
    /// The certificate was revoked.
    Revoked,
    /// The certificate is for another name than the dialled one, or its name is not allowed.
    Name,
    /// The extended key usage of the certificate, or of one above it, is for something else: a server's certificate
    /// presented by the dialling side, or a client's by the dialled side.
    Usage,
    /// The certificate is refused for another reason: its key, its signature, or something that its CA may not sign.
    /// Also if the other side only says that our certificate is bad, as etcd does for all reasons but time and CA.
    Certificate,
    /// No common version, cipher or protocol, or the other side does not speak TLS.
    Protocol,
    /// The handshake took longer than 10 s.
    Timeout,
    /// The other side closed the connection.
    Closed,
    /// Any other reason.
    Other,
}

impl HandshakeReason {
    /// The value of the label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::NoCertificate => "no_certificate",
            Self::UnknownAuthority => "unknown_authority",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
            Self::Name => "name",
            Self::Usage => "usage",
            Self::Certificate => "certificate",
            Self::Protocol => "protocol",
            Self::Timeout => "timeout",
            Self::Closed => "closed",
            Self::Other => "other",
        }
    }

    /// Whether the reason concerns a certificate, presented or missing.
    pub(crate) fn is_of_certificates(self) -> bool {
        match self {
            Self::NoCertificate
            | Self::UnknownAuthority
            | Self::Expired
            | Self::Revoked
            | Self::Name
            | Self::Usage
            | Self::Certificate => true,
            Self::Protocol | Self::Timeout | Self::Closed | Self::Other => false,
        }
    }

    /// The reason for an error of rustls.
    pub(crate) fn of(error: &Error) -> Self {
        match error {
            Error::NoCertificatesPresented => Self::NoCertificate,
            Error::AlertReceived(alert) => match alert {
                AlertDescription::CertificateRequired | AlertDescription::NoCertificate => Self::NoCertificate,
                AlertDescription::UnknownCA => Self::UnknownAuthority,
                AlertDescription::CertificateExpired => Self::Expired,
                AlertDescription::CertificateRevoked => Self::Revoked,
                AlertDescription::UnrecognisedName => Self::Name,
                AlertDescription::UnsupportedCertificate => Self::Usage,
                AlertDescription::BadCertificate
                | AlertDescription::CertificateUnknown
                | AlertDescription::DecryptError => Self::Certificate,
                AlertDescription::CloseNotify | AlertDescription::UserCanceled => Self::Closed,
                AlertDescription::ProtocolVersion
                | AlertDescription::HandshakeFailure
                | AlertDescription::NoApplicationProtocol
                | AlertDescription::UnexpectedMessage
                | AlertDescription::DecodeError
                | AlertDescription::IllegalParameter
                | AlertDescription::InsufficientSecurity => Self::Protocol,
                _ => Self::Other,
            },
            Error::InvalidCertificate(certificate) => match certificate {
                CertificateError::UnknownIssuer | CertificateError::BadSignature => Self::UnknownAuthority,
                CertificateError::Expired
                | CertificateError::ExpiredContext { .. }
                | CertificateError::NotValidYet
                | CertificateError::NotValidYetContext { .. } => Self::Expired,
                CertificateError::Revoked => Self::Revoked,
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => Self::Name,
                CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => Self::Usage,
                CertificateError::Other(other) if other.0.is::<super::verifier::NotAllowed>() => Self::Name,
                _ => Self::Certificate,
            },
            Error::InappropriateMessage { .. }
            | Error::InappropriateHandshakeMessage { .. }
            | Error::InvalidMessage(_)
            | Error::PeerIncompatible(_)
            | Error::PeerMisbehaved(_)
            | Error::NoApplicationProtocol
            | Error::DecryptError => Self::Protocol,
            _ => Self::Other,
        }
    }
}

/// A failed handshake.
#[derive(Debug, thiserror::Error)]
#[error("{why}")]
pub struct HandshakeError {
    reason: HandshakeReason,
    why: String,
}

impl HandshakeError {
    /// The reason, from the closed set.
    pub fn reason(&self) -> HandshakeReason {
        self.reason
    }

    pub(crate) fn timeout(after: Duration) -> Self {
        let why = format!("handshake not done within {after:?}");
        Self { reason: HandshakeReason::Timeout, why }
    }

    pub(crate) fn no_certificate() -> Self {
        Self { reason: HandshakeReason::NoCertificate, why: "there is no certificate to show".to_owned() }
    }

    pub(crate) fn no_authority() -> Self {
        Self { reason: HandshakeReason::UnknownAuthority, why: "there is no trusted CA to verify by".to_owned() }
    }

    /// The client's certificate is not valid for the address that it comes from. `why` says why a look-up failed, if
    /// one did.
    pub(crate) fn not_from(certificate: &CertificateDer<'_>, address: IpAddr, why: Option<&str>) -> Self {
        let certificate = Certificate::read(certificate);
        let (name, hosts) = certificate.map(|leaf| (leaf.to_string(), leaf.hosts().to_string())).unwrap_or_default();
        let why = why.map(|why| format!(" ({why})")).unwrap_or_default();
        let hosts = quoted(hosts.as_bytes());
        let why = format!(
            "the client's certificate {name} is for {hosts}, but not for the address of its connection, {address}{why}"
        );
        Self { reason: HandshakeReason::Name, why }
    }

    pub(crate) fn not_a_name(host: &str) -> Self {
        Self { reason: HandshakeReason::Name, why: format!("{host:?} cannot be a certificate's name") }
    }
}

impl HandshakeError {
    /// Our verifier refused a certificate; `words` are its explanation.
    pub(super) fn verified(error: &Error, words: Option<String>) -> Self {
        Self { reason: HandshakeReason::of(error), why: words.unwrap_or_else(|| error.to_string()) }
    }

    /// A handshake failed with `error`. `words` are our verifier's explanation, if it refused the peer's certificate.
    pub(super) fn of(error: io::Error, words: Option<String>) -> Self {
        if let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
            let refused = words.filter(|_| !matches!(tls, Error::AlertReceived(_)));
            return Self::verified(tls, refused);
        }
        let reason = match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                HandshakeReason::Closed
            }
            io::ErrorKind::TimedOut => HandshakeReason::Timeout,
            _ => HandshakeReason::Other,
        };
        Self { reason, why: error.to_string() }
    }
}

/// The alert, if the error is an alert by which the other side refuses our certificate or says that it is missing.
pub(super) fn about_our_certificate(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    let Some(Error::AlertReceived(alert)) = rustls_error(error) else { return None };
    let about = matches!(
        alert,
        AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateRequired
            | AlertDescription::UnknownCA
    );
    about.then(|| format!("{alert:?}"))
}

/// rustls's error among the causes of an error.
pub(crate) fn rustls_error<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a Error> {
    let mut next = Some(error);
    while let Some(cause) = next {
        let inner = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        let found = inner.and_then(|inner| inner.downcast_ref::<Error>()).or_else(|| cause.downcast_ref());
        if found.is_some() {
            return found;
        }
        next = cause.source();
    }
    None
}
