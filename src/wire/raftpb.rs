//! Raft's messages in etcd's format: `proto/raftpb.proto`, generated at build time.

#![allow(
    missing_docs,
    clippy::all,
    clippy::pedantic,
    reason = "generated from proto/raftpb.proto, which says what each name means"
)]

include!(concat!(env!("OUT_DIR"), "/raftpb.rs"));
