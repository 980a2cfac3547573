//! The view of both sides: messages that were written to a peer and never read are known, and which member hears which.

mod support;

#[path = "mutual/proxy.rs"]
mod proxy;
#[path = "support/scrape.rs"]
mod scrape;

use std::time::Duration;

use proxy::Proxy;
use rafthttp::{
    MemberId, PeerStatus,
    metrics::{Channel, Exposition, Options},
    wire::{StreamKind, raftpb::MessageType},
};
use scrape::Scrape;
use support::{TestMember, append, connected, heartbeat, pair, until};

const MSGAPP: StreamKind = StreamKind::MsgApp;
const MESSAGE: StreamKind = StreamKind::Message;

fn of(member: &TestMember, peer: u64) -> PeerStatus {
    let mut peers = member.transport.peers().into_iter();
    peers.find(|status| status.id == MemberId(peer)).expect("a peer")
}

/// Messages that this member gave to streams of the other, and those that it read on streams.
fn sent(member: &TestMember, peer: u64, kind: StreamKind) -> u64 {
    of(member, peer).outgoing.sent[kind.channel()].total()
}

fn received(member: &TestMember, peer: u64, kind: StreamKind) -> u64 {
    of(member, peer).incoming.received[kind.channel()].total()
}

/// A scrape of this member, in which the laws hold.
fn scraped(member: &TestMember) -> Scrape {
    let text: String = Exposition::new(member.status(), &Options::default())
        .map(|piece| String::from_utf8(piece.to_vec()).expect("text"))
        .collect();
    let scrape = Scrape::parse(&text);
    assert_eq!(scrape.broken_laws(), Vec::<String>::new());
    scrape
}

fn value(member: &TestMember, name: &str, channel: &str) -> Option<f64> {
    scraped(member).sum(name, &[("channel", channel)])
}

#[tokio::test]
async fn what_a_healthy_peer_has_read_is_confirmed_by_its_probes() {
    let (one, two) = pair().await;
    for index in 1..=100 {
        one.transport.send(vec![append(1, 2, index, b"x"), heartbeat(1, 2, 0)]);
    }
    until("taken", || two.taken() == 200).await;
    until("confirmed", || {
        ["msgapp", "message"].iter().all(|channel| value(&one, "rafthttp_messages_unconfirmed", channel) == Some(0.0))
    })
    .await;
    assert_eq!(value(&one, "rafthttp_messages_lost_total", "msgapp"), Some(0.0));
}

#[tokio::test]
async fn one_that_reads_nothing_has_unconfirmed_messages_before_the_stream_is_given_up() {
    let (one, two, proxy) = behind_a_proxy().await;
    until("confirmed", || of(&one, 2).outgoing.unconfirmed[MESSAGE] == Some(0)).await;
    proxy.freeze();
    for index in 1..=50 {
        one.transport.send(vec![append(1, 2, index, b"x")]);
    }
    until("unconfirmed", || of(&one, 2).outgoing.unconfirmed[MSGAPP] == Some(50)).await;
    proxy.thaw();
    until("confirmed", || of(&one, 2).outgoing.unconfirmed[MSGAPP] == Some(0)).await;
    assert_eq!(two.taken(), 50);
    assert_eq!(of(&one, 2).outgoing.lost, [0, 0]);
}

#[tokio::test]
async fn a_stream_cut_under_load_loses_exactly_what_the_other_side_never_read() {
    let (one, two, proxy) = behind_a_proxy().await;
    let mut index = 0;
    for round in 0..6 {
        for _ in 0..50 {
            let batch = (0..10).map(|_| {
                index += 1;
                append(1, 2, index, &[7; 200])
            });
            let mut batch: Vec<_> = batch.collect();
            batch.push(heartbeat(1, 2, 0));
            one.transport.send(batch);
            drop(scraped(&one));
            tokio::task::yield_now().await;
        }
        if round % 2 == 0 {
            // What is in the proxy and in its sockets is gone.
            proxy.freeze();
            one.transport.send((0..500).map(|_| heartbeat(1, 2, 0)).collect());
            until("written", || of(&one, 2).outgoing.queued[Channel::Message] == 0).await;
            proxy.cut();
            // Twice at once: the second stream may have ended before the first is spoken of.
            proxy.thaw();
            one.transport.send((0..500).map(|_| heartbeat(1, 2, 0)).collect());
            tokio::time::sleep(Duration::from_millis(20)).await;
            proxy.cut();
        }
        connected(&one, &two).await;
        drop(scraped(&one));
    }
    let balanced = || {
        let lost = of(&one, 2).outgoing.lost;
        [MSGAPP, MESSAGE].into_iter().all(|kind| {
            sent(&one, 2, kind) == received(&two, 1, kind) + lost[kind]
                && of(&one, 2).outgoing.unconfirmed[kind] == Some(0)
        })
    };
    until("what is missing is lost, to the last message", balanced).await;
    // It stays so: nothing is counted twice.
    let probes = of(&one, 2).link.probes.total();
    until("probed again", || of(&one, 2).link.probes.total() >= probes + 3).await;
    assert!(balanced());
    let lost = value(&one, "rafthttp_messages_lost_total", "message").expect("there from the start");
    assert!(lost >= 1500.0, "what was sent into a frozen proxy that was then cut: {lost}");
    one.check_ledger();
    two.check_ledger();
}

