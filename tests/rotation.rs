//! Certificates and CAs are renewed, revoked and expire under a running cluster and its load: the links that stood on
//! what is gone are closed and come back, all others stay, nobody is restarted, and no acknowledged write is lost.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use http::{Method, StatusCode};
use rafthttp::TlsConfig;
use tokio::task::JoinHandle;

#[path = "support/certificates.rs"]
mod certificates;
#[path = "cluster/http_client.rs"]
mod http_client;
#[path = "cluster/ledger.rs"]
mod ledger;
#[path = "support/ports.rs"]
mod ports;
#[allow(dead_code, reason = "each test binary uses its part")]
#[path = "cluster/process.rs"]
mod process;

use certificates::{Authority, Files, Leaf};
use http_client::HttpClient;
use ledger::Scrape;
use process::Cluster;

/// What is promised of closing, and what a busy machine takes beyond it.
const SOON: Duration = Duration::from_secs(20);

/// Three members with mTLS, each with its own files.
struct Members {
    cluster: Cluster,
    files: Vec<Files>,
    ids: Vec<String>,
}

/// Writes that go on all the while.
struct Load {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<Mutex<Vec<String>>>,
    writers: Vec<JoinHandle<()>>,
}

fn leaf(serial: u64) -> Leaf {
    Leaf { serial: Some(serial), ..Leaf::default() }
}

impl Members {
    async fn start(authority: &Authority) -> Self {
        let mut cluster = Cluster::new(3, &[]);
        let files: Vec<Files> =
            (1..=3).map(|serial| Files::new(&authority.issue(leaf(serial)), &authority.pem)).collect();
        for (member, files) in cluster.members.iter_mut().zip(&files) {
            files.write("crl.pem", authority.revoke(&[], 2190).0);
            let path = |name: &str| files.path(name).display().to_string();
            member.peer = member.peer.replace("http:", "https:");
            member.extra = vec![
                format!("--peer-cert-file={}", path("cert.pem")),
                format!("--peer-key-file={}", path("key.pem")),
                format!("--peer-trusted-ca-file={}", path("ca.pem")),
                format!("--peer-crl-file={}", path("crl.pem")),
                "--peer-cert-bind-members".to_owned(),
            ];
        }
        cluster.know_each_other();
        cluster.start_all();
        cluster.put(0, "first", "v").await;
        let mut ids = Vec::new();
        for member in 0..3 {
            let id = cluster.until("its ID", SOON, async |cluster: &Cluster| {
                Some(cluster.status(member).await?["id"].as_str()?.to_owned())
            });
            ids.push(id.await);
        }
        let members = Self { cluster, files, ids };
        members.all_linked().await;
        members
    }

    async fn sum(&self, member: usize, name: &str, labels: &[(&str, &str)]) -> f64 {
        Scrape::of(&self.cluster, member).await.expect("it answers").sum(name, labels)
    }

    /// Streams between two members that this one has lost, for this reason or any.
    async fn lost(&self, member: usize, peer: usize, reason: Option<&str>) -> f64 {
        let mut labels = vec![("peer", self.ids[peer].as_str())];
        labels.extend(reason.map(|reason| ("reason", reason)));
        self.sum(member, "rafthttp_stream_losses_total", &labels).await
    }

    /// Connections that this member has closed for this reason.
    async fn closed(&self, member: usize, reason: &str) -> f64 {
        self.sum(member, "rafthttp_tls_connections_closed_total", &[("reason", reason)]).await
    }

    async fn reloaded(&self, member: usize, times: f64) {
        self.until("it is read again", async || {
            self.sum(member, "rafthttp_tls_reloads_total", &[("result", "ok")]).await >= times
        })
        .await;
    }

    /// Every member has all eight streams of its links.
    async fn all_linked(&self) {
        for member in 0..3 {
            self.until("all streams are open", async || self.sum(member, "rafthttp_stream_up", &[]).await == 8.0).await;
        }
    }

