//! The wire formats, without I/O: bytes to messages and back. No socket, no clock, no runtime.

mod decode;
mod encode;
mod error;
mod fields;
pub mod frames;
pub(crate) mod gather;
pub mod headers;
mod limits;
pub mod message;
pub mod msgappv2;
mod payload;
pub mod probing;
pub mod raftpb;
pub mod reply;
pub mod resumption;
pub mod stream;
pub mod version;

pub use error::{FrameError, FrameErrorKind};
pub use limits::FrameLimits;
