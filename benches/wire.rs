//! What a message costs at either end of a msgapp stream, without a connection between them.

#[path = "support/append.rs"]
mod append;

use std::hint::black_box;

use append::{READER, WRITER, append};
use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rafthttp::{
    internals::wire::{
        FrameLimits,
        frames::FrameBuffer,
        message::Item,
        stream::{StreamDecoder, StreamEncoder},
    },
    wire::{StreamKind, raftpb::Message},
};

/// Messages in a buffer that is decoded in one go: what one read of a busy connection brings.
const BATCH: u64 = 256;

fn drain(frames: &mut FrameBuffer) {
    while let Some(piece) = frames.pop() {
        black_box(piece);
    }
}

fn encode(criterion: &mut Criterion, kind: StreamKind, size: usize) {
    let data = Bytes::from(vec![b'x'; size]);
    let messages: Vec<Message> = (1..=BATCH).map(|index| append(index, &data)).collect();
    let mut group = criterion.benchmark_group("encode");
    group.throughput(Throughput::Elements(BATCH));
    group.bench_function(format!("{}/{size}", kind.segment()), |bencher| {
        let mut frames = FrameBuffer::new();
        bencher.iter(|| {
            let mut encoder = StreamEncoder::new(kind, WRITER, READER);
            messages.iter().for_each(|message| encoder.encode(black_box(message), &mut frames));
            drain(&mut frames);
        });
    });
}

/// `piece`: the bytes that one read of the connection brings.
fn decode(criterion: &mut Criterion, kind: StreamKind, size: usize, piece: usize) {
    let data = Bytes::from(vec![b'x'; size]);
    let mut encoder = StreamEncoder::new(kind, WRITER, READER);
    let mut frames = FrameBuffer::new();
    (1..=BATCH).for_each(|index| encoder.encode(&append(index, &data), &mut frames));
    let stream: Bytes = std::iter::from_fn(|| frames.pop()).flatten().collect();
    let mut group = criterion.benchmark_group("decode");
    group.throughput(Throughput::Elements(BATCH));
    group.bench_function(format!("{}/{size}", kind.segment()), |bencher| {
        bencher.iter(|| {
            let mut decoder = StreamDecoder::new(kind, READER, WRITER, FrameLimits::default());
            let (mut left, mut read) = (stream.clone(), 0);
            while !left.is_empty() {
                let mut input = left.split_to(piece.min(left.len()));
                while let Some(item) = decoder.next(&mut input).expect("our own frames") {
                    read += u64::from(matches!(black_box(item), Item::Message(_)));
                }
            }
            assert_eq!(read, BATCH);
        });
    });
}

fn appends(criterion: &mut Criterion) {
    for kind in StreamKind::ALL {
        for size in [128, 64 << 10] {
            encode(criterion, kind, size);
            decode(criterion, kind, size, 128 << 10);
        }
    }
}

criterion_group!(wire, appends);
criterion_main!(wire);
