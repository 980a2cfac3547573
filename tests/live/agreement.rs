//! What etcd's network metrics say of us, and ours of them.

use crate::{
    learner::Learner,
    scrape::Scrape,
    support::etcd::{Cluster, Member, get},
};

/// How far counts of bytes may lie apart.
const TOLERANCE: f64 = 0.05;
/// Below this, what is not counted alike (link heartbeats, zeros that a version writes) is too large a share.
const BYTES_THAT_TELL: f64 = 500_000.0;

/// Everybody's metrics at one time.
pub struct Metrics {
    ours: Scrape,
    theirs: Vec<Scrape>,
}

impl Metrics {
    pub async fn read(cluster: &Cluster, learner: &Learner) -> Self {
        let mut theirs = Vec::new();
        for member in &cluster.members {
            let (status, text) = get(&member.metrics_url, "/metrics").await.expect("it runs");
            assert_eq!(status, 200);
            theirs.push(Scrape::parse(&text));
        }
        Self { ours: learner.scrape(), theirs }
    }

    /// Panics unless both sides tell the same of the time between `before` and this, in which nothing was done to
    /// anybody. Says how far the leader's count of bytes and ours lay apart.
    pub fn check_since(&self, before: &Self, cluster: &Cluster, learner: &Learner) -> f64 {
        let mut compared = None;
        for (index, member) in cluster.members.iter().enumerate() {
            let (us, them) = (learner.id.to_string(), member.id.to_string());
            let theirs =
                |name: &str, labels: &[(&str, &str)]| delta(name, labels, &self.theirs[index], &before.theirs[index]);
            let ours = |name: &str, labels: &[(&str, &str)]| delta(name, labels, &self.ours, &before.ours);
            self.check_active(index, member, &us);
            for name in ["peer_sent_failures_total", "snapshot_send_failures"] {
                assert_eq!(theirs(name, &[("To", &us)]), 0.0, "{}: {name}", member.name);
                assert_eq!(ours(name, &[("To", &them)]), 0.0, "ours: {name} to {}", member.name);
            }
            for name in ["peer_received_failures_total", "snapshot_receive_failures"] {
                assert_eq!(theirs(name, &[("From", &us)]), 0.0, "{}: {name}", member.name);
                assert_eq!(ours(name, &[("From", &them)]), 0.0, "ours: {name} from {}", member.name);
            }
            let lost = "disconnected_peers_total";
            assert_eq!(theirs(lost, &[("Local", &them), ("Remote", &us)]), 0.0, "{}: {lost}", member.name);
            assert_eq!(ours(lost, &[("Local", &us), ("Remote", &them)]), 0.0, "ours: {lost}: {}", member.name);
            let sent = theirs("peer_sent_bytes_total", &[("To", &us)]);
            let received = ours("peer_received_bytes_total", &[("From", &them)]);
            if sent > BYTES_THAT_TELL || received > BYTES_THAT_TELL {
                let apart = (received / sent - 1.0).abs();
                assert!(apart < TOLERANCE, "{} sent us {sent} bytes, we received {received}", member.name);
                compared = Some(apart);
            }
        }
        compared.expect("a leader that sent us more than a trifle")
    }

    /// Panics unless both sides tell the same of snapshots and round trips, since each of these members started.
    pub fn check_totals(&self, members: &[(usize, &Member)], learner: &Learner) {
        let us = learner.id.to_string();
        let mut snapshots = 0.0;
        for (index, member) in members {
            let them = member.id.to_string();
            let of_them = |name: &str| self.theirs[*index].sum(&full(name), &[("To", &us)]).unwrap_or(0.0);
            let of_us = |name: &str, label: &str| self.ours.sum(&full(name), &[(label, &them)]).unwrap_or(0.0);
            let (sent, received) = (of_them("snapshot_send_success"), of_us("snapshot_receive_success", "From"));
            assert_eq!(sent, received, "snapshots from {}", member.name);
            snapshots += sent;
            for (name, count) in [
                ("snapshot_send_inflights_total", of_them("snapshot_send_inflights_total")),
                ("snapshot_receive_inflights_total", of_us("snapshot_receive_inflights_total", "From")),
            ] {
                assert_eq!(count, 0.0, "{}: {name}", member.name);
            }
            let timed = "snapshot_send_total_duration_seconds_count";
            assert_eq!(of_them(timed), sent, "{}: {timed}", member.name);
            let round_trips = "peer_round_trip_time_seconds_count";
            assert!(of_them(round_trips) > 0.0, "{} has probed us", member.name);
            assert!(of_us(round_trips, "To") > 0.0, "we have probed {}", member.name);
        }
        assert!(snapshots > 0.0, "a snapshot was sent");
    }

    fn check_active(&self, index: usize, member: &Member, us: &str) {
        let them = member.id.to_string();
        let name = full("active_peers");
        assert_eq!(self.theirs[index].sum(&name, &[("Local", &them), ("Remote", us)]), Some(1.0), "{}", member.name);
        assert_eq!(self.ours.sum(&name, &[("Local", us), ("Remote", &them)]), Some(1.0), "ours: {}", member.name);
    }
}

fn full(name: &str) -> String {
    format!("etcd_network_{name}")
}

fn delta(name: &str, labels: &[(&str, &str)], now: &Scrape, before: &Scrape) -> f64 {
    let read = |scrape: &Scrape| scrape.sum(&full(name), labels).unwrap_or(0.0);
    read(now) - read(before)
}
