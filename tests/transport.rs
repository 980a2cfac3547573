//! The transport between real sockets: one behaviour of the wire each.

mod support;

use std::time::{Duration, SystemTime};

use axum::http::StatusCode;
use rafthttp::{
    Critical, MemberId, PeerUrl, SnapshotBody, SnapshotStatus, SnapshotStore,
    internals::world::World,
    metrics::{AttemptResult, Channel, Direction, DropReason, LossReason, MessageKind},
    wire::{
        StreamKind,
        raftpb::{Message, MessageType},
    },
};
use support::{TestMember, append, connected, heartbeat, lock, pair, proposal, snapshot, until};
use tokio::io::AsyncWriteExt as _;

#[tokio::test]
async fn appends_go_by_their_own_stream_and_all_else_by_the_other() {
    let (one, two) = pair().await;
    one.transport.send(vec![append(1, 2, 1, b"a"), heartbeat(1, 2, 1), append(1, 2, 2, b"b")]);
    until("three messages taken", || two.taken() == 3).await;
    let ledger = &one.transport.peers()[0].outgoing;
    assert_eq!(ledger.sent[Channel::MsgApp][MessageType::MsgApp.into()], 2);
    assert_eq!(ledger.sent[Channel::Message][MessageType::MsgHeartbeat.into()], 1);
    one.check_ledger();
    two.check_ledger();
}

#[tokio::test]
async fn messages_of_one_stream_arrive_as_they_were_sent_and_in_order() {
    let (one, two) = pair().await;
    let sent: Vec<Message> = (1..=3000).map(|index| append(1, 2, index, &vec![7; (index % 300) as usize])).collect();
    for part in sent.chunks(37) {
        one.transport.send(part.to_vec());
    }
    until("all taken", || two.taken() == sent.len()).await;
    let taken: Vec<Message> = lock(&two.raft.taken).iter().map(|(_, message)| message.clone()).collect();
    assert_eq!(taken, sent);
}

#[tokio::test]
async fn large_entries_arrive_whole() {
    let (one, two) = pair().await;
    let sent: Vec<Message> = [8 << 10, 64 << 10, 1 << 20, 9 << 20]
        .into_iter()
        .zip(1..)
        .map(|(size, index)| append(1, 2, index, &vec![3; size]))
        .collect();
    one.transport.send(sent.clone());
    until("all taken", || two.taken() == sent.len()).await;
    assert!(lock(&two.raft.taken).iter().map(|(_, message)| message).eq(&sent));
    until("both ends count the same bytes", || {
        let out = one.transport.peers()[0].outgoing.bytes[Channel::MsgApp];
        out == two.transport.peers()[0].incoming.bytes[Channel::MsgApp]
    })
    .await;
}

#[tokio::test]
async fn without_a_stream_messages_go_by_the_pipeline() {
    let (one, two) = (TestMember::start(1).await, TestMember::start(2).await);
    // Two does not know one, so it dials no stream to hear it.
    one.add(&two);
    one.transport.send(vec![append(1, 2, 1, b"a"), heartbeat(1, 2, 1)]);
    until("both taken", || two.taken() == 2).await;
    until("both counted", || one.transport.peers()[0].outgoing.sent[Channel::Pipeline].total() == 2).await;
    one.check_ledger();
    // Two has learned of one from its requests, and reaches it by the pipeline as a remote.
    let remote = two.transport.peers();
    assert!(remote.len() == 1 && remote[0].is_remote() && remote[0].urls == [one.url.clone()]);
    two.transport.send(vec![heartbeat(2, 1, 1)]);
    until("taken", || one.taken() == 1).await;
}

