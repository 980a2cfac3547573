//! A limit on the log lines about one peer: a peer that flaps ten times a second must not fill the disk.

use std::time::Duration;

use tokio::time::Instant;

/// Lines that may come in one burst. The restart of a peer takes about a dozen.
const BURST: u32 = 48;
/// How long it takes until one more line is allowed.
const EARN: Duration = Duration::from_secs(5);

/// Lets one line through per transition, until there were too many recently. Then it counts the lines that it
/// withholds.
#[derive(Debug)]
pub(super) struct Damper {
    room: u32,
    earned: Instant,
    withheld: u64,
}

impl Default for Damper {
    fn default() -> Self {
        Self { room: BURST, earned: Instant::now(), withheld: 0 }
    }
}

impl Damper {
    /// Whether one more line may be written.
    pub(super) fn admits(&mut self) -> bool {
        let periods = u32::try_from(self.earned.elapsed().as_secs() / EARN.as_secs()).unwrap_or(u32::MAX);
        if periods >= BURST {
            *self = Self { withheld: self.withheld, ..Self::default() };
        } else {
            self.room = (self.room + periods).min(BURST);
            self.earned += EARN * periods;
        }
        let admitted = self.room > 0;
        self.room -= u32::from(admitted);
        self.withheld += u64::from(!admitted);
        admitted
    }

    /// Whether it has recovered all of its burst, so that a new damper would allow the same.
    pub(super) fn is_rested(&self) -> bool {
        let missing = u64::from(BURST - self.room);
        self.earned.elapsed().as_secs() / EARN.as_secs() >= missing
    }

    /// How many lines were withheld in total.
    pub(super) fn withheld(&self) -> u64 {
        self.withheld
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    fn admitted(damper: &mut Damper, asked: u32) -> u32 {
        (0..asked).map(|_| u32::from(damper.admits())).sum()
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_passes_and_then_one_line_in_five_seconds() {
        let mut damper = Damper::default();
        assert_eq!(admitted(&mut damper, 1000), BURST);
        assert_eq!(damper.withheld(), 1000 - u64::from(BURST));
        let mut passed = 0;
        for _ in 0..600 {
            advance(Duration::from_millis(100)).await;
            passed += admitted(&mut damper, 10);
        }
        assert_eq!(passed, 12);
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_rested_once_it_has_earned_what_it_spent() {
        let mut damper = Damper::default();
        assert!(damper.is_rested());
        admitted(&mut damper, 2);
        advance(EARN).await;
        assert!(!damper.is_rested());
        advance(EARN).await;
        assert!(damper.is_rested());
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_quiet_time_a_burst_passes_again_and_no_more() {
        let mut damper = Damper::default();
        admitted(&mut damper, 1000);
        advance(Duration::from_secs(86_400)).await;
        assert_eq!(admitted(&mut damper, 1000), BURST);
        advance(Duration::from_secs(11)).await;
        assert_eq!(admitted(&mut damper, 1000), 2);
    }
}
