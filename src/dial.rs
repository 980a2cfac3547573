//! Dialling: from a peer's URL to a connection that requests go over. It knows no peer, so that the transport, the
//! server, the watch and a node that joins all stand on it.
//!
//! `urls` where · `resolver` names to addresses · `io` the socket, its deadline and how it ended · `client` dials and
//! posts · `connection` what was dialled · `pool` connections that wait for the next POST · `post` one exchange ·
//! `failure` why not · `identity` who asks.

pub(crate) mod client;
pub(crate) mod connection;
pub(crate) mod failure;
pub(crate) mod identity;
pub(crate) mod io;
pub(crate) mod pool;
pub(crate) mod post;
pub(crate) mod resolver;
pub(crate) mod urls;