    async fn until(&self, what: &str, holds: impl AsyncFn() -> bool) {
        let begin = Instant::now();
        while !holds().await {
            assert!(begin.elapsed() < SOON, "not within {SOON:?}: {what}\n{}", self.cluster.log(0));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn everywhere(&self, name: &str, text: &str) {
        for files in &self.files {
            files.write(name, text);
        }
    }
}

impl Load {
    fn start(members: &Members) -> Self {
        let (stop, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let writers = members.cluster.members.iter().enumerate().map(|(place, member)| {
            let (stop, acknowledged, url) = (stop.clone(), acknowledged.clone(), member.client.clone());
            tokio::spawn(async move {
                let http = HttpClient::new();
                for number in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let key = format!("w{place}-{number}");
                    let answer = http.ask(Method::PUT, format!("{url}/kv/{key}"), key.clone()).await;
                    if answer.is_some_and(|(status, _)| status == StatusCode::NO_CONTENT) {
                        acknowledged.lock().expect("nobody panicked").push(key);
                    }
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            })
        });
        let writers = writers.collect();
        Self { stop, acknowledged, writers }
    }

    fn acknowledged(&self) -> usize {
        self.acknowledged.lock().expect("nobody panicked").len()
    }

    async fn end(self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        for writer in self.writers {
            writer.await.expect("it does not panic");
        }
        std::mem::take(&mut *self.acknowledged.lock().expect("nobody panicked"))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_change_under_load_and_nothing_acknowledged_is_lost() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let members = Members::start(&old).await;
    let load = Load::start(&members);
    rotate(&members, &old, &new).await;
    revoke(&members, &new, &load).await;
    expire(&members, &new).await;

    let acknowledged = load.end().await;
    assert!(acknowledged.len() > 100, "there was a load: {}", acknowledged.len());
    members.cluster.caught_up().await;
    for member in 0..3 {
        for key in &acknowledged {
            assert_eq!(members.cluster.local(member, key).await.as_ref(), Some(key), "member {member}");
        }
        assert!(members.cluster.runs(member), "it was not restarted");
        assert_eq!(members.sum(member, "rafthttp_identity_mismatches_total", &[]).await, 0.0);
    }
    ledger::assert_laws(&members.cluster).await;
}

/// Old and new CA side by side, new certificates, and the old CA goes: links close with the last step alone.
async fn rotate(members: &Members, old: &Authority, new: &Authority) {
    members.everywhere("ca.pem", &format!("{}{}", old.pem, new.pem));
    for member in 0..3 {
        members.reloaded(member, 1.0).await;
    }
    for (files, serial) in members.files.iter().zip(11..) {
        files.replace(&new.issue(leaf(serial)));
    }
    for member in 0..3 {
        members.reloaded(member, 2.0).await;
        assert_eq!(members.sum(member, "rafthttp_stream_losses_total", &[]).await, 0.0, "nothing closes so far");
    }
    members.everywhere("ca.pem", &new.pem);
    for member in 0..3 {
        members
            .until("what stood on the old CA is closed", async || {
                members.closed(member, "unknown_authority").await > 0.0
            })
            .await;
    }
    members.all_linked().await;
}

/// The third member's certificate is revoked: its links close, the others' stay, and it is back with another.
async fn revoke(members: &Members, authority: &Authority, load: &Load) {
    let between = [members.lost(0, 1, None).await, members.lost(1, 0, None).await];
    let before = [members.lost(0, 2, Some("certificate")).await, members.lost(1, 2, Some("certificate")).await];
    for member in 0..2 {
        members.files[member].write("crl.pem", authority.revoke(&[13], 2190).0);
    }
    for (member, before) in before.into_iter().enumerate() {
        members
            .until("the links with the third are closed", async || {
                members.closed(member, "revoked").await >= 4.0
                    && members.lost(member, 2, Some("certificate")).await > before
            })
            .await;
    }
    let begun = load.acknowledged();
    members.until("the other two go on", async || load.acknowledged() > begun + 20).await;
    assert_eq!([members.lost(0, 1, None).await, members.lost(1, 0, None).await], between, "their link stays");
    members.files[2].replace(&authority.issue(leaf(23)));
    members.all_linked().await;
}

/// The second member's certificate ends: the links that began with it close then, and come back with the next.
async fn expire(members: &Members, authority: &Authority) {
    let ends = SystemTime::now() + Duration::from_secs(20);
    members.files[1].replace(&authority.issue(Leaf { expires: Some(ends), ..leaf(22) }));
    members.reloaded(1, 5.0).await;
    // So that its links are of this one.
    let mut before = [0.0; 3];
    for member in [0, 2] {
        before[member] = members.closed(member, "revoked").await;
        members.files[member].write("crl.pem", authority.revoke(&[12, 13], 2190).0);
    }
    for member in [0, 2] {
        members.until("closed", async || members.closed(member, "revoked").await >= before[member] + 4.0).await;
    }
    members.all_linked().await;
    members.files[1].replace(&authority.issue(leaf(32)));
    tokio::time::sleep(ends.duration_since(SystemTime::now()).expect("this machine is not that slow")).await;
    for member in [0, 2] {
        members.until("closed at its end", async || members.closed(member, "expired").await >= 4.0).await;
    }
    members.all_linked().await;
}
