//! A scrape's text, read as a Prometheus server reads it, and the ledger's laws in it.

#![allow(dead_code, reason = "each test takes what it needs")]

use std::collections::{BTreeMap, BTreeSet};

/// The samples of one scrape.
pub struct Scrape {
    samples: Vec<Sample>,
}

/// One line.
pub struct Sample {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

impl Scrape {
    /// Reads the text; panics on what is not a sample, a comment or an empty line.
    pub fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        Self { samples: lines.map(parse_sample).collect() }
    }

    pub fn samples(&self) -> &[Sample] {
        &self.samples
    }

    /// The sum of the samples of a name that have these labels; none without such a sample.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let matching = self.samples.iter().filter(|sample| {
            sample.name == name
                && labels.iter().all(|(label, value)| sample.labels.get(*label).is_some_and(|found| found == value))
        });
        matching.map(|sample| sample.value).reduce(|a, b| a + b)
    }

    /// Every value of the label `peer`.
    pub fn peers(&self) -> BTreeSet<&str> {
        self.samples.iter().filter_map(|sample| sample.labels.get("peer")).map(String::as_str).collect()
    }

    /// What breaks the ledger's laws: offered = sent + dropped + queued, received = processed + rejected + waiting.
    pub fn broken_laws(&self) -> Vec<String> {
        let mut broken = Vec::new();
        for peer in self.peers() {
            for (total, parts) in [
                ("offered_total", ["sent_total", "dropped_total", "queued"]),
                ("received_total", ["processed_total", "rejected_total", "waiting"]),
            ] {
                let count =
                    |name: &str| self.sum(&format!("rafthttp_messages_{name}"), &[("peer", peer)]).unwrap_or(0.0);
                let (total_count, parts_count) = (count(total), parts.iter().map(|part| count(part)).sum::<f64>());
                if total_count != parts_count {
                    broken.push(format!("{peer}: {total} {total_count}, {parts:?} {parts_count}"));
                }
            }
        }
        broken
    }
}

fn parse_sample(line: &str) -> Sample {
    let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no value: {line}"));
    let value = value.parse().unwrap_or_else(|_| panic!("no number: {line}"));
    let (name, labels) = match series.split_once('{') {
        None => (series, ""),
        Some((name, rest)) => (name, rest.strip_suffix('}').unwrap_or_else(|| panic!("no brace: {line}"))),
    };
    Sample { name: name.to_owned(), labels: parse_labels(labels), value }
}

fn parse_labels(mut text: &str) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    while let Some((name, rest)) = text.split_once("=\"") {
        let mut value = String::new();
        let mut characters = rest.char_indices();
        let end = loop {
            match characters.next() {
                Some((end, '"')) => break end,
                Some((_, '\\')) => match characters.next() {
                    Some((_, 'n')) => value.push('\n'),
                    Some((_, escaped)) => value.push(escaped),
                    None => panic!("nothing after a backslash: {rest}"),
                },
                Some((_, character)) => value.push(character),
                None => panic!("a value without an end: {rest}"),
            }
        };
        labels.insert(name.to_owned(), value);
        text = rest[end + 1..].trim_start_matches(',');
    }
    labels
}
