//! Every frame: what can be decoded is written to bytes that say the same; a good frame to the same bytes.
//!
//! Input: one frame; sealed, as many as its bytes make.

use bytes::{Bytes, BytesMut};
use carillon_protocol::Frame;
use carillon_protocol::error::ErrorCode;
use carillon_protocol::frame::RawFrame;

use crate::{Budget, Target, seal};

pub(super) const TARGET: Target = Target {
    name: "frames",
    run,
    budget: Budget::fixed(4 * 1024),
    input_bytes_max: 16 * 1024,
    seeds: golden,
    words: &[],
    short_inputs: 200_000,
};

fn run(input: &[u8]) {
    match RawFrame::new(Bytes::copy_from_slice(input)) {
        Ok(raw) => check_decoded(&raw),
        Err(error) => assert_eq!(error.close_code(), ErrorCode::MALFORMED),
    }
    for sealed in seal::frames(input, Frame::SHAPES) {
        let sealed = Bytes::from(sealed);
        let raw = RawFrame::new(sealed.clone()).expect("its lengths fit");
        let frame = Frame::decode(&raw).expect("its parts fit");
        assert_eq!(encode(&frame, sealed.len()), sealed, "{}", frame.name());
    }
}

/// Decodes a frame, if it is one; what is written from it must say the same.
pub(super) fn check_decoded(raw: &RawFrame) {
    match Frame::decode(raw) {
        Ok(frame) => {
            let written = RawFrame::new(encode(&frame, raw.bytes.len())).expect("what was written is whole");
            assert_eq!(Frame::decode(&written).as_ref(), Ok(&frame));
        }
        Err(error) => assert_eq!(error.close_code(), ErrorCode::MALFORMED),
    }
}

/// The bytes of a frame, some `bytes`: room for them is made once, since growing to it would take twice as much.
fn encode(frame: &Frame, bytes: usize) -> Bytes {
    let mut out = BytesMut::with_capacity(bytes);
    frame.encode(&mut out);
    out.freeze()
}

/// The examples of `docs/PROTOCOL.md`: one frame of each kind.
pub(super) fn golden() -> Vec<Vec<u8>> {
    let page = include_str!("../../../../docs/PROTOCOL.md");
    let blocks = page.split("```hex\n").skip(1).map(|block| block.split("```").next().unwrap());
    let digits = |block: &str| -> String {
        let lines = block.lines().filter(|line| !line.starts_with('#'));
        lines.flat_map(str::chars).filter(|digit| !digit.is_whitespace()).collect()
    };
    blocks.map(|block| hex::decode(digits(block)).unwrap()).collect()
}
