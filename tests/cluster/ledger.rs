//! The laws of the ledger, read where operators read them: on `/metrics`.

use std::collections::BTreeMap;

use http::Method;

use crate::process::Cluster;

/// One scrape: samples by name and labels.
pub(crate) struct Scrape(Vec<(String, BTreeMap<String, String>, f64)>);

impl Scrape {
    pub(crate) async fn of(cluster: &Cluster, member: usize) -> Option<Self> {
        let url = format!("{}/metrics", cluster.members[member].metrics);
        let (_, text) = cluster.http.ask(Method::GET, url, String::new()).await?;
        Some(Self(text.lines().filter(|line| !line.starts_with('#')).filter_map(sample).collect()))
    }

    /// How many series it has.
    #[allow(dead_code, reason = "each test binary uses its part")]
    pub(crate) fn series(&self) -> usize {
        self.0.len()
    }

    /// The sum of a metric's samples that have all these labels with these values.
    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let fits = |have: &BTreeMap<String, String>| {
            labels.iter().all(|(label, value)| have.get(*label).is_some_and(|found| found == value))
        };
        self.0.iter().filter(|(found, have, _)| found == name && fits(have)).map(|(_, _, value)| value).sum()
    }

    pub(crate) fn peers(&self) -> Vec<String> {
        let mut peers: Vec<_> = self.0.iter().filter_map(|(_, labels, _)| labels.get("peer").cloned()).collect();
        peers.sort();
        peers.dedup();
        peers
    }

    /// offered = sent + dropped + queued, received = processed + rejected + waiting, of every peer.
    pub(crate) fn assert_laws(&self, whose: &str) {
        for peer in self.peers() {
            let sum = |name: &str| self.sum(&format!("rafthttp_messages_{name}"), &[("peer", &peer)]);
            let out = sum("sent_total") + sum("dropped_total") + sum("queued");
            assert_eq!(sum("offered_total"), out, "what {whose} sent to {peer}");
            let taken = sum("processed_total") + sum("rejected_total") + sum("waiting");
            assert_eq!(sum("received_total"), taken, "what {whose} received from {peer}");
        }
    }
}

fn sample(line: &str) -> Option<(String, BTreeMap<String, String>, f64)> {
    let (series, value) = line.rsplit_once(' ')?;
    let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
    let labels = labels.trim_end_matches('}').split("\",").filter_map(|label| {
        let (name, value) = label.split_once("=\"")?;
        Some((name.to_owned(), value.trim_end_matches('"').to_owned()))
    });
    Some((name.to_owned(), labels.collect(), value.parse().ok()?))
}

/// The laws on every member that runs.
pub(crate) async fn assert_laws(cluster: &Cluster) {
    for member in (0..cluster.members.len()).filter(|member| cluster.runs(*member)) {
        if let Some(scrape) = Scrape::of(cluster, member).await {
            scrape.assert_laws(&cluster.members[member].name);
        }
    }
}
