//! The round trips of the last probes.

use std::{collections::VecDeque, time::Duration};

/// The round trips of the last probes, oldest first. At the default interval they span three minutes.
#[derive(Clone, Debug, Default)]
pub struct RoundTrips(VecDeque<f32>);

impl RoundTrips {
    /// How many round trips are kept.
    pub const KEPT: usize = 180;

    /// A probe has ended. `round_trip` is `None` if it failed.
    pub fn push(&mut self, round_trip: Option<Duration>) {
        if self.0.len() >= Self::KEPT {
            self.0.pop_front();
        }
        self.0.push_back(round_trip.map_or(f32::NAN, |time| time.as_secs_f32()));
    }

    /// The round trips in seconds; `None` for a probe that failed.
    pub fn iter(&self) -> impl Iterator<Item = Option<f32>> + '_ {
        self.0.iter().map(|seconds| (!seconds.is_nan()).then_some(*seconds))
    }
}
