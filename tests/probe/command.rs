//! The command as a process: run to its end, or watched while it goes on.

use std::{
    process::{Output, Stdio},
    time::{Duration, Instant},
};

use tokio::process::{Child, Command};

use crate::{
    scrape::Scrape,
    support::{
        etcd::{get, signal},
        ports::free_port,
    },
};

/// When what happens to a member is visible: interval and time-out.
pub const VISIBLE: Duration = Duration::from_millis(1800);
/// What the processes of a test may lose to others on a busy machine.
pub const SCHEDULING: Duration = Duration::from_secs(4);

/// The time limit for everything that has no limit of its own.
const PATIENCE: Duration = Duration::from_secs(30);

fn rafthttp() -> Command {
    let mut command = Command::from(crate::binary::rafthttp());
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// `rafthttp probe --once`, to its end.
pub async fn once(arguments: &[&str]) -> Output {
    let output = rafthttp().args(["probe", "--once"]).args(arguments).output();
    tokio::time::timeout(PATIENCE, output).await.expect("it ends").unwrap()
}

/// Its exit status, and the rows of `-o json`.
pub async fn rows(arguments: &[&str]) -> (Option<i32>, serde_json::Value) {
    let output = once(&[&["-o", "json"], arguments].concat()).await;
    let said = String::from_utf8_lossy(&output.stderr);
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("JSON: {said}"));
    (output.status.code(), document)
}

/// The row of a URL.
pub fn row<'a>(document: &'a serde_json::Value, url: &str) -> &'a serde_json::Value {
    let rows = document["members"].as_array().unwrap();
    rows.iter().find(|row| row["url"] == url).unwrap_or_else(|| panic!("no row of {url}: {document}"))
}

/// `rafthttp probe` that goes on.
pub struct Watching {
    child: Child,
    pub url: String,
}

impl Watching {
    pub fn start(arguments: &[&str]) -> Self {
        let url = format!("http://127.0.0.1:{}", free_port());
        let child = rafthttp()
            .args(["probe", "--listen-metrics-urls", &url])
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, url }
    }

    pub async fn scrape(&self) -> Option<Scrape> {
        get(&self.url, "/metrics").await.ok().filter(|(status, _)| *status == 200).map(|(_, text)| Scrape::parse(&text))
    }

    /// Waits until a scrape shows something; returns how long that took.
    pub async fn until(&self, what: &str, holds: impl Fn(&Scrape) -> bool) -> Duration {
        let start = Instant::now();
        loop {
            if self.scrape().await.as_ref().is_some_and(&holds) {
                return start.elapsed();
            }
            assert!(start.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The same, and no later than telemetry promises.
    pub async fn visible(&self, what: &str, holds: impl Fn(&Scrape) -> bool) {
        let took = self.until(what, holds).await;
        assert!(took <= VISIBLE + SCHEDULING, "{what}: visible after {took:?}");
    }

    pub async fn peers(&self) -> serde_json::Value {
        let (_, body) = get(&self.url, "/api/peers").await.unwrap();
        serde_json::from_str(&body).unwrap()
    }

    /// SIGTERM, and its exit status.
    pub async fn stop(mut self) -> Option<i32> {
        signal(self.child.id().unwrap(), "TERM");
        tokio::time::timeout(PATIENCE, self.child.wait()).await.expect("it ends").unwrap().code()
    }
}

/// Whether a peer is reachable (1 or 0). `None` before the first probe, and for a peer that is not a member.
pub fn reachable(scrape: &Scrape, peer: &str) -> Option<f64> {
    scrape.sum("rafthttp_peer_reachable", &[("peer", peer)])
}

/// Whether nothing is shown of a member that only holds while it answers.
pub fn shows_no_old_value(scrape: &Scrape, peer: &str) -> bool {
    ["rafthttp_peer_clock_offset_seconds", "rafthttp_peer_version_info", "rafthttp_peer_foreign"]
        .iter()
        .all(|name| scrape.sum(name, &[("peer", peer)]).is_none())
}
