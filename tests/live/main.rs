//! A member on our transport in live clusters of etcd, of every version, plain and mTLS: it joins as a learner, follows
//! the log and every leader, while members are restarted, frozen and cut off under load, until it is removed.

#![allow(clippy::unwrap_used, clippy::panic, reason = "what a test stands on ends it when it gives way")]

use std::time::Duration;

use rafthttp::{Critical, wire::version::Version};
use tokio::time::{Instant, sleep};

#[path = "../support/mod.rs"]
mod support;

mod agreement;
mod complaints;
mod follower;
mod learner;
mod load;
mod relay;
#[path = "../support/scrape.rs"]
mod scrape;

use agreement::Metrics;
use complaints::{Since, check_all, check_quiet};
use follower::MARKER;
use learner::Learner;
use load::{Load, grown};
use support::{
    etcd::{Cluster, Member, Security},
    not_run, program, tier_is_all,
};

/// Within this all four streams are up, where nothing is in the way.
const STREAMS_UP: Duration = Duration::from_secs(2);
/// What a busy machine may add to any of the times here: it has the three members, their load and other tests to run.
const SCHEDULING: Duration = Duration::from_secs(3);
/// Within this they are up again, once the other member is there again: etcd may wait for 5 s for an answer that it
/// never gets, and begins again then.
const STREAMS_UP_AGAIN: Duration = Duration::from_secs(10);
/// Longer than the 5 s after which a stream that says nothing is given up, on either side.
const SILENCE: Duration = Duration::from_secs(7);
/// Longer than anything may take that nobody has set a time for.
const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn etcd_3_4() {
    live("3.4", Security::Plain).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn etcd_3_4_mtls() {
    live("3.4", Security::Mtls).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn etcd_3_5() {
    live("3.5", Security::Plain).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn etcd_3_5_mtls() {
    live("3.5", Security::Mtls).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn etcd_3_6() {
    live("3.6", Security::Plain).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn etcd_3_6_mtls() {
    live("3.6", Security::Mtls).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn etcd_3_7() {
    live("3.7", Security::Plain).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn etcd_3_7_mtls() {
    live("3.7", Security::Mtls).await;
}

async fn live(version: &str, security: Security) {
    if !tier_is_all() && !["3.4", "3.6"].contains(&version) {
        return not_run(&format!("a live cluster of etcd {version}, {security:?}: make test-all"));
    }
    let Some(mut cluster) = Cluster::start_with(version, 3, security, snapshots_soon).await else { return };
    fill_log(&cluster).await;
    cluster.etcdctl(&["put", &format!("{MARKER}1"), "in the snapshot"]);

    let learner = joins(&cluster).await;
    follows_the_log(&cluster, &learner, 2).await;
    let load = Load::check_perf(&cluster, "/faults/");
    follows_a_leader_that_moves(&cluster, &learner).await;
    let restarted = a_member_is_restarted(&mut cluster, &learner).await;
    a_member_is_frozen(&cluster, &learner).await;
    a_member_is_cut_off(&cluster, &learner).await;
    load.done(if tier_is_all() { Duration::from_secs(90) } else { Duration::ZERO }).await;

    follows_the_log(&cluster, &learner, 3).await;
    agrees_under_load(&cluster, &learner, restarted).await;
    follows_the_log(&cluster, &learner, 4).await;
    is_removed(&cluster, learner).await;
}

/// Whether 5000 entries are kept for those that lag, and nobody can change that.
fn keeps_entries(version: Version) -> bool {
    version <= Version::new(3, 5, 1)
}

fn snapshots_soon(version: Version) -> Vec<&'static str> {
    let mut flags = vec!["--snapshot-count=500"];
    if !keeps_entries(version) {
        let old = version < Version::new(3, 6, 0);
        flags.push(if old { "--experimental-snapshot-catchup-entries=500" } else { "--snapshot-catchup-entries=500" });
    }
    flags
}

/// Writes until the log is compacted, so that a member that joins needs a snapshot.
async fn fill_log(cluster: &Cluster) {
    let entries = if keeps_entries(cluster.version) { 6500 } else { 1500 };
    let load = Load::check_perf(cluster, "/before/");
    grown(cluster, entries, PATIENCE * 3).await;
    drop(load);
}

/// All streams are up at once, and the snapshot comes, with what was written before.
async fn joins(cluster: &Cluster) -> Learner {
    let (learner, started) = Learner::join(cluster).await;
    learner.linked(&all(cluster), PATIENCE).await;
    let took = started.elapsed();
    assert!(took < STREAMS_UP + SCHEDULING, "{took:?} until all streams were up");
    learner.until("a snapshot", PATIENCE, || !learner.follower().snapshots.is_empty()).await;
    let index = learner.follower().snapshots[0];
    let data = learner.snapshot(index);
    assert_eq!(data.get(16..20), Some(&0xED0C_DAED_u32.to_le_bytes()[..]), "a bbolt file's magic number");
    assert!(holds(&data, &format!("{MARKER}1")), "what was written before is in the snapshot at {index}");
    println!("{}: streams up within {took:?}, snapshot of {} bytes at {index}", cluster.version, data.len());
    learner
}

/// What is written comes, and is committed.
async fn follows_the_log(cluster: &Cluster, learner: &Learner, marker: u64) {
    cluster.etcdctl(&["put", &format!("{MARKER}{marker}"), "in the log"]);
    learner
        .until("what was written is committed", PATIENCE, || {
            let follower = learner.follower();
            let by_snapshot = || {
                follower
                    .snapshots
                    .last()
                    .is_some_and(|index| holds(&learner.snapshot(*index), &format!("{MARKER}{marker}")))
            };
            (follower.markers.contains(&marker) || by_snapshot()) && follower.commit == follower.last.0
        })
        .await;
}

async fn follows_a_leader_that_moves(cluster: &Cluster, learner: &Learner) {
    let next = &cluster.members[(cluster.leader().await + 1) % 3];
    // Only the leader takes this.
    let leader = &cluster.members[cluster.leader().await];
    let mut command = cluster.etcdctl_command(&leader.client_url);
    let output = command.args(["move-leader", &next.id.to_string()]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    learner.until("the new leader is followed", PATIENCE, || learner.follower().leader == next.id.0).await;
}

/// Kills a follower and starts it again. Says which.
async fn a_member_is_restarted(cluster: &mut Cluster, learner: &Learner) -> usize {
    let index = (cluster.leader().await + 1) % 3;
    cluster.members[index].kill();
    learner.until("its streams are lost", PATIENCE, || learner.streams(&cluster.members[index]) == 0).await;
    cluster.members[index].restart();
    cluster.healthy().await;
    let took = learner.linked(&[&cluster.members[index]], STREAMS_UP_AGAIN + SCHEDULING).await;
    println!("{}: a restarted member's streams up {took:?} after it was healthy", cluster.version);
    index
}

/// The leader stands still: another is elected and followed; when it comes back, so do its streams.
async fn a_member_is_frozen(cluster: &Cluster, learner: &Learner) {
    let frozen = &cluster.members[cluster.leader().await];
    frozen.freeze();
    let start = Instant::now();
    learner
        .until("another leader is followed", PATIENCE, || ![0, frozen.id.0].contains(&learner.follower().leader))
        .await;
    learner.until("its streams are lost", SILENCE + SCHEDULING, || learner.streams(frozen) == 0).await;
    let lost = start.elapsed();
    frozen.thaw();
    cluster.healthy().await;
    let took = learner.linked(&[frozen], STREAMS_UP_AGAIN + SCHEDULING).await;
    println!("{}: a frozen member's streams lost after {lost:?}, up {took:?} after it was healthy", cluster.version);
}

/// The leader cannot be heard, nor hear us, while the others can: what it sends meanwhile comes afterwards.
async fn a_member_is_cut_off(cluster: &Cluster, learner: &Learner) {
    let index = cluster.leader().await;
    let (member, snapshots) = (&cluster.members[index], learner.follower().snapshots.len());
    learner.cut(index, member);
    learner.until("its streams are lost", SILENCE + SCHEDULING, || learner.streams(member) == 0).await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(learner.streams(member), 0, "what was cut stays cut");
    for other in all(cluster).into_iter().filter(|other| other.id != member.id) {
        assert_eq!(learner.streams(other), 4, "{} was not cut off", other.name);
    }
    learner.mend(index);
    let took = learner.linked(&[member], STREAMS_UP_AGAIN + SCHEDULING).await;
    let more = learner.follower().snapshots.len() - snapshots;
    println!("{}: streams up {took:?} after the cut was mended, {more} snapshots since", cluster.version);
}

/// Nothing is done to anybody: no complaint, no loss, and the metrics of both sides tell the same.
async fn agrees_under_load(cluster: &Cluster, learner: &Learner, restarted: usize) {
    learner.linked(&all(cluster), PATIENCE).await;
    idle(cluster, learner).await;
    let since = Since::now(cluster);
    let losses: Vec<u64> = all(cluster).into_iter().map(|member| learner.losses(member)).collect();
    let before = Metrics::read(cluster, learner).await;
    let entries = learner.follower().entries;
    quiet_load(cluster).await;
    idle(cluster, learner).await;
    let after = Metrics::read(cluster, learner).await;
    let apart = after.check_since(&before, cluster, learner);
    let kept: Vec<(usize, &Member)> =
        cluster.members.iter().enumerate().filter(|(index, _)| *index != restarted).collect();
    after.check_totals(&kept, learner);
    assert_eq!(
        all(cluster).into_iter().map(|member| learner.losses(member)).collect::<Vec<_>>(),
        losses,
        "streams lost"
    );
    check_quiet(cluster, learner, &since);
    let entries = learner.follower().entries - entries;
    println!("{}: {entries} entries under load, bytes {:.2} % apart", cluster.version, apart * 100.0);
}

/// Writes of etcd's own tools, minutes of them in the run of everything.
async fn quiet_load(cluster: &Cluster) {
    let load = Load::check_perf(cluster, "/quiet/");
    if !tier_is_all() {
        return load.done(Duration::from_secs(8)).await;
    }
    load.done(Duration::from_secs(90)).await;
    if let Some(tool) = program("etcd's benchmark tool", "etcd-benchmark", &[]) {
        let time = Duration::from_secs(60);
        Load::benchmark(cluster, &tool, 500, time).done(time + PATIENCE).await;
    }
}

/// Waits until nobody writes any more and everything has come.
async fn idle(cluster: &Cluster, learner: &Learner) {
    let mut last = 0;
    learner
        .until("the log stands still", PATIENCE, || {
            let index = load::log_index(cluster);
            let still = index == last && learner.follower().last.0 == index;
            last = index;
            still
        })
        .await;
}

/// Every member says so; it is told once, and the streams end.
async fn is_removed(cluster: &Cluster, learner: Learner) {
    cluster.remove(learner.id);
    learner.until("it hears that it was removed", PATIENCE, || !learner.critical().is_empty()).await;
    learner
        .until("its streams end", PATIENCE, || all(cluster).into_iter().all(|member| learner.streams(member) == 0))
        .await;
    sleep(Duration::from_secs(2)).await;
    let told = learner.critical();
    assert!(matches!(told[..], [Critical::MemberRemoved { .. }]), "told {told:?}");
    assert_eq!(learner.follower().unexpected, Vec::<String>::new());
    learner.check_ledger();
    check_all(cluster, &learner);
    let (entries, snapshots, leaders) = {
        let follower = learner.follower();
        (follower.entries, follower.snapshots.len(), follower.leaders.len())
    };
    println!("{}: {entries} entries, {snapshots} snapshots, {leaders} leaders followed, then removed", cluster.version);
    learner.stop().await;
}

fn all(cluster: &Cluster) -> Vec<&Member> {
    cluster.members.iter().collect()
}

fn holds(data: &[u8], text: &str) -> bool {
    data.windows(text.len()).any(|window| window == text.as_bytes())
}
