//! Host and port of a URL, parsed and written as Go does (`net/url`), because IDs are hashed over the written text.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Host and port of a URL.
pub(super) struct Authority {
    /// The text that Go's `URL.String` writes: bytes that are not ASCII are escaped, the rest stays as it was given.
    pub(super) written: String,
    /// The text for a `Host` header: a name in ASCII, and no zone (Go's `cleanHost`).
    pub(super) header: String,
    /// A name in ASCII, or an address. An IPv6 address has no brackets and keeps its zone: `fe80::1%eth0`.
    pub(super) host: String,
    /// The port; 0 is allowed here.
    pub(super) port: u16,
}

/// Why a text is not `host:port`.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unusable {
    /// The host or the port is missing, or the port is no number up to 65535.
    Missing,
    /// The host cannot be looked up or dialled, for this reason.
    Host(&'static str),
}

const NAME: Unusable = Unusable::Host("a name has only letters, digits, '-', '_' and '.'");
const LITERAL: Unusable = Unusable::Host("expected an IPv6 address between the brackets");
const BRACKETS: Unusable = Unusable::Host("an IPv6 address is written in brackets: [::1]:2380");
const ZONE: Unusable = Unusable::Host("a zone is written after %25: [fe80::1%25eth0]:2380");

impl Authority {
    pub(super) fn read(text: &str) -> Result<Self, Unusable> {
        let (host, port) = text.rsplit_once(':').ok_or(Unusable::Missing)?;
        if host.is_empty() || port.is_empty() || !port.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(Unusable::Missing);
        }
        let number = port.parse().map_err(|_| Unusable::Missing)?;
        let Host { written, header, host } = match host.strip_prefix('[') {
            Some(rest) => Host::literal(rest.strip_suffix(']').ok_or(LITERAL)?)?,
            None if host.contains(':') => return Err(BRACKETS),
            None => Host::name(host)?,
        };
        Ok(Self { written: format!("{written}:{port}"), header: format!("{header}:{port}"), host, port: number })
    }
}

struct Host {
    written: String,
    header: String,
    host: String,
}

impl Host {
    /// Parses the text between brackets: an IPv6 address, and a zone after `%25` (RFC 6874).
    fn literal(text: &str) -> Result<Self, Unusable> {
        let (address, zone) = match text.split_once("%25") {
            Some((address, zone)) => (address, Some(unescape(zone, is_of_zone).ok_or(ZONE)?)),
            None if text.contains('%') => return Err(ZONE),
            None => (text, None),
        };
        if address.parse::<Ipv6Addr>().is_err() {
            return Err(LITERAL);
        }
        let header = format!("[{address}]");
        match zone {
            None => Ok(Self { written: header.clone(), header, host: address.to_owned() }),
            // etcd writes other zones in a form that it cannot parse again.
            Some(zone) if zone.is_empty() || !zone.is_ascii() => Err(ZONE),
            Some(zone) => {
                let written = format!("[{address}%25{}]", escape(&zone));
                Ok(Self { written, header, host: format!("{address}%{zone}") })
            }
        }
    }

    fn name(text: &str) -> Result<Self, Unusable> {
        let name = unescape(text, |byte| !byte.is_ascii()).ok_or(NAME)?;
        let plain = |char: char| !char.is_ascii() || char.is_ascii_alphanumeric() || ['-', '_', '.'].contains(&char);
        if !name.chars().all(plain) {
            return Err(NAME);
        }
        if name.is_ascii() {
            return Ok(Self { written: name.clone(), header: name.clone(), host: name });
        }
        match url::Host::parse(&name) {
            Ok(url::Host::Domain(ascii)) => Ok(Self { written: escape(&name), header: ascii.clone(), host: ascii }),
            _ => Err(Unusable::Host("it is not a valid international domain name")),
        }
    }
}

/// The address, if the host of a URL is not a name. An IPv4 address that is written as IPv6 (`::ffff:10.0.0.1`) is an
/// IPv4 address, as in Go.
pub(super) fn address_of(host: &str) -> Option<IpAddr> {
    let (address, _) = host.split_once('%').unwrap_or((host, ""));
    let address = address.parse::<Ipv6Addr>().map(IpAddr::V6).or_else(|_| host.parse::<Ipv4Addr>().map(IpAddr::V4));
    address.ok().map(|address| address.to_canonical())
}

/// The text with each `%XX` replaced by the byte that it stands for. `None` if an escape is cut short or stands for a
/// byte that must not be escaped (`may_be`), if a byte is not escaped that must be, or if the result is no UTF-8.
fn unescape(text: &str, may_be: fn(u8) -> bool) -> Option<String> {
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'%' {
            if first.is_ascii() && !is_of_host(*first) {
                return None;
            }
            bytes.push(*first);
            continue;
        }
        let (digits, after) = rest.split_at_checked(2)?;
        let digit = |digit: u8| char::from(digit).to_digit(16);
        let byte = u8::try_from(digit(digits[0])? << 4 | digit(digits[1])?).ok()?;
        if !may_be(byte) {
            return None;
        }
        bytes.push(byte);
        rest = after;
    }
    String::from_utf8(bytes).ok()
}

/// The text as Go writes it in a host: the bytes of a name and its punctuation unchanged, all others as `%XX`.
fn escape(text: &str) -> String {
    let mut written = String::with_capacity(text.len());
    for byte in text.bytes() {
        if is_of_host(byte) {
            written.push(char::from(byte));
        } else {
            written.push_str(&format!("%{byte:02X}"));
        }
    }
    written
}

/// Whether Go leaves a byte unchanged in a host: letters, digits, and the punctuation of RFC 3986.
fn is_of_host(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!\"$&'()*+,-.:;<=>[]_~".contains(&byte)
}

/// Whether Go allows a byte to be escaped in a zone: any byte that may also stand there unescaped, `%`, and a space.
fn is_of_zone(byte: u8) -> bool {
    is_of_host(byte) || [b' ', b'%'].contains(&byte)
}
