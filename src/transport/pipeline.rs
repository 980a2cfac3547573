//! The pipeline: sends each message that has no stream by a `POST /raft` of its own (etcd's `pipeline`).

use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;

use crate::{
    dial::failure::PostError,
    ledger::MessageKind,
    telemetry::MessageSpan,
    transport::{
        attempt::{Reached, Undelivered},
        outbox::Posting,
        peer::Peer,
        raft::SnapshotStatus,
    },
    wire::{headers, raftpb::MessageType},
};

/// A worker, which posts the queued messages until there are none. A peer without queued messages costs no task.
pub(super) async fn work(peer: Arc<Peer>) {
    while let Some(posting) = peer.outbox.next_posting() {
        let body = Bytes::from(posting.message.encode_to_vec());
        let mut underway = PeerPost { peer: &peer, posting: Some(posting) };
        let span = underway.posting.as_ref().and_then(|posting| posting.span.as_ref());
        let outcome = tokio::select! {
            biased;
            () = peer.stop.cancelled() => Err(Undelivered::stopped()),
            outcome = post(&peer, body, span) => outcome,
        };
        underway.end(outcome);
    }
}

async fn post(peer: &Arc<Peer>, body: Bytes, span: Option<&MessageSpan>) -> Result<(), Undelivered> {
    if peer.redial.is_down() {
        // The readers and the prober dial the peer. One more dial would only add to the cost of a dead peer.
        return Err(Undelivered::failed("the peer is down".to_owned()));
    }
    let attempt = peer.attempt();
    let client = &peer.shared.client;
    match client.post(&attempt.url, None, headers::RAFT, headers::APPLICATION_PROTOBUF, body, span).await {
        Ok(answer) => peer.post_answered(&attempt, headers::RAFT, &answer),
        Err(error) => {
            let reached = if let PostError::Dial(_) = error { Reached::Nobody } else { Reached::Unknown };
            Err(peer.post_failed(&attempt, reached, format!("POST {} failed: {error}", headers::RAFT)))
        }
    }
}

/// A message that a worker holds. It ends in the ledger exactly once, even if the worker is dropped.
struct PeerPost<'a> {
    peer: &'a Arc<Peer>,
    posting: Option<Posting>,
}

impl PeerPost<'_> {
    fn end(&mut self, outcome: Result<(), Undelivered>) {
        let Some(posting) = self.posting.take() else { return };
        let peer = self.peer;
        let snapshot = MessageKind::of(posting.message.r#type) == MessageType::MsgSnap;
        if let Err(failure) = &outcome {
            tracing::trace!(peer = %peer.id, why = failure.why, "message not delivered");
        }
        let failed = outcome.is_err();
        peer.outbox.posted(posting, outcome.map_err(|failure| failure.reason));
        if failed {
            peer.link(|link| link.send_failed(1));
            peer.shared.raft.report_unreachable(peer.id);
        }
        if snapshot {
            let status = if failed { SnapshotStatus::Failure } else { SnapshotStatus::Finish };
            peer.shared.raft.report_snapshot(peer.id, status);
        }
    }
}

impl Drop for PeerPost<'_> {
    fn drop(&mut self) {
        self.end(Err(Undelivered::stopped()));
    }
}
