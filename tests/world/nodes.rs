//! Whole members, raft and store included, on one thread.

use std::{path::Path, time::Duration};

use axum::{
    body::Body,
    http::{Method, Request, StatusCode},
};
use http_body_util::BodyExt as _;
use hyper_util::rt::TokioIo;
use rafthttp::{
    PeerStatus, PeerUrl,
    metrics::Direction,
    node::{Config, Node},
    world::World,
};

use super::{Memory, simulate, until};

const NAMES: [&str; 3] = ["a", "b", "c"];

/// A member's place among the three: its name, and its address on the network.
fn address(name: &str) -> [u8; 4] {
    [10, 0, 1, name.as_bytes()[0]]
}

fn peer_url(name: &str) -> PeerUrl {
    format!("http://{name}:2380").parse().expect("a URL")
}

fn config(memory: &Memory, directory: &Path, name: &str) -> Config {
    let world = World::default().with_seed(address(name)[3].into()).with_network(memory.place(name, address(name)));
    Config {
        name: name.to_owned(),
        data_dir: directory.join(name),
        listen_peer_urls: vec![peer_url(name)],
        initial_advertise_peer_urls: vec![peer_url(name)],
        listen_client_urls: vec![format!("http://{name}:2379").parse().expect("a URL")],
        advertise_client_urls: vec![format!("http://{name}:2379")],
        initial_cluster: NAMES.map(|name| (name.to_owned(), peer_url(name))).to_vec(),
        snapshot_count: 20,
        world: world.with_one_thread(),
        ..Config::default()
    }
}

async fn start(memory: &Memory, directory: &Path, name: &str) -> Node {
    Node::start(config(memory, directory, name)).await.expect("a member")
}

/// Asks a member's client URL over a connection of its own.
async fn ask(memory: &Memory, name: &str, method: Method, path: &str, body: &str) -> (StatusCode, String) {
    let place = memory.place("client", [10, 0, 2, 1]);
    let stream = place.connect((address(name), 2379).into()).await.expect("it listens");
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("nothing is said yet");
    let connection = tokio::spawn(connection);
    let request = Request::builder().method(method).uri(path).header("host", name).body(Body::from(body.to_owned()));
    let (head, body) = sender.send_request(request.expect("a request")).await.expect("an answer").into_parts();
    let body = body.collect().await.expect("all of it").to_bytes();
    drop(sender);
    connection.await.expect("it ends").expect("it ends well");
    (head.status, String::from_utf8_lossy(&body).into_owned())
}

/// Every value is written through a member and read at the others, linearizable.
async fn write_and_read(memory: &Memory, numbers: std::ops::Range<u32>, running: &[&str]) {
    for number in numbers {
        let (key, value) = (format!("/kv/{number}"), format!("value {number}"));
        let at = |turn: usize| running[(number as usize + turn) % running.len()];
        let (status, why) = ask(memory, at(0), Method::PUT, &key, &value).await;
        assert_eq!(status, StatusCode::NO_CONTENT, "{why}");
        assert_eq!(ask(memory, at(1), Method::GET, &key, "").await, (StatusCode::OK, value));
    }
}

/// The names of this process's threads.
fn threads() -> Vec<String> {
    let tasks = std::fs::read_dir("/proc/self/task").expect("Linux");
    let name =
        |task: std::path::PathBuf| std::fs::read_to_string(task.join("comm")).unwrap_or_default().trim().to_owned();
    tasks.filter_map(|task| Some(name(task.ok()?.path()))).collect()
}

#[test]
fn members_with_raft_and_store_live_on_one_thread() {
    let directory = tempfile::tempdir().expect("a directory");
    simulate(|| async {
        let (memory, directory) = (Memory::default(), directory.path());
        let a = start(&memory, directory, "a").await;
        let b = start(&memory, directory, "b").await;
        let c = start(&memory, directory, "c").await;
        until("there is a leader", || [&a, &b, &c].iter().all(|node| node.raft_status().leader.0 != 0)).await;
        write_and_read(&memory, 0..30, &NAMES).await;
        // While one is away, the log is cut several times: it comes back by a snapshot, which a store saves.
        c.stop().await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        write_and_read(&memory, 30..90, &["a", "b"]).await;
        let c = start(&memory, directory, "c").await;
        until("it has caught up", || c.raft_status().applied >= a.raft_status().applied).await;
        assert_eq!(ask(&memory, "c", Method::GET, "/kv/89", "").await, (StatusCode::OK, "value 89".to_owned()));
        let snapshots = |peer: PeerStatus| peer.link.snapshots[Direction::In].ok;
        assert_eq!(c.transport().peers().into_iter().map(snapshots).sum::<u64>(), 1, "it came by a snapshot");
        let threads = threads();
        let others = threads.iter().filter(|name| *name == "raft" || name.starts_with("tokio"));
        assert_eq!(others.count(), 0, "{threads:?}");
        for node in [a, b, c] {
            node.stop().await;
        }
        until("nothing is left of them", || memory.open() == 0).await;
    });
}
