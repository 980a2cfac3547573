//! Decides whether a start of a member is heard. The transport sends and receives incarnations, and the application
//! decides, before anything from a connection or a request counts.
//!
//! Only an answer to one of our dials, at a configured member's URL, is believed, and so kept. A request proves
//! nothing, because anyone may send it in a member's name. So requests of a configured peer are only taken from the
//! start that a dial has met. If a request comes from a newer start, that start is dialled at once, and the request
//! waits for the result.

use std::time::Duration;

use http::HeaderValue;
use tokio::time::{Instant, timeout_at};

use super::{
    Transport,
    raft::{Source, Unheard},
    sender::Sender,
};
use crate::id::Incarnation;

/// How long a request from a start that was not met yet waits for the dial that meets it.
const UNTIL_MET: Duration = Duration::from_secs(1);

impl Transport {
    /// The header that answers carry as our incarnation. `None` if we have none.
    pub(crate) fn incarnation(&self) -> Option<&HeaderValue> {
        self.inner.shared.incarnation.as_ref()
    }

    /// Checks whether a stream may be opened for a sender with this incarnation. A start that was not met yet may
    /// listen, because only what it says has to be believed.
    pub(crate) async fn may_listen(&self, sender: &Sender, told: Option<Incarnation>) -> Result<(), Unheard> {
        match self.ask(sender, told).await {
            Err(Unheard::NotMet) => Ok(()),
            outcome => outcome,
        }
    }

    /// Checks whether the messages of a request with this incarnation may be taken.
    pub(crate) async fn may_speak(&self, sender: &Sender, told: Option<Incarnation>) -> Result<(), Unheard> {
        let Some(peer) = sender.peer() else {
            // Nobody dials this member, so nobody meets it. As in etcd, it is heard, unless it is known to be an
            // impostor.
            return self.may_listen(sender, told).await;
        };
        let deadline = Instant::now() + UNTIL_MET;
        let mut news = peer.incarnation.news();
        loop {
            match self.ask(sender, told).await {
                Err(Unheard::NotMet) => peer.look_again(),
                outcome => return outcome,
            }
            if timeout_at(deadline, news.changed()).await.is_err() {
                return Err(Unheard::NotMet);
            }
        }
    }

    async fn ask(&self, sender: &Sender, told: Option<Incarnation>) -> Result<(), Unheard> {
        let Some(told) = told else { return Ok(()) };
        // The log reports a refused peer when the peer answers a dial in that way, because the name in a request is no
        // proof.
        self.inner.shared.raft.meet(sender.id(), told, Source::Anyone).await
    }
}
