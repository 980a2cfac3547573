//! The interface between the transport and the raft that it serves, and the types that pass through it.

use std::fmt;

use async_trait::async_trait;

use crate::{
    dial::urls::PeerUrl,
    id::{Impostor, Incarnation, MemberId},
    wire::raftpb::Message,
};

/// What the transport needs from the raft that it serves: etcd's `rafthttp.Raft`.
///
/// Raft usually runs in a task of its own. An implementation then hands messages to that task and waits for the
/// outcome:
///
/// ```
/// use async_trait::async_trait;
/// use rafthttp::{Critical, MemberId, Raft, Rejected, SnapshotStatus, Source, wire::raftpb::Message};
/// use tokio::sync::{mpsc, oneshot};
///
/// /// What the task takes: a batch, who sent it, and where the outcome goes.
/// type Batch = (MemberId, Vec<Message>, oneshot::Sender<Result<(), Rejected>>);
///
/// struct Inlet {
///     batches: mpsc::Sender<Batch>,
///     unreachable: mpsc::Sender<MemberId>,
/// }
///
/// #[async_trait]
/// impl Raft for Inlet {
///     async fn process(&self, from: MemberId, _: Source, batch: Vec<Message>) -> Result<(), Rejected> {
///         let (reply, answer) = oneshot::channel();
///         // Waits while raft is busy. Meanwhile the transport keeps what arrives, within its `Limits`.
///         let _ = self.batches.send((from, batch, reply)).await;
///         answer.await.unwrap_or_else(|_| Err(Rejected::one("this member has stopped")))
///     }
///     fn is_removed(&self, _: MemberId) -> bool {
///         false // no member of this cluster was ever removed
///     }
///     fn report_unreachable(&self, id: MemberId) {
///         let _ = self.unreachable.try_send(id); // must not wait
///     }
///     fn report_snapshot(&self, _: MemberId, _: SnapshotStatus) {} // this application sends no snapshots
///     fn critical(&self, error: Critical) {
///         eprintln!("{error}"); // this member was removed: its ID is never used again
///         std::process::exit(3);
///     }
/// }
/// ```
#[async_trait]
pub trait Raft: Send + Sync + 'static {
    /// Takes messages from `from`, in order. It may wait; proposals have a separate queue, so they do not hold up other
    /// messages. Streams bring batches. A POST or a snapshot brings a batch of one, whose sender gets the result as its
    /// answer. `source` says whether `from` can be believed.
    async fn process(&self, from: MemberId, source: Source, batch: Vec<Message>) -> Result<(), Rejected>;

    /// Judges a snapshot by its envelope, before any of its body is kept. Anyone who can reach the port can send a
    /// snapshot, and nothing of a refused one is written to the disk. It should be cheap. Default: every snapshot is
    /// wanted.
    ///
    /// # Errors
    /// This member does not take the message. The sender gets the same answer as if [`Self::process`] had rejected it.
    async fn judge_snapshot(&self, _from: MemberId, _envelope: &Message) -> Result<Judgement, Rejected> {
        Ok(Judgement::Wanted)
    }

    /// Decides whether one start of a member is heard: whether its messages and answers count. A member that was
    /// started without its disk, or from an old copy of it, has forgotten votes and entries. `docs/incarnations.md`
    /// says why it must not be heard.
    ///
    /// It is called for each stream and each request that carries an incarnation, before anything of it counts. It is
    /// not called if there is no incarnation. With [`Source::Member`], a configured member's URL has answered our dial:
    /// if the incarnation may follow the newest one that was met ([`Incarnation::after`]), it must be stored durably
    /// before this returns. With [`Source::Anyone`], nothing is proved, and nothing may be stored. Default: every start
    /// is heard.
    ///
    /// # Errors
    /// The start is not heard, for this reason.
    async fn meet(&self, id: MemberId, told: Incarnation, source: Source) -> Result<(), Unheard> {
        let _ = (id, told, source);
        Ok(())
    }

    /// Whether the member was ever removed from the cluster (etcd's `IsIDRemoved`).
    fn is_removed(&self, id: MemberId) -> bool;

    /// A message to this member was given up (etcd's `ReportUnreachable`).
    fn report_unreachable(&self, id: MemberId);

    /// A snapshot to this member was delivered or given up (etcd's `ReportSnapshot`).
    fn report_snapshot(&self, id: MemberId, status: SnapshotStatus);

    /// The members of the cluster as of the last applied entry, for `GET /members`. `None` is answered with 404.
    fn members(&self) -> Option<Members> {
        None
    }

    /// Whether this member knows an incarnation or the data directory of that one, so that it would not hear a start
    /// from an empty directory. `GET /members` reports it, for members that find their cluster by themselves. Default:
    /// false.
    fn has_met(&self, _id: MemberId) -> bool {
        false
    }

    /// An error after which this member cannot go on (etcd's `ErrorC`). It is reported once.
    fn critical(&self, error: Critical);
}

