//! What the port costs whom: strangers that send too much, too slowly or nothing; and the end of it all.

use std::{sync::atomic::Ordering, time::Duration};

use futures_util::future::join_all;
use prometheus::{Registry, TextEncoder};
use rafthttp::{
    Limits, PeerStatus,
    metrics::{Channel, Direction, LossReason},
    server::{ConnectionLimits, ConnectionMetrics},
    wire::raftpb::{Entry, Message},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

use crate::member::{HEARTBEAT, LEGAL, Member, PATIENCE, SNAPSHOT, answer, ask, closes, frame, post, request};

const SHORT: Duration = Duration::from_millis(300);

fn probe() -> Vec<u8> {
    request("GET", "/raft/probing", "")
}

/// A POST of one heartbeat from this peer.
fn heartbeat_from(peer: usize) -> Vec<u8> {
    post("/raft", &LEGAL.replace("X-Server-From: 2", &format!("X-Server-From: {peer}")), HEARTBEAT)
}

/// How many of these connections still answer.
async fn alive(connections: &mut [TcpStream]) -> usize {
    let asked = connections.iter_mut().map(|connection| async {
        let answer = ask(connection, &probe()).await;
        usize::from(answer.is_ok_and(|answer| answer.status == 200))
    });
    join_all(asked).await.into_iter().sum()
}

#[tokio::test]
async fn an_idle_connection_is_kept_five_seconds_and_closed_after_ten() {
    let member = Member::start().await;
    let mut connection = member.connect().await;
    assert_eq!(ask(&mut connection, &probe()).await.unwrap().status, 200);
    sleep(Duration::from_millis(5500)).await;
    assert_eq!(ask(&mut connection, &probe()).await.unwrap().status, 200);
    let since = Instant::now();
    assert!(closes(&mut connection, PATIENCE).await);
    assert!((9..13).contains(&since.elapsed().as_secs()), "{:?}", since.elapsed());
}

#[tokio::test]
async fn a_head_that_drips_costs_its_connection() {
    let member = Member::bounded(ConnectionLimits { head_timeout: SHORT, ..Default::default() }).await;
    let mut connection = member.connect().await;
    let since = Instant::now();
    for byte in request("GET", "/raft/probing", &"X-Drip: drip\r\n".repeat(90)) {
        if connection.write_all(&[byte]).await.is_err() {
            break;
        }
        sleep(Duration::from_millis(20)).await;
    }
    assert!(since.elapsed() < SHORT * 5, "{:?}", since.elapsed());
    assert_eq!(member.ask(&probe()).await.status, 200);
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let member = Member::start().await;
    let long = request("GET", "/raft/probing", &format!("X-Long: {}\r\n", "x".repeat(65 << 10)));
    assert_eq!(member.ask(&long).await.status, 431);
    let many = request("GET", "/raft/probing", &"X: y\r\n".repeat(200));
    assert_eq!(member.ask(&many).await.status, 431);
    let large = request("GET", "/raft/probing", &format!("X-Large: {}\r\n", "x".repeat(60 << 10)));
    assert_eq!(member.ask(&large).await.status, 200);
}

#[tokio::test]
async fn what_is_no_request_costs_its_connection() {
    let member = Member::start().await;
    for garbage in [b"garbage\r\n\r\n".as_slice(), b"\x16\x03\x01\x02\x00\x01\x00", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"]
    {
        let mut connection = member.connect().await;
        connection.write_all(garbage).await.unwrap();
        assert!(closes(&mut connection, Duration::from_secs(5)).await, "{garbage:?}");
    }
    assert_eq!(member.ask(&probe()).await.status, 200);
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_before_it_is_read() {
    let member = Member::with(Limits { message_bytes: 1 << 20, ..Limits::default() }, |server| server).await;
    let announced = member.ask(&request("POST", "/raft", &format!("{LEGAL}Content-Length: 1048577\r\n"))).await;
    assert_eq!((announced.status, announced.body.as_str()), (413, "raft message too large\n"));

    let mut chunked = request("POST", "/raft", &format!("{LEGAL}Transfer-Encoding: chunked\r\n"));
    chunked.extend_from_slice(format!("{:x}\r\n", (1 << 20) + 1).as_bytes());
    chunked.resize(chunked.len() + (1 << 20) + 1, 0);
    assert_eq!(member.ask(&chunked).await.status, 413);
    let peers = member.transport.peers();
    let errors = &peers.iter().find(|peer| peer.id.0 == 2).unwrap().incoming.frame_errors;
    assert_eq!(errors.total(), 2);
}

#[tokio::test]
async fn bodies_together_have_a_bound_and_peers_do_not_share_it_with_strangers() {
    let member = Member::with(Limits { message_bytes: 1 << 20, ..Limits::default() }, |server| server).await;
    let stranger = LEGAL.replace("X-Server-From: 2", "X-Server-From: 7");
    let begun = |length: usize| {
        let mut request = request("POST", "/raft", &format!("{stranger}Content-Length: {length}\r\n"));
        request.resize(request.len() + length - 1, 0);
        request
    };
    // Held for as long as the last byte does not come.
    let mut held = member.connect().await;
    held.write_all(&begun(1 << 17)).await.unwrap();
    let mut refused = None;
    for _ in 0..100 {
        let answer = member.ask(&post("/raft", &stranger, &[0; 4096])).await;
        if answer.status == 503 {
            refused = Some(answer.body);
            break;
        }
        sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(refused.as_deref(), Some("too many raft messages under way\n"));
    assert_eq!(member.ask(&heartbeat_from(2)).await.status, 204);
    let remote = stranger.replace("X-Server-From: 7", "X-Server-From: 8\r\nX-PeerURLs: http://127.0.0.1:1");
    assert_eq!(member.ask(&post("/raft", &remote, HEARTBEAT)).await.status, 204);
    drop(held);
    let mut status = 0;
    for _ in 0..100 {
        status = member.ask(&post("/raft", &stranger, HEARTBEAT)).await.status;
        if status == 204 {
            break;
        }
        sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(status, 204, "what a connection held is free again");
}

/// A million empty entries are two megabytes on the wire and 56 in memory.
#[tokio::test]
async fn a_message_that_swells_when_it_is_decoded_is_refused_before_the_application_is_asked() {
    let member = Member::with(Limits { message_bytes: 8 << 20, ..Limits::default() }, |server| server).await;
    let mut body = HEARTBEAT.to_vec();
    body.extend([0x3a, 0].repeat(500_000));
    let answer = member.ask(&post("/raft", LEGAL, &body)).await;
    assert_eq!((answer.status, answer.body.as_str()), (503, "too many raft messages under way\n"));
    body.truncate(HEARTBEAT.len() + 200_000);
    assert_eq!(member.ask(&post("/raft", LEGAL, &body)).await.status, 204);
    let stranger = LEGAL.replace("X-Server-From: 2", "X-Server-From: 7");
    assert_eq!(member.ask(&post("/raft", &stranger, &body)).await.status, 503);
    assert_eq!(member.raft.taken.lock().unwrap().len(), 1);
    assert_eq!(errors(&member, (Channel::Pipeline, "busy")), 1);
}

/// What peer 2 sent that was not taken.
fn errors(member: &Member, of: (Channel, &'static str)) -> u64 {
    let peers = member.transport.peers();
    peers.iter().find(|peer| peer.id.0 == 2).unwrap().incoming.frame_errors.of(of)
}

#[tokio::test]
async fn what_is_sent_as_a_snapshot_and_is_none_is_counted() {
    let member = Member::start().await;
    for body in [frame(HEARTBEAT, b""), frame(&[0x08, 8], b""), frame(&SNAPSHOT[..8], b"the data")] {
        assert_eq!(member.ask(&post("/raft/snapshot", LEGAL, &body)).await.status, 400);
    }
    assert_eq!(errors(&member, (Channel::Snapshot, "not_a_snapshot")), 3);
}

#[tokio::test]
async fn a_body_that_stalls_is_refused_after_five_seconds() {
    let member = Member::start().await;
    let mut connection = member.connect().await;
    let mut whole = post("/raft", LEGAL, HEARTBEAT);
    whole.pop();
    connection.write_all(&whole).await.unwrap();
    let since = Instant::now();
    let answer = answer(&mut connection, false).await.unwrap();
    assert_eq!((answer.status, answer.body.as_str()), (400, "error reading raft message\n"));
    assert!((5..9).contains(&since.elapsed().as_secs()), "{:?}", since.elapsed());
    assert!(closes(&mut connection, Duration::from_secs(5)).await);
}

#[tokio::test]
async fn a_snapshot_that_breaks_off_is_not_saved() {
    let member = Member::start().await;
    let mut connection = member.connect().await;
    let mut whole = post("/raft/snapshot", LEGAL, &frame(SNAPSHOT, &[7; 100_000]));
    whole.pop();
    connection.write_all(&whole).await.unwrap();
    connection.shutdown().await.unwrap();
    assert!(closes(&mut connection, Duration::from_secs(5)).await);
    assert!(member.raft.taken.lock().unwrap().is_empty());
    assert_eq!(member.ask(&post("/raft/snapshot", LEGAL, &frame(SNAPSHOT, b"whole"))).await.status, 204);
}

#[tokio::test]
async fn strangers_take_one_place_for_snapshots_and_leave_members_theirs() {
    let member = Member::start().await;
    let begun = |from: &str| {
        let headers = LEGAL.replace("X-Server-From: 2", &format!("X-Server-From: {from}"));
        let mut whole = post("/raft/snapshot", &headers, &frame(SNAPSHOT, &[7; 1000]));
        whole.pop();
        whole
    };
    let mut waiting = Vec::new();
    for from in ["77", "2", "3"] {
        let mut connection = member.connect().await;
        connection.write_all(&begun(from)).await.unwrap();
        waiting.push(connection);
        sleep(SHORT).await;
    }
    for from in ["78", "4"] {
        let headers = LEGAL.replace("X-Server-From: 2", &format!("X-Server-From: {from}"));
        let answer = member.ask(&post("/raft/snapshot", &headers, &frame(SNAPSHOT, b"one more"))).await;
        let why = "failed to save KV snapshot (too many snapshots at a time)\n";
        assert_eq!((answer.status, answer.body.as_str()), (503, why), "{from}");
    }
    for mut connection in waiting {
        connection.write_all(&[7]).await.unwrap();
        assert_eq!(answer(&mut connection, false).await.unwrap().status, 204);
    }
}

#[tokio::test]
async fn a_refused_sender_gets_to_read_why_though_it_was_still_sending() {
    let member = Member::start().await;
    let elsewhere = LEGAL.replace("X-Etcd-Cluster-ID: 1000", "X-Etcd-Cluster-ID: 2000");
    let answer = member.ask(&post("/raft", &elsewhere, &vec![0; 8 << 20])).await;
    assert_eq!((answer.status, answer.body.as_str()), (412, "cluster ID mismatch\n"));
}

#[tokio::test]
async fn an_address_holds_sixteen_connections_until_peers_use_them() {
    let registry = Registry::new();
    let metrics = ConnectionMetrics::register(&registry).unwrap();
    let member = Member::with(Limits::default(), |server| server.metrics(&metrics)).await;
    let mut connections = Vec::new();
    for _ in 0..40 {
        let mut connection = member.connect().await;
        // One after the other, so that none is closed unheard.
        assert_eq!(ask(&mut connection, &probe()).await.unwrap().status, 200);
        connections.push(connection);
    }
    assert_eq!(alive(&mut connections).await, 16);
    assert_eq!(alive(&mut connections[24..]).await, 16, "the oldest make room");

    let mut peers = Vec::new();
    for number in 0..24 {
        let mut connection = member.connect().await;
        assert_eq!(ask(&mut connection, &heartbeat_from(2 + number % 3)).await.unwrap().status, 204);
        peers.push(connection);
    }
    assert_eq!(alive(&mut peers).await, 24, "what peers use is not counted by address");
    let shown = TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
    // The first of the peer's was nobody's, too, until it was heard.
    assert!(shown.contains("rafthttp_connections 39\n"), "{shown}");
    assert!(shown.contains("rafthttp_connections_shed_total{reason=\"address\"} 25\n"), "{shown}");
    assert!(shown.contains("rafthttp_connections_shed_total{reason=\"port\"} 0\n"), "{shown}");
}

#[tokio::test]
async fn members_that_share_an_address_do_not_cost_each_other_their_probes() {
    let member = Member::bounded(ConnectionLimits { per_address: 1, ..Default::default() }).await;
    let mut probes = Vec::new();
    for peer in [2, 3, 4] {
        let from = LEGAL.replace("X-Server-From: 2", &format!("X-Server-From: {peer}"));
        let mut connection = member.connect().await;
        assert_eq!(ask(&mut connection, &request("GET", "/raft/probing", &from)).await.unwrap().status, 200);
        probes.push(connection);
    }
    let others = [
        LEGAL.replace("X-Server-From: 2", "X-Server-From: 7"),
        LEGAL.replace("X-Etcd-Cluster-ID: 1000", "X-Etcd-Cluster-ID: 2000"),
        String::new(),
    ];
    let mut nobodys = Vec::new();
    for headers in others {
        let mut connection = member.connect().await;
        assert_eq!(ask(&mut connection, &request("GET", "/raft/probing", &headers)).await.unwrap().status, 200);
        nobodys.push(connection);
    }
    assert_eq!(alive(&mut probes).await, 3);
    assert_eq!(alive(&mut nobodys).await, 1, "strangers and other clusters share the address");
}

#[tokio::test]
async fn two_thousand_strangers_cost_no_peer_its_connections() {
    let limits = ConnectionLimits { total: 64, per_address: 64, ..Default::default() };
    let member = Member::bounded(limits).await;
    let mut stream = member.connect().await;
    let answer = ask(&mut stream, &request("GET", "/raft/stream/message/2", LEGAL)).await.unwrap();
    assert_eq!(answer.status, 200);
    let mut pipeline = member.connect().await;
    assert_eq!(ask(&mut pipeline, &heartbeat_from(2)).await.unwrap().status, 204);

    let mut strangers = Vec::new();
    for number in 0..2000 {
        // Some are refused at once while others are still leaving.
        if let Ok(Ok(connection)) = timeout(Duration::from_secs(5), TcpStream::connect(member.address)).await {
            strangers.push(connection);
        }
        if number % 500 == 499 {
            // A peer that is not connected yet gets in, at the latest when it dials again.
            let mut tries = 0;
            let mut late = member.connect().await;
            while !ask(&mut late, &heartbeat_from(3)).await.is_ok_and(|answer| answer.status == 204) {
                tries += 1;
                assert!(tries < 10, "a peer does not get in");
                late = member.connect().await;
            }
        }
    }
    assert!(alive(&mut strangers).await <= 64);
    assert_eq!(ask(&mut pipeline, &heartbeat_from(2)).await.unwrap().status, 204);
    let mut link_heartbeat = [0; 8];
    timeout(PATIENCE, stream.read_exact(&mut link_heartbeat)).await.unwrap().unwrap();
}

/// A stranger that opens streams in a peer's name and never reads would hold what is queued for ever.
#[tokio::test]
async fn a_stream_that_is_never_read_is_cut_after_five_seconds() {
    let member = Member::start().await;
    let mut stream = member.connect().await;
    let answer = ask(&mut stream, &request("GET", "/raft/stream/message/2", LEGAL)).await.unwrap();
    assert_eq!(answer.status, 200);
    let entry = Entry { data: vec![7; 1 << 20].into(), ..Default::default() };
    let message = Message { to: 2, term: 1, entries: vec![entry], ..Default::default() };
    member.transport.send(vec![message; 32]);
    let up = || {
        let peers = member.transport.peers();
        peers.iter().any(|peer| peer.link.stream_up.values().flat_map(|ways| ways.values()).any(|up| *up))
    };
    assert!(up());
    let since = Instant::now();
    while up() {
        assert!(since.elapsed() < PATIENCE);
        sleep(Duration::from_millis(50)).await;
    }
    assert!((4..9).contains(&since.elapsed().as_secs()), "{:?}", since.elapsed());
    let lost = |peer: &PeerStatus| peer.link.losses.of((Channel::Message, Direction::Out, LossReason::Stalled));
    assert_eq!(member.transport.peers().iter().map(lost).sum::<u64>(), 1);
}

#[tokio::test]
async fn stopping_closes_what_is_idle_and_ends_streams_cleanly() {
    let member = Member::start().await;
    let mut idle = member.connect().await;
    assert_eq!(ask(&mut idle, &probe()).await.unwrap().status, 200);
    let mut silent = member.connect().await;
    let mut stream = member.connect().await;
    assert_eq!(ask(&mut stream, &request("GET", "/raft/stream/msgapp/2", LEGAL)).await.unwrap().status, 200);

    let since = Instant::now();
    member.stop.cancel();
    member.transport.stop().await;
    timeout(PATIENCE, member.serving).await.unwrap().unwrap();
    assert!(since.elapsed() < Duration::from_secs(2), "{:?}", since.elapsed());
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    assert!(rest.ends_with(b"0\r\n\r\n"), "{rest:?}");
    assert!(closes(&mut idle, SHORT).await && closes(&mut silent, SHORT).await);
    assert!(TcpStream::connect(member.address).await.is_err());
}

#[tokio::test]
async fn a_request_under_way_is_answered_though_the_server_stops() {
    let member = Member::start().await;
    member.raft.gate.forget_permits(usize::MAX);
    let mut connection = member.connect().await;
    connection.write_all(&heartbeat_from(2)).await.unwrap();
    while member.raft.waiting.load(Ordering::Relaxed) == 0 {
        sleep(Duration::from_millis(5)).await;
    }
    member.stop.cancel();
    sleep(SHORT).await;
    assert!(!member.serving.is_finished());
    member.raft.gate.add_permits(1);
    assert_eq!(answer(&mut connection, false).await.unwrap().status, 204);
    timeout(Duration::from_secs(2), member.serving).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_request_that_does_not_end_is_cut_after_the_grace() {
    let member = Member::bounded(ConnectionLimits { grace: SHORT, ..Default::default() }).await;
    member.raft.gate.forget_permits(usize::MAX);
    let mut connection = member.connect().await;
    connection.write_all(&heartbeat_from(2)).await.unwrap();
    while member.raft.waiting.load(Ordering::Relaxed) == 0 {
        sleep(Duration::from_millis(5)).await;
    }
    member.stop.cancel();
    timeout(Duration::from_secs(2), member.serving).await.unwrap().unwrap();
    assert!(closes(&mut connection, SHORT).await);
    let peers = member.transport.peers();
    let incoming = &peers.iter().find(|peer| peer.id.0 == 2).unwrap().incoming;
    assert!(incoming.balances(), "{incoming:?}");
    assert_eq!(incoming.waiting, 0);
}
