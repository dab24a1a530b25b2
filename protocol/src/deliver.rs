//! The delivered message: the same bytes in the journal, in memory and on every recipient's inbox lane.

use bytes::Bytes;

use crate::ids::{ConversationId, Position, Seq, Timestamp, UserId};
use crate::kinds::{Direction, MessageKind};

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

    /// Client → broker: messages of a conversation again, or those that were skipped. Answered by `HistoryPage`, or by `Error`.
    0x14 History {
        /// Chosen by the client, above 0.
        request: u32,
        /// The conversation.
        conversation: ConversationId,
        /// The page starts at this seq, or at the next one there is in the direction.
        from: Seq,
        /// `BACKWARD` or `FORWARD`.
        direction: Direction,
        /// Messages wanted, at most 1,000.
        limit: u16,
    }

    /// Broker → client, bulk: one page of history. As many `Deliver` frames as it counts follow it, by ascending seq.
    0x15 HistoryPage {
        /// The request.
        request: u32,
        /// The conversation.
        conversation: ConversationId,
        /// Messages that follow.
        count: u16,
        /// Where the next page in the same direction starts; 0: there is nothing more that way.
        next: Seq,
        /// Retention has taken what the user may have up to this seq; 0: nothing of it.
        truncated: Seq,
    }
}

/// The author of what the broker itself writes.
pub const AUTHOR_BROKER: UserId = UserId(u32::MAX);
