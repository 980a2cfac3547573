//! `--once`: the table, the JSON, the exit status.

use crate::{
    command::{once, row, rows},
    fake::{CLUSTER, Fake, Manner, entry, tell},
    support::ports::free_port,
};

#[tokio::test]
async fn a_cluster_that_is_well_is_a_table_and_exit_status_0() {
    let fakes = Fake::cluster(3).await;
    let output = once(&[&fakes[0].url]).await;
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 4, "{text}");
    assert!(lines[0].starts_with("MEMBER") && lines[0].ends_with("ERROR"), "{text}");
    for fake in &fakes {
        let line = lines.iter().find(|line| line.contains(&fake.url)).unwrap();
        for word in [&fake.hex(), &format!("m{}", fake.id), "yes", "3.6.16", &format!("{CLUSTER:x}")] {
            assert!(line.split_whitespace().any(|cell| cell == word), "{word}: {text}");
        }
    }
}

#[tokio::test]
async fn every_way_to_fail_is_told_apart() {
    let mut fakes = Fake::cluster(9).await;
    for (place, manner) in
        [Manner::Silent, Manner::Fails, Manner::Rubbish, Manner::NotHttp, Manner::Endless, Manner::Closes]
            .into_iter()
            .enumerate()
    {
        fakes[place + 1].manner(manner);
    }
    fakes[7].kill().await;
    fakes[8].behave(|is| is.clock = -90);
    let (status, document) = rows(&[&fakes[0].url]).await;
    assert_eq!(status, Some(1));
    for (place, words) in [
        (1, "no answer within"),
        (2, "answered 500"),
        (3, "not one"),
        (4, "something else than HTTP"),
        (5, "without end"),
        (6, "not answered"),
        (7, "refused"),
    ] {
        let row = row(&document, &fakes[place].url);
        assert_eq!((&row["reachable"], &row["healthy"]), (&false.into(), &false.into()), "{row}");
        assert!(row["error"].as_str().unwrap().contains(words), "{words}: {row}");
        for unknown in ["round_trip_seconds", "clock_offset_seconds", "version", "cluster"] {
            assert!(row[unknown].is_null(), "{unknown}: {row}");
        }
    }
    let well = row(&document, &fakes[0].url);
    assert_eq!((&well["healthy"], &well["error"]), (&true.into(), &serde_json::Value::Null), "{well}");
    let off = row(&document, &fakes[8].url);
    assert_eq!((&off["reachable"], &off["healthy"]), (&true.into(), &false.into()), "{off}");
    assert!((off["clock_offset_seconds"].as_f64().unwrap() + 90.0).abs() < 5.0, "{off}");
}

#[tokio::test]
async fn a_member_in_another_cluster_is_flagged_and_so_is_such_a_seed() {
    let (fakes, other) = (Fake::cluster(2).await, Fake::cluster(1).await);
    fakes[1].behave(|is| is.cluster = 0xbad);
    other[0].behave(|is| is.cluster = 0x0dd);
    let (status, document) = rows(&[&fakes[0].url, &other[0].url]).await;
    assert_eq!(status, Some(1));
    assert_eq!(document["cluster"], format!("{CLUSTER:x}"));
    for (url, cluster) in [(&fakes[1].url, "bad"), (&other[0].url, "dd")] {
        let row = row(&document, url);
        assert_eq!(
            (&row["reachable"], &row["cluster"], &row["healthy"]),
            (&true.into(), &cluster.into(), &false.into())
        );
        assert!(row["error"].as_str().unwrap().contains("another cluster"), "{row}");
    }
    assert_eq!(row(&document, &fakes[0].url)["healthy"], true);
}

#[tokio::test]
async fn a_member_that_was_never_started_has_no_name_and_is_not_reachable() {
    let fakes = Fake::cluster(1).await;
    let nobody = format!("http://127.0.0.1:{}", free_port());
    let list = format!("[{},{}]", entry(1, "m1", &fakes[0].url), entry(7, "", &nobody));
    fakes[0].behave(|is| is.members = list);
    let output = once(&[&fakes[0].url]).await;
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1));
    let line = text.lines().find(|line| line.contains(&nobody)).unwrap();
    assert!(line.contains("(unstarted)") && line.contains(" no "), "{text}");
}

