//! What a node says about its store.

use prometheus::{
    core::{Collector, Desc},
    proto::MetricFamily,
};

use super::{collector::describe, family::Kind, raft::single};

/// The state of a node's store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreStatus {
    /// Bytes of all keys and values.
    pub data_bytes: u64,
    /// Bytes of the file that they are in, without the log; none: it cannot be looked at.
    pub file_bytes: Option<u64>,
    /// Bytes of keys and values from which on the cluster refuses puts; none: never.
    pub quota_bytes: Option<u64>,
    /// Whether the cluster refuses puts, since the data are over a member's quota.
    pub no_space: bool,
    /// Whether this member takes no part, since its disk cannot be written.
    pub suspended: bool,
}

type Field = fn(&StoreStatus) -> Option<u64>;

static FAMILIES: [(&str, &str, Field); 5] = [
    ("rafthttp_store_data_bytes", "Bytes of all keys and values.", |store| Some(store.data_bytes)),
    ("rafthttp_store_file_bytes", "Bytes of the file with keys and values; the log has files of its own.", |store| {
        store.file_bytes
    }),
    (
        "rafthttp_store_quota_bytes",
        "Bytes of keys and values from which on the cluster refuses puts. Absent without a quota.",
        |store| store.quota_bytes,
    ),
    (
        "rafthttp_store_no_space",
        "Whether the cluster refuses puts, since the data are over a member's quota. 1 is refusal, 0 is not.",
        |store| Some(store.no_space.into()),
    ),
    (
        "rafthttp_store_suspended",
        "Whether this member takes no part, since its disk cannot be written. 1 if so, 0 otherwise.",
        |store| Some(store.suspended.into()),
    ),
];

/// A collector of the five `rafthttp_store_…` gauges for a `prometheus::Registry`; reads the state from `source` once a
/// scrape.
pub fn store_collector(source: impl Fn() -> StoreStatus + Send + Sync + 'static) -> Box<dyn Collector> {
    let descriptions = FAMILIES.iter().map(|(name, help, _)| describe(name, help, &[])).collect();
    Box::new(StoreCollector { source: Box::new(source), descriptions })
}

struct StoreCollector {
    source: Box<dyn Fn() -> StoreStatus + Send + Sync>,
    descriptions: Vec<Desc>,
}

impl Collector for StoreCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let status = (self.source)();
        let told = FAMILIES.iter().filter_map(|(name, help, field)| Some((name, help, field(&status)?)));
        told.map(|(name, help, value)| single(name, help, Kind::Gauge, value)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_has_no_sample() {
        let names = |status: StoreStatus| {
            let families = store_collector(move || status).collect();
            families.iter().map(|family| family.name().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(names(StoreStatus { file_bytes: Some(1), quota_bytes: Some(1), ..StoreStatus::default() }).len(), 5);
        let without = names(StoreStatus::default());
        assert_eq!(without, ["rafthttp_store_data_bytes", "rafthttp_store_no_space", "rafthttp_store_suspended"]);
    }
}
