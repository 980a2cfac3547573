//! Series come and go with their peer, and show nothing that was not measured.

#[path = "support/scrape.rs"]
mod scrape;
mod support;

use std::collections::BTreeSet;

use rafthttp::{
    ClusterId, MemberId, SnapshotBody, SnapshotStore,
    metrics::{Channel, Direction, Exposition, Options},
};
use scrape::Scrape;
use support::{TestMember, append, connected, heartbeat, pair, snapshot, until};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

fn scraped(member: &TestMember) -> Scrape {
    let text: String = Exposition::new(member.status(), &Options::default())
        .map(|piece| String::from_utf8(piece.to_vec()).expect("text"))
        .collect();
    Scrape::parse(&text)
}

/// Every series of a scrape, without its value.
fn series(scrape: &Scrape) -> BTreeSet<String> {
    scrape.samples().iter().map(|sample| format!("{}{:?}", sample.name, sample.labels)).collect()
}

#[tokio::test]
async fn a_peer_that_was_never_reached_has_no_round_trip() {
    let one = TestMember::start(1).await;
    // Nobody listens there.
    let gone = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
    one.transport.add_peer(MemberId(2), vec![format!("http://{gone}").parse().expect("a URL")]).expect("a peer");
    let failed = || scraped(&one).sum("rafthttp_probes_total", &[("result", "connect")]).unwrap_or(0.0);
    until("probed three times", || failed() >= 3.0).await;
    let scrape = scraped(&one);
    assert_eq!(scrape.sum("rafthttp_peer_reachable", &[]), Some(0.0));
    for name in ["rafthttp_probe_duration_seconds", "etcd_network_peer_round_trip_time_seconds"] {
        assert_eq!(scrape.sum(&format!("{name}_count"), &[]), Some(0.0), "{name}");
        assert_eq!(scrape.sum(&format!("{name}_sum"), &[]), Some(0.0), "{name}");
        assert_eq!(scrape.sum(&format!("{name}_bucket"), &[("le", "+Inf")]), Some(0.0), "{name}");
    }
    for name in [
        "rafthttp_peer_clock_offset_seconds",
        "rafthttp_stream_last_frame_timestamp_seconds",
        "rafthttp_messages_unconfirmed",
        "rafthttp_snapshot_progress_ratio",
    ] {
        assert_eq!(scrape.sum(name, &[]), None, "{name}");
    }
    assert_eq!(scrape.sum("rafthttp_append_round_trip_seconds_count", &[]), Some(0.0));
}

#[tokio::test]
async fn a_measurement_that_holds_no_longer_is_not_shown() {
    let (one, two) = pair().await;
    one.transport.send(vec![append(1, 2, 1, b"x")]);
    until("taken", || two.taken() == 1).await;
    // Two more probes: the second began after the message was read.
    let probes = || scraped(&one).sum("rafthttp_probes_total", &[("result", "ok")]).unwrap_or(0.0);
    let before = probes();
    until("measured", || probes() >= before + 2.0).await;
    assert!(scraped(&one).sum("rafthttp_peer_clock_offset_seconds", &[]).is_some());
    assert_eq!(scraped(&one).sum("rafthttp_messages_unconfirmed", &[]), Some(0.0));
    two.stop().await;
    until("unreachable", || scraped(&one).sum("rafthttp_peer_reachable", &[]) == Some(0.0)).await;
    assert_eq!(scraped(&one).sum("rafthttp_peer_clock_offset_seconds", &[]), None);
    // Its streams are gone, and all that was written on them was read.
    until("no longer shown", || scraped(&one).sum("rafthttp_messages_unconfirmed", &[]).is_none()).await;
}

/// Nothing looks at spans here: there is no trace that an exemplar could name.
#[tokio::test]
async fn a_trace_that_nobody_keeps_is_not_named() {
    let one = TestMember::start_with(1, |one| one.trace_ratio(1.0)).await;
    let two = TestMember::start_with(2, |two| two.trace_ratio(1.0)).await;
    one.add(&two);
    two.add(&one);
    connected(&one, &two).await;
    one.transport.send(vec![append(1, 2, 1, b"x")]);
    until("taken", || two.transport.peers()[0].incoming.process_seconds.count() == 1).await;
    let outgoing = &one.transport.peers()[0].outgoing.queue_seconds[Channel::MsgApp];
    assert_eq!((outgoing.count(), outgoing.exemplars().count()), (1, 0));
    assert_eq!(two.transport.peers()[0].incoming.process_seconds.exemplars().count(), 0);
}

#[tokio::test]
async fn a_removed_peer_has_no_series() {
    let (one, two) = pair().await;
    one.transport.send(vec![append(1, 2, 1, b"x"), heartbeat(1, 2, 1)]);
    until("taken", || two.taken() == 2).await;
    until("probed", || scraped(&one).sum("rafthttp_peer_reachable", &[]) == Some(1.0)).await;
    let mentions = |scrape: &Scrape| -> Vec<String> {
        let of_two = scrape.samples().iter().filter(|sample| {
            ["peer", "To", "From", "Remote"].iter().any(|label| sample.labels.get(*label).is_some_and(|id| id == "2"))
        });
        of_two.map(|sample| sample.name.clone()).collect()
    };
    assert!(mentions(&scraped(&one)).len() > 100);
    one.transport.remove_peer(MemberId(2));
    assert_eq!(mentions(&scraped(&one)), Vec::<String>::new());
    // What it still sends makes none again: it is a stranger.
    two.transport.send(vec![heartbeat(2, 1, 1)]);
    until("refused", || scraped(&two).sum("rafthttp_stream_up", &[("direction", "in")]) == Some(0.0)).await;
    let back: Vec<String> = mentions(&scraped(&one)).into_iter().filter(|name| name.contains("probe")).collect();
    assert_eq!(back, Vec::<String>::new());
}

