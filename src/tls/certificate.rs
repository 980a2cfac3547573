//! The fields of an X.509 certificate that rustls does not expose: DER, which is parsed and never trusted.
//!
//! ```text
//! Certificate    SEQUENCE { tbs, algorithm, signature }
//! tbs            SEQUENCE { [0] version, serial, algorithm, issuer, validity, subject, key, [1], [2], [3] extensions }
//! validity       SEQUENCE { notBefore, notAfter }          UTCTime or GeneralizedTime
//! subject        SEQUENCE OF SET OF SEQUENCE { OID, string }
//! extensions     SEQUENCE OF SEQUENCE { OID, critical BOOLEAN, OCTET STRING }
//! ```

use std::{
    fmt,
    net::IpAddr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use time::{Date, Month, OffsetDateTime, PrimitiveDateTime, Time, format_description::well_known::Rfc3339};

use super::{
    der::{
        BIT_STRING, BOOLEAN, GENERALIZED_TIME, INTEGER, OBJECT_IDENTIFIER, OCTET_STRING, SEQUENCE, SET, UTC_TIME,
        dotted, element, elements, expect,
    },
    key::KeyKind,
};

const VERSION: u8 = 0xa0;
pub(super) const EXTENSIONS: u8 = 0xa3;
/// The two kinds of alternative names that etcd looks at.
const DNS_NAME: u8 = 0x82;
const IP_ADDRESS: u8 = 0x87;

/// 2.5.4.3
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
/// 2.5.29.15
const KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x0f];
/// 2.5.29.17
const ALTERNATIVE_NAMES: &[u8] = &[0x55, 0x1d, 0x11];
/// 2.5.29.19
pub(super) const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 0x13];
/// 2.5.29.32
pub(super) const POLICIES: &[u8] = &[0x55, 0x1d, 0x20];
/// 2.5.29.37
const EXTENDED_KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x25];
/// The bit `keyCertSign`, in the first byte of a key usage.
const SIGNS_CERTIFICATES: u8 = 0x04;

/// 2.5.29.37.0
pub(super) const ANY_USAGE: &[u8] = &[0x55, 0x1d, 0x25, 0x00];
/// 1.3.6.1.5.5.7.3, the prefix of most usages.
const USAGES: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3];
/// The signature algorithms that occur in certificates, named as OpenSSL prints them.
const SIGNATURES: [(&[u8], &str); 9] = [
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 4], "md5WithRSAEncryption"),
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 5], "sha1WithRSAEncryption"),
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 14], "sha224WithRSAEncryption"),
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 10], "rsassaPss of this kind"),
    (&[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 1], "ecdsa-with-SHA1"),
    (&[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 1], "ecdsa-with-SHA224"),
    (&[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 3, 2], "dsa-with-SHA256"),
    (&[0x2b, 0x65, 0x70], "ED25519"),
    (&[0x2b, 0x65, 0x71], "ED448"),
];

/// The longest name of a peer's certificate that is shown, in characters: it may contain anything.
const SHOWN: usize = 64;

/// The purpose that a certificate is presented for. Its extended key usage must allow it, or be absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// It is presented by the dialled side.
    Server,
    /// It is presented by the dialling side.
    Client,
}

impl Purpose {
    pub(super) const ALL: [Self; 2] = [Self::Server, Self::Client];

    /// Its object identifier.
    pub(super) const fn oid(self) -> &'static [u8] {
        match self {
            Self::Server => &[0x2b, 6, 1, 5, 5, 7, 3, 1],
            Self::Client => &[0x2b, 6, 1, 5, 5, 7, 3, 2],
        }
    }

    /// Its name.
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Server => "serverAuth",
            Self::Client => "clientAuth",
        }
    }

    /// Whether a usage in a certificate allows this purpose: the purpose itself, or *any*.
    pub(super) fn is_allowed_by(self, usage: &[u8]) -> bool {
        usage == self.oid() || usage == ANY_USAGE
    }
}

