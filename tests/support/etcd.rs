//! Clusters of real etcd members, of every version, on loopback.
//!
//! ```ignore
//! let Some(mut cluster) = Cluster::start("3.6", 3, Security::Mtls).await else { return }; // named as not run
//! let leader = cluster.leader().await;
//! cluster.members[leader].kill();
//! cluster.members[leader].restart();
//! cluster.healthy().await;
//! cluster.etcdctl(&["put", "key", "value"]);
//! assert_eq!(cluster.members[leader].lines().iter().filter(|line| line.level == "error").count(), 0);
//! ```
//! What it started ends with it.

#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(clippy::panic, reason = "a cluster that does not start ends the test")]

use std::{
    path::PathBuf,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use rafthttp::{ClusterId, MemberId, PeerUrl, TlsConfig, wire::version::Version};
use tempfile::TempDir;

use super::{
    certificates::{Authority, Files, Issued, Leaf},
    program,
};

mod http;
mod log;
mod member;

#[allow(unused_imports, reason = "each test binary uses its part")]
pub use self::{
    http::get,
    log::Line,
    member::{Member, signal},
};

/// The versions that the transport speaks to, as `tests/tools/etcd` takes them.
pub const VERSIONS: [&str; 4] = ["3.4", "3.5", "3.6", "3.7"];

/// Longer than a member may take to start or to find its leader, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// How members speak to each other. Their clients always speak plain HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    Plain,
    /// TLS with client certificates, all from one authority.
    Mtls,
}

/// A cluster of etcd members.
pub struct Cluster {
    /// Its version, with its patch.
    pub version: Version,
    pub id: ClusterId,
    pub members: Vec<Member>,
    security: Security,
    authority: Authority,
    etcdctl: PathBuf,
    _directory: TempDir,
}

/// A member that `etcdctl` has added and nobody has started.
pub struct Added {
    pub id: MemberId,
    pub url: String,
}

impl Cluster {
    /// Members of a version, healthy. Where that version cannot be had: none, and named as not run.
    pub async fn start(version: &str, size: usize, security: Security) -> Option<Self> {
        Self::start_with(version, size, security, |_| Vec::new()).await
    }

    /// The same, with the flags that this says for the version with its patch.
    pub async fn start_with(
        version: &str,
        size: usize,
        security: Security,
        flags: impl Fn(Version) -> Vec<&'static str>,
    ) -> Option<Self> {
        let what = format!("etcd {version}");
        let (server, etcdctl) =
            (program(&what, "etcd", &[version])?, program(&what, "etcdctl", &[etcdctl_for(version)])?);
        let directory = tempfile::tempdir().expect("a directory");
        let authority = Authority::new("etcd's peers");
        let version = version_of(&server);
        let mut members: Vec<Member> =
            (1..=size).map(|number| Member::place(format!("etcd-{number}"), directory.path(), security)).collect();
        let initial: Vec<String> =
            members.iter().map(|member| format!("{}={}", member.name, member.peer_url)).collect();
        for member in &mut members {
            let mut arguments = member.flags(&initial.join(","), "new");
            arguments.extend(tuning(version));
            arguments.extend(flags(version).iter().map(ToString::to_string));
            member.prepare(&server, arguments, security, || issue(&authority));
            member.restart();
        }
        let mut cluster =
            Self { version, id: ClusterId::default(), members, security, authority, etcdctl, _directory: directory };
        cluster.healthy().await;
        cluster.identify().await;
        Some(cluster)
    }

