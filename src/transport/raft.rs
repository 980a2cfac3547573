//! The one seam: what the transport needs from the raft that it serves, and what passes between them.

use std::fmt;

use async_trait::async_trait;

use crate::{
    dial::urls::PeerUrl,
    id::{Impostor, Incarnation, MemberId},
    wire::raftpb::Message,
};

/// What the transport needs from the raft that it serves: etcd's `rafthttp.Raft`, the one seam.
#[async_trait]
pub trait Raft: Send + Sync + 'static {
    /// Takes what arrived from `from`, in order. It may wait; proposals wait apart from the rest. From a stream come
    /// batches, from a POST or a snapshot a batch of one whose sender gets the answer. `source` says how far `from` can
    /// be believed.
    async fn process(&self, from: MemberId, source: Source, batch: Vec<Message>) -> Result<(), Rejected>;

    /// Judges a snapshot by its envelope, before a byte of its body is kept: whoever reaches the port can send one, and
    /// nothing is written to the disk for who is refused here. It should be cheap. Default: every snapshot is wanted.
    ///
    /// # Errors
    /// When the message is not one that this member takes; its sender is answered as if [`Self::process`] had said so.
    async fn judge_snapshot(&self, _from: MemberId, _envelope: &Message) -> Result<Judgement, Rejected> {
        Ok(Judgement::Wanted)
    }

    /// Whether a start of a member may be heard. Asked for each stream and each request of who tells its incarnation,
    /// before anything of it counts; who does not tell is not asked about. With [`Source::Member`] a configured member's
    /// URL has answered our dial: an incarnation that may follow the newest one that was met is then to be kept,
    /// lastingly, before this returns. With [`Source::Anyone`] nothing is proved, and nothing to be kept. By default,
    /// all are heard.
    ///
    /// # Errors
    /// When it may not be heard, and why.
    async fn meet(&self, id: MemberId, told: Incarnation, source: Source) -> Result<(), Unheard> {
        let _ = (id, told, source);
        Ok(())
    }

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

    /// Whether a start of the member is known, so that one from an empty data directory would not be heard. `GET /members`
    /// tells it, for who finds its cluster by itself. Default: none is.
    fn has_met(&self, _id: MemberId) -> bool {
        false
    }

    /// An error after which this member cannot go on (etcd's `ErrorC`). Reported once.
    fn critical(&self, error: Critical);
}

/// How messages came, and so how far their sender's name can be believed. etcd makes no difference; without certificates
/// whoever reaches the peer port may POST in any member's name, and nothing that ends this member may follow from that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// All were read on streams that we dialled to a configured member's URL, and whose answers carried our cluster's ID.
    Member,
    /// At least one came by a request that was made to us, or on a stream whose answer did not name our cluster.
    Anyone,
}

/// What is to become of a snapshot, of which the envelope was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// Its body is saved, and [`Raft::process`] is given its message.
    Wanted,
    /// It is legal, and raft passes over it: it is late. Its body is read and not kept, and its sender is answered with
    /// success, as etcd answers. [`Raft::process`] is not called: who says this has given raft what it is to have of it.
    PassedOver,
}

/// Why a start of a member is not heard.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unheard {
    /// It is not the member that was met before, and never will be.
    #[error("{0}")]
    Refused(#[from] Impostor),
    /// It was told by a request, and no dial of ours has met it yet.
    #[error("it was not met yet")]
    NotMet,
    /// Whether it may be heard cannot be said, or what was met cannot be kept.
    #[error("{0}")]
    Failed(String),
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
    /// A peer says that this member was started from another data directory than before, or from an old copy.
    #[error("this member's incarnation is refused: {why} (told by peer {by})")]
    IncarnationRefused {
        /// The peer that says so.
        by: MemberId,
        /// What is wrong with it.
        why: Impostor,
    },
}

/// The messages of a batch that the application did not take.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rejected(pub Vec<Rejection>);

impl Rejected {
    /// One message, refused.
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

/// For tests: takes all that comes.
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
