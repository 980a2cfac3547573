//! `rafthttp probe`, against members that behave as they are told, and against real etcd.

#![allow(clippy::unwrap_used, clippy::panic, reason = "what a test stands on ends it when it gives way")]

#[path = "../support/binary.rs"]
mod binary;
#[path = "../support/scrape.rs"]
mod scrape;
#[path = "../support/mod.rs"]
mod support;

mod command;
mod etcd;
mod fake;
mod once;
mod tls;
mod watching;
