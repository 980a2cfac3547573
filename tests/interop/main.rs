//! This transport on one side, etcd's own rafthttp (`tests/gopeer`) on the other, each as sender and as receiver.
//!
//! Every behaviour is tried with etcd 3.6, in the run of everything with 3.5, 3.6 and 3.7, plain and with mTLS.

#![allow(clippy::unwrap_used, clippy::panic, reason = "what a test stands on ends it when it gives way")]

#[path = "../support/scrape.rs"]
mod scrape;
#[path = "../support/mod.rs"]
mod support;

mod counters;
mod gopeer;
mod link;
mod messages;
mod pattern;
mod pipeline;
mod proxy;
mod refusals;
mod snapshots;
mod streams;
