//! How a collector is reached, and what happens when it is not.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    pin::pin,
    process::Stdio,
    sync::Arc,
    time::{Duration, Instant},
};

use fake_opentelemetry_collector::{ExportedSpan, FakeCollectorServer};
use rustls::{RootCertStore, ServerConfig, crypto::aws_lc_rs, server::WebPkiClientVerifier};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufReader},
    process::{Child, Command},
};

use crate::{
    appends,
    bench::{self, Bench, rafthttp},
    collector::{Collector, behind_tls},
    support::{
        certificates::{Authority, Files, Issued, Leaf},
        program,
    },
    to,
};

const MESSAGES: u64 = 200;

async fn run(environment: Vec<(&'static str, String)>) -> [bench::Side; 2] {
    let sides = Bench { messages: MESSAGES, ratio: "1", environment }.run().await;
    assert!(sides.iter().all(|side| side.status.success()), "{}\n{}", sides[0].log, sides[1].log);
    sides
}

/// The spans that a gRPC collector gets. It holds 64, and then waits until they are taken.
async fn collected(collector: &mut FakeCollectorServer, environment: Vec<(&'static str, String)>) -> Vec<ExportedSpan> {
    let mut running = pin!(run(environment));
    let mut spans = Vec::new();
    loop {
        tokio::select! {
            _ = &mut running => break,
            more = collector.exported_spans(1, Duration::from_secs(1)) => spans.extend(more),
        }
    }
    spans.extend(collector.exported_spans(1, Duration::ZERO).await);
    spans
}

/// A server's configuration that asks for a client's certificate.
fn mutual(issued: &Issued, authority: &str, alpn: &[u8]) -> ServerConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.as_bytes()).expect("a certificate")).expect("a CA");
    let provider = Arc::new(aws_lc_rs::default_provider());
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    let chain = vec![CertificateDer::from_pem_slice(issued.cert.as_bytes()).expect("a certificate")];
    let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).expect("a key");
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("aws-lc-rs has them")
        .with_client_cert_verifier(clients.build().expect("there is a CA"))
        .with_single_cert(chain, key)
        .expect("a pair");
    config.alpn_protocols = vec![alpn.to_vec()];
    config
}

