//! The few fields of an X.509 certificate that rustls does not tell: DER, read and never trusted.
//!
//! ```text
//! Certificate    SEQUENCE { tbs, algorithm, signature }
//! tbs            SEQUENCE { [0] version, serial, algorithm, issuer, validity, subject, key, [1], [2], [3] extensions }
//! validity       SEQUENCE { notBefore, notAfter }          UTCTime or GeneralizedTime
//! subject        SEQUENCE OF SET OF SEQUENCE { OID, string }
//! extensions     SEQUENCE OF SEQUENCE { OID, critical BOOLEAN, OCTET STRING }
//! ```

use std::{
    net::IpAddr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use time::{Date, Month, PrimitiveDateTime, Time};

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OBJECT_IDENTIFIER: u8 = 0x06;
const INTEGER: u8 = 0x02;
const BOOLEAN: u8 = 0x01;
const OCTET_STRING: u8 = 0x04;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const VERSION: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;
/// The two kinds of alternative names that etcd looks at.
const DNS_NAME: u8 = 0x82;
const IP_ADDRESS: u8 = 0x87;

/// 2.5.4.3
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
/// 2.5.29.17
const ALTERNATIVE_NAMES: &[u8] = &[0x55, 0x1d, 0x11];
/// 2.5.29.19
const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 0x13];

/// What Go's TLS takes and rustls does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unsupported {
    /// X.509 version 1 or 2.
    #[error("is X.509 version {0}, and only version 3 is taken")]
    Version(u8),
    /// A leaf with `CA:TRUE`.
    #[error("is marked as a CA's own (CA:TRUE) and is not taken for a member's")]
    Authority,
}

/// What a certificate says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Certificate<'a> {
    /// 1, 2 or 3.
    pub(crate) version: u8,
    /// Until when it is valid.
    pub(crate) not_after: SystemTime,
    /// The last common name of its subject, as Go has it.
    pub(crate) common_name: Option<&'a [u8]>,
    /// Whether it is a CA's.
    pub(crate) is_authority: bool,
    /// The content of its subject alternative names.
    names: Option<&'a [u8]>,
}

/// The hosts that a certificate is for, by its subject alternative names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Hosts {
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) names: Vec<String>,
}

impl<'a> Certificate<'a> {
    /// Reads a certificate; none when it is not one.
    pub(crate) fn read(der: &'a [u8]) -> Option<Self> {
        let (certificate, _) = expect(SEQUENCE, der)?;
        let (tbs, _) = expect(SEQUENCE, certificate)?;
        let (version, rest) = match expect(VERSION, tbs) {
            Some((version, rest)) => (expect(INTEGER, version)?.0.last()?.checked_add(1)?, rest),
            None => (1, tbs),
        };
        let (_serial, rest) = expect(INTEGER, rest)?;
        let (_algorithm, rest) = expect(SEQUENCE, rest)?;
        let (_issuer, rest) = expect(SEQUENCE, rest)?;
        let (validity, rest) = expect(SEQUENCE, rest)?;
        let (subject, rest) = expect(SEQUENCE, rest)?;
        let (_key, rest) = expect(SEQUENCE, rest)?;
        let (_tag, _not_before, after) = element(validity)?;
        let (tag, not_after, _) = element(after)?;
        Some(Self {
            version,
            not_after: read_time(tag, not_after)?,
            common_name: common_name(subject),
            is_authority: extension(rest, BASIC_CONSTRAINTS).is_some_and(is_authority),
            names: extension(rest, ALTERNATIVE_NAMES),
        })
    }

    /// The hosts that it is for.
    pub(crate) fn hosts(&self) -> Hosts {
        let mut hosts = Hosts::default();
        let names = self.names.and_then(|names| expect(SEQUENCE, names)).map_or(&[][..], |(names, _)| names);
        for (tag, name) in elements(names) {
            match tag {
                DNS_NAME => hosts.names.push(String::from_utf8_lossy(name).into_owned()),
                IP_ADDRESS => hosts.addresses.extend(address(name)),
                _ => {}
            }
        }
        hosts
    }

    /// What of it rustls does not take.
    pub(crate) fn unsupported(&self) -> Option<Unsupported> {
        match self {
            Self { version, .. } if *version != 3 => Some(Unsupported::Version(*version)),
            Self { is_authority: true, .. } => Some(Unsupported::Authority),
            _ => None,
        }
    }
}

/// The first element: its tag, its content, and what follows it.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = der.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        short @ 0..=0x7f => (usize::from(*short), rest),
        // No certificate is longer than four bytes of length can say.
        long @ 0x81..=0x84 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(long & 0x7f))?;
            (bytes.iter().try_fold(0_usize, |length, byte| length.checked_mul(256)?.checked_add((*byte).into()))?, rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((*tag, content, rest))
}

