//! Members as processes, and what is done to them.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use http::{Method, StatusCode};
use tempfile::TempDir;

use crate::{http_client::HttpClient, ports::free_url};

#[path = "../support/binary.rs"]
mod binary;
#[path = "../support/memory.rs"]
mod memory;
pub(crate) use binary::rafthttp;

/// A member: its place, its ports, and the process while it runs.
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) directory: PathBuf,
    pub(crate) peer: String,
    pub(crate) client: String,
    pub(crate) metrics: String,
    pub(crate) extra: Vec<String>,
    pub(crate) state: &'static str,
    /// Its directory is a file system of this many bytes, which is gone when the process is.
    pub(crate) room: Option<u64>,
    /// Where it listens for peers, where that is not what it tells them.
    pub(crate) listen: Option<String>,
    /// The process in whose mount namespace it runs.
    pub(crate) namespace: Option<u32>,
    /// The mask that it is started with, where it is not this process's.
    pub(crate) mask: Option<&'static str>,
    child: Option<Child>,
    starts: u32,
}

/// The binary, which is about to be told more, in a namespace where the directory is a file system of this size.
fn in_a_room_of(bytes: u64, directory: &Path) -> Command {
    const MOUNT: &str = r#"mount -t tmpfs -o "size=$1" none "$2" && shift 2 && exec "$@""#;
    std::fs::create_dir_all(directory).expect("a directory");
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", MOUNT, "sh", &bytes.to_string()]).arg(directory);
    about_to_run_the_binary(command)
}

/// A program that runs the one that it is given.
fn about_to_run_the_binary(mut command: Command) -> Command {
    let binary = rafthttp();
    command.arg(binary.get_program());
    for (name, _) in binary.get_envs().filter(|(_, value)| value.is_none()) {
        command.env_remove(name);
    }
    command
}

/// The binary, which is about to be told more, started by a line of a shell.
fn by_shell(line: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", line, "sh"]);
    about_to_run_the_binary(command)
}

/// Why no file system can be mounted here.
pub(crate) fn cannot_mount() -> Option<String> {
    let tried = Command::new("unshare").args(["--mount", "mount", "-t", "tmpfs", "none", "/mnt"]).output();
    match tried {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(error) => Some(format!("unshare: {error}")),
    }
}

/// Copies a directory, such as a member's disk.
#[allow(dead_code, reason = "each test binary uses its part")]
pub(crate) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory");
    for entry in std::fs::read_dir(from).expect("it is there") {
        let entry = entry.expect("it is there");
        let to = to.join(entry.file_name());
        if entry.file_type().expect("it has one").is_dir() {
            copy(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).expect("room");
        }
    }
}

/// A cluster of processes.
pub(crate) struct Cluster {
    pub(crate) members: Vec<Member>,
    pub(crate) http: HttpClient,
    directory: TempDir,
    others: Vec<String>,
}

impl Cluster {
    /// Members that know each other and do not run yet.
    pub(crate) fn new(size: usize, extra: &[&str]) -> Self {
        let mut cluster = Self {
            members: Vec::new(),
            http: HttpClient::new(),
            directory: tempfile::tempdir().expect("a directory"),
            others: Vec::new(),
        };
        for _ in 0..size {
            cluster.place(extra);
        }
        cluster
    }

    /// A place for one more member.
    pub(crate) fn place(&mut self, extra: &[&str]) -> usize {
        let name = format!("n{}", self.members.len() + 1);
        self.members.push(Member {
            directory: self.directory.path().join(&name),
            peer: free_url(),
            client: free_url(),
            metrics: free_url(),
            extra: extra.iter().map(|flag| (*flag).to_owned()).collect(),
            state: "new",
            room: None,
            listen: None,
            namespace: None,
            mask: None,
            child: None,
            starts: 0,
            name,
        });
        self.know_each_other();
        self.members.len() - 1
    }

    /// The members start with the peer URLs that they have now.
    pub(crate) fn know_each_other(&mut self) {
        self.others = self.members.iter().map(|member| format!("{}={}", member.name, member.peer)).collect();
    }

    pub(crate) fn start(&mut self, member: usize) {
        let cluster = self.others.join(",");
        let member = &mut self.members[member];
        member.starts += 1;
        let log = member.directory.with_extension(format!("{}.log", member.starts));
        let mut command = match (member.room, member.namespace) {
            (None, None) => match member.mask {
                Some(mask) => by_shell(&format!("umask {mask} && exec \"$@\"")),
                None => rafthttp(),
            },
            (None, Some(process)) => {
                let mut command = Command::new("nsenter");
                command.arg(format!("--mount=/proc/{process}/ns/mnt"));
                about_to_run_the_binary(command)
            }
            (Some(room), _) => in_a_room_of(room, &member.directory),
        };
        command.args(["--log-format", "json", "node", "--name", &member.name, "--data-dir"]).arg(&member.directory);
        let listen = member.listen.as_ref().unwrap_or(&member.peer);
        command.args(["--listen-peer-urls", listen, "--initial-advertise-peer-urls", &member.peer]);
        command.args(["--listen-client-urls", &member.client, "--advertise-client-urls", &member.client]);
        command.args(["--listen-metrics-urls", &member.metrics, "--initial-cluster", &cluster]);
        command.args(["--initial-cluster-token", "test", "--initial-cluster-state", member.state]);
        command.args(&member.extra).stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(File::create(log).expect("a file"));
        member.child = Some(command.spawn().expect("the binary was built"));
    }

