//! Distributions of times.

use std::time::Duration;

use super::Exemplar;

/// A histogram of seconds. It allocates no memory for its buckets before the first observation.
#[derive(Clone, Debug)]
pub struct Histogram {
    bounds: &'static [f64],
    counts: Vec<u64>,
    sum: f64,
    count: u64,
    /// At most one exemplar per bucket, with the place of the bucket. The place after the last edge is a bucket too.
    exemplars: Vec<(usize, Exemplar)>,
}

/// A histogram with the buckets of [`Histogram::BOUNDS`].
impl Default for Histogram {
    fn default() -> Self {
        Self { bounds: &Self::BOUNDS, counts: Vec::new(), sum: 0.0, count: 0, exemplars: Vec::new() }
    }
}

impl Histogram {
    /// Upper edges of the buckets, in seconds: from 100 µs, doubling, up to 26 s. There is one more edge at 0.15 s, the
    /// limit that etcd's documentation gives for a peer's round trip. All edges of etcd's round trip histogram are
    /// among them.
    pub const BOUNDS: [f64; 20] = [
        0.0001, 0.0002, 0.0004, 0.0008, 0.0016, 0.0032, 0.0064, 0.0128, 0.0256, 0.0512, 0.1024, 0.15, 0.2048, 0.4096,
        0.8192, 1.6384, 3.2768, 6.5536, 13.1072, 26.2144,
    ];

    /// The edges for snapshots, in seconds: from 12.5 ms, doubling, up to 14 min. All edges of etcd's snapshot
    /// histograms are among them.
    pub const SNAPSHOT_BOUNDS: [f64; 17] =
        [0.0125, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 51.2, 102.4, 204.8, 409.6, 819.2];

    /// A histogram with the buckets of [`Self::SNAPSHOT_BOUNDS`].
    pub fn for_snapshots() -> Self {
        Self { bounds: &Self::SNAPSHOT_BOUNDS, ..Self::default() }
    }

    /// Adds `n` observations of the same time.
    pub fn observe_many(&mut self, time: Duration, n: u64) {
        if self.counts.is_empty() {
            self.counts = vec![0; self.bounds.len()];
        }
        let seconds = time.as_secs_f64();
        // An observation above the last edge is in the count alone.
        if let Some(count) = self.counts.get_mut(bucket(self.bounds, seconds)) {
            *count += n;
        }
        self.sum += seconds * n as f64;
        self.count += n;
    }

    /// Adds one observation.
    pub fn observe(&mut self, time: Duration) {
        self.observe_many(time, 1);
    }

    /// Stores the trace of an observation that was added. It replaces the exemplar of its bucket, so there are never
    /// more exemplars than buckets.
    pub fn exemplify(&mut self, exemplar: Exemplar) {
        let bucket = bucket(self.bounds, exemplar.seconds);
        match self.exemplars.iter_mut().find(|(of, _)| *of == bucket) {
            Some((_, kept)) => *kept = exemplar,
            None => self.exemplars.push((bucket, exemplar)),
        }
    }

    /// The newest exemplar of each bucket that has one, in no particular order.
    pub fn exemplars(&self) -> impl Iterator<Item = &Exemplar> {
        self.exemplars.iter().map(|(_, exemplar)| exemplar)
    }

    /// How many observations there were.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The sum of the observations, in seconds.
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

    /// The upper edge of the bucket that holds the given quantile (0 to 1), in seconds. `None` if there are no
    /// observations, or if the quantile is above the last edge.
    pub fn quantile(&self, quantile: f64) -> Option<f64> {
        #[expect(clippy::cast_possible_truncation, reason = "a rank is whole, and the cast saturates")]
        let rank = (quantile * self.count as f64).ceil().max(1.0) as u64;
        self.cumulative().find(|(_, below)| *below >= rank).map(|(bound, _)| bound)
    }
}

/// The place of the bucket that an observation belongs to.
fn bucket(bounds: &[f64], seconds: f64) -> usize {
    bounds.iter().position(|bound| seconds <= *bound).unwrap_or(bounds.len())
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::id::trace::{SpanId, TraceContext, TraceId};

    #[test]
    fn a_bucket_keeps_its_newest_exemplar_and_no_more() {
        let mut histogram = Histogram::default();
        for number in 0..1000 {
            let context = TraceContext { trace: TraceId(number), span: SpanId(1) };
            for micros in [150, 150_000, 60_000_000] {
                let took = Duration::from_micros(micros);
                histogram.observe(took);
                histogram.exemplify(Exemplar::new(context, took, UNIX_EPOCH));
            }
        }
        let kept: Vec<_> = histogram.exemplars().map(|kept| (kept.context.trace.0, kept.seconds)).collect();
        assert_eq!(kept, [(999, 0.00015), (999, 0.15), (999, 60.0)]);
        assert!(histogram.exemplars.len() <= Histogram::BOUNDS.len() + 1);
    }
}
