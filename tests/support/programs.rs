//! The programs of others that tests run against: `tests/tools/NAME` obtains each, once for a machine.

#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(clippy::panic, reason = "a script that fails without saying why ends the test")]

use std::{
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::not_run;

/// The path of the program that `tests/tools/NAME ARGUMENTS` obtains. Building it may take a minute, the first time. If
/// it cannot be obtained, the result is `None`, and `what` is reported as not run.
pub fn program(what: &str, name: &str, arguments: &[&str]) -> Option<PathBuf> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tools").join(name);
    let mut command = Command::new(&script);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{}: {error}", script.display()));

    // What the script says is passed on as it comes, past the capture of a test's output: a build is not a hang.
    let mut said = String::new();
    for line in BufReader::new(child.stderr.take().expect("piped")).lines().map_while(Result::ok) {
        let _ = std::io::stderr().write_all(format!("{line}\n").as_bytes());
        said = line;
    }
    let output = child.wait_with_output().unwrap_or_else(|error| panic!("{}: {error}", script.display()));
    match output.status.code() {
        Some(0) => Some(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim())),
        Some(3) => {
            not_run(&format!("{what}: {said}"));
            None
        }
        _ => panic!("{} {arguments:?}: {}: {said}", script.display(), output.status),
    }
}
