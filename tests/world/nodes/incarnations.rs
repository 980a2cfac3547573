//! Starts of members that are met, and the power that goes just then.

use rafthttp::{Impostor, Incarnation, MemberId, PeerIncarnation, node::Stopped};
use tokio::time::timeout;

use super::*;

/// A member that starts on this disk; chance is another at each of its starts.
async fn start(cluster: &Cluster, place: usize, disk: &MemoryDisk, starts: u64) -> Node {
    let mut config = config(&cluster.memory, disk, NAMES[place]);
    config.world = config.world.with_seed((starts << 8) + place as u64);
    Node::start(config).await.expect("a member")
}

/// What `node` knows of the start of another that it hears.
fn met(node: &Node, other: MemberId) -> Option<Incarnation> {
    let peer = node.transport().peers().into_iter().find(|peer| peer.id == other)?;
    match peer.incarnation {
        PeerIncarnation::Met(met) => Some(met),
        _ => None,
    }
}

fn is_refused(node: &Node, other: MemberId) -> bool {
    node.transport().peers().iter().any(|peer| peer.id == other && peer.refused().is_some())
}

#[test]
fn who_was_met_is_known_though_the_power_went_just_after() {
    simulate(|| async {
        let cluster = Cluster::new();
        let nodes = [
            start(&cluster, 0, &cluster.disks[0], 1).await,
            start(&cluster, 1, &cluster.disks[1], 1).await,
            start(&cluster, 2, &cluster.disks[2], 1).await,
        ];
        let b = nodes[1].raft_status().id;
        // As soon as it is heard, whatever was synced until then is all that is left.
        until("c hears b", || met(&nodes[2], b).is_some()).await;
        let left = cluster.disks[2].after_a_loss_of_power();
        let known = met(&nodes[2], b).expect("it was met");
        cluster.stop(nodes).await;

        // It finds nobody to ask whether it was there before, and has told nobody its client URLs.
        let wiped = start(&cluster, 1, &MemoryDisk::default(), 2).await;
        assert_eq!(wiped.raft_status().id, b, "the same member");
        let c = start(&cluster, 2, &left, 2).await;
        let ended = timeout(Duration::from_secs(60), wiped.stopped()).await;
        assert_eq!(ended, Ok(Stopped::Refused(Impostor::Directory)));
        assert!(is_refused(&c, b), "and c says so");
        assert_ne!(c.raft_status().role, Role::Leader);
        cluster.stop([wiped]).await;

        // On its own disk it is heard.
        let b_again = start(&cluster, 1, &cluster.disks[1], 2).await;
        until("c hears b again", || met(&c, b).is_some()).await;
        let heard = met(&c, b).expect("it was met");
        assert_eq!((heard.directory, heard.boot), (known.directory, known.boot + 1));
        until("they have a leader", || c.raft_status().leader.0 != 0).await;
        cluster.stop([b_again, c]).await;
    });
}

#[test]
fn no_start_is_told_twice_though_the_power_went_as_soon_as_it_was_told() {
    simulate(|| async {
        let cluster = Cluster::new();
        let (a, mut disk) = (start(&cluster, 0, &cluster.disks[0], 1).await, cluster.disks[1].clone());
        for starts in 1..6 {
            let b = start(&cluster, 1, &disk, starts).await;
            // Nothing of it has run yet: what is told from now on is lasting already.
            disk = disk.after_a_loss_of_power();
            let id = b.raft_status().id;
            until("a hears this start of b", || met(&a, id).is_some_and(|met| met.boot == starts)).await;
            assert!(!is_refused(&a, id));
            b.stop().await;
        }
        cluster.stop([a]).await;
    });
}
