//! Names to addresses. Each look-up is limited in time, and shared by all callers that ask for the same name at the
//! same time.
//!
//! `getaddrinfo` cannot be cancelled, and a thousand dead names would occupy every blocking thread. So this module
//! reads the hosts file itself, and asks the servers of `resolv.conf`, with its search domains and `ndots`.
//!
//! A caller waits briefly. The look-up goes on without the caller, so that the next caller finds a slow server's
//! answer. Otherwise a name whose answer takes longer than any caller waits would never be found.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared, WeakShared},
};
use hickory_resolver::{
    TokioResolver,
    config::{LookupIpStrategy, ResolveHosts, ResolverConfig, ResolverOpts},
    lookup_ip::LookupIp,
    net::{DnsError, NetError, runtime::TokioRuntimeProvider},
    proto::{op::ResponseCode, rr::RData},
};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::world::{Network, World};

/// How long a caller waits, including all search domains and repetitions.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(1);
/// How long to wait for a server before asking again, so that one lost datagram does not fail the look-up.
const QUERY_TIMEOUT: Duration = Duration::from_millis(400);
/// The same once nothing came in that time: the server is slow, rather than the datagram lost (glibc's timeout).
const PATIENT_QUERY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a look-up goes on in total (glibc's two attempts).
const PATIENCE: Duration = Duration::from_secs(10);
/// How long an answer is kept that came after all callers had stopped waiting: a few intervals of a prober.
const LATE_KEPT: Duration = Duration::from_secs(5);

/// When this many look-ups are under way, none is started for strangers.
const MOST_FOR_STRANGERS: usize = 32;

/// Why no name is looked up after the end.
const STOPPED: &str = "this member has stopped";

/// Why a name could not be resolved.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LookupError {
    /// There was no answer within the timeout.
    #[error("look-up of {name} timed out after {after:?}")]
    Timeout {
        /// The name.
        name: Arc<str>,
        /// The timeout.
        after: Duration,
    },
    /// Any other failure: no such name, no server, no `resolv.conf`.
    #[error("look-up of {name} failed: {why}")]
    Failed {
        /// The name.
        name: Arc<str>,
        /// The reason, in one line.
        why: Arc<str>,
    },
}

type LookupResult = Result<Arc<[IpAddr]>, LookupError>;
type Lookup = BoxFuture<'static, LookupResult>;

/// Resolves names. It keeps no answer that came in time.
pub(crate) struct Resolver {
    system: Arc<System>,
    under_way: Arc<Mutex<HashMap<Arc<str>, WeakShared<Lookup>>>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Resolver {
    /// Reads no file before the first look-up.
    pub(crate) fn new(world: &World) -> Self {
        let network = world.network().cloned();
        Self::of(System { network, ..System::of_files("/etc/hosts".into(), "/etc/resolv.conf".into(), LOOKUP_TIMEOUT) })
    }

    /// As [`Self::new`], with other files and another timeout.
    #[cfg(test)]
    pub(crate) fn with_files(hosts: PathBuf, resolv_conf: PathBuf, timeout: Duration) -> Self {
        Self::of(System::of_files(hosts, resolv_conf, timeout))
    }

    fn of(system: System) -> Self {
        let system = Arc::new(system);
        Self { system, under_way: Arc::default(), tasks: TaskTracker::new(), stop: CancellationToken::new() }
    }

    /// The addresses of a name, in the order in which to try them. There is at least one.
    pub(crate) async fn lookup(&self, name: &str) -> LookupResult {
        if let Some(known) = self.system.known(name) {
            return Ok(known);
        }
        let after = self.system.timeout;
        timeout(after, self.join(name)).await.unwrap_or_else(|_| Err(LookupError::Timeout { name: name.into(), after }))
    }

    /// As [`Self::lookup`], for a name that a stranger sent. It is refused while many look-ups are under way, because a
    /// stranger that sends a new name with each request must not make this member hold a look-up for each.
    pub(crate) async fn lookup_for_a_stranger(&self, name: &str) -> LookupResult {
        let under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner).len();
        if under_way >= MOST_FOR_STRANGERS {
            let why = "too many names are being looked up".into();
            return Err(LookupError::Failed { name: name.into(), why });
        }
        self.lookup(name).await
    }

