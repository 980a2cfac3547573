//! What a run of the tests is to cover, and how it says what it could not.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::io::Write;

/// Names what this machine cannot run, and why: `what: why`. Past the capture of a test's output, so that it is seen.
pub fn not_run(what: &str) {
    let _ = std::io::stderr().write_all(format!("not run: {what}\n").as_bytes());
}

/// Whether this is the run of everything: `RAFTHTTP_TEST_TIER` is `all`.
pub fn tier_is_all() -> bool {
    std::env::var_os("RAFTHTTP_TEST_TIER").is_some_and(|tier| tier == "all")
}
