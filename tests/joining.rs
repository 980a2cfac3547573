//! Members that find out by themselves whether to make their cluster or to join it (`--initial-cluster-state auto`),
//! and members without data that the others know already.

use std::time::Duration;

use http::{Method, StatusCode};

#[cfg(feature = "node")]
#[path = "joining/halted.rs"]
mod halted;
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
    let mut cluster = Cluster::new(size, &["--snapshot-count", "50", "--log-retention-bytes", "0"]);
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
            cluster.log(0).contains("n3 may have a cluster, but does not answer").then_some(())
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

/// It is told of three others, and one of them is removed before it hears of anything else.
#[tokio::test(flavor = "multi_thread")]
async fn a_joiner_drops_who_was_removed_before_its_snapshot() {
    let mut cluster = Cluster::new(3, &["--snapshot-count", "50", "--log-retention-bytes", "0"]);
    cluster.start_all();
    cluster.put(0, "before", "v").await;
    let gone = id(&cluster, 2).await;
    let joiner = cluster.place(&["--snapshot-count", "50", "--log-retention-bytes", "0"]);
    cluster.members[joiner].state = "existing";
    let body = format!(r#"{{"peerURLs":["{}"],"isLearner":true}}"#, cluster.members[joiner].peer);
    cluster
        .until("a learner more", Duration::from_secs(20), async |cluster: &Cluster| {
            (cluster.ask(0, Method::POST, "/members", &body).await?.0 == StatusCode::CREATED).then_some(())
        })
        .await;
    // Without a leader, all that it can learn is who the members are.
    cluster.kill(1);
    cluster.kill(2);
    cluster
        .until("no leader", Duration::from_secs(20), async |cluster: &Cluster| {
            (cluster.status(0).await?["leader"] == "0").then_some(())
        })
        .await;
    cluster.start(joiner);
    cluster
        .until("it knows who it is", Duration::from_secs(20), async |cluster: &Cluster| cluster.status(joiner).await)
        .await;
    cluster.kill(joiner);
    cluster.start(1);
    cluster
        .until("a removal", Duration::from_secs(20), async |cluster: &Cluster| {
            let removed = cluster.ask(0, Method::DELETE, &format!("/members/{gone}"), "").await?;
            (removed.0 == StatusCode::NO_CONTENT).then_some(())
        })
        .await;
    for number in 0..200 {
        cluster.put(number % 2, &format!("k{number}"), "v").await;
    }
    cluster.start(joiner);
    has(&cluster, joiner, "k199").await;
    let peers = async |cluster: &Cluster| {
        let url = format!("{}/api/peers", cluster.members[joiner].metrics);
        let (_, body) = cluster.http.ask(Method::GET, url, String::new()).await?;
        let body: serde_json::Value = serde_json::from_str(&body).expect("JSON");
        let ids = body["peers"].as_array()?.iter().map(|peer| peer["id"].as_str().unwrap_or_default().to_owned());
        Some(ids.collect::<Vec<_>>())
    };
    cluster
        .until("two peers", Duration::from_secs(10), async |cluster: &Cluster| {
            let peers = peers(cluster).await?;
            (peers.len() == 2 && !peers.contains(&gone)).then_some(())
        })
        .await;
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
    assert!(cluster.log(1).contains("its disk is empty"), "{}", cluster.log(1));
}

/// Waits until two members list the third with its client URL.
async fn all_know(cluster: &Cluster, listed: usize) {
    let url = cluster.members[listed].client.clone();
    for member in (0..cluster.members.len()).filter(|member| *member != listed && cluster.runs(*member)) {
        cluster
            .until("word of a member's client URL", Duration::from_secs(20), async |cluster: &Cluster| {
                let (_, body) = cluster.ask(member, Method::GET, "/members", "").await?;
                body.contains(&url).then_some(())
            })
            .await;
    }
}

fn lose_disk(cluster: &mut Cluster, member: usize) {
    cluster.kill(member);
    std::fs::remove_dir_all(&cluster.members[member].directory).expect("it is there");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_lost_its_disk_does_not_come_back_as_itself_and_is_welcome_as_another() {
    let mut cluster = Cluster::new(3, &[]);
    cluster.start_all();
    cluster.put(0, "k", "v").await;
    all_know(&cluster, 1).await;
    let before = id(&cluster, 1).await;
    lose_disk(&mut cluster, 1);
    // With `new`, one that answers is enough. With `existing`, the silent one may know that it was added anew.
    cluster.kill(2);
    for state in ["new", "existing"] {
        cluster.members[1].state = state;
        cluster.start(1);
        if state == "existing" {
            cluster
                .until("word of the silent", Duration::from_secs(20), async |cluster: &Cluster| {
                    cluster.log(1).contains("no quorum says who we are").then_some(())
                })
                .await;
            cluster.start(2);
        }
        let status = cluster.exit(1, Duration::from_secs(20)).await;
        let said = cluster.log(1);
        assert_eq!(status.code(), Some(1), "{state}: {said}");
        let last = said.lines().last().expect("it said why");
        assert!(last.contains(&format!("member {before} has already been bootstrapped")), "{state}: {said}");
        // With `existing`, it may be a quorum that says so, at a client URL of either.
        let sources = if state == "new" { &[0][..] } else { &[0, 2] };
        let is_source = |place: &usize| {
            let member = &cluster.members[*place];
            last.contains(&member.peer) || state == "existing" && last.contains(&member.client)
        };
        assert!(sources.iter().any(is_source) && last.contains("n2"), "where, and of whom: {last}");
    }
    let removed = format!("/members/{before}");
    cluster
        .until("its removal", Duration::from_secs(20), async |cluster: &Cluster| {
            let (status, _) = cluster.ask(0, Method::DELETE, &removed, "").await?;
            matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_FOUND).then_some(())
        })
        .await;
    add(&cluster, 1, false).await;
    cluster.start(1);
    has(&cluster, 1, "k").await;
    assert_ne!(id(&cluster, 1).await, before);
}

/// Has a member added by the first one.
async fn add(cluster: &Cluster, member: usize, is_learner: bool) {
    let member = &cluster.members[member];
    let body = serde_json::json!({ "name": member.name, "peerURLs": [member.peer], "isLearner": is_learner });
    cluster
        .until("its addition", Duration::from_secs(20), async |cluster: &Cluster| {
            let (status, _) = cluster.ask(0, Method::POST, "/members", &body.to_string()).await?;
            // There already: the outcome of an attempt before was not told.
            matches!(status, StatusCode::CREATED | StatusCode::CONFLICT).then_some(())
        })
        .await;
}

/// More client URLs than the membership takes of a member: it can never tell them.
const TOO_MANY: usize = 17;

#[tokio::test(flavor = "multi_thread")]
async fn nobody_has_a_vote_before_the_cluster_knows_its_client_urls() {
    let mut cluster = members(1);
    cluster.start_all();
    cluster.put(0, "k", "v").await;
    let urls: Vec<String> = (0..TOO_MANY).map(|place| format!("http://127.0.0.1:{}", 10_000 + place)).collect();
    let place = cluster.place(&["--advertise-client-urls", &urls.join(",")]);
    cluster.members[place].state = "auto";
    cluster.start(place);
    has(&cluster, place, "k").await;
    // It asks each second. If it were allowed to vote, it would be promoted within three.
    for _ in 0..12 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let listed = voters(&cluster, 0).await.expect("it leads");
        assert_eq!(listed, [("n1".to_owned(), true), ("n2".to_owned(), false)], "its URLs are not known");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_added_takes_the_place_of_one_that_is_gone_once_a_quorum_says_that_it_is_new() {
    let mut cluster = members(3);
    cluster.start_all();
    cluster.put(0, "k", "v").await;
    all_vote(&cluster, 3).await;
    all_know(&cluster, 2).await;
    let place = cluster.place(&[]);
    cluster.members[place].state = "auto";
    add(&cluster, place, true).await;
    lose_disk(&mut cluster, 2);
    // There is no quorum, and one member is silent. The silent one may know that the new member was started.
    cluster.kill(1);
    cluster.start(place);
    cluster
        .until("word of the silent", Duration::from_secs(20), async |cluster: &Cluster| {
            cluster.log(place).contains("no quorum says whether this member was started").then_some(())
        })
        .await;
    cluster.start(1);
    has(&cluster, place, "k").await;
}
