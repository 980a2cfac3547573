//! A peer's own certificate, rewritten into a form that webpki accepts.
//!
//! webpki refuses a leaf with `CA:TRUE`, a leaf of X.509 version 1 or 2, and a leaf whose certificate policies are
//! critical. Go accepts them, and they are in use: `openssl req -x509` makes certificates with `CA:TRUE`. None of this
//! gives the leaf a right here, because nothing is verified as signed by a leaf and no policy is asked for. So webpki
//! reads the leaf as version 3 without these extensions, while its signature is verified over the original bytes.

use rustls_pki_types::{AlgorithmIdentifier, CertificateDer, InvalidSignature, SignatureVerificationAlgorithm};

use super::{
    certificate::{BASIC_CONSTRAINTS, Certificate, EXTENSIONS, POLICIES, is_critical, is_extension},
    der::{SEQUENCE, expect, whole, wrap},
};

const VERSION: u8 = 0xa0;
const VERSION_3: [u8; 5] = [VERSION, 3, 0x02, 1, 2];

/// A leaf, and how the rewritten form differs from the signed one.
pub(super) struct Leaf<'a> {
    readable: CertificateDer<'a>,
    rewritten: Option<Rewritten<'a>>,
}

/// The signed part of a certificate, rewritten and original.
#[derive(Clone, Copy, Debug)]
struct DerPart<'a> {
    read: &'a [u8],
    signed: &'a [u8],
}

struct Rewritten<'a> {
    read: Vec<u8>,
    signed: &'a [u8],
}

impl<'a> Leaf<'a> {
    pub(super) fn of(der: &'a CertificateDer<'_>) -> Self {
        match rewrite(der) {
            Some((certificate, read, signed)) => {
                Self { readable: certificate.into(), rewritten: Some(Rewritten { read, signed }) }
            }
            None => Self { readable: der.as_ref().into(), rewritten: None },
        }
    }

    /// The form that webpki reads.
    pub(super) fn readable(&self) -> &CertificateDer<'_> {
        &self.readable
    }

    /// The signature algorithms, which verify the leaf's signature over the original bytes.
    pub(super) fn algorithms<'b>(
        &'b self,
        all: &'b [&'static dyn SignatureVerificationAlgorithm],
    ) -> impl Iterator<Item = AsSigned<'b>> {
        let part = self.rewritten.as_ref().map(|Rewritten { read, signed }| DerPart { read, signed });
        all.iter().map(move |algorithm| AsSigned { algorithm: *algorithm, part })
    }
}

/// A signature algorithm that verifies the original bytes in place of the rewritten ones.
#[derive(Debug)]
pub(super) struct AsSigned<'a> {
    algorithm: &'static dyn SignatureVerificationAlgorithm,
    part: Option<DerPart<'a>>,
}

impl SignatureVerificationAlgorithm for AsSigned<'_> {
    fn verify_signature(&self, key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), InvalidSignature> {
        let message = self.part.filter(|part| part.read == message).map_or(message, |part| part.signed);
        self.algorithm.verify_signature(key, message, signature)
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        self.algorithm.public_key_alg_id()
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        self.algorithm.signature_alg_id()
    }
}

/// The rewritten certificate, its part that webpki takes for the signed one, and the original signed part. `None` if
/// webpki accepts the certificate as it is, or if Go would not accept it either.
fn rewrite(der: &[u8]) -> Option<(Vec<u8>, Vec<u8>, &[u8])> {
    let certificate = Certificate::read(der)?;
    let left_out = |extension: &[u8]| {
        (certificate.is_authority() && is_extension(extension, BASIC_CONSTRAINTS))
            || (is_extension(extension, POLICIES) && is_critical(extension))
    };
    let mut changed = certificate.version != 3;
    let (content, _) = expect(SEQUENCE, der)?;
    let (signed, signature) = whole(content)?;
    let (fields, _) = expect(SEQUENCE, signed)?;
    let mut rest = expect(VERSION, fields).map_or(fields, |(_, rest)| rest);
    let mut read = VERSION_3.to_vec();
    while !rest.is_empty() {
        let (field, after) = whole(rest)?;
        match expect(EXTENSIONS, field) {
            Some((extensions, _)) if certificate.version == 3 => {
                let (kept, all) = without(extensions, left_out)?;
                changed |= !all;
                read.extend(kept);
            }
            Some(_) => return None,
            None => read.extend(field),
        }
        rest = after;
    }
    if !changed {
        return None;
    }
    let read = wrap(SEQUENCE, &read);
    let certificate = wrap(SEQUENCE, &[&read, signature].concat());
    Some((certificate, read, signed))
}

/// The extensions without those that `left_out` selects, and whether that is all of them.
fn without(extensions: &[u8], left_out: impl Fn(&[u8]) -> bool) -> Option<(Vec<u8>, bool)> {
    let (mut rest, _) = expect(SEQUENCE, extensions)?;
    let (mut kept, mut all) = (Vec::new(), true);
    while !rest.is_empty() {
        let (extension, after) = whole(rest)?;
        if left_out(extension) {
            all = false;
        } else {
            kept.extend(extension);
        }
        rest = after;
    }
    Some((wrap(EXTENSIONS, &wrap(SEQUENCE, &kept)), all))
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
    use webpki::EndEntityCert;

    use super::*;

    fn der(is_ca: IsCa) -> CertificateDer<'static> {
        let key = KeyPair::generate().expect("aws-lc-rs makes P-256 keys");
        let mut params = CertificateParams::new(["localhost".to_owned()]).expect("a name");
        params.is_ca = is_ca;
        params.self_signed(&key).expect("parameters are complete").der().clone()
    }

    #[test]
    fn a_leaf_that_webpki_reads_is_left_as_it_is() {
        let der = der(IsCa::ExplicitNoCa);
        assert_eq!(Leaf::of(&der).readable(), &der);
    }

    #[test]
    fn one_that_is_marked_as_a_cas_is_read_without_the_mark_and_with_all_else() {
        let der = der(IsCa::Ca(BasicConstraints::Constrained(0)));
        let leaf = Leaf::of(&der);
        let certificate = Certificate::read(leaf.readable()).expect("a certificate");
        assert!(!certificate.is_authority());
        assert_eq!(certificate.hosts().names, ["localhost"]);
        assert!(EndEntityCert::try_from(leaf.readable()).is_ok());
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let der = der(IsCa::Ca(BasicConstraints::Unconstrained));
        for end in 0..der.len() {
            Leaf::of(&der[..end].into());
        }
        for at in 0..der.len() {
            for byte in [0x00, 0x7f, 0x80, 0x84, 0x85, 0xff] {
                let mut broken = der.to_vec();
                broken[at] = byte;
                Leaf::of(&broken.into());
            }
        }
    }
}
