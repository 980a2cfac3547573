//! Random numbers.

use std::sync::{Arc, Mutex, PoisonError};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

/// The source of random numbers.
#[derive(Clone, Debug, Default)]
pub(super) enum Random {
    /// Each thread's own generator, without a lock.
    #[default]
    Real,
    /// One sequence for all threads, determined by a seed.
    Seeded(Arc<Mutex<StdRng>>),
}

impl Random {
    pub(super) fn seeded(seed: u64) -> Self {
        Self::Seeded(Arc::new(Mutex::new(StdRng::seed_from_u64(seed))))
    }

    pub(super) fn number(&self) -> u64 {
        match self {
            Self::Real => rand::random(),
            Self::Seeded(sequence) => sequence.lock().unwrap_or_else(PoisonError::into_inner).random(),
        }
    }

    pub(super) fn fraction(&self) -> f64 {
        match self {
            Self::Real => rand::random(),
            Self::Seeded(sequence) => sequence.lock().unwrap_or_else(PoisonError::into_inner).random(),
        }
    }
}
