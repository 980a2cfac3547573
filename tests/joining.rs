//! Members that find out by themselves whether to make their cluster or to join it (`--initial-cluster-state auto`).

use std::time::Duration;

use http::{Method, StatusCode};

#[path = "cluster/http_client.rs"]
mod http_client;
#[path = "support/ports.rs"]
mod ports;
#[allow(dead_code, reason = "each test binary uses its part")]
#[path = "cluster/process.rs"]
mod process;

use process::Cluster;

/// Members that find out, and do not run yet.
fn members(size: usize) -> Cluster {
    let mut cluster = Cluster::new(size, &["--snapshot-count", "50"]);
    cluster.members.iter_mut().for_each(|member| member.state = "auto");
    cluster
}

/// The members as one of them has them: name, and whether it has a vote.
async fn voters(cluster: &Cluster, member: usize) -> Option<Vec<(String, bool)>> {
    let (status, body) = cluster.ask(member, Method::GET, "/members", "").await?;
    let body: serde_json::Value = (status == StatusCode::OK).then(|| serde_json::from_str(&body).expect("JSON"))?;
    let mut members: Vec<(String, bool)> = body["members"]
        .as_array()?
        .iter()
        .map(|member| (member["name"].as_str().unwrap_or_default().to_owned(), member["isLearner"] == false))
        .collect();
    members.sort();
    Some(members)
}

async fn all_vote(cluster: &Cluster, size: usize) {
    let all: Vec<(String, bool)> = (1..=size).map(|place| (format!("n{place}"), true)).collect();
    for member in 0..size {
        cluster
            .until("a vote for each", Duration::from_secs(40), async |cluster: &Cluster| {
                (voters(cluster, member).await? == all).then_some(())
            })
            .await;
    }
}

/// Waits until a member itself has what was written under `key`.
async fn has(cluster: &Cluster, member: usize, key: &str) {
    cluster
        .until("what was written", Duration::from_secs(20), async |cluster: &Cluster| {
            (cluster.local(member, key).await? == "v").then_some(())
        })
        .await;
}

async fn id(cluster: &Cluster, member: usize) -> String {
    cluster
        .until("a status", Duration::from_secs(20), async |cluster: &Cluster| {
            Some(cluster.status(member).await?["id"].as_str()?.to_owned())
        })
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_is_made_once_all_are_there_and_not_before() {
    let mut cluster = members(3);
    cluster.start(0);
    cluster.start(1);
    cluster
        .until("word of who is missing", Duration::from_secs(20), async |cluster: &Cluster| {
            cluster.log(0).contains("n3 may have a cluster, and is not heard").then_some(())
        })
        .await;
    assert_eq!(cluster.status(0).await, None, "it has no cluster yet");
    let asked = async |path: &str| {
        let url = format!("{}{path}", cluster.members[0].metrics);
        cluster.http.ask(Method::GET, url, String::new()).await.expect("an answer")
    };
    assert_eq!(asked("/livez").await.0, StatusCode::OK, "who waits is alive");
    let (status, said) = asked("/readyz").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(said.contains("waits for its cluster"), "{said}");
    cluster.start(2);
    all_vote(&cluster, 3).await;
    cluster.put(0, "k", "v").await;
    // From now on it is on the disk.
    (0..3).for_each(|member| cluster.kill(member));
    cluster.start_all();
    has(&cluster, 2, "k").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_more_join_as_learners_and_are_promoted_by_themselves() {
    let mut cluster = members(3);
    cluster.start_all();
    for number in 0..200 {
        cluster.put(number % 3, &format!("k{number}"), "v").await;
    }
    let made = cluster.status(0).await.expect("it runs")["cluster"].clone();
    for _ in 0..2 {
        let place = cluster.place(&[]);
        cluster.members[place].state = "auto";
    }
    cluster.start(3);
    cluster.start(4);
    all_vote(&cluster, 5).await;
    has(&cluster, 4, "k0").await;
    assert_eq!(cluster.status(4).await.expect("it runs")["cluster"], made, "the same cluster");
    // Two of five may go.
    cluster.kill(0);
    cluster.kill(1);
    cluster.put(4, "without-two", "v").await;
}

/// `rafthttp member …` against the member: its exit status, and what it said.
async fn member(cluster: &Cluster, endpoint: usize, flags: &[&str]) -> (Option<i32>, String) {
    let output = tokio::process::Command::from(process::rafthttp())
        .args(["member", "--endpoints", &format!("http://127.0.0.1:1,{}", cluster.members[endpoint].client)])
        .args(flags)
        .output()
        .await
        .expect("the binary was built");
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.code(), said)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_shrinks_one_by_one_and_not_at_the_price_of_its_quorum() {
    let mut cluster = members(5);
    cluster.start_all();
    cluster.put(0, "k", "v").await;
    all_vote(&cluster, 5).await;
    let (status, said) = member(&cluster, 0, &["list"]).await;
    assert_eq!((status, said.lines().count()), (Some(0), 6), "{said}");
    let (status, said) = member(&cluster, 0, &["shrink", "n", "--to", "4"]).await;
    assert_eq!(status, Some(0), "{said}");
    assert!(said.find("n5 (").expect("it says so") < said.find("n4 (").expect("it says so"), "{said}");
    for gone in [3, 4] {
        assert_eq!(cluster.exit(gone, Duration::from_secs(20)).await.code(), Some(3));
    }
    all_vote(&cluster, 3).await;
    cluster.kill(0);
    let (status, said) = member(&cluster, 1, &["shrink", "n", "--to", "3", "--timeout", "2s"]).await;
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains("n3 stays: only 1 of the 2 voters"), "{said}");
    let (status, said) = member(&cluster, 1, &["remove", "n9"]).await;
    assert_eq!((status, said.lines().count()), (Some(1), 1), "{said}");
    cluster.put(2, "still-there", "v").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_lost_its_disk_comes_back_as_another_member_with_all_that_was_written() {
    let mut cluster = members(3);
    cluster.start_all();
    for number in 0..100 {
        cluster.put(number % 3, &format!("k{number}"), "v").await;
    }
    all_vote(&cluster, 3).await;
    let before = id(&cluster, 1).await;
    cluster.kill(1);
    std::fs::remove_dir_all(&cluster.members[1].directory).expect("it is there");
    cluster.start(1);
    cluster.leader().await;
    all_vote(&cluster, 3).await;
    has(&cluster, 1, "k7").await;
    assert_ne!(id(&cluster, 1).await, before, "who forgot its vote does not vote again under its name");
    assert!(cluster.log(1).contains("its disk is gone"), "{}", cluster.log(1));
}
