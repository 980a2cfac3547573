//! Ports for processes that cannot be handed a bound listener.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::{
    collections::BTreeSet,
    net::TcpListener,
    sync::{Mutex, PoisonError},
};

use rand::RngExt as _;

/// A port that nobody listens on, that this process has not given away before, and that no connection going out takes
/// before it is used: Linux takes those from 32768 on, so that one which the system gave for port 0 may be gone again
/// when the process starts.
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
