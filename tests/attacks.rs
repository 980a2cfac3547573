//! What a stranger, a member that was removed, or a broken one tries against members that are processes: they stay up,
//! and serve their clients as soon as it is over. SECURITY.md names these tests.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::{Method, StatusCode};
use rafthttp::wire::raftpb::{
    ConfChange, ConfChangeType, ConfState, Entry, EntryType, Message, MessageType, Snapshot, SnapshotMetadata,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    time::timeout,
};

#[path = "cluster/http_client.rs"]
mod http_client;
#[path = "cluster/ledger.rs"]
#[allow(dead_code, reason = "each test binary uses its part")]
mod ledger;
#[path = "support/ports.rs"]
mod ports;
#[path = "cluster/process.rs"]
#[allow(dead_code, reason = "each test binary uses its part")]
mod process;
#[path = "attacks/stranger.rs"]
mod stranger;

use process::Cluster;
use prost::Message as _;
use stranger::{STRANGER, Target};

/// Every member takes part, and takes writes.
async fn assert_serves(cluster: &Cluster) {
    for member in 0..cluster.members.len() {
        cluster.put(member, &format!("after-{member}"), "v").await;
        let status = cluster.status(member).await.expect("it answers");
        assert!(status["halted"].is_null(), "{status}");
        assert!(cluster.runs(member));
    }
}

async fn term(cluster: &Cluster, member: usize) -> u64 {
    cluster.status(member).await.expect("it answers")["term"].as_u64().expect("a number")
}

/// For raft, the first message makes the stranger the leader of its term. The second says that the member once had more
/// entries than it has.
#[tokio::test(flavor = "multi_thread")]
async fn two_posts_of_a_stranger_halt_nobody_and_disturb_a_term_at_most() {
    let mut cluster = Cluster::new(3, &[]);
    cluster.start_all();
    cluster.put(0, "before", "v").await;
    for member in 0..3 {
        let target = Target::of(&cluster, member).await;
        let far = term(&cluster, member).await + 1000;
        let heartbeat = target.message(MessageType::MsgHeartbeat, STRANGER, far);
        assert_eq!(
            target.post(&heartbeat, "").await,
            StatusCode::NO_CONTENT,
            "raft hears a leader that it does not know"
        );
        for term in [far, far + 1] {
            let lost = Message { commit: 1 << 40, term, ..heartbeat.clone() };
            assert_eq!(target.post(&lost, "").await, StatusCode::INTERNAL_SERVER_ERROR);
        }
    }
    assert_serves(&cluster).await;
    let refused = ledger::Scrape::of(&cluster, 0).await.expect("it answers");
    let refused = refused.sum("rafthttp_messages_rejected_total", &[("reason", "refused"), ("peer", "other")]);
    assert_eq!(refused, 2.0, "what was refused is counted");
    assert_eq!(cluster.local(0, "before").await.as_deref(), Some("v"));
}

/// Each member in a term that is further from those of the others than elections lead: when the stranger is gone they
/// meet in the highest, and one that joins meets them there.
#[tokio::test(flavor = "multi_thread")]
async fn terms_that_a_stranger_has_driven_far_apart_meet_when_he_is_gone() {
    let mut cluster = Cluster::new(3, &[]);
    cluster.start_all();
    cluster.put(0, "before", "v").await;
    let leap = 1 << 20;
    for (member, leaps) in [(0, 4), (1, 8)] {
        let target = Target::of(&cluster, member).await;
        let from = term(&cluster, member).await;
        for step in 1..=leaps {
            let heartbeat = target.message(MessageType::MsgHeartbeat, STRANGER, from + step * leap);
            assert_eq!(target.post(&heartbeat, "").await, StatusCode::NO_CONTENT);
        }
    }
    assert_serves(&cluster).await;
    assert!(term(&cluster, 0).await > 8 * leap);
}

/// A member's name is no proof either: whoever can reach the port can use it.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_posted_in_a_members_name_halts_nobody() {
    let mut cluster = Cluster::new(3, &[]);
    cluster.start_all();
    let leader = cluster.leader().await;
    cluster.caught_up().await;
    let (target, as_leader) = (Target::of(&cluster, (leader + 1) % 3).await, Target::of(&cluster, leader).await.id);
    let term = term(&cluster, leader).await;
    let lost = Message { commit: 1 << 40, ..target.message(MessageType::MsgHeartbeat, as_leader, term) };
    assert_eq!(target.post(&lost, "").await, StatusCode::INTERNAL_SERVER_ERROR);
    assert_serves(&cluster).await;
}

