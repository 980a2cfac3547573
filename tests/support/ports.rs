//! Ports for processes that cannot be handed a bound listener.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::{
    collections::BTreeSet,
    net::TcpListener,
    sync::{Mutex, PoisonError},
};

use rand::RngExt as _;

/// A free port that this process has not given away before. Outgoing connections do not take it either: Linux gives
/// them ports from 32768 on, so a port that the system gave for port 0 may be taken again before a process listens on
/// it.
pub fn free_port() -> u16 {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        let port = rand::rng().random_range(10_000..32_000);
        if !given.contains(&port) && TcpListener::bind(("127.0.0.1", port)).is_ok() {
            given.insert(port);
            return port;
        }
    }
}

/// A URL of such a port.
pub fn free_url() -> String {
    format!("http://127.0.0.1:{}", free_port())
}
