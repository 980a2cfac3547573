//! Incarnations between transports: the application is asked about a sender's incarnation before anything from it
//! counts.

mod support;

use std::time::Duration;

use rafthttp::{
    Critical, DirectoryId, Impostor, Incarnation, MemberId, PeerIncarnation, Source,
    internals::wire::{frames::FrameBuffer, stream::StreamEncoder},
    metrics::{AttemptResult, Channel, Direction, DropReason},
    wire::{StreamKind, raftpb::Message},
};
use support::{CLUSTER, TestMember, connected, heartbeat, lock, until};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufStream},
    net::{TcpListener, TcpStream},
    time::timeout,
};

const PATIENCE: Duration = Duration::from_secs(20);

fn start(member: u64, boot: u64) -> Incarnation {
    Incarnation { directory: DirectoryId(member << 8), boot, nonce: boot }
}

async fn member(id: u64) -> TestMember {
    TestMember::start_with(id, |builder| builder.incarnation(start(id, 1))).await
}

fn incarnation(of: &TestMember) -> PeerIncarnation {
    of.transport.peers()[0].incarnation.clone()
}

#[tokio::test]
async fn who_tells_is_met_by_a_dial_and_who_does_not_cannot_be_checked() {
    let (one, two, three) = (member(1).await, member(2).await, TestMember::start(3).await);
    one.add(&two);
    two.add(&one);
    connected(&one, &two).await;
    assert_eq!(incarnation(&two), PeerIncarnation::Met(start(1, 1)));
    let asked = lock(&two.raft.meetings).clone();
    assert!(asked.contains(&(one.id, start(1, 1), Source::Member)), "{asked:?}");
    assert!(asked.contains(&(one.id, start(1, 1), Source::Anyone)), "its requests for streams: {asked:?}");
    three.add(&two);
    two.add(&three);
    connected(&two, &three).await;
    assert_eq!(two.transport.peers()[1].incarnation, PeerIncarnation::Untold);
    assert!(lock(&two.raft.meetings).iter().all(|(id, ..)| *id != three.id), "who tells nothing is not asked about");
    assert_eq!(incarnation(&three), PeerIncarnation::Met(start(2, 1)), "by default, all are heard");
}

#[tokio::test]
async fn a_start_that_is_refused_is_neither_read_nor_given_a_stream_and_is_told_so_once() {
    let (one, two) = (member(1).await, member(2).await);
    lock(&two.raft.impostors).push(start(1, 1));
    one.add(&two);
    two.add(&one);
    until("it is told", || !lock(&one.raft.critical).is_empty()).await;
    until("it is refused", || matches!(incarnation(&two), PeerIncarnation::Refused(_))).await;
    until("its messages are dropped", || {
        one.transport.send(vec![heartbeat(1, 2, 1)]);
        let dropped = &one.transport.peers()[0].outgoing.dropped;
        dropped.iter().any(|((_, channel, reason), _)| (channel, reason) == (Channel::Pipeline, DropReason::Refused))
    })
    .await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(two.taken(), 0);
    let attempts = |of: &TestMember, result| of.transport.peers()[0].link.attempts.of((Channel::Message, result));
    assert!(attempts(&two, AttemptResult::Impostor) > 1 && attempts(&one, AttemptResult::IncarnationRefused) > 1);
    assert!(
        !two.stream(one.id, Channel::Message, Direction::In) && !two.stream(one.id, Channel::Message, Direction::Out)
    );
    let told = Critical::IncarnationRefused { by: two.id, why: Impostor::Directory };
    assert_eq!(*lock(&one.raft.critical), [told], "once");
    let events = two.transport.events().after(0);
    let refused = events.iter().filter(|event| format!("{:?}", event.kind) == "IncarnationRefused").count();
    assert_eq!(refused, 1, "{events:?}");
    one.check_ledger();
    two.check_ledger();
}

