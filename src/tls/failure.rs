//! What can go wrong with TLS, each in one line.

use std::{io, path::PathBuf, time::Duration};

use rustls::{AlertDescription, CertificateError, Error};

/// Why certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{}: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        error: io::Error,
    },
    /// A file does not hold what it should.
    #[error("{}: {why}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The key is not the certificate's.
    #[error("{}: not the key of the certificate in {}", key.display(), cert.display())]
    Mismatch {
        /// The key's file.
        key: PathBuf,
        /// The certificate's file.
        cert: PathBuf,
    },
    /// The settings contradict each other.
    #[error("{0}")]
    Config(&'static str),
    /// The cryptography in use does not go together with what we ask of it.
    #[error("TLS: {0}")]
    Rustls(String),
}

/// Why a handshake failed: the label `reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HandshakeReason {
    /// The client showed no certificate.
    NoCertificate,
    /// A certificate that leads to no CA of the other side.
    UnknownAuthority,
    /// A certificate that is not valid any more, or not yet.
    Expired,
    /// A certificate for another name than the one dialled, or of a name that is not allowed.
    Name,
    /// No common version, cipher or protocol, or not TLS at all.
    Protocol,
    /// Not done within 10 s.
    Timeout,
    /// The other side closed the connection.
    Closed,
    /// Anything else.
    Other,
}

impl HandshakeReason {
    /// The value of the label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::NoCertificate => "no_certificate",
            Self::UnknownAuthority => "unknown_authority",
            Self::Expired => "expired",
            Self::Name => "name",
            Self::Protocol => "protocol",
            Self::Timeout => "timeout",
            Self::Closed => "closed",
            Self::Other => "other",
        }
    }

    /// The class of what rustls says.
    pub(crate) fn of(error: &Error) -> Self {
        match error {
            Error::NoCertificatesPresented => Self::NoCertificate,
            Error::AlertReceived(alert) => match alert {
                AlertDescription::CertificateRequired | AlertDescription::NoCertificate => Self::NoCertificate,
                AlertDescription::UnknownCA => Self::UnknownAuthority,
                AlertDescription::CertificateExpired => Self::Expired,
                AlertDescription::UnrecognisedName => Self::Name,
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
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => Self::Name,
                CertificateError::Other(other) if other.0.is::<super::verifier::NotAllowed>() => Self::Name,
                _ => Self::Other,
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

/// A handshake that failed.
#[derive(Debug, thiserror::Error)]
#[error("{why}")]
pub struct HandshakeError {
    reason: HandshakeReason,
    why: String,
}

impl HandshakeError {
    /// Its class.
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

    pub(crate) fn not_a_name(host: &str) -> Self {
        Self { reason: HandshakeReason::Name, why: format!("{host:?} cannot be a certificate's name") }
    }
}

impl From<io::Error> for HandshakeError {
    fn from(error: io::Error) -> Self {
        if let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
            return Self { reason: HandshakeReason::of(tls), why: describe(tls) };
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

/// rustls prints what others found wrong by its `Debug`; ours have a text.
fn describe(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(CertificateError::Other(other)) => format!("the peer's certificate {}", other.0),
        other => other.to_string(),
    }
}