    pub(crate) fn start_all(&mut self) {
        (0..self.members.len()).for_each(|member| self.start(member));
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self, member: usize) {
        if let Some(mut child) = self.members[member].child.take() {
            child.kill().expect("it is ours");
            child.wait().expect("it was killed");
        }
    }

    /// Sends it a signal.
    #[allow(dead_code, reason = "each test binary uses its part")]
    pub(crate) fn signal(&self, member: usize, signal: rustix::process::Signal) {
        let child = self.members[member].child.as_ref().expect("it runs");
        rustix::process::kill_process(rustix::process::Pid::from_child(child), signal).expect("it is ours");
    }

    /// Bytes of its memory that are resident, and the most that ever were.
    #[allow(dead_code, reason = "each test binary uses its part")]
    pub(crate) fn resident(&self, member: usize) -> (u64, u64) {
        memory::resident(&self.members[member].child.as_ref().expect("it runs").id().to_string())
    }

    /// The ID of its process.
    #[allow(dead_code, reason = "each test binary uses its part")]
    pub(crate) fn process(&self, member: usize) -> u32 {
        self.members[member].child.as_ref().expect("it runs").id()
    }

    pub(crate) fn runs(&self, member: usize) -> bool {
        self.members[member].child.is_some()
    }

    /// Where the process has its directory, as it sees it.
    pub(crate) fn inside(&self, member: usize) -> PathBuf {
        let member = &self.members[member];
        let process = member.child.as_ref().expect("it runs").id();
        let directory = member.directory.strip_prefix("/").expect("an absolute path");
        Path::new("/proc").join(process.to_string()).join("root").join(directory)
    }

    /// Waits until a process has ended by itself.
    pub(crate) async fn exit(&mut self, member: usize, patience: Duration) -> ExitStatus {
        let end = Instant::now() + patience;
        loop {
            let child = self.members[member].child.as_mut().expect("it was started");
            if let Some(status) = child.try_wait().expect("it is ours") {
                self.members[member].child = None;
                return status;
            }
            assert!(Instant::now() < end, "{} does not end:\n{}", self.members[member].name, self.log(member));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// What its last start said.
    pub(crate) fn log(&self, member: usize) -> String {
        let member = &self.members[member];
        let path = member.directory.with_extension(format!("{}.log", member.starts));
        std::fs::read_to_string(path).unwrap_or_default()
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Asks a member, and gives up after a while.
    pub(crate) async fn ask(
        &self,
        member: usize,
        method: Method,
        path: &str,
        body: &str,
    ) -> Option<(StatusCode, String)> {
        self.http.ask(method, format!("{}{path}", self.members[member].client), body.to_owned()).await
    }

    pub(crate) async fn status(&self, member: usize) -> Option<serde_json::Value> {
        let (status, body) = self.ask(member, Method::GET, "/status", "").await?;
        (status == StatusCode::OK).then(|| serde_json::from_str(&body).expect("JSON"))
    }

    /// The leader, as the leader itself says.
    pub(crate) async fn leader(&self) -> usize {
        self.until("a leader", Duration::from_secs(20), async |cluster: &Self| {
            for member in 0..cluster.members.len() {
                if cluster.runs(member) && cluster.status(member).await.is_some_and(|status| status["role"] == "leader")
                {
                    return Some(member);
                }
            }
            None
        })
        .await
    }

    /// Writes through a member, again and again while it is certainly not written, until it is.
    pub(crate) async fn put(&self, member: usize, key: &str, value: &str) {
        let path = format!("/kv/{key}");
        self.until("a write", Duration::from_secs(20), async |cluster: &Self| {
            let answer = cluster.ask(member, Method::PUT, &path, value).await;
            (answer?.0 == StatusCode::NO_CONTENT).then_some(())
        })
        .await;
    }

    /// The value that a member itself has.
    pub(crate) async fn local(&self, member: usize, key: &str) -> Option<String> {
        let (status, body) = self.ask(member, Method::GET, &format!("/kv/{key}?consistency=local"), "").await?;
        (status == StatusCode::OK).then_some(body)
    }

    /// Waits until every running member has applied as much as the leader has committed.
    pub(crate) async fn caught_up(&self) {
        let leader = self.leader().await;
        let commit = self.status(leader).await.expect("it leads")["commit"].as_u64().expect("a number");
        for member in (0..self.members.len()).filter(|member| self.runs(*member)) {
            self.until("a member that catches up", Duration::from_secs(30), async |cluster: &Self| {
                let applied = cluster.status(member).await?["applied"].as_u64()?;
                (applied >= commit).then_some(())
            })
            .await;
        }
    }

    /// Tries until something is found.
    pub(crate) async fn until<T>(&self, what: &str, patience: Duration, found: impl AsyncFn(&Self) -> Option<T>) -> T {
        let end = Instant::now() + patience;
        loop {
            if let Some(found) = found(self).await {
                return found;
            }
            let logs = || (0..self.members.len()).map(|member| self.log(member)).collect::<Vec<_>>().join("\n\n");
            assert!(Instant::now() <= end, "{what}: not within {patience:?}\n{}", logs());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        (0..self.members.len()).for_each(|member| self.kill(member));
    }
}
