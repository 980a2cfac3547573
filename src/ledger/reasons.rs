//! How things ended: closed sets of results and reasons, with their names in metrics, traces and events.

use super::Direction;

/// Why a message was given up before it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[cfg_attr(test, derive(serde::Deserialize))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum DropReason {
    /// The channel's queue was at its limit of messages or bytes.
    QueueFull,
    /// The stream that the message was queued on ended.
    StreamLost,
    /// The request failed before an answer, or the server answered with an error.
    PostFailed,
    /// The peer answered that it does not take the message.
    Refused,
    /// The message is larger than the peer would read.
    TooLarge,
    /// The peer is paused or cut (a test hook).
    Paused,
    /// The peer was removed.
    PeerRemoved,
    /// The message was queued for a remote that the membership has confirmed since. It is offered to the new peer
    /// instead.
    Promoted,
    /// The transport stopped.
    Stopped,
}

impl DropReason {
    /// Every reason, in the order of their places.
    pub const ALL: [Self; 9] = [
        Self::QueueFull,
        Self::StreamLost,
        Self::PostFailed,
        Self::Refused,
        Self::TooLarge,
        Self::Paused,
        Self::PeerRemoved,
        Self::Promoted,
        Self::Stopped,
    ];

    /// The value of the label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::StreamLost => "stream_lost",
            Self::PostFailed => "post_failed",
            Self::Refused => "refused",
            Self::TooLarge => "too_large",
            Self::Paused => "paused",
            Self::PeerRemoved => "peer_removed",
            Self::Promoted => "promoted",
            Self::Stopped => "stopped",
        }
    }
}

/// Why a received message was not taken by the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[cfg_attr(test, derive(serde::Deserialize))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RejectReason {
    /// The receive queue was at its limit of messages or bytes.
    QueueFull,
    /// The peer is paused or cut (a test hook).
    Paused,
    /// The application does not take the message.
    Refused,
    /// The application failed to process the message, or a snapshot's body could not be read or saved.
    Failed,
    /// The transport stopped, or the peer was removed, before the application took it.
    Stopped,
}

impl RejectReason {
    /// Every reason, in the order of their places.
    pub const ALL: [Self; 5] = [Self::QueueFull, Self::Paused, Self::Refused, Self::Failed, Self::Stopped];

    /// The value of the label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::Paused => "paused",
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::Stopped => "stopped",
        }
    }
}

/// Why a snapshot that had broken off started over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[cfg_attr(test, derive(serde::Deserialize))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RestartReason {
    /// The sender sends another snapshot: the sender was restarted, or has a newer one.
    Another,
    /// The received bytes differed from those sent.
    Checksum,
    /// The receiver has no bytes of it any more.
    Lost,
}

impl RestartReason {
    /// Every reason, in the order of their places.
    pub const ALL: [Self; 3] = [Self::Another, Self::Checksum, Self::Lost];

    /// The value of the label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Another => "another",
            Self::Checksum => "checksum",
            Self::Lost => "lost",
        }
    }

    /// Whether this end can see a snapshot in this direction start over for this reason.
    pub fn is_of(self, direction: Direction) -> bool {
        match self {
            Self::Another => direction == Direction::In,
            Self::Checksum => true,
            Self::Lost => direction == Direction::Out,
        }
    }
}

/// The result of dialling a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[cfg_attr(test, derive(serde::Deserialize))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum AttemptResult {
    /// Answered with 200: the stream is open.
    Ok,
    /// The connection failed, or broke before the answer.
    Unreachable,
    /// The TLS handshake failed.
    Tls,
    /// There was no answer in time.
    Timeout,
    /// 404: the peer does not know this member (yet).
    NotFound,
    /// 410: this member was removed from the cluster.
    Removed,
    /// 412, `cluster ID mismatch`.
    ClusterIdMismatch,
    /// 412, `incompatible version`, or an answer without a version we can read.
    IncompatibleVersion,
    /// 412, `to field mismatch`.
    ToMismatch,
    /// 409: this member was started from another data directory than before, or from an old copy.
    IncarnationRefused,
    /// The peer itself was refused as an impostor, and is not heard.
    Impostor,
    /// Any other answer.
    Refused,
}

