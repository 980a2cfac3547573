//! Meeting a peer: the incarnation in its answers to our dials, and what it means for open streams.

use std::{sync::atomic::Ordering, time::Duration};

use super::{
    peer::{Peer, PeerContext},
    raft::{Critical, Source, Unheard},
    signal::Subscription,
};
use crate::{
    id::{Impostor, Incarnation, MemberId},
    ledger::Direction,
    wire::{headers, stream::StreamKind},
};
use http::HeaderMap;

/// Link heartbeats are more frequent, so a stream that was silent for this long may belong to a machine that is gone.
const SILENCE: Duration = Duration::from_secs(2);

impl PeerContext {
    /// A peer refuses this start of the member. The application is told once.
    pub(super) fn refused(&self, by: MemberId, why: Impostor) {
        // As with a removal, the first of these reports ends the member.
        if !self.removed.swap(true, Ordering::Relaxed) {
            self.events.incarnation_refused_by(by, why);
            self.raft.critical(Critical::IncarnationRefused { by, why });
        }
    }
}

impl Peer {
    /// Decides whether the start that answered the dial of a stream may be heard. Returns a channel that says when the
    /// stream has to be dialled again.
    pub(super) async fn meet(&self, answer: &HeaderMap, source: Source) -> Result<Subscription, Unheard> {
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

    fn met(&self, told: Option<Incarnation>) -> Subscription {
        self.incarnation.meet(told, |meeting| {
            if meeting.was_refused {
                self.shared.events.incarnation_heard(self.id);
            }
            if meeting.is_another {
                self.reset.notify();
                self.inbox.forget();
            }
            // The subscription must come after the streams of the older start were told to end, and before a newer
            // start can be met.
            self.reset.subscribe()
        })
    }

    /// Refuses the start with this incarnation.
    pub(super) fn refuse(&self, told: Incarnation, why: Impostor) {
        if self.incarnation.refuse(told, why, self.shared.world.now()) {
            self.shared.events.incarnation_refused(self.id, told, why);
        } else {
            tracing::debug!(peer = %self.id, %told, %why, "not heard");
        }
    }

    /// A request came from a start that no dial has met. If a stream of an older start seems open but is silent, it is
    /// dialled again.
    pub(super) fn look_again(&self) {
        let is_open = self.link(|link| StreamKind::ALL.iter().any(|kind| link.read().stream_up[*kind][Direction::In]));
        if is_open && self.inbox.last_read().is_none_or(|read| read.elapsed() > SILENCE) {
            self.reset.notify();
        }
    }
}
