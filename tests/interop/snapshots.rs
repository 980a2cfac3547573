//! Snapshots with a body, each way.

use std::time::Duration;

use rafthttp::{
    SnapshotBody, SnapshotStatus, SnapshotStore,
    metrics::Direction,
    wire::raftpb::{ConfState, Message, MessageType, Snapshot, SnapshotMetadata},
};
use tokio::time::{Instant, sleep};

use crate::{
    gopeer::GoPeer,
    link::{ETCDS, Link, OURS, connected, links, take},
    pattern::{Pattern, assert_file_is},
    proxy::Proxy,
    support::{TestMember, lock, until},
};

const INDEX: u64 = 0x1234;
const SEED: u64 = 0x9e37_79b9_7f4a_7c15;
/// More than every buffer on the way.
const SIZE: u64 = 256 << 20;
/// Where it ends, if it does so too early.
const CUT: u64 = 100 << 20;

pub(crate) fn message(from: u64, to: u64) -> Message {
    let conf_state = ConfState { voters: vec![1, 2], learners: vec![3], ..ConfState::default() };
    let metadata = SnapshotMetadata { conf_state: Some(conf_state), index: INDEX, term: 1 };
    let snapshot = Snapshot { data: b"membership".as_slice().into(), metadata: Some(metadata) };
    let kind = MessageType::MsgSnap as i32;
    Message { r#type: kind, from, to, term: 1, snapshot: Some(snapshot.into()), ..Message::default() }
}

/// Both, connected, with our store; every connection between them is cut when it has carried `most` bytes one way.
async fn pair(link: &Link, most: u64) -> (TestMember, GoPeer, SnapshotStore, Kept) {
    let directory = tempfile::tempdir().unwrap();
    let store = SnapshotStore::open(directory.path()).unwrap();
    let saved = store.clone();
    let (ours, mut etcds) = (link.ours_with(|builder| builder.snapshots(saved)).await, link.etcds().await);
    let proxies = [Proxy::cutting(&etcds.url, most).await, Proxy::cutting(&ours.url, most).await];
    ours.transport.add_peer(etcds.id, vec![link.url(&proxies[0].address)]).unwrap();
    etcds.add_peer(ours.id, &link.url(&proxies[1].address)).await;
    connected(&ours, &mut etcds).await;
    etcds.take_log().await;
    (ours, etcds, store, Kept { directory, _proxies: proxies })
}

/// What lasts as long as a test.
struct Kept {
    directory: tempfile::TempDir,
    _proxies: [Proxy; 2],
}

/// In the middle of a snapshot, its source fails, or its connection breaks: where the one ends, and the other.
const CUTS: [(u64, u64); 2] = [(CUT, u64::MAX), (0, CUT)];

/// Waits as long as writing a quarter of a gigabyte may take on a slow disk.
async fn slowly(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !holds().await {
        assert!(start.elapsed() < Duration::from_secs(120), "not within 120 s: {what}");
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn our_snapshot_arrives_at_etcds_whole() {
    for link in links() {
        let (ours, mut etcds, _, _kept) = pair(&link, u64::MAX).await;
        let body = SnapshotBody::from_reader(Pattern::new(SEED, SIZE, 0), Some(SIZE));
        ours.transport.send_snapshot(message(OURS, ETCDS), body);
        slowly("reported", async || !lock(&ours.raft.snapshots).is_empty()).await;
        assert_eq!(*lock(&ours.raft.snapshots), [(etcds.id, SnapshotStatus::Finish)], "{link}");
        link.assert_same(&etcds.take(1).await, &[message(OURS, ETCDS)]);
        assert_file_is(&etcds.snapshot_path(INDEX), Pattern::new(SEED, SIZE, 0));

        let metrics = etcds.metrics().await;
        let counted = |name: &str| metrics.sum(name, &[("From", "1")]).unwrap_or(0.0);
        assert_eq!(counted("etcd_network_snapshot_receive_success"), 1.0, "{link}");
        let received = counted("etcd_network_peer_received_bytes_total");
        let sent = ours.transport.peers()[0].outgoing.etcd_bytes as f64;
        assert!((0.95..1.05).contains(&(sent / received)), "{link}: {sent} bytes sent, {received} received");
        assert_eq!(etcds.take_log().await, Vec::<serde_json::Value>::new(), "{link}");
        ours.check_ledger();
    }
}

#[tokio::test]
async fn etcds_snapshot_arrives_at_ours_whole() {
    for link in links() {
        let (ours, mut etcds, store, _kept) = pair(&link, u64::MAX).await;
        etcds.send_snapshot(&message(ETCDS, OURS), SEED, SIZE, 0).await;
        slowly("reported", async || !etcds.state().await.snapshots.is_empty()).await;
        let state = etcds.state().await;
        assert!(matches!(state.snapshots[..], [report] if report.id == OURS && report.delivered), "{link}: {state:?}");
        link.assert_same(&take(&ours, 1).await, &[message(ETCDS, OURS)]);
        assert_file_is(&store.path(INDEX), Pattern::new(SEED, SIZE, 0));

        let status = &ours.transport.peers()[0];
        assert_eq!(status.link.snapshots[Direction::In].ok, 1, "{link}");
        let sent = etcds.metrics().await.sum("etcd_network_peer_sent_bytes_total", &[("To", "1")]).unwrap_or(0.0);
        let received = status.incoming.etcd_bytes as f64;
        assert!((0.95..1.05).contains(&(sent / received)), "{link}: {sent} bytes sent, {received} received");
        assert_eq!(etcds.take_log().await, Vec::<serde_json::Value>::new(), "{link}");
        ours.check_ledger();
    }
}

#[tokio::test]
async fn our_snapshot_that_is_cut_leaves_nothing_at_etcds_and_is_reported_once() {
    for (link, (source, most)) in links().iter().flat_map(|link| CUTS.map(|cut| (link, cut))) {
        let (ours, mut etcds, _, _kept) = pair(link, most).await;
        let body = SnapshotBody::from_reader(Pattern::new(SEED, SIZE, source), None);
        ours.transport.send_snapshot(message(OURS, ETCDS), body);
        slowly("reported", async || !lock(&ours.raft.snapshots).is_empty()).await;
        let failed = "etcd_network_snapshot_receive_failures";
        slowly("etcd counts a failure", async || etcds.metrics().await.sum(failed, &[("From", "1")]) == Some(1.0))
            .await;
        slowly("etcd keeps nothing", async || etcds.snapshot_files() == 0).await;
        assert_eq!(*lock(&ours.raft.snapshots), [(etcds.id, SnapshotStatus::Failure)], "{link}");
        assert_eq!(etcds.state().await.received, 0, "{link}");
        ours.check_ledger();
    }
}

#[tokio::test]
async fn etcds_snapshot_that_is_cut_leaves_nothing_at_ours_and_is_reported_once() {
    for (link, (source, most)) in links().iter().flat_map(|link| CUTS.map(|cut| (link, cut))) {
        let (ours, mut etcds, _, kept) = pair(link, most).await;
        etcds.send_snapshot(&message(ETCDS, OURS), SEED, SIZE, source).await;
        slowly("reported", async || !etcds.state().await.snapshots.is_empty()).await;
        let failures = || ours.transport.peers()[0].link.snapshots[Direction::In].failed;
        until("we count a failure", || failures() == 1).await;
        slowly("we keep nothing", async || std::fs::read_dir(kept.directory.path()).unwrap().count() == 0).await;
        let state = etcds.state().await;
        assert!(matches!(state.snapshots[..], [report] if report.id == OURS && !report.delivered), "{link}: {state:?}");
        assert_eq!(ours.taken(), 0, "{link}");
        ours.check_ledger();
    }
}