/// Posts an append whose entry removes the member that reads it, and which says that the entry is committed.
#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_removes_nobody() {
    let mut cluster = Cluster::new(3, &[]);
    cluster.start_all();
    let leader = cluster.leader().await;
    cluster.caught_up().await;
    let member = (leader + 1) % 3;
    let target = Target::of(&cluster, member).await;
    let status = cluster.status(member).await.expect("it answers");
    let last = status["last_index"].as_u64().expect("a number");
    let term = status["term"].as_u64().expect("a number");
    let removal = ConfChange {
        id: 1,
        r#type: ConfChangeType::ConfChangeRemoveNode as i32,
        node_id: target.id,
        ..ConfChange::default()
    };
    let entry = Entry {
        r#type: EntryType::EntryConfChange as i32,
        term: term + 1,
        index: last + 1,
        data: removal.encode_to_vec().into(),
    };
    let append = Message {
        index: last,
        log_term: term,
        commit: last + 1,
        entries: vec![entry],
        ..target.message(MessageType::MsgApp, STRANGER, term + 1)
    };
    assert_eq!(target.post(&append, "").await, StatusCode::INTERNAL_SERVER_ERROR);
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_serves(&cluster).await;
}

/// A snapshot of this index and term, with a membership of these voters.
fn snapshot(target: &Target, message_term: u64, index: u64, term: u64, voters: &[u64]) -> Message {
    let conf_state = Some(ConfState { voters: voters.to_vec(), ..ConfState::default() });
    let metadata = Some(SnapshotMetadata { conf_state, index, term });
    let snapshot = Some(Snapshot { metadata, ..Snapshot::default() }.into());
    Message { snapshot, ..target.message(MessageType::MsgSnap, STRANGER, message_term) }
}

/// The files of received snapshots, those half written among them.
fn snapshot_files(cluster: &Cluster, member: usize) -> usize {
    let directory = cluster.members[member].directory.join("member/snap");
    std::fs::read_dir(directory).expect("it is there").count()
}

/// Each snapshot announces a megabyte after its envelope. Half of it comes at once, and the rest never, or only at the
/// end.
#[tokio::test(flavor = "multi_thread")]
async fn a_strangers_snapshot_is_judged_by_its_envelope_before_a_byte_of_it_is_kept() {
    const LENGTH: usize = 1 << 20;
    let begun = vec![7; LENGTH / 2];
    let mut cluster = Cluster::new(3, &[]);
    cluster.start_all();
    cluster.put(0, "before", "v").await;
    cluster.caught_up().await;
    let target = Target::of(&cluster, 0).await;
    let now = term(&cluster, 0).await;
    let legal = snapshot(&target, now, 1 << 20, now, &[target.id]);
    for (why, bad) in [
        ("for another", Message { to: target.id + 1, ..legal.clone() }),
        ("from nobody", Message { from: 0, ..legal.clone() }),
        ("no term", Message { term: 0, ..legal.clone() }),
        ("a term that cannot be", Message { term: 1 << 62, ..legal.clone() }),
        ("an index that cannot be", snapshot(&target, now, u64::MAX, now, &[target.id])),
        ("a term after its own", snapshot(&target, now, 1 << 20, now + 1, &[target.id])),
        ("no voter", snapshot(&target, now, 1 << 20, now, &[])),
        ("a voter twice", snapshot(&target, now, 1 << 20, now, &[target.id, target.id])),
        ("what contradicts the log", snapshot(&target, now, 1, 2, &[target.id])),
    ] {
        let mut connection = target.begin_snapshot(&bad, LENGTH, &begun).await;
        let answered = timeout(Duration::from_secs(4), stranger::answer(&mut connection)).await;
        let (status, said) = answered.unwrap_or_else(|_| panic!("{why}: it waits for the body"));
        assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR, "{why}: {said}");
        assert!(said.contains("failed to process raft message ("), "{why}: {said}");
        assert_eq!(snapshot_files(&cluster, 0), 0, "{why}");
    }
    for (why, late) in [
        ("an earlier term", snapshot(&target, now - 1, 1 << 20, 1, &[target.id])),
        ("what the log has", snapshot(&target, now, 1, 1, &[target.id])),
        ("a membership without this member", snapshot(&target, now, 1 << 20, now, &[STRANGER])),
    ] {
        let mut connection = target.begin_snapshot(&late, LENGTH, &begun).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(snapshot_files(&cluster, 0), 0, "{why}");
        connection.write_all(&begun).await.expect("it is read");
        let (status, said) = stranger::answer(&mut connection).await;
        assert_eq!(status, StatusCode::NO_CONTENT, "{why}, as etcd: {said}");
    }
    assert_serves(&cluster).await;
}

