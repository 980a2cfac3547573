//! The life of streams: idle, replaced, cut, paused, and found at another URL.

use std::time::{Duration, SystemTime};

use futures_util::future::join_all;
use rafthttp::{
    PeerStatus, PeerUrl,
    metrics::{Channel, Direction, LossReason},
    wire::raftpb::Message,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep},
};

use crate::{
    gopeer::GoPeer,
    link::{ETCDS, Link, OURS, all_open, connected, links, take},
    proxy::Proxy,
    support::{TestMember, append, heartbeat, until},
};

/// Longer than anything here takes on a machine that has other things to do.
const PATIENCE: Duration = Duration::from_secs(30);

/// Appends and heartbeats each way, from `first` on: both streams of both directions carry what they should.
async fn talk(link: &Link, ours: &TestMember, etcds: &mut GoPeer, first: u64) {
    let words = |from, to| -> Vec<Message> {
        let appends = (first..first + 10).map(move |index| append(from, to, index, b"word"));
        appends.chain((first..first + 10).map(move |commit| heartbeat(from, to, commit))).collect()
    };
    let (out, back) = (words(OURS, ETCDS), words(ETCDS, OURS));
    ours.transport.send(out.clone());
    etcds.send(&back).await;
    link.assert_same(&etcds.take(out.len()).await, &out);
    link.assert_same(&take(ours, back.len()).await, &back);
    ours.check_ledger();
}

#[tokio::test]
async fn streams_stay_up_while_nothing_is_sent() {
    // We hang up after 5 s without a byte. etcd means to, and does not: its `NewTimeoutTransport` sets `Dial` where
    // `DialContext` is set too, which net/http prefers. So that our link heartbeats reach it is looked for.
    const IDLE: Duration = Duration::from_secs(8);
    let stay = |link: Link| async move {
        let (ours, mut etcds) = link.pair().await;
        let start = Instant::now();
        while start.elapsed() < IDLE {
            sleep(Duration::from_millis(100)).await;
            assert!(all_open(&ours), "{link}: a stream was lost after {:?}", start.elapsed());
        }
        let status = ours.transport.peers().remove(0);
        for frames in [status.incoming.last_frame, status.outgoing.last_frame] {
            let recent = |last: Option<SystemTime>| last.is_some_and(|last| last.elapsed().unwrap() < IDLE / 2);
            assert!(frames.values().copied().all(recent), "{link}: {frames:?}");
        }
        // etcd counts link heartbeats as from member 0.
        let heard = etcds.metrics().await.sum("etcd_network_peer_received_bytes_total", &[("From", "0")]);
        assert!(heard.is_some_and(|bytes| bytes > 0.0), "{link}: {heard:?}");
        assert_eq!(status.link.losses.total(), 0, "{link}");
        let state = etcds.state().await;
        assert_eq!(
            (state.active, state.received, ours.taken()),
            (vec![OURS], 0, 0),
            "{link}: raft sees no link heartbeat"
        );
        assert_eq!(etcds.take_log().await, Vec::<serde_json::Value>::new(), "{link}");
        talk(&link, &ours, &mut etcds, 1).await;
    };
    join_all(links().into_iter().map(stay)).await;
}

#[tokio::test]
async fn probes_of_etcd_measure_the_round_trip_and_the_clock() {
    for link in links() {
        let (ours, mut etcds) = link.pair().await;
        let state = || ours.transport.peers().remove(0).link;
        until("two probes went well", || state().probe_seconds.count() >= 2).await;
        let seen = state();
        assert_eq!(seen.reachable, Some(true), "{link}");
        assert!(seen.round_trip.is_some_and(|time| time > Duration::ZERO), "{link}: {:?}", seen.round_trip);
        // Both have the same clock; what a busy machine adds to one way of a probe is all that can be between them.
        let (offset, longest) = (seen.clock_offset.unwrap(), seen.probe_seconds.sum());
        assert!(offset.abs() <= longest, "{link}: {offset} s off, probes took {longest} s");
        assert_eq!(etcds.take_log().await, Vec::<serde_json::Value>::new(), "{link}");
    }
}

