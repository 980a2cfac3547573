//! The wire, without I/O: bytes in, messages out. No socket, no clock, no runtime.

pub mod headers;
pub mod message;
pub mod msgappv2;
pub mod raftpb;
pub mod version;