/// A listener that has nothing to do with the cluster: its URL, and how often it was dialled.
async fn bystander(address: &str) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind((address, 0)).await.expect("an address of this machine");
    let url = format!("http://{}", listener.local_addr().expect("it is bound"));
    let dialled = Arc::new(AtomicUsize::new(0));
    let count = dialled.clone();
    tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            kept.push(stream);
            count.fetch_add(1, Ordering::Relaxed);
        }
    });
    (url, dialled)
}

/// Raft answers the heartbeat of anyone who claims to lead in a later term, at the URLs that the request has.
#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_has_no_address_dialled_but_his_own() {
    for (flags, is_dialled) in [(&[][..], false), (&["--peer-skip-url-verification"][..], true)] {
        let mut cluster = Cluster::new(1, flags);
        cluster.start_all();
        cluster.put(0, "before", "v").await;
        let target = Target::of(&cluster, 0).await;
        let far = term(&cluster, 0).await + 1000;
        let (elsewhere, other) = bystander("127.0.0.2").await;
        let (at_home, own) = bystander("127.0.0.1").await;
        let other_form = at_home.replace("127.0.0.1", "[::ffff:127.0.0.1]");
        let by_name = at_home.replace("127.0.0.1", "localhost");
        target.invent(0xbad1..0xbad9, far, &elsewhere).await;
        for (sender, url) in [(0xbae1, &at_home), (0xbae2, &other_form), (0xbae3, &by_name)] {
            let before = own.load(Ordering::Relaxed);
            target.invent(sender..sender + 1, far, url).await;
            let asked = async || (own.load(Ordering::Relaxed) > before).then_some(());
            until(&format!("{url} is dialled"), asked).await;
        }
        if is_dialled {
            until("the other is dialled", async || (other.load(Ordering::Relaxed) > 0).then_some(())).await;
        } else {
            assert_eq!(other.load(Ordering::Relaxed), 0, "he was asked before the others were");
        }
    }
}

async fn until(what: &str, mut done: impl AsyncFnMut() -> Option<()>) {
    let waited = async {
        while done().await.is_none() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(timeout(Duration::from_secs(10), waited).await.is_ok(), "{what}: not in time");
}

/// What strangers may leave in memory, however many they invent, beside what a log's lines and the allocator keep.
const INVENTED_BYTES: u64 = 16 << 20;

/// Each says that it leads, so that raft answers it, and where; some of them at as many URLs as a head has room for.
#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_invented_senders_leave_little_memory_and_no_series() {
    let mut cluster = Cluster::new(1, &[]);
    cluster.start_all();
    cluster.put(0, "before", "v").await;
    let target = Target::of(&cluster, 0).await;
    let far = term(&cluster, 0).await + 1000;
    let (url, _) = bystander("127.0.0.1").await;
    let urls = vec![url.clone(); 2500].join(",");
    let series = async || {
        let scrape = ledger::Scrape::of(&cluster, 0).await.expect("it answers");
        scrape.assert_laws("it");
        (scrape.series(), scrape.peers())
    };
    // One of each first: what is counted of them under `other` is there from now on.
    target.invent(1..100, far, &url).await;
    let before = (series().await, cluster.resident(0).0);
    for (first, count, urls) in [(0xbad_0000, 300, &urls), (0xbae_0000, 9700, &url)] {
        target.invent(first..first + count, far, urls).await;
    }
    let after = (series().await, cluster.resident(0).0);
    println!("series and bytes: {} and {} before, {} and {} after", before.0.0, before.1, after.0.0, after.1);
    assert_eq!(after.0.1, ["other"], "nobody of them has series");
    assert!(after.0.0 <= before.0.0 + 8, "{before:?} -> {after:?}");
    assert!(after.1 <= before.1 + INVENTED_BYTES, "{before:?} -> {after:?}");
    assert_serves(&cluster).await;
}

