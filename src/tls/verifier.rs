//! Verification of peers: against the CAs, and by the names that are allowed.

use std::{fmt, sync::Arc};

use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::{
    authorities::{Authorities, Chain},
    certificate::{Certificate, Purpose},
    crl::RevocationList,
    key::TAKEN,
    leaf::Leaf,
    names, refusal,
};

/// The CA vouches for the certificate, but none of its names is allowed (etcd's `VerifyPeerCertificate`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotAllowed {
    /// Its common name is not allowed.
    #[error("has none of the allowed common names")]
    CommonName,
    /// It is valid for none of the allowed hosts.
    #[error("is valid for none of the allowed host names")]
    Hostname,
}

/// The names that peers' certificates may have.
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
                return Err(refused(end_entity, NotAllowed::CommonName));
            }
        }
        let is_for = |allowed: &ServerName<'_>| names::verify(end_entity, allowed).is_ok();
        if !self.hostnames.is_empty() && !self.hostnames.iter().any(is_for) {
            return Err(refused(end_entity, NotAllowed::Hostname));
        }
        Ok(())
    }
}

fn refused(end_entity: &CertificateDer<'_>, why: NotAllowed) -> Error {
    if let Some(leaf) = Certificate::read(end_entity) {
        refusal::tell(format!("the certificate {leaf} {why}"));
    }
    CertificateError::Other(OtherError(Arc::new(why))).into()
}

/// Verifies the signature of a handshake, by the key of a leaf that webpki may not accept as it is.
fn signed(
    message: &[u8],
    leaf: &CertificateDer<'_>,
    signature: &DigitallySignedStruct,
    algorithms: &WebPkiSupportedAlgorithms,
    verify: VerifySignature,
) -> Result<HandshakeSignatureValid, Error> {
    verify(message, Leaf::of(leaf).readable(), signature, algorithms).inspect_err(|_| {
        let key = Certificate::read(leaf).map(|leaf| (leaf, leaf.key)).filter(|(_, key)| !key.is_taken());
        if let Some((leaf, key)) = key {
            refusal::tell(format!("the certificate {leaf} has a key that is not accepted, {key}: expected {TAKEN}"));
        }
    })
}

type VerifySignature = fn(
    &[u8],
    &CertificateDer<'_>,
    &DigitallySignedStruct,
    &WebPkiSupportedAlgorithms,
) -> Result<HandshakeSignatureValid, Error>;

/// The rules that peers' certificates are verified by.
pub(super) struct Rules {
    pub(super) authorities: Arc<Authorities>,
    pub(super) allowed: Allowed,
    pub(super) revoked: Option<Arc<RevocationList>>,
}

impl Rules {
    /// Refuses a chain with a revoked certificate. etcd checks only clients' certificates. This also checks servers',
    /// because a revoked certificate deserves no more trust there.
    fn check_revoked(&self, chain: Chain<'_>) -> Result<(), Error> {
        let all = std::iter::once(chain.leaf).chain(chain.others);
        let Some(revoked) = self.revoked.as_ref().and_then(|list| list.find(all)) else { return Ok(()) };
        if let Some(certificate) = Certificate::read(revoked) {
            let serial: String = certificate.serial.iter().map(|byte| format!("{byte:02x}")).collect();
            refusal::tell(format!("the certificate {certificate}, serial number {serial}, was revoked"));
        }
        Err(CertificateError::Revoked.into())
    }
}

/// Verifies the members that are dialled.
pub(crate) struct ServerVerifier(pub(super) Rules);

impl fmt::Debug for ServerVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Servers").field("allowed", &self.0.allowed).finish_non_exhaustive()
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let chain = Chain { leaf: end_entity, others: intermediates };
        refusal::verify(&self.0.authorities, chain, Purpose::Server, now)?;
        names::verify(end_entity, server_name).inspect_err(|_| {
            if let Some(leaf) = Certificate::read(end_entity) {
                refusal::tell(refusal::not_for(&leaf, server_name));
            }
        })?;
        self.0.allowed.check(end_entity)?;
        self.0.check_revoked(chain)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        signed(message, cert, dss, self.0.authorities.algorithms(), verify_tls12_signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        signed(message, cert, dss, self.0.authorities.algorithms(), verify_tls13_signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.authorities.algorithms().supported_schemes()
    }
}

/// Accepts any certificate of a dialled member (`--insecure-skip-tls-verify`). It still verifies that the member holds
/// the key of the certificate that it presents.
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
        signed(message, cert, dss, &self.0, verify_tls12_signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        signed(message, cert, dss, &self.0, verify_tls13_signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

/// Verifies the members that dial this one.
pub(crate) struct Clients {
    rules: Rules,
    /// The names of the CAs. A client with several certificates chooses by them.
    hints: Vec<DistinguishedName>,
}

impl Clients {
    pub(super) fn new(rules: Rules) -> Self {
        let hints = rules.authorities.subjects();
        Self { rules, hints }
    }
}

impl fmt::Debug for Clients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clients").field("allowed", &self.rules.allowed).finish_non_exhaustive()
    }
}

impl ClientCertVerifier for Clients {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let chain = Chain { leaf: end_entity, others: intermediates };
        refusal::verify(&self.rules.authorities, chain, Purpose::Client, now)?;
        self.rules.allowed.check(end_entity)?;
        self.rules.check_revoked(chain)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        signed(message, cert, dss, self.rules.authorities.algorithms(), verify_tls12_signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        signed(message, cert, dss, self.rules.authorities.algorithms(), verify_tls13_signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.rules.authorities.algorithms().supported_schemes()
    }
}