    /// The names of an address, from the hosts file or else from the servers (Go's `LookupAddr`). The caller limits how
    /// long it waits.
    pub(crate) async fn names_of(&self, address: IpAddr) -> Result<Vec<String>, LookupError> {
        let stopped = self.stop.cancelled();
        tokio::select! {
            biased;
            () = stopped => Err(LookupError::Failed { name: address.to_string().into(), why: STOPPED.into() }),
            found = self.system.names_of(address) => found,
        }
    }

    /// Ends the look-ups, closes the connections to the servers, and ends the tasks that wait for their answers. From
    /// then on only the hosts file is used.
    pub(crate) fn close(&self) {
        self.stop.cancel();
        self.tasks.close();
        *self.system.dns.lock().unwrap_or_else(PoisonError::into_inner) = Dns::Closed;
    }

    /// Waits until no look-up is under way. Call [`Self::close`] before.
    pub(crate) async fn closed(&self) {
        self.tasks.wait().await;
    }

    fn join(&self, name: &str) -> Shared<Lookup> {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        // A look-up that asks servers which `resolv.conf` no longer names may wait for them until its patience ends.
        if let Some(lookup) = under_way.get(name).and_then(WeakShared::upgrade)
            && !self.system.asks_others_now()
        {
            return lookup;
        }
        let name: Arc<str> = name.into();
        let (system, entries, key) = (self.system.clone(), self.under_way.clone(), name.clone());
        let begin = Instant::now();
        let lookup = async move {
            let outcome = system.lookup(&key).await;
            if outcome.is_err() || begin.elapsed() < system.timeout {
                // The next caller looks the name up again.
                entries.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
            }
            outcome
        };
        let lookup = lookup.boxed().shared();
        if let Some(weak) = lookup.downgrade() {
            under_way.insert(name.clone(), weak);
        }
        let (kept, entries, patience) = (lookup.clone(), self.under_way.clone(), self.system.timeout);
        let goes_on = async move {
            if kept.clone().await.is_ok() && begin.elapsed() >= patience {
                sleep(LATE_KEPT).await;
                entries.lock().unwrap_or_else(PoisonError::into_inner).remove(&name);
            }
        };
        let stop = self.stop.clone();
        self.tasks.spawn(async move { stop.run_until_cancelled(goes_on).await });
        lookup
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// The machine's sources of names.
struct System {
    hosts: PathBuf,
    resolv_conf: PathBuf,
    timeout: Duration,
    /// Resolves all names in place of files and servers.
    network: Option<Arc<dyn Network>>,
    /// Made for the first name that is not in the hosts file.
    dns: Mutex<Dns>,
}

/// The client of the DNS servers.
#[derive(Default)]
enum Dns {
    #[default]
    NotYet,
    Open(Box<OpenServers>),
    Closed,
}

/// The servers, and the text of `resolv.conf` that names them.
struct OpenServers {
    text: Vec<u8>,
    servers: NameServers,
}

/// The servers of `resolv.conf`, asked in two ways.
#[derive(Clone)]
struct NameServers {
    quick: TokioResolver,
    patient: TokioResolver,
}

impl System {
    fn of_files(hosts: PathBuf, resolv_conf: PathBuf, timeout: Duration) -> Self {
        Self { hosts, resolv_conf, timeout, network: None, dns: Mutex::default() }
    }

    /// The addresses that are known without asking a server.
    fn known(&self, name: &str) -> Option<Arc<[IpAddr]>> {
        if self.network.is_some() {
            return None;
        }
        let known = hosts_file(&self.hosts, name);
        if !known.is_empty() {
            return Some(known.into());
        }
        is_localhost(name).then(|| [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()].into())
    }

    async fn lookup(&self, name: &Arc<str>) -> LookupResult {
        let failed = |why: String| LookupError::Failed { name: name.clone(), why: why.into() };
        let answer = timeout(PATIENCE, self.ask(name)).await;
        let answer = answer.map_err(|_| LookupError::Timeout { name: name.clone(), after: PATIENCE })?;
        let addresses = answer.map_err(failed)?;
        if addresses.is_empty() { Err(failed("the name has no address".to_owned())) } else { Ok(addresses) }
    }

    async fn names_of(&self, address: IpAddr) -> Result<Vec<String>, LookupError> {
        if self.network.is_some() {
            return Ok(Vec::new());
        }
        let known = names_in_hosts_file(&self.hosts, address);
        if !known.is_empty() {
            return Ok(known);
        }
        let failed = |why: String| LookupError::Failed { name: address.to_string().into(), why: why.into() };
        let servers = self.servers().map_err(failed)?;
        servers.names_of(address).await.map_err(|error| failed(words(&error)))
    }

    async fn ask(&self, name: &str) -> Result<Arc<[IpAddr]>, String> {
        if let Some(network) = &self.network {
            self.check_open()?;
            return network.look_up(name).await.map(Into::into);
        }
        let answer = self.servers()?.lookup(name).await;
        answer.map(|addresses| addresses.iter().collect()).map_err(|error| words(&error))
    }

    fn check_open(&self) -> Result<(), String> {
        let dns = self.dns.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*dns, Dns::Closed) { Err(STOPPED.to_owned()) } else { Ok(()) }
    }

    /// The servers that `resolv.conf` names now. It is read each time, like the hosts file, because a new network or a
    /// VPN changes it while the process runs. While it cannot be read or used, the servers that it named last are used.
    fn servers(&self) -> Result<NameServers, String> {
        let mut dns = self.dns.lock().unwrap_or_else(PoisonError::into_inner);
        let at = self.resolv_conf.display();
        let read = std::fs::read(&self.resolv_conf).map_err(|error| format!("{at}: {error}"));
        match (&mut *dns, read) {
            (Dns::Closed, _) => Err(STOPPED.to_owned()),
            (Dns::NotYet, read) => {
                let text = read?;
                let servers = NameServers::of_file(&text).map_err(|error| format!("{at}: {error}"))?;
                *dns = Dns::Open(Box::new(OpenServers { text, servers: servers.clone() }));
                Ok(servers)
            }
            (Dns::Open(open), Ok(text)) if open.text != text => {
                match NameServers::of_file(&text) {
                    Ok(servers) => {
                        tracing::info!(path = %at, "the name servers have changed");
                        open.servers = servers;
                    }
                    Err(error) => {
                        tracing::warn!(path = %at, %error, "cannot be used; the old name servers stay in use");
                    }
                }
                open.text = text;
                Ok(open.servers.clone())
            }
            (Dns::Open(open), _) => Ok(open.servers.clone()),
        }
    }

    /// Whether `resolv.conf` has changed since the servers were read from it.
    fn asks_others_now(&self) -> bool {
        let dns = self.dns.lock().unwrap_or_else(PoisonError::into_inner);
        match &*dns {
            Dns::Open(open) => std::fs::read(&self.resolv_conf).is_ok_and(|text| text != open.text),
            Dns::NotYet | Dns::Closed => false,
        }
    }
}

impl NameServers {
    fn of_file(text: &[u8]) -> Result<Self, String> {
        let parsed = hickory_resolver::system_conf::parse_resolv_conf(text);
        let (config, options) = parsed.map_err(|error| error.to_string())?;
        Self::new(&config, &options).map_err(|error| error.to_string())
    }

