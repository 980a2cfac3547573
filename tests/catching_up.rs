//! Members that are new, or were away, while the cluster works: how many snapshots they need, what a `kill -9` leaves of
//! one, and how long raft waits for it.

use std::{
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use http::{Method, StatusCode};

#[path = "cluster/http_client.rs"]
mod http_client;
#[path = "cluster/ledger.rs"]
#[allow(dead_code, reason = "each test binary uses its part")]
mod ledger;
#[path = "support/ports.rs"]
mod ports;
#[path = "cluster/process.rs"]
#[allow(dead_code, reason = "each test binary uses its part")]
mod process;
#[path = "support/tier.rs"]
mod tier;

use http_client::HttpClient;
use ledger::Scrape;
use process::Cluster;

/// A heartbeat interval, as members have it by default.
const HEARTBEAT: Duration = Duration::from_millis(100);
/// The edge of a bucket of the ticks' delays that a heartbeat interval is nearest to.
const HEARTBEAT_EDGE: &str = "0.1024";

/// Writes at a rate, each with an outcome, for as long as this lives.
struct Load {
    stop: Arc<AtomicBool>,
    /// How long each acknowledged write took.
    took: Arc<Mutex<Vec<Duration>>>,
    refused: Arc<AtomicU64>,
    writers: Vec<tokio::task::JoinHandle<()>>,
}

/// Writers that share the rate: more than are under way at a time.
const WRITERS: u32 = 32;

impl Load {
    /// So many writes a second, of which each member is asked for its part.
    fn start(cluster: &Cluster, a_second: u32) -> Self {
        let running = (0..cluster.members.len()).filter(|member| cluster.runs(*member));
        let urls: Vec<String> = running.map(|member| cluster.members[member].client.clone()).collect();
        let (stop, took, refused) = (Arc::<AtomicBool>::default(), Arc::<Mutex<_>>::default(), Arc::default());
        let writers = (0..WRITERS).map(|writer| {
            let (stop, took, refused) = (stop.clone(), Arc::clone(&took), Arc::clone(&refused));
            let (urls, http) = (urls.clone(), cluster.http.clone());
            tokio::spawn(async move {
                let mut clock = tokio::time::interval(Duration::from_secs(1) * WRITERS / a_second);
                for number in 0_usize.. {
                    clock.tick().await;
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let url = format!("{}/kv/load-{writer}-{}", urls[number % urls.len()], number % 50);
                    write(&http, url, &took, &refused).await;
                }
            })
        });
        Self { writers: writers.collect(), stop, took, refused }
    }

    /// How long the writes took since this was asked last, the fastest first.
    fn times(&self) -> Vec<Duration> {
        let mut took = std::mem::take(&mut *self.took.lock().expect("nobody panics"));
        took.sort_unstable();
        took
    }

    async fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        for writer in self.writers {
            writer.await.expect("it ends");
        }
    }
}

async fn write(http: &HttpClient, url: String, took: &Mutex<Vec<Duration>>, refused: &AtomicU64) {
    let begun = Instant::now();
    match http.ask(Method::PUT, url, "v".repeat(200)).await {
        Some((StatusCode::NO_CONTENT, _)) => took.lock().expect("nobody panics").push(begun.elapsed()),
        _ => drop(refused.fetch_add(1, Ordering::Relaxed)),
    }
}

/// The time below which 99 of a hundred are.
fn p99(times: &[Duration]) -> Duration {
    times[times.len() * 99 / 100]
}

/// Fills a cluster with so many values of so many bytes.
async fn fill(cluster: &Cluster, values: usize, bytes: usize) {
    let value = "0123456789abcdef".repeat(bytes / 16);
    let leader = cluster.leader().await;
    for number in 0..values {
        cluster.put(leader, &format!("data-{number}"), &value).await;
    }
}

