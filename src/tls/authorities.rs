//! Verification of a chain: against the trusted CAs, for a purpose, at a time.
//!
//! webpki finds and verifies the path from a leaf to a CA. This module adds what Go's `x509.Verify` does and webpki
//! leaves out, so that a member and etcd reach the same result:
//!
//! | | webpki | here, as in Go |
//! |---|---|---|
//! | a leaf that is one of the trusted CAs | not supported | trusted for that reason alone |
//! | a leaf with `CA:TRUE`, or of version 1 | refused | accepted: see [`Leaf`] |
//! | extended key usage *any* | refused | accepted, at each level of the chain |
//! | the CA's own validity, usages, path length, `CA:TRUE` and `keyCertSign` | ignored | must hold |
//! | `keyCertSign` in an intermediate's key usage | ignored | must hold if there is a key usage |

use std::{cell::RefCell, time::SystemTime};

use rustls::{DistinguishedName, crypto::WebPkiSupportedAlgorithms};
use rustls_pki_types::{CertificateDer, SignatureVerificationAlgorithm, TrustAnchor, UnixTime};
use webpki::{
    EndEntityCert, ExtendedKeyUsageValidator, KeyPurposeId, KeyPurposeIdIter, KeyUsage, RequiredEkuNotFoundContext,
    VerifiedPath, anchor_from_trusted_cert,
};

use super::{
    CertificatePart,
    certificate::{ANY_USAGE, Certificate, Purpose},
    leaf::Leaf,
};

/// What a peer presents: its own certificate, and those that lead to a CA.
#[derive(Clone, Copy)]
pub(super) struct Chain<'a> {
    pub(super) leaf: &'a CertificateDer<'a>,
    pub(super) others: &'a [CertificateDer<'a>],
}

/// When the certificates of a chain end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ends {
    pub(super) leaf: SystemTime,
    /// The earliest end of the intermediate certificates. `None` if there are none.
    pub(super) intermediate: Option<SystemTime>,
    /// The end of the CA. `None` if the chain leads to no trusted CA.
    pub(super) authority: Option<SystemTime>,
}

impl Ends {
    /// The earliest of the three.
    pub(super) fn earliest(&self) -> SystemTime {
        self.parts().map(|(_, end)| end).fold(self.leaf, SystemTime::min)
    }

    /// The end of each part.
    pub(super) fn parts(&self) -> impl Iterator<Item = (CertificatePart, SystemTime)> {
        let parts = [
            (CertificatePart::Leaf, Some(self.leaf)),
            (CertificatePart::Intermediate, self.intermediate),
            (CertificatePart::Authority, self.authority),
        ];
        parts.into_iter().filter_map(|(part, end)| Some((part, end?)))
    }
}

/// The trusted CAs.
pub(super) struct Authorities {
    /// Each certificate has its trust anchor at the same index.
    certificates: Vec<CertificateDer<'static>>,
    anchors: Vec<TrustAnchor<'static>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Authorities {
    /// Fails with the index of the certificate that cannot be read.
    pub(super) fn new(
        certificates: Vec<CertificateDer<'static>>,
        algorithms: WebPkiSupportedAlgorithms,
    ) -> Result<Self, usize> {
        let anchors = certificates.iter().enumerate().map(|(place, certificate)| {
            let anchor =
                anchor_from_trusted_cert(certificate).ok().filter(|_| Certificate::read(certificate).is_some());
            anchor.map(|anchor| anchor.to_owned()).ok_or(place)
        });
        let anchors = anchors.collect::<Result<_, _>>()?;
        Ok(Self { certificates, anchors, algorithms })
    }

    /// The names of the CAs, for clients that have to choose which certificate to present.
    pub(super) fn subjects(&self) -> Vec<DistinguishedName> {
        self.anchors.iter().map(|anchor| DistinguishedName::in_sequence(&anchor.subject)).collect()
    }

