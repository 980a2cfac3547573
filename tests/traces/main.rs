//! Traces of two processes, as a collector gets them.

#[path = "../support/binary.rs"]
mod binary;
#[path = "../support/mod.rs"]
mod support;

mod bench;
mod collector;
mod export;

use std::collections::{BTreeMap, BTreeSet};

use bench::Bench;
use collector::{Collector, Span};

/// What the variables say for an export of everything to a collector.
fn to(collector: &Collector) -> Vec<(&'static str, String)> {
    vec![("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint())]
}

/// The appends' spans of one end, by their trace.
fn appends<'a>(spans: &'a [Span], name: &str) -> BTreeMap<&'a [u8], &'a Span> {
    let named = spans.iter().filter(|span| span.name == name);
    let of_appends = named.filter(|span| span.attribute("raft.message.type").as_deref() == Some("MsgApp"));
    of_appends.map(|span| (&span.trace_id[..], span)).collect()
}

/// Runs `messages` appends at distinct indexes with this ratio. What became of them.
async fn traced(messages: u64, ratio: &'static str) -> Vec<Span> {
    let collector = Collector::start().await;
    for side in (Bench { messages, ratio, environment: to(&collector) }).run().await {
        assert!(side.status.success(), "{}", side.log);
        assert!(!side.log.contains("could not be exported"), "{}", side.log);
        assert!(!side.log.contains("spans cannot be exported"), "{}", side.log);
    }
    collector.spans()
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_appends_are_ten_thousand_traces_with_both_ends() {
    let spans = traced(10_000, "1").await;
    let (sent, received) = (appends(&spans, "raft.send"), appends(&spans, "raft.receive"));
    assert_eq!((sent.len(), received.len()), (10_000, 10_000));
    for (trace, receive) in received {
        let send = sent.get(trace).expect("both ends are in one trace");
        assert_eq!(receive.parent_span_id, send.span_id);
        for key in ["raft.index", "raft.term", "raft.from", "raft.to", "messaging.message.body.size"] {
            assert_eq!(receive.attribute(key), send.attribute(key), "{key}");
        }
        assert_eq!(send.attribute("network.peer.address").as_deref(), Some("127.0.0.1"));
        assert_eq!(receive.attribute("network.peer.address").as_deref(), Some("127.0.0.1"));
        assert_ne!(receive.attribute("network.peer.port"), send.attribute("network.peer.port"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_in_ten_is_the_same_on_both_ends() {
    let spans = traced(10_000, "0.1").await;
    let (sent, received) = (appends(&spans, "raft.send"), appends(&spans, "raft.receive"));
    assert_eq!(sent.keys().collect::<BTreeSet<_>>(), received.keys().collect());
    // Five standard deviations; the hash of these messages is fixed, so this passes always or never.
    assert!((850..=1150).contains(&sent.len()), "{}", sent.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ratio_of_nothing_traces_no_message_and_still_what_is_rare() {
    let spans = traced(10_000, "0").await;
    let names: BTreeSet<&str> = spans.iter().map(|span| span.name.as_str()).collect();
    assert!(!names.contains("raft.send") && !names.contains("raft.receive"), "{names:?}");
    assert!(names.contains("raft.dial") && names.contains("raft.stream.attached"), "{names:?}");
    assert!(spans.len() < 100, "{}", spans.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_attached_on_both_sides_within_the_dial_that_asked_for_it() {
    let spans = traced(1, "0").await;
    let attached: Vec<&Span> = spans.iter().filter(|span| span.name == "raft.stream.attached").collect();
    assert!(attached.len() >= 8, "four streams, two ends each: {attached:?}");
    for span in attached {
        let dial = spans.iter().find(|dial| dial.span_id == span.parent_span_id).expect("its dial");
        assert_eq!((dial.name.as_str(), &dial.trace_id), ("raft.dial", &span.trace_id));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_our_own_spans_are_exported() {
    let spans = traced(100, "1").await;
    assert!(spans.iter().all(|span| span.name.starts_with("raft.")), "{spans:?}");
}
