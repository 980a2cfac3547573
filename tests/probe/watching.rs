//! `probe` that goes on: what happens to members is visible in time, and an old value is never shown as new.

use std::time::Duration;

use crate::{
    command::{Watching, reachable, shows_no_old_value},
    fake::{CLUSTER, Fake, Manner, tell},
    scrape::Scrape,
};

fn all_reachable<'a>(fakes: &'a [Fake]) -> impl Fn(&Scrape) -> bool + 'a {
    |scrape| fakes.iter().all(|fake| reachable(scrape, &fake.hex()) == Some(1.0))
}

/// Watched, and every member reached once.
async fn watched(fakes: &[Fake]) -> Watching {
    let watching = Watching::start(&[&fakes[0].url]);
    watching.until("all are reachable", all_reachable(fakes)).await;
    watching
}

#[tokio::test]
async fn what_happens_to_a_member_is_visible_and_nothing_old_is_shown() {
    let mut fakes = Fake::cluster(3).await;
    let watching = watched(&fakes).await;
    let peer = fakes[1].hex();
    for (manner, result) in [
        (Manner::Silent, "timeout"),
        (Manner::Fails, "status"),
        (Manner::Rubbish, "body"),
        (Manner::NotHttp, "body"),
        (Manner::Endless, "body"),
        (Manner::Closes, "connect"),
    ] {
        let count = |scrape: &Scrape| scrape.sum("rafthttp_probes_total", &[("peer", &peer), ("result", result)]);
        let before = count(&watching.scrape().await.unwrap());
        fakes[1].manner(manner);
        let what = format!("{manner:?}");
        let fails = |scrape: &Scrape| reachable(scrape, &peer) == Some(0.0) && shows_no_old_value(scrape, &peer);
        watching.visible(&what, fails).await;
        watching.until(result, |scrape| count(scrape) > before).await;
        let row = watching.peers().await["peers"][1].clone();
        assert_eq!((&row["reachable"], &row["round_trip_seconds"]), (&false.into(), &serde_json::Value::Null), "{row}");
        fakes[1].manner(Manner::Well);
        watching.visible("well again", |scrape| reachable(scrape, &peer) == Some(1.0)).await;
    }
    fakes[1].kill().await;
    let fails = |scrape: &Scrape| reachable(scrape, &peer) == Some(0.0) && shows_no_old_value(scrape, &peer);
    watching.visible("killed", fails).await;
    assert_eq!(watching.stop().await, Some(0));
}

#[tokio::test]
async fn a_clock_that_is_off_is_shown_with_its_sign() {
    let fakes = Fake::cluster(2).await;
    let watching = watched(&fakes).await;
    for clock in [-7.0, 3600.0] {
        #[expect(clippy::cast_possible_truncation, reason = "whole seconds")]
        fakes[1].behave(|is| is.clock = clock as i64);
        let near = |scrape: &Scrape| {
            let offset = scrape.sum("rafthttp_peer_clock_offset_seconds", &[("peer", "2")]);
            offset.is_some_and(|offset| (offset - clock).abs() < 1.0)
        };
        watching.visible("the clock", near).await;
    }
    assert_eq!(watching.stop().await, Some(0));
}

#[tokio::test]
async fn members_that_come_go_and_move_are_followed() {
    let mut fakes = Fake::cluster(2).await;
    let watching = watched(&fakes).await;
    fakes.push(Fake::start(3).await);
    tell(&fakes, &fakes.iter().collect::<Vec<_>>());
    watching.visible("added", |scrape| reachable(scrape, "3") == Some(1.0)).await;

    tell(&fakes, &[&fakes[0], &fakes[2]]);
    watching.visible("removed", |scrape| !scrape.peers().contains("2")).await;

    // The same member at another URL, where the clock tells that it is the other.
    let moved = Fake::start(3).await;
    moved.behave(|is| is.clock = 500);
    tell(&fakes, &[&fakes[0], &moved]);
    tell(std::slice::from_ref(&moved), &[&fakes[0], &moved]);
    let is_moved = |scrape: &Scrape| {
        scrape.sum("rafthttp_peer_clock_offset_seconds", &[("peer", "3")]).is_some_and(|offset| offset > 400.0)
            && scrape.sum("rafthttp_peer_info", &[("peer", "3"), ("urls", &moved.url)]) == Some(1.0)
    };
    watching.visible("moved", is_moved).await;
    assert_eq!(watching.stop().await, Some(0));
}

