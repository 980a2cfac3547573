//! What each request is answered, to the byte. The expected answers are etcd 3.6.16's own, recorded from its handlers
//! with the same requests, save where a row says otherwise.

use rafthttp::{Member as ClusterMember, Members, id::MemberId};

use crate::member::{ASTRAY, Answer, HEARTBEAT, LEGAL, Member, PEERS, SNAPSHOT, ask, closes, frame, post, request};

const CLUSTER: &str = "X-Etcd-Cluster-Id: 1000";
const VERSION: &str = "X-Server-Version: 3.6.0";

/// As Go's `http.Error` writes it.
fn refusal(status: u16, text: &str, headers: &[&str]) -> Answer {
    let body = format!("{text}\n");
    let length = format!("Content-Length: {}", body.len());
    let ours = [length.as_str(), "Content-Type: text/plain; charset=utf-8", "X-Content-Type-Options: nosniff"];
    let mut headers: Vec<String> = ours.iter().chain(headers).map(|header| (*header).to_owned()).collect();
    headers.sort_unstable();
    Answer { status, headers, body }
}

fn no_content() -> Answer {
    Answer { status: 204, headers: vec![CLUSTER.to_owned()], body: String::new() }
}

async fn check(rows: Vec<(Vec<u8>, Answer)>) {
    let member = Member::start().await;
    for (request, mut expected) in rows {
        let asked = String::from_utf8_lossy(&request[..request.len().min(200)]).into_owned();
        if request.starts_with(b"HEAD") {
            expected.body.clear();
        }
        assert_eq!(member.ask(&request).await, expected, "{asked}");
    }
}

/// `LEGAL` without the header that begins so, and with others.
fn legal_but(without: &str, with: &str) -> String {
    let kept = LEGAL.split_inclusive("\r\n").filter(|line| without.is_empty() || !line.starts_with(without));
    kept.collect::<String>() + with
}

#[tokio::test]
async fn another_method_is_refused_before_anything_else() {
    let refused = |allow, headers: &[&str]| refusal(405, "Method Not Allowed", &[&[allow], headers].concat());
    // etcd leaves the version out here; ours is on every answer of a stream.
    check(vec![
        (request("GET", "/raft", LEGAL), refused("Allow: POST", &[])),
        (request("GET", "/raft", ""), refused("Allow: POST", &[])),
        (request("HEAD", "/raft", LEGAL), refused("Allow: POST", &[])),
        (request("PUT", "/raft/snapshot", LEGAL), refused("Allow: POST", &[])),
        (post("/raft/stream/message/2", LEGAL, b""), refused("Allow: GET", &[VERSION])),
        (post("/raft/stream/nonsense", LEGAL, b""), refused("Allow: GET", &[VERSION])),
        (request("HEAD", "/raft/stream/message/2", LEGAL), refused("Allow: GET", &[VERSION])),
        (request("HEAD", "/version", ""), refused("Allow: GET", &[])),
        (post("/members", "", b""), refused("Allow: GET", &[])),
    ])
    .await;
}

#[tokio::test]
async fn another_path_is_not_found() {
    let not_found = || refusal(404, "404 page not found", &[]);
    check(vec![
        (request("GET", "/", LEGAL), not_found()),
        (request("GET", "/raft/", LEGAL), not_found()),
        (request("GET", "/raft/nonsense", LEGAL), not_found()),
        (request("GET", "/raft/snapshot/", LEGAL), not_found()),
        (request("GET", "/raft/probing/", LEGAL), not_found()),
        (request("GET", "/version/", ""), not_found()),
        (request("HEAD", "/nonsense", LEGAL), not_found()),
        (post("/nonsense", LEGAL, b"body"), not_found()),
    ])
    .await;
}

