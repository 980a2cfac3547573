//! The server side over real sockets: raw requests against a member on loopback.

#![allow(clippy::unwrap_used, clippy::panic, reason = "what a test stands on ends it when it gives way")]

mod answers;
mod bounds;
mod member;
mod tls;
