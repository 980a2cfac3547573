//! The memory that a thousand peers take that never answer. It measures the process' memory, so it is a program of its
//! own.

#![cfg(target_os = "linux")]

use std::{sync::Arc, time::Duration};

use rafthttp::{MemberId, Transport};
use support::{CLUSTER, Recorder};

#[path = "support/memory.rs"]
mod memory;
mod support;

const PEERS: u64 = 1000;
/// Longer than it takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// Their first dials are all under way at the same time. So the peak shows what a dial holds besides the peer.
#[tokio::test]
async fn a_thousand_dead_peers_take_less_than_24_mib() {
    let transport =
        Transport::builder(MemberId(1), CLUSTER, Arc::new(Recorder::default())).build().expect("a transport");
    let url: rafthttp::PeerUrl = "http://127.0.0.1:1".parse().expect("a URL");
    let before = memory::peak();
    for id in 100..100 + PEERS {
        transport.add_peer(MemberId(id), vec![url.clone()]).expect("a peer");
    }
    let dead = async {
        while !transport.peers().iter().all(|peer| peer.link.reachable == Some(false)) {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    };
    tokio::time::timeout(PATIENCE, dead).await.expect("nobody answers");
    let taken = memory::peak() - before;
    println!("{taken} bytes of memory, {} for each peer", taken / PEERS);
    transport.stop().await;
    assert!(taken < 24 << 20, "{taken}");
}
