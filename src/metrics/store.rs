//! Metrics of a node's store.

use prometheus::core::Collector;

use super::{
    family::MetricKind,
    singles::{Single, singles_collector},
};

/// The state of a node's store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreStatus {
    /// Bytes of all keys and values.
    pub data_bytes: u64,
    /// Size of the file that holds them, without the log, in bytes. `None` if it cannot be read.
    pub file_bytes: Option<u64>,
    /// Bytes of keys and values from which on the cluster refuses puts. `None`: there is no quota.
    pub quota_bytes: Option<u64>,
    /// Whether the cluster refuses puts, because the data exceed the quota of a member.
    pub no_space: bool,
    /// Whether this member takes no part, because its disk cannot be written.
    pub suspended: bool,
    /// Bytes of the entries in the log.
    pub log_bytes: u64,
    /// The most bytes of entries that a leader keeps for members that are behind.
    pub log_limit_bytes: u64,
    /// Snapshots that this member sent as a leader, and that were older than its log's first entry when they arrived.
    pub snapshots_overtaken: u64,
}

static FAMILIES: &[Single<StoreStatus, Option<u64>>] = &[
    ("rafthttp_store_data_bytes", "Bytes of all keys and values.", MetricKind::Gauge, |store| Some(store.data_bytes)),
    (
        "rafthttp_store_file_bytes",
        "Bytes of the file with keys and values; the log has its own files.",
        MetricKind::Gauge,
        |store| store.file_bytes,
    ),
    (
        "rafthttp_store_quota_bytes",
        "Quota for the bytes of keys and values: above it, the cluster refuses puts. Absent without a quota.",
        MetricKind::Gauge,
        |store| store.quota_bytes,
    ),
    (
        "rafthttp_store_no_space",
        "Whether the cluster refuses puts because the data exceed a member's quota. 1 if so, 0 otherwise.",
        MetricKind::Gauge,
        |store| Some(store.no_space.into()),
    ),
    (
        "rafthttp_store_suspended",
        "Whether this member takes no part because its disk cannot be written. 1 if so, 0 otherwise.",
        MetricKind::Gauge,
        |store| Some(store.suspended.into()),
    ),
    ("rafthttp_store_log_bytes", "Bytes of the entries in the log.", MetricKind::Gauge, |store| Some(store.log_bytes)),
    (
        "rafthttp_store_log_limit_bytes",
        "The most bytes of entries that a leader keeps for members that are behind.",
        MetricKind::Gauge,
        |store| Some(store.log_limit_bytes),
    ),
    (
        "rafthttp_store_snapshots_overtaken_total",
        "Snapshots of this member as a leader that were behind its log's first entry when they had arrived, so that their \
         receivers start over, or before anyone was sent them, so that another one is made.",
        MetricKind::Counter,
        |store| Some(store.snapshots_overtaken),
    ),
];

/// A collector of the eight `rafthttp_store_…` families for a `prometheus::Registry`. It reads the state from `source`
/// once per scrape.
pub fn store_collector(source: impl Fn() -> StoreStatus + Send + Sync + 'static) -> Box<dyn Collector> {
    singles_collector(FAMILIES, source)
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
        assert_eq!(names(StoreStatus { file_bytes: Some(1), quota_bytes: Some(1), ..StoreStatus::default() }).len(), 8);
        let without = names(StoreStatus::default());
        assert!(!without.iter().any(|name| name.contains("file") || name.contains("quota")), "{without:?}");
        assert_eq!(without.len(), 6);
    }
}
