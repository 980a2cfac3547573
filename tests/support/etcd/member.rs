//! One member: its place, its ports, and the process while it runs.

use std::{
    fs::OpenOptions,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rafthttp::MemberId;

use super::{Files, Security, log::Line};
use crate::support::ports::free_port;

/// How long a member may take to end in good order.
const GRACE: Duration = Duration::from_secs(10);

/// An etcd member on loopback.
pub struct Member {
    pub name: String,
    /// Known once the cluster has started.
    pub id: MemberId,
    /// Where its peers reach it.
    pub peer_url: String,
    /// Where its clients reach it; serves `/health` too.
    pub client_url: String,
    /// Where its `/metrics` are.
    pub metrics_url: String,
    directory: PathBuf,
    command: Option<(PathBuf, Vec<String>)>,
    /// Its certificate, where members speak TLS.
    files: Option<Files>,
    child: Option<Child>,
}

impl Member {
    pub(super) fn place(name: String, within: &Path, security: Security) -> Self {
        let at = |scheme: &str| format!("{scheme}://127.0.0.1:{}", free_port());
        Self {
            directory: within.join(&name),
            name,
            id: MemberId::default(),
            peer_url: at(security.scheme()),
            client_url: at("http"),
            metrics_url: at("http"),
            command: None,
            files: None,
            child: None,
        }
    }

    pub(super) fn flags(&self, initial: &str, state: &str) -> Vec<String> {
        let data = self.directory.with_extension("data");
        let flags = [
            ("name", self.name.as_str()),
            ("data-dir", &data.to_string_lossy()),
            ("listen-peer-urls", &self.peer_url),
            ("initial-advertise-peer-urls", &self.peer_url),
            ("listen-client-urls", &self.client_url),
            ("advertise-client-urls", &self.client_url),
            ("listen-metrics-urls", &self.metrics_url),
            ("initial-cluster", initial),
            ("initial-cluster-state", state),
            ("logger", "zap"),
            ("log-outputs", "stderr"),
        ]
        .map(|(flag, value)| format!("--{flag}={value}"));
        flags.to_vec()
    }

    pub(super) fn prepare(
        &mut self,
        server: &Path,
        mut flags: Vec<String>,
        security: Security,
        issue: impl Fn() -> Files,
    ) {
        if security == Security::Mtls {
            let files = self.files.insert(issue());
            let pairs = [("cert-file", "cert.pem"), ("key-file", "key.pem"), ("trusted-ca-file", "ca.pem")];
            flags.extend(pairs.map(|(flag, name)| format!("--peer-{flag}={}", files.path(name).display())));
            flags.push("--peer-client-cert-auth".to_owned());
        }
        self.command = Some((server.to_owned(), flags));
    }

    /// Starts it, for the first time or again. It has not said that it is healthy.
    pub fn restart(&mut self) {
        assert!(self.child.is_none(), "{} runs", self.name);
        let (server, flags) = self.command.as_ref().expect("it was prepared");
        let log = OpenOptions::new().create(true).append(true).open(self.log_path()).expect("the directory is ours");
        let mut command = Command::new(server);
        command.args(flags).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.child = Some(command.spawn().expect("it is there"));
    }

    /// `kill -9`, frozen or not.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("it is ours");
            child.wait().expect("it was killed");
        }
    }

    /// SIGTERM, and `kill -9` if that takes too long.
    pub fn stop(&mut self) {
        let Some(child) = &mut self.child else { return };
        signal(child.id(), "TERM");
        let end = Instant::now() + GRACE;
        while Instant::now() < end && child.try_wait().expect("it is ours").is_none() {
            std::thread::sleep(Duration::from_millis(20));
        }
        self.kill();
    }

    /// SIGSTOP: its connections stay, and nothing comes of them.
    pub fn freeze(&self) {
        signal(self.pid().expect("it runs"), "STOP");
    }

    /// Ends what [`Self::freeze`] began.
    pub fn thaw(&self) {
        signal(self.pid().expect("it runs"), "CONT");
    }

    /// Whether it was started and not ended by us.
    pub fn runs(&self) -> bool {
        self.child.is_some()
    }

    /// Whether its process has ended without being told to.
    pub fn has_ended(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| child.try_wait().expect("it is ours").is_some())
    }

    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// All that it has logged, since its first start.
    pub fn log(&self) -> String {
        std::fs::read(self.log_path()).map(|log| String::from_utf8_lossy(&log).into_owned()).unwrap_or_default()
    }

    /// The same, line by line.
    pub fn lines(&self) -> Vec<Line> {
        self.log().lines().map(Line::parse).collect()
    }

    fn log_path(&self) -> PathBuf {
        self.directory.with_extension("log")
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.kill();
    }
}

/// `kill -NAME`. The shell's own, so that there is one on every machine.
pub fn signal(pid: u32, name: &str) {
    let status = Command::new("sh").args(["-c", &format!("kill -{name} {pid}")]).status().expect("there is a shell");
    assert!(status.success(), "kill -{name} {pid}");
}
