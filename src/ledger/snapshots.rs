//! Counts of snapshots.

use std::time::Duration;

use super::Histogram;

/// Counts of the snapshots in one direction.
#[derive(Clone, Debug)]
pub struct Snapshots {
    /// Snapshots that succeeded.
    pub ok: u64,
    /// Snapshots that failed.
    pub failed: u64,
    /// Snapshots in progress.
    pub in_flight: u64,
    /// Bytes of bodies that have passed.
    pub bytes: u64,
    /// How long the successful snapshots took.
    pub seconds: Histogram,
    /// The total body length of the snapshots under way whose length is known, in bytes.
    pub promised: u64,
    /// How many of the `promised` bytes have passed.
    pub passed: u64,
    /// How many of the snapshots under way have an unknown length.
    pub unmeasured: u64,
}

impl Snapshots {
    /// The progress of the snapshots under way, 0 to 1. `None` if there is none, or if one has an unknown length.
    pub fn progress(&self) -> Option<f64> {
        let known = self.in_flight > 0 && self.unmeasured == 0 && self.passed <= self.promised;
        // An empty body has nothing left to pass.
        known.then(|| if self.promised == 0 { 1.0 } else { self.passed as f64 / self.promised as f64 })
    }

    /// A snapshot begins. `length` is the length of its body, if known.
    pub(super) fn begin(&mut self, length: Option<u64>) {
        self.in_flight += 1;
        match length {
            Some(length) => self.promised = self.promised.saturating_add(length),
            None => self.unmeasured += 1,
        }
    }

    /// More of a body has passed.
    pub(super) fn progressed(&mut self, bytes: u64) {
        self.bytes += bytes;
        self.passed += bytes;
    }

    /// A snapshot ended. `length` is the length that it began with, and `bytes` is how much of its body has passed.
    /// `took` is the duration if it succeeded, and `None` if it failed.
    pub(super) fn end(&mut self, length: Option<u64>, bytes: u64, took: Option<Duration>) {
        self.in_flight -= 1;
        self.passed -= bytes;
        match length {
            Some(length) => self.promised = self.promised.saturating_sub(length),
            None => self.unmeasured -= 1,
        }
        match took {
            Some(took) => {
                self.ok += 1;
                self.seconds.observe(took);
            }
            None => self.failed += 1,
        }
    }
}

impl Default for Snapshots {
    fn default() -> Self {
        Self {
            ok: 0,
            failed: 0,
            in_flight: 0,
            bytes: 0,
            seconds: Histogram::for_snapshots(),
            promised: 0,
            passed: 0,
            unmeasured: 0,
        }
    }
}
