//! Members that come back with another disk: an empty one, a restored backup, a clone. Nobody hears them, and they end
//! and say why. Acknowledged writes are there as soon as a member that has them returns.

use std::time::Duration;

use http::{Method, StatusCode};
use rafthttp::wire::raftpb::MessageType;

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
#[path = "attacks/stranger.rs"]
#[allow(dead_code, reason = "each test binary uses its part")]
mod stranger;

use process::{Cluster, copy};
use stranger::{STRANGER, Target};

const PATIENCE: Duration = Duration::from_secs(15);
/// The status of a member that no member hears.
const REFUSED: Option<i32> = Some(4);

/// Three members that have met each other: each has told the cluster its directory, and hears the two others.
async fn acquainted() -> Cluster {
    let mut cluster = Cluster::new(3, &[]);
    cluster.start_all();
    for member in 0..3 {
        cluster.put(member, &format!("first-{member}"), "v").await;
    }
    acquaint(&cluster).await;
    cluster
}

/// Waits until every member that runs hears all others that run.
async fn acquaint(cluster: &Cluster) {
    let running: Vec<usize> = (0..cluster.members.len()).filter(|member| cluster.runs(*member)).collect();
    for member in &running {
        cluster
            .until("members that have met", PATIENCE, async |cluster: &Cluster| {
                let met = incarnations(cluster, *member).await?.iter().filter(|peer| peer["state"] == "met").count();
                (met >= running.len() - 1).then_some(())
            })
            .await;
    }
}

/// Waits until the two others hear the second member's start of this number.
async fn acquaint_with_the_second(cluster: &Cluster, boot: u32) {
    for member in [0, 2] {
        cluster
            .until("a start that is met", PATIENCE, async |cluster: &Cluster| {
                let peers = incarnations(cluster, member).await?;
                let met = |peer: &serde_json::Value| {
                    peer["state"] == "met"
                        && peer["told"].as_str().is_some_and(|told| told.contains(&format!("-{boot}-")))
                };
                peers.iter().any(|peer| peer["name"] == "n2" && met(peer)).then_some(())
            })
            .await;
    }
}

/// What a member's `/api/peers` says of its peers' incarnations, and their names.
async fn incarnations(cluster: &Cluster, member: usize) -> Option<Vec<serde_json::Value>> {
    let url = format!("{}/api/peers", cluster.members[member].metrics);
    let (_, body) = cluster.http.ask(Method::GET, url, String::new()).await?;
    let peers: serde_json::Value = serde_json::from_str(&body).ok()?;
    let of = |peer: &serde_json::Value| {
        let mut incarnation = peer["incarnation"].clone();
        incarnation["name"] = peer["name"].clone();
        incarnation
    };
    Some(peers["peers"].as_array()?.iter().map(of).collect())
}

fn wipe(cluster: &Cluster, member: usize) {
    std::fs::remove_dir_all(&cluster.members[member].directory).expect("it is there");
}

/// The member ends, with one line that says what to do.
async fn assert_refused(cluster: &mut Cluster, member: usize, why: &str) {
    let status = cluster.exit(member, PATIENCE).await;
    let log = cluster.log(member);
    assert_eq!(status.code(), REFUSED, "{log}");
    let last = log.lines().last().unwrap_or_default();
    assert!(last.contains(why) && last.contains("remove it from the cluster, and add it anew"), "{log}");
}

