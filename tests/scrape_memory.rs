//! The memory that a scrape of a thousand peers takes. It measures the process' memory, so it is a program of its own.

#![cfg(target_os = "linux")]

use rafthttp::{
    PeerStatus, TransportStatus,
    id::MemberId,
    metrics::{Exposition, Options},
};

#[path = "support/memory.rs"]
mod memory;

const PEERS: u64 = 1000;

fn idle_peer(id: u64) -> PeerStatus {
    let mut peer = PeerStatus::default();
    peer.id = MemberId(id << 32);
    peer.name = format!("member-{id}");
    peer.urls = vec!["http://127.0.0.1:2380".parse().expect("a URL")];
    peer
}

/// A member with a thousand peers has 32 MiB for everything; a scrape may have a quarter of that.
#[test]
fn a_scrape_of_a_thousand_peers_takes_less_than_8_mib() {
    let before = memory::peak();
    let mut status = TransportStatus::default();
    status.peers = (1..=PEERS).map(idle_peer).collect();
    let (mut bytes, mut longest) = (0, 0);
    for piece in Exposition::new(status, &Options::default()) {
        bytes += piece.len();
        longest = longest.max(piece.len());
    }
    let taken = memory::peak() - before;
    println!("{bytes} bytes of text, pieces of up to {longest}, {taken} bytes of memory");
    assert!(bytes > 20 << 20, "{bytes}: so much could not be held as a whole");
    assert!(longest < 64 << 10, "{longest}");
    assert!(taken < 8 << 20, "{taken}");
}