/// Asks for a stream as the other member would, over a connection of its own.
async fn ask_for_a_stream(url: &PeerUrl, from: u64, to: u64) -> TcpStream {
    let mut stream = TcpStream::connect(url.as_ref().trim_start_matches("http://")).await.unwrap();
    let request = format!(
        "GET /raft/stream/message/{from} HTTP/1.1\r\nHost: test\r\nX-Server-From: {from}\r\nX-Server-Version: 3.6.0\r\n\
         X-Min-Cluster-Version: 3.0.0\r\nX-Etcd-Cluster-ID: 1000\r\nX-Raft-To: {to}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = [0; 15];
    stream.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 200 OK");
    stream
}

#[tokio::test]
async fn a_newer_stream_takes_the_place_of_etcds_and_etcd_comes_back() {
    for link in links().into_iter().filter(|link| link.tls().is_none()) {
        let (ours, mut etcds) = link.pair().await;
        let losses = |reason| ours.transport.peers()[0].link.losses.of((Channel::Message, Direction::Out, reason));
        let mut newer = ask_for_a_stream(&ours.url, ETCDS, OURS).await;
        until("etcd's is replaced, and the newer one by etcd's next", || losses(LossReason::Replaced) == 2).await;
        let mut rest = Vec::new();
        let ended = tokio::time::timeout(PATIENCE, newer.read_to_end(&mut rest)).await;
        assert!(ended.is_ok_and(|read| read.is_err()) || rest.ends_with(b"0\r\n\r\n"), "{link}: it ended");
        connected(&ours, &mut etcds).await;
        talk(&link, &ours, &mut etcds, 1).await;
        // Our writer ended the older stream as etcd's ends one: its reader sees a clean end.
        assert_eq!(etcds.state().await.active, [OURS], "{link}");
        assert_eq!(errors(&etcds.take_log().await), ["EOF"], "{link}");
    }
}

#[tokio::test]
async fn a_newer_stream_takes_the_place_of_ours_and_we_come_back() {
    for link in links().into_iter().filter(|link| link.tls().is_none()) {
        let (ours, mut etcds) = link.pair().await;
        let eofs = || ours.transport.peers()[0].link.losses.of((Channel::Message, Direction::In, LossReason::Eof));
        let mut newer = ask_for_a_stream(&etcds.url, OURS, ETCDS).await;
        until("ours has ended cleanly", || eofs() == 1).await;
        connected(&ours, &mut etcds).await;
        // Until etcd's writer has ended it in favour of ours, it writes there.
        let mut rest = Vec::new();
        while !rest.ends_with(b"\r\n0\r\n\r\n") {
            let read = tokio::time::timeout(PATIENCE, newer.read_buf(&mut rest)).await.unwrap().unwrap();
            assert_ne!(read, 0, "{link}: it ended uncleanly: {rest:?}");
        }
        talk(&link, &ours, &mut etcds, 1).await;
        assert_eq!(ours.transport.peers()[0].link.losses.total(), 1, "{link}");
    }
}

/// What etcd's log says of why streams were lost.
fn errors(log: &[serde_json::Value]) -> Vec<&str> {
    log.iter().filter_map(|line| line["error"].as_str()).collect()
}

#[tokio::test]
async fn streams_that_are_cut_are_dialled_again_by_both() {
    for link in links() {
        let (ours, mut etcds) = (link.ours().await, link.etcds().await);
        let (to_etcds, to_ours) = (Proxy::to(&etcds.url).await, Proxy::to(&ours.url).await);
        ours.transport.add_peer(etcds.id, vec![link.url(&to_etcds.address)]).unwrap();
        etcds.add_peer(ours.id, &link.url(&to_ours.address)).await;
        connected(&ours, &mut etcds).await;
        talk(&link, &ours, &mut etcds, 1).await;

        for (round, proxy) in [&to_etcds, &to_ours, &to_etcds].into_iter().enumerate() {
            let (before, losses) = (proxy.connections(), ours.transport.peers()[0].link.losses.total());
            proxy.cut();
            until("both streams are lost", || ours.transport.peers()[0].link.losses.total() >= losses + 2).await;
            until("dialled again", || proxy.connections() >= before + 2 && all_open(&ours)).await;
            connected(&ours, &mut etcds).await;
            talk(&link, &ours, &mut etcds, 100 * (round as u64 + 1)).await;
        }
        assert_eq!(etcds.state().await.active, [OURS], "{link}");
    }
}

#[tokio::test]
async fn a_dead_url_is_passed_over_by_both() {
    for link in links() {
        let (ours, mut etcds) = (link.ours().await, link.etcds().await);
        let dead = link.url("127.0.0.1:1");
        ours.transport.add_peer(etcds.id, vec![dead.clone(), etcds.url.clone()]).unwrap();
        etcds.add_peer_at(ours.id, &[dead, ours.url.clone()]).await;
        connected(&ours, &mut etcds).await;
        talk(&link, &ours, &mut etcds, 1).await;
    }
}

#[tokio::test]
async fn a_peer_whose_url_is_updated_is_found_there_by_both() {
    for link in links() {
        let (ours, mut etcds) = (link.ours().await, link.etcds().await);
        let dead = link.url("127.0.0.1:1");
        ours.transport.add_peer(etcds.id, vec![dead.clone()]).unwrap();
        etcds.add_peer(ours.id, &dead).await;
        until("dialled in vain", || ours.transport.peers()[0].link.attempts.total() >= 2).await;
        ours.transport.update_peer(etcds.id, vec![etcds.url.clone()]).unwrap();
        etcds.update_peer(ours.id, &ours.url).await;
        connected(&ours, &mut etcds).await;
        talk(&link, &ours, &mut etcds, 1).await;
    }
}

#[tokio::test]
async fn a_peer_that_is_removed_is_told_by_a_clean_end() {
    for link in links() {
        let (ours, mut etcds) = link.pair().await;
        ours.transport.remove_peer(etcds.id);
        until("its requests make it a remote", || ours.transport.peers().iter().any(PeerStatus::is_remote)).await;
        let lost: Vec<_> = etcds
            .take_log()
            .await
            .into_iter()
            .filter(|line| line["msg"].as_str().unwrap().starts_with("lost"))
            .collect();
        assert_eq!(errors(&lost), ["EOF", "EOF"], "{link}: {lost:?}");

        // And the other way round.
        let (ours, mut etcds) = link.pair().await;
        etcds.remove_peer(ours.id).await;
        let eofs = |channel| ours.transport.peers()[0].link.losses.of((channel, Direction::In, LossReason::Eof));
        until("ours end cleanly", || eofs(Channel::MsgApp) == 1 && eofs(Channel::Message) == 1).await;
    }
}

#[tokio::test]
async fn while_etcd_is_paused_messages_go_and_streams_stay() {
    for link in links() {
        let (ours, mut etcds) = link.pair().await;
        etcds.pause().await;
        ours.transport.send(vec![heartbeat(OURS, ETCDS, 1), append(OURS, ETCDS, 1, b"gone")]);
        etcds.send(&[heartbeat(ETCDS, OURS, 1)]).await;
        until("ours are on their way", || ours.transport.peers()[0].outgoing.queued.total() == 0).await;
        let bytes = async |etcds: &mut GoPeer| {
            etcds.metrics().await.sum("etcd_network_peer_received_bytes_total", &[("From", "1")]).unwrap_or(0.0)
        };
        let start = Instant::now();
        while bytes(&mut etcds).await == 0.0 {
            assert!(start.elapsed() < Duration::from_secs(10), "{link}: etcd's reader has read them");
        }
        etcds.resume().await;
        talk(&link, &ours, &mut etcds, 2).await;
        assert_eq!(ours.transport.peers()[0].link.losses.total(), 0, "{link}");
    }
}

#[tokio::test]
async fn while_etcd_cuts_us_off_messages_go_and_streams_stay() {
    for link in links() {
        let (ours, mut etcds) = link.pair().await;
        etcds.cut_peer(ours.id).await;
        etcds.send(&[heartbeat(ETCDS, OURS, 1)]).await;
        etcds.mend_peer(ours.id).await;
        talk(&link, &ours, &mut etcds, 2).await;
        assert_eq!(ours.transport.peers()[0].link.losses.total(), 0, "{link}");
    }
}

#[tokio::test]
async fn while_we_cut_etcd_off_messages_go_and_streams_stay() {
    for link in links() {
        let (ours, mut etcds) = link.pair().await;
        for (cut, first) in [(true, 10), (false, 20)] {
            if cut {
                ours.transport.cut_peer(etcds.id);
            } else {
                ours.transport.pause();
            }
            ours.transport.send(vec![heartbeat(OURS, ETCDS, 1)]);
            let rejected = ours.transport.peers()[0].incoming.rejected.total();
            etcds.send(&[heartbeat(ETCDS, OURS, 1)]).await;
            until("etcd's is rejected", || ours.transport.peers()[0].incoming.rejected.total() == rejected + 1).await;
            if cut {
                ours.transport.mend_peer(etcds.id);
            } else {
                ours.transport.resume();
            }
            talk(&link, &ours, &mut etcds, first).await;
        }
        assert_eq!(ours.transport.peers()[0].link.losses.total(), 0, "{link}");
        assert_eq!(etcds.state().await.active, [OURS], "{link}");
        assert_eq!(etcds.take_log().await, Vec::<serde_json::Value>::new(), "{link}");
    }
}
