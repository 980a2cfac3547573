//! Checks that a client's certificate is valid for the address that it comes from (etcd's `checkCertSAN`,
//! `isHostInDNS`).
//!
//! A certificate without alternative names passes. Otherwise, one of three things must hold. One of its addresses is
//! the client's. Or the reverse look-up of the client's address gives one of its names (for `*.`, any name with that
//! suffix). Or the look-up of one of its names gives the address. etcd looks up one after the other, without a limit.
//! Here, all look-ups together have [`PATIENCE`], and [`PLACES`] and [`NAMES`] limit how many are under way at a time.
//! The check comes after the CA has vouched for the certificate, so no look-up is made for a stranger.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use rustls_pki_types::CertificateDer;
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout},
};

use crate::{
    dial::resolver::{LookupError, Resolver},
    tls::{HandshakeError, Hosts, hosts_of},
};

/// How long the look-ups for one connection may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How many connections have names looked up at a time. Others wait for their turn, within their [`PATIENCE`].
const PLACES: usize = 32;
/// How many names of one certificate are looked up. Further names do not count as the client's.
const NAMES: usize = 32;
/// How long a match between names and an address is remembered, because a member opens its connections one after the
/// other.
const KEPT: Duration = Duration::from_secs(10);
/// How many matches are remembered at a time.
const ENTRIES: usize = 256;

/// Checks clients' certificates against their addresses.
pub(super) struct ClientNames {
    resolver: Resolver,
    places: Semaphore,
    known: Mutex<HashMap<(IpAddr, Vec<String>), Instant>>,
}

impl ClientNames {
    pub(super) fn new(resolver: Resolver) -> Self {
        Self { resolver, places: Semaphore::new(PLACES), known: Mutex::default() }
    }

    /// Checks whether a client with this certificate may come from this address.
    pub(super) async fn check(&self, certificate: &CertificateDer<'_>, address: IpAddr) -> Result<(), HandshakeError> {
        let address = address.to_canonical();
        let Hosts { addresses, names } = &hosts_of(certificate);
        if (addresses.is_empty() && names.is_empty()) || addresses.contains(&address) {
            return Ok(());
        }
        let refused = |why: Option<String>| Err(HandshakeError::not_from(certificate, address, why.as_deref()));
        if names.is_empty() {
            return refused(None);
        }
        let key = (address, names.clone());
        if self.is_known(&key) {
            return Ok(());
        }
        match timeout(PATIENCE, self.look_up(address, names)).await {
            Ok(Ok(())) => self.remember(key),
            Ok(Err(error)) => return refused(error.map(|error| error.to_string())),
            Err(_) => return refused(Some(format!("the look-ups took longer than {PATIENCE:?}"))),
        }
        Ok(())
    }

    /// Ends the look-ups.
    pub(super) async fn close(&self) {
        self.resolver.close();
        self.resolver.closed().await;
    }

    /// Fails with the last look-up error, if there was one.
    async fn look_up(&self, address: IpAddr, names: &[String]) -> Result<(), Option<LookupError>> {
        let _place = self.places.acquire().await.map_err(|_| None)?;
        let mut asked = FuturesUnordered::new();
        asked.push(DnsQuestion::Reverse.ask(&self.resolver, address, names));
        for name in names.iter().filter(|name| !name.starts_with("*.")).take(NAMES) {
            asked.push(DnsQuestion::Forward(name).ask(&self.resolver, address, names));
        }
        let mut last = None;
        while let Some(answer) = asked.next().await {
            match answer {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(error) => last = Some(error),
            }
        }
        Err(last)
    }

    fn is_known(&self, key: &(IpAddr, Vec<String>)) -> bool {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(key).is_some_and(|since| since.elapsed() < KEPT)
    }

    fn remember(&self, key: (IpAddr, Vec<String>)) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, since| since.elapsed() < KEPT);
        if known.len() < ENTRIES {
            known.insert(key, Instant::now());
        }
    }
}

/// One look-up.
#[derive(Clone, Copy)]
enum DnsQuestion<'a> {
    /// Reverse: the names of the address.
    Reverse,
    /// Forward: the addresses of this name.
    Forward(&'a str),
}

impl DnsQuestion<'_> {
    /// Asks, and returns whether the answer connects the names with the address.
    async fn ask(self, resolver: &Resolver, address: IpAddr, names: &[String]) -> Result<bool, LookupError> {
        match self {
            Self::Reverse => {
                let found = resolver.names_of(address).await?;
                Ok(found.iter().any(|found| names.iter().any(|name| leads_to(name, found))))
            }
            Self::Forward(name) => loop {
                match resolver.lookup(name).await {
                    Ok(found) => return Ok(found.iter().any(|found| found.to_canonical() == address)),
                    // The look-up goes on, and this caller has more time.
                    Err(LookupError::Timeout { .. }) => {}
                    Err(error) => return Err(error),
                }
            },
        }
    }
}