#[tokio::test]
async fn a_remote_is_counted_with_others_until_it_becomes_a_peer_which_is_given_its_queue() {
    const KIND: MessageType = MessageType::MsgHeartbeat;
    let (one, two) = (TestMember::start(1).await, TestMember::start(2).await);
    one.add(&two);
    one.transport.send(vec![heartbeat(1, 2, 1)]);
    until("taken", || two.taken() == 1).await;
    let received = two.status().strangers.expect("it listens").received;
    assert_eq!(received[Channel::Pipeline][KIND.into()], 1);
    // Four are on their way, the others wait: nobody takes anything while raft holds the first.
    let others = || two.status().others.expect("it writes");
    let held = one.raft.proposals.lock().await;
    two.transport.send((0..10).map(|_| proposal(2, 1)).collect());
    until("all are queued", || one.transport.peers()[0].incoming.waiting == 4 && others().queued.total() == 10).await;
    two.check_ledger();
    two.add(&one);
    two.check_ledger();
    let promoted =
        others().dropped.iter().filter(|((.., reason), _)| *reason == DropReason::Promoted).map(|of| of.1).sum();
    assert_eq!((others().queued.total(), promoted), (4, 6));
    assert_eq!(two.transport.peers()[0].outgoing.offered.total(), 6, "what waited is the peer's");
    drop(held);
    connected(&one, &two).await;
    until("all arrive", || one.taken() == 10).await;
    until("all are counted", || others().sent.total() == 4 && others().queued.total() == 0).await;
    let status = &two.transport.peers()[0];
    assert!(!status.is_remote());
    assert_eq!(status.incoming.received[Channel::Pipeline].total(), 0, "what came before is not its own");
    one.check_ledger();
    two.check_ledger();
}

#[tokio::test]
async fn send_skips_and_counts_what_has_no_destination_or_an_unknown_one() {
    let one = TestMember::start(1).await;
    one.transport.send(vec![heartbeat(1, 0, 1), heartbeat(1, 9, 1), heartbeat(1, 9, 1)]);
    let unroutable = one.status().unroutable;
    assert_eq!((unroutable.of("no_destination"), unroutable.of("unknown_peer")), (1, 2));
}

#[tokio::test]
async fn a_full_queue_drops_counts_and_tells_raft() {
    let one = TestMember::start_with(1, |builder| {
        builder.limits(rafthttp::Limits { pipeline_queue: 4, ..rafthttp::Limits::default() })
    })
    .await;
    // Accepts and never answers.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", silent.local_addr().expect("bound")).parse().expect("a URL");
    one.transport.add_peer(MemberId(2), vec![url]).expect("a peer");
    one.transport.send((0..10).map(|commit| heartbeat(1, 2, commit)).collect());
    let ledger = &one.transport.peers()[0].outgoing;
    let key = (MessageKind::from(MessageType::MsgHeartbeat), Channel::Pipeline, DropReason::QueueFull);
    assert_eq!((ledger.dropped.of(key), ledger.queued[Channel::Pipeline]), (6, 4));
    assert_eq!(*lock(&one.raft.unreachable), [MemberId(2)]);
    one.check_ledger();
}

#[tokio::test]
async fn a_proposal_that_waits_does_not_hold_up_the_rest() {
    let (one, two) = pair().await;
    let held = two.raft.proposals.lock().await;
    one.transport.send(vec![proposal(1, 2), heartbeat(1, 2, 1)]);
    until("the heartbeat is taken", || two.taken() == 1).await;
    assert_eq!(two.transport.peers()[0].incoming.waiting, 1);
    two.check_ledger();
    drop(held);
    until("the proposal is taken", || two.taken() == 2).await;
}

#[tokio::test]
async fn a_full_receive_queue_drops_and_counts_and_the_stream_goes_on() {
    let one = TestMember::start(1).await;
    let two = TestMember::start_with(2, |builder| {
        builder.limits(rafthttp::Limits { receive_queue: 10, ..rafthttp::Limits::default() })
    })
    .await;
    one.add(&two);
    two.add(&one);
    connected(&one, &two).await;
    let held = two.raft.rest.lock().await;
    for commit in 0..50 {
        one.transport.send(vec![heartbeat(1, 2, commit)]);
    }
    until("all read", || two.transport.peers()[0].incoming.received.total() == 50).await;
    two.check_ledger();
    drop(held);
    until("what fitted is taken", || two.taken() == 10).await;
    assert_eq!(two.transport.peers()[0].incoming.rejected.total(), 40);
    one.transport.send(vec![heartbeat(1, 2, 50)]);
    until("the stream goes on", || two.taken() == 11).await;
    two.check_ledger();
}