/// Adds a learner, which does not run yet.
async fn add(cluster: &mut Cluster, flags: &[&str]) -> usize {
    let joiner = cluster.place(flags);
    cluster.members[joiner].state = "existing";
    let body = format!(r#"{{"peerURLs":["{}"],"isLearner":true}}"#, cluster.members[joiner].peer);
    let leader = cluster.leader().await;
    cluster
        .until("a learner more", Duration::from_secs(30), async |cluster: &Cluster| {
            (cluster.ask(leader, Method::POST, "/members", &body).await?.0 == StatusCode::CREATED).then_some(())
        })
        .await;
    joiner
}

/// The events of a member of one kind.
async fn events(cluster: &Cluster, member: usize, kind: &str) -> Option<Vec<serde_json::Value>> {
    let url = format!("{}/api/events", cluster.members[member].metrics);
    let (_, body) = cluster.http.ask(Method::GET, url, String::new()).await?;
    let body: serde_json::Value = serde_json::from_str(&body).ok()?;
    Some(body["events"].as_array()?.iter().filter(|event| event["kind"] == kind).cloned().collect())
}

/// Waits until a member has all that is committed by now, while more is written.
async fn has_caught_up(cluster: &Cluster, member: usize, patience: Duration) {
    let committed = cluster
        .until("a leader's word", Duration::from_secs(30), async |cluster: &Cluster| {
            let leader = cluster.leader().await;
            cluster.status(leader).await?["commit"].as_u64()
        })
        .await;
    cluster
        .until("a member that catches up", patience, async |cluster: &Cluster| {
            (cluster.status(member).await?["applied"].as_u64()? >= committed).then_some(())
        })
        .await;
}

/// Runs a cluster with data and a load, has a member join it, and returns how many snapshots that was sent until it had
/// caught up. In the middle, if there is to be a change of leader, whoever leads stops.
async fn snapshots_of_a_joiner(snapshot_count: &str, values: usize, writes: u32, change_of_leader: bool) -> usize {
    // As the defaults do with gigabytes: all that is kept beyond the count is kept for who needs it.
    let flags = ["--snapshot-count", snapshot_count, "--log-retention-bytes", "0"];
    let mut cluster = Cluster::new(3, &flags);
    cluster.start_all();
    fill(&cluster, values, 1 << 20).await;
    let joiner = add(&mut cluster, &flags).await;
    let load = Load::start(&cluster, writes);
    tokio::time::sleep(Duration::from_secs(2)).await;
    cluster.start(joiner);
    cluster
        .until("a snapshot", Duration::from_secs(60), async |cluster: &Cluster| {
            let begun = events(cluster, joiner, "snapshot_started").await?;
            (!begun.is_empty()).then_some(())
        })
        .await;
    if change_of_leader {
        let leader = cluster.leader().await;
        cluster.signal(leader, rustix::process::Signal::TERM);
        cluster.exit(leader, Duration::from_secs(20)).await;
        cluster.start(leader);
    }
    has_caught_up(&cluster, joiner, Duration::from_secs(120)).await;
    // And stays so.
    tokio::time::sleep(Duration::from_secs(2)).await;
    has_caught_up(&cluster, joiner, Duration::from_secs(20)).await;
    let snapshots = events(&cluster, joiner, "snapshot_started").await.expect("it runs").len();
    println!("{snapshots} snapshots, {} writes, {} refused", load.times().len(), load.refused.load(Ordering::Relaxed));
    load.stop().await;
    snapshots
}

#[tokio::test(flavor = "multi_thread")]
async fn a_joiner_under_load_needs_two_snapshots_at_most() {
    // 98 MB where there is time.
    let values = if tier::tier_is_all() { 98 } else { 24 };
    let snapshots = snapshots_of_a_joiner("5", values, 130, false).await;
    assert!((1..=2).contains(&snapshots), "{snapshots}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_joiner_under_load_needs_two_snapshots_at_most_across_a_change_of_leader() {
    let values = if tier::tier_is_all() { 98 } else { 24 };
    let snapshots = snapshots_of_a_joiner("5", values, 130, true).await;
    assert!((1..=2).contains(&snapshots), "{snapshots}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_joiner_under_a_heavy_load_needs_two_snapshots_at_most() {
    if !tier::tier_is_all() {
        return tier::not_run("a joiner under 670 writes a second: make test-all");
    }
    for change_of_leader in [false, true] {
        let snapshots = snapshots_of_a_joiner("200", 98, 670, change_of_leader).await;
        assert!((1..=2).contains(&snapshots), "{snapshots}");
    }
}

/// The names in a member's directory, and those of received snapshots.
fn left(directory: &Path) -> Vec<String> {
    let names = |directory: &Path| {
        let entries = std::fs::read_dir(directory).into_iter().flatten();
        entries.filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned())).collect::<Vec<_>>()
    };
    let member = directory.join("member");
    let mut left: Vec<_> = names(&member).into_iter().chain(names(&member.join("snap"))).collect();
    left.sort();
    left
}

/// Waits until there is something, without letting the process do more than it has to. Says whether there was.
async fn soon(patience: Duration, found: impl Fn() -> bool) -> bool {
    let end = Instant::now() + patience;
    while !found() {
        if Instant::now() >= end {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    true
}

/// Starts a member and kills it in the middle of an install. On a machine that is busy the install may end first: then
/// the member is made to need another one.
async fn kill_during_an_install(cluster: &mut Cluster, joiner: usize) {
    let directory = cluster.members[joiner].directory.clone();
    let installs = || left(&directory).iter().any(|name| name.starts_with("incoming-"));
    for tried in 1.. {
        cluster.start(joiner);
        soon(Duration::from_secs(20), installs).await;
        cluster.kill(joiner);
        if installs() {
            return;
        }
        assert!(tried < 10, "no kill came in the middle of an install, of ten");
        let leader = cluster.leader().await;
        for number in 0..20 {
            cluster.put(leader, &format!("more-{number}"), "more than the log keeps").await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_during_an_install_leaves_nothing() {
    let flags = ["--snapshot-count", "5", "--log-retention-bytes", "0"];
    let mut cluster = Cluster::new(1, &flags);
    cluster.start_all();
    fill(&cluster, 16, 1 << 20).await;
    let joiner = add(&mut cluster, &flags).await;
    let directory = cluster.members[joiner].directory.clone();
    for _ in 0..2 {
        kill_during_an_install(&mut cluster, joiner).await;
    }
    cluster.start(joiner);
    has_caught_up(&cluster, joiner, Duration::from_secs(60)).await;
    // The record of a snapshot that came in parts is removed after raft's answer, which a busy machine may delay.
    let is_clean = || left(&directory) == ["log", "node.redb", "snap"];
    assert!(soon(Duration::from_secs(20), is_clean).await, "{:?}", left(&directory));
}

/// Whether a process has a file open that begins with this, and that has no name any more.
fn has_open(process: u32, name: &str) -> bool {
    let open = std::fs::read_dir(format!("/proc/{process}/fd")).into_iter().flatten();
    open.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok()).any(|path| {
        let path = path.to_string_lossy().into_owned();
        path.ends_with("(deleted)") && path.contains(&format!("/{name}"))
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_while_a_snapshot_is_spooled_or_sent_leaves_nothing() {
    // At this rate it is sent for four seconds at least, and the receiver records twice a second what it has.
    let flags = ["--snapshot-count", "5", "--log-retention-bytes", "0", "--snapshot-rate", "4MiB"];
    let mut cluster = Cluster::new(1, &flags);
    cluster.start_all();
    fill(&cluster, 16, 1 << 20).await;
    let joiner = add(&mut cluster, &flags).await;
    let directory = cluster.members[0].directory.clone();
    let received = cluster.members[joiner].directory.clone();
    cluster.start(joiner);
    let process = cluster.process(0);
    assert!(soon(Duration::from_secs(60), || has_open(process, "spool-")).await, "nothing was spooled");
    cluster.kill(0);
    assert_eq!(left(&directory), ["log", "node.redb", "snap"]);
    cluster.start(0);
    let has_a_part = || left(&received).iter().any(|name| name.ends_with(".record"));
    assert!(soon(Duration::from_secs(60), has_a_part).await, "{:?}", left(&received));
    cluster.kill(0);
    assert_eq!(left(&directory), ["log", "node.redb", "snap"]);
    cluster.start(0);
    // It looks at its data before it answers.
    cluster.until("a status", Duration::from_secs(60), async |cluster: &Cluster| cluster.status(0).await).await;
    has_caught_up(&cluster, joiner, Duration::from_secs(60)).await;
    assert_eq!(left(&directory), ["log", "node.redb", "snap"]);
    let restarted = events(&cluster, joiner, "snapshot_restarted").await.expect("it runs");
    let reasons: Vec<_> = restarted.iter().map(|event| &event["reason"]).collect();
    assert_eq!(reasons, ["another"], "a new snapshot is another one, and that is said once");
}

/// How many ticks of raft there were, and how many of them came more than a heartbeat interval late.
async fn late_ticks(cluster: &Cluster, member: usize) -> (f64, f64) {
    let scrape = cluster
        .until("a scrape", Duration::from_secs(20), async |cluster: &Cluster| Scrape::of(cluster, member).await)
        .await;
    let all = scrape.sum("rafthttp_raft_tick_delay_seconds_count", &[]);
    (all, all - scrape.sum("rafthttp_raft_tick_delay_seconds_bucket", &[("le", HEARTBEAT_EDGE)]))
}

/// Raft goes on while much is spooled, sent, received and installed: no tick comes a heartbeat late, on neither side, and
/// whoever writes waits hardly longer.
#[tokio::test(flavor = "multi_thread")]
async fn raft_does_not_wait_for_a_snapshot_of_gigabytes() {
    if !tier::tier_is_all() {
        return tier::not_run("the ticks of raft during a snapshot of 4 GB: make test-all");
    }
    let megabytes =
        std::env::var("RAFTHTTP_SNAPSHOT_MEGABYTES").ok().and_then(|text| text.parse().ok()).unwrap_or(4096);
    let flags = ["--snapshot-count", "1000", "--log-retention-bytes", "0", "--quota-backend-bytes", "16GiB"];
    let mut cluster = Cluster::new(1, &flags);
    cluster.start_all();
    fill(&cluster, megabytes, 1 << 20).await;
    let joiner = add(&mut cluster, &flags).await;
    let load = Load::start(&cluster, 100);
    tokio::time::sleep(Duration::from_secs(2)).await;
    load.times();
    let before = late_ticks(&cluster, 0).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    let quiet = load.times();
    let between = late_ticks(&cluster, 0).await;
    let (late, all) = (between.1 - before.1, between.0 - before.0);
    println!("before: p99 {:?}, {late} of {all} ticks late", p99(&quiet));
    cluster.start(joiner);
    let begun = Instant::now();
    has_caught_up(&cluster, joiner, Duration::from_secs(900)).await;
    let busy = load.times();
    let (leader, follower) = (late_ticks(&cluster, 0).await, late_ticks(&cluster, joiner).await);
    println!(
        "{megabytes} MB in {:?}: p99 {:?}, {} of {} ticks late, {} of {} at the receiver",
        begun.elapsed(),
        p99(&busy),
        leader.1 - between.1,
        leader.0 - between.0,
        follower.1,
        follower.0
    );
    load.stop().await;
    // A machine that makes ticks late by itself goes on doing so, at the same rate.
    let most = |ticks: f64| (ticks * late / all).ceil();
    let is_on_time = leader.1 - between.1 <= most(leader.0 - between.0) && follower.1 <= most(follower.0);
    assert!(is_on_time, "ticks came more than {HEARTBEAT:?} late");
    // What a disk that is shared takes now and then is no multiple of anything.
    assert!(p99(&busy) <= (2 * p99(&quiet)).max(HEARTBEAT / 2), "{:?}, then {:?}", p99(&quiet), p99(&busy));
}