/// A member that refuses the second says so wherever somebody may look.
async fn assert_says_so(cluster: &Cluster, member: usize) {
    let refused =
        |peer: &serde_json::Value| peer["name"] == "n2" && peer["state"] == "refused" && peer["reason"] == "directory";
    let peers = incarnations(cluster, member).await.expect("it answers");
    assert!(peers.iter().any(refused), "{peers:?}");
    let get = async |path: &str| {
        let url = format!("{}{path}", cluster.members[member].metrics);
        cluster.http.ask(Method::GET, url, String::new()).await.expect("it answers").1
    };
    let ready = get("/readyz?verbose").await;
    let remark = "is refused, since it was started from another data directory than the one that was met: remove it";
    assert!(ready.contains("[+]peers ok: member n2 (") && ready.contains(remark), "{ready}");
    let events = get("/api/events").await;
    assert!(events.contains(r#""kind":"incarnation_refused""#), "{events}");
}

/// Writes that only `a` and `b` have, both down since.
async fn write_behind_the_back_of_the_third(cluster: &mut Cluster) {
    cluster.kill(2);
    for number in 0..10 {
        cluster.put(number % 2, &format!("k{number}"), "acknowledged").await;
    }
    cluster.kill(0);
    cluster.kill(1);
}

/// The member that is left returns, and nothing that was acknowledged is missing.
async fn assert_nothing_is_lost(cluster: &mut Cluster) {
    cluster.start(0);
    cluster.put(2, "after", "v").await;
    for number in 0..10 {
        for member in [0, 2] {
            let read = cluster.ask(member, Method::GET, &format!("/kv/k{number}"), "").await;
            assert_eq!(read, Some((StatusCode::OK, "acknowledged".to_owned())), "k{number} at {member}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_wiped_elects_nobody_and_no_acknowledged_write_is_lost() {
    let mut cluster = acquainted().await;
    write_behind_the_back_of_the_third(&mut cluster).await;
    wipe(&cluster, 1);
    // It finds nobody to ask whether it was there before.
    cluster.start(1);
    cluster.until("its start", PATIENCE, async |cluster: &Cluster| cluster.status(1).await).await;
    cluster.start(2);
    assert_refused(&mut cluster, 1, "another data directory").await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let status = cluster.status(2).await.expect("it runs");
    assert_ne!(status["role"], "leader", "with whose vote? {status}");
    assert_says_so(&cluster, 2).await;
    assert_nothing_is_lost(&mut cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_runs_on_a_restored_backup_elects_nobody_and_no_acknowledged_write_is_lost() {
    let mut cluster = acquainted().await;
    // A backup of before its last start.
    cluster.kill(1);
    let backup = cluster.path().join("backup");
    copy(&cluster.members[1].directory, &backup);
    cluster.start(1);
    acquaint_with_the_second(&cluster, 2).await;
    write_behind_the_back_of_the_third(&mut cluster).await;
    wipe(&cluster, 1);
    copy(&backup, &cluster.members[1].directory);
    cluster.start(1);
    cluster.start(2);
    assert_refused(&mut cluster, 1, "another copy of the data directory").await;
    assert_nothing_is_lost(&mut cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clone_that_is_started_while_the_member_runs_is_refused_and_the_member_goes_on() {
    let mut cluster = acquainted().await;
    cluster.kill(1);
    let clone = cluster.path().join("clone");
    copy(&cluster.members[1].directory, &clone);
    for boot in 2..4 {
        cluster.start(1);
        acquaint_with_the_second(&cluster, boot).await;
        cluster.kill(1);
    }
    cluster.start(1);
    acquaint_with_the_second(&cluster, 4).await;
    // The same member, elsewhere: its peers do not dial it, it dials them.
    let place = cluster.place(&[]);
    cluster.members[place].name = "n2".to_owned();
    cluster.members[place].directory = clone;
    cluster.start(place);
    assert_refused(&mut cluster, place, "an older copy of the data directory").await;
    assert!(cluster.runs(1));
    for member in 0..3 {
        cluster.put(member, &format!("after-{member}"), "v").await;
    }
    acquaint_with_the_second(&cluster, 4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_never_met_a_member_knows_its_directory_by_the_log_and_by_a_snapshot() {
    for count in ["10000", "10"] {
        let mut cluster = Cluster::new(3, &["--snapshot-count", count]);
        cluster.start(0);
        cluster.start(1);
        for number in 0..40 {
            cluster.put(number % 2, &format!("k{number}"), "v").await;
        }
        cluster
            .until("what they tell of themselves", PATIENCE, async |cluster: &Cluster| {
                let (_, members) = cluster.ask(0, Method::GET, "/members", "").await?;
                (members.matches(&cluster.members[0].client).count()
                    + members.matches(&cluster.members[1].client).count()
                    == 2)
                    .then_some(())
            })
            .await;
        cluster.kill(1);
        // It has met the first alone, and hears of the second.
        cluster.start(2);
        cluster.caught_up().await;
        cluster.kill(0);
        cluster.kill(2);
        wipe(&cluster, 1);
        cluster.start(1);
        cluster.until("its start", PATIENCE, async |cluster: &Cluster| cluster.status(1).await).await;
        cluster.start(2);
        assert_refused(&mut cluster, 1, "another data directory").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_removed_and_added_anew_is_heard() {
    let mut cluster = acquainted().await;
    let id = Target::of(&cluster, 1).await.id;
    cluster.kill(1);
    wipe(&cluster, 1);
    let change = async |cluster: &Cluster, method: Method, path: String, body: String, done: StatusCode| {
        cluster
            .until("a change of the membership", PATIENCE, async |cluster: &Cluster| {
                let (status, _) = cluster.ask(0, method.clone(), &path, &body).await?;
                (status == done).then_some(())
            })
            .await;
    };
    change(&cluster, Method::DELETE, format!("/members/{id:x}"), String::new(), StatusCode::NO_CONTENT).await;
    let urls = format!(r#"{{"peerURLs":["{}"]}}"#, cluster.members[1].peer);
    change(&cluster, Method::POST, "/members".to_owned(), urls, StatusCode::CREATED).await;
    cluster.members[1].state = "existing";
    cluster.start(1);
    cluster.caught_up().await;
    acquaint(&cluster).await;
    cluster.kill(0);
    cluster.put(1, "with-its-vote", "v").await;
}

/// Anyone who reaches the port can send any incarnation with a member's ID. No member is refused for that.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_stranger_tells_as_a_members_incarnation_harms_nobody() {
    let mut cluster = acquainted().await;
    let ids = [Target::of(&cluster, 1).await.id, STRANGER];
    let target = Target::of(&cluster, 0).await;
    for told in ["dead-999-1", "0-0-0", "ffffffffffffffff-18446744073709551615-1"] {
        for from in ids {
            let header = format!("X-Rafthttp-Incarnation: {told}\r\n");
            let heartbeat = target.message(MessageType::MsgHeartbeatResp, from, 1);
            let status = target.post(&heartbeat, &header).await;
            let expected = if from == STRANGER { StatusCode::NO_CONTENT } else { StatusCode::CONFLICT };
            assert!(status == expected || from == STRANGER, "{status}");
            let (status, _) = target.ask(&format!("GET /raft/stream/message/{from:x}"), from, &header, &[]).await;
            assert!(matches!(status.as_u16(), 404 | 409 | 412), "{status}");
        }
    }
    let (status, _) = target.ask("POST /raft", ids[0], "X-Rafthttp-Incarnation: x\r\nContent-Length: 0\r\n", &[]).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    acquaint(&cluster).await;
    // Each of the others restarts: it is dialled, and heard.
    for member in [1, 2] {
        cluster.kill(member);
        cluster.start(member);
        acquaint(&cluster).await;
        cluster.put(member, &format!("after-{member}"), "v").await;
    }
    assert!((0..3).all(|member| cluster.runs(member)));
}
