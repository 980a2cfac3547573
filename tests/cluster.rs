//! Members as real processes, killed and restarted: what was acknowledged is there, and the ledgers balance.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use http::{Method, StatusCode};

#[path = "cluster/http_client.rs"]
mod http_client;
#[path = "cluster/ledger.rs"]
mod ledger;
#[path = "support/ports.rs"]
mod ports;
#[path = "cluster/process.rs"]
mod process;
#[path = "support/tier.rs"]
mod tier;

use ledger::Scrape;
use process::Cluster;

#[tokio::test(flavor = "multi_thread")]
async fn writes_go_on_soon_after_the_leader_was_killed() {
    let mut cluster = Cluster::new(3, &[]);
    cluster.start_all();
    for member in 0..3 {
        cluster.put(member, &format!("k{member}"), "v").await;
    }
    let leader = cluster.leader().await;
    let other = (leader + 1) % 3;
    cluster.kill(leader);
    let killed = Instant::now();
    cluster.put(other, "after", "v").await;
    assert!(killed.elapsed() < Duration::from_secs(3), "it took {:?}", killed.elapsed());
    cluster.start(leader);
    cluster.caught_up().await;
    assert_eq!(cluster.local(leader, "after").await.as_deref(), Some("v"));
    ledger::assert_laws(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_whose_file_system_was_full_goes_on_without_a_restart() {
    if let Some(why) = process::cannot_mount() {
        return tier::not_run(&format!("a member on a file system that is full: {why}"));
    }
    for leads in [false, true] {
        let mut cluster = Cluster::new(3, &[]);
        cluster.members.iter_mut().for_each(|member| member.room = Some(64 << 20));
        cluster.start_all();
        let leader = cluster.leader().await;
        let full = if leads { leader } else { (leader + 1) % 3 };
        let put = async |cluster: &Cluster, numbers: std::ops::Range<u32>| {
            for number in numbers {
                cluster.put((full + 1) % 3, &format!("k{number}"), &format!("{number}").repeat(4000)).await;
            }
        };
        put(&cluster, 0..20).await;
        let filler = cluster.inside(full).join("filler");
        let filled = std::io::copy(&mut std::io::repeat(7), &mut std::fs::File::create(&filler).expect("a file"));
        assert_eq!(filled.map_err(|error| error.kind()), Err(std::io::ErrorKind::StorageFull));
        // So much that what the store's file has already does not hold it.
        put(&cluster, 20..400).await;
        let readyz = format!("{}/readyz?verbose", cluster.members[full].metrics);
        let ready = async |cluster: &Cluster| cluster.http.ask(Method::GET, readyz.clone(), String::new()).await;
        let says_so = async |cluster: &Cluster| {
            let (status, body) = ready(cluster).await?;
            (status == StatusCode::SERVICE_UNAVAILABLE && body.contains("No space left on device")).then_some(())
        };
        cluster.until("a member that says that its disk is full", Duration::from_secs(20), says_so).await;
        let refused = cluster.ask(full, Method::PUT, "/kv/no", "no").await.expect("it answers");
        assert_eq!(refused.0, StatusCode::SERVICE_UNAVAILABLE, "{}", refused.1);

        std::fs::remove_file(filler).expect("it is ours");
        let is_ready = async |cluster: &Cluster| (ready(cluster).await?.0 == StatusCode::OK).then_some(());
        cluster.until("a member that takes part again", Duration::from_secs(20), is_ready).await;
        put(&cluster, 400..410).await;
        cluster.caught_up().await;
        for number in 0..410_u32 {
            let value = cluster.local(full, &format!("k{number}")).await;
            assert!(value.is_some_and(|value| value == format!("{number}").repeat(4000)), "{number}");
        }
        ledger::assert_laws(&cluster).await;
        assert!(cluster.log(full).contains("taking part again"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_was_away_for_long_catches_up_by_snapshot() {
    let mut cluster = Cluster::new(3, &["--snapshot-count", "100", "--log-retention-bytes", "0"]);
    cluster.start_all();
    let leader = cluster.leader().await;
    let away = (leader + 1) % 3;
    cluster.put(away, "before", "v").await;
    cluster.kill(away);
    for number in 0..350 {
        cluster.put(leader, &format!("k{number}"), "v").await;
    }
    cluster.start(away);
    cluster.caught_up().await;
    for key in ["before", "k0", "k349"] {
        assert_eq!(cluster.local(away, key).await.as_deref(), Some("v"), "{key}");
    }
    let leader = cluster.leader().await;
    let scrape = Scrape::of(&cluster, leader).await.expect("it answers");
    let sent = scrape.sum("rafthttp_snapshots_total", &[("direction", "out"), ("result", "ok")]);
    assert!(sent >= 1.0, "it came by snapshot");
    // Again, from the disk: what the snapshot brought is lasting.
    cluster.kill(away);
    cluster.start(away);
    cluster.caught_up().await;
    assert_eq!(cluster.local(away, "k0").await.as_deref(), Some("v"));
    ledger::assert_laws(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fourth_joins_as_learner_is_promoted_is_removed_and_ends_by_itself() {
    let mut cluster = Cluster::new(3, &["--snapshot-count", "100", "--log-retention-bytes", "0"]);
    cluster.start_all();
    for number in 0..300 {
        cluster.put(0, &format!("k{number}"), "v").await;
    }
    let fourth = cluster.place(&[]);
    cluster.members[fourth].state = "existing";
    let body = format!(r#"{{"peerURLs":["{}"],"isLearner":true}}"#, cluster.members[fourth].peer);
    let added = cluster
        .until("a learner more", Duration::from_secs(20), async |cluster: &Cluster| {
            let (status, added) = cluster.ask(1, Method::POST, "/members", &body).await?;
            assert!(matches!(status.as_u16(), 201 | 503), "{status}: {added}");
            (status == StatusCode::CREATED).then_some(added)
        })
        .await;
    let added: serde_json::Value = serde_json::from_str(&added).expect("JSON");
    let id = added["id"].as_str().expect("an ID").to_owned();
    cluster.start(fourth);
    let promote = format!("/members/{id}/promote");
    cluster
        .until("a promotion", Duration::from_secs(30), async |cluster: &Cluster| {
            let (status, said) = cluster.ask(2, Method::POST, &promote, "").await?;
            assert!(matches!(status.as_u16(), 200 | 409 | 503), "{status}: {said}");
            (status == StatusCode::OK).then_some(())
        })
        .await;
    cluster.caught_up().await;
    assert_eq!(cluster.local(fourth, "k0").await.as_deref(), Some("v"));
    cluster.put(fourth, "through-the-fourth", "v").await;
    let named = cluster.until("its name", Duration::from_secs(10), async |cluster: &Cluster| {
        let (_, members) = cluster.ask(0, Method::GET, "/members", "").await?;
        members.contains(r#""name":"n4""#).then_some(members)
    });
    let named: serde_json::Value = serde_json::from_str(&named.await).expect("JSON");
    assert_eq!(named["members"].as_array().map(Vec::len), Some(4));

    let (status, said) = cluster.ask(0, Method::DELETE, &format!("/members/{id}"), "").await.expect("an answer");
    assert_eq!(status, StatusCode::NO_CONTENT, "{said}");
    let status = cluster.exit(fourth, Duration::from_secs(15)).await;
    assert_eq!(status.code(), Some(3), "{}", cluster.log(fourth));
    assert!(cluster.log(fourth).contains("removed from"), "{}", cluster.log(fourth));
    let again = cluster.ask(1, Method::DELETE, &format!("/members/{id}"), "").await.expect("an answer");
    assert_eq!(again.0, StatusCode::NOT_FOUND);
    cluster.put(1, "after", "v").await;
    ledger::assert_laws(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_killed_at_once_forget_nothing() {
    let mut cluster = Cluster::new(3, &["--snapshot-count", "100", "--log-retention-bytes", "0"]);
    cluster.start_all();
    for round in 0..3 {
        for number in 0..50 {
            cluster.put(number % 3, &format!("k{round}-{number}"), "v").await;
        }
        (0..3).for_each(|member| cluster.kill(member));
        cluster.start_all();
    }
    cluster.caught_up().await;
    for (round, number) in (0..3).flat_map(|round| (0..50).map(move |number| (round, number))) {
        let key = format!("k{round}-{number}");
        assert_eq!(cluster.local(number % 3, &key).await.as_deref(), Some("v"), "{key}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn between_members_whose_streams_did_not_break_what_was_sent_was_received() {
    let mut cluster = Cluster::new(3, &[]);
    cluster.start_all();
    for number in 0..100 {
        cluster.put(number % 3, &format!("k{number}"), "v").await;
    }
    let mut ids = Vec::new();
    for member in 0..3 {
        ids.push(cluster.status(member).await.expect("it answers")["id"].as_str().expect("an ID").to_owned());
    }
    for (from, to) in [(0, 1), (1, 2), (2, 0), (1, 0), (2, 1), (0, 2)] {
        for channel in ["msgapp", "message"] {
            let sent = async || {
                let scrape = Scrape::of(&cluster, from).await.expect("it answers");
                scrape.sum("rafthttp_messages_sent_total", &[("peer", &ids[to]), ("channel", channel)])
            };
            let before = sent().await;
            tokio::time::sleep(Duration::from_millis(300)).await;
            let received = Scrape::of(&cluster, to).await.expect("it answers");
            let received =
                received.sum("rafthttp_messages_received_total", &[("peer", &ids[from]), ("channel", channel)]);
            let after = sent().await;
            assert!(before <= received && received <= after, "{channel} {from} to {to}: {before} {received} {after}");
        }
    }
    ledger::assert_laws(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_one_clear_line_and_change_nothing() {
    let mut cluster = Cluster::new(1, &[]);
    cluster.start_all();
    cluster.put(0, "k", "v").await;
    let large = "x".repeat((3 << 19) + 1);
    for (method, path, body, expected) in [
        (Method::PUT, "/kv/large", large.as_str(), StatusCode::PAYLOAD_TOO_LARGE),
        (Method::GET, "/kv/absent", "", StatusCode::NOT_FOUND),
        (Method::DELETE, "/kv/absent", "", StatusCode::NOT_FOUND),
        (Method::GET, "/kv/k?consistency=none", "", StatusCode::BAD_REQUEST),
        (Method::DELETE, "/members/abc", "", StatusCode::NOT_FOUND),
        (Method::DELETE, "/members/xyz", "", StatusCode::BAD_REQUEST),
        (Method::POST, "/members", r#"{"peerURLs":["nonsense"]}"#, StatusCode::BAD_REQUEST),
        (Method::POST, "/members", "{", StatusCode::BAD_REQUEST),
        (Method::GET, "/elsewhere", "", StatusCode::NOT_FOUND),
    ] {
        let (status, said) = cluster.ask(0, method.clone(), path, body).await.expect("an answer");
        assert_eq!(status, expected, "{method} {path}: {said}");
        assert_eq!(said.lines().count(), 1, "{method} {path}: {said}");
    }
    let id = cluster.status(0).await.expect("it answers")["id"].as_str().expect("an ID").to_owned();
    let (status, _) = cluster.ask(0, Method::DELETE, &format!("/members/{id}"), "").await.expect("an answer");
    assert_eq!(status, StatusCode::CONFLICT, "the last voter stays");
    let (status, _) = cluster.ask(0, Method::GET, "/kv/k", "").await.expect("an answer");
    assert_eq!(status, StatusCode::OK);
}

/// What is added to them, or multiplied, stays a number.
#[tokio::test(flavor = "multi_thread")]
async fn numbers_near_their_maximum_are_numbers_or_refused() {
    let most = u64::MAX.to_string();
    let flags = ["--snapshot-count", &most, "--probe-interval", "3650days", "--max-request-bytes", "16MiB"];
    let mut cluster = Cluster::new(2, &flags);
    cluster.start_all();
    for round in 0..2 {
        cluster.put(round, &format!("k{round}"), "v").await;
        cluster.caught_up().await;
        (0..2).for_each(|member| cluster.kill(member));
        cluster.start_all();
    }
    cluster.put(0, "after", "v").await;
    for member in 0..2 {
        assert!(!cluster.log(member).contains("panicked"), "{}", cluster.log(member));
    }
    let (seconds, milliseconds) = (format!("{most}s"), most.as_str());
    for (flag, value) in [
        ("--probe-interval", seconds.as_str()),
        ("--probe-timeout", &seconds),
        ("--grace", &seconds),
        ("--heartbeat-interval", milliseconds),
        ("--election-timeout", milliseconds),
        ("--max-request-bytes", milliseconds),
    ] {
        let (code, said) = refused(&cluster, &[flag, value]);
        assert_eq!(code, Some(2), "{flag}: {said}");
        assert!(said.contains(flag) && !said.contains("panicked"), "{said}");
    }
}

/// Starts a process that is to end at once, and says how, and what it said.
fn refused(cluster: &Cluster, flags: &[&str]) -> (Option<i32>, String) {
    let member = &cluster.members[0];
    let output = process::rafthttp()
        .args(["--log", "error", "node", "--data-dir"])
        .arg(&member.directory)
        .args(["--listen-metrics-urls", "http://127.0.0.1:0", "--listen-client-urls", "http://127.0.0.1:0"])
        .args(flags)
        .output()
        .expect("the binary was built");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_cannot_start_says_why_in_one_line() {
    let mut cluster = Cluster::new(1, &[]);
    cluster.start_all();
    cluster.put(0, "k", "v").await;
    let own = cluster.members[0].peer.clone();
    let common = ["--initial-advertise-peer-urls", own.as_str()];
    let say = |flags: &[&str], words: &[&str]| {
        let (code, said) = refused(&cluster, &[&common, flags].concat());
        assert_eq!(code, Some(1), "{said}");
        assert!(words.iter().all(|word| said.contains(word)), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    };
    say(&["--name", "n1", "--listen-peer-urls", &own], &["cannot listen", &own]);
    let other = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let unused = format!("http://{}", other.local_addr().expect("bound"));
    drop(other);
    say(&["--name", "n1", "--listen-peer-urls", &unused], &["in use by another process"]);
    cluster.kill(0);
    let say = |flags: &[&str], words: &[&str]| {
        let (code, said) = refused(&cluster, &[&common, &["--listen-peer-urls", unused.as_str()], flags].concat());
        assert_eq!((code, said.lines().count()), (Some(1), 1), "{said}");
        assert!(words.iter().all(|word| said.contains(word)), "{said}");
    };
    say(&["--name", "n2"], &["belongs to member", "n1", "n2"]);
    say(&["--name", "n1", "--initial-cluster-token", "other"], &["token", "test", "other"]);
    // Other initial flags are ignored: it starts, and has what it had.
    cluster.members[0].state = "existing";
    cluster.start(0);
    cluster.caught_up().await;
    assert_eq!(cluster.local(0, "k").await.as_deref(), Some("v"));
    assert!(cluster.log(0).contains("initial flags are ignored"), "{}", cluster.log(0));
}

#[test]
fn a_data_directory_of_an_etcd_member_is_refused_and_left_as_it_is() {
    for holds in ["member/wal", "member/snap/db", "wal", "snap/db"] {
        let cluster = Cluster::new(1, &[]);
        let etcds = cluster.members[0].directory.join(holds);
        std::fs::create_dir_all(&etcds).expect("a directory");
        let (code, said) = refused(&cluster, &["--name", "n1"]);
        assert_eq!((code, said.lines().count()), (Some(1), 1), "{said}");
        assert!(said.contains("an etcd member") && said.contains(holds), "{said}");
        for directory in [&cluster.members[0].directory, etcds.parent().expect("it has one")] {
            let left = std::fs::read_dir(directory).expect("it is there").count();
            assert_eq!(left, 1, "nothing was made beside etcd's");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_one_that_is_left_of_three_becomes_a_cluster_of_one_and_grows_again() {
    let mut cluster = Cluster::new(3, &["--snapshot-count", "50"]);
    cluster.start_all();
    for number in 0..30 {
        cluster.put(number % 3, &format!("k{number}"), "v").await;
    }
    cluster.caught_up().await;
    let made = cluster.status(2).await.expect("it runs")["cluster"].clone();
    cluster.kill(2);
    cluster.members[2].extra.push("--force-new-cluster".to_owned());
    for gone in [None, Some(1)] {
        gone.into_iter().for_each(|gone| cluster.kill(gone));
        cluster.start(2);
        let status = cluster.exit(2, Duration::from_secs(20)).await;
        let said = cluster.log(2);
        assert!(status.code() == Some(1) && said.contains("nothing is lost") && said.contains("n1 ("), "{said}");
    }
    cluster.kill(0);
    cluster.start(2);
    cluster.leader().await;
    for number in 0..30 {
        let (status, _) = cluster.ask(2, Method::GET, &format!("/kv/k{number}"), "").await.expect("an answer");
        assert_eq!(status, StatusCode::OK, "k{number}");
    }
    assert_eq!(cluster.status(2).await.expect("it runs")["cluster"], made, "the cluster keeps its ID");
    let said = cluster.log(2);
    let dropped = said.lines().find(|line| line.contains("the others are removed")).expect("it says so");
    assert!(["n1 (", "n2 ("].iter().all(|name| dropped.contains(name)), "{dropped}");

    // A member that was given up and comes back is told so, and ends.
    cluster.start(0);
    assert_eq!(cluster.exit(0, Duration::from_secs(20)).await.code(), Some(3), "{}", cluster.log(0));
    // Anew, on an empty directory, it is welcome.
    std::fs::remove_dir_all(&cluster.members[0].directory).expect("it is there");
    cluster.members[0].state = "auto";
    cluster.start(0);
    cluster
        .until("two voters", Duration::from_secs(40), async |cluster: &Cluster| {
            let (_, body) = cluster.ask(0, Method::GET, "/members?consistency=local", "").await?;
            (body.matches(r#""isLearner":false"#).count() == 2).then_some(())
        })
        .await;
    // The flag is still there, and does not count again.
    (0..3).for_each(|member| cluster.kill(member));
    cluster.start(2);
    cluster.start(0);
    cluster.put(0, "after", "v").await;
    assert!(cluster.log(2).contains("--force-new-cluster is ignored"), "{}", cluster.log(2));
    assert_eq!(cluster.local(0, "k29").await.as_deref(), Some("v"));
}

#[test]
fn a_new_cluster_is_not_forced_of_nothing() {
    let cluster = Cluster::new(1, &[]);
    let own = cluster.members[0].peer.as_str();
    let (code, said) = refused(
        &cluster,
        &["--name", "n1", "--force-new-cluster", "--listen-peer-urls", own, "--initial-advertise-peer-urls", own],
    );
    assert_eq!((code, said.lines().count()), (Some(1), 1), "{said}");
    assert!(said.contains("has no data of a cluster") && said.contains("n1"), "{said}");
}

/// What of a member's directory others than its user may do anything with.
fn open_to_others(directory: &std::path::Path) -> Vec<(std::path::PathBuf, u32)> {
    let mut found = Vec::new();
    let mut left = vec![directory.to_owned()];
    while let Some(path) = left.pop() {
        let metadata = std::fs::metadata(&path).expect("it is there");
        let mode = std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o777;
        let expected = if metadata.is_dir() { 0o700 } else { 0o600 };
        if metadata.is_dir() {
            left.extend(std::fs::read_dir(&path).expect("it is ours").map(|entry| entry.expect("an entry").path()));
        }
        if mode != expected {
            found.push((path, mode));
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_member_keeps_is_its_users_alone_whatever_the_mask() {
    for mask in ["000", "022", "777"] {
        let mut cluster = Cluster::new(1, &[]);
        cluster.members[0].mask = Some(mask);
        cluster.start(0);
        cluster.put(0, "k", "v").await;
        assert_eq!(open_to_others(&cluster.members[0].directory), []);
        // What was made before this was so is, at the next start.
        cluster.kill(0);
        let inside = cluster.members[0].directory.join("member");
        let everybodys = || <std::fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o777);
        for path in [inside.clone(), inside.join("node.redb"), inside.join("log/0000000000000000.wal")] {
            std::fs::set_permissions(&path, everybodys()).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        }
        cluster.start(0);
        cluster.put(0, "k", "w").await;
        assert_eq!(open_to_others(&cluster.members[0].directory), []);
        assert!(!cluster.log(0).contains("may be able to read"), "{}", cluster.log(0));
    }
}

/// Freeing space does not help if the process itself has a limit on the size of files.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_may_not_grow_ends_the_member_and_loses_nothing_that_was_acknowledged() {
    let mut cluster = Cluster::new(1, &[]);
    let script = format!(
        "trap '' XFSZ; ulimit -f 16384; exec {} --log error node --name n1 --data-dir {} --listen-peer-urls {peer} \
         --initial-advertise-peer-urls {peer} --listen-client-urls {} --listen-metrics-urls {} \
         --initial-cluster n1={peer} --initial-cluster-token test 2>{}",
        env!("CARGO_BIN_EXE_rafthttp"),
        cluster.members[0].directory.display(),
        cluster.members[0].client,
        cluster.members[0].metrics,
        cluster.path().join("full.log").display(),
        peer = cluster.members[0].peer,
    );
    let mut child = Command::new("sh").args(["-c", &script]).spawn().expect("there is a shell");
    cluster.put(0, "first", "v").await;
    let (value, mut written) = ("x".repeat(500_000), 0);
    let status = loop {
        if let Some(status) = child.try_wait().expect("it is ours") {
            break status;
        }
        let answer = cluster.ask(0, Method::PUT, &format!("/kv/k{written}"), &value).await;
        if answer.is_some_and(|(status, _)| status == StatusCode::NO_CONTENT) {
            written += 1;
        }
        assert!(written < 100, "it takes more than its disk holds");
    };
    let said = std::fs::read_to_string(cluster.path().join("full.log")).unwrap_or_default();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(written > 0 && said.contains("cannot go on"), "{said}");
    cluster.start(0);
    cluster.put(0, "after", "v").await;
    assert_eq!(cluster.local(0, "first").await.as_deref(), Some("v"));
    for number in 0..written {
        let found = cluster.local(0, &format!("k{number}")).await;
        assert_eq!(found.map(|found| found.len()), Some(value.len()), "k{number} was acknowledged");
    }
}
