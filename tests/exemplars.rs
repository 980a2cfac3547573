//! The traces that the histograms of a member's times name.

#![cfg(feature = "otlp")]

mod support;

use rafthttp::{
    SnapshotBody, SnapshotStore,
    metrics::{Channel, Exemplar, Exposition, Format, Histogram, Options},
    telemetry::{Sampler, TraceId},
    wire::raftpb::{Message, MessageType, Snapshot, SnapshotMetadata},
};
use support::{CLUSTER, TestMember, append, connected, lock, until};
use tracing::subscriber::DefaultGuard;

/// Someone looks at the spans that this thread makes.
fn looking() -> DefaultGuard {
    tracing::subscriber::set_default(tracing_subscriber::registry())
}

async fn pair(ratio: f64) -> (TestMember, TestMember) {
    let store = SnapshotStore::open(tempfile::tempdir().expect("a directory").keep()).expect("a store");
    let one = TestMember::start_with(1, |one| one.trace_ratio(ratio)).await;
    let two = TestMember::start_with(2, |two| two.trace_ratio(ratio).snapshots(store)).await;
    one.add(&two);
    two.add(&one);
    connected(&one, &two).await;
    (one, two)
}

fn trace(message: &Message) -> TraceId {
    Sampler::new(1.0, CLUSTER).trace_id(message)
}

fn answer(index: u64) -> Message {
    let kind = MessageType::MsgAppResp as i32;
    Message { r#type: kind, from: 2, to: 1, term: 1, index, ..Message::default() }
}

fn snapshot(index: u64) -> Message {
    let metadata = Some(SnapshotMetadata { index, term: 1, ..SnapshotMetadata::default() });
    let snapshot = Some(Snapshot { metadata, ..Snapshot::default() }.into());
    Message { r#type: MessageType::MsgSnap as i32, from: 1, to: 2, term: 1, snapshot, ..Message::default() }
}

fn out(member: &TestMember, channel: Channel) -> Histogram {
    member.transport.peers()[0].outgoing.queue_seconds[channel].clone()
}

fn taken(member: &TestMember) -> Histogram {
    member.transport.peers()[0].incoming.process_seconds.clone()
}

fn round_trip(member: &TestMember) -> Histogram {
    member.transport.peers()[0].outgoing.append_round_trip.clone()
}

/// The exemplar that names this trace.
fn of(histogram: &Histogram, trace: TraceId) -> Option<Exemplar> {
    histogram.exemplars().find(|exemplar| exemplar.context.trace == trace).copied()
}

#[tokio::test]
async fn a_traced_append_is_named_by_each_time_that_it_takes() {
    let _looking = looking();
    let (one, two) = pair(1.0).await;
    let message = append(1, 2, 1, b"x");
    let trace = trace(&message);
    one.transport.send(vec![message]);
    until("taken", || two.taken() == 1).await;
    two.transport.send(vec![answer(1)]);
    until("answered", || one.taken() == 1).await;

    let sent = of(&out(&one, Channel::MsgApp), trace).expect("from send to written");
    assert_eq!(sent.context.span, trace.send_span_id());
    let there_and_back = of(&round_trip(&one), trace).expect("from written to answered");
    assert_eq!(there_and_back.context.span, trace.send_span_id());
    assert!(there_and_back.time >= sent.time);
    until("the time that it took was noted", || taken(&two).count() == 1).await;
    let processed = of(&taken(&two), trace).expect("in the application");
    assert_ne!(processed.context.span, trace.send_span_id(), "the receiver's own span");
    for (histogram, exemplar) in
        [(out(&one, Channel::MsgApp), sent), (round_trip(&one), there_and_back), (taken(&two), processed)]
    {
        // The histogram has one observation: this one.
        assert_eq!((histogram.count(), histogram.sum()), (1, exemplar.seconds));
    }
}

#[tokio::test]
async fn what_goes_by_requests_is_named_too() {
    let _looking = looking();
    let (one, two) = pair(1.0).await;
    let posted = snapshot(5);
    one.transport.send(vec![posted.clone()]);
    until("posted", || out(&one, Channel::Pipeline).count() == 1).await;
    assert!(of(&out(&one, Channel::Pipeline), trace(&posted)).is_some());
    assert!(of(&taken(&two), trace(&posted)).is_some());

    let with_body = snapshot(6);
    let body = SnapshotBody::from_stream(futures_util::stream::iter([Ok("data".into())]), Some(4));
    one.transport.send_snapshot(with_body.clone(), body);
    until("delivered", || out(&one, Channel::Snapshot).count() == 1).await;
    assert!(of(&out(&one, Channel::Snapshot), trace(&with_body)).is_some());
    assert!(of(&taken(&two), trace(&with_body)).is_some());
}

#[tokio::test]
async fn what_is_not_traced_or_not_taken_is_not_named() {
    let _looking = looking();
    let (one, two) = pair(0.0).await;
    one.transport.send(vec![append(1, 2, 1, b"x")]);
    until("taken", || taken(&two).count() == 1).await;
    for histogram in [out(&one, Channel::MsgApp), taken(&two)] {
        assert_eq!((histogram.count(), histogram.exemplars().count()), (1, 0));
    }

    let (one, two) = pair(1.0).await;
    *lock(&two.raft.refuses) = true;
    one.transport.send(vec![append(1, 2, 1, b"x")]);
    until("refused", || two.transport.peers()[0].incoming.rejected.total() == 1).await;
    assert_eq!((taken(&two).count(), taken(&two).exemplars().count()), (0, 0));
    assert_eq!(out(&one, Channel::MsgApp).exemplars().count(), 1, "it was sent all the same");
}

#[tokio::test]
async fn however_much_is_traced_a_bucket_has_one_exemplar() {
    let _looking = looking();
    let (one, two) = pair(1.0).await;
    for index in 1..=2000 {
        one.transport.send(vec![append(1, 2, index, b"x")]);
        if index % 100 == 0 {
            until("taken", || two.taken() == usize::try_from(index).unwrap_or(0)).await;
            two.transport.send(vec![answer(index)]);
        }
    }
    until("answered", || one.taken() == 20).await;
    for histogram in [out(&one, Channel::MsgApp), round_trip(&one), taken(&two)] {
        let (count, exemplars) = (histogram.count(), histogram.exemplars().count());
        assert!(count > 10 && (1..=Histogram::BOUNDS.len() + 1).contains(&exemplars), "{count}: {exemplars}");
    }
    // In the text, each stands at a bucket that holds it, in OpenMetrics alone.
    let text = |format: Format| -> String {
        let pieces = Exposition::new(one.status(), &Options::default()).format(format);
        pieces.map(|piece| String::from_utf8(piece.to_vec()).expect("text")).collect()
    };
    assert!(!text(Format::Text).contains(" # {"));
    let open_metrics = text(Format::OpenMetrics);
    let with_exemplar: Vec<&str> = open_metrics.lines().filter(|line| line.contains(" # {")).collect();
    assert!(with_exemplar.len() >= 2, "{open_metrics}");
    for line in with_exemplar {
        let (sample, exemplar) = line.split_once(" # ").expect("it has one");
        let edge: f64 = sample
            .split("le=\"")
            .nth(1)
            .and_then(|rest| rest.split('"').next())
            .expect("a bucket")
            .parse()
            .expect("a number");
        let value: f64 = exemplar.split(' ').nth(1).expect("a value").parse().expect("a number");
        let below = if edge == Histogram::BOUNDS[0] { 0.0 } else { edge / 2.1 };
        assert!(value <= edge && value > below, "{line}");
    }
}