    /// The certificates of the CAs.
    pub(super) fn certificates(&self) -> impl Iterator<Item = Certificate<'_>> {
        self.certificates.iter().filter_map(|certificate| Certificate::read(certificate))
    }

    pub(super) fn algorithms(&self) -> &WebPkiSupportedAlgorithms {
        &self.algorithms
    }

    /// Whether a chain leads to one of the CAs.
    pub(super) fn verify(&self, chain: Chain<'_>, purpose: Purpose, now: UnixTime) -> Result<(), webpki::Error> {
        self.search(chain, purpose, now, &|_| Ok(()))
    }

    /// When the chain ends. If there are several paths to a CA, as while a CA is renewed, the path that lasts longest
    /// counts.
    pub(super) fn ends(&self, chain: Chain<'_>, now: SystemTime) -> Option<Ends> {
        let leaf = Certificate::read(chain.leaf)?;
        let found = RefCell::new(Vec::new());
        let note = |path: &[CertificateDer<'_>], authority: &Certificate<'_>| {
            let between = path.iter().filter_map(|certificate| Certificate::read(certificate));
            let intermediate = between.map(|certificate| certificate.not_after).min();
            found.borrow_mut().push(Ends { leaf: leaf.not_after, intermediate, authority: Some(authority.not_after) });
        };
        // An expired chain does not verify now, but it did when its leaf was issued.
        for time in [now, leaf.not_before] {
            let collect = |path: Path<'_>| {
                note(&path.intermediates, &path.authority);
                Err(webpki::Error::UnknownIssuer)
            };
            let time = unix_time(time);
            for purpose in Purpose::ALL {
                // The result does not matter: `collect` rejects every path, so that the search goes on to all of them.
                let _ = self.search(chain, purpose, time, &collect);
            }
            if !found.borrow().is_empty() {
                break;
            }
        }
        found.into_inner().into_iter().max_by_key(Ends::earliest)
    }

    fn search(
        &self,
        chain: Chain<'_>,
        purpose: Purpose,
        now: UnixTime,
        accept: &dyn Fn(Path<'_>) -> Result<(), webpki::Error>,
    ) -> Result<(), webpki::Error> {
        let leaf = Leaf::of(chain.leaf);
        let end_entity = EndEntityCert::try_from(leaf.readable())?;
        if let Some(own) = self.certificates.iter().find(|certificate| *certificate == chain.leaf) {
            let authority = Certificate::read(own).ok_or(webpki::Error::BadDer)?;
            check(&authority, purpose, now)?;
            return accept(Path { intermediates: Vec::new(), authority });
        }
        let algorithms: Vec<_> = leaf.algorithms(self.algorithms.all).collect();
        let algorithms: Vec<&dyn SignatureVerificationAlgorithm> =
            algorithms.iter().map(|algorithm| algorithm as &dyn SignatureVerificationAlgorithm).collect();
        let check = |path: &VerifiedPath<'_>| accept(self.check_path(path, purpose, now)?);
        end_entity.verify_for_usage(&algorithms, &self.anchors, chain.others, now, For(purpose), None, Some(&check))?;
        Ok(())
    }

    /// The checks that webpki leaves out.
    fn check_path<'a>(
        &'a self,
        path: &'a VerifiedPath<'_>,
        purpose: Purpose,
        now: UnixTime,
    ) -> Result<Path<'a>, webpki::Error> {
        let place = self.anchors.iter().position(|anchor| std::ptr::eq(anchor, path.anchor()));
        let authority = place.and_then(|place| self.certificates.get(place));
        let authority =
            authority.and_then(|authority| Certificate::read(authority)).ok_or(webpki::Error::UnknownIssuer)?;
        let intermediates: Vec<_> = path.intermediate_certificates().map(|certificate| certificate.der()).collect();
        let sign = |der: &CertificateDer<'_>| Certificate::read(der).is_some_and(|found| found.signs_certificates());
        if !authority.signs_certificates() || !intermediates.iter().all(sign) {
            return Err(webpki::Error::EndEntityUsedAsCa);
        }
        if authority.path_length.is_some_and(|most| intermediates.len() > most) {
            return Err(webpki::Error::PathLenConstraintViolated);
        }
        check(&authority, purpose, now)?;
        Ok(Path { intermediates, authority })
    }
}

/// A path that was verified.
struct Path<'a> {
    intermediates: Vec<CertificateDer<'a>>,
    authority: Certificate<'a>,
}

/// Checks the times and usages of a CA's certificate.
fn check(authority: &Certificate<'_>, purpose: Purpose, now: UnixTime) -> Result<(), webpki::Error> {
    let (not_before, not_after) = (unix_time(authority.not_before), unix_time(authority.not_after));
    if now < not_before {
        return Err(webpki::Error::CertNotValidYet { time: now, not_before });
    }
    if now > not_after {
        return Err(webpki::Error::CertExpired { time: now, not_after });
    }
    if authority.allows(purpose) { Ok(()) } else { Err(lacking(purpose, Vec::new())) }
}

/// Extended key usages as in Go (`x509.checkChainForKeyUsage`): *any* allows every usage, and so does a certificate
/// without this extension.
#[derive(Clone, Copy)]
struct For(Purpose);

impl ExtendedKeyUsageValidator for For {
    fn validate(&self, usages: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        let allowed = [KeyPurposeId::new(self.0.oid()), KeyPurposeId::new(ANY_USAGE)];
        let mut present = Vec::new();
        for usage in usages {
            let usage = usage?;
            if allowed.contains(&usage) {
                return Ok(());
            }
            present.push(usage.to_decoded_oid());
        }
        if present.is_empty() { Ok(()) } else { Err(lacking(self.0, present)) }
    }
}

fn lacking(purpose: Purpose, present: Vec<Vec<usize>>) -> webpki::Error {
    let required = match purpose {
        Purpose::Server => KeyUsage::server_auth(),
        Purpose::Client => KeyUsage::client_auth(),
    };
    webpki::Error::RequiredEkuNotFoundContext(RequiredEkuNotFoundContext { required, present })
}

/// Times before 1970 become 1970.
pub(super) fn unix_time(time: SystemTime) -> UnixTime {
    UnixTime::since_unix_epoch(time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
}
