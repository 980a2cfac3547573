//! Checks that a sender is the member that it claims to be: certificates, the addresses from which they come, and the
//! IDs in requests.

mod support;

use std::net::{IpAddr, SocketAddr};

use prost::Message as _;
use rafthttp::{
    MemberId, SnapshotStore, Tls, TlsConfig,
    metrics::{Direction, Exposition, Options},
    telemetry::EventKind,
    tls::HandshakeReason,
    wire::raftpb::{Message, MessageType, Snapshot, SnapshotMetadata},
};
use rustls_pki_types::ServerName;
use support::{
    CLUSTER, TestMember,
    certificates::{Authority, Files, Leaf},
    heartbeat, until,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpSocket,
};
use tokio_rustls::TlsConnector;

/// Member 1, whose peers are `two.test` and `three.test`, which nobody can dial.
struct Place {
    authority: Authority,
    tls: Tls,
    member: TestMember,
    _snapshots: tempfile::TempDir,
}

impl Place {
    async fn new(change: impl FnOnce(TlsConfig) -> TlsConfig) -> Self {
        let authority = Authority::new("ca");
        let files = Files::new(
            &authority.issue(Leaf { names: vec!["one.test", "127.0.0.1"], ..Leaf::default() }),
            &authority.pem,
        );
        let tls = Tls::load(change(files.config())).expect("the files are good");
        let snapshots = tempfile::tempdir().expect("a directory");
        let store = SnapshotStore::open(snapshots.path()).expect("a store");
        let member = TestMember::start_over(1, Some(tls.clone()), |builder| builder.snapshots(store)).await;
        for (id, url) in [(2, "https://two.test:2380"), (3, "https://three.test:2380")] {
            member.transport.add_peer(MemberId(id), vec![url.parse().expect("a URL")]).expect("a peer");
        }
        Self { authority, tls, member, _snapshots: snapshots }
    }

    fn address(&self) -> SocketAddr {
        self.member.url.authority().parse().expect("an address")
    }

