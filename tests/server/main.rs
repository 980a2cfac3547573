//! The server side over real sockets: raw requests against a member on loopback.

mod answers;
mod bounds;
mod member;
mod tls;