#[tokio::test]
async fn a_paused_transport_drops_both_ways_while_its_connections_stay() {
    let (one, two) = pair().await;
    one.transport.pause();
    one.transport.send(vec![heartbeat(1, 2, 1)]);
    two.transport.send(vec![heartbeat(2, 1, 1)]);
    until("what came is rejected", || one.transport.peers()[0].incoming.rejected.total() == 1).await;
    assert_eq!(one.transport.peers()[0].outgoing.dropped.total(), 1);
    assert_eq!((one.taken(), two.taken()), (0, 0));
    one.transport.resume();
    connected(&one, &two).await;
    one.transport.send(vec![heartbeat(1, 2, 2)]);
    two.transport.send(vec![heartbeat(2, 1, 2)]);
    until("both flow again", || one.taken() == 1 && two.taken() == 1).await;
    assert_eq!(one.transport.peers()[0].link.losses.total(), 0, "no stream was lost");
    one.check_ledger();
}

#[tokio::test]
async fn a_peer_that_is_cut_is_the_only_one() {
    let (one, two) = pair().await;
    let three = TestMember::start(3).await;
    one.add(&three);
    three.add(&one);
    connected(&one, &three).await;
    one.transport.cut_peer(two.id);
    one.transport.send(vec![heartbeat(1, 2, 1), heartbeat(1, 3, 1)]);
    until("the other gets its message", || three.taken() == 1).await;
    one.transport.mend_peer(two.id);
    one.transport.send(vec![heartbeat(1, 2, 2)]);
    until("mended", || two.taken() == 1).await;
}

#[tokio::test]
async fn a_removed_member_is_told_by_410_and_reports_it_once() {
    let (one, two) = (TestMember::start(1).await, TestMember::start(2).await);
    lock(&two.raft.removed).push(one.id);
    one.add(&two);
    until("told", || !lock(&one.raft.critical).is_empty()).await;
    let attempts = || one.transport.peers()[0].link.attempts.of((Channel::Message, AttemptResult::Removed));
    until("told again", || attempts() >= 3).await;
    assert_eq!(*lock(&one.raft.critical), [Critical::MemberRemoved { by: two.id }]);
}

/// Answers streams with 410 and POSTs with 403, in etcd's words, with one header.
async fn says_removed(header: (&'static str, &'static str)) -> (PeerUrl, tokio::task::JoinHandle<()>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("it is bound")).parse().expect("a URL");
    let says = move |status: StatusCode| async move {
        (status, [header], "the member has been permanently removed from the cluster")
    };
    let app = axum::Router::new()
        .route("/raft", axum::routing::any(move || says(StatusCode::FORBIDDEN)))
        .fallback(move || says(StatusCode::GONE));
    let serving = async move { axum::serve(listener, app).await.expect("it serves") };
    (url, tokio::spawn(serving))
}

#[tokio::test]
async fn an_answer_counts_as_a_members_by_its_version_or_its_cluster() {
    for header in [("X-Server-Version", "3.6.0"), ("X-Etcd-Cluster-ID", "1000")] {
        let (url, serving) = says_removed(header).await;
        let one = TestMember::start(1).await;
        one.transport.add_peer(MemberId(2), vec![url]).expect("a peer");
        until("told", || !lock(&one.raft.critical).is_empty()).await;
        serving.abort();
    }
}