    /// One with a certificate for these hosts, from the CA of all.
    fn bearer(&self, names: &[&'static str]) -> Files {
        Files::new(&self.authority.issue(Leaf { names: names.to_vec(), ..Leaf::default() }), &self.authority.pem)
    }

    /// Sends a request on a connection of its own, from this address, and returns the status and the head and body so
    /// far.
    async fn ask(&self, bearer: &Files, from: &str, request: &[u8]) -> Result<String, String> {
        let client = Tls::load(bearer.config()).expect("the files are good").client().expect("there is a CA");
        let socket = TcpSocket::new_v4().expect("a socket");
        let from: IpAddr = from.parse().expect("an address");
        socket.bind((from, 0).into()).expect("an address of this machine");
        let asked = async {
            let stream = socket.connect(self.address()).await?;
            let name = ServerName::try_from("127.0.0.1").expect("a name");
            let mut stream = TlsConnector::from(client).connect(name, stream).await?;
            stream.write_all(request).await?;
            let mut answer = Vec::new();
            while !answer.windows(4).any(|window| window == b"\r\n\r\n") {
                if stream.read_buf(&mut answer).await? == 0 {
                    return Err(std::io::ErrorKind::UnexpectedEof.into());
                }
            }
            Ok::<_, std::io::Error>(String::from_utf8_lossy(&answer).into_owned())
        };
        let asked = tokio::time::timeout(std::time::Duration::from_secs(20), asked).await.expect("an answer or an end");
        asked.map_err(|error| error.to_string())
    }

    async fn status(&self, bearer: &Files, request: &[u8]) -> u16 {
        let answer = self.ask(bearer, "127.0.0.1", request).await.expect("an answer");
        answer.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status")
    }

    fn mismatches(&self, request: &str) -> u64 {
        self.tls.identity_mismatches().iter().filter(|(of, _)| *of == request).map(|(_, count)| count).sum()
    }
}

fn request(line: &str, from: Option<u64>, urls: Option<&str>, body: &[u8]) -> Vec<u8> {
    let mut head = format!(
        "{line} HTTP/1.1\r\nHost: h\r\nX-Server-Version: 3.6.0\r\nX-Min-Cluster-Version: 3.0.0\r\n\
         X-Etcd-Cluster-ID: {CLUSTER}\r\nX-Raft-To: 1\r\n"
    );
    if let Some(from) = from {
        head.push_str(&format!("X-Server-From: {from:x}\r\n"));
    }
    if let Some(urls) = urls {
        head.push_str(&format!("X-PeerURLs: {urls}\r\n"));
    }
    if !body.is_empty() {
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    head.push_str("\r\n");
    [head.as_bytes(), body].concat()
}

fn stream(path: u64, from: Option<u64>) -> Vec<u8> {
    request(&format!("GET /raft/stream/msgapp/{path:x}"), from, None, &[])
}

fn post(from: Option<u64>, urls: Option<&str>) -> Vec<u8> {
    request("POST /raft", from, urls, &heartbeat(from.unwrap_or(2), 1, 0).encode_to_vec())
}

fn snapshot(from: u64) -> Vec<u8> {
    let metadata = SnapshotMetadata { index: 1, term: 1, ..SnapshotMetadata::default() };
    let message = Message {
        r#type: MessageType::MsgSnap as i32,
        from,
        to: 1,
        term: 1,
        snapshot: Some(Snapshot { metadata: Some(metadata), ..Snapshot::default() }.into()),
        ..Message::default()
    };
    let message = message.encode_to_vec();
    let body = [&(message.len() as u64).to_be_bytes()[..], &message, b"data"].concat();
    request("POST /raft/snapshot", Some(from), None, &body)
}

#[tokio::test]
async fn who_claims_anothers_id_is_counted_and_told_of_once_without_the_flag() {
    let place = Place::new(|config| config).await;
    let three = place.bearer(&["three.test", "127.0.0.1"]);
    for _ in 0..2 {
        assert_eq!(place.status(&three, &stream(2, Some(2))).await, 200);
        assert_eq!(place.status(&three, &post(Some(2), None)).await, 204);
        assert_eq!(place.status(&three, &snapshot(2)).await, 204);
    }
    for of in ["stream", "pipeline", "snapshot"] {
        assert_eq!(place.mismatches(of), 2, "{of}");
    }
    let events = place.member.transport.events().after(0);
    let told: Vec<_> = events.iter().filter(|event| event.kind == EventKind::IdentityMismatch).collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!((told[0].peer, told[0].reason), (Some(MemberId(2)), Some("taken")));
    let text: String = Exposition::new(place.member.status(), &Options::default())
        .map(|piece| String::from_utf8(piece.to_vec()).expect("text"))
        .collect();
    assert!(text.contains("rafthttp_identity_mismatches_total{request=\"snapshot\"} 2"));
    // Itself it may say that it is.
    assert_eq!(place.status(&three, &stream(3, Some(3))).await, 200);
    assert_eq!(place.mismatches("stream"), 2);
    place.member.stop().await;
}

#[tokio::test]
async fn who_claims_anothers_id_is_refused_with_the_flag() {
    let place = Place::new(|config| TlsConfig { bind_members: true, ..config }).await;
    let (two, three) = (place.bearer(&["two.test", "127.0.0.1"]), place.bearer(&["three.test", "127.0.0.1"]));
    assert_eq!(place.status(&three, &stream(2, Some(2))).await, 403);
    assert_eq!(place.status(&three, &stream(2, Some(3))).await, 403, "the path says it");
    assert_eq!(place.status(&three, &stream(2, None)).await, 403);
    assert_eq!(place.status(&three, &post(Some(2), None)).await, 403);
    assert_eq!(place.status(&three, &post(None, None)).await, 403, "who says nothing shows nothing");
    assert_eq!(place.status(&three, &snapshot(2)).await, 403);
    assert_eq!((place.mismatches("stream"), place.mismatches("pipeline"), place.mismatches("snapshot")), (3, 2, 1));
    assert_eq!(place.member.taken(), 0);
    let probe = request("GET /raft/probing", Some(2), None, &[]);
    let answer = place.ask(&three, "127.0.0.1", &probe).await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200") && !answer.contains("Member"), "{answer}");

    assert_eq!(place.status(&two, &stream(2, Some(2))).await, 200);
    assert_eq!(place.status(&two, &post(Some(2), None)).await, 204);
    assert_eq!(place.status(&two, &snapshot(2)).await, 204);
    assert_eq!(place.mismatches("pipeline"), 2);
    assert_eq!(place.member.taken(), 2);
    place.member.stop().await;
}

#[tokio::test]
async fn a_stranger_is_held_against_the_urls_that_it_tells() {
    let place = Place::new(|config| TlsConfig { bind_members: true, ..config }).await;
    let four = place.bearer(&["four.test", "127.0.0.1"]);
    assert_eq!(place.status(&four, &post(Some(4), Some("https://four.test:2380"))).await, 204);
    assert_eq!(place.status(&four, &post(Some(5), Some("https://five.test:2380"))).await, 403);
    assert_eq!(place.status(&four, &post(Some(6), None)).await, 403);
    // The URLs that a member has are the membership's, whatever the request tells.
    assert_eq!(place.status(&four, &post(Some(2), Some("https://four.test:2380"))).await, 403);
    assert_eq!(place.mismatches("pipeline"), 3);
    place.member.stop().await;
}

#[tokio::test]
async fn a_client_certificate_comes_from_an_address_that_it_is_for() {
    let place = Place::new(|config| config).await;
    let version = request("GET /version", None, None, &[]);
    for (names, from, taken) in [
        (&["127.0.0.1"][..], "127.0.0.1", true),
        (&["127.0.0.1"], "127.0.0.2", false),
        (&["127.0.0.2", "nobody.invalid"], "127.0.0.2", true),
        (&["localhost"], "127.0.0.1", true),
        (&["nobody.invalid"], "127.0.0.2", false),
        (&[], "127.0.0.2", true),
    ] {
        let answer = place.ask(&place.bearer(names), from, &version).await;
        assert_eq!(answer.is_ok(), taken, "{names:?} from {from}: {answer:?}");
    }
    let refused = || place.tls.handshake_failures().of((Direction::In, HandshakeReason::Name));
    until("counted", || refused() == 2).await;
    place.member.stop().await;
}

#[tokio::test]
async fn with_the_switch_a_certificate_comes_from_anywhere() {
    let place = Place::new(|config| TlsConfig { skip_client_san_verification: true, ..config }).await;
    let answer = place.ask(&place.bearer(&["127.0.0.1"]), "127.0.0.2", &request("GET /version", None, None, &[])).await;
    assert!(answer.is_ok_and(|answer| answer.starts_with("HTTP/1.1 200")));
    place.member.stop().await;
}
