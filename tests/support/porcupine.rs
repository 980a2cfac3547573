//! The linearizability checker: porcupine, a Go program.

use std::{
    io::Write,
    path::PathBuf,
    process::{Command, Stdio},
};

use serde::Serialize;

/// One operation of a client, as the checker reads it.
#[derive(Clone, Debug, Serialize)]
pub struct Operation {
    /// `put`, `delete` or `get`.
    pub op: &'static str,
    pub key: String,
    pub value: Option<String>,
    /// When it was called. The unit is the history's own: only the order counts.
    pub call: u64,
    /// When it ended. `None`: it may take effect at any time, or never.
    #[serde(rename = "return")]
    pub end: Option<u64>,
}

/// The checker's judgement of a history.
#[derive(Debug, PartialEq, Eq)]
pub enum Judgement {
    /// There is no Go on this machine, and so no checker.
    NoChecker,
    /// The history of each key is linearizable. The text says how many operations there were.
    Linearizable(String),
    /// The history of a key is not linearizable: the first such key.
    Violated(String),
    /// The checker could not decide, for this reason.
    Unknown(String),
}

/// Asks whether the history of each key is linearizable.
pub fn judge(operations: &[Operation]) -> Judgement {
    let Some(checker) = build() else { return Judgement::NoChecker };
    let mut command = Command::new(checker);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("it was built");
    let mut input = child.stdin.take().expect("piped");
    for operation in operations {
        writeln!(input, "{}", serde_json::to_string(operation).expect("plain fields")).expect("it reads");
    }
    drop(input);
    let output = child.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    match output.status.code() {
        Some(0) => Judgement::Linearizable(said),
        Some(1) => Judgement::Violated(said),
        _ => Judgement::Unknown(format!("{}: {said}{}", output.status, String::from_utf8_lossy(&output.stderr))),
    }
}

fn build() -> Option<PathBuf> {
    Command::new("go").arg("version").stdout(Stdio::null()).status().ok().filter(|status| status.success())?;
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/linearizability");
    let checker = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("linearizability");
    let built =
        Command::new("go").current_dir(source).args(["build", "-mod=readonly", "-o"]).arg(&checker).arg(".").status();
    assert!(built.is_ok_and(|status| status.success()), "there is Go, and the checker does not build");
    Some(checker)
}
