//! The time of day. How long something takes is another question: tokio's clock answers that.

use std::{fmt, sync::Arc, time::SystemTime};

/// Says what time of day it is.
#[derive(Clone, Default)]
pub(super) enum Clock {
    /// The system's clock.
    #[default]
    Real,
    /// Whatever this says.
    Told(Arc<dyn Fn() -> SystemTime + Send + Sync>),
}

impl Clock {
    pub(super) fn now(&self) -> SystemTime {
        match self {
            Self::Real => SystemTime::now(),
            Self::Told(now) => now(),
        }
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Real => "Real",
            Self::Told(_) => "Told",
        })
    }
}