/// Answers whoever asks for a stream of this kind with these bytes, once, and everyone else with 404.
fn write_once(listener: TcpListener, kind: &'static str, cluster: String, bytes: Vec<u8>) {
    tokio::spawn(async move {
        let mut kept = Vec::new();
        let mut bytes = Some(bytes);
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") && stream.read_buf(&mut head).await.is_ok_and(|read| read > 0) {}
            let is_asked = String::from_utf8_lossy(&head).starts_with(&format!("GET /raft/stream/{kind}/"));
            let Some(bytes) = bytes.take_if(|_| is_asked) else {
                let refusal = b"HTTP/1.1 404 Not Found\r\nX-Server-Version: 3.6.0\r\nContent-Length: 0\r\n\r\n";
                let _ = stream.write_all(refusal).await;
                continue;
            };
            let head = format!(
                "HTTP/1.1 200 OK\r\nX-Server-Version: 3.6.0\r\nX-Etcd-Cluster-ID: {cluster}\r\nTransfer-Encoding: chunked\r\n\r\n"
            );
            for piece in [head.as_bytes(), format!("{:x}\r\n", bytes.len()).as_bytes(), &bytes, b"\r\n"] {
                stream.write_all(piece).await.expect("it reads");
            }
            kept.push(stream);
        }
    });
}

/// What a frame of 200 MiB may cost: once its own length, and a quarter.
const FRAME: usize = 200 << 20;

/// On a stream of each kind, and by POST. It is for another member, so that raft keeps nothing of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_frame_costs_little_more_than_its_bytes() {
    for way in ["message", "msgapp", "a POST"] {
        let mut cluster = Cluster::new(2, &[]);
        let listener = TcpListener::bind(cluster.members[1].peer.trim_start_matches("http://")).await;
        let listener = listener.expect("the port is free");
        cluster.start(0);
        cluster.until("it answers", Duration::from_secs(10), async |cluster: &Cluster| cluster.status(0).await).await;
        let target = Target::of(&cluster, 0).await;
        let known = async |cluster: &Cluster| {
            let peers = ledger::Scrape::of(cluster, 0).await?.peers();
            peers.into_iter().find(|peer| peer != "other")
        };
        let peer = cluster.until("it knows the other one", Duration::from_secs(10), known).await;
        let other = u64::from_str_radix(&peer, 16).expect("hexadecimal");
        let (before, _) = cluster.resident(0);
        let entry = Entry { term: 1, index: 1, data: vec![7; FRAME].into(), ..Entry::default() };
        let append = target.message(MessageType::MsgApp, other, 1);
        let frame = Message { to: STRANGER, entries: vec![entry], ..append }.encode_to_vec();
        let length = (frame.len() as u64).to_be_bytes();
        if way == "a POST" {
            let headers = format!("Content-Length: {}\r\n", frame.len());
            let (status, said) = target.ask("POST /raft", other, &headers, &frame).await;
            assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR, "{said}");
        } else {
            let kind: &[u8] = if way == "msgapp" { &[2] } else { &[] };
            write_once(listener, way, target.cluster.clone(), [kind, &length, &frame].concat());
            until("it is refused", async || {
                let scrape = ledger::Scrape::of(&cluster, 0).await?;
                let labels = [("peer", peer.as_str()), ("reason", "refused")];
                (scrape.sum("rafthttp_messages_rejected_total", &labels) == 1.0).then_some(())
            })
            .await;
        }
        let cost = cluster.resident(0).1 - before;
        println!("{way}: {} MiB", cost >> 20);
        assert!(cost <= FRAME as u64 * 5 / 4, "{way}: {} MiB", cost >> 20);
    }
}

/// It hears of them by POST, and takes what a member must have said only when one that it knows vouches for the sender.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_was_away_while_the_others_were_replaced_returns() {
    let mut cluster = Cluster::new(3, UNCHECKED);
    cluster.start_all();
    cluster.put(2, "before", "v").await;
    cluster.kill(2);
    replace(&mut cluster, &[0, 1]).await;
    // One of the two new members must lead: the one that the log of the absent member names only after a removal.
    while cluster.leader().await != 4 {
        cluster.kill(3);
        tokio::time::sleep(Duration::from_millis(1500)).await;
        cluster.start(3);
    }
    assert_returns(&mut cluster, 2).await;
}