/// How messages came, and so whether their sender can be believed. etcd does not distinguish this. Without
/// certificates, anyone who can reach the peer port may POST with any member's ID, so such messages must not be able to
/// end this member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// All messages came on streams that we dialled at a configured member's URL, and whose answers carried our
    /// cluster's ID.
    Member,
    /// At least one message came by a request to us, or on a stream whose answer did not name our cluster.
    Anyone,
}

/// What to do with a snapshot whose envelope was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Judgement {
    /// The body is to be saved, and then [`Raft::process`] gets the message.
    Wanted,
    /// The snapshot is legal, but raft does not need it: it is late. Its body is read and discarded, and its sender is
    /// answered with success, as in etcd. [`Raft::process`] is not called: an implementation that returns this has
    /// already told raft what raft has to know.
    PassedOver,
}

/// Why a start of a member is not heard.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unheard {
    /// It is not the member that was met before, and never will be.
    #[error("{0}")]
    Refused(#[from] Impostor),
    /// Its incarnation came by a request, and no dial of ours has met it yet.
    #[error("it was not met yet")]
    NotMet,
    /// It cannot be decided whether it may be heard, or the incarnation cannot be stored.
    #[error("{0}")]
    Failed(String),
}

/// The result of sending a snapshot (etcd's `raft.SnapshotStatus`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotStatus {
    /// The peer took the snapshot.
    Finish,
    /// The snapshot was given up.
    Failure,
}

/// An error after which this member cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Critical {
    /// A peer says that this member was removed from the cluster (etcd's `errMemberRemoved`).
    #[error("the member has been permanently removed from the cluster (told by peer {by})")]
    MemberRemoved {
        /// The peer that says so.
        by: MemberId,
    },
    /// A peer says that this member was started from another data directory than before, or from an old copy.
    #[error("this member's incarnation is refused: {why} (told by peer {by})")]
    IncarnationRefused {
        /// The peer that says so.
        by: MemberId,
        /// Why the peer refuses it.
        why: Impostor,
    },
}

/// The messages of a batch that the application did not take.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rejected(pub Vec<Rejection>);

impl Rejected {
    /// A rejection of a single message, as refused.
    pub fn one(why: impl Into<String>) -> Self {
        Self(vec![Rejection { position: 0, kind: RejectionKind::Refused, why: why.into() }])
    }
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_slice() {
            [] => f.write_str("nothing rejected"),
            [only] => f.write_str(&only.why),
            [first, rest @ ..] => write!(f, "{} (and {} more)", first.why, rest.len()),
        }
    }
}

/// A message that the application did not take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// Its index in the batch.
    pub position: usize,
    /// Whether the message or the application is at fault.
    pub kind: RejectionKind,
    /// The reason, in a few words. The sender of a POST gets it.
    pub why: String,
}

/// Whether the message or the application is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RejectionKind {
    /// The message is one that this member does not take.
    Refused,
    /// The application failed to process a message that it should have taken.
    Failed,
}

/// The members of a cluster, as in the answer of `GET /members`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members(pub Vec<Member>);

/// One member of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Member {
    /// Its ID, which is decimal in the JSON.
    pub id: MemberId,
    /// Its name. Empty until it was first started.
    pub name: String,
    /// The URLs for its peers.
    pub peer_urls: Vec<PeerUrl>,
    /// The URLs for its clients.
    pub client_urls: Vec<String>,
    /// Whether it is a learner, which has no vote.
    pub is_learner: bool,
}

/// For tests: accepts all messages.
#[cfg(test)]
pub(super) struct Taker;

#[cfg(test)]
#[async_trait]
impl Raft for Taker {
    async fn process(&self, _: MemberId, _: Source, _: Vec<Message>) -> Result<(), Rejected> {
        Ok(())
    }
    fn is_removed(&self, _: MemberId) -> bool {
        false
    }
    fn report_unreachable(&self, _: MemberId) {}
    fn report_snapshot(&self, _: MemberId, _: SnapshotStatus) {}
    fn critical(&self, _: Critical) {}
}
