//! Errors in frames.

use std::borrow::Cow;

/// A frame cannot be read. Its stream cannot be read any further.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}, at byte {offset}")]
#[non_exhaustive]
pub struct FrameError {
    /// The kind of the error, for a metric's label.
    pub kind: FrameErrorKind,
    /// Where the error is, in bytes from the start of the stream or body.
    pub offset: u64,
    /// The error in words, for people.
    pub why: Cow<'static, str>,
}

/// The kinds of errors in a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum FrameErrorKind {
    /// A length is over its limit.
    Length,
    /// The number of entries is over its limit, or would move the index past the largest index.
    Count,
    /// The bytes are not the expected protobuf message.
    Protobuf,
    /// The msgappv2 frame type does not exist.
    Type,
    /// There is no term for the entries: a msgappv2 type 1 before any type 2.
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

    /// The same error, with its offset moved to a part that starts at byte `base`.
    pub(crate) fn within(mut self, base: u64) -> Self {
        self.offset = self.offset.saturating_add(base);
        self
    }
}
