use std::{
    future::pending,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Mutex,
    time::SystemTime,
};

use fake_opentelemetry_collector::FakeCollectorServer;
use opentelemetry::{
    Value,
    trace::{SpanId, SpanKind, Status, TraceId},
};
use opentelemetry_otlp::WithExportConfig;
use opentelemetry_sdk::{
    error::{OTelSdkError, OTelSdkResult},
    trace::SpanData,
};
use tracing_subscriber::layer::SubscriberExt;

use super::{placed::elsewhere, *};
use crate::{
    id::{ClusterId, MemberId},
    ledger::{AttemptResult, Channel, Direction, LossReason, ProbeResult},
    telemetry::{self, Origin, ProbeTrace, TraceContext},
    wire::raftpb::{Entry, Message, MessageType},
    world::World,
};

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(10);

/// The other end of a connection, in the form that an IPv6 socket gives to an IPv4 address.
const PEER: SocketAddr = SocketAddr::new(IpAddr::V6(Ipv4Addr::new(10, 0, 0, 2).to_ipv6_mapped()), 2380);

/// A collector in memory.
#[derive(Clone, Debug, Default)]
struct Kept(Arc<Mutex<Vec<SpanData>>>);

impl SpanExporter for Kept {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.0.lock().expect("no test panics while it holds this").extend(batch);
        Ok(())
    }
}

