//! The transport: every peer, what goes to them and what comes from them.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use crate::{
    id::{ClusterId, MemberId},
    metrics::Channel,
    tls::Tls,
    wire::{raftpb::Message, version::Version},
};

pub mod client;
pub mod limits;
pub mod snapshot;
pub mod status;
pub mod urls;

use limits::Limits;
use snapshot::{SnapshotBody, SnapshotStore};
use status::TransportStatus;
use urls::{PeerUrl, PeerUrlError};

/// What the transport needs from the raft that it serves: etcd's `rafthttp.Raft`, the one seam.
#[async_trait]
pub trait Raft: Send + Sync + 'static {
    /// Takes what arrived from `from`, in order. It may wait; proposals wait apart from the rest. From a stream come
    /// batches, from a POST or a snapshot a batch of one whose sender gets the answer.
    async fn process(&self, from: MemberId, batch: Vec<Message>) -> Result<(), Rejected>;

    /// Whether the member was removed from the cluster, ever (etcd's `IsIDRemoved`).
    fn is_removed(&self, id: MemberId) -> bool;

    /// A message to this member was given up (etcd's `ReportUnreachable`).
    fn report_unreachable(&self, id: MemberId);

    /// A snapshot to this member was delivered or given up (etcd's `ReportSnapshot`).
    fn report_snapshot(&self, id: MemberId, status: SnapshotStatus);

    /// The members of the cluster as of the last applied entry, for `GET /members`. None: answered with 404.
    fn members(&self) -> Option<Members> {
        None
    }

    /// An error after which this member cannot go on (etcd's `ErrorC`). Reported once.
    fn critical(&self, error: Critical);
}

/// What became of a snapshot that raft handed out (etcd's `raft.SnapshotStatus`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotStatus {
    /// The peer took it.
    Finish,
    /// It was given up.
    Failure,
}

/// An error after which this member cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Critical {
    /// A peer says that this member was removed from the cluster (etcd's `errMemberRemoved`).
    #[error("the member has been permanently removed from the cluster (told by peer {by})")]
    MemberRemoved {
        /// The peer that says so.
        by: MemberId,
    },
}

/// The messages of a batch that the application did not take.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rejected(pub Vec<Rejection>);

/// One message that the application did not take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// Its place in the batch.
    pub position: usize,
    /// Whose fault it is.
    pub kind: RejectionKind,
    /// Why, in a few words; a POST's sender is told.
    pub why: String,
}

/// Whose fault a rejection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RejectionKind {
    /// The message is not one that this member takes.
    Refused,
    /// The application failed on a message that it should have taken.
    Failed,
}

/// The members of a cluster, as `GET /members` answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members(pub Vec<Member>);

/// One member of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its ID; decimal in the JSON.
    pub id: MemberId,
    /// Its name; empty until it has started.
    pub name: String,
    /// Where its peers reach it.
    pub peer_urls: Vec<PeerUrl>,
    /// Where its clients reach it.
    pub client_urls: Vec<String>,
    /// Whether it has no vote yet.
    pub is_learner: bool,
}