#[tokio::test]
async fn a_path_that_is_not_clean_redirects() {
    let redirect = |location: &str, link: &str, headers: &[&str]| {
        let body = format!("<a href=\"{link}\">Temporary Redirect</a>.\n\n");
        let mut headers: Vec<String> = headers.iter().map(|header| (*header).to_owned()).collect();
        headers.extend([format!("Content-Length: {}", body.len()), format!("Location: {location}")]);
        headers.push("Content-Type: text/html; charset=utf-8".to_owned());
        headers.sort_unstable();
        Answer { status: 307, headers, body }
    };
    let bare = ["Content-Length: 0", "Location: /raft/stream/"].map(ToOwned::to_owned).to_vec();
    let stream = |path: &str| redirect(path, path, &[VERSION]);
    check(vec![
        (request("GET", "/raft/stream", ""), redirect("/raft/stream/", "/raft/stream/", &[])),
        (request("GET", "/raft/stream?a=b&c", ""), redirect("/raft/stream/?a=b&c", "/raft/stream/?a=b&amp;c", &[])),
        (post("/raft/stream", "", b""), Answer { status: 307, headers: bare, body: String::new() }),
        (request("GET", "//raft", ""), redirect("/raft", "/raft", &[])),
        (
            request("GET", "/raft//stream/message/2", ""),
            redirect("/raft/stream/message/2", "/raft/stream/message/2", &[]),
        ),
        (request("GET", "/raft/stream//message/2", ""), stream("/raft/stream/message/2")),
        (request("GET", "/raft/stream/message/.././2", ""), stream("/raft/stream/2")),
        (request("GET", "/raft/stream/../nonsense", ""), stream("/raft/nonsense")),
    ])
    .await;
}

#[tokio::test]
async fn versions_are_checked_before_the_cluster() {
    let refused = || refusal(412, "incompatible version", &[CLUSTER, VERSION]);
    let stream = |headers: String| request("GET", "/raft/stream/message/2", &headers);
    let version = |server| legal_but("X-Server-Version", &format!("X-Server-Version: {server}\r\n"));
    check(vec![
        (stream(String::new()), refused()),
        (stream(version("2.9.9")), refused()),
        // etcd cuts the connection.
        (stream(version("garbage")), refused()),
        (stream(version("3.6")), refused()),
        (stream(legal_but("X-Min", "X-Min-Cluster-Version: 3.7.0\r\n")), refused()),
        (stream(legal_but("X-Server-Version", "")), refused()),
        (stream("X-Etcd-Cluster-ID: 9\r\n".to_owned()), refused()),
        (post("/raft", "", HEARTBEAT), refusal(412, "incompatible version", &[CLUSTER])),
        (post("/raft/snapshot", "", b""), refusal(412, "incompatible version", &[CLUSTER])),
    ])
    .await;
}

#[tokio::test]
async fn a_missing_minimum_cluster_version_is_2_0_0_and_passes() {
    check(vec![(post("/raft", &legal_but("X-Min", ""), HEARTBEAT), no_content())]).await;
}

#[tokio::test]
async fn the_cluster_is_checked_before_the_path() {
    let refused = || refusal(412, "cluster ID mismatch", &[CLUSTER, VERSION]);
    let cluster = |id: &str| legal_but("X-Etcd", &format!("X-Etcd-Cluster-ID: {id}\r\n"));
    check(vec![
        (request("GET", "/raft/stream/message/2", &cluster("2000")), refused()),
        (request("GET", "/raft/stream/message/2", &cluster("01000")), refused()),
        (request("GET", "/raft/stream/message/2", &legal_but("X-Etcd", "")), refused()),
        (request("GET", "/raft/stream/nonsense/2", &cluster("2000")), refused()),
        (post("/raft", &cluster("2000"), HEARTBEAT), refusal(412, "cluster ID mismatch", &[CLUSTER])),
        (post("/raft/snapshot", &cluster("2000"), b""), refusal(412, "cluster ID mismatch", &[CLUSTER])),
    ])
    .await;
}

#[tokio::test]
async fn a_stream_is_refused_by_kind_then_asker_then_addressee() {
    let refused = |status, text| refusal(status, text, &[CLUSTER, VERSION]);
    let stream = |path: &str| request("GET", &format!("/raft/stream/{path}"), LEGAL);
    let to = |path: &str, to: &str| request("GET", &format!("/raft/stream/{path}"), &legal_but("X-Raft-To", to));
    check(vec![
        (stream(""), refused(404, "invalid path")),
        (stream("message"), refused(404, "invalid path")),
        (stream("nonsense/2"), refused(404, "invalid path")),
        (stream("nonsense/zz"), refused(404, "invalid path")),
        (stream("message/2/"), refused(404, "invalid path")),
        (stream("message/2/3"), refused(404, "invalid path")),
        (stream("message/"), refused(404, "invalid from")),
        (stream("msgapp/"), refused(404, "invalid from")),
        (stream("message/zz"), refused(404, "invalid from")),
        (stream("message/+2"), refused(404, "invalid from")),
        (stream("message/10000000000000000"), refused(404, "invalid from")),
        (to("message/9", "X-Raft-To: 3\r\n"), refused(410, "removed member")),
        (to("message/7", "X-Raft-To: 3\r\n"), refused(404, "error sender not found")),
        (stream("message/1"), refused(404, "error sender not found")),
        (to("message/2", "X-Raft-To: 3\r\n"), refused(412, "to field mismatch")),
        (to("message/2", "X-Raft-To: 01\r\n"), refused(412, "to field mismatch")),
        (to("message/2", ""), refused(412, "to field mismatch")),
    ])
    .await;
}

