//! One attempt to reach a peer, and what its outcome means for the peer: whether its URL works, whether it may be
//! dialled at once, whether it is active, and whether it says that this member was removed.

use http::{HeaderMap, StatusCode};

use super::{peer::Peer, probe::ProbeOutcome};
use crate::{
    dial::{post::PostAnswer, urls::PeerUrl},
    ledger::DropReason,
    wire::headers,
};

/// An attempt to open a stream, or to POST something.
pub(super) struct Attempt {
    /// The URL.
    pub(super) url: PeerUrl,
    /// How often the peer had been found reachable before the attempt. If this has grown meanwhile, that news is newer
    /// than the outcome.
    ups: u64,
}

/// Whether a failed attempt reached anyone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reached {
    /// No connection was made.
    Nobody,
    /// Unknown: the connection broke, or no answer came.
    Unknown,
    /// There was an answer, which refuses.
    Somebody,
}

/// Why a message was not delivered.
pub(super) struct Undelivered {
    pub(super) reason: DropReason,
    pub(super) why: String,
}

impl Peer {
    /// Starts an attempt.
    pub(super) fn attempt(&self) -> Attempt {
        Attempt { url: self.urls.pick(), ups: self.redial.ups() }
    }

    /// A stream was opened, or a POST was taken.
    pub(super) fn answered(&self) {
        self.redial.answered();
        self.active();
    }

    /// A stream was not opened, or a POST was not taken.
    pub(super) fn failed(&self, attempt: &Attempt, reached: Reached, why: &str) {
        self.urls.unreachable(&attempt.url);
        match reached {
            Reached::Nobody => self.redial.down(attempt.ups),
            Reached::Unknown => {}
            // A refusal is an answer too: there is no need to wait for the peer.
            Reached::Somebody => self.redial.answered(),
        }
        self.inactive(why);
    }

    /// A POST to this path was answered: it was taken or refused.
    pub(super) fn post_answered(&self, attempt: &Attempt, path: &str, answer: &PostAnswer) -> Result<(), Undelivered> {
        let PostAnswer { status, headers, text } = answer;
        if *status == StatusCode::NO_CONTENT {
            return self.post_taken(attempt, path, headers);
        }
        self.look_for_removal(*status, text, self.shared.is_of_a_member(headers));
        let why = format!("POST {path} answered {status}: {text}");
        self.failed(attempt, Reached::Somebody, &why);
        Err(Undelivered { reason: DropReason::Refused, why })
    }

    /// A POST was taken. This counts once the incarnation in the answer is accepted.
    fn post_taken(&self, attempt: &Attempt, path: &str, answer: &HeaderMap) -> Result<(), Undelivered> {
        match self.incarnation.judge(headers::incarnation(answer).ok().flatten()) {
            Ok(()) => {
                self.answered();
                Ok(())
            }
            Err(impostor) => {
                let why = format!("POST {path} was answered by an incarnation that is not heard: {impostor}");
                self.failed(attempt, Reached::Somebody, &why);
                Err(Undelivered { reason: DropReason::Refused, why })
            }
        }
    }

    /// A POST was not answered.
    pub(super) fn post_failed(&self, attempt: &Attempt, reached: Reached, why: String) -> Undelivered {
        self.failed(attempt, reached, &why);
        Undelivered::failed(why)
    }

    /// A probe has ended. It does not decide whether the peer is active: streams and POSTs do (etcd's `peerStatus`).
    /// Nor does it decide that the peer is down: dials do.
    pub(super) fn probed(&self, ProbeOutcome { url, result, .. }: &ProbeOutcome) {
        if result.is_err() {
            self.urls.unreachable(url);
        }
        if result.as_ref().map_or_else(|failure| failure.there, |_| true) {
            self.redial.answered();
        }
    }
}

impl Undelivered {
    /// There was no answer.
    pub(super) fn failed(why: String) -> Self {
        Self { reason: DropReason::PostFailed, why }
    }

    /// The peer's tasks are ending.
    pub(super) fn stopped() -> Self {
        Self { reason: DropReason::Stopped, why: "stopped".to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        id::{ClusterId, MemberId},
        transport::{Transport, raft::Taker},
    };

    fn answer(status: StatusCode) -> PostAnswer {
        PostAnswer { status, headers: HeaderMap::new(), text: "why".to_owned() }
    }

    #[tokio::test]
    async fn a_refused_post_is_an_answer_to_who_dials_and_a_failure_of_the_peer() {
        let transport = Transport::builder(MemberId(1), ClusterId(1), Arc::new(Taker)).build().expect("a transport");
        let urls = PeerUrl::list("http://127.0.0.1:1,http://127.0.0.1:2").expect("URLs");
        let shared = transport.inner.shared.clone();
        let peer = Peer::new(MemberId(2), urls, tokio_util::sync::CancellationToken::new(), shared);
        let is_active = || peer.link(|link| link.read().active_since.is_some());

        assert!(peer.post_answered(&peer.attempt(), "/raft", &answer(StatusCode::NO_CONTENT)).is_ok());
        assert!(is_active());

        let first = peer.attempt();
        peer.failed(&first, Reached::Nobody, "nobody");
        assert!(peer.redial.is_down() && !is_active());

        let second = peer.attempt();
        assert_ne!(first.url, second.url, "the next attempt goes elsewhere");
        peer.answered();
        peer.failed(&second, Reached::Nobody, "nobody");
        assert!(!peer.redial.is_down(), "the news are newer than the attempt");

        peer.failed(&peer.attempt(), Reached::Nobody, "nobody");
        assert!(peer.redial.is_down());
        peer.failed(&peer.attempt(), Reached::Unknown, "no answer");
        assert!(peer.redial.is_down(), "silence says nothing");
        let refused = peer.post_answered(&peer.attempt(), "/raft", &answer(StatusCode::INTERNAL_SERVER_ERROR));
        assert!(refused.is_err_and(|failure| failure.reason == DropReason::Refused));
        assert!(!peer.redial.is_down() && !is_active());
        transport.stop().await;
    }
}
