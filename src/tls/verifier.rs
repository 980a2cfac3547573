//! Verifying peers: by their CA, as rustls does, and by the names that they are allowed.

use std::{fmt, sync::Arc};

use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_name,
    },
    crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature},
    server::{
        ParsedCertificate,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::certificate::Certificate;

/// A certificate that its CA vouches for and that bears none of the allowed names (etcd's `VerifyPeerCertificate`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotAllowed {
    /// Its common name is another.
    #[error("bears none of the allowed common names")]
    CommonName,
    /// It is valid for none of the hosts.
    #[error("is valid for none of the allowed host names")]
    Hostname,
}

/// The names that peers may bear.
#[derive(Clone, Debug, Default)]
pub(crate) struct Allowed {
    pub(crate) common_names: Vec<String>,
    pub(crate) hostnames: Vec<ServerName<'static>>,
}

impl Allowed {
    fn check(&self, end_entity: &CertificateDer<'_>) -> Result<(), Error> {
        if !self.common_names.is_empty() {
            let name = Certificate::read(end_entity).and_then(|certificate| certificate.common_name);
            if !name.is_some_and(|name| self.common_names.iter().any(|allowed| allowed.as_bytes() == name)) {
                return Err(other(NotAllowed::CommonName));
            }
        }
        if !self.hostnames.is_empty() {
            let certificate = ParsedCertificate::try_from(end_entity)?;
            if !self.hostnames.iter().any(|allowed| verify_server_name(&certificate, allowed).is_ok()) {
                return Err(other(NotAllowed::Hostname));
            }
        }
        Ok(())
    }
}

fn other<E: std::error::Error + Send + Sync + 'static>(error: E) -> Error {
    CertificateError::Other(OtherError(Arc::new(error))).into()
}

/// Says what of the certificate is not supported, where that is why rustls refused it.
fn explain(error: Error, end_entity: &CertificateDer<'_>) -> Error {
    let known = match &error {
        Error::InvalidCertificate(CertificateError::Other(_) | CertificateError::BadEncoding) => true,
        Error::InvalidCertificate(other) => is_algorithm(other),
        _ => false,
    };
    let unsupported = Certificate::read(end_entity).and_then(|certificate| certificate.unsupported());
    match unsupported {
        Some(unsupported) if known => self::other(unsupported),
        _ => error,
    }
}

#[expect(deprecated, reason = "rustls still has paths that say it the old way")]
fn is_algorithm(error: &CertificateError) -> bool {
    matches!(
        error,
        CertificateError::UnsupportedSignatureAlgorithm
            | CertificateError::UnsupportedSignatureAlgorithmContext { .. }
            | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. }
    )
}

/// Verifies those whom we dial.
pub(crate) struct Servers {
    pub(crate) authority: Arc<WebPkiServerVerifier>,
    pub(crate) allowed: Allowed,
}

impl fmt::Debug for Servers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Servers").field("allowed", &self.allowed).finish_non_exhaustive()
    }
}

impl ServerCertVerifier for Servers {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = self.authority.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        let verified = verified.map_err(|error| explain(error, end_entity))?;
        self.allowed.check(end_entity)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.authority.verify_tls12_signature(message, cert, dss).map_err(|error| explain(error, cert))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.authority.verify_tls13_signature(message, cert, dss).map_err(|error| explain(error, cert))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.authority.supported_verify_schemes()
    }
}

/// Takes whoever answers for who was dialled (`--insecure-skip-tls-verify`). That they hold the key of the certificate
/// that they show is verified all the same.
#[derive(Debug)]
pub(crate) struct Anyone(pub(crate) WebPkiSupportedAlgorithms);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.0).map_err(|error| explain(error, cert))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.0).map_err(|error| explain(error, cert))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

/// Verifies those who dial us.
pub(crate) struct Clients {
    pub(crate) authority: Arc<dyn ClientCertVerifier>,
    pub(crate) allowed: Allowed,
}

impl fmt::Debug for Clients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clients").field("allowed", &self.allowed).finish_non_exhaustive()
    }
}

impl ClientCertVerifier for Clients {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.authority.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.authority.verify_client_cert(end_entity, intermediates, now);
        let verified = verified.map_err(|error| explain(error, end_entity))?;
        self.allowed.check(end_entity)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.authority.verify_tls12_signature(message, cert, dss).map_err(|error| explain(error, cert))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.authority.verify_tls13_signature(message, cert, dss).map_err(|error| explain(error, cert))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.authority.supported_verify_schemes()
    }
}
