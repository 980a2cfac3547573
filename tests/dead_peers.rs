//! The memory that a thousand peers take that never answer. It measures the process' memory, so it is a program of its
//! own.

#![cfg(target_os = "linux")]

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use rafthttp::{
    ClusterId, Critical, MemberId, Raft, Rejected, SnapshotStatus, Source, Transport, wire::raftpb::Message,
};

const PEERS: u64 = 1000;
/// Longer than it takes.
const PATIENCE: Duration = Duration::from_secs(60);

struct Nobody;

#[async_trait]
impl Raft for Nobody {
    async fn process(&self, _: MemberId, _: Source, _: Vec<Message>) -> Result<(), Rejected> {
        Ok(())
    }

    fn is_removed(&self, _: MemberId) -> bool {
        false
    }

    fn report_unreachable(&self, _: MemberId) {}

    fn report_snapshot(&self, _: MemberId, _: SnapshotStatus) {}

    fn critical(&self, _: Critical) {}
}

fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("we have a status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("it has a peak");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
}

/// Their first dials are all under way at the same time. So the peak shows what a dial holds besides the peer.
#[tokio::test]
async fn a_thousand_dead_peers_take_less_than_24_mib() {
    let transport = Transport::builder(MemberId(1), ClusterId(1), Arc::new(Nobody)).build().expect("a transport");
    let url: rafthttp::PeerUrl = "http://127.0.0.1:1".parse().expect("a URL");
    let before = peak_memory();
    for id in 100..100 + PEERS {
        transport.add_peer(MemberId(id), vec![url.clone()]).expect("a peer");
    }
    let dead = async {
        while !transport.peers().iter().all(|peer| peer.link.reachable == Some(false)) {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    };
    tokio::time::timeout(PATIENCE, dead).await.expect("nobody answers");
    let taken = peak_memory() - before;
    println!("{taken} bytes of memory, {} for each peer", taken / PEERS);
    transport.stop().await;
    assert!(taken < 24 << 20, "{taken}");
}
