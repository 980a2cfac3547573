//! Certificate revocation lists: DER, or PEM with any number of them in one file.
//!
//! ```text
//! CertificateList  SEQUENCE { tbs, algorithm, signature }
//! tbs              SEQUENCE { version, algorithm, issuer, thisUpdate, nextUpdate OPTIONAL, revoked OPTIONAL, [0] }
//! revoked          SEQUENCE OF SEQUENCE { serial, date, extensions OPTIONAL }
//! ```
//!
//! As in etcd (`checkCRL` in its `listener_tls.go`), a serial number is revoked whichever CA issued the certificate,
//! the signature of the list is not checked, and a certificate that is on no list passes.

use std::{collections::HashSet, time::SystemTime};

use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, pem::PemObject};

use super::{
    certificate::{Certificate, is_time, read_time},
    der::{BIT_STRING, INTEGER, SEQUENCE, element, expect},
};

/// The start of a PEM block.
const PEM: &[u8] = b"-----BEGIN ";

/// The serial numbers of the revoked certificates.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct RevocationList {
    serials: HashSet<Box<[u8]>>,
    /// When the first of the lists has to be replaced by a newer one. `None` if the lists do not say.
    pub(super) next_update: Option<SystemTime>,
}

impl RevocationList {
    /// Parses the content of a file. `None` if it is not a revocation list.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        if !bytes.windows(PEM.len()).any(|window| window == PEM) {
            return Self::of([bytes]);
        }
        let lists: Vec<_> = CertificateRevocationListDer::pem_slice_iter(bytes).collect::<Result<_, _>>().ok()?;
        if lists.is_empty() { None } else { Self::of(lists.iter().map(AsRef::as_ref)) }
    }

    /// Merges these lists. `None` if one of them cannot be parsed.
    fn of<'a>(lists: impl IntoIterator<Item = &'a [u8]>) -> Option<Self> {
        let mut all = Self::default();
        for list in lists {
            let next = all.add(list)?;
            all.next_update = [all.next_update, next].into_iter().flatten().min();
        }
        Some(all)
    }

    /// Adds the serial numbers of a list, and returns its `nextUpdate`.
    fn add(&mut self, der: &[u8]) -> Option<Option<SystemTime>> {
        let (list, after) = expect(SEQUENCE, der)?;
        let (tbs, rest) = expect(SEQUENCE, list)?;
        let (_algorithm, rest) = expect(SEQUENCE, rest)?;
        expect(BIT_STRING, rest).filter(|(_, rest)| rest.is_empty() && after.is_empty())?;
        // Version 1 has no version field. Go accepts version 2 alone, so nobody makes version 1.
        let (_version, rest) = expect(INTEGER, tbs)?;
        let (_algorithm, rest) = expect(SEQUENCE, rest)?;
        let (_issuer, rest) = expect(SEQUENCE, rest)?;
        let (tag, this_update, rest) = element(rest)?;
        read_time(tag, this_update)?;
        let (next_update, rest) = match element(rest) {
            Some((tag, time, rest)) if is_time(tag) => (Some(read_time(tag, time)?), rest),
            _ => (None, rest),
        };
        let mut revoked = expect(SEQUENCE, rest).map_or(&[][..], |(revoked, _)| revoked);
        while !revoked.is_empty() {
            let (entry, rest) = expect(SEQUENCE, revoked)?;
            let (serial, _) = expect(INTEGER, entry)?;
            self.serials.insert(number(serial).into());
            revoked = rest;
        }
        Some(next_update)
    }

    /// The first revoked certificate of a chain.
    pub(super) fn find<'a, 'b>(
        &self,
        chain: impl IntoIterator<Item = &'a CertificateDer<'b>>,
    ) -> Option<&'a CertificateDer<'b>>
    where
        'b: 'a,
    {
        let is_revoked = |der: &CertificateDer<'_>| {
            Certificate::read(der).is_some_and(|certificate| self.serials.contains(number(certificate.serial)))
        };
        chain.into_iter().find(|certificate| is_revoked(certificate))
    }
}

/// The integer without the leading zero that only keeps it positive.
fn number(integer: &[u8]) -> &[u8] {
    let zeros = integer.iter().take_while(|byte| **byte == 0).count();
    &integer[zeros..]
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use rcgen::{
        BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, IsCa, KeyIdMethod,
        KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber,
    };

    use super::*;

    fn authority() -> CertifiedIssuer<'static, KeyPair> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a certificate")
    }

    fn list(issuer: &CertifiedIssuer<'static, KeyPair>, serials: &[&[u8]], next: i32) -> Vec<u8> {
        let revoked = |serial: &&[u8]| RevokedCertParams {
            serial_number: SerialNumber::from_slice(serial),
            revocation_time: rcgen::date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: rcgen::date_time_ymd(2024, 1, 1),
            next_update: rcgen::date_time_ymd(next, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(issuer).expect("parameters are complete").der().to_vec()
    }

    fn leaf(issuer: &CertifiedIssuer<'static, KeyPair>, serial: &[u8]) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.serial_number = Some(SerialNumber::from_slice(serial));
        let key = KeyPair::generate().expect("a key");
        params.signed_by(&key, issuer).expect("parameters are complete").der().clone()
    }

    #[test]
    fn serials_of_the_whole_chain_are_looked_up_whoever_issued_them() {
        let (ours, other) = (authority(), authority());
        let revoked = RevocationList::of([&list(&ours, &[&[0x90, 1], &[7]], 2030)[..]]).expect("a list");
        let good = leaf(&ours, &[0x90, 2]);
        for serial in [&[0x90, 1][..], &[7]] {
            let bad = leaf(&other, serial);
            assert_eq!(revoked.find([&good, &bad]), Some(&bad));
        }
        assert_eq!(revoked.find([&good]), None);
    }

    #[test]
    fn several_lists_are_one_and_the_first_end_counts() {
        let (one, two) = (authority(), authority());
        let (one, two) = (list(&one, &[&[1]], 2031), list(&two, &[], 2030));
        let all = RevocationList::of([&one[..], &two[..]]).expect("lists");
        // 2030-01-01T00:00:00Z
        assert_eq!(all.next_update, Some(UNIX_EPOCH + Duration::from_secs(1_893_456_000)));
        assert_eq!(all.serials.len(), 1);
    }

    #[test]
    fn what_is_cut_or_longer_or_something_else_is_no_list() {
        let issuer = authority();
        let mut whole = list(&issuer, &[&[1]], 2030);
        for end in 0..whole.len() {
            assert_eq!(RevocationList::of([&whole[..end]]), None, "{end}");
        }
        assert_eq!(RevocationList::of([issuer.der().as_ref()]), None);
        for at in 0..whole.len() {
            let mut broken = whole.clone();
            broken[at] ^= 0xff;
            let _ = RevocationList::of([&broken[..]]);
        }
        whole.push(0);
        assert_eq!(RevocationList::of([&whole[..]]), None);
    }
}
