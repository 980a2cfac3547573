//! A collector that keeps what it gets: OTLP as protobuf in HTTP requests, in the clear or behind TLS.

use std::{
    collections::BTreeSet,
    io::Read,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{Router, body::Bytes, http::HeaderMap, routing::post};
use prost::Message;
use rustls::ServerConfig;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

/// `opentelemetry.proto.collector.trace.v1.ExportTraceServiceRequest`, as much of it as is looked at.
#[derive(Clone, PartialEq, Message)]
struct Request {
    #[prost(message, repeated, tag = "1")]
    resource_spans: Vec<ResourceSpans>,
}

#[derive(Clone, PartialEq, Message)]
struct ResourceSpans {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scope_spans: Vec<ScopeSpans>,
}

#[derive(Clone, PartialEq, Message)]
struct Resource {
    #[prost(message, repeated, tag = "1")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct ScopeSpans {
    #[prost(message, repeated, tag = "2")]
    spans: Vec<Span>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Span {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) span_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    pub(crate) parent_span_id: Vec<u8>,
    #[prost(string, tag = "5")]
    pub(crate) name: String,
    #[prost(message, repeated, tag = "9")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct KeyValue {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<AnyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct AnyValue {
    #[prost(oneof = "Value", tags = "1, 3")]
    value: Option<Value>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Value {
    #[prost(string, tag = "1")]
    Text(String),
    #[prost(int64, tag = "3")]
    Number(i64),
}

fn text(attributes: &[KeyValue], key: &str) -> Option<String> {
    let attribute = attributes.iter().find(|attribute| attribute.key == key)?;
    Some(match attribute.value.as_ref()?.value.as_ref()? {
        Value::Text(text) => text.clone(),
        Value::Number(number) => number.to_string(),
    })
}

impl Span {
    pub(crate) fn attribute(&self, key: &str) -> Option<String> {
        text(&self.attributes, key)
    }
}

/// What came.
#[derive(Default)]
struct Kept {
    spans: Mutex<Vec<Span>>,
    services: Mutex<BTreeSet<String>>,
    headers: Mutex<Option<HeaderMap>>,
    requests: AtomicU64,
}

/// A collector, until it is dropped.
pub(crate) struct Collector {
    kept: Arc<Kept>,
    pub(crate) address: SocketAddr,
    _tasks: JoinSet<()>,
}

impl Collector {
    pub(crate) async fn start() -> Self {
        Self::on("127.0.0.1:0").await
    }

    pub(crate) async fn on(address: &str) -> Self {
        let kept = Arc::<Kept>::default();
        let listener = TcpListener::bind(address).await.expect("loopback has a free port");
        let address = listener.local_addr().expect("it is bound");
        let mut tasks = JoinSet::new();
        let take = {
            let kept = kept.clone();
            move |headers: HeaderMap, body: Bytes| {
                kept.take(headers, &body);
                async {}
            }
        };
        let limit = axum::extract::DefaultBodyLimit::max(64 << 20);
        let router = Router::new().route("/v1/traces", post(take)).layer(limit);
        tasks.spawn(async { axum::serve(listener, router).await.expect("it serves") });
        Self { kept, address, _tasks: tasks }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn spans(&self) -> Vec<Span> {
        self.kept.spans.lock().expect("no test panics while it holds this").clone()
    }

    /// The `service.name` of the senders.
    pub(crate) fn services(&self) -> Vec<String> {
        self.kept.services.lock().expect("no test panics while it holds this").iter().cloned().collect()
    }

    /// A header of the last request.
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        let headers = self.kept.headers.lock().expect("no test panics while it holds this");
        headers.as_ref()?.get(name)?.to_str().ok().map(str::to_owned)
    }

    pub(crate) fn requests(&self) -> u64 {
        self.kept.requests.load(Ordering::Relaxed)
    }

    /// Waits until what came is enough.
    pub(crate) async fn until(&self, what: &str, enough: impl Fn(&[Span]) -> bool) {
        let end = Instant::now() + Duration::from_secs(30);
        while !enough(&self.spans()) {
            assert!(Instant::now() < end, "{what}: not within 30 s, of {} spans", self.spans().len());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Kept {
    fn take(&self, headers: HeaderMap, body: &[u8]) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let mut plain = Vec::new();
        let body = if headers.get("content-encoding").is_some_and(|encoding| encoding == "gzip") {
            flate2::read::GzDecoder::new(body).read_to_end(&mut plain).expect("gzip");
            &plain[..]
        } else {
            body
        };
        let request = Request::decode(body).expect("a request of OTLP");
        for of_resource in request.resource_spans {
            let attributes = of_resource.resource.unwrap_or_default().attributes;
            let mut services = self.services.lock().expect("no test panics while it holds this");
            services.extend(text(&attributes, "service.name"));
            let mut spans = self.spans.lock().expect("no test panics while it holds this");
            spans.extend(of_resource.scope_spans.into_iter().flat_map(|of_scope| of_scope.spans));
        }
        *self.headers.lock().expect("no test panics while it holds this") = Some(headers);
    }
}

/// Ends TLS before a collector that speaks none. Where it listens; it ends with the returned tasks.
pub(crate) async fn behind_tls(to: SocketAddr, config: ServerConfig) -> (SocketAddr, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
    let address = listener.local_addr().expect("it is bound");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            connections.spawn(async move {
                let Ok(mut secure) = acceptor.accept(stream).await else { return };
                if let Ok(mut plain) = TcpStream::connect(to).await {
                    let _ = tokio::io::copy_bidirectional(&mut secure, &mut plain).await;
                }
            });
        }
    });
    (address, tasks)
}
