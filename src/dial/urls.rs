//! Peer URLs, and which of them to dial.

use std::{
    fmt,
    str::FromStr,
    sync::{Mutex, MutexGuard, PoisonError},
};

use url::Url;

/// The URL of a peer listener: a scheme (`http` or `https`), a host and a port, nothing more.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerUrl {
    text: String,
    tls: bool,
    host: String,
    port: u16,
}

/// Why a text is not a peer URL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerUrlError {
    /// Not a URL at all.
    #[error("{0:?} is not a URL: expected http://HOST:PORT or https://HOST:PORT")]
    Unparsable(String),
    /// A scheme that peers do not speak.
    #[error("{0:?}: scheme must be http or https")]
    Scheme(String),
    /// No host or no port.
    #[error("{0:?} has no host:port: expected http://HOST:PORT")]
    Port(String),
    /// Something after the port.
    #[error("{0:?} must not have a path, a query or credentials")]
    Path(String),
    /// A list without a URL.
    #[error("no URL given")]
    Empty,
}

impl PeerUrl {
    /// Whether the peer speaks TLS there.
    pub fn is_tls(&self) -> bool {
        self.tls
    }

    /// The host: a name or an IP address (IPv6 without brackets).
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The URL as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// `host:port` as an HTTP `Host` header has it.
    pub fn authority(&self) -> &str {
        self.text.split_once("://").map_or(&self.text, |(_, rest)| rest)
    }

    /// Those of `X-PeerURLs` that can be dialled. A Unix socket is a legal peer URL of etcd's, and of another machine's
    /// no use to us.
    pub(crate) fn told(text: &str) -> Result<Vec<Self>, PeerUrlError> {
        let is_socket = |url: &&str| {
            let scheme = url.split_once("://").map_or("", |(scheme, _)| scheme);
            ["unix", "unixs"].iter().any(|socket| scheme.eq_ignore_ascii_case(socket))
        };
        let urls = text.split(',').map(str::trim).filter(|url| !url.is_empty() && !is_socket(url));
        let urls: Vec<Self> = urls.map(str::parse).collect::<Result<_, _>>()?;
        if urls.is_empty() { Err(PeerUrlError::Empty) } else { Ok(urls) }
    }

    /// Reads a list of URLs with commas between them, as `--initial-advertise-peer-urls` has it.
    pub fn list(text: &str) -> Result<Vec<Self>, PeerUrlError> {
        let urls: Vec<Self> =
            text.split(',').map(str::trim).filter(|url| !url.is_empty()).map(str::parse).collect::<Result<_, _>>()?;
        if urls.is_empty() { Err(PeerUrlError::Empty) } else { Ok(urls) }
    }
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

    /// As etcd's `types.NewURLs`: a scheme, `host:port`, no path.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        let own = || text.to_owned();
        // `Url` drops tabs and line ends within; a header cannot carry them.
        if text.bytes().any(|byte| !byte.is_ascii_graphic()) {
            return Err(PeerUrlError::Unparsable(own()));
        }
        let url = Url::parse(text).map_err(|_| PeerUrlError::Unparsable(own()))?;
        let tls = match url.scheme() {
            "http" => false,
            "https" => true,
            _ => return Err(PeerUrlError::Scheme(own())),
        };
        let host = match url.host() {
            Some(url::Host::Domain(name)) => name.to_owned(),
            Some(url::Host::Ipv4(address)) => address.to_string(),
            Some(url::Host::Ipv6(address)) => address.to_string(),
            None => return Err(PeerUrlError::Port(own())),
        };
        let authority = text.split_once("://").map_or("", |(_, rest)| rest);
        if authority.contains(['/', '?', '#', '@', '\\']) {
            return Err(PeerUrlError::Path(own()));
        }
        // `Url` drops a scheme's default port, etcd wants it written: read it from the text.
        let port = authority.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).filter(|port| *port != 0);
        let port = port.ok_or_else(|| PeerUrlError::Port(own()))?;
        Ok(Self { text: own(), tls, host, port })
    }
}

impl serde::Serialize for PeerUrl {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

/// Which of a peer's URLs is dialled: one until it fails, then the next (etcd's `urlPicker`).
pub(crate) struct UrlPicker {
    state: Mutex<Picked>,
}

struct Picked {
    urls: Vec<PeerUrl>,
    picked: usize,
}

impl UrlPicker {
    /// Starts with the first of `urls`, of which there is at least one.
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

    /// Moves on to the next URL, if `url` is still the one: of several tasks that failed on it, one moves on.
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

    /// Whether there is none: of a member that is only watched.
    pub(crate) fn is_empty(&self) -> bool {
        self.lock().urls.is_empty()
    }

    /// All of them.
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
        ] {
            assert!(bad.parse::<PeerUrl>().is_err(), "{bad:?}");
        }
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
