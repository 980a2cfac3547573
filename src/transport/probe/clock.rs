//! When a member's clock is news.

/// From what difference on the log says that clocks differ, in seconds (etcd's `rafthttp.monitorProbingStatus`).
const DIFFER: f64 = 1.0;
/// Below which it says that they no longer do: one that hovers about the edge is no news.
const AGREE: f64 = 0.9;

/// A member's clock, as it was last found: ours or another.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    differs: bool,
}

impl Clock {
    /// Takes the offset that a probe measured, in seconds. Some when that is news: whether the clocks differ now.
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
        let mut clock = Clock::default();
        let news = [0.5, 1.1, 0.95, -1.05, 0.5, -2.0].map(|offset| clock.news(offset));
        assert_eq!(news, [None, Some(true), None, None, Some(false), Some(true)]);
    }
}
