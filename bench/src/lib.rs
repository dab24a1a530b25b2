//! What the benches share: a shard with a group of any size, the frames of a small message, a journal in a directory.
//!
//! Owns set-up only; what is measured, and how, stands in each bench. Everything here panics where it fails: a bench whose
//! set-up is wrong measures nothing.

use bytes::{Bytes, BytesMut};
use carillon_protocol::deliver::Deliver;
use carillon_protocol::frame::{Body, RawFrame};
use carillon_protocol::ids::{ConversationId, Position, Seq, ShardId, Timestamp, UserId};
use carillon_protocol::kinds::{MessageKind, Target};
use carillon_protocol::publish::Publish;

pub mod catch_up;
pub mod dings;
pub mod group;
pub mod index;
pub mod record;
pub mod sink;
pub mod stage;

/// A chat message of average length, and the payload of the project's other measurements.
pub const PAYLOAD_BYTES: usize = 128;

/// What an edge takes from a stream at once.
const CHUNK_BYTES: usize = 64 * 1024;

/// The shard of every bench.
pub const SHARD: ShardId = ShardId(0);

/// The time of every input: the shard's own time never goes back, and nothing here waits for a timer.
pub const NOW: Timestamp = Timestamp(1_700_000_000_000);

/// The payload of every message.
pub fn payload() -> Bytes {
    Bytes::from(vec![b'x'; PAYLOAD_BYTES])
}

/// A message as a client publishes it. `low` is `number`: everything before is settled.
pub fn publish(number: u64, conversation: ConversationId) -> Publish {
    Publish {
        number,
        low: number,
        target: Target::CONVERSATION,
        target_id: conversation.0,
        kind: MessageKind::TEXT,
        payload: payload(),
    }
}

/// A frame as its receiver has it: its payload and texts are slices of the bytes that came.
///
/// # Panics
/// If it is a frame that no peer would send.
pub fn received<T: Body>(frame: &T) -> T {
    let mut bytes = BytesMut::new();
    frame.encode(&mut bytes);
    let raw = RawFrame::new(as_received(bytes)).expect("a whole frame");
    T::decode(&raw).expect("it decodes")
}

/// Bytes as they come from a connection, which has slices of them elsewhere: the first slice of bytes that nobody else has a part of
/// is an allocation.
pub fn as_received(bytes: BytesMut) -> Bytes {
    let bytes = bytes.freeze();
    let slice = bytes.clone();
    drop(bytes);
    slice
}

/// The same message as it is delivered.
pub fn deliver(seq: Seq) -> Deliver {
    Deliver {
        position: Position(seq.0 + 100),
        conversation: ConversationId::new(SHARD, 7),
        seq,
        author: UserId(3),
        time: NOW,
        kind: MessageKind::TEXT,
        payload: payload(),
    }
}

/// As many whole deliver frames as fit a chunk. None straddles its end: the decoder is empty again after each.
pub fn chunk_of_delivers() -> Bytes {
    let mut chunk = BytesMut::with_capacity(CHUNK_BYTES);
    for seq in 1.. {
        let frame = deliver(Seq(seq)).to_bytes();
        if chunk.len() + frame.len() > CHUNK_BYTES {
            break;
        }
        chunk.extend_from_slice(&frame);
    }
    chunk.freeze()
}
