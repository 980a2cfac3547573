//! A member that is known only from its requests. It can be answered by POST alone (etcd's `remote`).

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::StatusCode;
use prost::Message as _;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    incarnation::PeerIncarnation,
    others::Others,
    outbox::{Notices, Posting},
    peer::PeerContext,
    raft::SnapshotStatus,
    status::{PeerRole, PeerStatus},
};
use crate::{
    dial::urls::UrlPicker,
    id::MemberId,
    ledger::{DropReason, Incoming, Link, MessageKind, Outgoing},
    wire::{
        headers,
        raftpb::{Message, MessageType},
    },
};

/// A member that is known only from its requests. It has no ledger of its own: its messages are counted together with
/// those of all others that are no peers.
pub(super) struct Remote {
    pub(super) id: MemberId,
    place: RemoteUrls,
    others: Arc<Others>,
    /// The number of its queue.
    queue: u64,
    stop: CancellationToken,
    shared: Arc<PeerContext>,
    /// When its last request came.
    heard: Mutex<Instant>,
}

/// Where it can be reached.
pub(super) struct RemoteUrls {
    pub(super) urls: UrlPicker,
    /// The only address that its URLs may lead to: the one that its request came from. `None` means any address.
    pub(super) only: Option<IpAddr>,
}

impl Remote {
    pub(super) fn new(
        id: MemberId,
        place: RemoteUrls,
        others: Arc<Others>,
        stop: CancellationToken,
        shared: Arc<PeerContext>,
    ) -> Arc<Self> {
        let queue = others.open();
        let heard = Mutex::new(Instant::now());
        Arc::new(Self { id, place, others, queue, stop, shared, heard })
    }

    /// Queues messages, and starts a worker that posts them.
    pub(super) fn send(self: &Arc<Self>, messages: &[Message]) {
        let handover = self.others.push(self.queue, messages, &self.shared.limits);
        self.give(&handover.notices);
        for _ in 0..handover.workers {
            self.shared.tasks.spawn_on(work(self.clone()), &self.shared.runtime);
        }
    }

    /// A request came from it.
    pub(super) fn heard(&self) {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// The time since its last request.
    pub(super) fn silent_for(&self) -> Duration {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }

    /// Ends its tasks. Queued messages are dropped for this reason.
    pub(super) fn close(&self, reason: DropReason) {
        let (_, notices) = self.others.close(self.queue, reason);
        self.give(&notices);
        self.stop.cancel();
    }

    /// The membership confirms it. Returns the waiting messages, for the peer that takes its place. Messages on their
    /// way end as they will.
    pub(super) fn promoted(&self) -> Vec<Message> {
        let (waiting, _) = self.others.close(self.queue, DropReason::Promoted);
        waiting.into_iter().map(|posting| posting.message).collect()
    }

    /// Its status. Its counts are part of those of all others.
    pub(super) fn status(&self, name: String) -> PeerStatus {
        PeerStatus {
            id: self.id,
            role: PeerRole::Remote,
            name,
            urls: self.place.urls.all(),
            paused: self.others.is_paused(),
            outgoing: Outgoing::default(),
            incoming: Incoming::default(),
            link: Link::default(),
            incarnation: PeerIncarnation::default(),
        }
    }

    fn give(&self, notices: &Notices) {
        if notices.unreachable {
            self.shared.raft.report_unreachable(self.id);
        }
        for _ in 0..notices.snapshots_failed {
            self.shared.raft.report_snapshot(self.id, SnapshotStatus::Failure);
        }
    }
}

/// Posts the queued messages until there are none.
async fn work(remote: Arc<Remote>) {
    while let Some(posting) = remote.others.next(remote.queue) {
        let body = Bytes::from(posting.message.encode_to_vec());
        let mut underway = RemotePost { remote: &remote, posting: Some(posting) };
        let outcome = tokio::select! {
            biased;
            () = remote.stop.cancelled() => Err(DropReason::Stopped),
            outcome = post(&remote, body) => outcome,
        };
        underway.end(outcome);
    }
}

/// Posts one message. The answer comes from a stranger, so what it says about this member is ignored.
async fn post(remote: &Remote, body: Bytes) -> Result<(), DropReason> {
    let RemoteUrls { urls, only } = &remote.place;
    let (url, client) = (urls.pick(), &remote.shared.client);
    let answer = client.post(&url, *only, headers::RAFT, headers::APPLICATION_PROTOBUF, body, None).await;
    let reason = match answer {
        Ok(answer) if answer.status == StatusCode::NO_CONTENT => return Ok(()),
        Ok(_) => DropReason::Refused,
        Err(error) => {
            tracing::debug!(peer = %remote.id, %error, "a remote is not reached");
            DropReason::PostFailed
        }
    };
    urls.unreachable(&url);
    Err(reason)
}

/// A message that a worker holds. It ends in the ledger exactly once, even if the worker is dropped.
struct RemotePost<'a> {
    remote: &'a Remote,
    posting: Option<Posting>,
}

impl RemotePost<'_> {
    fn end(&mut self, outcome: Result<(), DropReason>) {
        let Some(posting) = self.posting.take() else { return };
        let remote = self.remote;
        remote.others.posted(remote.queue, &posting, outcome);
        if outcome.is_err() {
            remote.shared.raft.report_unreachable(remote.id);
        }
        if MessageKind::of(posting.message.r#type) == MessageType::MsgSnap {
            let status = if outcome.is_err() { SnapshotStatus::Failure } else { SnapshotStatus::Finish };
            remote.shared.raft.report_snapshot(remote.id, status);
        }
    }
}

impl Drop for RemotePost<'_> {
    fn drop(&mut self) {
        self.end(Err(DropReason::Stopped));
    }
}