#[tokio::test]
async fn who_is_no_member_cannot_say_that_a_member_was_removed() {
    for header in [("Server", "nginx"), ("X-Etcd-Cluster-ID", "2000")] {
        let (url, serving) = says_removed(header).await;
        let one = TestMember::start(1).await;
        one.transport.add_peer(MemberId(2), vec![url]).expect("a peer");
        until("both streams and a message were refused", || {
            one.transport.send(vec![heartbeat(1, 2, 1)]);
            let peers = one.transport.peers();
            let refused = |channel| peers[0].link.attempts.of((channel, AttemptResult::Refused)) > 0;
            let dropped = peers[0].outgoing.dropped.iter().any(|((.., reason), _)| reason == DropReason::Refused);
            refused(Channel::MsgApp) && refused(Channel::Message) && dropped
        })
        .await;
        assert!(lock(&one.raft.critical).is_empty());
        serving.abort();
    }
}

/// Announces an answer to whatever is asked, without end.
async fn only_announces() -> (PeerUrl, tokio::task::JoinHandle<()>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("bound")).parse().expect("a URL");
    let serving = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let announced = b"HTTP/1.1 100 Continue\r\n\r\n".repeat(1000);
                while stream.write_all(&announced).await.is_ok() {}
            });
        }
    });
    (url, serving)
}

