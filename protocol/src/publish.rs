//! Frames of the publish stream.

use bytes::Bytes;

use crate::error::ErrorCode;
use crate::frame::Text;
use crate::ids::{ConversationId, Position, Seq, Timestamp};
use crate::kinds::{MessageKind, Target};

crate::frames! {
    /// Client → broker, publish stream: one message. Answered by `Published` or `PublishRefused`, in no promised order.
    0x10 Publish {
        /// The producer numbers its publishes 1, 2, 3…; a repeat carries the same number.
        number: u64,
        /// The producer's lowest number that is not settled: `low ≤ number < low + 1,024`.
        low: u64,
        /// `CONVERSATION` or `USER`.
        target: Target,
        /// The conversation's or the user's id.
        target_id: u64,
        /// What the payload is.
        kind: MessageKind,
    } [
        /// Opaque.
        payload: Bytes,
    ]

    /// Broker → client, publish stream: the message is durable.
    0x11 Published {
        /// The publish's number.
        number: u64,
        /// Where it went.
        conversation: ConversationId,
        /// Its number in the conversation.
        seq: Seq,
        /// Its place in the journal.
        position: Position,
        /// When the broker sequenced it.
        time: Timestamp,
        /// 1 when this answers a repeat, else 0.
        repeated: u8,
    }

    /// Broker → client, publish stream: the message was not accepted; nothing has changed.
    0x12 PublishRefused {
        /// The publish's number.
        number: u64,
        /// Why.
        code: ErrorCode,
    } [
        /// For people.
        text: Text,
    ]
}
