use std::{
    net::SocketAddr,
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
};

use hickory_resolver::{
    config::{ConnectionConfig, NameServerConfig},
    proto::rr::Name,
};
use tokio::{net::UdpSocket, time::Instant};

use super::*;

fn files(hosts: &str, resolv_conf: Option<&str>) -> (tempfile::TempDir, Resolver) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (hosts_path, conf_path) = (directory.path().join("hosts"), directory.path().join("resolv.conf"));
    std::fs::write(&hosts_path, hosts).expect("the directory is ours");
    if let Some(text) = resolv_conf {
        std::fs::write(&conf_path, text).expect("the directory is ours");
    }
    let resolver = Resolver::with_files(hosts_path, conf_path, LOOKUP_TIMEOUT);
    (directory, resolver)
}

/// A DNS server that knows `known` as 127.0.0.7 and no IPv6, and counts what it is asked for A.
async fn server(known: &'static str) -> (SocketAddr, Arc<AtomicUsize>) {
    slow_server(known, Duration::ZERO).await
}

/// A server that takes `late` for each answer, however many questions it gets at a time.
async fn slow_server(known: &'static str, late: Duration) -> (SocketAddr, Arc<AtomicUsize>) {
    let socket = Arc::new(UdpSocket::bind("127.0.0.1:0").await.expect("a port"));
    let address = socket.local_addr().expect("it is bound");
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    tokio::spawn(async move {
        let mut query = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut query).await {
            let (socket, answer) = (socket.clone(), answer(&query[..length], known, &count));
            tokio::spawn(async move {
                sleep(late).await;
                socket.send_to(&answer, from).await
            });
        }
    });
    (address, asked)
}

fn answer(query: &[u8], known: &str, count: &AtomicUsize) -> Vec<u8> {
    let mut labels = Vec::new();
    let mut at = 12;
    while query[at] != 0 {
        let next = at + 1 + usize::from(query[at]);
        labels.push(String::from_utf8_lossy(&query[at + 1..next]).into_owned());
        at = next;
    }
    let question = &query[12..at + 5];
    let asks_for_a = query[at + 2] == 1;
    count.fetch_add(usize::from(asks_for_a), SeqCst);
    let is_known = labels.join(".") == known;
    let answers = u8::from(is_known && asks_for_a);
    let code = if is_known { 0x80 } else { 0x83 };
    let mut reply = vec![query[0], query[1], 0x81, code, 0, 1, 0, answers, 0, 0, 0, 0];
    reply.extend_from_slice(question);
    if answers == 1 {
        reply.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 1, 0, 0, 4, 127, 0, 0, 7]);
    }
    reply
}

/// A DNS server that calls every address `member.test`.
async fn reverse_server() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    let address = socket.local_addr().expect("it is bound");
    tokio::spawn(async move {
        let mut query = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut query).await {
            let end = 12 + query[12..length].iter().position(|byte| *byte == 0).expect("a name ends") + 5;
            let mut reply = vec![query[0], query[1], 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0];
            reply.extend_from_slice(&query[12..end]);
            reply.extend_from_slice(&[0xc0, 12, 0, 12, 0, 1, 0, 0, 0, 1, 0, 13]);
            reply.extend_from_slice(b"\x06member\x04test\x00");
            socket.send_to(&reply, from).await.expect("it asks");
        }
    });
    address
}

#[tokio::test]
async fn the_names_of_an_address_are_the_hosts_files_or_else_the_servers() {
    let (_files, resolver) = files("127.0.0.3 n1.test n1 # n2\n127.0.0.4 n4\n127.0.0.3 again\n", None);
    let address = |last| IpAddr::from([127, 0, 0, last]);
    assert_eq!(resolver.names_of(address(3)).await, Ok(vec!["n1.test".into(), "n1".into(), "again".into()]));
    assert!(resolver.names_of(address(5)).await.is_err(), "there is no server");
    let resolver = asking(reverse_server().await, &[]);
    // No server is asked about loopback addresses.
    let far = IpAddr::from([10, 0, 0, 5]);
    assert_eq!(resolver.names_of(far).await, Ok(vec!["member.test.".to_owned()]));
    resolver.close();
    assert!(resolver.names_of(far).await.is_err_and(|error| error.to_string().contains("stopped")));
}

impl Resolver {
    /// A resolver that asks the server at this address.
    pub(crate) fn asking(server: SocketAddr) -> Self {
        asking(server, &[])
    }
}

/// A resolver that asks the server at this address, because resolv.conf cannot name a port.
fn asking(server: SocketAddr, search: &[&str]) -> Resolver {
    let mut udp = ConnectionConfig::udp();
    udp.port = server.port();
    let servers = vec![NameServerConfig::new(server.ip(), true, vec![udp])];
    let search = search.iter().map(|name| name.parse::<Name>().expect("a name")).collect();
    let mut options = ResolverOpts::default();
    options.ndots = 5;
    let servers = NameServers::new(&ResolverConfig::from_parts(None, search, servers), &options).expect("a resolver");
    let resolver = Resolver::with_files("/nonexistent".into(), "/nonexistent".into(), Duration::from_millis(500));
    *resolver.system.dns.lock().expect("nobody panicked") =
        Dns::Open(Box::new(OpenServers { text: Vec::new(), servers }));
    resolver
}