/// A collector that refuses, or, with `None`, never answers.
#[derive(Debug)]
struct Bad(Option<&'static str>);

impl SpanExporter for Bad {
    async fn export(&self, _: Vec<SpanData>) -> OTelSdkResult {
        match self.0 {
            Some(why) => Err(OTelSdkError::InternalFailure(why.to_owned())),
            None => pending().await,
        }
    }
}

/// Runs `spans`, and returns the exported spans.
async fn exported(spans: impl FnOnce()) -> Vec<SpanData> {
    let kept = Kept::default();
    let export = Export::new(kept.clone(), SpanQueue::default());
    let subscriber = tracing_subscriber::registry().with(export.layer());
    tracing::subscriber::with_default(subscriber, spans);
    export.shutdown(LONG).await;
    std::mem::take(&mut *kept.0.lock().expect("no test panics while it holds this"))
}

fn append(index: u64) -> Message {
    Message {
        r#type: MessageType::MsgApp as i32,
        from: 1,
        to: 2,
        term: 3,
        log_term: 3,
        index,
        entries: vec![Entry { term: 3, index: index + 1, data: "payload".into(), ..Entry::default() }],
        ..Message::default()
    }
}

fn attribute(span: &SpanData, key: &str) -> Option<Value> {
    span.attributes.iter().find(|attribute| attribute.key.as_str() == key).map(|attribute| attribute.value.clone())
}

fn sample(message: &Message) -> super::super::TraceId {
    telemetry::Sampler::new(1.0, ClusterId(0x1000)).sample(message).expect("everything is sampled")
}

#[tokio::test(flavor = "multi_thread")]
async fn both_ends_of_a_message_are_in_one_trace_and_the_sender_is_the_parent() {
    let message = append(41);
    let trace = sample(&message);
    let spans = exported(|| {
        let send = telemetry::send_span(trace, &message, 99);
        send.channel(Channel::MsgApp);
        send.address(PEER);
        drop(send);
        drop(telemetry::receive_span(&World::default(), trace, &message, 99, &Origin::default()));
    })
    .await;
    let [send, receive] = &spans[..] else { panic!("two spans, not {spans:?}") };

    assert_eq!(send.name, "raft.send");
    assert_eq!(send.span_kind, SpanKind::Producer);
    assert_eq!(send.span_context.trace_id().to_string(), trace.to_string());
    assert_eq!(send.span_context.span_id().to_string(), trace.send_span_id().to_string());
    assert_eq!(send.parent_span_id, SpanId::INVALID);
    assert_eq!(send.status, Status::Unset);

    assert_eq!(receive.name, "raft.receive");
    assert_eq!(receive.span_kind, SpanKind::Consumer);
    assert_eq!(receive.span_context.trace_id(), send.span_context.trace_id());
    assert_eq!(receive.parent_span_id, send.span_context.span_id());
    assert!(receive.parent_span_is_remote);
    assert_ne!(receive.span_context.span_id(), send.span_context.span_id());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_messages_span_says_what_it_is_and_never_what_it_carries() {
    let message = append(41);
    let spans = exported(|| {
        let send = telemetry::send_span(sample(&message), &message, 99);
        send.channel(Channel::MsgApp);
        send.address(PEER);
        send.failed("stream_lost");
    })
    .await;
    let [send] = &spans[..] else { panic!("one span, not {spans:?}") };
    let mut attributes: Vec<String> =
        send.attributes.iter().map(|attribute| format!("{}={}", attribute.key, attribute.value)).collect();
    attributes.sort();
    assert_eq!(
        attributes,
        [
            "error.type=stream_lost",
            "messaging.destination.name=msgapp",
            "messaging.message.body.size=99",
            "messaging.operation.type=send",
            "messaging.system=raft",
            "network.peer.address=10.0.0.2",
            "network.peer.port=2380",
            "raft.entries=1",
            "raft.from=1",
            "raft.index=41",
            "raft.message.type=MsgApp",
            "raft.term=3",
            "raft.to=2",
        ]
    );
    assert!(matches!(attribute(send, "raft.index"), Some(Value::I64(41))), "numbers stay numbers");
    assert!(matches!(send.status, Status::Error { .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_header_of_a_dial_names_the_exported_span() {
    let mut header = None;
    let spans = exported(|| {
        let dial = telemetry::dial_span(&World::default(), MemberId(2), Channel::Message, "http://127.0.0.1:2380");
        header = dial.traceparent();
        dial.failed(AttemptResult::Timeout.label(), "no answer within 1s");
    })
    .await;
    let [dial] = &spans[..] else { panic!("one span, not {spans:?}") };
    let place = format!("00-{}-{}-01", dial.span_context.trace_id(), dial.span_context.span_id());
    assert_eq!(header.expect("spans are looked at"), place.as_str());
    assert_eq!(attribute(dial, "error.type"), Some("timeout".into()));
    assert_eq!(attribute(dial, "error.message"), Some("no answer within 1s".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_request_names_is_a_parent_where_the_rule_agrees_and_else_a_link() {
    let message = append(41);
    let trace = sample(&message);
    let sender = TraceContext { trace, span: trace.send_span_id() };
    let stranger = TraceContext { trace: super::super::TraceId(7), span: super::super::SpanId(9) };
    let origin = |span| Origin { address: Some(PEER), span: Some(span) };
    let spans = exported(|| {
        drop(telemetry::receive_span(&World::default(), trace, &message, 99, &origin(sender)));
        drop(telemetry::receive_span(&World::default(), trace, &message, 99, &origin(stranger)));
        let world = World::default();
        let point = telemetry::SnapshotPoint { index: 41, term: 3 };
        let snapshot = |span| telemetry::snapshot_span(&world, MemberId(2), Direction::In, point, trace, &origin(span));
        drop(snapshot(TraceContext { trace, ..stranger }));
        drop(snapshot(stranger));
    })
    .await;
    let found: Vec<_> = spans
        .iter()
        .map(|span| {
            assert_eq!(span.span_context.trace_id().to_string(), trace.to_string(), "the rule wins: {span:?}");
            assert_eq!(attribute(span, "network.peer.address"), Some("10.0.0.2".into()));
            (
                span.parent_span_id.to_string(),
                span.links.iter().map(|link| link.span_context.clone()).collect::<Vec<_>>(),
            )
        })
        .collect();
    let linked = vec![elsewhere(TraceId::from(7_u128), SpanId::from(9_u64))];
    assert_eq!(
        found,
        [
            (sender.span.to_string(), vec![]),
            (sender.span.to_string(), linked.clone()),
            (stranger.span.to_string(), vec![]),
            (SpanId::INVALID.to_string(), linked),
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_attached_within_its_dial_and_its_loss_is_linked_to_that() {
    let mut header = None;
    let spans = exported(|| {
        let dial = telemetry::dial_span(&World::default(), MemberId(2), Channel::Message, "http://127.0.0.1:2380");
        header = dial.traceparent();
        let asked = [(crate::wire::headers::TRACEPARENT, header.clone().expect("spans are looked at"))];
        let span = TraceContext::of_request(&asked.into_iter().collect());
        let origin = Origin { address: Some(PEER), span };
        let attached =
            telemetry::stream_attached(&World::default(), MemberId(1), Channel::Message, Direction::Out, &origin);
        telemetry::stream_lost(MemberId(1), Channel::Message, Direction::Out, LossReason::Stalled, Some(attached));
    })
    .await;
    let named = |name| spans.iter().find(|span| span.name == name).expect(name);
    let (dial, attached, lost) = (named("raft.dial"), named("raft.stream.attached"), named("raft.stream.lost"));
    assert_eq!(attached.span_context.trace_id(), dial.span_context.trace_id());
    assert_eq!(attached.parent_span_id, dial.span_context.span_id());
    assert_ne!(lost.span_context.trace_id(), dial.span_context.trace_id());
    let links: Vec<_> = lost.links.iter().map(|link| link.span_context.span_id()).collect();
    assert_eq!(links, [attached.span_context.span_id()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_probe_has_a_span_from_its_start_and_the_ids_of_its_header() {
    let before = SystemTime::now();
    let probe = ProbeTrace::start(&World::default());
    let header = probe.traceparent();
    tokio::time::sleep(Duration::from_millis(20)).await;
    let spans = exported(|| probe.failed(MemberId(2), "http://127.0.0.1:2380", ProbeResult::Timeout)).await;
    let [span] = &spans[..] else { panic!("one span, not {spans:?}") };
    assert!(span.start_time >= before);
    assert!(span.end_time.duration_since(span.start_time).expect("ends after it starts") >= Duration::from_millis(20));
    let place = format!("00-{}-{}-00", span.span_context.trace_id(), span.span_context.span_id());
    assert_eq!(header, place.as_str());
}

#[tokio::test(flavor = "multi_thread")]
async fn nobodys_spans_but_ours_are_exported_nor_become_parents() {
    let spans = exported(|| {
        let foreign = tracing::info_span!(target: "h2", "connection");
        let _inside = foreign.enter();
        telemetry::stream_attached(
            &World::default(),
            MemberId(2),
            Channel::Message,
            Direction::Out,
            &Origin::default(),
        );
    })
    .await;
    let [attached] = &spans[..] else { panic!("one span, not {spans:?}") };
    assert_eq!(attached.name, "raft.stream.attached");
    assert_eq!(attached.parent_span_id, SpanId::INVALID);
}

#[test]
fn where_nobody_looks_at_spans_a_request_names_no_trace() {
    let message = append(41);
    let blind = tracing_subscriber::registry().with(tracing_subscriber::filter::LevelFilter::OFF);
    tracing::subscriber::with_default(blind, || {
        assert_eq!(telemetry::send_span(sample(&message), &message, 99).traceparent(), None);
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_collector_refuses_is_counted() {
    let export = Export::new(Bad(Some("no thanks")), SpanQueue::default());
    let status = export.status();
    let subscriber = tracing_subscriber::registry().with(export.layer());
    tracing::subscriber::with_default(subscriber, || {
        for index in 0..3 {
            let message = append(index);
            drop(telemetry::send_span(sample(&message), &message, 99));
        }
    });
    timeout(LONG, export.shutdown(LONG)).await.expect("the end does not wait for the collector");
    assert_eq!(status(), TraceExportStatus { exported: 0, dropped: 3, waiting: 0, failures: 1 });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_never_answers_holds_a_bounded_queue_and_not_the_end() {
    const QUEUE: usize = 1000;
    let export = Export::new(Bad(None), SpanQueue { spans: QUEUE, ..SpanQueue::default() });
    let status = export.status();
    let subscriber = tracing_subscriber::registry().with(export.layer());
    let started = Instant::now();
    tracing::subscriber::with_default(subscriber, || {
        for index in 0..4000 {
            let message = append(index);
            drop(telemetry::send_span(sample(&message), &message, 99));
        }
    });
    let dropped = usize::try_from(status().dropped).expect("a small number");
    assert_eq!((dropped, status().waiting), (4000 - QUEUE, QUEUE as u64));
    let stopping = Instant::now();
    export.shutdown(LONG).await;
    assert!(stopping.elapsed() < PATIENCE + Duration::from_secs(1));
    assert_eq!(status(), TraceExportStatus { exported: 0, dropped: 4000, waiting: 0, failures: 0 });
    assert!(started.elapsed() < LONG);
}

/// Over the network, as an operator's collector sees it.
#[tokio::test(flavor = "multi_thread")]
async fn spans_reach_a_collector_over_grpc() {
    let mut collector = FakeCollectorServer::start().await.expect("loopback has a free port");
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_tonic()
        .with_endpoint(collector.endpoint())
        .build()
        .expect("a plain endpoint");
    let export = Export::new(exporter, SpanQueue::default());
    let status = export.status();
    let subscriber = tracing_subscriber::registry().with(export.layer());
    let message = append(41);
    let trace = sample(&message);
    tracing::subscriber::with_default(subscriber, || drop(telemetry::send_span(trace, &message, 99)));
    export.shutdown(LONG).await;

    let spans = collector.exported_spans(1, LONG).await;
    let [span] = &spans[..] else { panic!("one span, not {spans:?}") };
    assert_eq!(span.name, "raft.send");
    assert_eq!(span.trace_id, trace.to_string());
    assert_eq!(span.span_id, trace.send_span_id().to_string());
    assert_eq!(status(), TraceExportStatus { exported: 1, dropped: 0, waiting: 0, failures: 0 });
}

/// The client for HTTP needs the runtime's reactor; the default processor would not give it one.
#[tokio::test(flavor = "multi_thread")]
async fn spans_reach_a_collector_over_http() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
    let endpoint = format!("http://{}/v1/traces", listener.local_addr().expect("it is bound"));
    let (seen, mut requests) = tokio::sync::mpsc::unbounded_channel();
    let take = move |headers: axum::http::HeaderMap, body: axum::body::Bytes| {
        drop(seen.send((headers, body)));
        async {}
    };
    let router = axum::Router::new().route("/v1/traces", axum::routing::post(take));
    let collector = tokio::spawn(async { axum::serve(listener, router).await });
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .with_endpoint(endpoint)
        .build()
        .expect("a plain endpoint");
    let export = Export::new(exporter, SpanQueue::default());
    let status = export.status();
    let subscriber = tracing_subscriber::registry().with(export.layer());
    let message = append(41);
    let trace = sample(&message);
    tracing::subscriber::with_default(subscriber, || drop(telemetry::send_span(trace, &message, 99)));
    export.shutdown(LONG).await;

    let (headers, body) = timeout(LONG, requests.recv()).await.expect("it comes").expect("the collector runs");
    assert_eq!(headers["content-type"], "application/x-protobuf");
    let id = trace.0.to_be_bytes();
    assert!(body.windows(id.len()).any(|window| window == id), "the trace ID is in the body");
    assert_eq!(status(), TraceExportStatus { exported: 1, dropped: 0, waiting: 0, failures: 0 });
    collector.abort();
}