#[tokio::test]
async fn what_was_written_to_a_peer_that_died_is_lost_once_it_is_back() {
    let (one, two, proxy) = behind_a_proxy().await;
    until("confirmed", || of(&one, 2).outgoing.unconfirmed[MESSAGE] == Some(0)).await;
    proxy.freeze();
    one.transport.send((0..30).map(|_| heartbeat(1, 2, 0)).collect());
    until("written", || sent(&one, 2, MESSAGE) == 30).await;
    // Its process is gone, and with it what it knew.
    let address = two.url.authority().to_owned();
    two.stop().await;
    proxy.cut();
    let listener = tokio::net::TcpListener::bind(address).await.expect("the port is free again");
    let two = TestMember::start_on(2, listener, |builder| builder).await;
    two.transport.add_peer(one.id, vec![proxy.url.clone()]).expect("a peer");
    proxy.thaw();
    connected(&one, &two).await;
    until("lost", || of(&one, 2).outgoing.lost[MESSAGE] == 30).await;
    one.transport.send(vec![heartbeat(1, 2, 0)]);
    until("confirmed", || of(&one, 2).outgoing.unconfirmed[MESSAGE] == Some(0) && two.taken() == 1).await;
    assert_eq!(of(&one, 2).outgoing.lost, [0, 30]);
}

#[tokio::test]
async fn each_member_knows_who_hears_whom() {
    let (one, two, three) = (TestMember::start(1).await, TestMember::start(2).await, TestMember::start(3).await);
    for member in [&one, &two, &three] {
        for other in [&one, &two, &three].into_iter().filter(|other| other.id != member.id) {
            member.add(other);
        }
    }
    let sees = |of_whom: u64, whom: u64| {
        let view = of(&one, of_whom).link.view?;
        let sight = view.1.iter().find(|sight| sight.id == MemberId(whom))?;
        sight.reachable
    };
    // Each probes the others in an order of its own.
    let seen = [(2, 3), (3, 2), (2, 1)];
    until("two and three reach each other, and two reaches one", || {
        seen.iter().all(|(of_whom, whom)| sees(*of_whom, *whom) == Some(true))
    })
    .await;
    three.stop().await;
    until("two does not reach three", || sees(2, 3) == Some(false)).await;
    until("the row of one that cannot be asked is unknown", || of(&one, 3).link.view.is_none()).await;
    assert!(of(&one, 2).link.round_trips.iter().all(|time| time.is_none_or(|time| time > 0.0)));
    assert!(of(&one, 3).link.round_trips.iter().any(|time| time.is_none()));
}

#[tokio::test]
async fn appends_are_timed_from_sent_to_covered() {
    let (one, two) = pair().await;
    one.transport.send(vec![append(1, 2, 1, b"x")]);
    until("taken", || two.taken() == 1).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(of(&one, 2).outgoing.append_round_trip.count(), 0);
    let answer = rafthttp::wire::raftpb::Message {
        r#type: MessageType::MsgAppResp as i32,
        from: 2,
        to: 1,
        term: 1,
        index: 1,
        ..Default::default()
    };
    two.transport.send(vec![answer.clone()]);
    until("timed", || of(&one, 2).outgoing.append_round_trip.count() == 1).await;
    assert!(of(&one, 2).outgoing.append_round_trip.sum() >= 0.02);
    two.transport.send(vec![answer]);
    until("taken", || one.taken() == 2).await;
    let times = of(&one, 2).outgoing.append_round_trip;
    assert_eq!(times.count(), 1);
    assert_eq!(of(&two, 1).outgoing.append_round_trip.count(), 0, "of the follower's own there is none");
}

/// Two members; the second reads the first's streams through a proxy.
async fn behind_a_proxy() -> (TestMember, TestMember, Proxy) {
    let (one, two) = (TestMember::start(1).await, TestMember::start(2).await);
    let proxy = Proxy::start(one.url.authority()).await;
    one.add(&two);
    two.transport.add_peer(one.id, vec![proxy.url.clone()]).expect("a peer");
    connected(&one, &two).await;
    (one, two, proxy)
}