impl AttemptResult {
    /// Every result.
    pub const ALL: [Self; 12] = [
        Self::Ok,
        Self::Unreachable,
        Self::Tls,
        Self::Timeout,
        Self::NotFound,
        Self::Removed,
        Self::ClusterIdMismatch,
        Self::IncompatibleVersion,
        Self::ToMismatch,
        Self::IncarnationRefused,
        Self::Impostor,
        Self::Refused,
    ];

    /// The value of the label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Unreachable => "unreachable",
            Self::Tls => "tls",
            Self::Timeout => "timeout",
            Self::NotFound => "not_found",
            Self::Removed => "removed",
            Self::ClusterIdMismatch => "cluster_id_mismatch",
            Self::IncompatibleVersion => "incompatible_version",
            Self::ToMismatch => "to_mismatch",
            Self::IncarnationRefused => "incarnation_refused",
            Self::Impostor => "impostor",
            Self::Refused => "refused",
        }
    }
}

/// Why an open stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LossReason {
    /// The other end closed it cleanly.
    Eof,
    /// The connection broke.
    Error,
    /// Nothing was read for the read deadline (5 s).
    Timeout,
    /// No byte could be written for the write deadline (5 s).
    Stalled,
    /// A frame could not be read.
    Frame,
    /// The peer's certificate no longer verifies.
    Certificate,
    /// A newer stream from the same peer took its place.
    Replaced,
    /// This member ended the stream: the transport stopped, or the peer was removed or is dialled again.
    Stopped,
}

impl LossReason {
    /// The value of the label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Eof => "eof",
            Self::Error => "error",
            Self::Timeout => "timeout",
            Self::Stalled => "stalled",
            Self::Frame => "frame",
            Self::Certificate => "certificate",
            Self::Replaced => "replaced",
            Self::Stopped => "stopped",
        }
    }

    /// Whether something went wrong, as opposed to one end having no more use for the stream.
    pub const fn is_failure(self) -> bool {
        match self {
            Self::Error | Self::Timeout | Self::Stalled | Self::Frame | Self::Certificate => true,
            Self::Eof | Self::Replaced | Self::Stopped => false,
        }
    }
}

/// How a probe ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[cfg_attr(test, derive(serde::Deserialize))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ProbeResult {
    /// 200, with the body of a probe's answer.
    Ok,
    /// There was no answer within the timeout.
    Timeout,
    /// The connection failed, or broke.
    Connect,
    /// The TLS handshake failed.
    Tls,
    /// The name could not be resolved.
    Dns,
    /// The answer had another status.
    Status,
    /// The answer was not a probe's answer: another body, or no HTTP at all.
    Body,
}

impl ProbeResult {
    /// Every result.
    pub const ALL: [Self; 7] = [Self::Ok, Self::Timeout, Self::Connect, Self::Tls, Self::Dns, Self::Status, Self::Body];

    /// The value of the label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Timeout => "timeout",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Dns => "dns",
            Self::Status => "status",
            Self::Body => "body",
        }
    }
}

/// A phase of a dial that is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[cfg_attr(test, derive(serde::Deserialize))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum DialPhase {
    /// Looking up the name.
    Dns,
    /// Opening the TCP connection.
    Connect,
    /// The TLS handshake.
    Tls,
}

impl DialPhase {
    /// Every phase, in the order of [`Link::dial_seconds`](super::Link::dial_seconds).
    pub const ALL: [Self; 3] = [Self::Dns, Self::Connect, Self::Tls];

    /// The value of the label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::Connect => "connect",
            Self::Tls => "tls",
        }
    }
}
