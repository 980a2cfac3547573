//! Members with `--initial-cluster-state auto` whose ID has been used by an earlier start.

use rafthttp::{MemberId, PeerIncarnation};
use tokio::time::timeout;

use super::*;

/// More client URLs than the membership takes from a member, so it can never publish them.
const TOO_MANY: usize = 17;

/// The config of a member's start on this disk. Each start has other random numbers.
fn started(cluster: &Cluster, place: usize, disk: &MemoryDisk, starts: u64) -> Config {
    let mut config = config(&cluster.memory, disk, NAMES[place]);
    config.world = config.world.with_seed((starts << 8) + place as u64);
    config
}

/// The config of a start with `auto`, an empty disk and this many client URLs.
fn finds_out(cluster: &Cluster, place: usize, starts: u64, client_urls: usize) -> Config {
    Config {
        initial_cluster_state: InitialClusterState::Auto,
        advertise_client_urls: (0..client_urls).map(|_| format!("http://{}:2379", NAMES[place])).collect(),
        ..started(cluster, place, &MemoryDisk::default(), starts)
    }
}

fn has_met(node: &Node, other: MemberId) -> bool {
    let peers = node.transport().peers();
    peers.iter().any(|peer| peer.id == other && matches!(peer.incarnation, PeerIncarnation::Met(_)))
}

/// Waits until a member lists a client URL.
async fn lists(memory: &Memory, name: &str, url: &str) {
    let list = async || ask(memory, name, Method::GET, "/members?consistency=local", "").await.1;
    let found = async {
        while !list().await.contains(url) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(Duration::from_secs(60), found).await.expect("it is told");
}

#[test]
fn who_finds_its_member_running_ends_and_removes_nobody() {
    for client_urls in [1, TOO_MANY] {
        simulate(|| async {
            let cluster = Cluster::new();
            let b = started(&cluster, 1, &cluster.disks[1], 1);
            let urls = finds_out(&cluster, 1, 1, client_urls).advertise_client_urls;
            let nodes = [
                cluster.start(0).await,
                Node::start(Config { advertise_client_urls: urls, ..b }).await.expect("a member"),
                cluster.start(2).await,
            ];
            lists(&cluster.memory, "c", "http://a:2379").await;
            if client_urls == 1 {
                lists(&cluster.memory, "c", "http://b:2379").await;
                lists(&cluster.memory, "a", "http://b:2379").await;
            }
            let other = Config {
                listen_peer_urls: vec!["http://b:2480".parse().expect("a URL")],
                listen_client_urls: vec!["http://b:2479".parse().expect("a URL")],
                ..finds_out(&cluster, 1, 2, 1)
            };
            let id = nodes[1].raft_status().id;
            match timeout(Duration::from_secs(60), Node::start(other)).await {
                Ok(Err(error)) => assert_eq!(
                    error.to_string(),
                    format!(
                        "member {id} runs at http://b:2380: expected no other process at --initial-advertise-peer-urls while \
                         data directory {DIRECTORY}/b is empty"
                    )
                ),
                Ok(Ok(_)) => panic!("it started"),
                Err(_) => panic!("it does not end"),
            }
            assert_eq!(listed(&cluster.memory, "a").await, NAMES);
            assert!(timeout(Duration::from_secs(10), nodes[1].stopped()).await.is_err(), "b goes on");
            write_and_read(&cluster.memory, 0..5, &["a", "b"]).await;
            cluster.stop(nodes).await;
        });
    }
}

/// First of a member that is listed since the birth of its cluster, and then of a learner.
#[test]
fn who_was_met_and_lost_its_disk_before_it_told_its_client_urls_comes_back_as_another_member() {
    simulate(|| async {
        let cluster = Cluster::new();
        let (a, b) = (cluster.start(0).await, cluster.start(1).await);
        lists(&cluster.memory, "a", "http://b:2379").await;
        lists(&cluster.memory, "b", "http://a:2379").await;
        let mut before = Vec::new();
        for (starts, client_urls) in [(1, TOO_MANY), (2, TOO_MANY), (3, 1)] {
            let c = Node::start(finds_out(&cluster, 2, starts, client_urls)).await.expect("a member");
            let id = c.raft_status().id;
            assert!(!before.contains(&id), "start {starts}: {id} was met from another disk");
            before.push(id);
            until("it is met", || has_met(&a, id) || has_met(&b, id)).await;
            if client_urls == 1 {
                lists(&cluster.memory, "a", "http://c:2379").await;
                write_and_read(&cluster.memory, 0..5, &NAMES).await;
            }
            c.stop().await;
        }
        cluster.stop([a, b]).await;
    });
}
