//! Parses values from the command line and the environment, once, at the edge.

use std::{fmt, str::FromStr, time::Duration};

use bytesize::ByteSize;
use clap::builder::BoolishValueParser;
use rafthttp::PeerUrl;

/// The longest duration of a flag. A clock can be advanced by this much, and by a multiple of it, without overflow.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// Parses a duration with its unit: `250ms`, `10s`, `1h 30m`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|_| "expected a duration such as 250ms, 10s or 5m")?;
    bounded(duration)
}

fn bounded(duration: Duration) -> Result<Duration, String> {
    if duration <= LONGEST { Ok(duration) } else { Err("expected a duration of at most 3650days".to_owned()) }
}

/// Parses a duration as [`duration`] does, or a bare number of milliseconds, as in etcd's flags of the same name.
pub(crate) fn milliseconds(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(number) => bounded(Duration::from_millis(number)),
        Err(_) => match humantime::parse_duration(text) {
            Ok(duration) => bounded(duration),
            Err(_) => Err("expected a duration such as 100ms, or a number of milliseconds".to_owned()),
        },
    }
}

/// Parses a size in bytes: `128`, `64KiB`, `64MiB`.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    match text.parse::<ByteSize>() {
        Ok(size) => Ok(size.as_u64()),
        Err(_) => Err("expected a size such as 128, 64KiB or 64MiB".to_owned()),
    }
}

/// Parses a number of bytes as in etcd's flag, which may be negative, or a size as [`size`] does.
pub(crate) fn quota(text: &str) -> Result<i64, String> {
    let number = text.parse().ok();
    let sized = || size(text).ok().and_then(|size| i64::try_from(size).ok());
    number.or_else(sized).ok_or_else(|| "expected a size such as 2147483648 or 2GiB, 0 or -1".to_owned())
}

/// Parses a ratio from 0 to 1.
pub(crate) fn ratio(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio)).ok_or("expected a number from 0 to 1".to_owned())
}

/// Parses a whole number above zero.
pub(crate) fn positive(text: &str) -> Result<u64, String> {
    text.parse().ok().filter(|number| *number > 0).ok_or("expected a whole number above 0".to_owned())
}

/// Parses a bool: everything that Go accepts (`1`, `t`, `True`, …), and some more words.
pub(crate) fn switch() -> BoolishValueParser {
    BoolishValueParser::new()
}

/// `HOST:PORT` of a listener, or to connect to. Port 0 means any free port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostPort(String);

impl HostPort {
    /// Any free port on loopback.
    pub(crate) fn any_port_on_loopback() -> Self {
        Self("127.0.0.1:0".to_owned())
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The host. An IPv6 address is in brackets.
    pub(crate) fn host(&self) -> &str {
        self.0.rsplit_once(':').map_or(&self.0, |(host, _)| host)
    }
}

impl FromStr for HostPort {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "expected HOST:PORT such as 127.0.0.1:9000";
        let (host, port) = text.rsplit_once(':').ok_or(EXPECTED)?;
        let bracketed = host.starts_with('[') && host.ends_with(']') && host.len() > 2;
        let plain = !host.is_empty() && !host.contains([':', '/', '@', ' ', '[', ']']);
        let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        if (bracketed || plain) && digits && port.parse::<u16>().is_ok() {
            Ok(Self(text.to_owned()))
        } else {
            Err(EXPECTED)
        }
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `http://HOST:PORT` or `https://HOST:PORT` of a listener for clients or metrics, or of a member's client URL. Port 0
/// means any free port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ListenUrl(PeerUrl);

impl ListenUrl {
    /// Whether it is https.
    pub(crate) fn is_tls(&self) -> bool {
        self.0.is_tls()
    }

    pub(crate) fn as_peer_url(&self) -> &PeerUrl {
        &self.0
    }
}

impl FromStr for ListenUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        PeerUrl::listening(text).map(Self).map_err(|error| error.to_string())
    }
}

impl fmt::Display for ListenUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_carry_their_unit() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("1h 30m"), Ok(Duration::from_secs(5400)));
        for bad in ["", "10", "-1s", "1 parsec"] {
            assert!(duration(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_bare_number_is_milliseconds_where_etcd_has_it_so() {
        assert_eq!(milliseconds("100"), Ok(Duration::from_millis(100)));
        assert_eq!(milliseconds("1s"), Ok(Duration::from_secs(1)));
        assert!(milliseconds("soon").is_err());
    }

    #[test]
    fn a_duration_has_a_longest() {
        assert_eq!(duration("3650days"), Ok(LONGEST));
        for read in [duration, milliseconds] {
            for long in ["3651days", "18446744073709551615s"] {
                assert_eq!(read(long), Err("expected a duration of at most 3650days".to_owned()), "{long}");
            }
        }
        assert!(milliseconds("18446744073709551615").is_err());
    }

    #[test]
    fn sizes_are_bytes_unless_they_say_more() {
        assert_eq!(size("128"), Ok(128));
        assert_eq!(size("64MiB"), Ok(64 << 20));
        assert_eq!(size("1.5MiB"), Ok(3 << 19));
        for bad in ["", "-1", "64 bananas"] {
            assert!(size(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_ratio_is_a_share() {
        assert_eq!(ratio("0.001"), Ok(0.001));
        for bad in ["-0.1", "1.01", "NaN", "x"] {
            assert!(ratio(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_host_and_port_is_nothing_more() {
        for good in ["127.0.0.1:9000", "localhost:0", "[::1]:2380"] {
            assert_eq!(good.parse::<HostPort>().map(|address| address.to_string()), Ok(good.to_owned()));
        }
        for bad in ["", "9000", ":9000", "host:", "host:port", "host:70000", "host:+1", "http://host:1", "::1:2380"] {
            assert!(bad.parse::<HostPort>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn client_and_metrics_listeners_are_a_scheme_a_host_and_a_port() {
        for (text, url) in [("http://127.0.0.1:0", "http://127.0.0.1:0"), ("HTTPS://[::1]:1", "https://[::1]:1")] {
            assert_eq!(text.parse::<ListenUrl>().map(|url| url.to_string()), Ok(url.to_owned()));
        }
        for bad in ["127.0.0.1:1", "ftp://127.0.0.1:1", "http://127.0.0.1", "https://127.0.0.1:1/path"] {
            assert!(bad.parse::<ListenUrl>().is_err(), "{bad:?}");
        }
    }
}
