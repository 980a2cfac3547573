//! A member is removed and added anew, and one of the others has not heard of that: it still lists the old one.

use hyper::{body::Incoming, service::service_fn};
use tokio::time::timeout;

use super::*;

/// The answer of a member at its peer URL to whoever joins.
async fn list_for_who_joins(memory: &Memory, name: &str) -> axum::http::Response<String> {
    let stream = memory.place("client", [10, 0, 2, 1]).connect((address(name), 2380).into()).await.expect("it listens");
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

/// A member that says for ever what another one has said.
async fn says_for_ever(
    memory: &Memory,
    name: &str,
    answer: axum::http::Response<String>,
) -> tokio::task::JoinHandle<()> {
    let port = memory.place(name, address(name)).listen(name, 2380).await.expect("nobody else does");
    tokio::spawn(async move {
        while let Ok((stream, _)) = port.accept().await {
            let answer = answer.clone();
            let service = service_fn(move |_: Request<Incoming>| {
                let answer = answer.clone();
                async move { Ok::<_, std::convert::Infallible>(answer) }
            });
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    })
}

/// How the third member starts on an empty disk, if it is told of a fourth one.
fn with_a_fourth(cluster: &Cluster, state: InitialClusterState, starts: u64) -> Config {
    let mut config = config(&cluster.memory, &MemoryDisk::default(), "c");
    config.world = config.world.with_seed(starts);
    config.initial_cluster.push(("d".to_owned(), peer_url("d")));
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

#[test]
fn who_was_removed_and_added_anew_joins_though_one_that_is_behind_lists_what_it_was() {
    for state in [InitialClusterState::Existing, InitialClusterState::Auto] {
        simulate(move || async move {
            let cluster = Cluster::new();
            let [a, b, c] = cluster.start_all().await;
            lists_c(&cluster).await;
            let before = c.raft_status().id;
            let behind = says_for_ever(&cluster.memory, "d", list_for_who_joins(&cluster.memory, "a").await).await;
            c.stop().await;
            changed(&cluster, Method::DELETE, &format!("/members/{before}"), "").await;
            changed(&cluster, Method::POST, "/members", r#"{"peerURLs":["http://c:2380"],"isLearner":true}"#).await;
            let starting = Node::start(with_a_fourth(&cluster, state, 7));
            let c = timeout(Duration::from_secs(60), starting).await.expect("it does not wait").expect("it was added");
            assert_ne!(c.raft_status().id, before);
            until("it follows", || c.raft_status().leader.0 != 0).await;
            lists_c(&cluster).await;

            // Once the new one is lost, too, this is not hidden by who lists the old one.
            let id = c.raft_status().id;
            c.stop().await;
            if state == InitialClusterState::Existing {
                let Err(error) = Node::start(with_a_fourth(&cluster, state, 8)).await else { panic!("it started") };
                let said = error.to_string();
                assert!(said.starts_with(&format!("member {id} has already been bootstrapped, as http://")), "{said}");
            }
            behind.abort();
            cluster.stop([a, b]).await;
        });
    }
}