/// Whether a name of an address matches a name of a certificate: it is equal, or has the suffix of the wildcard.
fn leads_to(name: &str, found: &str) -> bool {
    let found = found.strip_suffix('.').unwrap_or(found).to_ascii_lowercase();
    let name = name.to_ascii_lowercase();
    match name.strip_prefix('*') {
        Some(end) if end.starts_with('.') => found.ends_with(end),
        _ => found == name,
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    fn certificate(names: &[&str]) -> CertificateDer<'static> {
        let params = CertificateParams::new(names.iter().map(ToString::to_string).collect::<Vec<_>>());
        let key = KeyPair::generate().expect("a key");
        params.expect("names").self_signed(&key).expect("parameters are complete").der().clone()
    }

    /// A check that knows these hosts, and no DNS server.
    fn names(hosts: &str) -> (tempfile::TempDir, ClientNames) {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::write(directory.path().join("hosts"), hosts).expect("the directory is ours");
        let resolver = Resolver::with_files(directory.path().join("hosts"), directory.path().join("none"), PATIENCE);
        (directory, ClientNames::new(resolver))
    }

    async fn check(names: &ClientNames, of: &[&str], address: &str) -> Result<(), String> {
        let address = address.parse().expect("an address");
        names.check(&certificate(of), address).await.map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn a_certificate_may_come_from_its_addresses_and_one_without_any_from_everywhere() {
        let (_directory, names) = names("");
        assert_eq!(check(&names, &[], "10.0.0.9").await, Ok(()));
        for address in ["10.0.0.9", "::ffff:10.0.0.9"] {
            assert_eq!(check(&names, &["10.0.0.8", "10.0.0.9"], address).await, Ok(()));
        }
        let refused = check(&names, &["10.0.0.8"], "10.0.0.9").await.expect_err("it is another");
        assert!(refused.contains("10.0.0.8") && refused.contains("connection, 10.0.0.9"), "{refused}");
    }

    #[tokio::test]
    async fn names_are_looked_up_both_ways_and_wildcards_backwards_alone() {
        let (_directory, names) = names("10.0.0.9 n9.peers.test N9\n10.0.0.7 other.test\n");
        for of in [&["n9.peers.test"][..], &["a.test", "n9"], &["*.peers.test"], &["*.PEERS.test"], &["10.1.1.1", "n9"]]
        {
            assert_eq!(check(&names, of, "10.0.0.9").await, Ok(()), "{of:?}");
        }
        for of in [&["*.n9.peers.test"][..], &["peers.test"], &["other.test"], &["*test.peers.test"]] {
            assert!(check(&names, of, "10.0.0.9").await.is_err(), "{of:?}");
        }
    }

    #[tokio::test]
    async fn without_an_answer_it_is_refused_with_the_reason() {
        let (_directory, names) = names("");
        let refused = check(&names, &["n9.test"], "10.0.0.9").await.expect_err("nobody knows it");
        assert!(refused.contains("look-up of"), "{refused}");
    }

    #[tokio::test]
    async fn what_led_to_an_address_is_remembered_for_a_while() {
        let (directory, names) = names("10.0.0.9 n9.test\n");
        assert_eq!(check(&names, &["n9.test"], "10.0.0.9").await, Ok(()));
        std::fs::write(directory.path().join("hosts"), "").expect("the directory is ours");
        assert_eq!(check(&names, &["n9.test"], "10.0.0.9").await, Ok(()));
        assert!(check(&names, &["n9.test"], "10.0.0.8").await.is_err(), "of another address nothing is known");
        tokio::time::pause();
        tokio::time::advance(KEPT).await;
        assert!(check(&names, &["n9.test"], "10.0.0.9").await.is_err());
    }

    #[tokio::test]
    async fn a_server_that_is_silent_costs_a_bounded_time() {
        let silent = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
        let resolver = Resolver::asking(silent.local_addr().expect("bound"));
        let names = ClientNames::new(resolver);
        let many: Vec<String> = (0..100).map(|number| format!("n{number}.test")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let begin = std::time::Instant::now();
        let refused = check(&names, &many, "10.0.0.9").await.expect_err("nobody answers");
        assert!(refused.contains("longer than 5s"), "{refused}");
        assert!(begin.elapsed() < 2 * PATIENCE, "{:?}", begin.elapsed());
        names.close().await;
    }
}
