//! The transport: all peers, the messages that go to them and those that come from them.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use tokio::{sync::Semaphore, time::Instant};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    dial::{identity::Identity, urls::PeerUrlError},
    id::MemberId,
    ledger::{Channel, DropReason, Tally},
    telemetry::Events,
    tls::Tls,
    wire::{
        message::message_size,
        raftpb::{Message, MessageType},
    },
};

mod appends;
mod attempt;
mod builder;
mod drain;
mod hearing;
mod inbox;
pub(crate) mod incarnation;
pub(crate) mod intake;
pub(crate) mod limits;
mod meeting;
mod others;
mod outbox;
pub(crate) mod pace;
mod peer;
mod pipeline;
pub(crate) mod probe;
mod prober;
pub(crate) mod raft;
mod reader;
mod reading;
mod redial;
mod refusals;
mod remote;
mod roster;
pub(crate) mod sender;
pub(crate) mod signal;
pub(crate) mod snapshot;
pub(crate) mod status;
mod summary;
mod tasks;
mod unread;
pub(crate) mod writer;

pub use builder::Builder;
use inbox::Inbox;
use others::Others;
use peer::{Peer, PeerContext};
use raft::{Members, SnapshotStatus};
use refusals::Untold;
use roster::{Changes, KnownMember, Roster, close_all};
use snapshot::{SnapshotBody, store::SnapshotStore};
use status::{PeerStatus, TransportStatus};

