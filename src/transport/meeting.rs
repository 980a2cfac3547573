//! How a peer is met: what its answers to our dials tell as its incarnation, and what that means for what is open.

use std::{sync::atomic::Ordering, time::Duration};

use http::HeaderMap;
use tokio::sync::watch;

use super::{
    peer::{Peer, Shared},
    raft::{Critical, Source, Unheard},
};
use crate::{
    id::{Impostor, Incarnation, MemberId},
    ledger::Direction,
    wire::{headers, stream::StreamKind},
};

/// Link heartbeats come more often: a stream on which nothing was read for so long may be that of a machine that is gone.
const SILENCE: Duration = Duration::from_secs(2);

impl Shared {
    /// A peer refuses this start of the member: the application is told once.
    pub(super) fn refused(&self, by: MemberId, why: Impostor) {
        // As with a removal: whichever comes first ends the member.
        if !self.removed.swap(true, Ordering::Relaxed) {
            self.events.incarnation_refused_by(by, why);
            self.raft.critical(Critical::IncarnationRefused { by, why });
        }
    }
}

impl Peer {
    /// Whether the start that answered a dial with a stream may be heard. Tells when the stream is to be dialled anew.
    pub(super) async fn meet(&self, answer: &HeaderMap, source: Source) -> Result<watch::Receiver<u64>, Unheard> {
        let told = headers::incarnation(answer).map_err(|error| Unheard::Failed(error.to_string()))?;
        if let Some(told) = told {
            let outcome = self.shared.raft.meet(self.id, told, source).await;
            if let Err(Unheard::Refused(why)) = outcome {
                self.refuse(told, why);
            }
            outcome?;
        }
        Ok(self.met(told))
    }

    fn met(&self, told: Option<Incarnation>) -> watch::Receiver<u64> {
        self.standing.meet(told, |meeting| {
            if meeting.was_refused {
                self.shared.events.incarnation_heard(self.id);
            }
            if meeting.is_another {
                self.reset.send_modify(|times| *times += 1);
                self.inbox.forget();
            }
            // After the streams of the older start were told to end, and before a newer one can be met.
            self.reset.subscribe()
        })
    }

    /// What told this is not heard.
    pub(super) fn refuse(&self, told: Incarnation, why: Impostor) {
        if self.standing.refuse(told, why, self.shared.world.now()) {
            self.shared.events.incarnation_refused(self.id, told, why);
        } else {
            tracing::debug!(peer = %self.id, %told, %why, "not heard");
        }
    }

    /// A start asks that no dial has met: where a stream of an older one seems open and is silent, it is dialled anew.
    pub(super) fn look_again(&self) {
        let is_open = self.link(|link| StreamKind::ALL.iter().any(|kind| link.read().stream_up[*kind][Direction::In]));
        if is_open && self.inbox.last_read().is_none_or(|read| read.elapsed() > SILENCE) {
            self.reset.send_modify(|times| *times += 1);
        }
    }
}