fn expect(tag: u8, der: &[u8]) -> Option<(&[u8], &[u8])> {
    element(der).and_then(|(found, content, rest)| (found == tag).then_some((content, rest)))
}

fn elements(mut der: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let (tag, content, rest) = element(der)?;
        der = rest;
        Some((tag, content))
    })
}

fn common_name(subject: &[u8]) -> Option<&[u8]> {
    let sets = elements(subject).filter(|(tag, _)| *tag == SET);
    let attributes = sets.flat_map(|(_, set)| elements(set)).filter(|(tag, _)| *tag == SEQUENCE);
    let named = attributes.filter_map(|(_, attribute)| {
        let (name, value) = expect(OBJECT_IDENTIFIER, attribute)?;
        (name == COMMON_NAME).then(|| element(value).map(|(_, value, _)| value)).flatten()
    });
    named.last()
}

fn extension<'a>(rest: &'a [u8], wanted: &[u8]) -> Option<&'a [u8]> {
    let (_, extensions) = elements(rest).find(|(tag, _)| *tag == EXTENSIONS)?;
    let (extensions, _) = expect(SEQUENCE, extensions)?;
    elements(extensions).find_map(|(_, extension)| {
        let (name, rest) = expect(OBJECT_IDENTIFIER, extension)?;
        let value = || elements(rest).find(|(tag, _)| *tag == OCTET_STRING).map(|(_, value)| value);
        if name == wanted { value() } else { None }
    })
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let four = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    four.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

fn is_authority(basic_constraints: &[u8]) -> bool {
    let authority = expect(SEQUENCE, basic_constraints).and_then(|(fields, _)| expect(BOOLEAN, fields));
    authority.is_some_and(|(value, _)| value != [0])
}

/// `YYMMDDHHMMSSZ` or `YYYYMMDDHHMMSSZ` (RFC 5280, 4.1.2.5: nothing else is allowed).
fn read_time(tag: u8, text: &[u8]) -> Option<SystemTime> {
    let digits = text.strip_suffix(b"Z")?;
    let (year, rest) = match (tag, digits.len()) {
        (UTC_TIME, 12) => {
            let (year, rest) = (number(&digits[..2])?, &digits[2..]);
            (if year < 50 { 2000 + year } else { 1900 + year }, rest)
        }
        (GENERALIZED_TIME, 14) => (number(&digits[..4])?, &digits[4..]),
        _ => return None,
    };
    let part = |at: usize| u8::try_from(number(&rest[at..at + 2])?).ok();
    let month = Month::try_from(part(0)?).ok()?;
    let date = Date::from_calendar_date(i32::try_from(year).ok()?, month, part(2)?).ok()?;
    let time = Time::from_hms(part(4)?, part(6)?, part(8)?).ok()?;
    let seconds = PrimitiveDateTime::new(date, time).assume_utc().unix_timestamp();
    // What ended before 1970 has ended.
    UNIX_EPOCH.checked_add(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
}

fn number(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0, |number, digit| Some(number * 10 + char::from(*digit).to_digit(10)?))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair};

    use super::*;

    fn der() -> Vec<u8> {
        let key = KeyPair::generate().expect("aws-lc-rs makes P-256 keys");
        let names = ["localhost", "10.0.0.9", "::1"].map(str::to_owned);
        let mut params = CertificateParams::new(names).expect("names");
        params.distinguished_name.push(DnType::OrganizationName, "etcd");
        params.distinguished_name.push(DnType::CommonName, "member");
        params.not_after = rcgen::date_time_ymd(2049, 12, 31);
        params.self_signed(&key).expect("parameters are complete").der().to_vec()
    }

    #[test]
    fn its_fields_are_read() {
        let der = der();
        let certificate = Certificate::read(&der).expect("a certificate");
        assert_eq!(certificate.version, 3);
        assert_eq!(certificate.common_name, Some(&b"member"[..]));
        // 2049-12-31T00:00:00Z, the last year of UTCTime.
        assert_eq!(certificate.not_after, UNIX_EPOCH + Duration::from_secs(2_524_521_600));
        assert_eq!(certificate.unsupported(), None);
        let hosts = certificate.hosts();
        assert_eq!(hosts.names, ["localhost"]);
        assert_eq!(hosts.addresses, ["10.0.0.9", "::1"].map(|address| address.parse::<IpAddr>().expect("one")));
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let der = der();
        for end in 0..der.len() {
            assert_eq!(Certificate::read(&der[..end]), None);
        }
        for at in 0..der.len() {
            for byte in [0x00, 0x7f, 0x80, 0x84, 0x85, 0xff] {
                let mut broken = der.clone();
                broken[at] = byte;
                let _ = Certificate::read(&broken).map(|certificate| certificate.hosts());
            }
        }
    }
}
