//! Load from etcd's own tools.

use std::{
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use crate::support::etcd::Cluster;

/// A tool that writes, ended with what holds it.
pub struct Load(Child);

impl Load {
    /// `etcdctl check perf` at a thousand writes a second of a kilobyte; a minute of it, unless it is ended before.
    pub fn check_perf(cluster: &Cluster, prefix: &str) -> Self {
        let mut command = cluster.etcdctl_command(&endpoints(cluster));
        command.args(["check", "perf", "--load=m", "--prefix", prefix]);
        Self::start(command)
    }

    /// etcd's `benchmark put`: values of four kilobytes, as many a second as this says.
    pub fn benchmark(cluster: &Cluster, tool: &PathBuf, rate: u32, time: Duration) -> Self {
        let mut command = Command::new(tool);
        let total = u64::from(rate) * time.as_secs();
        command.args(["--endpoints", &endpoints(cluster), "--conns=4", "--clients=32", "put", "--val-size=4096"]);
        command.args([format!("--rate={rate}"), format!("--total={total}"), "--key-space-size=1000".to_owned()]);
        Self::start(command)
    }

    fn start(mut command: Command) -> Self {
        let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().expect("it is there"))
    }

    /// Waits until the load has ended, for at most this long.
    pub async fn done(mut self, patience: Duration) {
        let end = Instant::now() + patience;
        while Instant::now() < end && self.0.try_wait().expect("it is ours").is_none() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until the log has this many more entries.
pub async fn grown(cluster: &Cluster, by: u64, patience: Duration) {
    let (start, end) = (log_index(cluster), Instant::now() + patience);
    while log_index(cluster) < start + by {
        assert!(Instant::now() < end, "not within {patience:?}: {by} writes; {} so far", log_index(cluster) - start);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// The largest raft index that a member tells.
pub fn log_index(cluster: &Cluster) -> u64 {
    let told =
        cluster.members.iter().filter(|member| member.runs()).filter_map(|member| cluster.endpoint_status(member));
    told.filter_map(|status| status["raftIndex"].as_u64()).max().unwrap_or(0)
}

fn endpoints(cluster: &Cluster) -> String {
    cluster.members.iter().map(|member| member.client_url.as_str()).collect::<Vec<_>>().join(",")
}
