//! What one refuses, the other understands: removed, not taken, another cluster, another version.

use rafthttp::{
    Critical, MemberId,
    metrics::{AttemptResult, Channel, DropReason, MessageKind},
    wire::raftpb::MessageType,
};

use crate::{
    link::{ETCDS, Link, OURS, links},
    support::{TestMember, heartbeat, lock, until},
};

fn attempts(ours: &TestMember, result: AttemptResult) -> u64 {
    let link = &ours.transport.peers()[0].link;
    [Channel::MsgApp, Channel::Message].into_iter().map(|channel| link.attempts.of((channel, result))).sum()
}

#[tokio::test]
async fn we_learn_by_410_that_we_were_removed_and_say_so_once() {
    for link in links() {
        let (ours, mut etcds) = (link.ours().await, link.etcds().await);
        etcds.mark_removed(ours.id).await;
        ours.transport.add_peer(etcds.id, vec![etcds.url.clone()]).unwrap();
        until("told again and again", || attempts(&ours, AttemptResult::Removed) >= 4).await;
        assert_eq!(*lock(&ours.raft.critical), [Critical::MemberRemoved { by: etcds.id }], "{link}");
    }
}

#[tokio::test]
async fn etcd_learns_from_us_by_410_that_it_was_removed() {
    for link in links() {
        let (ours, mut etcds) = (link.ours().await, link.etcds().await);
        lock(&ours.raft.removed).push(etcds.id);
        etcds.add_peer(ours.id, &ours.url).await;
        let state = etcds.until("told", |state| !state.critical.is_empty()).await;
        assert!(state.critical[0].contains("permanently removed"), "{link}: {:?}", state.critical);
        assert!(ours.transport.peers().is_empty(), "{link}: who was removed is no remote");
    }
}

/// etcd's raft answers 500 when it does not take a message; no more is made of it than a message lost.
#[tokio::test]
async fn a_message_that_etcd_refuses_is_dropped_and_nothing_more() {
    for link in links() {
        let (ours, mut etcds) = (link.ours().await, link.etcds().await);
        etcds.refuse(true).await;
        ours.transport.add_peer(etcds.id, vec![etcds.url.clone()]).unwrap();
        ours.transport.send(vec![heartbeat(OURS, ETCDS, 1)]);
        until("dropped", || ours.transport.peers()[0].outgoing.dropped.total() == 1).await;
        let dropped = &ours.transport.peers()[0].outgoing.dropped;
        let heartbeat_by_post = |reason| (MessageKind::from(MessageType::MsgHeartbeat), Channel::Pipeline, reason);
        assert_eq!(dropped.of(heartbeat_by_post(DropReason::PostFailed)), 1, "{link}: {dropped:?}");
        assert_eq!(*lock(&ours.raft.unreachable), [etcds.id]);
        assert!(lock(&ours.raft.critical).is_empty());

        etcds.refuse(false).await;
        ours.transport.send(vec![heartbeat(OURS, ETCDS, 2)]);
        link.assert_same(&etcds.take(1).await, &[heartbeat(OURS, ETCDS, 2)]);
        ours.check_ledger();
    }
}

#[tokio::test]
async fn a_message_that_we_refuse_is_a_failure_to_etcd_and_nothing_more() {
    for link in links() {
        let (ours, mut etcds) = (link.ours().await, link.etcds().await);
        *lock(&ours.raft.refuses) = true;
        etcds.add_peer(ours.id, &ours.url).await;
        etcds.send(&[heartbeat(ETCDS, OURS, 1)]).await;
        let state = etcds.until("given up", |state| state.unreachable.get(&OURS) == Some(&1)).await;
        assert!(state.critical.is_empty(), "{link}: {state:?}");

        *lock(&ours.raft.refuses) = false;
        etcds.send(&[heartbeat(ETCDS, OURS, 2)]).await;
        link.assert_same(&crate::link::take(&ours, 1).await, &[heartbeat(ETCDS, OURS, 2)]);
        ours.check_ledger();
    }
}

/// Neither hears the other: no stream opens, no message passes, and both can tell why.
async fn are_strangers(link: &Link, arguments: &[&str], version: Option<&str>, reason: AttemptResult, words: &str) {
    let ours = link.ours_with(|builder| match version {
        Some(version) => builder.server_version(version.parse().unwrap()),
        None => builder,
    });
    let (ours, mut etcds) = (ours.await, link.etcds_with(arguments).await);
    ours.transport.add_peer(etcds.id, vec![etcds.url.clone()]).unwrap();
    etcds.add_peer(ours.id, &ours.url).await;
    until("we know why", || attempts(&ours, reason) >= 2).await;
    ours.transport.send(vec![heartbeat(OURS, ETCDS, 1)]);
    etcds.send(&[heartbeat(ETCDS, OURS, 1)]).await;
    etcds.until("etcd gives its message up", |state| state.unreachable.contains_key(&OURS)).await;
    until("we give ours up", || lock(&ours.raft.unreachable).contains(&MemberId(ETCDS))).await;

    let state = etcds.state().await;
    assert_eq!((state.received, state.active), (0, vec![]), "{link}");
    assert_eq!((ours.taken(), ours.transport.active_peers()), (0, 0), "{link}");
    let log = serde_json::to_string(&etcds.take_log().await).unwrap();
    assert!(log.contains(words), "{link}: etcd's log does not say {words}: {log}");
    ours.check_ledger();
}

#[tokio::test]
async fn members_of_different_clusters_are_strangers() {
    for link in links() {
        let mismatch = AttemptResult::ClusterIdMismatch;
        are_strangers(&link, &["-cluster", "9"], None, mismatch, "cluster ID mismatch").await;
    }
}

#[tokio::test]
async fn an_etcd_of_an_older_major_version_is_a_stranger() {
    for link in links() {
        let arguments = ["-version", "2.3.8", "-min-cluster-version", "2.0.0"];
        are_strangers(&link, &arguments, None, AttemptResult::IncompatibleVersion, "incompatible version").await;
    }
}

#[tokio::test]
async fn an_etcd_that_wants_a_newer_cluster_is_a_stranger() {
    for link in links() {
        let arguments = ["-version", "9.1.0", "-min-cluster-version", "9.0.0"];
        are_strangers(&link, &arguments, None, AttemptResult::IncompatibleVersion, "version compatibility").await;
    }
}

#[tokio::test]
async fn we_are_a_stranger_to_etcd_when_we_say_an_older_version() {
    for link in links() {
        let incompatible = AttemptResult::IncompatibleVersion;
        are_strangers(&link, &[], Some("2.3.8"), incompatible, "incompatible version").await;
    }
}
