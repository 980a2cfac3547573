//! The ports for clients and metrics by TLS: as processes, with etcd's flags, and beside etcd.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

mod support;

#[path = "cluster/http_client.rs"]
mod http_client;
#[allow(dead_code, reason = "each test binary uses its part")]
#[path = "cluster/process.rs"]
mod process;

use http::{Method, StatusCode};
use http_client::HttpClient;
use process::{Cluster, rafthttp};
use support::{
    certificates::{Authority, Files, Issued, Leaf},
    ports::{self, free_port},
};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);
/// What Go's server answers to plain HTTP on a port for TLS.
const TOLD: &str = "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";

/// A CA, what it issued for a member, and for a client.
struct Pki {
    authority: Authority,
    member: Files,
    client: Files,
}

impl Pki {
    fn new() -> Self {
        let authority = Authority::new("clients");
        let issue = |name| Files::new(&authority.issue(Leaf { common_name: name, ..Leaf::default() }), &authority.pem);
        let (member, client) = (issue("member"), issue("client"));
        Self { authority, member, client }
    }

    /// Flags of a member: its certificate, and whether clients must show theirs.
    fn flags(&self, auth: bool) -> Vec<String> {
        let file = |flag: &str, name: &str| format!("--{flag}={}", self.member.path(name).display());
        let mut flags = vec![file("cert-file", "cert.pem"), file("key-file", "key.pem")];
        if auth {
            flags.extend([file("trusted-ca-file", "ca.pem"), "--client-cert-auth".to_owned()]);
        }
        flags
    }

    /// What a client trusts; and what it shows, if anything.
    fn connector(&self, shown: Option<&Files>) -> TlsConnector {
        TlsConnector::from(Arc::new(config(&self.authority.pem, shown)))
    }

    /// Flags of `rafthttp member` and of the demo's writer.
    fn client_flags(&self) -> [String; 6] {
        let path = |name: &str| self.client.path(name).display().to_string();
        ["--cacert".into(), path("ca.pem"), "--cert".into(), path("cert.pem"), "--key".into(), path("key.pem")]
    }
}

fn config(authority: &str, shown: Option<&Files>) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.as_bytes()).expect("PEM")).expect("a CA");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.expect("the versions are its own").with_root_certificates(roots);
    match shown {
        None => config.with_no_client_auth(),
        Some(files) => {
            let chain = CertificateDer::pem_file_iter(files.path("cert.pem")).expect("a file");
            let chain = chain.collect::<Result<Vec<_>, _>>().expect("PEM");
            let key = PrivateKeyDer::from_pem_file(files.path("key.pem")).expect("a key");
            config.with_client_auth_cert(chain, key).expect("a pair")
        }
    }
}

/// A process of ours that is killed at the end.
struct Running {
    child: Child,
    log: PathBuf,
    _directory: tempfile::TempDir,
}

impl Running {
    fn start(mut command: Command) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let log = directory.path().join("log");
        command.current_dir(directory.path()).stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(std::fs::File::create(&log).expect("a file"));
        Self { child: command.spawn().expect("it is there"), log, _directory: directory }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A member alone, at these client and metrics URLs.
fn node(client: &str, metrics: &str, flags: &[String]) -> Command {
    let peer = ports::free_url();
    let mut command = rafthttp();
    command.args(["node", "--name", "n1", "--data-dir", "data", "--log-format", "json"]);
    command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
    command.args(["--listen-client-urls", client, "--advertise-client-urls", client]);
    command.args(["--listen-metrics-urls", metrics]).args(flags);
    command
}

fn url(scheme: &str) -> String {
    format!("{scheme}://127.0.0.1:{}", free_port())
}

/// The whole answer to a `GET`, by TLS or in the clear.
async fn get(url: &str, path: &str, tls: Option<&TlsConnector>) -> std::io::Result<String> {
    let authority = url.split_once("://").expect("a URL").1.to_owned();
    let asking = async {
        let mut answer = String::new();
        let request = format!("GET {path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n");
        let mut stream = TcpStream::connect(&authority).await?;
        match tls {
            None => {
                stream.write_all(request.as_bytes()).await?;
                stream.read_to_string(&mut answer).await?;
            }
            Some(tls) => {
                let mut stream = tls.connect("127.0.0.1".try_into().expect("an address"), stream).await?;
                stream.write_all(request.as_bytes()).await?;
                stream.read_to_string(&mut answer).await?;
            }
        }
        Ok(answer)
    };
    timeout(PATIENCE, asking).await.map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))?
}

