//! The same bytes to a live etcd member and to ours: status, text and headers of the answers are the same, and whether
//! the connection stays. Where we want to answer otherwise, the table says why; a difference that it does not name
//! fails, and so does one that it names and that is not there.

#![allow(clippy::unwrap_used, clippy::panic, reason = "what a test stands on ends it when it gives way")]

use std::collections::BTreeSet;

use futures_util::{StreamExt, stream};

#[path = "../support/mod.rs"]
mod support;

mod ask;
mod cases;
mod pair;

use ask::ask;
use cases::Case;
use pair::Pair;
use support::{not_run, tier_is_all};

/// So many requests at a time, each to both.
const TOGETHER: usize = 8;

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_those_of_etcd_3_4() {
    answers_are_the_same("3.4").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_those_of_etcd_3_5() {
    answers_are_the_same("3.5").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_those_of_etcd_3_6() {
    answers_are_the_same("3.6").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_those_of_etcd_3_7() {
    answers_are_the_same("3.7").await;
}

async fn answers_are_the_same(version: &str) {
    if !tier_is_all() && !["3.4", "3.6"].contains(&version) {
        return not_run(&format!("requests to a live member of etcd {version}: make test-all"));
    }
    let Some(mut pair) = Pair::start(version).await else { return };
    let cases = cases::all(&pair.names);
    let (alone, together): (Vec<_>, Vec<_>) = cases.iter().partition(|case| case.alone);
    let mut wrong: Vec<_> = stream::iter(alone).then(|case| compare(&pair, case)).collect().await;
    // Most wait for a time to pass, or for each other's answer, and can wait together.
    wrong.extend(
        stream::iter(together).map(|case| compare(&pair, case)).buffer_unordered(TOGETHER).collect::<Vec<_>>().await,
    );
    let wrong: Vec<String> = wrong.into_iter().flatten().collect();
    let etcd = &mut pair.cluster.members[0];
    assert!(!etcd.has_ended(), "etcd has ended:\n{}", etcd.log());
    let differing =
        cases.iter().filter(|case| case.wanted.iter().any(|difference| difference.when.holds(&pair.names))).count();
    println!("etcd {}: {} requests, {differing} of which we want to answer otherwise", pair.names.version, cases.len());
    assert!(wrong.is_empty(), "etcd {}: {} answers differ\n\n{}", pair.names.version, wrong.len(), wrong.join("\n\n"));
    pair.stop().await;
}

/// What is wrong with the answers to a request, if anything is.
async fn compare(pair: &Pair, case: &Case) -> Option<String> {
    let (etcd, ours) = tokio::join!(ask(pair.etcd, &case.request, case.pace), ask(pair.ours, &case.request, case.pace));
    let (etcd, ours) = (etcd.parts(), ours.parts());
    let names: BTreeSet<&str> = etcd.keys().chain(ours.keys()).copied().collect();
    let differing: BTreeSet<&str> = names.into_iter().filter(|name| etcd.get(name) != ours.get(name)).collect();
    let wanted = case.wanted.iter().filter(|difference| difference.when.holds(&pair.names));
    let reasons: Vec<&str> = wanted.clone().map(|difference| difference.reason).collect();
    let wanted: BTreeSet<&str> = wanted.flat_map(|difference| difference.parts).copied().collect();
    (differing != wanted).then(|| {
        let (surplus, missing): (Vec<_>, Vec<_>) = (differing.difference(&wanted).collect(), wanted.difference(&differing).collect());
        format!("{}\n  not wanted {surplus:?}, wanted and not there {missing:?} ({reasons:?})\n  etcd {etcd:?}\n  ours {ours:?}", case.name)
    })
}
