//! What is wrong with a frame.

use std::borrow::Cow;

/// A frame that cannot be read. The stream that it came on cannot be read any further.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}, at byte {offset}")]
pub struct FrameError {
    /// What is wrong, for a metric's label.
    pub kind: FrameErrorKind,
    /// Where in the stream or the body, in bytes from its start.
    pub offset: u64,
    /// What is wrong, for a person.
    pub why: Cow<'static, str>,
}

/// The ways in which a frame can be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FrameErrorKind {
    /// A length over its limit.
    Length,
    /// A number of entries over its limit, or one that carries the index over the largest.
    Count,
    /// Bytes that are not the protobuf message that should be there.
    Protobuf,
    /// A msgappv2 frame type that does not exist.
    Type,
    /// Entries without a term: a msgappv2 type 1 before any type 2.
    Term,
    /// The stream or body ended inside a frame.
    Truncated,
}

impl FrameErrorKind {
    /// Every kind.
    pub const ALL: [Self; 6] = [Self::Length, Self::Count, Self::Protobuf, Self::Type, Self::Term, Self::Truncated];

    /// The name in `rafthttp_frame_errors_total{kind}`.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Length => "length",
            Self::Count => "count",
            Self::Protobuf => "protobuf",
            Self::Type => "type",
            Self::Term => "term",
            Self::Truncated => "truncated",
        }
    }
}

impl FrameError {
    pub(crate) fn new(kind: FrameErrorKind, offset: u64, why: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, offset, why: why.into() }
    }

    /// The same, of a part that starts at byte `base`.
    pub(crate) fn within(mut self, base: u64) -> Self {
        self.offset = self.offset.saturating_add(base);
        self
    }
}