#[tokio::test]
async fn a_name_of_the_hosts_file_needs_no_server() {
    let (_files, resolver) = files("# a comment\n127.0.0.3 other N1 # n2\n::1 n1\n", None);
    let addresses = resolver.lookup("n1").await.expect("it is in the file");
    assert_eq!(*addresses, ["127.0.0.3".parse::<IpAddr>().expect("an address"), Ipv6Addr::LOCALHOST.into()]);
    assert!(resolver.lookup("n2").await.is_err());
}

#[tokio::test]
async fn a_change_of_the_hosts_file_is_seen() {
    let (files, resolver) = files("127.0.0.3 n1\n", None);
    resolver.lookup("n1").await.expect("it is in the file");
    std::fs::write(files.path().join("hosts"), "127.0.0.4 n1\n").expect("the directory is ours");
    assert_eq!(
        *resolver.lookup("n1").await.expect("it still is"),
        ["127.0.0.4".parse::<IpAddr>().expect("an address")]
    );
}

#[tokio::test]
async fn a_change_of_resolv_conf_is_seen_and_one_that_cannot_be_used_changes_nothing() {
    let (files, resolver) = files("", Some("nameserver 127.0.0.1\noptions ndots:3\n"));
    let path = files.path().join("resolv.conf");
    let dots = || resolver.system.servers().map(|servers| servers.quick.options().ndots);
    assert_eq!(dots(), Ok(3));
    assert!(!resolver.system.asks_others_now());
    std::fs::write(&path, "nameserver 127.0.0.1\noptions ndots:4\n").expect("the directory is ours");
    assert!(resolver.system.asks_others_now(), "a look-up under way is of the old servers");
    assert_eq!(dots(), Ok(4));
    assert!(!resolver.system.asks_others_now());
    std::fs::write(&path, "nameserver nowhere\n").expect("the directory is ours");
    assert_eq!((dots(), dots()), (Ok(4), Ok(4)));
    std::fs::remove_file(&path).expect("the directory is ours");
    assert_eq!(dots(), Ok(4));
    std::fs::write(&path, "nameserver 127.0.0.1\noptions ndots:5\n").expect("the directory is ours");
    assert_eq!(dots(), Ok(5));
}

/// The server of the first look-up never answers.
#[tokio::test]
async fn who_asks_after_resolv_conf_has_changed_waits_for_no_old_server() {
    let silent = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    let (address, _) = server("n1").await;
    let (old, new) = (asking(silent.local_addr().expect("it is bound"), &[]), asking(address, &[]));
    let open = |resolver: &Resolver| match &*resolver.system.dns.lock().expect("nobody panicked") {
        Dns::Open(open) => open.servers.clone(),
        Dns::NotYet | Dns::Closed => panic!("it asks a server"),
    };
    let (files, resolver) = files("", Some("nameserver 127.0.0.1\n"));
    let path = files.path().join("resolv.conf");
    let text = std::fs::read(&path).expect("it was written");
    let now = |text, servers| {
        *resolver.system.dns.lock().expect("nobody panicked") = Dns::Open(Box::new(OpenServers { text, servers }));
    };
    now(text, open(&old));
    let error = resolver.lookup("n1").await.expect_err("nobody answers");
    assert!(matches!(error, LookupError::Timeout { .. }), "{error}");
    assert!(!resolver.under_way.lock().expect("nobody panicked").is_empty(), "it goes on");
    // The next look-up sees the change. The file cannot name a port, so the servers are put there directly.
    std::fs::write(&path, "nameserver 127.0.0.2\n").expect("the directory is ours");
    let asked = resolver.join("n1");
    now(std::fs::read(&path).expect("it was written"), open(&new));
    assert_eq!(*asked.await.expect("the new server knows it"), [IpAddr::from([127, 0, 0, 7])]);
}

#[tokio::test]
async fn localhost_is_this_machine_without_any_file() {
    let resolver = Resolver::with_files("/nonexistent".into(), "/nonexistent".into(), LOOKUP_TIMEOUT);
    assert_eq!(resolver.lookup("localhost").await.expect("it always is")[0], IpAddr::from(Ipv4Addr::LOCALHOST));
}

#[tokio::test]
async fn a_machine_without_resolv_conf_says_so() {
    let (_files, resolver) = files("", None);
    let error = resolver.lookup("n1").await.expect_err("nobody can be asked").to_string();
    assert!(error.starts_with("look-up of n1 failed") && error.contains("resolv.conf"), "{error}");
}

#[tokio::test]
async fn a_name_is_looked_up_again_each_time() {
    let (address, asked) = server("n1").await;
    let resolver = asking(address, &[]);
    for _ in 0..3 {
        let addresses = resolver.lookup("n1").await.expect("the server knows it");
        assert_eq!(*addresses, ["127.0.0.7".parse::<IpAddr>().expect("an address")]);
    }
    assert_eq!(asked.load(SeqCst), 3);
}