    /// Waits until every member that runs says that it is healthy, which takes a leader.
    pub async fn healthy(&self) {
        for member in self.members.iter().filter(|member| member.runs()) {
            let what = format!("{} is healthy", member.name);
            until(
                &what,
                || member.log(),
                async || {
                    get(&member.client_url, "/health").await.is_ok_and(|(_, body)| body.contains(r#""health":"true""#))
                },
            )
            .await;
        }
    }

    /// Which member leads, as a member that runs says.
    pub async fn leader(&self) -> usize {
        let end = Instant::now() + PATIENCE;
        loop {
            for (index, member) in self.members.iter().enumerate().filter(|(_, member)| member.runs()) {
                if let Some(status) = self.endpoint_status(member)
                    && status["leader"].as_u64() == Some(member.id.0)
                {
                    return index;
                }
            }
            assert!(Instant::now() < end, "no leader within {PATIENCE:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Runs etcdctl against every member that runs; panics unless it succeeds. Blocks.
    pub fn etcdctl(&self, arguments: &[&str]) -> String {
        self.try_etcdctl(arguments).unwrap_or_else(|said| panic!("etcdctl {arguments:?}: {said}"))
    }

    /// The same, with what it said when it failed.
    pub fn try_etcdctl(&self, arguments: &[&str]) -> Result<String, String> {
        let running: Vec<&str> =
            self.members.iter().filter(|member| member.runs()).map(|member| member.client_url.as_str()).collect();
        let output = self.etcdctl_command(&running.join(",")).args(arguments).output().expect("it is there");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() { Ok(text) } else { Err(text + &String::from_utf8_lossy(&output.stderr)) }
    }

    /// etcdctl, to be started, against these endpoints.
    pub fn etcdctl_command(&self, endpoints: &str) -> Command {
        let mut command = Command::new(&self.etcdctl);
        command.env("ETCDCTL_API", "3").args(["--endpoints", endpoints]).stdin(Stdio::null());
        command
    }

    /// Adds a learner at this URL: `etcdctl member add --learner`, again while etcd wants its members connected first.
    pub async fn add_learner(&self, name: &str, url: &str) -> Added {
        let end = Instant::now() + PATIENCE;
        loop {
            let asked = ["member", "add", name, "--learner", "--peer-urls", url, "-w", "json"];
            match self.try_etcdctl(&asked) {
                Ok(answer) => {
                    let answer: serde_json::Value = serde_json::from_str(&answer).expect("JSON");
                    let id = answer["member"]["ID"].as_u64().expect("the ID of who was added");
                    return Added { id: MemberId(id), url: url.to_owned() };
                }
                Err(said) => assert!(Instant::now() < end, "no learner within {PATIENCE:?}: {said}"),
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    }

    /// Removes a member: `etcdctl member remove`.
    pub fn remove(&self, id: MemberId) {
        self.etcdctl(&["member", "remove", &id.to_string()]);
    }

    /// Every member, for [`rafthttp::Transport::add_peer`].
    pub fn peers(&self) -> Vec<(MemberId, Vec<PeerUrl>)> {
        let url = |member: &Member| member.peer_url.parse().expect("a peer URL");
        self.members.iter().map(|member| (member.id, vec![url(member)])).collect()
    }

    /// The scheme of peer URLs.
    pub fn scheme(&self) -> &'static str {
        self.security.scheme()
    }

    /// Certificate, key and authority of one more member; none where members speak plain HTTP.
    pub fn certificate(&self) -> Option<Files> {
        (self.security == Security::Mtls).then(|| issue(&self.authority))
    }

    /// A certificate with these alternative names, its key and the authority.
    pub fn certificate_of(&self, names: Vec<&'static str>) -> Files {
        Files::new(&self.issue_of(names), &self.authority.pem)
    }

    /// A certificate with these alternative names, and its key.
    pub fn issue_of(&self, names: Vec<&'static str>) -> Issued {
        self.authority.issue(Leaf { names, ..Leaf::default() })
    }

    /// The same, as a member of ours takes it. The files go with what is returned.
    pub fn tls(&self) -> Option<(Files, TlsConfig)> {
        let files = self.certificate()?;
        let config = files.config();
        Some((files, config))
    }

    /// What a member answers to `endpoint status`.
    pub fn endpoint_status(&self, member: &Member) -> Option<serde_json::Value> {
        let mut command = self.etcdctl_command(&member.client_url);
        let output = command.args(["endpoint", "status", "-w", "json"]).output().expect("it is there");
        let mut answer: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
        answer.get_mut(0).map(|first| first["Status"].take())
    }

    async fn identify(&mut self) {
        let answer: serde_json::Value =
            serde_json::from_str(&self.etcdctl(&["member", "list", "-w", "json"])).expect("JSON");
        self.id = ClusterId(answer["header"]["cluster_id"].as_u64().expect("a cluster ID"));
        for told in answer["members"].as_array().expect("members") {
            let url = told["peerURLs"][0].as_str().expect("a URL");
            let member = self.members.iter_mut().find(|member| member.peer_url == url).expect("one of ours");
            member.id = MemberId(told["ID"].as_u64().expect("an ID"));
        }
    }
}

impl Security {
    fn scheme(self) -> &'static str {
        match self {
            Self::Plain => "http",
            Self::Mtls => "https",
        }
    }
}

/// 3.4's speaks to every version, and there is one without Go; the later ones' own is closer to what is in use.
fn etcdctl_for(version: &str) -> &'static str {
    let go = || Command::new("go").arg("version").output().is_ok_and(|output| output.status.success());
    if version.starts_with("3.4") || !go() { "3.4" } else { "3.6" }
}

fn version_of(server: &PathBuf) -> Version {
    let output = Command::new(server).arg("--version").output().expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout);
    let told = text.lines().find_map(|line| line.strip_prefix("etcd Version: "));
    told.and_then(|version| version.trim().parse().ok()).unwrap_or_else(|| panic!("no version: {text}"))
}

/// Nothing here survives a crash of the machine, and the disk is shared. 3.4 knows no such flag.
fn tuning(version: Version) -> Vec<String> {
    if (version.major, version.minor) >= (3, 5) { vec!["--unsafe-no-fsync".to_owned()] } else { Vec::new() }
}

fn issue(authority: &Authority) -> Files {
    Files::new(&authority.issue(Leaf::default()), &authority.pem)
}

/// Waits until something is so; panics with `said` if it is not in time.
async fn until(what: &str, said: impl Fn() -> String, holds: impl AsyncFn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < end, "not within {PATIENCE:?}: {what}\n{}", said());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
