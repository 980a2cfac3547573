//! Who looks after the cluster: adds anew a member that has lost its disk.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::http::{Method, StatusCode};
use tokio::time::sleep;

use super::{clients::Asking, member::peer_url};

/// How long an answer may take, and how long a pause after one that was of no use.
const PATIENCE: Duration = Duration::from_secs(9);
const PAUSE: Duration = Duration::from_millis(500);

/// A piece of work, until it is done.
#[derive(Clone, Debug, Default)]
pub struct Done(Arc<AtomicBool>);

impl Done {
    pub fn is_done(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Asks members in turn until one gives an answer of this kind.
async fn until(
    asking: &Asking,
    hosts: &Arc<Mutex<Vec<usize>>>,
    method: Method,
    path: &str,
    body: &str,
    wanted: &[StatusCode],
) -> String {
    for turn in 0.. {
        let hosts = hosts.lock().expect("nobody panics while it holds this").clone();
        let host = hosts[turn % hosts.len()];
        if let Some((status, said)) = asking.ask(host, method.clone(), path, body, PATIENCE).await {
            asking.events.say(&format!("the operator: {method} {path} at {host} -> {status} {}", said.trim_end()));
            if wanted.contains(&status) {
                return said;
            }
        }
        sleep(PAUSE).await;
    }
    unreachable!("it is asked without end")
}

/// Takes a member out of its cluster and adds one of the same URL. `others` are the machines that are asked.
pub async fn replace(asking: Asking, others: Arc<Mutex<Vec<usize>>>, name: String, done: Done) {
    let url = peer_url(&name);
    let members = until(&asking, &others, Method::GET, "/members", "", &[StatusCode::OK]).await;
    let members: serde_json::Value = serde_json::from_str(&members).expect("JSON");
    let members = members["members"].as_array().expect("a list");
    if let Some(old) = members.iter().find(|member| member["peerURLs"][0] == url.as_str()) {
        let path = format!("/members/{}", old["id"].as_str().expect("an ID"));
        until(&asking, &others, Method::DELETE, &path, "", &[StatusCode::NO_CONTENT, StatusCode::NOT_FOUND]).await;
    }
    let body = format!(r#"{{"peerURLs":["{url}"]}}"#);
    // Of a change without a known outcome, the next says that it was made.
    until(&asking, &others, Method::POST, "/members", &body, &[StatusCode::CREATED, StatusCode::CONFLICT]).await;
    done.0.store(true, Ordering::Relaxed);
}