#[tokio::test]
async fn an_endless_run_of_informational_answers_costs_a_connection_and_delays_nobody() {
    let (url, serving) = only_announces().await;
    let one = TestMember::start(1).await;
    one.transport.add_peer(MemberId(2), vec![url]).expect("a peer");
    let body = SnapshotBody::from_stream(futures_util::stream::iter([Ok("data".into())]), Some(4));
    let kind = MessageType::MsgSnap as i32;
    let snapshot = Message { r#type: kind, snapshot: Some(Box::default()), ..heartbeat(1, 2, 1) };
    one.transport.send_snapshot(snapshot, body);
    let mut slowest = Duration::ZERO;
    until("streams, a message and a snapshot were given up", || {
        one.transport.send(vec![heartbeat(1, 2, 1)]);
        let peers = one.transport.peers();
        let refused = |channel| peers[0].link.attempts.of((channel, AttemptResult::Refused)) > 0;
        let given_up = |of| peers[0].outgoing.dropped.iter().any(|((_, channel, _), _)| channel == of);
        refused(Channel::MsgApp)
            && refused(Channel::Message)
            && given_up(Channel::Pipeline)
            && given_up(Channel::Snapshot)
    })
    .await;
    let (_, why) = one.transport.peers()[0].link.last_error.clone().expect("it failed");
    for _ in 0..20 {
        let begun = std::time::Instant::now();
        tokio::time::sleep(Duration::from_millis(10)).await;
        slowest = slowest.max(begun.elapsed());
    }
    assert!(slowest < Duration::from_millis(300), "on the one thread there is: {slowest:?}; {why}");
    serving.abort();
}

/// A stranger chooses the URL at which we answer him.
#[tokio::test]
async fn a_remote_cannot_say_that_a_member_was_removed() {
    let (url, serving) = says_removed(("X-Etcd-Cluster-ID", "1000")).await;
    let one = TestMember::start(1).await;
    one.transport.add_remote(MemberId(2), vec![url.clone()]).expect("a remote");
    let refused = || {
        let others = one.status().others.expect("it writes");
        others.dropped.iter().any(|((.., reason), _)| reason == DropReason::Refused)
    };
    until("a message was refused", || {
        one.transport.send(vec![heartbeat(1, 2, 1)]);
        refused()
    })
    .await;
    assert!(lock(&one.raft.critical).is_empty());
    one.transport.add_peer(MemberId(2), vec![url]).expect("a peer");
    until("a configured member is believed", || !lock(&one.raft.critical).is_empty()).await;
    serving.abort();
}

#[tokio::test]
async fn a_reader_moves_on_to_the_next_url() {
    let (one, two) = (TestMember::start(1).await, TestMember::start(2).await);
    let dead: rafthttp::PeerUrl = "http://127.0.0.1:1".parse().expect("a URL");
    one.transport.add_peer(two.id, vec![dead, two.url.clone()]).expect("a peer");
    two.add(&one);
    connected(&one, &two).await;
}

#[tokio::test]
async fn a_peer_that_starts_later_is_found_at_once_when_it_asks() {
    let one = TestMember::start(1).await;
    let later = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = later.local_addr().expect("bound");
    drop(later);
    one.transport.add_peer(MemberId(2), vec![format!("http://{address}").parse().expect("a URL")]).expect("a peer");
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let attempts: u64 = one.transport.peers()[0].link.attempts.total();
    assert!((1..=12).contains(&attempts), "{attempts} dials of a dead peer in 1.5 s");
    let listener = tokio::net::TcpListener::bind(address).await.expect("the same port");
    let two = TestMember::start_on(2, listener, |builder| builder).await;
    two.add(&one);
    let start = std::time::Instant::now();
    connected(&one, &two).await;
    assert!(start.elapsed() < Duration::from_millis(900), "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_stopped_transport_ends_its_streams_cleanly_and_leaves_no_task() {
    let (one, two) = pair().await;
    let url = two.url.clone();
    one.transport.stop().await;
    until("two sees a clean end", || {
        let link = &two.transport.peers()[0].link;
        [Channel::MsgApp, Channel::Message]
            .into_iter()
            .all(|channel| link.losses.of((channel, Direction::In, LossReason::Eof)) == 1)
    })
    .await;
    one.transport.send(vec![heartbeat(1, 2, 1)]);
    let ledger = &one.transport.peers()[0].outgoing;
    assert_eq!(ledger.dropped.total(), 1);
    one.check_ledger();
    assert_eq!(two.url, url);
}

#[tokio::test]
async fn a_removed_peer_has_no_status_any_more_and_its_streams_end() {
    let (one, two) = pair().await;
    one.transport.remove_peer(two.id);
    assert!(one.transport.peers().is_empty());
    until("two sees the end", || !two.stream(one.id, Channel::Message, Direction::In)).await;
}

#[tokio::test]
async fn probes_measure_the_round_trip_and_the_clock() {
    let (one, _two) = pair().await;
    until("a probe went well", || one.transport.peers()[0].link.probe_seconds.count() > 1).await;
    let link = &one.transport.peers()[0].link;
    assert_eq!(link.reachable, Some(true));
    assert!(link.round_trip.is_some_and(|time| time > Duration::ZERO && time < Duration::from_millis(150)));
    assert!(link.clock_offset.is_some_and(|seconds| seconds.abs() < 0.1), "{:?}", link.clock_offset);
}

#[tokio::test]
async fn a_peer_that_was_never_reached_has_no_round_trip() {
    let one = TestMember::start(1).await;
    one.transport.add_peer(MemberId(2), vec!["http://127.0.0.1:1".parse().expect("a URL")]).expect("a peer");
    until("probes failed", || one.transport.peers()[0].link.probes.total() > 1).await;
    let link = &one.transport.peers()[0].link;
    assert_eq!(
        (link.reachable, link.probe_seconds.count(), link.round_trip, link.clock_offset),
        (Some(false), 0, None, None)
    );
}

#[tokio::test]
async fn another_member_that_answers_in_a_peers_place_is_not_the_peer() {
    let (one, two) = pair().await;
    let failed = |id: u64| {
        let peers = one.transport.peers();
        let link = peers.iter().find(|peer| peer.id == MemberId(id)).map(|peer| &peer.link);
        link.is_some_and(|link| {
            let why = link.last_error.as_ref().map(|(_, why)| why.as_str()).unwrap_or_default();
            link.reachable == Some(false) && link.round_trip.is_none() && why.contains("in its place")
        })
    };
    // By the one's name we reach another peer, by the other's ourselves.
    one.transport.add_peer(MemberId(3), vec![two.url.clone()]).expect("a peer");
    one.transport.add_peer(MemberId(4), vec![one.url.clone()]).expect("a peer");
    until("neither is reachable", || failed(3) && failed(4)).await;
}

async fn snapshot_pair() -> (TestMember, TestMember, SnapshotStore, tempfile::TempDir) {
    let directory = tempfile::tempdir().expect("a directory");
    let store = SnapshotStore::open(directory.path()).expect("a store");
    let (one, kept) = (TestMember::start(1).await, store.clone());
    let two = TestMember::start_with(2, |builder| builder.snapshots(kept)).await;
    one.add(&two);
    two.add(&one);
    connected(&one, &two).await;
    (one, two, store, directory)
}

#[tokio::test]
async fn a_snapshot_is_saved_whole_before_its_message_is_handed_over() {
    let (one, two, store, _directory) = snapshot_pair().await;
    let body: Vec<u8> = (0..20 << 20).map(|at: u32| (at % 253) as u8).collect();
    one.transport.send_snapshot(snapshot(1, 2, 7), SnapshotBody::from_reader(std::io::Cursor::new(body.clone()), None));
    until("reported", || !lock(&one.raft.snapshots).is_empty()).await;
    assert_eq!(*lock(&one.raft.snapshots), [(two.id, SnapshotStatus::Finish)]);
    assert_eq!(lock(&two.raft.taken)[0].1, snapshot(1, 2, 7));
    assert!(std::fs::read(store.path(7)).is_ok_and(|saved| saved == body));
    one.check_ledger();
    two.check_ledger();
    let (sent, received) = (&one.transport.peers()[0].outgoing, &two.transport.peers()[0].incoming);
    assert_eq!(sent.bytes[Channel::Snapshot], received.bytes[Channel::Snapshot]);
}

#[tokio::test]
async fn a_snapshot_whose_source_fails_is_not_taken_for_a_whole_one() {
    let (one, two, store, _directory) = snapshot_pair().await;
    let pieces = futures_util::stream::unfold(0, |piece| async move {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let bytes =
            if piece < 2 { Ok(bytes::Bytes::from_static(b"half")) } else { Err(std::io::Error::other("no disk")) };
        Some((bytes, piece + 1))
    });
    one.transport.send_snapshot(snapshot(1, 2, 7), SnapshotBody::from_stream(pieces, None));
    until("reported", || !lock(&one.raft.snapshots).is_empty()).await;
    assert_eq!(*lock(&one.raft.snapshots), [(two.id, SnapshotStatus::Failure)]);
    until("counted", || two.transport.peers()[0].link.snapshots[Direction::In].failed == 1).await;
    assert!(!store.path(7).exists());
    assert_eq!(two.taken(), 0);
    one.check_ledger();
    two.check_ledger();
}

#[tokio::test]
async fn a_snapshot_to_who_is_no_peer_is_reported_as_failed_exactly_once() {
    let one = TestMember::start(1).await;
    one.transport.send_snapshot(snapshot(1, 2, 7), SnapshotBody::from_reader(std::io::empty(), None));
    assert_eq!(*lock(&one.raft.snapshots), [(MemberId(2), SnapshotStatus::Failure)]);
    assert_eq!(*lock(&one.raft.unreachable), [MemberId(2)]);
}

#[tokio::test]
async fn a_snapshot_through_send_to_who_is_no_peer_is_reported_as_failed() {
    let one = TestMember::start(1).await;
    one.transport.send(vec![snapshot(1, 2, 7), heartbeat(1, 2, 1)]);
    assert_eq!(*lock(&one.raft.snapshots), [(MemberId(2), SnapshotStatus::Failure)]);
    assert_eq!(one.status().unroutable.of("unknown_peer"), 2);
}

#[tokio::test]
async fn a_paused_member_takes_no_snapshot_and_says_so() {
    let (one, two, store, _directory) = snapshot_pair().await;
    two.transport.pause();
    one.transport.send_snapshot(snapshot(1, 2, 7), SnapshotBody::from_reader(&b"body"[..], None));
    until("reported", || !lock(&one.raft.snapshots).is_empty()).await;
    assert_eq!(*lock(&one.raft.snapshots), [(two.id, SnapshotStatus::Failure)]);
    assert!(!store.path(7).exists());
    one.check_ledger();
    two.check_ledger();
}

#[tokio::test]
async fn a_peer_that_refuses_is_not_dialled_more_than_a_peer_that_is_down() {
    let (one, two) = (TestMember::start(1).await, TestMember::start(2).await);
    // Two has not been told of one: it answers 404.
    one.add(&two);
    tokio::time::sleep(Duration::from_secs(3)).await;
    let attempts = one.transport.peers()[0].link.attempts.total();
    assert!((6..=40).contains(&attempts), "{attempts} dials in 3 s by two readers");
}

#[tokio::test]
async fn a_frozen_peer_loses_its_streams_after_three_failed_probes() {
    let one = TestMember::start(1).await;
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", silent.local_addr().expect("bound")).parse().expect("a URL");
    one.transport.add_peer(MemberId(2), vec![url]).expect("a peer");
    // Two asks, is answered, and says nothing more.
    let mut asking = tokio::net::TcpStream::connect(one.url.authority()).await.expect("a connection");
    let request = "GET /raft/stream/message/2 HTTP/1.1\r\nHost: x\r\nX-Server-From: 2\r\nX-Server-Version: 3.6.0\r\n\
        X-Min-Cluster-Version: 3.0.0\r\nX-Etcd-Cluster-ID: 1000\r\nX-Raft-To: 1\r\n\r\n";
    tokio::io::AsyncWriteExt::write_all(&mut asking, request.as_bytes()).await.expect("written");
    until("the way out is open", || one.stream(MemberId(2), Channel::Message, Direction::Out)).await;
    until("it is closed", || !one.stream(MemberId(2), Channel::Message, Direction::Out)).await;
    let link = &one.transport.peers()[0].link;
    assert_eq!(link.losses.of((Channel::Message, Direction::Out, LossReason::Stopped)), 1);
    one.check_ledger();
}

#[tokio::test]
async fn a_member_tells_the_time_of_the_world_that_it_was_given() {
    const AHEAD: Duration = Duration::from_secs(3600);
    let begun = SystemTime::now();
    let world = World::default().with_clock(|| SystemTime::now() + AHEAD);
    let (one, two) = (TestMember::start_with(1, |builder| builder.world(&world)).await, TestMember::start(2).await);
    one.add(&two);
    two.add(&one);
    connected(&one, &two).await;
    let offset = |member: &TestMember| member.transport.peers()[0].link.clock_offset;
    until("each has probed the other", || offset(&one).is_some() && offset(&two).is_some()).await;
    two.transport.send(vec![append(2, 1, 1, b"a")]);
    until("it is taken", || one.taken() == 1).await;
    let off = |found: Option<f64>, told: f64| found.is_some_and(|found| (found - told).abs() < 60.0);
    assert!(off(offset(&one), -3600.0) && off(offset(&two), 3600.0), "{:?}, {:?}", offset(&one), offset(&two));
    let link = one.transport.peers()[0].link.clone();
    let incoming = one.transport.peers()[0].incoming.clone();
    let events = one.transport.events().after(0);
    let status = one.status();
    let told =
        [status.time, status.started, link.last_probe, link.active_since, incoming.last_frame[StreamKind::MsgApp]];
    for time in told.into_iter().chain(events.iter().map(|event| Some(event.time))) {
        assert!(time.is_some_and(|time| time >= begun + AHEAD), "{time:?} is not of the member's world");
    }
    assert!(two.transport.events().after(0).iter().all(|event| event.time < begun + AHEAD));
}