    fn new(config: &ResolverConfig, options: &ResolverOpts) -> Result<Self, NetError> {
        let quick = build(config.clone(), options.clone(), QUERY_TIMEOUT, 1)?;
        let patient = build(config.clone(), options.clone(), PATIENT_QUERY_TIMEOUT, 0)?;
        Ok(Self { quick, patient })
    }

    /// The first answer that arrives. It may say that there is no such name.
    async fn lookup(&self, name: &str) -> Result<LookupIp, NetError> {
        let patient = async {
            sleep(QUERY_TIMEOUT).await;
            self.patient.lookup_ip(name).await
        };
        tokio::select! {
            answer = self.ask_again_and_again(name) => answer,
            answer = patient => answer,
        }
    }

    /// The names of an address, from the first answer that arrives.
    async fn names_of(&self, address: IpAddr) -> Result<Vec<String>, NetError> {
        let quick = async {
            loop {
                match timeout(LOOKUP_TIMEOUT, self.quick.reverse_lookup(address)).await {
                    Ok(answer) if !answer.as_ref().is_err_and(is_silence) => return answer,
                    _ => {}
                }
            }
        };
        let patient = async {
            sleep(QUERY_TIMEOUT).await;
            self.patient.reverse_lookup(address).await
        };
        let answer = tokio::select! {
            answer = quick => answer,
            answer = patient => answer,
        }?;
        let names = answer.answers().iter().filter_map(|record| match &record.data {
            RData::PTR(name) => Some(name.to_string()),
            _ => None,
        });
        Ok(names.collect())
    }