#[tokio::test]
async fn the_head_of_a_stream_comes_before_the_first_frame() {
    let member = Member::start().await;
    for path in ["/raft/stream/msgapp/2", "/raft/stream/message/02"] {
        let answer = member.ask(&request("GET", path, LEGAL)).await;
        let headers = ["Transfer-Encoding: chunked", CLUSTER, VERSION].map(ToOwned::to_owned).to_vec();
        assert_eq!(answer, Answer { status: 200, headers, body: String::new() });
    }
}

#[tokio::test]
async fn a_transport_that_stopped_opens_no_stream() {
    let member = Member::start().await;
    member.transport.stop().await;
    let answer = member.ask(&request("GET", "/raft/stream/message/2", LEGAL)).await;
    assert_eq!(answer, refusal(503, "server stopped", &[CLUSTER, VERSION, "Connection: close"]));
}

#[tokio::test]
async fn after_its_refusal_an_unknown_asker_is_a_remote() {
    let member = Member::start().await;
    let told = |urls: &str| legal_but("", &format!("X-PeerURLs: {urls}\r\n"));
    let remotes = || {
        let peers = member.transport.peers();
        peers.iter().map(|peer| peer.id).filter(|id| !PEERS.contains(id)).collect::<Vec<_>>()
    };
    for illegal in
        ["127.0.0.1:1", "http://127.0.0.1", "http://127.0.0.1:1/path", "ftp://127.0.0.1:1", "unix://a:0", ","]
    {
        let answer = member.ask(&request("GET", "/raft/stream/message/7", &told(illegal))).await;
        assert_eq!((answer.status, remotes()), (404, vec![]), "{illegal}");
    }
    let with_socket = told("unix://m7.sock:0,http://127.0.0.1:1");
    let answer = member.ask(&request("GET", "/raft/stream/message/7", &with_socket)).await;
    assert_eq!((answer.status, remotes()), (404, vec![MemberId(7)]));
    let from_8 = told("http://127.0.0.1:1").replace("X-Server-From: 2", "X-Server-From: 8");
    assert_eq!(member.ask(&post("/raft", &from_8, HEARTBEAT)).await, no_content());
    assert_eq!(remotes(), vec![MemberId(7), MemberId(8)]);
    let from_9 = from_8.replace("X-Server-From: 8", "X-Server-From: 9");
    assert_eq!(member.ask(&post("/raft", &from_9, HEARTBEAT)).await, no_content());
    assert_eq!(remotes(), vec![MemberId(7), MemberId(8)], "a removed member is no remote");
}

#[tokio::test]
async fn a_post_is_answered_by_what_became_of_its_message() {
    // etcd sends its 500 in chunks and then cuts the connection.
    let failed = || refusal(500, "error processing raft message", &[CLUSTER, "Connection: close"]);
    check(vec![
        (post("/raft", LEGAL, HEARTBEAT), no_content()),
        (post("/raft", &legal_but("X-Server-From", ""), HEARTBEAT), no_content()),
        (post("/raft", &legal_but("X-Server-From", "X-Server-From: zz\r\n"), HEARTBEAT), no_content()),
        (post("/raft", LEGAL, b""), failed()),
        (post("/raft", LEGAL, ASTRAY), failed()),
        (post("/raft", LEGAL, b"\xff\xff\xff"), refusal(400, "error unmarshalling raft message", &[CLUSTER])),
    ])
    .await;
}

