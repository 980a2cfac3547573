//! The admin endpoints, asked over a socket.

#[path = "support/scrape.rs"]
mod scrape;

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::{Duration, UNIX_EPOCH},
};

use prometheus::Registry;
use rafthttp::{
    PeerStatus, TransportStatus,
    admin::{self, About, Admin, Check, Health, RaftView, Role},
    id::{ClusterId, MemberId},
    metrics::{Channel, DropReason, Options, RaftStatus, raft_collector},
    telemetry::Events,
    wire::raftpb::MessageType,
};
use scrape::Scrape;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(10);

fn status() -> TransportStatus {
    let mut peer = PeerStatus::default();
    peer.id = MemberId(0x2a);
    peer.name = "n2".to_owned();
    peer.urls = vec!["http://127.0.0.1:2380".parse().expect("a URL")];
    peer.outgoing.offered[MessageType::MsgApp.into()] = 2;
    peer.outgoing.sent[Channel::MsgApp][MessageType::MsgApp.into()] = 1;
    peer.outgoing.dropped.add((MessageType::MsgApp.into(), Channel::MsgApp, DropReason::QueueFull), 1);
    peer.link.last_error = Some((UNIX_EPOCH + Duration::from_millis(1_500), "it \"broke\"".to_owned()));
    let mut status = TransportStatus::default();
    status.local = MemberId(1);
    status.cluster = Some(ClusterId(0x1000));
    status.time = Some(UNIX_EPOCH + Duration::from_secs(12));
    status.started = Some(UNIX_EPOCH);
    status.probe = Some((Duration::from_secs(1), Duration::from_millis(700)));
    status.peers = vec![peer];
    status
}

fn about() -> About {
    let raft = RaftView { role: Role::PreCandidate, term: 7, leader: None, commit: 5, applied: 4 };
    About { name: "n\"1\"".to_owned(), raft: Some(raft) }
}