#[tokio::test]
async fn one_seed_that_answers_is_enough() {
    let fakes = Fake::cluster(2).await;
    let dead = format!("http://127.0.0.1:{}", free_port());
    let (status, document) = rows(&[&dead, &fakes[1].url]).await;
    assert_eq!(status, Some(0), "{document}");
    assert_eq!(document["members"].as_array().unwrap().len(), 2);
    assert_eq!(document["seed_errors"][0]["url"], dead.as_str());
}

#[tokio::test]
async fn when_no_seed_tells_the_members_that_is_one_line_and_exit_status_1() {
    let fakes = Fake::cluster(1).await;
    let many: Vec<String> = (1..=10_001).map(|id| entry(id, "", "http://h:1")).collect();
    for (members, endless, words) in [
        (format!("[{}]", many.join(",")), false, "10001 members"),
        ("<html>".to_owned(), false, "not a list of members"),
        ("[]".to_owned(), false, "0 members"),
        (String::new(), true, "without end"),
    ] {
        fakes[0].behave(|is| (is.members, is.members_endless) = (members, endless));
        let output = once(&["--timeout", "5s", &fakes[0].url]).await;
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(words) && said.lines().count() == 1, "{said}");
    }
}

#[tokio::test]
async fn bad_flags_are_one_clear_line_and_exit_status_2() {
    const URL: &str = "http://127.0.0.1:2380";
    for (arguments, words) in [
        (&["http://127.0.0.1"][..], "\"http://127.0.0.1\" has no host:port"),
        (&["127.0.0.1:2380"], "expected http://HOST:PORT"),
        (&["ftp://127.0.0.1:2380"], "scheme must be http or https"),
        (&["http://127.0.0.1:2380/members"], "must not have a path"),
        (&["https://127.0.0.1:2380"], "expected --cacert beside it, or --insecure-skip-tls-verify"),
        (&[URL, "--cert", "x"], "'--cert': expected --key beside it"),
        (&[URL, "--key", "x"], "'--key': expected --cert beside it"),
        (&[URL, "-o", "yaml"], "[possible values: table, json]"),
        (&[URL, "--timeout", "soon"], "'--timeout"),
        (&[URL, "--timeout", "0s"], "'--timeout': expected more than nothing"),
        (&[URL, "--interval", "0s"], "'--interval': expected more than nothing"),
        (&[URL, "--everywhere"], "--everywhere"),
        (&[], "<URL>"),
    ] {
        let output = once(arguments).await;
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(said.lines().count() == 1 && said.contains(words), "{words}: {said}");
    }
}

#[tokio::test]
async fn a_seed_that_is_given_twice_is_told_of_once() {
    let dead = format!("http://127.0.0.1:{}", free_port());
    let (status, document) = rows(&[&dead, &dead]).await;
    assert_eq!((status, document["seed_errors"].as_array().unwrap().len()), (Some(1), 1), "{document}");
}

#[tokio::test]
async fn each_url_of_a_member_is_a_row() {
    let fakes = Fake::cluster(1).await;
    let dead = format!("http://127.0.0.1:{}", free_port());
    let list = format!(r#"[{{"id":1,"name":"m1","peerURLs":["{dead}","unix://m1.sock:0","{}"]}}]"#, fakes[0].url);
    fakes[0].behave(|is| is.members = list);
    let (status, document) = rows(&[&fakes[0].url]).await;
    assert_eq!((status, document["members"].as_array().unwrap().len()), (Some(1), 2));
    assert_eq!(row(&document, &fakes[0].url)["healthy"], true);
    assert_eq!(row(&document, &dead)["healthy"], false);
    tell(&fakes, &[&fakes[0]]);
    assert_eq!(rows(&[&fakes[0].url]).await.0, Some(0));
}