    async fn ask_again_and_again(&self, name: &str) -> Result<LookupIp, NetError> {
        loop {
            let begin = Instant::now();
            match timeout(LOOKUP_TIMEOUT, self.quick.lookup_ip(name)).await {
                // A failure that took longer may hide a silent server, whatever it says: with search domains, the
                // answer for the last name hides that there was none for the name before.
                Ok(answer) if answer.is_ok() || begin.elapsed() < QUERY_TIMEOUT => return answer,
                _ => {}
            }
        }
    }
}

/// Whether a look-up failed because nobody answered.
fn is_silence(error: &NetError) -> bool {
    !matches!(error, NetError::Dns(_))
}

fn build(
    config: ResolverConfig,
    options: ResolverOpts,
    timeout: Duration,
    repetitions: usize,
) -> Result<TokioResolver, NetError> {
    let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default()).with_options(options);
    let options = builder.options_mut();
    options.timeout = timeout;
    options.attempts = repetitions;
    options.cache_size = 0;
    options.use_hosts_file = ResolveHosts::Never;
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    // A truncated answer is asked for again by TCP.
    options.try_tcp_on_error = true;
    builder.build()
}

/// RFC 6761, 6.3: `localhost` and the names below it are this machine, whatever a server says.
fn is_localhost(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost")
}

/// The addresses of a name in a hosts file.
fn hosts_file(path: &Path, name: &str) -> Vec<IpAddr> {
    hosts(&text_of_hosts(path), name)
}

/// The names of an address in a hosts file.
fn names_in_hosts_file(path: &Path, address: IpAddr) -> Vec<String> {
    let text = text_of_hosts(path);
    let lines = text.lines().filter_map(|line| {
        let (of, names) = host_line(line)?;
        (of == address).then(|| names.map(str::to_owned).collect::<Vec<_>>())
    });
    lines.flatten().collect()
}

/// The file is read each time, because a container's hosts file changes while it runs.
fn text_of_hosts(path: &Path) -> String {
    match std::fs::read(path) {
        Ok(text) => String::from_utf8_lossy(&text).into_owned(),
        Err(error) => {
            if error.kind() != io::ErrorKind::NotFound {
                tracing::debug!(path = %path.display(), %error, "the hosts file cannot be read");
            }
            String::new()
        }
    }
}

/// The address of a line, and its names.
fn host_line(line: &str) -> Option<(IpAddr, impl Iterator<Item = &str>)> {
    let line = line.split_once('#').map_or(line, |(line, _)| line);
    let mut words = line.split_whitespace();
    let address = words.next()?.parse().ok()?;
    Some((address, words))
}

fn hosts(text: &str, name: &str) -> Vec<IpAddr> {
    let name = name.strip_suffix('.').unwrap_or(name);
    let mut addresses = Vec::new();
    for (address, mut words) in text.lines().filter_map(host_line) {
        if words.any(|word| word.eq_ignore_ascii_case(name)) && !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    addresses
}

/// A server's error, in one line and in words for an operator.
fn words(error: &NetError) -> String {
    let code = match error {
        NetError::Dns(DnsError::NoRecordsFound(none)) => none.response_code,
        NetError::Dns(DnsError::ResponseCode(code)) => *code,
        other => return other.to_string().replace('\n', " "),
    };
    match code {
        ResponseCode::NXDomain => "no such name".to_owned(),
        ResponseCode::NoError => "the name has no address".to_owned(),
        code => format!("the server answered {code}"),
    }
}

#[cfg(test)]
mod tests;
