//! Clients that write and read, and the history of their operations.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    body::Body,
    http::{Method, Request, StatusCode},
};
use http_body_util::BodyExt as _;
use hyper_util::rt::TokioIo;
use rafthttp::internals::world::Network as _;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use tokio::time::{sleep, timeout};

use super::{
    clock::Timeline,
    events::Events,
    member::CLIENT_PORT,
    network::{Net, Place},
    porcupine::Operation,
};

/// The text that pads a value.
const PADDING: &str = "-";

pub const KEYS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

/// The operations of all clients. All clones are one history.
#[derive(Clone, Debug, Default)]
pub struct History(Arc<Mutex<Vec<Operation>>>);

impl History {
    fn lock(&self) -> MutexGuard<'_, Vec<Operation>> {
        self.0.lock().expect("nobody panics while it holds this")
    }

    /// Records an operation when it begins, because it may take effect even if its answer never comes. Returns its
    /// index.
    fn begin(&self, operation: Operation) -> usize {
        let mut operations = self.lock();
        operations.push(operation);
        operations.len() - 1
    }

    /// All operations that have taken effect, or may have. A put of unknown outcome whose value was never read is left
    /// out: it cannot break an order, and each such operation makes the checker slower.
    pub fn operations(&self) -> Vec<Operation> {
        let operations = self.lock();
        let of = |op: &'static str| operations.iter().filter(move |operation| operation.op == op);
        let read: BTreeSet<&String> = of("get").filter_map(|get| get.value.as_ref()).collect();
        let may_count = |operation: &&Operation| match operation.op {
            "never" => false,
            "put" => operation.end.is_some() || operation.value.as_ref().is_some_and(|value| read.contains(value)),
            _ => true,
        };
        operations.iter().filter(may_count).cloned().collect()
    }

    /// The number of operations with a known outcome.
    pub fn known(&self) -> usize {
        self.operations().iter().filter(|operation| operation.end.is_some()).count()
    }
}

/// Sends HTTP requests to members, from one machine.
#[derive(Clone)]
pub struct Asking {
    pub place: Arc<Place>,
    pub net: Net,
    pub events: Events,
    pub timeline: Timeline,
    /// The last time in the history, in microseconds. Each time is later than the one before, even within one
    /// millisecond, so that the checker knows the order of operations of one client.
    pub last: Arc<AtomicU64>,
}

impl Asking {
    /// Sends a request to a machine's client port, on a new connection. `None` if no answer came within `patience`.
    pub async fn ask(
        &self,
        host: usize,
        method: Method,
        path: &str,
        body: &str,
        patience: Duration,
    ) -> Option<(StatusCode, String)> {
        timeout(patience, self.exchange(host, method, path, body)).await.ok().flatten()
    }

    async fn exchange(&self, host: usize, method: Method, path: &str, body: &str) -> Option<(StatusCode, String)> {
        let address = SocketAddr::new(self.net.address(host), CLIENT_PORT);
        let stream = self.place.connect(address).await.ok()?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
        let request = Request::builder().method(method).uri(path).header("host", "member");
        let request = request.body(Body::from(body.to_owned())).expect("a request");
        let asked = async {
            let (head, body) = sender.send_request(request).await.ok()?.into_parts();
            let body = body.collect().await.ok()?.to_bytes();
            drop(sender);
            Some((head.status, String::from_utf8_lossy(&body).into_owned()))
        };
        // Both are polled in this task, so a request that times out drops its connection, too.
        let mut asked = std::pin::pin!(asked);
        let mut connection = std::pin::pin!(connection);
        tokio::select! {
            biased;
            answer = &mut asked => answer,
            _ = &mut connection => asked.await,
        }
    }

    fn now(&self) -> u64 {
        let now = (self.timeline.now() * 1000).max(self.last.load(Ordering::Relaxed) + 1);
        self.last.store(now, Ordering::Relaxed);
        now
    }
}

