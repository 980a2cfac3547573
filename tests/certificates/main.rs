//! Which certificates are accepted, what a refusal says, and how both ends compare with etcd.

#![allow(clippy::panic, reason = "what a test stands on ends it when it gives way")]

#[path = "../support/binary.rs"]
mod binary;
#[path = "../support/handshake.rs"]
mod handshake;
#[path = "../support/mod.rs"]
mod support;

mod auto_tls;
mod ends;
mod expiry;
mod files;
mod kinds;
mod lines;
mod refusals;
mod table;
mod workshop;
