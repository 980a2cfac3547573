use std::{
    convert::Infallible,
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
};

use http::{Response, StatusCode};
use hyper::{body::Incoming, service::service_fn};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::*;
use crate::{
    dial::{io::ConnectionEnd, post::ANSWER_TEXT},
    id::{ClusterId, MemberId},
    ledger::ProbeResult,
    tls::{HANDSHAKE_TIMEOUT, HandshakeReason, TlsConfig},
    wire::version::Version,
};

use certificates::{Authority, Files, Leaf};

#[path = "../../../tests/support/certificates.rs"]
mod certificates;

const DIAL_TIMEOUT: Duration = Duration::from_secs(1);

fn identity() -> Arc<Identity> {
    let urls = vec!["http://10.0.0.1:2380".parse().expect("a URL"), "http://10.0.0.2:2380".parse().expect("a URL")];
    let (member, cluster) = (MemberId(0xa), ClusterId(0x1000));
    Arc::new(Identity { member, cluster, urls, incarnation: None, server_version: Version::new(3, 6, 16) })
}

fn client() -> Client {
    Client::new(&identity(), None, DIAL_TIMEOUT, &World::default())
}

fn url(scheme: &str, address: SocketAddr) -> PeerUrl {
    format!("{scheme}://{address}").parse().expect("a URL")
}

async fn listen() -> (TcpListener, PeerUrl) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("it is bound");
    (listener, url("http", address))
}

/// A server that answers each POST with its body, and counts connections.
async fn echo(tls: Option<Tls>) -> (PeerUrl, Arc<AtomicUsize>) {
    let (listener, plain) = listen().await;
    let connections = Arc::new(AtomicUsize::new(0));
    let count = connections.clone();
    let scheme = if tls.is_some() { "https" } else { "http" };
    let at = format!("{scheme}://{}", plain.authority()).parse().expect("a URL");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            count.fetch_add(1, SeqCst);
            let tls = tls.clone();
            tokio::spawn(async move {
                let service = service_fn(|request: Request<Incoming>| async move {
                    Ok::<_, Infallible>(Response::new(request.into_body()))
                });
                let server = hyper::server::conn::http1::Builder::new();
                match tls {
                    None => drop(server.serve_connection(TokioIo::new(stream), service).await),
                    Some(tls) => {
                        let Ok(stream) = tls.accept(stream, HANDSHAKE_TIMEOUT).await else { return };
                        drop(server.serve_connection(TokioIo::new(stream), service).await);
                    }
                }
            });
        }
    });
    (at, connections)
}

async fn post(client: &Client, url: &PeerUrl) -> Result<PostAnswer, PostError> {
    client.post(url, None, "/raft", "application/protobuf", Bytes::from_static(b"body"), None).await
}

async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("a head has an end"));
    }
    String::from_utf8(head).expect("a head is text")
}

#[tokio::test]
async fn a_post_carries_every_header_of_a_peers_request() {
    let (listener, at) = listen().await;
    let answering = async {
        let (mut stream, _) = listener.accept().await.expect("it is dialled");
        let head = read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.expect("it listens");
        head
    };
    let client = client();
    let (answer, head) = tokio::join!(post(&client, &at), answering);
    assert_eq!(answer.expect("it was answered").status, StatusCode::NO_CONTENT);
    let mut lines: Vec<&str> = head.trim_end().lines().collect();
    assert_eq!(lines.remove(0), "POST /raft HTTP/1.1");
    lines.sort_unstable();
    let host = format!("host: {}", at.authority());
    let mut wanted = vec![
        "content-length: 4",
        "content-type: application/protobuf",
        &host,
        "x-etcd-cluster-id: 1000",
        "x-min-cluster-version: 3.0.0",
        "x-peerurls: http://10.0.0.1:2380,http://10.0.0.2:2380",
        "x-server-from: a",
        "x-server-version: 3.6.16",
    ];
    wanted.sort_unstable();
    assert_eq!(lines, wanted);
}

#[cfg(feature = "otlp")]
#[tokio::test]
async fn a_post_that_is_traced_says_so() {
    use crate::{id::ClusterId, telemetry, wire::raftpb::Message};

    let (listener, at) = listen().await;
    let answering = async {
        let (mut stream, _) = listener.accept().await.expect("it is dialled");
        let head = read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.expect("it listens");
        head
    };
    let client = client();
    let message = Message::default();
    let trace = telemetry::Sampler::new(1.0, ClusterId(0x1000)).sample(&message).expect("everything is traced");
    let looking = tracing::subscriber::set_default(tracing_subscriber::registry());
    let span = telemetry::send_span(trace, &message, 4);
    let posting = client.post(&at, None, "/raft", "application/protobuf", Bytes::from_static(b"body"), Some(&span));
    let (answer, head) = tokio::join!(posting, answering);
    drop(looking);
    answer.expect("it was answered");
    assert!(head.contains(&format!("traceparent: 00-{trace}-{}-01\r\n", trace.send_span_id())), "{head}");
}

