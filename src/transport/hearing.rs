//! Whether a start of a member may be heard: the transport tells and reads incarnations, the application decides, before
//! anything of a connection or a request counts.
//!
//! What is believed, and so kept, is what answered a dial of ours to a configured member's URL. A request proves nothing,
//! since anyone may make it in a member's name: of a configured peer, only one of the start that a dial has met is
//! heard. A newer start is dialled at once, and its requests wait for that.

use std::time::Duration;

use http::HeaderValue;
use tokio::time::{Instant, timeout_at};

use super::{
    Transport,
    raft::{Source, Unheard},
    sender::Sender,
};
use crate::id::Incarnation;

/// How long a request of a start that was not met yet waits for a dial that meets it.
const UNTIL_MET: Duration = Duration::from_secs(1);

impl Transport {
    /// What answers tell as our incarnation; none where we have none.
    pub(crate) fn incarnation(&self) -> Option<&HeaderValue> {
        self.inner.shared.incarnation.as_ref()
    }

    /// Whether a stream may be given to who asks for it as this start. One that was not met yet hears us: what counts
    /// is what it says.
    pub(crate) async fn may_listen(&self, sender: &Sender, told: Option<Incarnation>) -> Result<(), Unheard> {
        match self.ask(sender, told).await {
            Err(Unheard::NotMet) => Ok(()),
            outcome => outcome,
        }
    }

    /// Whether what a request of this start brings may be taken.
    pub(crate) async fn may_speak(&self, sender: &Sender, told: Option<Incarnation>) -> Result<(), Unheard> {
        let Some(peer) = sender.peer() else {
            // Nobody dials it, so nobody meets it: it is heard as etcd hears it, unless it is known to be another.
            return self.may_listen(sender, told).await;
        };
        let deadline = Instant::now() + UNTIL_MET;
        let mut news = peer.standing.news();
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
        // That a peer is refused is said when it answers a dial so: its name on a request is no proof.
        self.inner.shared.raft.meet(sender.id(), told, Source::Anyone).await
    }
}