/// Why a transport or a peer could not be built or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    /// The list of URLs has none that can be dialled.
    #[error(transparent)]
    Url(#[from] PeerUrlError),
    /// The ID cannot be a peer's.
    #[error("{0} cannot be a peer: it is zero or this member's own ID")]
    NotAPeer(MemberId),
    /// There is no such peer.
    #[error("{0} is not a peer")]
    UnknownPeer(MemberId),
    /// The registry refused our metrics.
    #[error("metrics cannot be registered: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// etcd's raft transport.
///
/// ```
/// use std::sync::Arc;
///
/// use rafthttp::{ClusterId, MemberId, Transport, wire::raftpb::Message};
///
/// # struct Application;
/// # #[async_trait::async_trait]
/// # impl rafthttp::Raft for Application {
/// #     async fn process(&self, _: MemberId, _: rafthttp::Source, _: Vec<Message>) -> Result<(), rafthttp::Rejected> { Ok(()) }
/// #     fn is_removed(&self, _: MemberId) -> bool { false }
/// #     fn report_unreachable(&self, _: MemberId) {}
/// #     fn report_snapshot(&self, _: MemberId, _: rafthttp::SnapshotStatus) {}
/// #     fn critical(&self, _: rafthttp::Critical) {}
/// # }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let transport = Transport::builder(MemberId(1), ClusterId(0x1000), Arc::new(Application)).build()?;
/// // Nobody listens at this peer yet. Its messages are queued, sent by POST and given up; raft is told.
/// transport.add_peer(MemberId(2), vec!["http://127.0.0.1:1".parse()?])?;
/// transport.send(vec![Message { to: 2, from: 1, term: 1, ..Message::default() }]);
///
/// let ledger = transport.peers().remove(0).outgoing;
/// assert!(ledger.balances(), "it was offered, and is sent, dropped or still queued");
/// transport.stop().await;
/// # Ok(())
/// # }
/// ```
///
/// Cheap to clone: all clones are one transport, which ends when it is stopped, or when its last
/// clone is dropped.
#[derive(Clone)]
pub struct Transport {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<PeerContext>,
    /// Read by every `send`, and changed with the membership.
    known: ArcSwap<Roster>,
    /// Held while `known` changes. It holds whether all peers are paused, and whether the transport has stopped.
    changes: Mutex<Changes>,
    /// Messages from senders that are no peers, including remotes.
    strangers: Inbox,
    /// The queues to remotes, and their ledger.
    others: Arc<Others>,
    /// Refused requests that the log has not reported yet.
    refusals: Untold,
    unroutable: Mutex<Tally<&'static str>>,
    snapshots: Option<SnapshotStore>,
    receiving: Semaphore,
    receiving_others: Semaphore,
    tls: Option<Tls>,
    started: SystemTime,
    stop: CancellationToken,
    /// Ends the tasks of a transport that was not stopped.
    _ends: DropGuard,
}

impl Transport {
    /// Sends messages, each to the peer in its `to`, in order. It never blocks and never fails: a message that cannot
    /// be delivered is in the ledger with its reason, and raft is told (etcd's `Transport.Send`). A message whose `to`
    /// is 0 or unknown is skipped and counted.
    ///
    /// It may be called from any thread, and from within [`Raft::process`](crate::Raft::process).
    #[allow(clippy::needless_pass_by_value, reason = "etcd's shape: what is sent is handed over")]
    pub fn send(&self, messages: Vec<Message>) {
        let now = Instant::now();
        let known = self.inner.known.load();
        // Messages are passed by reference: most are encoded in place, and a message is large to move.
        for same in messages.chunk_by(|one, next| one.to == next.to) {
            let to = same[0].to;
            match (known.peers.get(&MemberId(to)), known.remotes.get(&MemberId(to))) {
                (Some(peer), _) => tasks::post(peer, peer.send(same, now)),
                (None, Some(remote)) => remote.send(same),
                (None, None) => self.nobody(to, same),
            }
        }
    }

    /// Sends a `MsgSnap` whose data are in `body`, by `POST /raft/snapshot` (etcd's `Transport.SendSnapshot`). The
    /// result is reported by [`Raft::report_snapshot`](crate::Raft::report_snapshot), exactly once.
    pub fn send_snapshot(&self, message: Message, body: SnapshotBody) {
        let to = MemberId(message.to);
        let Some(peer) = self.peer(to) else {
            self.unroutable(to.0, 1);
            return self.snapshot_failed(to);
        };
        let shared = &self.inner.shared;
        let span = outbox::send_span(&shared.sampler, &message, Channel::Snapshot, message_size(&message));
        if let Err(reason) = peer.outbox.begin_snapshot(&message, &shared.limits) {
            if let Some(span) = span {
                span.failed(reason.label());
            }
            self.events().snapshot_refused(to, reason);
            return self.snapshot_failed(to);
        }
        tasks::send_snapshot(peer, message, body, span);
    }

    /// Drops all messages to and from a peer, while its connections stay, until [`Self::mend_peer`]. A test hook
    /// (etcd's `Transport.CutPeer`).
    pub fn cut_peer(&self, id: MemberId) {
        if let Some(peer) = self.peer(id) {
            peer.set_paused(true);
        }
    }

    /// Ends the effect of [`Self::cut_peer`].
    pub fn mend_peer(&self, id: MemberId) {
        if let Some(peer) = self.peer(id) {
            peer.set_paused(false);
        }
    }

    /// As [`Self::cut_peer`], for all peers, and for those that are added later (etcd's `Transport.Pause`).
    pub fn pause(&self) {
        self.set_paused(true);
    }

    /// Ends the effect of [`Self::pause`] and [`Self::cut_peer`] (etcd's `Transport.Resume`).
    pub fn resume(&self) {
        self.set_paused(false);
    }

    /// When the peer became active, which means that its last stream or POST succeeded. `None` while it is inactive
    /// (etcd's `ActiveSince`).
    pub fn active_since(&self, id: MemberId) -> Option<SystemTime> {
        self.peer(id).and_then(|peer| peer.link(|link| link.read().active_since))
    }

    /// How long the peer has been connected: active, or with all streams open in both directions. `None` while it is not.
    ///
    /// It differs from [`Self::active_since`] in two ways. A POST that began before the streams were open, and failed
    /// later, does not count: it leaves the peer inactive for as long as the streams stay open, as in etcd. And the time
    /// of day, which can be set, does not matter.
    pub fn connected_for(&self, id: MemberId) -> Option<Duration> {
        self.peer(id).and_then(|peer| peer.link(|link| link.read().connected_for()))
    }

    /// How many peers are active (etcd's `ActivePeers`).
    pub fn active_peers(&self) -> usize {
        let known = self.inner.known.load();
        known.peers.values().filter(|peer| peer.link(|link| link.read().active_since.is_some())).count()
    }

    /// The state of every peer and remote, ordered by ID, as shown in `/api/peers`.
    pub fn peers(&self) -> Vec<PeerStatus> {
        let names: HashMap<MemberId, String> = self.members().map_or_else(HashMap::new, |Members(members)| {
            members.into_iter().map(|member| (member.id, member.name)).collect()
        });
        let name = |id| names.get(&id).cloned().unwrap_or_default();
        let known = self.inner.known.load();
        let peers = known.peers.values().map(|peer| peer.status(name(peer.id)));
        let mut all: Vec<_> =
            peers.chain(known.remotes.values().map(|remote| remote.status(name(remote.id)))).collect();
        all.sort_unstable_by_key(|status| status.id);
        all
    }

    /// The state of every peer and remote, and what belongs to no peer.
    pub fn status(&self) -> TransportStatus {
        TransportStatus {
            local: self.inner.shared.identity.member,
            cluster: Some(self.inner.shared.identity.cluster),
            time: Some(self.inner.shared.world.now()),
            started: Some(self.inner.started),
            probe: self.inner.shared.probe.when_on(),
            peers: self.peers(),
            strangers: Some(self.inner.strangers.ledger()),
            others: Some(self.inner.others.ledger()),
            unroutable: self.inner.unroutable.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            pace: Some(self.inner.shared.pace.status()),
            tls: self.inner.tls.as_ref().map(Tls::status),
        }
    }

    /// The last transitions, as shown in `/api/events`.
    pub fn events(&self) -> &Events {
        &self.inner.shared.events
    }

    /// The identity of this member.
    pub fn identity(&self) -> &Identity {
        &self.inner.shared.identity
    }

    /// Ends every stream cleanly, and every task. Queued messages are dropped as `stopped`. Returns when no task is
    /// left. The ledger can still be read.
    pub async fn stop(&self) {
        let known = {
            let mut changes = self.changes();
            changes.stopped = true;
            self.inner.known.load().all()
        };
        close_all(&known, DropReason::Stopped);
        self.inner.strangers.close();
        self.inner.stop.cancel();
        self.inner.shared.client.stop().await;
        self.inner.shared.tasks.close();
        self.inner.shared.tasks.wait().await;
    }

    fn peer(&self, id: MemberId) -> Option<Arc<Peer>> {
        self.inner.known.load().peers.get(&id).cloned()
    }

    fn known(&self, id: MemberId) -> Option<KnownMember> {
        self.inner.known.load().get(id)
    }

    fn set_paused(&self, paused: bool) {
        self.changes().paused = paused;
        self.inner.strangers.set_paused(paused);
        self.inner.others.set_paused(paused);
        for peer in self.inner.known.load().peers.values() {
            peer.set_paused(paused);
        }
    }

    /// Counts messages to 0 or to an unknown member. Raft waits for the result of a snapshot, so it is told.
    fn nobody(&self, to: u64, messages: &[Message]) {
        self.unroutable(to, messages.len());
        let snapshots = messages.iter().filter(|message| message.r#type == MessageType::MsgSnap as i32);
        for _ in snapshots.take_while(|_| to != 0) {
            self.snapshot_failed(MemberId(to));
        }
    }

    fn unroutable(&self, to: u64, messages: usize) {
        let reason = if to == 0 { "no_destination" } else { "unknown_peer" };
        self.inner.unroutable.lock().unwrap_or_else(PoisonError::into_inner).add(reason, messages as u64);
        tracing::trace!(to = %MemberId(to), messages, reason, "messages not sent");
    }

    fn snapshot_failed(&self, to: MemberId) {
        self.inner.shared.raft.report_unreachable(to);
        self.inner.shared.raft.report_snapshot(to, SnapshotStatus::Failure);
    }
}
