//! etcd's raft network transport in Rust. A member that uses it speaks to members of etcd 3.4 to 3.7 as one of them.
//! Its counts add up: every message ends in exactly one place, and the metrics show which.
//!
//! The default features bring the command line, a key-value store and an exporter of traces. A program of your own takes
//! the library alone:
//!
//! ```toml
//! rafthttp = { version = "0.1", default-features = false }                            # with any raft
//! rafthttp = { version = "0.1", default-features = false, features = ["raft-rs"] }    # with raft-rs
//! ```
//!
//! Version 0.1.0 is not published yet. Until it is, write `path = "…"` with the directory of a clone in place of
//! `version = "0.1"`.
//!
//! Begin with [`Raft`], which you implement, and [`Transport::builder`]. `examples/cluster.rs` is a whole cluster on
//! raft-rs in 200 lines; `docs/library.md` is the guide.
//!
//! **The receiver dials.** To hear member B, member A opens `GET /raft/stream/…` on B, and B answers without end. A
//! member therefore sends on the streams that it accepted, and receives on the streams that it dialled.
//!
//! ```text
//!                          this member                                              another member
//!
//!  raft ─ send ─▶ Outbox ─▶ StreamBody, the answer to a stream that it dialled ───▶ StreamReader
//!                   │                                                     msgapp, message
//!                   └─────▶ pipeline: a task per request ────────── POST /raft ────▶ server::pipeline
//!       ─ send_snapshot ──▶ snapshot::sender: a task each ── POST /raft/snapshot ──▶ server::snapshot
//!
//!  raft ◀─ process ─ Inbox ◀─ StreamReader: a task per stream, dials again ◀─────── StreamBody
//!                      ▲
//!                      └──── server: POST /raft, POST /raft/snapshot ◀───────────── pipeline, snapshot::sender
//!
//!  Link ◀─ Prober: a task per peer, GET /raft/probing on a warm connection ───────▶ server::probing
//! ```
//!
//! A peer has three locks and shares nothing else: `Outbox` (its send queues and their ledger), `Inbox` (its receive
//! queues and their ledger) and `Link` (the state of the link). Each ledger is behind the same lock as the queues that
//! it counts, so the laws of the ledger hold at every moment. Where two are held, the link's is taken first.
//!
//! # Three walks
//!
//! - *A message out*: the application calls [`Transport::send`] (in the node, `node/ready` does, and `raft_rs` converts).
//!   The peer's `transport/outbox` picks the channel and encodes the message into the stream's buffer (`wire/stream`), or
//!   drops and counts it. `transport/writer` is the body with which `server/stream` answered the peer: it hands the buffer
//!   to the HTTP connection that polls it, with link heartbeats in between. Without a stream, `transport/pipeline` posts
//!   the message through `dial/client`.
//! - *A message in*: `transport/reader` dials through `dial/client`, decodes (`wire/stream`) and puts batches into
//!   `transport/inbox`; `transport/drain` hands them to [`Raft::process`]. For a POST, `server/guard` checks the request
//!   and finds the sender, `server/pipeline` reads the body into the same inbox, and the answer waits for the application.
//!   For a snapshot, `server/snapshot` first reads only the envelope and asks [`Raft::judge_snapshot`] whether it wants the
//!   body.
//! - *A probe to a metric*: `transport/prober` asks by `transport/probe`, which knows no peer (`watch` uses it too), on a
//!   connection of `dial/client`. It records the result in the peer's `Link`. [`Transport::status`] reads all of a peer at
//!   once, `metrics` gives the numbers their names, and `admin` serves them.
//!
//! # Modules, in reading order
//!
//! [`wire`] bytes to messages, without I/O · [`id`] the IDs of members and clusters · `ledger` the counts · `dial`
//! connections to peers · `transport` peers and their tasks · [`server`] the answers of a member · `watch` members seen
//! from outside · [`tls`] certificates · [`metrics`] the names of the counts · [`telemetry`] traces and logs ·
//! [`admin`] the admin listener: metrics, page, health · `raft_rs` etcd's messages and raft-rs's · `node` a replicated
//! key-value store on raft-rs, over all of this · `world` the one way to the clock, random numbers, the network, the
//! disk and threads.
//!
//! # Features
//!
//! | feature | default | adds |
//! |---|---|---|
//! | `raft-rs` | yes | `raft_rs`: the conversions between etcd's messages and raft-rs's |
//! | `node` | yes | `node`: a member of a replicated key-value store, with its store on disk; takes `raft-rs` in |
//! | `otlp` | yes | the exporter of traces by OTLP |
//! | `cli` | yes | the binary; takes `node` and `otlp` in |
//!
//! # Compatibility
//!
//! Versions follow [Semantic Versioning](https://semver.org/). Enums of reasons, errors and events, and structs of status
//! that only this crate makes, are `#[non_exhaustive]`: a match needs an arm for later variants. Arrays such as
//! `DropReason::ALL` may grow. Configs (`Limits`, `TlsConfig`, `WatchConfig` and the like) grow too, so construct them with
//! `..Default::default()`. The module `internals` is exempt from this: it is hidden, and only the tests of this repository
//! use it.

#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod admin;
mod dial;
pub mod id;
#[doc(hidden)]
pub mod internals;
mod ledger;
pub mod metrics;
#[cfg(feature = "node")]
pub mod node;
#[cfg(feature = "raft-rs")]
pub mod raft_rs;
pub mod server;
pub mod telemetry;
pub mod tls;
mod transport;
mod watch;
pub mod wire;
#[cfg_attr(not(feature = "node"), allow(dead_code, unused_imports, reason = "a node asks more of it than a transport"))]
mod world;

pub use dial::{
    identity::Identity,
    urls::{PeerUrl, PeerUrlError},
};
pub use id::{ClusterId, DirectoryId, Impostor, Incarnation, MemberId};
pub use server::{ConnectionLimits, Server, router, serve};
pub use tls::{Tls, TlsClientConfig, TlsConfig, TlsError};
pub use transport::{
    Builder, Transport, TransportError,
    incarnation::{PeerIncarnation, Refused},
    limits::Limits,
    raft::{
        Critical, Judgement, Member, Members, Raft, Rejected, Rejection, RejectionKind, SnapshotStatus, Source, Unheard,
    },
    snapshot::{SnapshotBody, store::SnapshotStore},
    status::{PeerRole, PeerStatus, TransportStatus, Watched},
};
pub use watch::{Survey, SurveyRow, Watch, WatchConfig, survey};

/// The README's examples, compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
