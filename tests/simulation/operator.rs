//! The operator of the cluster. It adds, promotes and removes members, and replaces a member that has lost its disk.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::http::{Method, StatusCode};
use tokio::time::sleep;

use super::{clients::Asking, member::peer_url};

/// How long an answer may take, and the pause after an answer that was of no use.
const PATIENCE: Duration = Duration::from_secs(9);
const PAUSE: Duration = Duration::from_millis(500);

/// A change of the membership.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// A member is removed, and added anew.
    Replace,
    /// A member is added as a learner.
    Add,
    /// A learner gets its vote.
    Promote,
    /// A member is removed.
    Remove,
}

/// A task for the member at a place, until it is done.
#[derive(Clone, Debug)]
pub struct Job {
    pub place: usize,
    pub task: Task,
    is_done: Arc<AtomicBool>,
}

impl Job {
    pub fn new(place: usize, task: Task) -> Self {
        Self { place, task, is_done: Arc::default() }
    }

    pub fn is_done(&self) -> bool {
        self.is_done.load(Ordering::Relaxed)
    }
}

/// Does a job for the member of this name, and repeats each request until it succeeds.
pub struct Operator {
    pub asking: Asking,
    /// The machines that are asked, in turn.
    pub hosts: Vec<usize>,
    pub name: String,
}

impl Operator {
    pub async fn work(self, job: Job) {
        let url = peer_url(&self.name);
        let members: serde_json::Value = serde_json::from_str(&self.members().await).expect("JSON");
        let members = members["members"].as_array().expect("a list");
        let known = members.iter().find(|member| member["peerURLs"][0] == url.as_str());
        let path = known.map(|known| format!("/members/{}", known["id"].as_str().expect("an ID")));
        if let (Some(path), Task::Replace | Task::Remove) = (&path, job.task) {
            // If the outcome of a request is unknown, the answer to the next one says that the change was made.
            let is_gone = |status, _: &str| [StatusCode::NO_CONTENT, StatusCode::NOT_FOUND].contains(&status);
            self.until(Method::DELETE, path, "", is_gone).await;
        }
        if let (Some(path), Task::Promote) = (&path, job.task) {
            let votes = |status, said: &str| status == StatusCode::OK || said.contains("not a learner");
            self.until(Method::POST, &format!("{path}/promote"), "", votes).await;
        }
        if let Task::Replace | Task::Add = job.task {
            let body = format!(r#"{{"peerURLs":["{url}"],"isLearner":{}}}"#, job.task == Task::Add);
            self.add(url.as_str(), &body).await;
        }
        job.is_done.store(true, Ordering::Relaxed);
    }

    /// Adds a member until it is listed. A request whose outcome was unknown may have added it, and then the next one is
    /// refused: for the URL, or because the member that was added has not started yet.
    async fn add(&self, url: &str, body: &str) {
        let is_decided = |status, _: &str| [StatusCode::CREATED, StatusCode::CONFLICT].contains(&status);
        loop {
            self.until(Method::POST, "/members", body, is_decided).await;
            if self.members().await.contains(url) {
                return;
            }
            sleep(PAUSE).await;
        }
    }

    /// The members, as one of them answers.
    async fn members(&self) -> String {
        self.until(Method::GET, "/members", "", |status, _| status == StatusCode::OK).await
    }

    /// Asks members in turn until one gives an answer for which `is_it` holds. Returns its text.
    async fn until(&self, method: Method, path: &str, body: &str, is_it: impl Fn(StatusCode, &str) -> bool) -> String {
        for host in self.hosts.iter().cycle() {
            if let Some((status, said)) = self.asking.ask(*host, method.clone(), path, body, PATIENCE).await {
                let line = said.trim_end();
                self.asking.events.say(&format!("the operator: {method} {path} at m{host} -> {status} {line}"));
                if is_it(status, &said) {
                    return said;
                }
            }
            sleep(PAUSE).await;
        }
        unreachable!("it is asked without end")
    }
}