#[tokio::test]
async fn those_who_ask_at_the_same_time_share_a_look_up() {
    let (address, asked) = server("n1").await;
    let resolver = asking(address, &[]);
    let (one, two, three) = tokio::join!(resolver.lookup("n1"), resolver.lookup("n1"), resolver.lookup("n1"));
    assert!(one.is_ok() && two.is_ok() && three.is_ok());
    assert_eq!(asked.load(SeqCst), 1);
    assert!(resolver.under_way.lock().expect("nobody panicked").is_empty());
}

#[tokio::test]
async fn search_domains_are_tried_as_in_a_pod() {
    let (address, _) = server("etcd-0.etcd.default.svc.cluster.local").await;
    let resolver = asking(address, &["default.svc.cluster.local", "svc.cluster.local", "cluster.local"]);
    resolver.lookup("etcd-0.etcd").await.expect("the first search domain has it");
}

#[tokio::test]
async fn a_name_that_is_not_there_fails_in_one_line() {
    let (address, _) = server("n1").await;
    let error = asking(address, &[]).lookup("n2").await.expect_err("the server does not know it");
    assert_eq!(error.to_string(), "look-up of n2 failed: no such name");
}

#[tokio::test]
async fn a_stranger_has_no_name_looked_up_while_many_are() {
    let silent = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    let resolver = asking(silent.local_addr().expect("it is bound"), &[]);
    let names: Vec<String> = (0..MOST_FOR_STRANGERS).map(|number| format!("n{number}.test")).collect();
    // The callers give up, and the look-ups go on.
    let asked = futures_util::future::join_all(names.iter().map(|name| resolver.lookup_for_a_stranger(name))).await;
    assert!(asked.iter().all(|outcome| matches!(outcome, Err(LookupError::Timeout { .. }))), "{asked:?}");
    let begin = Instant::now();
    let error = resolver.lookup_for_a_stranger("one.more").await.expect_err("there are enough");
    assert!(error.to_string().contains("too many names are being looked up"), "{error}");
    assert!(begin.elapsed() < Duration::from_millis(100), "{:?}", begin.elapsed());
    resolver.close();
    resolver.closed().await;
}

#[tokio::test]
async fn a_server_that_is_silent_costs_the_time_out_and_no_more() {
    let silent = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    let resolver = asking(silent.local_addr().expect("it is bound"), &["a", "b", "c"]);
    let begin = Instant::now();
    let error = resolver.lookup("n1").await.expect_err("nobody answers");
    assert!(matches!(error, LookupError::Timeout { .. }), "{error}");
    assert!(begin.elapsed() < Duration::from_millis(900), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn a_server_that_is_slower_than_anybody_waits_answers_who_asks_next() {
    let suffix = ["a", "b"];
    let (address, asked) = slow_server("n1.a", Duration::from_millis(900)).await;
    let resolver = asking(address, &suffix);
    let error = resolver.lookup("n1").await.expect_err("nobody waits so long");
    assert!(matches!(error, LookupError::Timeout { .. }), "{error}");
    let found = async {
        loop {
            match resolver.lookup("n1").await {
                Ok(addresses) => return addresses,
                Err(error) => assert!(matches!(error, LookupError::Timeout { .. }), "{error}"),
            }
        }
    };
    let addresses = timeout(Duration::from_secs(20), found).await.expect("the look-up goes on");
    assert_eq!(*addresses, ["127.0.0.7".parse::<IpAddr>().expect("an address")]);
    let questions = asked.load(SeqCst);
    resolver.lookup("n1").await.expect("it is kept a little");
    assert_eq!(asked.load(SeqCst), questions);
}

#[tokio::test]
async fn who_gives_up_does_not_end_a_look_up_and_it_ends_by_itself() {
    let (address, asked) = slow_server("n1", Duration::from_millis(100)).await;
    let resolver = asking(address, &[]);
    for _ in 0..3 {
        let given_up = tokio::time::timeout(Duration::from_millis(5), resolver.lookup("n1")).await;
        assert!(given_up.is_err());
    }
    let ended = async {
        while !resolver.under_way.lock().expect("nobody panicked").is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), ended).await.expect("the look-up ended");
    assert_eq!(asked.load(SeqCst), 1);
}

#[tokio::test]
async fn a_resolver_that_is_closed_asks_no_server_again() {
    let (_directory, resolver) = files("10.0.0.1 known", Some("nameserver 127.0.0.1"));
    resolver.close();
    let error = resolver.lookup("unknown").await.expect_err("it is closed").to_string();
    assert!(error.contains("stopped"), "{error}");
    resolver.lookup("known").await.expect("the hosts file is still read");
    assert!(matches!(*resolver.system.dns.lock().expect("nobody panicked"), Dns::Closed));
}

#[tokio::test]
async fn a_resolver_that_is_closed_leaves_no_task() {
    let silent = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    let resolver = asking(silent.local_addr().expect("it is bound"), &[]);
    resolver.lookup("n1").await.expect_err("nobody answers");
    resolver.close();
    resolver.closed().await;
    let ended = async {
        while tokio::runtime::Handle::current().metrics().num_alive_tasks() > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(1), ended).await.expect("every task ended");
}