/// Why a transport or a peer could not be built.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// A list of URLs without one that can be dialled.
    #[error(transparent)]
    Url(#[from] PeerUrlError),
    /// An ID that cannot be a peer's.
    #[error("{0} cannot be a peer: it is zero or this member's own ID")]
    NotAPeer(MemberId),
    /// No such peer.
    #[error("{0} is not a peer")]
    UnknownPeer(MemberId),
    /// The registry refused our metrics.
    #[error("metrics cannot be registered: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// Who we are towards our peers.
#[derive(Clone, Debug)]
pub struct Identity {
    /// This member.
    pub member: MemberId,
    /// Its cluster.
    pub cluster: ClusterId,
    /// Its own peer URLs, told in `X-PeerURLs`.
    pub urls: Vec<PeerUrl>,
    /// The etcd version that it speaks as; 3.6.0 unless told otherwise, and never this crate's own.
    pub server_version: Version,
}

/// etcd's raft transport. Cheap to clone: every clone is the same transport.
#[derive(Clone)]
pub struct Transport {}

/// Builds a [`Transport`].
pub struct Builder {}

impl Builder {
    /// Own peer URLs, told to peers in `X-PeerURLs`. Default: none.
    pub fn urls(self, _urls: Vec<PeerUrl>) -> Self { todo!() }
    /// The etcd version that this member speaks as. Default: 3.6.0.
    pub fn server_version(self, _version: Version) -> Self { todo!() }
    /// Certificates for `https` peers. Default: none, and such peers cannot be dialled.
    pub fn tls(self, _tls: Tls) -> Self { todo!() }
    /// Where received snapshots are saved. Default: none, and `POST /raft/snapshot` answers 500.
    pub fn snapshots(self, _store: SnapshotStore) -> Self { todo!() }
    /// The registry that shows the metrics. Default: none, and only [`Transport::status`] does.
    pub fn registry(self, _registry: &prometheus::Registry) -> Self { todo!() }
    /// Whether etcd's own names are exported too. Default: true.
    pub fn etcd_metrics(self, _on: bool) -> Self { todo!() }
    /// Bounds of queues and frames. Default: [`Limits::default`].
    pub fn limits(self, _limits: Limits) -> Self { todo!() }
    /// How often peers are probed and how long a probe may take. Default: 1 s, 700 ms.
    pub fn probe(self, _interval: Duration, _timeout: Duration) -> Self { todo!() }
    /// How long a connection attempt may take. Default: 1 s.
    pub fn dial_timeout(self, _timeout: Duration) -> Self { todo!() }
    /// The share of messages that are traced, 0 to 1. Default: 0.
    pub fn trace_ratio(self, _ratio: f64) -> Self { todo!() }
    /// Builds it. Needs a tokio runtime.
    pub fn build(self) -> Result<Transport, TransportError> { todo!() }
}

impl Transport {
    /// A transport for `member` of `cluster` that serves `raft`.
    pub fn builder(_member: MemberId, _cluster: ClusterId, _raft: Arc<dyn Raft>) -> Builder { todo!() }
    /// Adds a peer and starts to dial it; of a known peer, updates the URLs. A remote becomes a peer and keeps its counters.
    pub fn add_peer(&self, _id: MemberId, _urls: Vec<PeerUrl>) -> Result<(), TransportError> { todo!() }
    /// Adds a remote: a member that only its requests made known, reached by POST alone.
    pub fn add_remote(&self, _id: MemberId, _urls: Vec<PeerUrl>) -> Result<(), TransportError> { todo!() }
    /// Replaces a peer's URLs.
    pub fn update_peer(&self, _id: MemberId, _urls: Vec<PeerUrl>) -> Result<(), TransportError> { todo!() }
    /// Removes a peer or remote, ends its streams and its series.
    pub fn remove_peer(&self, _id: MemberId) { todo!() }
    /// Removes all peers and remotes.
    pub fn remove_all_peers(&self) { todo!() }
    /// Hands messages over. Never blocks, never fails: what cannot be delivered is in the ledger with its reason, and raft is told.
    pub fn send(&self, _messages: Vec<Message>) { todo!() }
    /// Sends a `MsgSnap` whose data are in `body` through `POST /raft/snapshot`.
    pub fn send_snapshot(&self, _message: Message, _body: SnapshotBody) { todo!() }
    /// Drops everything to and from a peer while its connections stay (a test hook), until [`Self::mend_peer`].
    pub fn cut_peer(&self, _id: MemberId) { todo!() }
    /// Ends what [`Self::cut_peer`] began.
    pub fn mend_peer(&self, _id: MemberId) { todo!() }
    /// As [`Self::cut_peer`], for all.
    pub fn pause(&self) { todo!() }
    /// Ends what [`Self::pause`] began.
    pub fn resume(&self) { todo!() }
    /// Since when the peer is active; none while it is not.
    pub fn active_since(&self, _id: MemberId) -> Option<std::time::SystemTime> { todo!() }
    /// How many peers are active.
    pub fn active_peers(&self) -> usize { todo!() }
    /// The state of every peer and remote, as `/api/peers` shows it.
    pub fn peers(&self) -> Vec<status::PeerStatus> { todo!() }
    /// [`Self::peers`] and what belongs to no peer.
    pub fn status(&self) -> TransportStatus { todo!() }
    /// Who we are.
    pub fn identity(&self) -> &Identity { todo!() }
    /// Ends every stream cleanly and every task; what is queued is dropped as `stopped`.
    pub async fn stop(&self) { todo!() }
}