/// The variables for a collector that is verified by `ca.pem` and shown `cert.pem`.
fn secured(files: &Files, address: SocketAddr, protocol: &str) -> Vec<(&'static str, String)> {
    let path = |name| files.path(name).display().to_string();
    vec![
        ("OTEL_EXPORTER_OTLP_ENDPOINT", format!("https://{address}")),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol.to_owned()),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", path("ca.pem")),
        ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", path("cert.pem")),
        ("OTEL_EXPORTER_OTLP_CLIENT_KEY", path("key.pem")),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn by_grpc() {
    let mut collector = FakeCollectorServer::start().await.expect("loopback has a free port");
    let environment = vec![
        ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint()),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc".to_owned()),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "none".to_owned()),
    ];
    let spans = collected(&mut collector, environment).await;
    let sent: BTreeSet<_> = spans.iter().filter(|span| span.name == "raft.send").map(|span| &span.trace_id).collect();
    let received: BTreeSet<_> =
        spans.iter().filter(|span| span.name == "raft.receive").map(|span| &span.trace_id).collect();
    assert!(sent.len() as u64 >= MESSAGES && sent == received, "{} and {}", sent.len(), received.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn by_http_with_the_headers_the_name_and_the_compression_that_the_variables_say() {
    let collector = Collector::start().await;
    let mut environment = to(&collector);
    environment.extend([
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=blue%20one,authorization=Bearer t".to_owned()),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip".to_owned()),
        ("OTEL_SERVICE_NAME", "bench".to_owned()),
    ]);
    run(environment).await;
    let spans = collector.spans();
    assert_eq!(appends(&spans, "raft.receive").len() as u64, MESSAGES);
    assert_eq!(collector.header("x-tenant").as_deref(), Some("blue one"));
    assert_eq!(collector.header("authorization").as_deref(), Some("Bearer t"));
    assert_eq!(collector.header("content-encoding").as_deref(), Some("gzip"));
    assert_eq!(collector.header("content-type").as_deref(), Some("application/x-protobuf"));
    assert_eq!(collector.services(), ["bench"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn by_https_with_certificates_on_both_sides() {
    let authority = Authority::new("ca");
    let issued = authority.issue(Leaf::default());
    let files = Files::new(&issued, &authority.pem);
    let collector = Collector::start().await;
    let (address, _front) = behind_tls(collector.address, mutual(&issued, &authority.pem, b"http/1.1")).await;
    run(secured(&files, address, "http/protobuf")).await;
    assert_eq!(appends(&collector.spans(), "raft.receive").len() as u64, MESSAGES);

    let mut collector = FakeCollectorServer::start().await.expect("loopback has a free port");
    let plain: SocketAddr = collector.endpoint().replace("http://", "").parse().expect("an address");
    let (address, _front) = behind_tls(plain, mutual(&issued, &authority.pem, b"h2")).await;
    let spans = collected(&mut collector, secured(&files, address, "grpc")).await;
    assert!(spans.len() as u64 >= 2 * MESSAGES, "{}", spans.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_not_who_it_should_be_gets_nothing_and_the_log_says_why() {
    let (authority, other) = (Authority::new("ca"), Authority::new("other"));
    let issued = authority.issue(Leaf::default());
    let files = Files::new(&issued, &other.pem);
    let collector = Collector::start().await;
    for (protocol, alpn) in [("http/protobuf", &b"http/1.1"[..]), ("grpc", b"h2")] {
        let (address, _front) = behind_tls(collector.address, mutual(&issued, &authority.pem, alpn)).await;
        for side in run(secured(&files, address, protocol)).await {
            assert!(side.log.contains("spans cannot be exported"), "{protocol}: {}", side.log);
        }
    }
    assert_eq!(collector.requests(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_variable_that_cannot_be_used_is_one_line_and_status_two() {
    let empty = tempfile::NamedTempFile::new().expect("a file");
    let file = empty.path().display().to_string();
    let https = || ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://127.0.0.1:1".to_owned());
    for (environment, words) in [
        (vec![("OTEL_EXPORTER_OTLP_ENDPOINT", "collector".to_owned())], "OTEL_EXPORTER_OTLP_ENDPOINT"),
        (vec![https(), ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/nowhere".to_owned())], "OTEL_EXPORTER_OTLP_CERTIFICATE"),
        (vec![https(), ("OTEL_EXPORTER_OTLP_CERTIFICATE", file)], "no certificate in it"),
        (vec![https(), ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "key".to_owned())], "OTEL_EXPORTER_OTLP_CLIENT_KEY"),
        (vec![("RUST_LOG", "rafthttp=loud".to_owned())], "rafthttp=loud"),
    ] {
        let mut child = rafthttp(&environment).args(["demo", "--for", "1s"]).spawn().expect("the binary was built");
        let mut log = BufReader::new(child.stderr.take().expect("it is piped"));
        let side = bench::end(&mut child, &mut log).await;
        assert_eq!(side.status.code(), Some(2), "{}", side.log);
        assert_eq!(side.log.lines().count(), 1, "{}", side.log);
        assert!(side.log.starts_with("rafthttp: ") && side.log.contains(words), "{}", side.log);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_is_passed_over_is_one_warning() {
    let collector = Collector::start().await;
    let mut environment = to(&collector);
    environment.push(("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json".to_owned()));
    for side in run(environment).await {
        let warnings = side.log.lines().filter(|line| line.contains("OTEL_EXPORTER_OTLP_PROTOCOL")).count();
        assert_eq!(warnings, 1, "{}", side.log);
    }
    assert_eq!(appends(&collector.spans(), "raft.receive").len() as u64, MESSAGES);
}

/// A port that takes connections and never answers.
#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_dead_or_frozen_delays_the_end_by_no_more_than_the_grace_allows() {
    let frozen = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
    let frozen_at = frozen.local_addr().expect("it is bound").to_string();
    for (address, protocol) in
        [("127.0.0.1:1", "grpc"), ("127.0.0.1:1", "http/protobuf"), (&frozen_at, "grpc"), (&frozen_at, "http/protobuf")]
    {
        let environment = vec![
            ("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{address}")),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol.to_owned()),
        ];
        let mut node = Node::start(&environment).await;
        until_metrics(&node.metrics, "a span that waits for the collector, or was given up", |metrics| {
            count(metrics, "rafthttp_trace_spans_waiting") + count(metrics, "rafthttp_trace_spans_dropped_total") > 0
        })
        .await;
        let stopping = Instant::now();
        let side = node.stop().await;
        assert!(side.status.success(), "{address} {protocol}: {}", side.log);
        assert!(stopping.elapsed() < Duration::from_secs(4), "{:?}: {}", stopping.elapsed(), side.log);
        assert!(side.log.contains("could not be exported") || side.log.contains("cannot be exported"), "{}", side.log);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_comes_back_gets_what_is_made_from_then_on() {
    let address = free_port().await;
    let mut node = Node::start(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{address}")),
        ("OTEL_BSP_SCHEDULE_DELAY", "100".to_owned()),
    ])
    .await;
    until_metrics(&node.metrics, "a failed export", |metrics| {
        count(metrics, "rafthttp_trace_export_failures_total") > 0
    })
    .await;
    let collector = Collector::on(&address).await;
    until_metrics(&node.metrics, "an export", |metrics| count(metrics, "rafthttp_trace_spans_exported_total") > 0)
        .await;
    collector.until("a failed probe", |spans| spans.iter().any(|span| span.name == "raft.probe")).await;
    let side = node.stop().await;
    assert!(side.status.success(), "{}", side.log);
    for line in ["spans cannot be exported", "spans are exported again"] {
        assert_eq!(side.log.matches(line).count(), 1, "{line}: {}", side.log);
    }
}

/// A member whose only peer is dead: its probes fail, once a second, and each has a span.
struct Node {
    child: Child,
    metrics: String,
    _directory: TempDir,
}

impl Node {
    async fn start(environment: &[(&'static str, String)]) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let [peers, clients, metrics] = [free_port().await, free_port().await, free_port().await];
        let mut command = rafthttp(environment);
        command.args(["--grace", "4s", "node", "--name", "n1", "--data-dir"]).arg(directory.path().join("n1"));
        command.args(["--initial-advertise-peer-urls", "http://127.0.0.1:1"]);
        command.args(["--listen-peer-urls", &format!("http://{peers}")]);
        command.args(["--listen-client-urls", &format!("http://{clients}")]);
        command.args(["--listen-metrics-urls", &format!("http://{metrics}"), "--trace-ratio", "1"]);
        command.args(["--initial-cluster", "n1=http://127.0.0.1:1,n2=http://127.0.0.1:2"]);
        Self { child: command.spawn().expect("the binary was built"), metrics, _directory: directory }
    }

    /// Stops it in good order.
    async fn stop(&mut self) -> bench::Side {
        let process = self.child.id().expect("it runs").to_string();
        let told =
            Command::new("sh").args(["-c", &format!("kill {process}")]).status().await.expect("there is a shell");
        assert!(told.success());
        let mut log = BufReader::new(self.child.stderr.take().expect("it is piped"));
        bench::end(&mut self.child, &mut log).await
    }
}

/// The value of a series without labels; 0 where it is not there.
fn count(metrics: &str, name: &str) -> u64 {
    let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_collector_takes_them_by_either_protocol() {
    let what = "export to a real collector (rotel)";
    let Some(agent) = tokio::task::block_in_place(|| program(what, "rotel", &[])) else { return };
    let collector = Collector::start().await;
    let ports = [free_port().await, free_port().await];
    let directory = tempfile::tempdir().expect("a directory");
    let mut command = Command::new(agent);
    command.args(["start", "--otlp-grpc-endpoint", &ports[0], "--otlp-http-endpoint", &ports[1]]);
    command.args(["--exporter", "otlp", "--otlp-exporter-protocol", "http", "--otlp-exporter-endpoint"]);
    command.arg(collector.endpoint()).arg("--pid-file").arg(directory.path().join("pid"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let _agent = command.spawn().expect("it was obtained");
    for (port, protocol) in ports.iter().zip(["grpc", "http/protobuf"]) {
        wait_for(port).await;
        let before = collector.spans().len();
        run(vec![
            ("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{port}")),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol.to_owned()),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip".to_owned()),
        ])
        .await;
        let both = |name, spans: &[_]| appends(&spans[before..], name).len() as u64 == MESSAGES;
        collector.until(protocol, |spans| both("raft.send", spans) && both("raft.receive", spans)).await;
    }
}

async fn free_port() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
    listener.local_addr().expect("it is bound").to_string()
}

/// Waits until the metrics of a member are such.
async fn until_metrics(address: &str, what: &str, holds: impl Fn(&str) -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        let mut answer = String::new();
        if let Ok(mut stream) = tokio::net::TcpStream::connect(address).await {
            let request = b"GET /metrics HTTP/1.1\r\nhost: m\r\nconnection: close\r\n\r\n";
            stream.write_all(request).await.expect("it listens");
            let _ = stream.read_to_string(&mut answer).await;
        }
        if holds(&answer) {
            return;
        }
        assert!(Instant::now() < end, "{what}: not within 30 s: {answer}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn wait_for(address: &str) {
    let end = Instant::now() + Duration::from_secs(20);
    while tokio::net::TcpStream::connect(address).await.is_err() {
        assert!(Instant::now() < end, "{address} does not listen");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
