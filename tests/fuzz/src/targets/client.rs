//! The SDK: what a broker sends it, and its own log of publishes.
//!
//! Input: for a broker's frames, a stream; sealed, of good ones. For the log, a file; sealed, its records have the right lengths and
//! checksums.

use std::sync::LazyLock;

use bytes::Bytes;
use carillon_client::probe::{Device, replay_log};
use carillon_protocol::Frame;
use carillon_protocol::decoder::Decoder;
use carillon_protocol::ids::{Incarnation, Position, ShardId, UserId};
use carillon_protocol::limits::FRAME_BYTES_MAX;
use carillon_protocol::session::Cursor;

use super::frames::golden;
use crate::input::Input;
use crate::seal::{put, u32_at};
use crate::{Budget, Target, seal};

pub(super) const BROKER: Target = Target {
    name: "broker",
    run: run_broker,
    // The sealed stream beside the input, and what the SDK keeps of each DING: some 100 bytes for a frame of 12.
    budget: Budget { per_byte: 16, fixed_bytes: 64 * 1024 },
    input_bytes_max: 16 * 1024,
    seeds: seeds_of_broker,
    words: &[],
    short_inputs: 60_000,
};

pub(super) const LOG: Target = Target {
    name: "client_log",
    run: run_log,
    // What a log says lies in maps, some 100 bytes for a record of 25.
    budget: Budget::fixed(96 * 1024),
    input_bytes_max: 16 * 1024,
    seeds: seeds_of_log,
    words: &[],
    short_inputs: 60_000,
};

/// That of the examples in `docs/PROTOCOL.md`, whose positions are from 900 on.
const SHARD: ShardId = ShardId(1);

fn run_broker(input: &[u8]) {
    let acknowledged = receive(Bytes::copy_from_slice(input));
    // Or nothing about acknowledgements is tested.
    static INBOX: LazyLock<Vec<u8>> = LazyLock::new(|| seeds_of_broker().swap_remove(0));
    assert!(acknowledged > 0 || input != *INBOX, "messages came, and none was acknowledged");
    receive(seal::frames(input, Frame::SHAPES).flatten().collect::<Vec<u8>>().into());
}

/// Returns how many acknowledgements would have been sent.
fn receive(stream: Bytes) -> usize {
    let (incarnation, position) = (Incarnation(7), Position(800));
    let cursor = Cursor { shard: SHARD, incarnation, position, receipts_through: position };
    let mut device = Device::new(cursor, Position(950), UserId(1));
    let mut decoder = Decoder::new(FRAME_BYTES_MAX);
    let mut received = position;
    let mut acknowledged = 0;
    decoder.push(stream);
    while let Ok(Some(raw)) = decoder.poll_frame() {
        let Ok(frame) = Frame::decode(&raw) else { break };
        received = received.max(position_of(&frame).unwrap_or_default());
        _ = (device.control(frame.clone()), device.urgent(frame.clone()));
        if let Ok(Some(event)) = device.inbox(frame) {
            assert!(!format!("{event:?}").is_empty());
        }
        for position in [received, Position(u64::MAX)] {
            acknowledged += usize::from(device.acknowledge(SHARD, position, received));
        }
    }
    acknowledged
}

/// Up to where an inbox frame says that this shard has come.
fn position_of(frame: &Frame) -> Option<Position> {
    let (shard, position) = match frame {
        Frame::Deliver(frame) => (frame.conversation.shard(), frame.position),
        Frame::Progress(frame) => (frame.shard, frame.position),
        Frame::Truncated(frame) => (frame.conversation.shard(), frame.position),
        Frame::Skipped(frame) => (frame.conversation.shard(), frame.position),
        _no_position => return None,
    };
    (shard == SHARD).then_some(position)
}

fn run_log(input: &[u8]) {
    check_log(input);
    check_log(&sealed_log(input));
}

fn check_log(log: &[u8]) {
    let (saved, again) = replay_log(Bytes::copy_from_slice(log));
    assert!(saved.unsettled.is_sorted_by(|a, b| a.number < b.number));
    assert!(saved.unsettled.iter().all(|publish| publish.number < saved.next || saved.next == u64::MAX));
    assert_eq!(replay_log(again).0, saved, "a log that was rewritten says the same");
}

/// Records as long as they say, or as there is.
fn sealed_log(input: &[u8]) -> Vec<u8> {
    let mut log = Vec::new();
    let mut input = Input::new(input);
    while !input.is_empty() {
        let mut head: [u8; 8] = input.array();
        let mut body = input.take((u32_at(&head, 0) as usize % 512).max(9)).to_vec();
        body.resize(body.len().max(9), 0);
        put(&mut head, 0, &u32::try_from(body.len()).unwrap().to_le_bytes());
        put(&mut head, 4, &crc32c::crc32c(&body).to_le_bytes());
        log.extend(head);
        log.extend(body);
    }
    log
}

fn seeds_of_broker() -> Vec<Vec<u8>> {
    let frames = golden();
    // Those of the inbox, those of the urgent lane, and all.
    let of = |kinds: &[u8]| frames.iter().filter(|frame| kinds.contains(&frame[4])).flatten().copied().collect();
    let system = seal::frames(&system_message(), Frame::SHAPES).flatten().collect::<Vec<u8>>();
    vec![of(&[0x05, 0x06, 0x07, 0x13]), of(&[0x32, 0x37, 0x3f, 0x5a]), frames.concat(), system]
}

/// A message of the broker's own, which has a frame inside.
fn system_message() -> Vec<u8> {
    let changed = golden().into_iter().find(|frame| frame[4] == 0x49).unwrap_or_default();
    let mut deliver = golden().into_iter().find(|frame| frame[4] == 0x13).unwrap();
    deliver.truncate(8 + 36);
    deliver.push(7);
    deliver.extend(u32::try_from(changed.len()).unwrap().to_le_bytes());
    deliver.extend(changed);
    deliver
}

fn seeds_of_log() -> Vec<Vec<u8>> {
    let record = |body: &[u8]| [&u32::try_from(body.len()).unwrap().to_le_bytes()[..], &[0; 4], body].concat();
    let numbered = |kind: u8, number: u64, rest: &[u8]| record(&[&[kind][..], &number.to_le_bytes(), rest].concat());
    let publish = [&[2][..], &7u64.to_le_bytes(), &[1], b"hello"].concat();
    let log = [
        numbered(3, 5, &[]),
        numbered(1, 6, &publish),
        numbered(1, 7, &publish),
        numbered(2, 6, &[]),
        numbered(4, 0, &[]),
        numbered(5, 3, &[]),
    ];
    vec![sealed_log(&log.concat())]
}