/// Nobody whom it could ask is left.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_returns_that_knows_nobody_who_is_still_there() {
    let mut cluster = Cluster::new(3, UNCHECKED);
    cluster.start_all();
    cluster.put(2, "before", "v").await;
    cluster.kill(2);
    replace(&mut cluster, &[0, 1, 3]).await;
    assert_returns(&mut cluster, 2).await;
}

/// While one of three is away, two more have to be there before another is added, else.
const UNCHECKED: &[&str] = &["--strict-reconfig-check=false"];

/// Adds a member for each of these, one after the other, and removes it.
async fn replace(cluster: &mut Cluster, members: &[usize]) {
    for gone in members {
        let id = Target::of(cluster, *gone).await.id;
        let new = cluster.place(UNCHECKED);
        cluster.members[new].state = "existing";
        let body = format!(r#"{{"peerURLs":["{}"]}}"#, cluster.members[new].peer);
        change(cluster, Method::POST, "/members", &body, StatusCode::CREATED).await;
        cluster.start(new);
        cluster.caught_up().await;
        change(cluster, Method::DELETE, &format!("/members/{id:x}"), "", StatusCode::NO_CONTENT).await;
        cluster.exit(*gone, Duration::from_secs(15)).await;
    }
}

/// Asserts that a member that was away gets what was written meanwhile, takes part, and knows the members.
async fn assert_returns(cluster: &mut Cluster, away: usize) {
    cluster.put(cluster.members.len() - 1, "meanwhile", "v").await;
    cluster.start(away);
    cluster
        .until("its return", Duration::from_secs(30), async |cluster: &Cluster| cluster.local(away, "meanwhile").await)
        .await;
    cluster.put(away, "after", "v").await;
    let (_, members) = cluster.ask(away, Method::GET, "/members", "").await.expect("an answer");
    assert_eq!(members.matches("peerURLs").count(), 3, "it knows who is there, and that the others are not: {members}");
}

/// Changes the membership through its leader, again and again while it is certainly not changed.
async fn change(cluster: &Cluster, method: Method, path: &str, body: &str, done: StatusCode) {
    cluster
        .until("a change of the membership", Duration::from_secs(20), async |cluster: &Cluster| {
            let leader = cluster.leader().await;
            let (status, said) = cluster.ask(leader, method.clone(), path, body).await?;
            assert!(status == done || matches!(status.as_u16(), 409 | 503), "{status}: {said}");
            (status == done).then_some(())
        })
        .await;
}

/// Asks to add a voter at a URL where nobody listens. Returns the answer's status and text.
async fn add_nobody(cluster: &Cluster, member: usize, name: &str) -> (StatusCode, String) {
    let body = format!(r#"{{"name":"{name}","peerURLs":["{}"]}}"#, ports::free_url());
    cluster.ask(member, Method::POST, "/members", &body).await.expect("an answer")
}

/// With the second such member there would be four voters, two of which never run.
#[tokio::test(flavor = "multi_thread")]
async fn members_at_dead_urls_do_not_end_a_cluster_of_two() {
    let mut cluster = Cluster::new(2, &[]);
    cluster.start_all();
    cluster.put(0, "before", "v").await;
    // Until both have told their client URLs, and are connected for 5 s.
    let early =
        ["etcdserver: re-configuration failed due to not enough started members\n", "etcdserver: unhealthy cluster: "];
    let first = cluster
        .until("the first", Duration::from_secs(20), async |cluster: &Cluster| {
            let (status, said) = add_nobody(cluster, 0, "first").await;
            let as_etcd = early.iter().any(|words| said.starts_with(words)) && said.lines().count() == 1;
            assert!(status == StatusCode::CREATED || as_etcd, "{status}: {said}");
            (status == StatusCode::CREATED).then_some(said)
        })
        .await;
    for member in [0, 1] {
        let (status, said) = add_nobody(&cluster, member, "second").await;
        let words = "etcdserver: re-configuration failed due to not enough started members\n";
        assert_eq!((status, said.as_str()), (StatusCode::CONFLICT, words));
    }
    let present = cluster.status(1).await.expect("it answers")["id"].as_str().expect("an ID").to_owned();
    let (status, said) = cluster.ask(0, Method::DELETE, &format!("/members/{present}"), "").await.expect("an answer");
    assert_eq!(status, StatusCode::CONFLICT, "one of two would be left that was never there: {said}");
    cluster.put(1, "after", "v").await;
    let first: serde_json::Value = serde_json::from_str(&first).expect("JSON");
    let gone = format!("/members/{}", first["id"].as_str().expect("an ID"));
    change(&cluster, Method::DELETE, &gone, "", StatusCode::NO_CONTENT).await;
    assert_serves(&cluster).await;
}

/// The operator's flag turns the check off. The leader goes by its own flag.
#[tokio::test(flavor = "multi_thread")]
async fn without_the_check_two_members_at_dead_urls_end_it() {
    let mut cluster = Cluster::new(2, UNCHECKED);
    cluster.start_all();
    cluster.put(0, "before", "v").await;
    for name in ["first", "second"] {
        let (status, said) = add_nobody(&cluster, 0, name).await;
        assert_eq!(status, StatusCode::CREATED, "{said}");
    }
    let (status, said) = cluster.ask(0, Method::PUT, "/kv/after", "v").await.expect("an answer");
    assert!(matches!(status.as_u16(), 503 | 504), "two of four: {status}: {said}");
}

/// Each *cannot* of the threat model is a test that there is.
#[test]
fn every_line_of_the_threat_model_names_its_test() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap_or_default();
    let model = read("SECURITY.md");
    let rows = model.lines().filter(|line| line.starts_with("| "));
    let lines: Vec<_> = rows.filter(|row| !row.starts_with("| who | over |")).collect();
    assert!(lines.len() > 15);
    for line in lines {
        let tests = line.trim_end_matches(" |").rsplit(" | ").next().expect("a cell");
        for test in tests.split("; ") {
            let mut named = test.split('`').skip(1).step_by(2);
            let (name, file) = (named.next().expect("a test"), named.next().unwrap_or("tests/attacks.rs"));
            assert!(read(file).contains(&format!("fn {name}(")), "{file} has no test {name}");
        }
    }
}

/// What a member proposes that sets a key: see `src/node/request.rs`.
fn put(key: &str, value: &str) -> Entry {
    let length = u32::try_from(key.len()).expect("short").to_be_bytes();
    let data = [&[1, 1], &[0; 24][..], &length, key.as_bytes(), value.as_bytes()].concat();
    Entry { data: data.into(), ..Entry::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_member_is_not_heard_and_ends_when_it_is_started_again() {
    let mut cluster = Cluster::new(3, &[]);
    cluster.start_all();
    let leader = cluster.leader().await;
    cluster.caught_up().await;
    let (gone, stays) = ((leader + 1) % 3, (leader + 2) % 3);
    let (id, target) = (Target::of(&cluster, gone).await.id, Target::of(&cluster, leader).await);
    let known = Target::of(&cluster, stays).await.id;
    let proposal = |from: u64, key: &str| Message {
        entries: vec![put(key, "v")],
        ..target.message(MessageType::MsgProp, from, 0)
    };
    assert_eq!(target.post(&proposal(id, "while-a-member"), "").await, StatusCode::NO_CONTENT);
    change(&cluster, Method::DELETE, &format!("/members/{id:x}"), "", StatusCode::NO_CONTENT).await;
    assert_eq!(cluster.exit(gone, Duration::from_secs(15)).await.code(), Some(3));

    let refused = StatusCode::INTERNAL_SERVER_ERROR;
    assert_eq!(target.post(&proposal(id, "removed"), "").await, refused, "as etcd answers");
    let body = proposal(id, "removed").encode_to_vec();
    let length = format!("Content-Length: {}\r\n", body.len());
    assert_eq!(target.ask("POST /raft", known, &length, &body).await.0, refused, "nor through another");
    cluster.put(leader, "after", "v").await;
    assert_eq!(cluster.local(leader, "while-a-member").await.as_deref(), Some("v"));
    assert_eq!(cluster.local(leader, "removed").await, None);

    cluster.start(gone);
    let status = cluster.exit(gone, Duration::from_secs(5)).await;
    let log = cluster.log(gone);
    assert_eq!(status.code(), Some(3), "{log}");
    assert_eq!(log.matches("removed from the cluster").count(), 1, "one line: {log}");
    assert!(!log.contains("\"started\""), "it does not even start: {log}");
}
