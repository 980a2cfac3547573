//! Decides when to report a member's clock.

/// The difference from which on the log says that clocks differ, in seconds (etcd's `rafthttp.monitorProbingStatus`).
const DIFFER: f64 = 1.0;
/// The difference below which the log says that they agree again. It is lower, so that a clock near the edge is not
/// reported again and again.
const AGREE: f64 = 0.9;

/// The state of a member's clock when it was last measured: whether it agrees with ours.
#[derive(Debug, Default)]
pub(crate) struct PeerClock {
    differs: bool,
}

impl PeerClock {
    /// Takes an offset that a probe measured, in seconds. Returns whether the clocks differ if that has changed, and
    /// `None` otherwise.
    pub(crate) fn news(&mut self, offset: f64) -> Option<bool> {
        let differs = offset.abs() > if self.differs { AGREE } else { DIFFER };
        (std::mem::replace(&mut self.differs, differs) != differs).then_some(differs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_hovers_about_the_edge_is_news_once() {
        let mut clock = PeerClock::default();
        let news = [0.5, 1.1, 0.95, -1.05, 0.5, -2.0].map(|offset| clock.news(offset));
        assert_eq!(news, [None, Some(true), None, None, Some(false), Some(true)]);
    }
}
