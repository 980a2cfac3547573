//! Peer URLs, and the choice of the one to dial.

use std::{
    fmt,
    net::IpAddr,
    str::FromStr,
    sync::{Mutex, MutexGuard, PoisonError},
};

mod authority;

use authority::{Authority, Unusable, address_of};

/// The URL of a peer listener: a scheme (`http` or `https`), a host and a port, and nothing else.
///
/// Two texts that etcd takes for the same URL are equal here: the URL is kept as Go writes it, because IDs are hashed
/// over that text.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerUrl {
    text: String,
    tls: bool,
    authority: String,
    host: String,
    port: u16,
}

/// Why a text is not a peer URL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PeerUrlError {
    /// It is no URL.
    #[error("{0:?} is not a URL: expected http://HOST:PORT or https://HOST:PORT")]
    Unparsable(String),
    /// The scheme is neither `http` nor `https`.
    #[error("{0:?}: scheme must be http or https")]
    Scheme(String),
    /// It has no host or no port.
    #[error("{0:?} has no host:port: expected http://HOST:PORT")]
    Port(String),
    /// The host cannot be looked up or dialled.
    #[error("the host of {0:?} cannot be used: {1}")]
    Host(String, &'static str),
    /// Something follows the port, or there are credentials.
    #[error("{0:?} must not have a path, a query, a fragment or credentials")]
    Path(String),
    /// The list has no URL.
    #[error("no URL given")]
    Empty,
}

/// How many of the URLs in a request are looked at. A member has one or two.
const TOLD: usize = 16;
/// The longest URL, as it was given and as it prints, in bytes. A name has at most 253 characters.
const LONGEST: usize = 512;

impl PeerUrl {
    /// Whether the peer speaks TLS there.
    pub fn is_tls(&self) -> bool {
        self.tls
    }

    /// The host: a name in ASCII, or an IP address. An IPv6 address has no brackets and keeps its zone
    /// (`fe80::1%eth0`).
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The address, if the host is not a name. It has no zone, and an IPv4 address that is written as IPv6 is an IPv4
    /// address.
    pub(crate) fn address(&self) -> Option<IpAddr> {
        address_of(&self.host)
    }

    /// Whether the host is an address with a zone, which is valid only on that interface.
    pub(crate) fn has_zone(&self) -> bool {
        self.host.contains('%')
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The URL as Go writes it: the scheme in lower case, the host as it was given, with bytes that are not ASCII
    /// escaped.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// `host:port` for an HTTP `Host` header: no zone, and a name in ASCII.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// The URLs of `X-PeerURLs` that can be dialled, among the first few: a head has room for thousands. A Unix socket
    /// is a legal peer URL in etcd, but is useless from another machine.
    pub(crate) fn told(text: &str) -> Result<Vec<Self>, PeerUrlError> {
        let urls = text.split(',').map(str::trim).filter(|url| !url.is_empty() && !is_socket(url));
        let urls: Vec<Self> = urls.take(TOLD).map(str::parse).collect::<Result<_, _>>()?;
        if urls.is_empty() { Err(PeerUrlError::Empty) } else { Ok(urls) }
    }

    /// Parses a URL to listen on. It is parsed as by [`str::parse`], but port 0 is allowed, which means any free port.
    ///
    /// # Errors
    /// As [`str::parse`].
    pub fn listening(text: &str) -> Result<Self, PeerUrlError> {
        let text = text.trim();
        let own = || text.to_owned();
        // No header can carry these characters, and Go does not accept them in a URL.
        if text.chars().any(|char| char.is_ascii_control() || char == ' ') {
            return Err(PeerUrlError::Unparsable(own()));
        }
        let too_long = || {
            let start: String = text.chars().take(LONGEST).collect();
            PeerUrlError::Host(start, "it is longer than any name")
        };
        if text.len() > LONGEST {
            return Err(too_long());
        }
        if is_socket(text) {
            return Err(PeerUrlError::Scheme(own()));
        }
        let (scheme, rest) = text.split_once("://").ok_or_else(|| PeerUrlError::Unparsable(own()))?;
        let tls = match scheme.to_ascii_lowercase().as_str() {
            "http" => false,
            "https" => true,
            _ => return Err(PeerUrlError::Scheme(own())),
        };
        if rest.contains(['/', '?', '#', '@']) {
            return Err(PeerUrlError::Path(own()));
        }
        let Authority { written, header, host, port } = Authority::read(rest).map_err(|unusable| match unusable {
            Unusable::Missing => PeerUrlError::Port(own()),
            Unusable::Host(why) => PeerUrlError::Host(own(), why),
        })?;
        let scheme = if tls { "https" } else { "http" };
        let url = Self { text: format!("{scheme}://{written}"), tls, authority: header, host, port };
        // Escaped, it may be longer. It is kept and sent like this, and has to be readable then.
        if url.text.len() > LONGEST { Err(too_long()) } else { Ok(url) }
    }

    /// Parses a list of URLs with commas between them, as in `--initial-advertise-peer-urls`.
    pub fn list(text: &str) -> Result<Vec<Self>, PeerUrlError> {
        let urls: Vec<Self> =
            text.split(',').map(str::trim).filter(|url| !url.is_empty()).map(str::parse).collect::<Result<_, _>>()?;
        if urls.is_empty() { Err(PeerUrlError::Empty) } else { Ok(urls) }
    }
}

/// Whether the URL is a Unix socket, which is a legal peer URL in etcd.
fn is_socket(url: &str) -> bool {
    let scheme = url.split_once(':').map_or("", |(scheme, _)| scheme);
    ["unix", "unixs"].iter().any(|socket| scheme.eq_ignore_ascii_case(socket))
}

impl AsRef<str> for PeerUrl {
    fn as_ref(&self) -> &str {
        &self.text
    }
}

impl fmt::Debug for PeerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Display for PeerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for PeerUrl {
    type Err = PeerUrlError;

