//! The binary under test.

use std::process::Command;

/// The binary, told nothing: what the tests themselves are told (`RAFTHTTP_TEST_TIER`, `RAFTHTTP_BIN` and the like) is
/// no flag of it, and it warns of a variable that is none.
pub fn rafthttp() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rafthttp"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("RAFTHTTP_")) {
        command.env_remove(name);
    }
    command
}
