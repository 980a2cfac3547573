//! The events of a transport: what changed, once for each change.

mod support;

use std::{net::SocketAddr, sync::Arc};

use rafthttp::{
    MemberId,
    admin::{self, About, Admin, Health},
    metrics::{Channel, Direction, Options},
    telemetry::{Event, EventKind},
};
use support::{TestMember, connected, pair, until};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_util::sync::CancellationToken;

/// What happened to a peer of this member, oldest first.
fn of(member: &TestMember, peer: u64) -> Vec<Event> {
    let events = member.transport.events().after(0);
    events.into_iter().filter(|event| event.peer == Some(MemberId(peer))).collect()
}

fn kinds(member: &TestMember, peer: u64) -> Vec<EventKind> {
    of(member, peer).iter().map(|event| event.kind).collect()
}

fn count(member: &TestMember, peer: u64, kind: EventKind) -> usize {
    kinds(member, peer).iter().filter(|found| **found == kind).count()
}

#[tokio::test]
async fn a_peers_life_is_told_once_and_in_order() {
    let (one, two) = pair().await;
    until("probed", || count(&one, 2, EventKind::PeerReachable) == 1).await;
    let told = kinds(&one, 2);
    assert_eq!(told[0], EventKind::PeerAdded);
    assert_eq!(count(&one, 2, EventKind::StreamAttached), 4, "{told:?}");
    assert_eq!(count(&one, 2, EventKind::PeerActive), 1, "{told:?}");
    let attached: Vec<_> = of(&one, 2).iter().filter_map(|event| Some((event.channel?, event.direction?))).collect();
    for channel in [Channel::MsgApp, Channel::Message] {
        for direction in Direction::ALL {
            assert!(attached.contains(&(channel, direction)), "{attached:?}");
        }
    }

    let before = one.transport.events().after(0).last().map_or(0, |event| event.id);
    two.stop().await;
    until("unreachable", || count(&one, 2, EventKind::PeerUnreachable) == 1).await;
    until("all four streams lost", || count(&one, 2, EventKind::StreamLost) == 4).await;
    until("inactive", || count(&one, 2, EventKind::PeerInactive) == 1).await;
    let since = one.transport.events().after(before);
    assert!(since.iter().all(|event| event.id > before));
    let unreachable = since.iter().find(|event| event.kind == EventKind::PeerUnreachable).expect("seen");
    assert_eq!(unreachable.reason, Some("connect"));
    assert!(unreachable.detail.as_deref().is_some_and(|words| !words.is_empty()));

    one.transport.remove_peer(MemberId(2));
    assert_eq!(kinds(&one, 2).last(), Some(&EventKind::PeerRemoved));
    // Many dials and probes have failed by now, and said nothing more.
    assert_eq!(count(&one, 2, EventKind::PeerUnreachable), 1);
    assert_eq!(count(&one, 2, EventKind::PeerInactive), 1);
}

#[tokio::test]
async fn a_peer_that_comes_back_is_told_again() {
    let (one, two) = pair().await;
    until("probed", || count(&one, 2, EventKind::PeerReachable) == 1).await;
    let address = two.url.authority().to_owned();
    two.stop().await;
    until("unreachable", || count(&one, 2, EventKind::PeerUnreachable) == 1).await;
    let listener = tokio::net::TcpListener::bind(address).await.expect("the port is free again");
    let two = TestMember::start_on(2, listener, |builder| builder).await;
    two.add(&one);
    connected(&one, &two).await;
    until("reachable", || count(&one, 2, EventKind::PeerReachable) == 2).await;
    until("active", || count(&one, 2, EventKind::PeerActive) == 2).await;
}

#[tokio::test]
async fn remotes_and_updates_are_told_and_a_promoted_remote_is_a_peer_added() {
    let one = TestMember::start(1).await;
    let url = || vec!["http://127.0.0.1:1".parse().expect("a URL")];
    one.transport.add_remote(MemberId(3), url()).expect("a remote");
    one.transport.add_peer(MemberId(3), url()).expect("a peer");
    one.transport.update_peer(MemberId(3), url()).expect("known");
    one.transport.add_remote(MemberId(4), url()).expect("a remote");
    one.transport.remove_peer(MemberId(4));
    let (three, four) = (kinds(&one, 3), kinds(&one, 4));
    let told = |kinds: &[EventKind], kind| kinds.contains(&kind);
    assert_eq!(three[..2], [EventKind::RemoteAdded, EventKind::PeerAdded]);
    assert!(told(&three, EventKind::PeerUpdated));
    assert_eq!(four, [EventKind::RemoteAdded, EventKind::RemoteRemoved]);
    let urls = of(&one, 4)[0].detail.clone();
    assert_eq!(urls.as_deref(), Some("http://127.0.0.1:1"));
}

#[tokio::test]
async fn the_list_is_served_as_json_and_from_an_id_on() {
    let one = TestMember::start(1).await;
    for peer in 2..=4 {
        let url = format!("http://127.0.0.1:{peer}").parse().expect("a URL");
        one.transport.add_remote(MemberId(peer), vec![url]).expect("a remote");
    }
    let transport = one.transport.clone();
    let router = admin::router(Admin {
        registry: prometheus::Registry::new(),
        transport: None,
        events: Some(transport.events().clone()),
        options: Options::default(),
        about: Arc::new(About::default),
        health: Arc::new(Health::default),
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let stop = CancellationToken::new();
    let served = tokio::spawn(admin::serve(listener, router, stop.clone()));

    let all: serde_json::Value = serde_json::from_str(&get(address, "/api/events").await).expect("JSON");
    let events = all["events"].as_array().expect("a list");
    assert_eq!(events.len(), 3);
    assert!(events[0]["time"].as_str().is_some_and(|time| time.ends_with('Z')));
    let mut first = events[0].clone();
    first["time"].take();
    let expected = serde_json::json!({
        "id": 1, "time": null, "kind": "remote_added", "peer": "2", "channel": null, "direction": null,
        "reason": null, "detail": "http://127.0.0.1:2",
    });
    assert_eq!(first, expected);
    let later: serde_json::Value = serde_json::from_str(&get(address, "/api/events?after=2").await).expect("JSON");
    assert_eq!(later["events"].as_array().map(|events| events.len()), Some(1));
    assert_eq!(later["events"][0]["peer"], "4");
    assert!(get(address, "/api/events?after=x").await.contains("after"), "what is wrong is said");
    stop.cancel();
    served.await.expect("it ends");
}

/// The body of an answer that is not chunked.
async fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    let request = format!("GET {path} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("it answers in text");
    answer.split_once("\r\n\r\n").expect("a head ends with an empty line").1.to_owned()
}
