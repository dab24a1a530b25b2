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
    // The sizes, and the room that a buffer has doubled to.
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

/// Frame by frame, without a list of them: it would be larger than the stream.
fn check(stream: Bytes, sizes: &[usize]) -> Option<FrameError> {
    for frame_bytes_max in [HELLO_BYTES_MAX, FRAME_BYTES_MAX] {
        let mut whole = Decoder::new(frame_bytes_max);
        whole.push(stream.clone());
        let mut rest = &stream[..];
        let error = decode(&stream, frame_bytes_max, sizes, |raw| {
            assert!(raw.bytes.len() <= frame_bytes_max);
            rest = rest.strip_prefix(&raw.bytes[..]).expect("frames are the stream's bytes, in order");
            check_decoded(&raw);
            assert_eq!(whole.poll_frame(), Ok(Some(raw)), "in chunks of {sizes:?}");
        });
        assert_eq!(whole.poll_frame(), error.map_or(Ok(None), Err), "in chunks of {sizes:?}");
        if frame_bytes_max == FRAME_BYTES_MAX {
            return error;
        }
    }
    None
}

fn decode(
    stream: &Bytes,
    frame_bytes_max: usize,
    sizes: &[usize],
    mut each: impl FnMut(RawFrame),
) -> Option<FrameError> {
    let mut decoder = Decoder::new(frame_bytes_max);
    let mut rest = stream.clone();
    for size in sizes.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        decoder.push(rest.split_to((*size).min(rest.len())));
        loop {
            match decoder.poll_frame() {
                Ok(Some(raw)) => each(raw),
                Ok(None) => break,
                Err(error) => {
                    assert_eq!(decoder.poll_frame(), Err(error), "it says the same again");
                    return Some(error);
                }
            }
        }
    }
    None
}

fn seeds() -> Vec<Vec<u8>> {
    let all: Vec<Vec<u8>> = golden();
    let few = all.chunks(12).map(|frames| frames.concat());
    few.enumerate().map(|(nth, stream)| [&[1, 7 + u8::try_from(nth).unwrap(), 40][..], &stream].concat()).collect()
}
