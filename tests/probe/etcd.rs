//! Real etcd members: found, killed, frozen, added, removed; and a certificate that etcd refuses.

use crate::{
    command::{Watching, reachable, row, rows, shows_no_old_value},
    scrape::Scrape,
    support::{
        certificates::Files,
        etcd::{Cluster, Security, VERSIONS},
        ports::free_port,
        tier_is_all,
    },
};

/// The versions of this run.
fn versions() -> &'static [&'static str] {
    if tier_is_all() { &VERSIONS } else { &["3.4", "3.6"] }
}

/// The flags of `probe` for these certificates.
fn tls(files: Option<&Files>) -> Vec<String> {
    let pairs = [("--cacert", "ca.pem"), ("--cert", "cert.pem"), ("--key", "key.pem")];
    files.map_or_else(Vec::new, |files| {
        pairs.iter().flat_map(|(flag, name)| [(*flag).to_owned(), files.path(name).display().to_string()]).collect()
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_is_found_and_what_happens_to_its_members_is_seen() {
    for version in versions() {
        for security in [Security::Plain, Security::Mtls] {
            if let Some(cluster) = Cluster::start(version, 3, security).await {
                eprintln!("etcd {version}, {security:?}");
                a_life(cluster).await;
            }
        }
    }
}

async fn a_life(mut cluster: Cluster) {
    let files = cluster.certificate();
    let flags = tls(files.as_ref());
    let mut arguments: Vec<&str> = flags.iter().map(String::as_str).collect();
    let seed = cluster.members[0].peer_url.clone();
    arguments.push(&seed);

    let (status, document) = rows(&[&["--timeout", "5s"], &arguments[..]].concat()).await;
    assert_eq!((status, document["members"].as_array().unwrap().len()), (Some(0), 3), "{document}");
    assert_eq!(document["cluster"], cluster.id.to_string());
    for member in &cluster.members {
        let row = row(&document, &member.peer_url);
        let is = (&row["member"], &row["name"], &row["version"]);
        let expected = (member.id.to_string().into(), member.name.clone().into(), cluster.version.to_string().into());
        assert_eq!(is, (&expected.0, &expected.1, &expected.2));
        assert!(row["clock_offset_seconds"].as_f64().unwrap().abs() < 1.0, "{row}");
    }

    let ids: Vec<String> = cluster.members.iter().map(|member| member.id.to_string()).collect();
    let watching = Watching::start(&arguments);
    let all = |scrape: &Scrape| ids.iter().all(|id| reachable(scrape, id) == Some(1.0));
    watching.until("all are reachable", all).await;
    let gone = |id: &str| {
        let id = id.to_owned();
        move |scrape: &Scrape| reachable(scrape, &id) == Some(0.0) && shows_no_old_value(scrape, &id)
    };
    cluster.members[1].freeze();
    watching.visible("frozen", gone(&ids[1])).await;
    cluster.members[1].thaw();
    watching.visible("thawed", |scrape| reachable(scrape, &ids[1]) == Some(1.0)).await;
    cluster.members[0].kill();
    watching.visible("the seed is killed", gone(&ids[0])).await;
    assert_eq!(rows(&[&arguments[..arguments.len() - 1], &[&cluster.members[1].peer_url]].concat()).await.0, Some(1));
    cluster.members[0].restart();
    cluster.healthy().await;
    watching.until("it is back", all).await;

    let added = cluster.add_learner("etcd-4", &format!("{}://127.0.0.1:{}", cluster.scheme(), free_port())).await;
    let id = added.id.to_string();
    let named = [("peer", id.as_str()), ("name", ""), ("urls", added.url.as_str())];
    watching.visible("added", |scrape| scrape.sum("rafthttp_peer_info", &named) == Some(1.0)).await;
    watching.visible("not started", |scrape| reachable(scrape, &id) == Some(0.0)).await;
    cluster.remove(added.id);
    watching.visible("removed", |scrape| !scrape.peers().contains(id.as_str())).await;
    assert_eq!(watching.stop().await, Some(0));

    // What etcd says of a request that it does not like; of each other's end they may say what they will.
    let dislikes = ["malformed", "rejected connection", "incompatible", "mismatch", "panic", "X-Server", "http: "];
    for member in &cluster.members {
        for line in member.lines() {
            assert!(!(line.is_complaint() && line.names(&dislikes)), "{}: {}", member.name, line.text);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_etcd_refuses_for_its_names_is_told_as_that() {
    for version in versions() {
        let Some(cluster) = Cluster::start(version, 1, Security::Mtls).await else { continue };
        let files = cluster.certificate_of(vec!["10.9.9.9", "elsewhere.example"]);
        let flags = tls(Some(&files));
        let arguments: Vec<&str> =
            flags.iter().map(String::as_str).chain([cluster.members[0].peer_url.as_str()]).collect();
        let (status, document) = rows(&arguments).await;
        assert_eq!(status, Some(1), "{document}");
        let said = document["members"][0]["error"].as_str().unwrap();
        for words in ["closed right after the TLS handshake", "10.9.9.9", "elsewhere.example", "127.0.0.1"] {
            assert!(said.contains(words), "{version}: {said}");
        }
        // Its own names are no longer foreign: the files are read again, and the watch finds the member.
        let watching = Watching::start(&arguments);
        watching.until("it serves", |_| true).await;
        files.replace(&cluster.issue_of(vec!["127.0.0.1"]));
        let id = cluster.members[0].id.to_string();
        watching.until("the new certificate is used", |scrape| reachable(scrape, &id) == Some(1.0)).await;
        assert_eq!(watching.stop().await, Some(0));
    }
}
