//! What comes out of the shard: records to commit, signals for the edges, one reply. Nothing of it may leave the broker
//! before the records are durable.

use alloc::vec::Vec;
use bytes::Bytes;

use carillon_protocol::Frame;
use carillon_protocol::error::ErrorCode;
use carillon_protocol::ids::{ConversationId, DeviceId, Position, ProducerId, Seq, TenantId, UserId};
use carillon_protocol::kinds::{HistoryPolicy, ReceiptPolicy};
use carillon_protocol::receipt::{ReadCountsEntry, ReadStatusReply};

use crate::record::Record;

/// What an edge does because of a record, in position order. Made by `apply` alone, so replay makes the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signal {
    /// The frame at this position goes to the conversation's members.
    Message {
        /// The record's position.
        position: Position,
        /// The conversation.
        conversation: ConversationId,
        /// Its number there.
        seq: Seq,
        /// Who wrote it.
        author: UserId,
    },
    /// These users have a stint that begins after this position.
    MembersAdded {
        /// The record's position.
        position: Position,
        /// The tenant.
        tenant: TenantId,
        /// The conversation.
        conversation: ConversationId,
        /// The conversation's last seq then.
        seq: Seq,
        /// What members may have of its history.
        history: HistoryPolicy,
        /// Who.
        users: Vec<UserId>,
    },
    /// The stint of these users ends with this position.
    MembersRemoved {
        /// The record's position.
        position: Position,
        /// The tenant.
        tenant: TenantId,
        /// The conversation.
        conversation: ConversationId,
        /// The conversation's last seq then.
        seq: Seq,
        /// Who.
        users: Vec<UserId>,
    },
    /// A watermark moved from `from` to `up_to`.
    Read {
        /// The record's position.
        position: Position,
        /// The tenant.
        tenant: TenantId,
        /// The conversation.
        conversation: ConversationId,
        /// Who has read.
        user: UserId,
        /// The watermark before.
        from: Seq,
        /// The watermark now.
        up_to: Seq,
        /// Present members, to tell small groups from large ones.
        members: u32,
        /// What authors may learn of it.
        receipts: ReceiptPolicy,
    },
    /// This frame goes out on the urgent lane of every device of these users: a `DingPush` or a `DingUpdate`.
    Urgent {
        /// The record's position.
        position: Position,
        /// The tenant.
        tenant: TenantId,
        /// Who.
        users: Vec<UserId>,
        /// The frame, encoded once.
        frame: Bytes,
    },
    /// The device is no more: its session ends.
    DeviceRetired {
        /// The tenant.
        tenant: TenantId,
        /// The user.
        user: UserId,
        /// The device.
        device: DeviceId,
    },
    /// The producer is no more: its session ends.
    ProducerRetired {
        /// The tenant.
        tenant: TenantId,
        /// The user.
        user: UserId,
        /// The producer.
        producer: ProducerId,
    },
}

/// A moment in a conversation: the journal's position, and the conversation's last seq then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    /// The last seq at or before the position.
    pub seq: Seq,
    /// The position.
    pub position: Position,
}

/// One stint of the attaching user: entitled to positions in `(joined, left]`, and to the seqs likewise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StintView {
    /// The conversation.
    pub conversation: ConversationId,
    /// Exclusive.
    pub joined: Moment,
    /// Inclusive; `None`: the stint goes on.
    pub left: Option<Moment>,
    /// What members may have of the conversation's history.
    pub history: HistoryPolicy,
}

/// What the shard has forgotten that a user was entitled to: a device whose cursor lies before it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forgotten {
    /// The conversation; 0: of conversations the user left so long ago that it is no longer known which.
    pub conversation: ConversationId,
    /// The first seq, 0 with conversation 0.
    pub first: Seq,
    /// Where it ends, inclusive; the seq is 0 with conversation 0.
    pub last: Moment,
}

/// What an attached session starts from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// The tenant.
    pub tenant: TenantId,
    /// The user.
    pub user: UserId,
    /// The position the rest of this is as of: the shard's head after the attach's own records.
    pub as_of: Position,
    /// Every stint of the user, the personal conversation's included; by conversation, then by time.
    pub stints: Vec<StintView>,
    /// Stints that there were too many of.
    pub forgotten: Vec<Forgotten>,
    /// The highest number of the producer that has a result; 0 without one.
    pub producer_highest: u64,
    /// The `DingPush` frames that wait for this user, oldest first.
    pub dings: Vec<Bytes>,
}

/// One page of a read status, but for what only the index can tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadPage {
    /// The frame: without times, and without the deliveries that are unsure.
    pub reply: ReadStatusReply,
    /// The message: its conversation.
    pub conversation: ConversationId,
    /// Its number there.
    pub seq: Seq,
    /// Its position.
    pub position: Position,
    /// By entry; one for each device that may have it. An entry is delivered if one of them has it.
    pub unsure: Vec<Unsure>,
}

/// A device has the message if it was among the newest of its conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsure {
    /// Which of the page's entries.
    pub entry: usize,
    /// Of the newest so many, at least one.
    pub newest: u32,
    /// As of here.
    pub through: Position,
}

/// How many have read one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    /// Who wrote it, and is in neither count.
    pub author: UserId,
    /// The counts.
    pub entry: ReadCountsEntry,
}

/// The answer to one input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// A frame for the stream the request came on.
    Frame(Frame),
    /// Who has read, to be completed from the index and sent.
    ReadPage(ReadPage),
    /// It is durable that the catch-up leaves something out.
    CatchUpNoted,
    /// The session is attached.
    Attached(Attached),
    /// The session may not be attached.
    AttachRefused {
        /// The close code.
        code: ErrorCode,
        /// What to do about it.
        text: &'static str,
    },
}

/// Filled by `handle`, `apply` and `resume`; the caller empties it after each input.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// Records to be committed, in order; the first has the position after the shard's head before the input.
    pub records: Vec<Record>,
    /// For the edges, once the records are durable.
    pub signals: Vec<Signal>,
    /// For the sender of the input, once all that was sequenced before is durable.
    pub reply: Option<Reply>,
}
