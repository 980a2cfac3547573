//! The binary under test.

use std::process::Command;

/// The binary, without the variables of the tests themselves (`RAFTHTTP_TEST_TIER`, `RAFTHTTP_BIN` and the like): they
/// are not flags, and the binary warns of variables that are not.
pub fn rafthttp() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rafthttp"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("RAFTHTTP_")) {
        command.env_remove(name);
    }
    command
}