#[tokio::test]
async fn when_every_seed_is_dead_the_members_that_are_known_go_on_telling() {
    let mut fakes = Fake::cluster(3).await;
    let watching = watched(&fakes).await;
    fakes[0].kill().await;
    tell(&fakes[1..], &[&fakes[1], &fakes[2]]);
    watching.visible("the seed is no member any more", |scrape| !scrape.peers().contains("1")).await;
    fakes[1].kill().await;
    let added = Fake::start(4).await;
    tell(&fakes[2..], &[&fakes[2], &added]);
    tell(std::slice::from_ref(&added), &[&fakes[2], &added]);
    let followed = |scrape: &Scrape| reachable(scrape, "4") == Some(1.0) && !scrape.peers().contains("2");
    watching.until("one is enough", followed).await;
    assert_eq!(watching.stop().await, Some(0));
}

#[tokio::test]
async fn a_member_that_tells_an_old_list_is_outvoted() {
    let fakes = Fake::cluster(3).await;
    let watching = watched(&fakes).await;
    tell(&fakes[2..], &[&fakes[2]]);
    let probes = |scrape: &Scrape| scrape.sum("rafthttp_probes_total", &[("peer", "3"), ("result", "ok")]);
    let before = probes(&watching.scrape().await.unwrap()).unwrap();
    watching.until("it was asked several times", |scrape| probes(scrape).is_some_and(|now| now >= before + 3.0)).await;
    assert_eq!(watching.scrape().await.unwrap().peers().len(), 3);
    assert_eq!(watching.stop().await, Some(0));
}

#[tokio::test]
async fn a_member_of_another_cluster_is_flagged_and_its_list_is_not_believed() {
    let fakes = Fake::cluster(2).await;
    let watching = watched(&fakes).await;
    let foreign = |scrape: &Scrape, peer| scrape.sum("rafthttp_peer_foreign", &[("peer", peer)]);
    watching.until("both are of the cluster", |scrape| foreign(scrape, "2") == Some(0.0)).await;
    fakes.iter().for_each(|fake| fake.behave(|is| is.cluster = 0xbad));
    tell(&fakes, &[&fakes[0]]);
    watching.visible("foreign", |scrape| ["1", "2"].iter().all(|peer| foreign(scrape, peer) == Some(1.0))).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let scrape = watching.scrape().await.unwrap();
    assert_eq!(scrape.peers().len(), 2, "the list of another cluster counts for nothing");
    let cluster = format!("{CLUSTER:x}");
    assert_eq!(scrape.sum("rafthttp_member_info", &[("cluster_id", &cluster)]), Some(1.0));
    assert_eq!(watching.peers().await["peers"][1]["watched"]["cluster"], "bad");
    assert_eq!(watching.stop().await, Some(0));
}

#[tokio::test]
async fn it_is_ready_once_a_seed_has_told_who_the_members_are() {
    let fakes = Fake::cluster(1).await;
    fakes[0].manner(Manner::Fails);
    let watching = Watching::start(&[&fakes[0].url]);
    watching.until("it serves", |_| true).await;
    let status = async || crate::support::etcd::get(&watching.url, "/readyz").await.unwrap().0;
    assert_eq!(status().await, 503);
    fakes[0].manner(Manner::Well);
    watching.until("it is found", all_reachable(&fakes)).await;
    assert_eq!(status().await, 200);
    assert_eq!(watching.stop().await, Some(0));
}

#[tokio::test]
async fn what_a_watcher_has_not_got_has_no_series() {
    let fakes = Fake::cluster(1).await;
    let watching = watched(&fakes).await;
    let scrape = watching.scrape().await.unwrap();
    let names: std::collections::BTreeSet<&str> = scrape.samples().iter().map(|sample| sample.name.as_str()).collect();
    for wanted in ["rafthttp_probe_duration_seconds_count", "rafthttp_build_info", "process_resident_memory_bytes"] {
        assert!(names.contains(wanted), "{wanted}");
    }
    let strange: Vec<&&str> = names
        .iter()
        .filter(|name| {
            let own =
                ["rafthttp_peer_", "rafthttp_probe", "rafthttp_tls_", "process_", "rafthttp_build", "rafthttp_member_"];
            !own.iter().any(|own| name.starts_with(own)) || **name == "rafthttp_peer_active"
        })
        .collect();
    assert!(strange.is_empty(), "{strange:?}");
    assert_eq!(watching.stop().await, Some(0));
}