#[tokio::test]
async fn posts_share_a_connection() {
    let (at, connections) = echo(None).await;
    let client = client();
    for _ in 0..3 {
        assert_eq!(post(&client, &at).await.expect("it echoes").text, "body");
    }
    assert_eq!(connections.load(SeqCst), 1);
}

#[tokio::test]
async fn posts_at_the_same_time_take_a_connection_each_and_four_are_kept() {
    let (at, connections) = echo(None).await;
    let client = client();
    let answers = futures_util::future::join_all((0..6).map(|_| post(&client, &at))).await;
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!(connections.load(SeqCst), 6);
    assert_eq!(client.pool.0.lock().expect("nobody panicked").hosts[at.as_str()].len(), 4);
}

#[tokio::test]
async fn a_kept_connection_that_the_peer_closed_is_replaced() {
    let (listener, at) = listen().await;
    let closing = async {
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().await.expect("it is dialled");
            read_head(&mut stream).await;
            stream.read_exact(&mut [0; 4]).await.expect("a body");
            stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.expect("it listens");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let client = client();
    let posting = async {
        post(&client, &at).await.expect("the first is answered");
        assert_eq!(client.pool.0.lock().expect("nobody panicked").hosts.len(), 1, "it was kept");
        tokio::time::sleep(Duration::from_millis(200)).await;
        post(&client, &at).await.expect("the second too");
    };
    tokio::join!(closing, posting);
}

#[tokio::test]
async fn a_request_that_was_written_is_not_sent_twice() {
    let (listener, at) = listen().await;
    let accepted = AtomicUsize::new(0);
    let serving = async {
        let (mut stream, _) = listener.accept().await.expect("it is dialled");
        accepted.fetch_add(1, SeqCst);
        read_head(&mut stream).await;
        stream.read_exact(&mut [0; 4]).await.expect("a body");
        stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.expect("it listens");
        // The second request is read, and lost.
        read_head(&mut stream).await;
        drop(stream);
        let _ = listener.accept().await;
        accepted.fetch_add(1, SeqCst);
    };
    let client = client();
    let posting = async {
        post(&client, &at).await.expect("the first is answered");
        assert!(matches!(post(&client, &at).await, Err(PostError::Broken(_))));
    };
    tokio::select! {
        () = serving => panic!("it was sent again"),
        () = posting => {}
    }
    assert_eq!(accepted.load(SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_closed_after_four_seconds() {
    let (listener, at) = listen().await;
    let serving = async {
        let (mut stream, _) = listener.accept().await.expect("it is dialled");
        read_head(&mut stream).await;
        stream.read_exact(&mut [0; 4]).await.expect("a body");
        stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.expect("it listens");
        let begin = Instant::now();
        assert_eq!(stream.read(&mut [0; 1]).await.expect("a clean close"), 0);
        begin.elapsed().as_secs()
    };
    let client = client();
    let (answer, idle) = tokio::join!(post(&client, &at), serving);
    answer.expect("it was answered");
    assert_eq!(idle, 4);
}

#[tokio::test]
async fn a_client_that_stopped_keeps_no_connection_and_no_task() {
    let (at, _) = echo(None).await;
    let client = client();
    post(&client, &at).await.expect("it echoes");
    assert_eq!(client.tasks.len(), 1);
    client.stop().await;
    assert_eq!(client.tasks.len(), 0);
    assert!(client.pool.0.lock().expect("nobody panicked").hosts.is_empty());
    post(&client, &at).await.expect("it still dials");
    assert_eq!(client.tasks.len(), 0);
    assert!(client.pool.0.lock().expect("nobody panicked").hosts.is_empty(), "what was under way is not kept");
}

#[tokio::test]
async fn an_answers_text_is_read_up_to_its_bound() {
    let (listener, at) = listen().await;
    let serving = async {
        let (mut stream, _) = listener.accept().await.expect("it is dialled");
        read_head(&mut stream).await;
        let head = b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 1048576\r\n\r\n";
        stream.write_all(head).await.expect("it listens");
        let _ = stream.write_all(&[b'x'; 1 << 20]).await;
    };
    let client = client();
    let (answer, ()) = tokio::join!(post(&client, &at), serving);
    assert_eq!(answer.expect("it was answered").text.len(), ANSWER_TEXT);
    assert!(client.pool.0.lock().expect("nobody panicked").hosts.is_empty());
}

#[tokio::test]
async fn an_answers_head_without_end_is_refused() {
    let (listener, at) = listen().await;
    let serving = async {
        let (mut stream, _) = listener.accept().await.expect("it is dialled");
        read_head(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nx: ").await;
        while stream.write_all(&[b'x'; 64 << 10]).await.is_ok() {}
    };
    let client = client();
    let (answer, ()) = tokio::join!(post(&client, &at), serving);
    assert!(matches!(answer, Err(PostError::Head)), "{answer:?}");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_takes_a_post_and_is_silent_costs_ten_seconds() {
    let (_listener, at) = listen().await;
    let begin = Instant::now();
    let error = post(&client(), &at).await.expect_err("nobody answers");
    assert!(matches!(error, PostError::NoAnswer), "{error}");
    assert_eq!(begin.elapsed().as_secs(), 10);
}

#[tokio::test]
async fn a_peer_that_stops_reading_is_found_after_the_write_deadline() {
    let (_listener, at) = listen().await;
    let client = client();
    let mut connection = client.dial(&at).await.expect("it listens");
    connection.io.set_write_deadline(Duration::from_millis(200));
    let request = client.request(Method::POST, &at, "/raft").body(full(vec![0; 64 << 20].into())).expect("a request");
    let begin = Instant::now();
    let error = exchange(&mut connection, request).await.expect_err("it does not read");
    assert!(matches!(error, PostError::Stalled), "{error}");
    assert_eq!(connection.io.end(), Some(ConnectionEnd::Stalled));
    assert!(begin.elapsed() < Duration::from_secs(4), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn a_port_where_nobody_listens_is_unreachable() {
    let (listener, at) = listen().await;
    drop(listener);
    let error = client().dial(&at).await.err().expect("nobody listens");
    assert!(matches!(error, DialError::Connect { .. }), "{error}");
    assert_eq!((error.attempt_result(), error.probe_result()), (AttemptResult::Unreachable, ProbeResult::Connect));
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_host_that_drops_what_it_gets_costs_the_dial_timeout() {
    // A listener whose backlog is full drops new connections, as a host does that is gone.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    socket.bind(&any.into()).and_then(|()| socket.listen(0)).expect("a port");
    let address = socket.local_addr().expect("it is bound").as_socket().expect("an IP socket");
    let filling = (0..4).map(|_| timeout(Duration::from_millis(50), TcpStream::connect(address)));
    let _held = futures_util::future::join_all(filling).await;
    let client = Client::new(&identity(), None, Duration::from_millis(100), &World::default());
    let begin = Instant::now();
    let error = client.dial(&url("http", address)).await.err().expect("nobody answers");
    assert!(matches!(error, DialError::Timeout { .. }), "{error}");
    assert!((100..900).contains(&begin.elapsed().as_millis()), "{:?}", begin.elapsed());
    assert_eq!(error.probe_result(), ProbeResult::Timeout);
}

fn with_hosts(hosts: &str) -> (tempfile::TempDir, Client) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("hosts");
    std::fs::write(&path, hosts).expect("the directory is ours");
    let mut client = client();
    client.resolver = Resolver::with_files(path, "/nonexistent".into(), Duration::from_secs(1));
    (directory, client)
}

#[tokio::test]
async fn the_next_address_of_a_name_is_tried_when_one_refuses() {
    let (_listener, at) = listen().await;
    let (_files, client) = with_hosts("127.0.0.2 n1\n127.0.0.1 n1\n");
    let named: PeerUrl = format!("http://n1:{}", at.port()).parse().expect("a URL");
    let (_, Dialled { remote, phases, .. }, _) = client.open(&named).await.expect("the second listens");
    assert_eq!(remote.ip(), std::net::IpAddr::from([127, 0, 0, 1]));
    assert!(phases.dns.is_some() && phases.tls.is_none());
}

#[tokio::test]
async fn a_name_without_address_is_a_failure_of_dns() {
    let (_files, client) = with_hosts("");
    let error = client.dial(&"http://n1:2380".parse().expect("a URL")).await.err().expect("no such name");
    assert_eq!((error.attempt_result(), error.probe_result()), (AttemptResult::Unreachable, ProbeResult::Dns));
}

#[tokio::test]
async fn an_address_needs_no_look_up() {
    let (_listener, at) = listen().await;
    let (_, dialled, _) = client().open(&at).await.expect("it listens");
    assert_eq!(dialled.phases.dns, None);
}

fn member(authority: &Authority, trusted: &Authority) -> (Files, Tls) {
    let files = Files::new(&authority.issue(Leaf::default()), &trusted.pem);
    let tls = Tls::load(files.config()).expect("the files are good");
    (files, tls)
}

#[tokio::test]
async fn posts_go_over_tls_and_share_the_connection() {
    let authority = Authority::new("ca");
    let (_files, tls) = member(&authority, &authority);
    let (at, connections) = echo(Some(tls.clone())).await;
    let client = Client::new(&identity(), Some(tls), DIAL_TIMEOUT, &World::default());
    for _ in 0..3 {
        assert_eq!(post(&client, &at).await.expect("it echoes").text, "body");
    }
    assert_eq!(connections.load(SeqCst), 1);
    let (_, dialled, _) = client.open(&at).await.expect("it listens");
    assert!(dialled.phases.tls.is_some());
}

#[tokio::test]
async fn a_peer_of_another_authority_fails_by_tls_and_is_counted() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let (_server_files, server) = member(&theirs, &theirs);
    let (_files, tls) = member(&ours, &ours);
    let (at, _) = echo(Some(server)).await;
    let error = Client::new(&identity(), Some(tls.clone()), DIAL_TIMEOUT, &World::default())
        .dial(&at)
        .await
        .err()
        .expect("not ours");
    assert_eq!((error.attempt_result(), error.probe_result()), (AttemptResult::Tls, ProbeResult::Tls));
    assert_eq!(tls.handshake_failures().of((Direction::Out, HandshakeReason::UnknownAuthority)), 1);
}

#[tokio::test]
async fn a_peer_that_refuses_our_certificate_fails_by_tls() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let (_server_files, server) = member(&theirs, &theirs);
    // We trust the peer. The peer does not trust us, and with TLS 1.3 it says so after our handshake.
    let (_files, tls) = member(&ours, &theirs);
    let (at, _) = echo(Some(server)).await;
    let error = post(&Client::new(&identity(), Some(tls), DIAL_TIMEOUT, &World::default()), &at)
        .await
        .expect_err("it does not know us");
    assert!(matches!(&error, PostError::Broken(error) if rustls_error(error).is_some()), "{error}");
}

#[tokio::test]
async fn https_without_certificates_is_refused_before_anything_is_dialled() {
    let error = client().dial(&"https://n1:2380".parse().expect("a URL")).await.err().expect("no TLS");
    assert_eq!(error.to_string(), "https://n1:2380 needs TLS: no trusted CA is configured to verify it by");
    assert_eq!(error.attempt_result(), AttemptResult::Tls);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_is_silent_in_the_handshake_costs_ten_seconds() {
    let authority = Authority::new("ca");
    let (_files, tls) = member(&authority, &authority);
    let (_listener, at) = listen().await;
    let at = format!("https://{}", at.authority()).parse().expect("a URL");
    let begin = Instant::now();
    let error = Client::new(&identity(), Some(tls), DIAL_TIMEOUT, &World::default())
        .dial(&at)
        .await
        .err()
        .expect("nobody answers");
    assert_eq!(begin.elapsed().as_secs(), 10);
    assert_eq!(error.attempt_result(), AttemptResult::Timeout);
}

/// Sends informational answers again and again, until nobody reads any more. Returns how many bytes were taken.
async fn informs_without_end(listener: TcpListener) -> usize {
    let (mut stream, _) = listener.accept().await.expect("it is dialled");
    read_head(&mut stream).await;
    let informs = b"HTTP/1.1 100 Continue\r\n\r\n".repeat(1000);
    let mut taken = 0;
    while stream.write_all(&informs).await.is_ok() {
        taken += informs.len();
    }
    taken
}

#[tokio::test]
async fn an_answer_that_is_only_announced_is_given_up() {
    let (listener, at) = listen().await;
    let informing = tokio::spawn(informs_without_end(listener));
    let begun = Instant::now();
    let error = post(&client(), &at).await.expect_err("there is no answer");
    assert!(matches!(error, PostError::Head), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    // The bytes that were not read are in the sockets' buffers.
    assert!(informing.await.expect("it ends") < 16 << 20);
}

#[tokio::test]
async fn a_few_informational_answers_are_passed_over() {
    let (listener, at) = listen().await;
    let answering = async {
        let (mut stream, _) = listener.accept().await.expect("it is dialled");
        read_head(&mut stream).await;
        let long = format!("HTTP/1.1 103 Early Hints\r\nLink: {}\r\n\r\n", "x".repeat(30_000));
        let answer = [&b"HTTP/1.1 100 Continue\r\n\r\n".repeat(100)[..], long.as_bytes()].concat();
        stream.write_all(&answer).await.expect("it listens");
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n").await.expect("it listens");
        stream.write_all(&[b'a'; 200_000]).await.expect("it listens");
        stream
    };
    let client = client();
    let (answer, _stream) = tokio::join!(post(&client, &at), answering);
    let answer = answer.expect("it was answered");
    assert_eq!((answer.status, answer.text.len()), (StatusCode::OK, 64 << 10));
}