/// The contents of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Certificate<'a> {
    /// The version: 1, 2 or 3.
    pub(crate) version: u8,
    /// The serial number, as the bytes of a DER integer.
    pub(super) serial: &'a [u8],
    /// The issuer's name: the content of a `SEQUENCE`.
    pub(super) issuer: &'a [u8],
    /// The start of its validity.
    pub(crate) not_before: SystemTime,
    /// The end of its validity.
    pub(crate) not_after: SystemTime,
    /// The subject's name: the content of a `SEQUENCE`.
    pub(super) subject: &'a [u8],
    /// The last common name of the subject, as in Go.
    pub(crate) common_name: Option<&'a [u8]>,
    /// The kind of its public key.
    pub(super) key: KeyKind<'a>,
    /// The public key: the content of a `SEQUENCE`.
    pub(super) key_info: &'a [u8],
    /// The signature algorithm: the content of a `SEQUENCE`.
    pub(super) signature: &'a [u8],
    /// Whether its basic constraints say that it is a CA. `None` without basic constraints.
    authority: Option<bool>,
    /// How many intermediate certificates may follow below it.
    pub(super) path_length: Option<usize>,
    /// Whether its key usage allows it to sign certificates. `None` without a key usage.
    may_sign: Option<bool>,
    /// The content of the extended key usage.
    usages: Option<&'a [u8]>,
    /// The content of the subject alternative names.
    names: Option<&'a [u8]>,
}

/// The hosts that a certificate is valid for, by its subject alternative names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Hosts {
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) names: Vec<String>,
}

impl<'a> Certificate<'a> {
    /// Parses a certificate. `None` if it is not one.
    pub(crate) fn read(der: &'a [u8]) -> Option<Self> {
        let (certificate, _) = expect(SEQUENCE, der)?;
        let (tbs, _) = expect(SEQUENCE, certificate)?;
        let (version, rest) = match expect(VERSION, tbs) {
            Some((version, rest)) => (expect(INTEGER, version)?.0.last()?.checked_add(1)?, rest),
            None => (1, tbs),
        };
        let (serial, rest) = expect(INTEGER, rest)?;
        let (signature, rest) = expect(SEQUENCE, rest)?;
        let (issuer, rest) = expect(SEQUENCE, rest)?;
        let (validity, rest) = expect(SEQUENCE, rest)?;
        let (subject, rest) = expect(SEQUENCE, rest)?;
        let (key, rest) = expect(SEQUENCE, rest)?;
        let (tag, not_before, after) = element(validity)?;
        let not_before = read_time(tag, not_before)?;
        let (tag, not_after, _) = element(after)?;
        let constraints = extension(rest, BASIC_CONSTRAINTS).and_then(|value| expect(SEQUENCE, value));
        let constraints = constraints.map(|(fields, _)| fields);
        Some(Self {
            version,
            serial,
            issuer,
            not_before,
            not_after: read_time(tag, not_after)?,
            subject,
            common_name: common_name(subject),
            key: KeyKind::public(key)?,
            key_info: key,
            signature,
            authority: constraints.map(is_authority),
            path_length: constraints.and_then(path_length),
            may_sign: extension(rest, KEY_USAGE).map(signs_certificates),
            usages: extension(rest, EXTENDED_KEY_USAGE).and_then(|value| expect(SEQUENCE, value)).map(|(of, _)| of),
            names: extension(rest, ALTERNATIVE_NAMES),
        })
    }

    /// The hosts that it is valid for.
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

    /// Whether it is a CA's certificate.
    pub(super) fn is_authority(&self) -> bool {
        self.authority == Some(true)
    }

    /// Whether it may sign other certificates, as in Go (`x509.Certificate.CheckSignatureFrom`): version 3 only with
    /// `CA:TRUE`, and never with a key usage that lacks `keyCertSign`.
    pub(super) fn signs_certificates(&self) -> bool {
        let is_authority = self.authority.unwrap_or(self.version < 3);
        is_authority && self.may_sign != Some(false)
    }

    /// Whether its extended key usage allows this purpose. A certificate without that extension allows all.
    pub(super) fn allows(&self, purpose: Purpose) -> bool {
        self.usages.is_none_or(|usages| elements(usages).any(|(_, usage)| purpose.is_allowed_by(usage)))
    }

    /// The names of its extended key usages.
    pub(super) fn usages(&self) -> String {
        let usages: Vec<String> =
            elements(self.usages.unwrap_or_default()).map(|(_, usage)| usage_name(usage)).collect();
        if usages.is_empty() { "none".to_owned() } else { usages.join(", ") }
    }

    /// The issuer's common name.
    pub(super) fn issuer_name(&self) -> String {
        common_name(self.issuer).map_or_else(|| "an issuer without a common name".to_owned(), quoted)
    }

    /// The name of its signature algorithm.
    pub(super) fn signature_name(&self) -> String {
        let oid = expect(OBJECT_IDENTIFIER, self.signature).map_or(&[][..], |(oid, _)| oid);
        let known = SIGNATURES.iter().find(|(known, _)| *known == oid);
        known.map_or_else(|| dotted(oid), |(_, name)| (*name).to_owned())
    }
}

