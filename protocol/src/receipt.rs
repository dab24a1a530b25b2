//! Read receipts: marks, updates, and who has read a message.

use alloc::vec::Vec;

use crate::ids::{ConversationId, Position, Seq, Timestamp, UserId};
use crate::kinds::{ReadState, StatusList};

crate::elements! {
    /// One entitled member in a read status.
    ReadEntry {
        /// The member.
        user: UserId,
        /// The member's watermark.
        read_up_to: Seq,
        /// When the mark that passed the message was made; 0: not read, or retention has taken the mark.
        read_at: Timestamp,
        /// How far the message has come.
        state: ReadState,
    }
}

crate::elements! {
    /// How many have read one message.
    ReadCountsEntry {
        /// The message.
        seq: Seq,
        /// Entitled members that have read.
        read: u32,
        /// Entitled members that have not.
        unread: u32,
    }
}

crate::frames! {
    /// Client → broker: "I have read everything up to here". Idempotent. Answered by `Marked`.
    0x20 MarkRead {
        /// Chosen by the client, above 0.
        request: u32,
        /// The conversation.
        conversation: ConversationId,
        /// At most the conversation's last seq.
        up_to: Seq,
    }

    /// Broker → client: the mark is durable.
    0x21 Marked {
        /// The request.
        request: u32,
        /// The conversation.
        conversation: ConversationId,
        /// The watermark now: at least what was asked for.
        read_up_to: Seq,
    }

    /// Broker → client, inbox: a member has read further. To the member's own devices, and to those who wrote what was read.
    0x22 ReadUpdate {
        /// The conversation.
        conversation: ConversationId,
        /// Who has read.
        user: UserId,
        /// Their watermark now.
        read_up_to: Seq,
        /// The mark's.
        position: Position,
        /// For `receipts_through`: all that has moved up to here was sent; this included, unless it is below `position`.
        through: Position,
    }

    /// Client → broker: who has read this message? Answered by `ReadStatusReply`.
    0x23 ReadStatus {
        /// Chosen by the client, above 0.
        request: u32,
        /// The conversation.
        conversation: ConversationId,
        /// The message.
        seq: Seq,
        /// Counts alone, those who have, those who have not.
        list: StatusList,
        /// The page starts at this user.
        from: UserId,
        /// Entries wanted, at most 1,000.
        limit: u16,
    }

    /// Broker → client: one page of a read status. The author is in neither list.
    0x24 ReadStatusReply {
        /// The request.
        request: u32,
        /// Entitled members that have read.
        read: u32,
        /// Entitled members that have not.
        unread: u32,
        /// Where the next page starts; `u32::MAX` when this is the last.
        next: UserId,
    } [
        /// By user id, ascending.
        entries: Vec<ReadEntry>,
    ]

    /// Broker → client, inbox: more have read messages that the user wrote, in a conversation where they are not named as they read.
    0x25 ReadCountsUpdate {
        /// The conversation.
        conversation: ConversationId,
        /// The newest mark's that is counted, or an earlier one's.
        position: Position,
        /// For `receipts_through`: all that has moved up to here was sent; this included, unless it is below `position`.
        through: Position,
    } [
        /// By seq, ascending; at most 32, the newest that may have moved.
        entries: Vec<ReadCountsEntry>,
    ]
}