    /// As etcd's `types.NewURLs`: a scheme, `host:port`, no path. Of the URLs that etcd accepts, this refuses those by
    /// which nobody can be reached: with credentials, a query, a fragment, a Unix socket, a host that is no name, no
    /// port, or port 0.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let url = Self::listening(text)?;
        if url.port == 0 { Err(PeerUrlError::Port(text.trim().to_owned())) } else { Ok(url) }
    }
}

impl serde::Serialize for PeerUrl {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

/// Chooses which of a peer's URLs is dialled: one until it fails, then the next (etcd's `urlPicker`).
pub(crate) struct UrlPicker {
    state: Mutex<Picked>,
}

struct Picked {
    urls: Vec<PeerUrl>,
    picked: usize,
}

impl UrlPicker {
    /// Starts with the first of `urls`, which must not be empty.
    pub(crate) fn new(urls: Vec<PeerUrl>) -> Self {
        Self { state: Mutex::new(Picked { urls, picked: 0 }) }
    }

    fn lock(&self) -> MutexGuard<'_, Picked> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces the URLs; starts with the first.
    pub(crate) fn update(&self, urls: Vec<PeerUrl>) {
        *self.lock() = Picked { urls, picked: 0 };
    }

    /// The URL to dial now.
    pub(crate) fn pick(&self) -> PeerUrl {
        let state = self.lock();
        state.urls[state.picked].clone()
    }

    /// Moves on to the next URL, if `url` is still the current one. So it moves on once when several tasks fail on the
    /// same URL.
    pub(crate) fn unreachable(&self, url: &PeerUrl) {
        let mut state = self.lock();
        if state.urls[state.picked] == *url {
            state.picked = (state.picked + 1) % state.urls.len();
        }
    }

    /// Whether `url` is one of them.
    pub(crate) fn has(&self, url: &PeerUrl) -> bool {
        self.lock().urls.contains(url)
    }

    /// Whether there are no URLs. This is so for a member that is only watched.
    pub(crate) fn is_empty(&self) -> bool {
        self.lock().urls.is_empty()
    }