/// A client. It does one operation at a time, each at a random member.
pub struct Client {
    pub asking: Asking,
    pub history: History,
    pub stop: Arc<AtomicBool>,
    pub values: Arc<AtomicU64>,
    pub hosts: Arc<Mutex<Vec<usize>>>,
    /// How long it waits for an answer.
    pub patience: Duration,
    /// The mean pause between two operations, in milliseconds.
    pub pause: u64,
    pub seed: u64,
    /// Whether it sends local reads and takes them for linearizable ones ([`super::plan::Bug::LocalReads`]).
    pub reads_locally: bool,
    /// The number of bytes that are added to each value.
    pub padding: usize,
}

impl Client {
    pub async fn run(self) {
        let mut random = StdRng::seed_from_u64(self.seed);
        while !self.stop.load(Ordering::Relaxed) {
            let hosts = self.hosts.lock().expect("nobody panics while it holds this").clone();
            let (host, key) = (*hosts.choose(&mut random).expect("members"), *KEYS.choose(&mut random).expect("keys"));
            match random.random_range(0..10) {
                0 => self.delete(host, key).await,
                1..6 => self.write(host, key).await,
                _ => self.read(host, key).await,
            }
            sleep(Duration::from_millis(random.random_range(1..=2 * self.pause))).await;
        }
    }

    async fn write(&self, host: usize, key: &str) {
        let value = format!("v{}", self.values.fetch_add(1, Ordering::Relaxed));
        let call = self.asking.now();
        let begun = self.begin("put", key, Some(value.clone()), call);
        let padded = value + &PADDING.repeat(self.padding);
        let answer = self.asking.ask(host, Method::PUT, &format!("/kv/{key}"), &padded, self.patience).await;
        self.ended(begun, answer.map(|(status, _)| status), &[StatusCode::NO_CONTENT]);
    }

    async fn delete(&self, host: usize, key: &str) {
        let call = self.asking.now();
        let begun = self.begin("delete", key, None, call);
        let answer = self.asking.ask(host, Method::DELETE, &format!("/kv/{key}"), "", self.patience).await;
        self.ended(begun, answer.map(|(status, _)| status), &[StatusCode::NO_CONTENT, StatusCode::NOT_FOUND]);
    }

    fn begin(&self, op: &'static str, key: &str, value: Option<String>, call: u64) -> usize {
        self.history.begin(Operation { op, key: key.to_owned(), value, call, end: None })
    }

    fn ended(&self, begun: usize, status: Option<StatusCode>, done: &[StatusCode]) {
        let is_known = status.is_some_and(|status| done.contains(&status));
        let said = status.map_or_else(|| "no answer".to_owned(), |status| status.to_string());
        // These answers promise that the write was not proposed, so it never takes effect.
        let never = [StatusCode::SERVICE_UNAVAILABLE, StatusCode::INSUFFICIENT_STORAGE];
        let end = self.asking.now();
        let mut operations = self.history.lock();
        let Operation { op, key, value, .. } = operations[begun].clone();
        if status.is_some_and(|status| never.contains(&status)) {
            operations[begun].op = "never";
        }
        operations[begun].end = is_known.then_some(end);
        drop(operations);
        self.asking.events.say(&format!("a client: {op} {key} {} -> {said}", value.as_deref().unwrap_or("")));
    }

    /// A linearizable read, unless the client reads locally. A read without an answer is not recorded: it changes
    /// nothing.
    pub async fn read(&self, host: usize, key: &str) {
        let call = self.asking.now();
        let query = if self.reads_locally { "?consistency=local" } else { "" };
        let answer = self.asking.ask(host, Method::GET, &format!("/kv/{key}{query}"), "", self.patience).await;
        let value = match answer {
            Some((StatusCode::OK, value)) => Some(value.trim_end_matches(PADDING).to_owned()),
            Some((StatusCode::NOT_FOUND, _)) => None,
            _ => return,
        };
        let said = value.clone().unwrap_or_else(|| "nothing".to_owned());
        self.asking.events.say(&format!("a client: get {key} -> {said}"));
        let end = Some(self.asking.now());
        self.history.begin(Operation { op: "get", key: key.to_owned(), value, call, end });
    }
}
