//! The channels between two members, and their directions.

use crate::wire::stream::StreamKind;

/// A channel between two members: the label `channel`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[cfg_attr(test, derive(serde::Deserialize))]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Channel {
    /// The stream of compact appends (`/raft/stream/msgapp`).
    MsgApp,
    /// The stream of all other messages (`/raft/stream/message`).
    Message,
    /// `POST /raft`.
    Pipeline,
    /// `POST /raft/snapshot`.
    Snapshot,
}

impl Channel {
    /// Every channel, in the order of their indexes.
    pub const ALL: [Self; 4] = [Self::MsgApp, Self::Message, Self::Pipeline, Self::Snapshot];

    /// The value of the label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::MsgApp => "msgapp",
            Self::Message => "message",
            Self::Pipeline => "pipeline",
            Self::Snapshot => "snapshot",
        }
    }

    /// The kind of stream, or `None` for the channels that are made of requests.
    pub const fn stream(self) -> Option<StreamKind> {
        match self {
            Self::MsgApp => Some(StreamKind::MsgApp),
            Self::Message => Some(StreamKind::Message),
            Self::Pipeline | Self::Snapshot => None,
        }
    }
}

impl StreamKind {
    /// The channel of a stream of this kind.
    pub const fn channel(self) -> Channel {
        match self {
            Self::MsgApp => Channel::MsgApp,
            Self::Message => Channel::Message,
        }
    }
}

/// The direction of a channel: the label `direction`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[cfg_attr(test, derive(serde::Deserialize))]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// From the peer to us.
    In,
    /// From us to the peer.
    Out,
}

impl Direction {
    /// Both directions, in the order of the arrays that are indexed by them.
    pub const ALL: [Self; 2] = [Self::In, Self::Out];

    /// The value of the label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::In => "in",
            Self::Out => "out",
        }
    }
}
