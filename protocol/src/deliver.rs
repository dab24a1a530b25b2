//! The delivered message: the same bytes in the journal, in memory and on every recipient's inbox lane.

use bytes::Bytes;

use crate::ids::{ConversationId, Position, Seq, Timestamp, UserId};
use crate::kinds::MessageKind;

crate::frames! {
    /// Broker → client, inbox: one message, in position order.
    0x13 Deliver {
        /// Its place in the journal; what is acknowledged.
        position: Position,
        /// The conversation; its shard is the position's.
        conversation: ConversationId,
        /// Its number in the conversation.
        seq: Seq,
        /// Who published it; [`AUTHOR_BROKER`] for `SYSTEM` messages.
        author: UserId,
        /// When the broker sequenced it.
        time: Timestamp,
        /// What the payload is.
        kind: MessageKind,
    } [
        /// Opaque.
        payload: Bytes,
    ]
}

/// The author of what the broker itself writes.
pub const AUTHOR_BROKER: UserId = UserId(u32::MAX);
