//! The codec, alone.

use std::hint::black_box;

use bytes::{Bytes, BytesMut};
use carillon_bench::{SHARD, as_received, chunk_of_delivers, deliver, publish};
use carillon_protocol::decoder::Decoder;
use carillon_protocol::deliver::Deliver;
use carillon_protocol::frame::{Body, RawFrame};
use carillon_protocol::ids::{ConversationId, Seq};
use carillon_protocol::limits::FRAME_BYTES_MAX;
use carillon_protocol::publish::Publish;
use gungraun::{library_benchmark, library_benchmark_group};

fn a_deliver() -> Deliver {
    deliver(Seq(1))
}

fn a_publish() -> Publish {
    publish(1, ConversationId::new(SHARD, 7))
}

/// A frame to be written, and a buffer that has room for it.
fn with_room<T>(frame: T) -> (T, BytesMut) {
    (frame, BytesMut::with_capacity(1_024))
}

fn encoded(frame: &impl Body) -> Bytes {
    let mut bytes = BytesMut::new();
    frame.encode(&mut bytes);
    as_received(bytes)
}

fn encode<T: Body>((frame, mut out): (T, BytesMut)) -> (T, BytesMut) {
    for _ in 0..1_000 {
        out.clear();
        black_box(&frame).encode(&mut out);
    }
    (frame, out)
}

fn decode<T: Body>(bytes: &Bytes) {
    for _ in 0..1_000 {
        let raw = RawFrame::new(black_box(bytes.clone())).expect("a whole frame");
        black_box(T::decode(&raw).expect("it decodes"));
    }
}

#[library_benchmark]
#[bench::times_1000(with_room(a_deliver()))]
fn deliver_encode(work: (Deliver, BytesMut)) -> (Deliver, BytesMut) {
    encode(work)
}

#[library_benchmark]
#[bench::times_1000(encoded(&a_deliver()))]
fn deliver_decode(bytes: Bytes) -> Bytes {
    decode::<Deliver>(&bytes);
    bytes
}

#[library_benchmark]
#[bench::times_1000(with_room(a_publish()))]
fn publish_encode(work: (Publish, BytesMut)) -> (Publish, BytesMut) {
    encode(work)
}

#[library_benchmark]
#[bench::times_1000(encoded(&a_publish()))]
fn publish_decode(bytes: Bytes) -> Bytes {
    decode::<Publish>(&bytes);
    bytes
}

#[library_benchmark]
#[bench::times_10((Decoder::new(FRAME_BYTES_MAX), chunk_of_delivers()))]
fn decoder_cut_and_decode_64k((mut decoder, chunk): (Decoder, Bytes)) -> (Decoder, Bytes) {
    for _ in 0..10 {
        decoder.push(chunk.clone());
        while let Some(raw) = decoder.poll_frame().expect("frames") {
            black_box(Deliver::decode(&raw).expect("a deliver"));
        }
    }
    (decoder, chunk)
}

library_benchmark_group!(
    name = codec;
    benchmarks = deliver_encode, deliver_decode, publish_encode, publish_decode, decoder_cut_and_decode_64k
);
