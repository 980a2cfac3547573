//! The wire formats, without I/O: bytes to messages and back. No socket, no clock, no runtime.

mod decode;
mod encode;
pub(crate) mod error;
mod fields;
pub(crate) mod frames;
pub(crate) mod gather;
pub(crate) mod headers;
pub(crate) mod limits;
pub(crate) mod message;
pub(crate) mod msgappv2;
mod payload;
pub(crate) mod probing;
pub mod raftpb;
pub(crate) mod reply;
pub(crate) mod resumption;
pub(crate) mod stream;
pub mod version;

pub(crate) use error::{FrameError, FrameErrorKind};
pub(crate) use limits::FrameLimits;
pub use probing::Sight;
pub use stream::StreamKind;