    /// All URLs.
    pub(crate) fn all(&self) -> Vec<PeerUrl> {
        self.lock().urls.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn urls(text: &str) -> Vec<PeerUrl> {
        PeerUrl::list(text).expect("a list of URLs")
    }

    #[test]
    fn peer_urls_are_what_etcd_takes_for_one() {
        for good in ["http://10.0.0.1:2380", "https://etcd-0.etcd:2380", "http://[::1]:80", "https://localhost:443"] {
            assert_eq!(good.parse::<PeerUrl>().map(|url| url.to_string()), Ok(good.to_owned()));
        }
        for bad in [
            "",
            "10.0.0.1:2380",
            "http://10.0.0.1",
            "http://10.0.0.1:2380/raft",
            "http://10.0.0.1:2380/",
            "ftp://a:1",
            "http://a:x",
            "http://a:70000",
            "http://u@a:1",
            "http://a:1?x",
            "http://:2380",
            "http://a:0",
            "http://a:",
            "http://a:+1",
            "http://a:1#",
            "http://a!:1",
            "http://a%2db:1",
            "http://%ff:1",
            "http://::1:2380",
            "http://[10.0.0.1]:1",
            "http://[::1:1",
            "http://[fe80::1%eth0]:1",
            "http://[fe80::1%25]:1",
            "http://[fe80::1%25a%2fb]:1",
            "http:a:1",
            "unix://m1.sock:0",
        ] {
            assert!(bad.parse::<PeerUrl>().is_err(), "{bad:?}");
        }
        assert!(PeerUrl::listening("http://a:0").is_ok(), "any free port");
    }

    /// The text that Go writes for the URL that it read. IDs are hashed over it.
    #[test]
    fn a_url_is_kept_as_go_writes_it() {
        for (text, written) in [
            ("HTTP://h:1", "http://h:1"),
            ("hTTps://H:1", "https://H:1"),
            ("http://h:080", "http://h:080"),
            ("\u{a0} http://h:1\n", "http://h:1"),
            ("http://[FE80::1%25eth0]:1", "http://[FE80::1%25eth0]:1"),
            ("http://[fe80::1%25%65th%200]:1", "http://[fe80::1%25eth%200]:1"),
            ("http://m\u{fc}:1", "http://m%C3%BC:1"),
            ("http://m%c3%bc:1", "http://m%C3%BC:1"),
            ("http://127.1:1", "http://127.1:1"),
        ] {
            assert_eq!(text.parse::<PeerUrl>().map(|url| url.to_string()), Ok(written.to_owned()), "{text:?}");
        }
    }

    #[test]
    fn a_host_is_what_is_looked_up_or_dialled_and_the_header_has_no_zone() {
        let parts = |text: &str| {
            let url: PeerUrl = text.parse().expect(text);
            (url.host().to_owned(), url.authority().to_owned(), url.address().map(|address| address.to_string()))
        };
        let own = |host: &str, authority: &str, address: Option<&str>| {
            (host.to_owned(), authority.to_owned(), address.map(str::to_owned))
        };
        assert_eq!(parts("http://H:1"), own("H", "H:1", None));
        assert_eq!(parts("http://m\u{fc}:1"), own("xn--m-eha", "xn--m-eha:1", None));
        assert_eq!(parts("http://[fe80::1%25eth0]:1"), own("fe80::1%eth0", "[fe80::1]:1", Some("fe80::1")));
        assert_eq!(
            parts("http://[::ffff:10.0.0.1]:1"),
            own("::ffff:10.0.0.1", "[::ffff:10.0.0.1]:1", Some("10.0.0.1"))
        );
    }

    #[test]
    fn an_ipv6_host_has_no_brackets_and_a_default_port_stays() {
        let url: PeerUrl = "https://[::1]:443".parse().expect("a URL");
        assert_eq!((url.host(), url.port(), url.is_tls(), url.authority()), ("::1", 443, true, "[::1]:443"));
    }

    #[test]
    fn a_socket_among_the_urls_that_a_member_tells_of_is_passed_over() {
        let told = PeerUrl::told("unix://m1.sock:0,http://a:1, unixs://m2:0,https://b:2").expect("two can be dialled");
        assert_eq!(told, urls("http://a:1,https://b:2"));
        assert_eq!(PeerUrl::told("unix://m1.sock:0"), Err(PeerUrlError::Empty));
        assert!(PeerUrl::told("http://a:1,ftp://b:2").is_err());
        assert!(PeerUrl::list("http://a:1,unix://m1.sock:0").is_err(), "a flag's list is our own");
    }

    #[test]
    fn of_thousands_of_urls_that_are_told_the_first_few_are_kept() {
        let told = PeerUrl::told(&vec!["http://a:1"; 5000].join(",")).expect("URLs");
        assert_eq!(told.len(), TOLD);
        assert!(PeerUrl::told(&format!("http://{}:1", "a".repeat(60_000))).is_err());
    }

    #[test]
    fn several_failures_on_one_url_move_on_once() {
        let picker = UrlPicker::new(urls("http://a:1,http://b:2,http://c:3"));
        let first = picker.pick();
        picker.unreachable(&first);
        picker.unreachable(&first);
        assert_eq!(picker.pick().as_str(), "http://b:2");
    }

    #[test]
    fn after_the_last_url_comes_the_first() {
        let picker = UrlPicker::new(urls("http://a:1,http://b:2"));
        for expected in ["http://a:1", "http://b:2", "http://a:1"] {
            assert_eq!(picker.pick().as_str(), expected);
            picker.unreachable(&picker.pick());
        }
    }
}
