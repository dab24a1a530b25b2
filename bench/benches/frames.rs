//! The codec: what every message costs on its way in and out, the network apart.

use std::hint::black_box;

use bytes::BytesMut;
use carillon_bench::{SHARD, chunk_of_delivers, deliver, publish};
use carillon_protocol::decoder::Decoder;
use carillon_protocol::deliver::Deliver;
use carillon_protocol::frame::{Body, RawFrame};
use carillon_protocol::ids::{ConversationId, Seq};
use carillon_protocol::limits::FRAME_BYTES_MAX;
use criterion::{Criterion, Throughput};

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    frame(&mut criterion, "deliver", &deliver(Seq(1)));
    frame(&mut criterion, "publish", &publish(1, ConversationId::new(SHARD, 7)));
    decoder(&mut criterion);
    criterion.final_summary();
}

/// One frame into a buffer that has room, and one frame back from its bytes.
fn frame<T: Body>(criterion: &mut Criterion, name: &str, frame: &T) {
    let mut group = criterion.benchmark_group(name);
    let mut out = BytesMut::with_capacity(1024);
    group.bench_function("encode", |bencher| {
        bencher.iter(|| {
            out.clear();
            black_box(frame).encode(&mut out);
        });
    });
    let bytes = frame.to_bytes();
    group.bench_function("decode", |bencher| {
        bencher.iter(|| {
            let raw = RawFrame::new(black_box(bytes.clone())).expect("a whole frame");
            T::decode(&raw).expect("it decodes")
        });
    });
    group.finish();
}

/// A chunk of a stream cut into frames: whole, and with every frame's fields read.
fn decoder(criterion: &mut Criterion) {
    let chunk = chunk_of_delivers();
    let mut group = criterion.benchmark_group("decoder");
    group.throughput(Throughput::Bytes(chunk.len() as u64));
    let mut decoder = Decoder::new(FRAME_BYTES_MAX);
    group.bench_function("cut_64k", |bencher| {
        bencher.iter(|| {
            decoder.push(chunk.clone());
            let mut frames = 0_u32;
            while let Some(raw) = decoder.poll_frame().expect("frames") {
                black_box(&raw);
                frames += 1;
            }
            frames
        });
    });
    group.bench_function("cut_and_decode_64k", |bencher| {
        bencher.iter(|| {
            decoder.push(chunk.clone());
            while let Some(raw) = decoder.poll_frame().expect("frames") {
                black_box(Deliver::decode(&raw).expect("a deliver"));
            }
        });
    });
    group.finish();
}
