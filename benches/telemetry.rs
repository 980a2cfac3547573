//! What deciding about a trace costs a message, and what a traced one costs.
//!
//! A message that is not sampled must cost well under 50 ns, one at a ratio of 0 next to nothing.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{Criterion, criterion_group, criterion_main};
use rafthttp::{
    id::ClusterId,
    internals::telemetry::send_span,
    telemetry::Sampler,
    wire::raftpb::{Entry, Message, MessageType},
};

fn append(data: usize) -> Message {
    let entry = Entry { term: 3, index: 42, data: Bytes::from(vec![7; data]), ..Entry::default() };
    Message {
        r#type: MessageType::MsgApp as i32,
        from: 1,
        to: 2,
        term: 3,
        log_term: 3,
        index: 41,
        entries: vec![entry],
        ..Message::default()
    }
}

fn decide(criterion: &mut Criterion) {
    let cluster = ClusterId(0x1000);
    let message = append(128);
    let proposal = Message { r#type: MessageType::MsgProp as i32, ..append(128) };
    let off = Sampler::new(0.0, cluster);
    let rare = Sampler::new(0.001, cluster);
    let mut group = criterion.benchmark_group("sample");
    group.bench_function("ratio 0", |bencher| bencher.iter(|| off.sample(black_box(&message))));
    group.bench_function("not sampled", |bencher| bencher.iter(|| rare.sample(black_box(&message))));
    group.bench_function("not sampled, proposal", |bencher| bencher.iter(|| rare.sample(black_box(&proposal))));
    group.finish();
}

fn trace(criterion: &mut Criterion) {
    let message = append(128);
    let sampler = Sampler::new(1.0, ClusterId(0x1000));
    criterion.bench_function("span that nobody looks at", |bencher| {
        bencher.iter(|| sampler.sample(black_box(&message)).map(|trace| send_span(trace, &message, 150)));
    });
}

criterion_group!(benches, decide, trace);
criterion_main!(benches);
