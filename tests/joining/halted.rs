//! Members that take no part any more: what ends that.

use std::time::Duration;

use http::{Method, StatusCode};

use super::{all_know, has, id, process::Cluster};

/// Writes into a store what its member writes when it halts.
fn halt(cluster: &Cluster, member: usize, why: &str) {
    const META: redb::TableDefinition<'_, &str, &[u8]> = redb::TableDefinition::new("meta");
    let file = cluster.members[member].directory.join("member/node.redb");
    let write = redb::Database::open(file).expect("nobody has it open").begin_write().expect("it is whole");
    write.open_table(META).expect("it is there").insert("halted", why.as_bytes()).expect("room");
    write.commit().expect("room");
}

/// What the member's own page says of its raft, and whether it is ready.
async fn readiness(cluster: &Cluster, member: usize) -> Option<(StatusCode, String)> {
    cluster.http.ask(Method::GET, format!("{}/readyz?verbose", cluster.members[member].metrics), String::new()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_has_halted_stays_so_until_it_is_removed_and_then_ends() {
    let mut cluster = Cluster::new(3, &[]);
    cluster.start_all();
    cluster.put(0, "k", "v").await;
    all_know(&cluster, 1).await;
    for _ in 0..2 {
        cluster.kill(1);
        halt(&cluster, 1, "for this test");
        cluster.start(1);
        let says_why = async |cluster: &Cluster| {
            let (status, said) = readiness(cluster, 1).await?;
            (status == StatusCode::SERVICE_UNAVAILABLE && said.contains("for this test")).then_some(())
        };
        cluster.until("word of the halt", Duration::from_secs(20), says_why).await;
        let status = cluster.status(1).await.expect("it stays up");
        assert_eq!((status["halted"].as_str(), status["role"].as_str()), (Some("for this test"), Some("follower")));
        let written = cluster.ask(1, Method::PUT, "/kv/k", "w").await.expect("an answer");
        assert_eq!(written.0, StatusCode::SERVICE_UNAVAILABLE, "{}", written.1);
    }
    let halted = format!("/members/{}", id(&cluster, 1).await);
    cluster
        .until("its removal", Duration::from_secs(20), async |cluster: &Cluster| {
            let (status, _) = cluster.ask(0, Method::DELETE, &halted, "").await?;
            matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_FOUND).then_some(())
        })
        .await;
    assert_eq!(cluster.exit(1, Duration::from_secs(20)).await.code(), Some(3), "{}", cluster.log(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_has_halted_takes_part_again_where_it_is_all_that_is_left() {
    let mut cluster = Cluster::new(3, &[]);
    cluster.start_all();
    cluster.put(0, "k", "v").await;
    cluster.caught_up().await;
    (0..3).for_each(|member| cluster.kill(member));
    halt(&cluster, 1, "for this test");
    cluster.members[1].extra.push("--force-new-cluster".to_owned());
    cluster.start(1);
    has(&cluster, 1, "k").await;
    cluster.put(1, "after", "v").await;
    let said = cluster.log(1);
    let line = said.lines().find(|line| line.contains("had halted, and takes part again"));
    assert!(line.is_some_and(|line| line.contains("for this test")), "{said}");
    assert!(cluster.status(1).await.expect("it runs")["halted"].is_null());
}
