//! Distributions of times.

use std::time::Duration;

/// A histogram of seconds. Takes no memory for its buckets before its first observation.
#[derive(Clone, Debug)]
pub struct Histogram {
    bounds: &'static [f64],
    counts: Vec<u64>,
    sum: f64,
    count: u64,
}

/// With the buckets of [`Histogram::BOUNDS`].
impl Default for Histogram {
    fn default() -> Self {
        Self { bounds: &Self::BOUNDS, counts: Vec::new(), sum: 0.0, count: 0 }
    }
}

impl Histogram {
    /// Upper edges of the buckets, in seconds: from 100 µs, doubling, up to 26 s, with an edge at 0.15 s, where etcd's
    /// documentation draws the line for a peer's round trip. Holds every edge of etcd's round trip histogram.
    pub const BOUNDS: [f64; 20] = [
        0.0001, 0.0002, 0.0004, 0.0008, 0.0016, 0.0032, 0.0064, 0.0128, 0.0256, 0.0512, 0.1024, 0.15, 0.2048, 0.4096,
        0.8192, 1.6384, 3.2768, 6.5536, 13.1072, 26.2144,
    ];

    /// The edges for snapshots, in seconds: from 12.5 ms, doubling, up to 14 min. Holds every edge of etcd's snapshot
    /// histograms.
    pub const SNAPSHOT_BOUNDS: [f64; 17] =
        [0.0125, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 51.2, 102.4, 204.8, 409.6, 819.2];

    /// One with the buckets of [`Self::SNAPSHOT_BOUNDS`].
    pub fn for_snapshots() -> Self {
        Self { bounds: &Self::SNAPSHOT_BOUNDS, ..Self::default() }
    }

    /// Adds `n` observations of the same time.
    pub fn observe_many(&mut self, time: Duration, n: u64) {
        if self.counts.is_empty() {
            self.counts = vec![0; self.bounds.len()];
        }
        let seconds = time.as_secs_f64();
        if let Some(bucket) = self.bounds.iter().position(|bound| seconds <= *bound) {
            self.counts[bucket] += n;
        }
        self.sum += seconds * n as f64;
        self.count += n;
    }

    /// Adds one observation.
    pub fn observe(&mut self, time: Duration) {
        self.observe_many(time, 1);
    }

    /// How many observations there were.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Their sum, in seconds.
    pub fn sum(&self) -> f64 {
        self.sum
    }

    /// The number of observations at or below each edge.
    pub fn cumulative(&self) -> impl Iterator<Item = (f64, u64)> + '_ {
        let mut below = 0;
        self.bounds.iter().enumerate().map(move |(bucket, bound)| {
            below += self.counts.get(bucket).copied().unwrap_or(0);
            (*bound, below)
        })
    }

    /// The upper edge of the bucket that holds the given quantile (0 to 1), in seconds. None without observations, and
    /// for one above the last edge.
    pub fn quantile(&self, quantile: f64) -> Option<f64> {
        #[expect(clippy::cast_possible_truncation, reason = "a rank is whole, and the cast saturates")]
        let rank = (quantile * self.count as f64).ceil().max(1.0) as u64;
        self.cumulative().find(|(_, below)| *below >= rank).map(|(bound, _)| bound)
    }
}