struct Server {
    address: SocketAddr,
    healthy: Arc<AtomicBool>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Server {
    async fn start() -> Self {
        let registry = Registry::new();
        registry.register(raft_collector(RaftStatus::default)).expect("nothing else is registered");
        let healthy = Arc::new(AtomicBool::new(true));
        let state = healthy.clone();
        let health = move || Health {
            live: vec![Check::ok("loop")],
            ready: vec![
                Check::ok("disk"),
                if state.load(SeqCst) { Check::ok("leader") } else { Check::failed("leader", "RAFT NO LEADER") },
            ],
        };
        let router = admin::router(Admin {
            registry,
            transport: Some(Arc::new(status)),
            events: Some(Events::default()),
            options: Options::default(),
            about: Arc::new(about),
            health: Arc::new(health),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
        let address = listener.local_addr().expect("it is bound");
        let stop = CancellationToken::new();
        let task = tokio::spawn(admin::serve(listener, router, stop.clone()));
        Self { address, healthy, stop, task }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.expect("it listens")
    }

    /// The status, the head and the body of an answer.
    async fn ask(&self, method: &str, path: &str) -> (u16, String, String) {
        self.ask_with(method, path, "").await
    }

    /// The same, with more lines in the request's head.
    async fn ask_with(&self, method: &str, path: &str, more: &str) -> (u16, String, String) {
        let mut stream = self.connect().await;
        let request = format!("{method} {path} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n{more}\r\n");
        stream.write_all(request.as_bytes()).await.expect("it reads");
        let mut answer = String::new();
        timeout(PATIENCE, stream.read_to_string(&mut answer)).await.expect("it answers").expect("it answers in text");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head ends with an empty line");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        let chunked = header(head, "transfer-encoding") == Some("chunked");
        (status, head.to_owned(), if chunked { dechunk(body) } else { body.to_owned() })
    }

    async fn get(&self, path: &str) -> (u16, String) {
        let (status, _, body) = self.ask("GET", path).await;
        (status, body)
    }

    async fn stop(self) {
        self.stop.cancel();
        timeout(PATIENCE, self.task).await.expect("it stops").expect("it does not panic");
    }
}

fn dechunk(mut body: &str) -> String {
    let mut text = String::new();
    loop {
        let (length, rest) = body.split_once("\r\n").expect("a chunk has a length");
        let length = usize::from_str_radix(length, 16).expect("a length is hexadecimal");
        if length == 0 {
            return text;
        }
        text.push_str(&rest[..length]);
        body = &rest[length + 2..];
    }
}

#[tokio::test]
async fn metrics_show_the_registry_and_the_transport() {
    let server = Server::start().await;
    let (status, head, body) = server.ask("GET", "/metrics").await;
    assert_eq!(status, 200);
    let text = header(&head, "content-type").expect("a type");
    assert!(text.starts_with("text/plain; version=0.0.4"), "{head}");
    let scrape = Scrape::parse(&body);
    assert_eq!(scrape.sum("etcd_server_has_leader", &[]), Some(0.0));
    assert_eq!(scrape.sum("rafthttp_messages_offered_total", &[("peer", "2a"), ("type", "MsgApp")]), Some(2.0));
    assert_eq!(scrape.broken_laws(), Vec::<String>::new());
    server.stop().await;
}

#[tokio::test]
async fn metrics_are_open_metrics_where_that_is_asked_for() {
    let server = Server::start().await;
    // What Prometheus 3 asks for.
    let accept = "Accept: application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
                  application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2\r\n";
    let (status, head, body) = server.ask_with("GET", "/metrics", accept).await;
    assert_eq!(status, 200);
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert_eq!((header(&head, "content-type"), header(&head, "vary")), (Some(kind), Some("accept")), "{head}");
    assert!(body.ends_with("\n# EOF\n") && body.matches("# EOF").count() == 1, "{body}");
    assert!(body.contains("# TYPE etcd_server_proposals_applied_total unknown\n"), "of the registry: {body}");
    assert!(body.contains("# TYPE rafthttp_messages_offered counter\n"), "of the transport: {body}");
    let (_, head, text) = server.ask_with("GET", "/metrics", "Accept: text/html, */*;q=0.8\r\n").await;
    let kind = "text/plain; version=0.0.4";
    assert_eq!((header(&head, "content-type"), header(&head, "vary")), (Some(kind), Some("accept")), "{head}");
    assert!(!text.contains("# EOF"), "{text}");
    let samples = |text: &str| -> BTreeSet<String> {
        text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
    };
    assert_eq!(samples(&body), samples(&text));
    server.stop().await;
}

#[tokio::test]
async fn health_is_said_as_etcd_says_it() {
    let server = Server::start().await;
    assert_eq!(server.get("/livez").await, (200, "ok\n".to_owned()));
    assert_eq!(server.get("/livez?verbose").await, (200, "[+]ping ok\n[+]loop ok\nok\n".to_owned()));
    assert_eq!(server.get("/readyz?verbose").await, (200, "[+]ping ok\n[+]disk ok\n[+]leader ok\nok\n".to_owned()));
    assert_eq!(server.get("/health").await, (200, r#"{"health":"true","reason":""}"#.to_owned()));
    server.stop().await;
}

#[tokio::test]
async fn a_failed_check_is_named_and_leaves_the_process_alive() {
    let server = Server::start().await;
    server.healthy.store(false, SeqCst);
    let lines = "[+]ping ok\n[+]disk ok\n[-]leader failed: RAFT NO LEADER\n".to_owned();
    assert_eq!(server.get("/readyz").await, (503, lines));
    assert_eq!(server.get("/readyz/leader").await.0, 503);
    assert_eq!(server.get("/readyz/disk").await, (200, "ok\n".to_owned()));
    assert_eq!(server.get("/readyz/nothing").await.0, 404);
    assert_eq!(server.get("/readyz?exclude=leader").await, (200, "ok\n".to_owned()));
    assert_eq!(server.get("/livez").await, (200, "ok\n".to_owned()));
    assert_eq!(server.get("/health").await, (503, r#"{"health":"false","reason":"RAFT NO LEADER"}"#.to_owned()));
    server.stop().await;
}

#[tokio::test]
async fn peers_are_shown_as_json() {
    let server = Server::start().await;
    let (status, body) = server.get("/api/peers").await;
    assert_eq!(status, 200);
    let document: serde_json::Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(document["local"], "1");
    let peer = &document["peers"][0];
    assert_eq!(peer["id"], "2a");
    assert_eq!(peer["urls"][0], "http://127.0.0.1:2380");
    assert_eq!(peer["reachable"], serde_json::Value::Null);
    assert_eq!(peer["outgoing"]["offered"]["MsgApp"], 2);
    assert_eq!(peer["outgoing"]["dropped"][0]["reason"], "queue_full");
    assert_eq!(peer["outgoing"]["balanced"], true);
    assert_eq!(peer["streams"].as_array().map(Vec::len), Some(4));
    assert_eq!(peer["last_error"], serde_json::json!({"time": "1970-01-01T00:00:01.5Z", "error": "it \"broke\""}));
    server.stop().await;
}

#[tokio::test]
async fn a_member_says_who_it_is() {
    let server = Server::start().await;
    server.healthy.store(false, SeqCst);
    let (_, body) = server.get("/api/peers").await;
    let document: serde_json::Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(document["name"], "n\"1\"");
    assert_eq!(document["cluster"], "1000");
    assert_eq!(document["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(document["started"], "1970-01-01T00:00:00Z");
    assert_eq!(document["time"], "1970-01-01T00:00:12Z");
    assert_eq!(document["probe"], serde_json::json!({"interval_seconds": 1.0, "timeout_seconds": 0.7}));
    let raft = serde_json::json!({"role": "pre_candidate", "term": 7, "leader": null, "commit": 5, "applied": 4});
    assert_eq!(document["raft"], raft);
    let checks = serde_json::json!([
        {"name": "disk", "failure": null}, {"name": "leader", "failure": "RAFT NO LEADER"},
    ]);
    assert_eq!(document["checks"], checks);
    server.stop().await;
}

/// The value of a header in a head.
fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let fields = head.lines().filter_map(|line| line.split_once(": "));
    fields.into_iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

#[tokio::test]
async fn the_page_is_served_with_a_policy_that_lets_nothing_else_run() {
    let server = Server::start().await;
    let (status, head, body) = server.ask("GET", "/").await;
    assert_eq!(status, 200);
    assert_eq!(header(&head, "content-type"), Some("text/html; charset=utf-8"));
    assert!(body.starts_with("<!doctype html>"), "{body}");
    let policy = header(&head, "content-security-policy").expect("a policy");
    assert!(policy.starts_with("default-src 'none';") && policy.contains("script-src 'self';"), "{policy}");
    assert!(
        !policy.contains("unsafe") && !policy.contains('*') && policy.contains("frame-ancestors 'none'"),
        "{policy}"
    );
    assert_eq!(header(&head, "x-content-type-options"), Some("nosniff"));
    assert_eq!(header(&head, "cache-control"), Some("no-cache"));
    for (path, content_type) in [
        ("/page/page.css", "text/css; charset=utf-8"),
        ("/page/page.js", "text/javascript; charset=utf-8"),
        ("/page/icon.svg", "image/svg+xml"),
    ] {
        let (status, head, body) = server.ask("GET", path).await;
        assert_eq!((status, header(&head, "content-type")), (200, Some(content_type)), "{path}");
        assert!(header(&head, "content-security-policy").is_some() && !body.is_empty(), "{path}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_head_is_the_page_without_its_body_and_what_a_browser_has_is_not_sent_again() {
    let server = Server::start().await;
    let (_, got, page) = server.ask("GET", "/").await;
    let (status, head, body) = server.ask("HEAD", "/").await;
    assert_eq!((status, body.as_str()), (200, ""));
    assert_eq!(header(&head, "content-length"), Some(page.len().to_string().as_str()));
    assert_eq!(header(&head, "etag"), header(&got, "etag"));
    let tag = header(&got, "etag").expect("a tag");
    let (status, head, body) = server.ask("GET", &format!("/ HTTP/1.1\r\nIf-None-Match: {tag}\r\nX-Rest:")).await;
    assert_eq!((status, body.as_str(), header(&head, "etag")), (304, "", Some(tag)));
    let (status, ..) = server.ask("GET", "/ HTTP/1.1\r\nIf-None-Match: \"another\"\r\nX-Rest:").await;
    assert_eq!(status, 200);
    server.stop().await;
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    let server = Server::start().await;
    for path in [
        "/index.html",
        "/page",
        "/page/",
        "/page/index.html",
        "/page/../admin.rs",
        "/favicon.ico",
        "/page/%2e%2e/page.rs",
    ] {
        assert_eq!(server.get(path).await.0, 404, "{path}");
    }
    server.stop().await;
}

#[tokio::test]
async fn other_methods_are_refused() {
    let server = Server::start().await;
    for path in ["/", "/page/page.js", "/metrics", "/livez", "/readyz", "/health", "/api/peers"] {
        assert_eq!(server.ask("POST", path).await.0, 405, "{path}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_head_without_end_is_refused() {
    let server = Server::start().await;
    let mut stream = server.connect().await;
    let head = format!("GET /metrics HTTP/1.1\r\nX-Long: {}", "x".repeat(1 << 20));
    // The refusal may come before all of it is written.
    let _ = stream.write_all(head.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("it does not wait for more");
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 431"), "{}", String::from_utf8_lossy(&answer));
    server.stop().await;
}

#[tokio::test]
async fn a_silent_client_does_not_hold_up_the_end() {
    let server = Server::start().await;
    let mut silent = server.connect().await;
    silent.write_all(b"GET /metrics HTTP/1.1\r\nHost: ad").await.expect("it reads");
    assert_eq!(server.get("/livez").await.0, 200);
    server.stop().await;
}
