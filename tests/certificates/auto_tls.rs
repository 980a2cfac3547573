//! etcd with certificates that it makes itself: P-521, `CA:TRUE`, for servers alone, and one for each member, so that
//! nobody can verify them.

use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use crate::{
    binary::rafthttp,
    ends::Process,
    support::{ports::free_port, program},
};

#[test]
fn a_member_with_peer_auto_tls_is_reached_by_the_probe_that_verifies_nobody() {
    let Some(etcd) = program("etcd --peer-auto-tls", "etcd", &["3.6"]) else { return };
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (peers, clients) = (format!("https://127.0.0.1:{}", free_port()), format!("http://127.0.0.1:{}", free_port()));
    let mut command = Command::new(etcd);
    command.args(["--name", "auto", "--peer-auto-tls", "--unsafe-no-fsync"]).arg("--data-dir").arg(directory.path());
    command.args(["--listen-peer-urls", &peers, "--initial-advertise-peer-urls", &peers]);
    command.args(["--initial-cluster", &format!("auto={peers}")]);
    command.args(["--listen-client-urls", &clients, "--advertise-client-urls", &clients]);
    let _etcd =
        Process(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts"));
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        let output =
            rafthttp().args(["probe", "--once", "--insecure-skip-tls-verify", &peers]).output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stdout);
        if output.status.success() {
            let row = said.lines().find(|line| line.contains(&peers)).unwrap_or_default();
            assert!(row.contains("auto") && row.contains("3.6"), "{said}");
            return;
        }
        // It may not have started yet.
        let why = String::from_utf8_lossy(&output.stderr);
        assert!(Instant::now() < end, "{said}{why}");
        std::thread::sleep(Duration::from_millis(100));
    }
}
