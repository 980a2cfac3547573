//! Has snapshots spooled, and large files dropped. Both take long, so neither is done on the raft task.

use raft::StateRole;
use tokio::time::Instant;

use super::{Core, CoreError, TurnOutput};
use crate::{node::snapshot::Spooling, telemetry::RepeatPace};

impl Core {
    /// Has a snapshot spooled if raft has asked for one, and drops those that nobody asks for any more.
    pub(super) fn tend_spool(&mut self, now: Instant) -> Result<(), CoreError> {
        let store = self.raw.store();
        if self.raw.raft.state != StateRole::Leader {
            let outdated = store.give_up_spool();
            self.discard(outdated);
            self.unspooled = RepeatPace::default();
            return Ok(());
        }
        let news = store.look_at_spool(now);
        let begun = store.begin_spool(now)?;
        self.discard(news.outdated);
        if news.is_overtaken {
            self.handed.overtake();
        }
        if let Some(why) = news.failed {
            // It is tried every few seconds. A failure is told at once, and less and less often while that goes on.
            if self.unspooled.is_due(true, now) {
                self.shared.events().snapshot_not_spooled(&why);
            }
        } else if news.is_whole {
            self.unspooled = RepeatPace::default();
        }
        if let Some((view, outdated)) = begun {
            self.discard(outdated);
            let (cluster, headroom, world) = (self.settings.cluster.0, self.settings.headroom, &self.settings.world);
            let name = u128::from(world.number()) << 64 | u128::from(world.number());
            (self.outbox)(TurnOutput::Spool(Box::new(Spooling { view, cluster, name, headroom })));
        }
        Ok(())
    }

    /// Drops the snapshots that raft did not take.
    pub(super) fn discard_received(&mut self) {
        for received in std::mem::take(&mut self.received) {
            self.discard(Some(received));
        }
    }

    /// Drops something on another thread, because dropping it takes long.
    pub(super) fn discard<T: Send + 'static>(&mut self, what: Option<T>) {
        if let Some(what) = what {
            (self.outbox)(TurnOutput::Discard(Box::new(what)));
        }
    }
}
