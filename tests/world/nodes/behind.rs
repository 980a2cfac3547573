//! A member is removed and added anew, and one of the others has not heard of that: it still lists the old one.

use hyper::{body::Incoming, service::service_fn};
use tokio::time::timeout;

use super::*;

/// The port of a peer URL, and of a client URL.
const PEERS: u16 = 2380;
const CLIENTS: u16 = 2379;

/// The list of a member at its peer URL, for whoever joins, or at its client URL.
async fn list_at(memory: &Memory, name: &str, port: u16) -> axum::http::Response<String> {
    let stream = memory.place("client", [10, 0, 2, 1]).connect((address(name), port).into()).await.expect("it listens");
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("nothing is said yet");
    let connection = tokio::spawn(connection);
    let request = Request::get("/members").header("host", name).body(Body::empty()).expect("a request");
    let (head, body) = sender.send_request(request).await.expect("an answer").into_parts();
    let body = body.collect().await.expect("all of it").to_bytes();
    drop(sender);
    connection.await.expect("it ends").expect("it ends well");
    axum::http::Response::from_parts(head, String::from_utf8(body.to_vec()).expect("JSON"))
}

/// A member that says for ever what another one has said. It notes what it is asked.
async fn says_for_ever(
    memory: &Memory,
    name: &str,
    port: u16,
    answer: axum::http::Response<String>,
) -> (tokio::task::JoinHandle<()>, Arc<Mutex<Vec<Method>>>) {
    let port = memory.place(name, address(name)).listen(name, port).await.expect("nobody else does");
    let asked = Arc::<Mutex<Vec<Method>>>::default();
    let notes = asked.clone();
    let saying = tokio::spawn(async move {
        while let Ok((stream, _)) = port.accept().await {
            let (answer, notes) = (answer.clone(), notes.clone());
            let service = service_fn(move |request: Request<Incoming>| {
                notes.lock().expect("one thread").push(request.method().clone());
                let answer = answer.clone();
                async move { Ok::<_, std::convert::Infallible>(answer) }
            });
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    (saying, asked)
}

/// How the third member starts on an empty disk, if it is told of a fourth one before all others.
fn with_a_fourth(cluster: &Cluster, name: &str, state: InitialClusterState, starts: u64) -> Config {
    let mut config = config(&cluster.memory, &MemoryDisk::default(), "c");
    config.world = config.world.with_seed(starts);
    config.initial_cluster.insert(0, (name.to_owned(), peer_url(name)));
    Config { initial_cluster_state: state, ..config }
}

async fn lists_c(cluster: &Cluster) {
    for name in ["a", "b"] {
        while !ask(&cluster.memory, name, Method::GET, "/members?consistency=local", "").await.1.contains("c:2379") {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// Has the membership changed, once there is a leader.
async fn changed(cluster: &Cluster, method: Method, path: &str, body: &str) {
    let change = async {
        while !ask(&cluster.memory, "a", method.clone(), path, body).await.0.is_success() {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    };
    timeout(Duration::from_secs(60), change).await.expect("it is made");
}

/// Stops member c, has it removed and added anew, and starts it without its disk, until it follows. `fourth` is in its list
/// of members, too.
async fn added_anew(cluster: &Cluster, c: Node, fourth: &str, state: InitialClusterState) -> Node {
    let before = c.raft_status().id;
    c.stop().await;
    changed(cluster, Method::DELETE, &format!("/members/{before}"), "").await;
    changed(cluster, Method::POST, "/members", r#"{"peerURLs":["http://c:2380"],"isLearner":true}"#).await;
    let starting = Node::start(with_a_fourth(cluster, fourth, state, 7));
    let c = timeout(Duration::from_secs(60), starting).await.expect("it does not wait").expect("it was added");
    until("it follows", || c.raft_status().leader.0 != 0).await;
    c
}

#[test]
fn who_was_removed_and_added_anew_joins_though_one_that_is_behind_lists_what_it_was() {
    for state in [InitialClusterState::Existing, InitialClusterState::Auto] {
        simulate(move || async move {
            let cluster = Cluster::new();
            let [a, b, c] = cluster.start_all().await;
            lists_c(&cluster).await;
            let before = c.raft_status().id;
            let list = list_at(&cluster.memory, "a", PEERS).await;
            let (behind, _) = says_for_ever(&cluster.memory, "d", PEERS, list).await;
            let c = added_anew(&cluster, c, "d", state).await;
            assert_ne!(c.raft_status().id, before);
            lists_c(&cluster).await;

            // Once the new one is lost, too, this is not hidden by who lists the old one.
            let id = c.raft_status().id;
            c.stop().await;
            if state == InitialClusterState::Existing {
                let Err(error) = Node::start(with_a_fourth(&cluster, "d", state, 8)).await else {
                    panic!("it started")
                };
                let said = error.to_string();
                assert!(said.starts_with(&format!("member {id} has already been bootstrapped, as http://")), "{said}");
            }
            behind.abort();
            cluster.stop([a, b]).await;
        });
    }
}

/// A client URL of an old list leads to another cluster by now, in which a member that was started has our peer URLs.
#[test]
fn a_quorum_of_another_cluster_decides_nothing_and_is_asked_for_no_change() {
    for state in [InitialClusterState::Existing, InitialClusterState::Auto] {
        simulate(move || async move {
            let cluster = Cluster::new();
            let [a, b, c] = cluster.start_all().await;
            lists_c(&cluster).await;
            let list = list_at(&cluster.memory, "a", PEERS).await;
            let clusters = list.headers().get("x-etcd-cluster-id").cloned();
            assert!(clusters.is_some());
            // The one that is behind is the first to be asked, and the first of its list is one that is gone.
            let gone = r#"[{"id":77,"peerURLs":["http://e:2380"],"name":"e","clientURLs":["http://e:2379"]},"#;
            let (mut head, body) = list.into_parts();
            head.headers.remove("content-length");
            let list = axum::http::Response::from_parts(head, body.replacen('[', gone, 1));
            let (behind, _) = says_for_ever(&cluster.memory, "0d", PEERS, list).await;
            let other = axum::http::Response::builder().header("x-etcd-cluster-id", "abc").body(
                r#"{"members":[{"id":"99","name":"","peerURLs":["http://c:2380"],"clientURLs":["http://c:1"]}]}"#
                    .to_owned(),
            );
            let (elsewhere, asked) = says_for_ever(&cluster.memory, "e", CLIENTS, other.expect("an answer")).await;
            let c = added_anew(&cluster, c, "0d", state).await;
            let asked = asked.lock().expect("one thread").clone();
            assert!(!asked.is_empty() && asked.iter().all(|method| *method == Method::GET), "{asked:?}");
            let client = list_at(&cluster.memory, "a", CLIENTS).await;
            assert_eq!(client.headers().get("x-etcd-cluster-id"), clusters.as_ref());
            behind.abort();
            elsewhere.abort();
            cluster.stop([a, b, c]).await;
        });
    }
}