/// Waits until an answer is as it should be; the last one otherwise.
async fn until(said: impl Fn() -> String, url: &str, path: &str, tls: Option<&TlsConnector>, begins: &str) -> String {
    let end = Instant::now() + PATIENCE;
    loop {
        let answer = get(url, path, tls).await;
        match answer {
            Ok(answer) if answer.starts_with(begins) => return answer,
            other => assert!(Instant::now() < end, "{url}{path}: {other:?}\n{}", said()),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn output(mut command: Command, within: &Path) -> (Output, String) {
    let output = command.current_dir(within).stdin(Stdio::null()).output().expect("the binary was built");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output, said)
}

#[test]
fn an_https_url_without_a_certificate_ends_the_start_in_one_line() {
    let directory = tempfile::tempdir().expect("a directory");
    for (client, metrics, flag) in
        [("https", "http", "--listen-client-urls"), ("http", "https", "--listen-metrics-urls")]
    {
        let (output, said) = output(node(&url(client), &url(metrics), &[]), directory.path());
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(said.contains(flag) && said.contains("--cert-file and --key-file"), "{said}");
    }
}

#[tokio::test]
async fn every_combination_of_clients_metrics_and_client_certificates_serves_as_it_says() {
    let pki = Pki::new();
    // A certificate for servers is enough for a port for clients, and nothing is said against it.
    let usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    pki.member.replace(&pki.authority.issue(Leaf { usages, ..Leaf::default() }));
    let stranger = Authority::new("another");
    let stranger = Files::new(&stranger.issue(Leaf::default()), &pki.authority.pem);
    let (bare, shown, wrong) = (pki.connector(None), pki.connector(Some(&pki.client)), pki.connector(Some(&stranger)));
    for (client, metrics, auth) in [
        ("https", "http", false),
        ("https", "http", true),
        ("http", "https", false),
        ("http", "https", true),
        ("https", "https", false),
        ("https", "https", true),
    ] {
        let (client, metrics) = (url(client), url(metrics));
        let running = Running::start(node(&client, &metrics, &pki.flags(auth)));
        let said = || running.log();
        for (port, path) in [(&client, "/status"), (&metrics, "/metrics"), (&metrics, "/readyz"), (&metrics, "/")] {
            if port.starts_with("http://") {
                until(said, port, path, None, "HTTP/1.1 200").await;
                continue;
            }
            until(said, port, path, Some(&shown), "HTTP/1.1 200").await;
            assert_eq!(get(port, path, None).await.expect("an answer"), TOLD, "{port}{path} {auth}");
            let without = get(port, path, Some(&bare)).await;
            let another = get(port, path, Some(&wrong)).await;
            match auth {
                true => assert!(without.is_err() && another.is_err(), "{port}{path}: {without:?} {another:?}"),
                false => assert!(without.is_ok_and(|answer| answer.starts_with("HTTP/1.1 200")), "{port}{path}"),
            }
        }
        let metrics_text =
            until(said, &metrics, "/metrics", Some(&shown).filter(|_| metrics.starts_with("https")), "HTTP/1.1 200")
                .await;
        assert!(metrics_text.contains("rafthttp_client_tls_certificate_expiry_timestamp_seconds "), "{metrics_text}");
        assert!(metrics_text.contains("rafthttp_client_tls_handshake_failures_total{reason=\"protocol\"}"));
        assert!(!running.log().contains("will refuse this certificate"), "{}", running.log());
        let warned = running.log().contains("the certificate is not used for this URL");
        assert_eq!(warned, client.starts_with("http://"), "as etcd, it says which client URL is in the clear");
    }
}

#[test]
fn what_beside_http_is_ignored_at_etcd_is_ignored_and_told() {
    let flags = ["--cert-file=none", "--key-file=none", "--trusted-ca-file=none", "--client-cert-auth"];
    let flags = flags.map(str::to_owned);
    let mut running = Running::start(node(&url("http"), &url("http"), &flags));
    let end = Instant::now() + PATIENCE;
    while !running.log().contains("\"started\"") {
        assert!(running.child.try_wait().expect("ours").is_none() && Instant::now() < end, "{}", running.log());
        std::thread::sleep(Duration::from_millis(50));
    }
    for warning in ["the certificate is not used for this URL", "no client is asked for a certificate at this URL"] {
        assert!(running.log().contains(warning), "{}", running.log());
    }
}

#[tokio::test]
async fn changed_files_are_taken_without_a_restart_and_broken_ones_leave_the_old() {
    let pki = Pki::new();
    let (client, metrics) = (url("https"), url("https"));
    let running = Running::start(node(&client, &metrics, &pki.flags(true)));
    let shown = pki.connector(Some(&pki.client));
    until(|| running.log(), &client, "/status", Some(&shown), "HTTP/1.1 200").await;

    pki.member.replace(&Issued { cert: "no certificate".to_owned(), key: "no key".to_owned() });
    let failed = r#"rafthttp_client_tls_reloads_total{result="failed"} 1"#;
    let end = Instant::now() + PATIENCE;
    while !get(&metrics, "/metrics", Some(&shown)).await.expect("the old one serves").contains(failed) {
        assert!(Instant::now() < end, "{}", running.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }

    // Another CA altogether: the new certificate of the member, and of the client.
    let next = Pki::new();
    pki.member.write("ca.pem", &next.authority.pem);
    pki.member.replace(&next.authority.issue(Leaf::default()));
    let of_next = next.connector(Some(&next.client));
    for port in [&client, &metrics] {
        until(|| running.log(), port, "/status", Some(&of_next), "HTTP/1.1").await;
        get(port, "/status", Some(&shown)).await.expect_err("the old CA is gone");
    }
    assert!(running.log().contains("TLS files changed and are in use"), "{}", running.log());
}

/// A cluster whose clients' ports are on https and want a certificate.
fn secure(size: usize, pki: &Pki) -> Cluster {
    let flags = pki.flags(true);
    let mut cluster = Cluster::new(size, &flags.iter().map(String::as_str).collect::<Vec<_>>());
    for member in &mut cluster.members {
        member.client = member.client.replace("http://", "https://");
        member.state = "auto";
    }
    cluster.http = HttpClient::with_tls(config(&pki.authority.pem, Some(&pki.client)));
    cluster
}

async fn member(cluster: &Cluster, flags: &[&str], tls: &[String]) -> (Option<i32>, String) {
    let mut command = rafthttp();
    command.args(["member", "--endpoints", &cluster.members[0].client]).args(flags).args(tls);
    let output = tokio::process::Command::from(command).output().await.expect("the binary was built");
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.code(), said)
}

#[tokio::test(flavor = "multi_thread")]
async fn who_lost_its_disk_joins_again_by_https_client_urls_and_member_speaks_to_them() {
    let pki = Pki::new();
    let mut cluster = secure(3, &pki);
    cluster.start_all();
    cluster.put(0, "k", "v").await;

    let tls = pki.client_flags();
    let (code, said) = member(&cluster, &["list"], &tls).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(cluster.members.iter().all(|member| said.contains(&member.client)), "{said}");
    let (code, said) = member(&cluster, &["list"], &[]).await;
    assert!(code == Some(2) && said.contains("--cacert") && said.lines().count() == 1, "{said}");
    let (code, said) = member(&cluster, &["list"], &tls[..2]).await;
    assert!(code == Some(1) && said.contains("expected --cert and --key"), "{said}");
    let skip = [&["--insecure-skip-tls-verify".to_owned()][..], &tls[2..]].concat();
    assert_eq!(member(&cluster, &["list"], &skip).await.0, Some(0));

    // Its first life is told by its client URL, so all must know of it before it ends.
    cluster.caught_up().await;
    cluster
        .until("word of the third", PATIENCE, async |cluster: &Cluster| {
            let (_, body) = cluster.ask(0, Method::GET, "/members", "").await?;
            (body.matches("https://").count() == 3).then_some(())
        })
        .await;
    let before = cluster.status(2).await.expect("it runs")["id"].clone();
    cluster.kill(2);
    std::fs::remove_dir_all(&cluster.members[2].directory).expect("it is there");
    cluster.start(2);
    cluster
        .until("what was written", Duration::from_secs(40), async |cluster: &Cluster| {
            (cluster.local(2, "k").await? == "v").then_some(())
        })
        .await;
    assert_ne!(cluster.status(2).await.expect("it runs")["id"], before, "it never comes back under its old ID");

    // `member shrink` asks the others' client URLs whether they are well.
    cluster
        .until("a vote for it", Duration::from_secs(40), async |cluster: &Cluster| {
            let (status, body) = cluster.ask(0, Method::GET, "/members", "").await?;
            (status == StatusCode::OK && !body.contains("\"isLearner\":true")).then_some(())
        })
        .await;
    let (code, said) = member(&cluster, &["shrink", "n", "--to", "3", "--timeout", "20s"], &tls).await;
    assert!(code == Some(0) && said.contains("n3") && said.contains("removed"), "{said}");
}

#[test]
fn a_demo_runs_by_tls_on_every_port() {
    let (pki, directory) = (Pki::new(), tempfile::tempdir().expect("a directory"));
    for (auth, peers) in [(false, false), (true, true)] {
        let mut command = rafthttp();
        command.args(["demo", "--for", "1s", "--rate", "50"]).args(pki.flags(auth)).args(pki.client_flags());
        if peers {
            for (flag, name) in [("cert", "cert.pem"), ("key", "key.pem"), ("trusted-ca", "ca.pem")] {
                command.arg(format!("--peer-{flag}-file={}", pki.member.path(name).display()));
            }
        }
        let (output, said) = output(command, directory.path());
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.code(), Some(0), "{text}\n{said}");
        assert!(text.contains("the ledger balances on every member"), "{text}");
        assert_eq!(text.lines().filter(|line| line.starts_with("demo-") && line.contains("/metrics")).count(), 3);
        let on_tls = if peers { 9 } else { 6 };
        let rows = text.lines().filter(|line| line.starts_with("demo-") && line.contains("/metrics"));
        assert_eq!(rows.map(|line| line.matches("https://").count()).sum::<usize>(), on_tls, "{text}");
    }
    let mut command = rafthttp();
    command.args(["demo", "--for", "1s"]).args(pki.flags(false));
    let (output, said) = output(command, directory.path());
    assert!(output.status.code() == Some(2) && said.contains("--cacert"), "{said}");
}

#[tokio::test]
async fn a_watch_shows_itself_by_tls_too() {
    let pki = Pki::new();
    let metrics = url("https");
    let mut command = rafthttp();
    command.args(["probe", &ports::free_url(), "--listen-metrics-urls", &metrics]).args(pki.flags(true));
    let running = Running::start(command);
    until(|| running.log(), &metrics, "/livez", Some(&pki.connector(Some(&pki.client))), "HTTP/1.1 200").await;
    assert_eq!(get(&metrics, "/livez", None).await.expect("an answer"), TOLD);
    get(&metrics, "/livez", Some(&pki.connector(None))).await.expect_err("it shows no certificate");
}

/// Which clients a port accepts under the same flags, at etcd and here.
#[tokio::test(flavor = "multi_thread")]
async fn etcd_takes_and_refuses_the_same_clients_under_the_same_flags() {
    let Some(etcd) = support::program("clients by TLS beside etcd", "etcd", &["3.6"]) else { return };
    let pki = Pki::new();
    let other = Authority::new("another");
    let other = Files::new(&other.issue(Leaf::default()), &pki.authority.pem);
    let all = pki.flags(true);
    let (pair, auth) = (&all[..2], [&all[..2], &all[3..]].concat());
    // The last: a certificate is asked for, and only the system's CAs are there to verify it by.
    for flags in [pair, &all[..3], &all[..], &auth] {
        let (ours, theirs) = ([url("https"), url("https")], [url("https"), url("https")]);
        let mut command = node(&ours[0], &ours[1], flags);
        command.env("SSL_CERT_FILE", pki.member.path("ca.pem"));
        let here = Running::start(command);
        let peer = ports::free_url();
        let mut command = Command::new(&etcd);
        command.args(["--name=n1", "--data-dir=data", &format!("--initial-cluster=n1={peer}")]);
        command.args([format!("--listen-peer-urls={peer}"), format!("--initial-advertise-peer-urls={peer}")]);
        command.args([format!("--listen-client-urls={}", theirs[0]), format!("--advertise-client-urls={}", theirs[0])]);
        command.arg(format!("--listen-metrics-urls={}", theirs[1])).args(flags);
        command.env("SSL_CERT_FILE", pki.member.path("ca.pem"));
        let there = Running::start(command);
        let shown = pki.connector(Some(&pki.client));
        for place in 0..2 {
            until(
                || here.log(),
                &ours[place],
                if place == 0 { "/status" } else { "/health" },
                Some(&shown),
                "HTTP/1.1 200",
            )
            .await;
            until(|| there.log(), &theirs[place], "/health", Some(&shown), "HTTP/1.1 200").await;
            for (who, client) in [("no", None), ("another CA's", Some(&other)), ("a good", Some(&pki.client))] {
                let client = pki.connector(client);
                let taken =
                    async |url: &str, path| get(url, path, Some(&client)).await.is_ok_and(|answer| !answer.is_empty());
                let path = if place == 0 { "/status" } else { "/health" };
                let (here, there) = (taken(&ours[place], path).await, taken(&theirs[place], "/health").await);
                assert_eq!(here, there, "{who} certificate, {flags:?}, {}", ours[place]);
            }
        }
    }
}

#[tokio::test]
async fn a_client_whose_certificate_is_revoked_is_refused_and_its_connection_ends() {
    const REVOKED: u64 = 4711;
    let pki = Pki::new();
    let issue =
        |serial| Files::new(&pki.authority.issue(Leaf { serial: Some(serial), ..Leaf::default() }), &pki.authority.pem);
    let (thief, good) = (issue(REVOKED), issue(REVOKED + 1));
    pki.member.write("crl.pem", &pki.authority.revoke(&[], 2190).0);
    let mut flags = pki.flags(true);
    flags.push(format!("--client-crl-file={}", pki.member.path("crl.pem").display()));
    let (client, metrics) = (url("https"), url("https"));
    let running = Running::start(node(&client, &metrics, &flags));
    let (thief, good) = (pki.connector(Some(&thief)), pki.connector(Some(&good)));
    until(|| running.log(), &client, "/status", Some(&thief), "HTTP/1.1 200").await;
    let stream = TcpStream::connect(client.trim_start_matches("https://")).await.expect("it listens");
    let mut open = thief.connect("127.0.0.1".try_into().expect("an address"), stream).await.expect("it is good yet");
    open.write_all(b"GET /status HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("it reads");
    let mut first = [0; 12];
    open.read_exact(&mut first).await.expect("an answer");
    assert_eq!(&first, b"HTTP/1.1 200");

    let revoked = Instant::now();
    pki.member.write("crl.pem", &pki.authority.revoke(&[REVOKED], 2190).0);
    let ended = timeout(PATIENCE, open.read_to_end(&mut Vec::new())).await;
    ended.expect("it ends").ok();
    // By the head's time-out it would have ended, too, after 10 s: asked for nothing, it may idle as long.
    assert!(revoked.elapsed() < Duration::from_secs(6), "{:?}", revoked.elapsed());
    for port in [&client, &metrics] {
        until(|| running.log(), port, "/status", Some(&good), "HTTP/1.1").await;
        get(port, "/status", Some(&thief)).await.expect_err("it is revoked");
    }
}
