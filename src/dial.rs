//! Dialling: from a peer's URL to a connection that carries requests. The module knows no peer, because the transport,
//! the server, the watch and a joining node all use it.
//!
//! `urls` peer URLs · `resolver` names to addresses · `io` the socket, its deadline and how it ended · `client` dials
//! and posts · `connection` a dialled connection · `pool` connections that wait for the next POST · `post` one exchange
//! · `failure` why a dial or a POST failed · `identity` the headers that say who asks.

pub(crate) mod client;
pub(crate) mod connection;
pub(crate) mod failure;
pub(crate) mod identity;
pub(crate) mod io;
pub(crate) mod pool;
pub(crate) mod post;
pub(crate) mod resolver;
pub(crate) mod urls;