/// Names the certificate by its common name, or else by its alternative names, or else by its serial number. The text
/// is safe to print, whatever a stranger wrote into the certificate.
impl fmt::Display for Certificate<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(name) = self.common_name {
            return write!(f, "of {}", quoted(name));
        }
        let hosts = self.hosts().to_string();
        if hosts.is_empty() {
            let digits = self.serial.iter().take(SHOWN / 2).map(|byte| format!("{byte:02x}"));
            write!(f, "with the serial number {}", digits.collect::<String>())
        } else {
            write!(f, "for {}", quoted(hosts.as_bytes()))
        }
    }
}

impl fmt::Display for Hosts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hosts: Vec<String> =
            self.names.iter().cloned().chain(self.addresses.iter().map(IpAddr::to_string)).collect();
        write!(f, "{}", hosts.join(", "))
    }
}

/// A time as a date.
pub(super) fn date(time: SystemTime) -> String {
    OffsetDateTime::from(time).format(&Rfc3339).unwrap_or_else(|_| "a time that has no date".to_owned())
}

pub(super) fn quoted(name: &[u8]) -> String {
    let text = String::from_utf8_lossy(name);
    let shown: String = text.chars().take(SHOWN).collect();
    if shown.len() < text.len() { format!("{shown:?}…") } else { format!("{shown:?}") }
}

fn usage_name(usage: &[u8]) -> String {
    let name = match usage.strip_prefix(USAGES) {
        Some([1]) => "serverAuth",
        Some([2]) => "clientAuth",
        Some([3]) => "codeSigning",
        Some([4]) => "emailProtection",
        Some([8]) => "timeStamping",
        Some([9]) => "OCSPSigning",
        _ if usage == ANY_USAGE => "any",
        _ => return dotted(&usage[..usage.len().min(SHOWN)]),
    };
    name.to_owned()
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

/// Whether an extension has this object identifier.
pub(super) fn is_extension(extension: &[u8], wanted: &[u8]) -> bool {
    let fields = expect(SEQUENCE, extension).map_or(&[][..], |(fields, _)| fields);
    expect(OBJECT_IDENTIFIER, fields).is_some_and(|(name, _)| name == wanted)
}

/// Whether an implementation that does not know the extension has to refuse the certificate.
pub(super) fn is_critical(extension: &[u8]) -> bool {
    let fields = expect(SEQUENCE, extension).map_or(&[][..], |(fields, _)| fields);
    elements(fields).any(|(tag, value)| tag == BOOLEAN && value != [0])
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let four = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    let address = four.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok();
    // Go's `IP.Equal` treats `::ffff:10.0.0.1` and 10.0.0.1 as equal.
    address.map(|address| address.to_canonical())
}

/// Reads `cA` from the fields of basic constraints.
fn is_authority(fields: &[u8]) -> bool {
    expect(BOOLEAN, fields).is_some_and(|(value, _)| value != [0])
}

fn path_length(fields: &[u8]) -> Option<usize> {
    let (_, length) = elements(fields).find(|(tag, _)| *tag == INTEGER)?;
    length.iter().try_fold(0_usize, |number, byte| number.checked_mul(256)?.checked_add((*byte).into()))
}

fn signs_certificates(key_usage: &[u8]) -> bool {
    // The first byte says how many bits are unused.
    let bits = expect(BIT_STRING, key_usage).and_then(|(bits, _)| bits.get(1).copied());
    bits.is_some_and(|bits| bits & SIGNS_CERTIFICATES != 0)
}

/// Whether an element with this tag is a time.
pub(super) fn is_time(tag: u8) -> bool {
    matches!(tag, UTC_TIME | GENERALIZED_TIME)
}

/// `YYMMDDHHMMSSZ` or `YYYYMMDDHHMMSSZ` (RFC 5280, 4.1.2.5: nothing else is allowed).
pub(super) fn read_time(tag: u8, text: &[u8]) -> Option<SystemTime> {
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
    // A time before 1970 is treated as 1970: it has passed either way.
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
        assert_eq!(certificate.key, KeyKind::Curve("P-256"));
        assert_eq!(certificate.to_string(), "of \"member\"");
        assert!(!certificate.is_authority() && !certificate.signs_certificates());
        assert!(Purpose::ALL.into_iter().all(|purpose| certificate.allows(purpose)));
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
                let told = Certificate::read(&broken).map(|certificate| {
                    let words = [certificate.to_string(), certificate.usages(), certificate.signature_name()];
                    (certificate.hosts(), words)
                });
                drop(told);
            }
        }
    }
}