#[tokio::test]
async fn what_a_start_posts_that_was_not_met_waits_for_the_dial_that_meets_it() {
    let (one, two) = (member(1).await, member(2).await);
    *lock(&two.raft.hears_only_who_was_dialled) = true;
    // Where its server is, two does not know yet.
    let nowhere = TcpListener::bind("127.0.0.1:0").await.expect("a free port").local_addr().expect("bound");
    let nowhere = format!("http://{nowhere}").parse().expect("a URL");
    two.transport.add_peer(one.id, vec![nowhere]).expect("a peer");
    one.add(&two);
    one.transport.send(vec![heartbeat(1, 2, 1)]);
    until("it has waited in vain", || one.transport.peers()[0].outgoing.dropped.total() == 1).await;
    assert_eq!(two.taken(), 0, "it proves nothing");
    one.transport.send(vec![heartbeat(1, 2, 2)]);
    two.transport.update_peer(one.id, vec![one.url.clone()]).expect("a peer");
    until("it is taken", || two.taken() == 1).await;
    assert_eq!(incarnation(&two), PeerIncarnation::Met(start(1, 1)));
}

/// A member that is written by hand: answers the stream that is asked for, as this start.
async fn answer(listener: &TcpListener, told: Incarnation) -> (StreamKind, BufStream<TcpStream>) {
    loop {
        let (stream, _) = timeout(PATIENCE, listener.accept()).await.expect("it is dialled").expect("a connection");
        let mut stream = BufStream::new(stream);
        let (mut first, mut line) = (String::new(), String::new());
        stream.read_line(&mut first).await.expect("a request");
        while line != "\r\n" {
            line.clear();
            stream.read_line(&mut line).await.expect("a head");
        }
        let kind =
            StreamKind::ALL.into_iter().find(|kind| first.contains(&format!("/raft/stream/{}/", kind.segment())));
        let Some(kind) = kind else { continue };
        let head = format!(
            "HTTP/1.1 200 OK\r\nX-Server-Version: 3.6.0\r\nX-Etcd-Cluster-ID: {CLUSTER}\r\nX-Rafthttp-Incarnation: {told}\r\n\
             Transfer-Encoding: chunked\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.expect("it reads");
        stream.flush().await.expect("it reads");
        return (kind, stream);
    }
}

async fn write(stream: &mut BufStream<TcpStream>, kind: StreamKind, message: &Message) -> std::io::Result<()> {
    let mut frames = FrameBuffer::new();
    StreamEncoder::new(kind, MemberId(1), MemberId(2)).encode(message, &mut frames);
    let frame: Vec<u8> = std::iter::from_fn(|| frames.pop()).flat_map(|piece| piece.to_vec()).collect();
    stream.write_all(format!("{:x}\r\n", frame.len()).as_bytes()).await?;
    stream.write_all(&[&frame[..], b"\r\n"].concat()).await?;
    stream.flush().await
}

#[tokio::test]
async fn what_an_older_start_still_has_under_way_is_dropped_once_a_newer_one_was_met() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("bound")).parse().expect("a URL");
    let two = TestMember::start_with(2, |builder| builder.probe(Duration::ZERO, Duration::from_millis(1))).await;
    two.transport.add_peer(MemberId(1), vec![url]).expect("a peer");
    let (first, second) = (answer(&listener, start(1, 1)).await, answer(&listener, start(1, 1)).await);
    let (mut old, other) = if first.0 == StreamKind::MsgApp { (first.1, second.1) } else { (second.1, first.1) };
    write(&mut old, StreamKind::MsgApp, &heartbeat(1, 2, 1)).await.expect("it reads");
    until("it is taken", || two.taken() == 1).await;
    // It starts anew: one of its streams broke, the other has not noticed yet.
    drop(other);
    let (kind, mut new) = answer(&listener, start(1, 2)).await;
    assert_eq!(kind, StreamKind::Message);
    until("it is met", || incarnation(&two) == PeerIncarnation::Met(start(1, 2))).await;
    // It may find the connection closed already.
    let _ = write(&mut old, StreamKind::MsgApp, &heartbeat(1, 2, 666)).await;
    write(&mut new, StreamKind::Message, &heartbeat(1, 2, 2)).await.expect("it reads");
    until("the newer is heard", || two.taken() > 1).await;
    let _ = timeout(PATIENCE, old.read_to_end(&mut Vec::new())).await.expect("it is closed, or reset");
    let taken: Vec<u64> = lock(&two.raft.taken).iter().map(|(_, message)| message.commit).collect();
    assert_eq!(taken, [1, 2]);
    two.check_ledger();
}
