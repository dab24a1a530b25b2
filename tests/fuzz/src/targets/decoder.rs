//! The incremental decoder: the same bytes, cut anywhere, give the same frames and the same error.
//!
//! Input: how many sizes of chunks, those sizes, and the stream.

use bytes::Bytes;
use carillon_protocol::Frame;
use carillon_protocol::decoder::Decoder;
use carillon_protocol::frame::{FrameError, RawFrame};
use carillon_protocol::limits::{FRAME_BYTES_MAX, HELLO_BYTES_MAX};

use super::frames::{check_decoded, golden};
use crate::input::Input;
use crate::{Budget, Target, seal};

pub(super) const TARGET: Target = Target {
    name: "decoder",
    run,
    // Lists of frames twice, and the room that a buffer has doubled to.
    budget: Budget::fixed(16 * 1024),
    input_bytes_max: 16 * 1024,
    seeds,
    words: &[],
    short_inputs: 100_000,
};

fn run(input: &[u8]) {
    let mut input = Input::new(input);
    let sizes: Vec<usize> = (0..=input.u8() % 8).map(|_| 1 + usize::from(input.u8())).collect();
    check(Bytes::copy_from_slice(input.rest()), &sizes);
    let sealed = seal::frames(input.rest(), Frame::SHAPES).flatten().collect::<Vec<u8>>();
    assert_eq!(check(sealed.into(), &sizes), None, "a stream of good frames");
}

fn check(stream: Bytes, sizes: &[usize]) -> Option<FrameError> {
    for frame_bytes_max in [HELLO_BYTES_MAX, FRAME_BYTES_MAX] {
        let whole = decode(&stream, frame_bytes_max, &[usize::MAX]);
        let cut = decode(&stream, frame_bytes_max, sizes);
        assert_eq!(whole, cut, "in chunks of {sizes:?}");
        let mut rest = &stream[..];
        for raw in &whole.0 {
            assert!(raw.bytes.len() <= frame_bytes_max);
            rest = rest.strip_prefix(&raw.bytes[..]).expect("frames are the stream's bytes, in order");
            check_decoded(raw);
        }
        if frame_bytes_max == FRAME_BYTES_MAX {
            return whole.1;
        }
    }
    None
}

fn decode(stream: &Bytes, frame_bytes_max: usize, sizes: &[usize]) -> (Vec<RawFrame>, Option<FrameError>) {
    let mut decoder = Decoder::new(frame_bytes_max);
    let (mut rest, mut frames) = (stream.clone(), Vec::new());
    for size in sizes.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        decoder.push(rest.split_to((*size).min(rest.len())));
        loop {
            match decoder.poll_frame() {
                Ok(Some(raw)) => frames.push(raw),
                Ok(None) => break,
                Err(error) => {
                    assert_eq!(decoder.poll_frame(), Err(error), "it says the same again");
                    return (frames, Some(error));
                }
            }
        }
    }
    (frames, None)
}

fn seeds() -> Vec<Vec<u8>> {
    let all: Vec<Vec<u8>> = golden();
    let few = all.chunks(12).map(|frames| frames.concat());
    few.enumerate().map(|(nth, stream)| [&[1, 7 + u8::try_from(nth).unwrap(), 40][..], &stream].concat()).collect()
}
