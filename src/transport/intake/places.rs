//! The places for received snapshots. Few may be received at a time, because each takes disk space and bandwidth.

use std::time::Duration;

use tokio::{
    sync::{SemaphorePermit, watch},
    time::timeout,
};

use crate::{
    transport::{
        Inner, Transport,
        sender::{Sender, SenderKind},
        snapshot::{
            part::{Claim, PartState},
            parts::Begun,
            receiver::{ReceiveError, Receiving},
            store::SnapshotStore,
        },
    },
    wire::resumption::Rest,
};

/// How long a peer's snapshot waits for a place: an older connection that it has taken over gives one back.
const GIVING_BACK: Duration = Duration::from_secs(1);

/// The result of asking for a place.
pub(super) enum Granted<'a> {
    /// The snapshot may be received. If it may be resumed, with the right to write it.
    Place(SemaphorePermit<'a>, Option<Claim>),
    /// It was received whole. This tells the result.
    Whole(watch::Receiver<PartState>),
}

impl Transport {
    /// A place for one more snapshot, and the right to write it if it may be resumed. Senders that are no peers yet have
    /// a place of their own, take none of the peers' places, and send the whole.
    pub(super) async fn grant(
        &self,
        store: &SnapshotStore,
        sender: &Sender,
        rest: Option<Rest>,
        receiving: &mut Receiving,
    ) -> Result<Granted<'_>, ReceiveError> {
        let Inner { receiving: places, receiving_others: others, shared, .. } = &*self.inner;
        if sender.kind() != SenderKind::Peer {
            let place = others.try_acquire().map_err(|_| ReceiveError::TOO_MANY)?;
            return Ok(Granted::Place(place, None));
        }
        let (parts, index, term) = (store.parts(), receiving.index(), receiving.term());
        let there = match rest {
            Some(rest) => parts.go_on(sender.id(), rest, index, term).await?,
            None => None,
        };
        let claim = match there {
            Some(Begun::Whole(state)) => return Ok(Granted::Whole(state)),
            Some(Begun::Writing(claim)) => Some(claim),
            None => None,
        };
        let Ok(Ok(place)) = timeout(GIVING_BACK, places.acquire()).await else {
            if let Some(claim) = claim {
                parts.give_back(claim).await;
            }
            return Err(ReceiveError::TOO_MANY);
        };
        // After the place was given, because others may lose their parts for it.
        let (claim, instead_of) = match (claim, rest) {
            (Some(claim), _) => (claim, None),
            (None, Some(Rest { of, .. })) => parts.add(sender.id(), of, index, shared.limits.snapshot_parts).await?,
            (None, None) => return Ok(Granted::Place(place, None)),
        };
        receiving.goes_on(claim.offset(), instead_of);
        Ok(Granted::Place(place, Some(claim)))
    }
}
