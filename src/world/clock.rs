//! The time of day. Durations are measured by tokio's clock instead.

use std::{fmt, sync::Arc, time::SystemTime};

/// The source of the time of day.
#[derive(Clone, Default)]
pub(super) enum Clock {
    /// The system's clock.
    #[default]
    Real,
    /// The time that this function returns.
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