#[tokio::test]
async fn a_refused_message_costs_the_connection_and_a_good_one_does_not() {
    let member = Member::start().await;
    let mut connection = member.connect().await;
    assert_eq!(ask(&mut connection, &post("/raft", LEGAL, HEARTBEAT)).await.unwrap().status, 204);
    assert_eq!(ask(&mut connection, &post("/raft", LEGAL, ASTRAY)).await.unwrap().status, 500);
    assert!(closes(&mut connection, std::time::Duration::from_secs(5)).await);
    assert_eq!(member.raft.taken.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_post_in_chunks_is_one_message() {
    let member = Member::start().await;
    let mut chunked = request("POST", "/raft", &legal_but("", "Transfer-Encoding: chunked\r\n"));
    for byte in HEARTBEAT {
        chunked.extend_from_slice(&[b'1', b'\r', b'\n', *byte, b'\r', b'\n']);
    }
    chunked.extend_from_slice(b"0\r\n\r\n");
    assert_eq!(member.ask(&chunked).await, no_content());
    let taken = member.raft.taken.lock().unwrap();
    assert_eq!((taken.len(), taken[0].from, taken[0].term), (1, 2, 1));
}

#[tokio::test]
async fn a_snapshot_is_answered_by_what_became_of_it() {
    let snapshot = |body: &[u8]| post("/raft/snapshot", LEGAL, body);
    let astray: Vec<u8> = [&SNAPSHOT[..3], &[5], &SNAPSHOT[4..]].concat();
    check(vec![
        (snapshot(&frame(SNAPSHOT, b"the data")), no_content()),
        (snapshot(&frame(HEARTBEAT, b"")), refusal(400, "wrong raft message type", &[CLUSTER])),
        // A link heartbeat.
        (snapshot(&frame(&[0x08, 8], b"")), refusal(400, "wrong raft message type", &[CLUSTER])),
        (snapshot(&frame(&astray, b"the data")), refusal(500, "failed to process raft message (not mine)", &[CLUSTER])),
    ])
    .await;
}

/// In the parentheses stands our own error, not Go's; a snapshot without a snapshot ends etcd's handler.
#[tokio::test]
async fn an_envelope_that_is_none_is_refused() {
    let member = Member::start().await;
    let cases: [&[u8]; 5] = [
        b"",
        &frame(SNAPSHOT, b"")[..12],
        &frame(b"\xff\xff\xff", b""),
        &[0x7f; 30],
        &frame(&SNAPSHOT[..8], b"the data"),
    ];
    for body in cases {
        let answer = member.ask(&post("/raft/snapshot", LEGAL, body)).await;
        assert_eq!(answer.status, 400, "{body:?}");
        let text =
            answer.body.strip_prefix("failed to decode raft message (").and_then(|rest| rest.strip_suffix(")\n"));
        assert!(text.is_some_and(|text| !text.is_empty()), "{answer:?}");
    }
    assert!(member.raft.taken.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_probe_is_answered_whatever_it_asks() {
    let member = Member::start().await;
    for request in [request("GET", "/raft/probing", ""), request("DELETE", "/raft/probing", "X-Etcd-Cluster-ID: 9\r\n")]
    {
        let answer = member.ask(&request).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("Content-Type"), Some("text/plain; charset=utf-8"));
        let now = answer.body.strip_prefix(r#"{"OK":true,"Now":""#).and_then(|rest| rest.strip_suffix("\"}\n"));
        let now = now.unwrap_or_else(|| panic!("{answer:?}"));
        let format = &time::format_description::well_known::Rfc3339;
        let age = time::OffsetDateTime::now_utc() - time::OffsetDateTime::parse(now, format).unwrap();
        assert!(age.abs() < time::Duration::seconds(20), "{now}");
    }
}

#[tokio::test]
async fn the_version_is_told_as_etcd_tells_it() {
    let member = Member::start().await;
    let answer = member.ask(&request("GET", "/version", "")).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.body, r#"{"etcdserver":"3.6.0","etcdcluster":"3.6.0","storage":"unknown"}"#);
    assert_eq!(answer.headers, ["Content-Length: 64", "Content-Type: application/json"]);
}

#[tokio::test]
async fn the_members_are_told_once_there_are_some() {
    let member = Member::start().await;
    let none = member.ask(&request("GET", "/members", "")).await;
    assert_eq!(none, refusal(404, "404 page not found", &[CLUSTER]));
    let one = ClusterMember {
        id: MemberId(10),
        name: "a".to_owned(),
        peer_urls: vec!["http://a:2380".parse().unwrap()],
        client_urls: vec!["http://a:2379".to_owned()],
        is_learner: false,
    };
    *member.raft.members.lock().unwrap() = Some(Members(vec![one]));
    let answer = member.ask(&request("GET", "/members", "")).await;
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.body,
        "[{\"id\":10,\"peerURLs\":[\"http://a:2380\"],\"name\":\"a\",\"clientURLs\":[\"http://a:2379\"]}]\n"
    );
    assert_eq!(answer.headers, ["Content-Length: 83", "Content-Type: application/json", CLUSTER]);
}
