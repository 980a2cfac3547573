//! Free ports for programs that want to be told one.

use std::{collections::HashSet, net::TcpListener, sync::Mutex};

/// Below the range that the kernel takes source ports from, so that nobody's connection sits on a port between our
/// finding and its use.
const PORTS: std::ops::Range<u16> = 10_000..32_000;

/// A port that nobody has and that this process has not given away before.
pub fn free_port() -> u16 {
    static GIVEN: Mutex<Option<HashSet<u16>>> = Mutex::new(None);
    let mut given = GIVEN.lock().expect("nobody panics while it holds this");
    let given = given.get_or_insert_default();
    loop {
        let port = rand::random_range(PORTS);
        if !given.contains(&port) && TcpListener::bind(("127.0.0.1", port)).is_ok() {
            given.insert(port);
            return port;
        }
    }
}
