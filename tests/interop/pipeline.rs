//! Without streams: a member that the other does not dial, and one that it does not know yet.

use rafthttp::{
    PeerStatus, SnapshotStatus,
    metrics::{Channel, PerChannel, PerKind},
    wire::raftpb::{Message, MessageType},
};

use crate::{
    link::{ETCDS, OURS, connected, links, take},
    support::{TestMember, append, heartbeat, lock, proposal, until},
};

fn few(from: u64, to: u64) -> Vec<Message> {
    let large = append(from, to, 2, &vec![7; 3 << 20]);
    vec![append(from, to, 1, b"a"), large, heartbeat(from, to, 1), proposal(from, to)]
}

fn posted(ours: &TestMember) -> (u64, u64) {
    let status = ours.transport.status();
    let of = |counts: &PerChannel<PerKind<u64>>| counts[Channel::Pipeline].total();
    // Of a remote, they stand under what went to and came from others.
    let (others, strangers) = (status.others.expect("it writes"), status.strangers.expect("it listens"));
    let (sent, received) = (of(&others.sent), of(&strangers.received));
    let peer = &status.peers[0];
    (sent + of(&peer.outgoing.sent), received + of(&peer.incoming.received))
}

/// Four requests go at a time, so that messages may overtake each other.
fn in_some_order(mut messages: Vec<Message>) -> Vec<Message> {
    messages.sort_by_key(|message| (message.r#type, message.index));
    messages
}

#[tokio::test]
async fn without_streams_messages_go_by_post() {
    for link in links() {
        let (ours, mut etcds) = (link.ours().await, link.etcds().await);
        // Only our side dials. etcd's side learns of us from that, as a remote, and answers by its own requests.
        ours.transport.add_peer(etcds.id, vec![etcds.url.clone()]).unwrap();
        let out = few(OURS, ETCDS);
        ours.transport.send(out.clone());
        link.assert_same(&in_some_order(etcds.take(out.len()).await), &in_some_order(out.clone()));
        let back = few(ETCDS, OURS);
        etcds.send(&back).await;
        link.assert_same(&in_some_order(take(&ours, back.len()).await), &in_some_order(back.clone()));
        until("all counted", || posted(&ours) == (out.len() as u64, back.len() as u64)).await;
        assert_eq!(etcds.state().await.unreachable.get(&OURS), None);
        assert!(lock(&ours.raft.unreachable).is_empty());
        ours.check_ledger();
    }
}

#[tokio::test]
async fn etcds_peer_that_we_do_not_know_is_a_remote_of_ours() {
    for link in links() {
        let (ours, mut etcds) = (link.ours().await, link.etcds().await);
        etcds.add_peer(ours.id, &ours.url).await;
        until("known from its requests", || ours.transport.peers().iter().any(PeerStatus::is_remote)).await;
        assert_eq!(ours.transport.peers()[0].urls, [etcds.url.clone()]);
        let (out, back) = (few(OURS, ETCDS), few(ETCDS, OURS));
        ours.transport.send(out.clone());
        link.assert_same(&in_some_order(etcds.take(out.len()).await), &in_some_order(out));
        etcds.send(&back).await;
        link.assert_same(&in_some_order(take(&ours, back.len()).await), &in_some_order(back));
        ours.check_ledger();
    }
}

#[tokio::test]
async fn a_remote_catches_up_and_becomes_a_peer() {
    for link in links() {
        let (ours, mut etcds) = (link.ours().await, link.etcds().await);
        ours.transport.add_remote(etcds.id, vec![etcds.url.clone()]).unwrap();
        etcds.add_remote(ours.id, &ours.url).await;
        // What a member that joins is sent before it knows of itself.
        let part =
            |from, to, first: u64| (first..first + 20).map(move |index| append(from, to, index, b"log")).collect();
        let (out, back): (Vec<_>, Vec<_>) = (part(OURS, ETCDS, 1), part(ETCDS, OURS, 1));
        ours.transport.send(out.clone());
        etcds.send(&back).await;
        link.assert_same(&in_some_order(etcds.take(20).await), &out);
        link.assert_same(&in_some_order(take(&ours, 20).await), &back);
        until("all counted", || posted(&ours) == (20, 20)).await;

        ours.transport.add_peer(etcds.id, vec![etcds.url.clone()]).unwrap();
        etcds.add_peer(ours.id, &ours.url).await;
        connected(&ours, &mut etcds).await;
        let (out, back): (Vec<_>, Vec<_>) = (part(OURS, ETCDS, 21), part(ETCDS, OURS, 21));
        ours.transport.send(out.clone());
        etcds.send(&back).await;
        link.assert_same(&etcds.take(20).await, &out);
        link.assert_same(&take(&ours, 20).await, &back);
        assert_eq!(posted(&ours), (20, 20), "the remote's counts are kept, and the rest went by streams");
        ours.check_ledger();
    }
}

#[tokio::test]
async fn a_snapshot_without_a_body_goes_by_post_and_is_reported() {
    for link in links() {
        let (ours, mut etcds) = link.pair().await;
        let snapshot =
            |from, to| Message { r#type: MessageType::MsgSnap as i32, ..crate::snapshots::message(from, to) };
        ours.transport.send(vec![snapshot(OURS, ETCDS)]);
        etcds.send(&[snapshot(ETCDS, OURS)]).await;
        link.assert_same(&etcds.take(1).await, &[snapshot(OURS, ETCDS)]);
        link.assert_same(&take(&ours, 1).await, &[snapshot(ETCDS, OURS)]);
        until("ours is reported", || !lock(&ours.raft.snapshots).is_empty()).await;
        assert_eq!(*lock(&ours.raft.snapshots), [(etcds.id, SnapshotStatus::Finish)]);
        let state = etcds.until("etcd's is reported", |state| !state.snapshots.is_empty()).await;
        assert!(matches!(state.snapshots[..], [report] if report.id == OURS && report.delivered));
        assert_eq!(posted(&ours), (1, 1));
    }
}