#[tokio::test]
async fn fifty_strangers_requests_add_no_series() {
    let (one, two) = pair().await;
    one.transport.send(vec![heartbeat(1, 2, 1)]);
    until("taken", || two.taken() == 1).await;
    let frames = || {
        let name = "rafthttp_stream_last_frame_timestamp_seconds";
        scraped(&one).samples().iter().filter(|sample| sample.name == name).count()
    };
    until("a link heartbeat has passed on every stream", || frames() == 4).await;
    // One of each first: what a stranger's request counts under `other` is there from now on.
    ask_all(&one, 1000).await;
    let before = series(&scraped(&one));
    for stranger in 1001..1050 {
        ask_all(&one, stranger).await;
    }
    let after = series(&scraped(&one));
    let added: Vec<_> = after.difference(&before).collect();
    assert!(added.is_empty(), "{added:?}");
    assert_eq!(scraped(&one).peers(), ["2", "other"].into());
}

/// Every request that there is, from a member that nobody knows, of this cluster and of another, with and without URLs
/// that cannot be dialled.
async fn ask_all(member: &TestMember, stranger: u64) {
    for cluster in [support::CLUSTER, ClusterId(0xbad)] {
        let from = MemberId(stranger);
        let head = |method: &str, path: &str, more: &str| {
            format!(
                "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Server-From: {from}\r\n\
                 X-Server-Version: 3.6.0\r\nX-Min-Cluster-Version: 3.0.0\r\nX-Etcd-Cluster-ID: {cluster}\r\n\
                 X-Raft-To: 1\r\nX-Rafthttp-Stream: {from}\r\n{more}\r\n"
            )
        };
        let garbage = "Content-Length: 3\r\nX-PeerURLs: gopher://x\r\n";
        for request in [
            head("GET", "/raft/probing", ""),
            head("GET", &format!("/raft/stream/msgapp/{from}"), ""),
            head("GET", &format!("/raft/stream/message/{from}"), "X-PeerURLs: http://nowhere\r\n"),
            head("POST", "/raft", garbage) + "abc",
            head("POST", "/raft/snapshot", garbage) + "abc",
            head("GET", &format!("/raft/stream/{from}/1"), ""),
        ] {
            let mut stream = TcpStream::connect(member.url.authority()).await.expect("it listens");
            stream.write_all(request.as_bytes()).await.expect("it reads");
            let mut answer = Vec::new();
            // A refused client may find the connection reset after the answer.
            let _ = stream.read_to_end(&mut answer).await;
            let text = String::from_utf8_lossy(&answer);
            assert!(!text.contains("\"member\""), "a stranger is told no more than that we are there: {text}");
        }
    }
}

#[tokio::test]
async fn a_snapshots_progress_is_shown_while_its_length_is_known() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = SnapshotStore::open(directory.path()).expect("a store");
    let (one, two) = (TestMember::start(1).await, TestMember::start_with(2, |two| two.snapshots(store)).await);
    one.add(&two);
    two.add(&one);
    connected(&one, &two).await;
    let progress = |member: &TestMember, direction: Direction| {
        scraped(member).sum("rafthttp_snapshot_progress_ratio", &[("direction", direction.label())])
    };
    let message = |index| snapshot(1, 2, index);
    for (index, length) in [(7, Some(4000)), (8, None)] {
        assert_eq!((progress(&one, Direction::Out), progress(&two, Direction::In)), (None, None));
        let (give, pieces) = tokio::sync::mpsc::unbounded_channel();
        let pieces =
            futures_util::stream::unfold(pieces, |mut pieces| async move { Some((pieces.recv().await?, pieces)) });
        one.transport.send_snapshot(message(index), SnapshotBody::from_stream(pieces, length));
        give.send(Ok(vec![1; 1000].into())).expect("it is read");
        until("a quarter has passed", || {
            let bytes = two.transport.peers()[0].link.snapshots[Direction::In].passed;
            bytes == 1000 && one.transport.peers()[0].link.snapshots[Direction::Out].passed == 1000
        })
        .await;
        let quarter = length.map(|_| 0.25);
        assert_eq!((progress(&one, Direction::Out), progress(&two, Direction::In)), (quarter, quarter));
        give.send(Ok(vec![1; 3000].into())).expect("it is read");
        drop(give);
        until("it has ended", || {
            let ok = |member: &TestMember, direction: Direction| {
                scraped(member).sum("rafthttp_snapshots_total", &[("direction", direction.label()), ("result", "ok")])
            };
            let ended = Some((index - 6) as f64);
            ok(&one, Direction::Out) == ended && ok(&two, Direction::In) == ended
        })
        .await;
    }
    assert_eq!((progress(&one, Direction::Out), progress(&two, Direction::In)), (None, None));
    let bytes = |member: &TestMember| scraped(member).sum("rafthttp_snapshot_bytes_total", &[]);
    assert_eq!((bytes(&one), bytes(&two)), (Some(8000.0), Some(8000.0)));
}
