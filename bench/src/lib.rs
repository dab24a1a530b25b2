//! What the benches share: a shard with a group of any size, the frames of a small message, a journal in a directory.
//!
//! Owns set-up only; what is measured, and how, stands in each bench. Everything here panics where it fails: a bench whose
//! set-up is wrong measures nothing.

use bytes::Bytes;
use carillon_protocol::deliver::Deliver;
use carillon_protocol::ids::{ConversationId, Position, Seq, ShardId, Timestamp, UserId};
use carillon_protocol::kinds::{MessageKind, Target};
use carillon_protocol::publish::Publish;

pub mod dings;
pub mod group;
pub mod index;
pub mod record;
pub mod sink;
pub mod stage;

/// A chat message of average length, and the payload of the project's other measurements.
pub const PAYLOAD_BYTES: usize = 128;

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
