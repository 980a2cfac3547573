//! How snapshots do.

use std::time::Duration;

use super::Histogram;

/// How the snapshots of one direction do.
#[derive(Clone, Debug)]
pub struct Snapshots {
    /// Ended well.
    pub ok: u64,
    /// Ended badly.
    pub failed: u64,
    /// Under way.
    pub in_flight: u64,
    /// Bytes of bodies.
    pub bytes: u64,
    /// How long those that ended well took.
    pub seconds: Histogram,
    /// Bytes that the bodies of those under way have in all, where that is known.
    pub promised: u64,
    /// Bytes of these that have passed.
    pub passed: u64,
    /// So many of those under way are of unknown length.
    pub unmeasured: u64,
}

impl Snapshots {
    /// How far those under way are, 0 to 1. None: there is none, or one of unknown length.
    pub fn progress(&self) -> Option<f64> {
        let known = self.in_flight > 0 && self.unmeasured == 0 && self.passed <= self.promised;
        // One without a byte has nothing left to pass.
        known.then(|| if self.promised == 0 { 1.0 } else { self.passed as f64 / self.promised as f64 })
    }

    /// One begins; so long is its body.
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

    /// One that began with this length, and of which so many bytes passed, has ended; well in so much time, or badly.
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
