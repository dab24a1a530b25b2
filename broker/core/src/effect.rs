//! What comes out of the shard: records to commit, signals for the edges, one reply. Nothing of it may leave the broker
//! before the records are durable.

use alloc::string::ToString;
use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;

use bytes::Bytes;

use carillon_protocol::Frame;
use carillon_protocol::ding_status::DingProgress;
use carillon_protocol::error::ErrorCode;
use carillon_protocol::frame::Text;
use carillon_protocol::ids::{
    ConversationId, DeviceId, DingId, Position, ProducerId, Seq, TenantId, Timestamp, UserId,
};
use carillon_protocol::kinds::{HistoryPolicy, MessageKind, Outlet, ReceiptPolicy};
use carillon_protocol::receipt::{ReadCountsEntry, ReadStatusReply};
use thiserror::Error;

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
    /// A DING has moved: its sender, and who watches it, may be told.
    Ding {
        /// The tenant.
        tenant: TenantId,
        /// Who sent it.
        sender: UserId,
        /// How far it has come.
        progress: DingProgress,
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
    /// The shard's time: what clients reckon a DING's start from.
    pub time: Timestamp,
    /// Every stint of the user, the personal conversation's included; by conversation, then by time.
    pub stints: Vec<StintView>,
    /// Stints that there were too many of.
    pub forgotten: Vec<Forgotten>,
    /// The highest number of the producer that has a result; 0 without one.
    pub producer_highest: u64,
    /// The `DingPush` frames that wait for this user, oldest first.
    pub dings: Vec<Bytes>,
    /// How the DINGs stand of which the session may have missed something, by [`Shard::dings_missed`](crate::Shard::dings_missed).
    pub progress: Vec<DingProgress>,
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

/// One attempt to reach one recipient by an outlet: the idempotency key of its start and of its cancel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallKey {
    /// The DING.
    pub ding: DingId,
    /// The recipient.
    pub user: UserId,
    /// The attempt's number within the DING.
    pub attempt: u16,
}

/// The text is not a key that this broker gave out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("not a key: give back the one the call came with, as in \"ding-0000000000000001-7-2\"")]
pub struct KeyError;

/// As text `ding-<16 hexadecimal digits>-<user>-<attempt>`, the same over retries, restarts and versions.
impl fmt::Display for CallKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ding-{:016x}-{}-{}", self.ding.0, self.user, self.attempt)
    }
}

impl FromStr for CallKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let mut parts = text.strip_prefix("ding-").ok_or(KeyError)?.splitn(3, '-');
        let mut part = || parts.next().ok_or(KeyError);
        let ding = u64::from_str_radix(part()?, 16).map_err(|_| KeyError)?;
        let user = part()?.parse().map_err(|_| KeyError)?;
        let attempt = part()?.parse().map_err(|_| KeyError)?;
        let key = Self { ding: DingId(ding), user: UserId(user), attempt };
        // One key has one text: no signs, no blanks, no zeros in front.
        if key.to_string() == text { Ok(key) } else { Err(KeyError) }
    }
}

/// What an outlet is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verb {
    /// The attempt is moot: confirmed, recalled or expired meanwhile.
    Cancel,
    /// Reach the recipient.
    Start,
}

/// One call to an outlet, durable before it is handed out; handed out again after a restart until its outcome is recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The idempotency key.
    pub key: CallKey,
    /// What to do.
    pub verb: Verb,
    /// By which outlet.
    pub outlet: Outlet,
    /// The tenant's name.
    pub tenant: Text,
    /// The recipient's handle.
    pub recipient: Text,
    /// The sender's handle.
    pub sender: Text,
    /// Which step of the plan, from 0; 255: a reminder by hand.
    pub step: u8,
    /// What the payload is.
    pub kind: MessageKind,
    /// Empty in a cancel.
    pub payload: Bytes,
    /// The conversation of the message that the DING refers to; 0: none.
    pub conversation: ConversationId,
    /// That message's seq, else 0.
    pub seq: Seq,
    /// When the DING was created.
    pub created_at: Timestamp,
    /// When the attempt began; of a cancel, when it became moot.
    pub started_at: Timestamp,
    /// When the DING gives up.
    pub expires_at: Timestamp,
}

/// What became of an outlet's report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reported {
    /// Noted, now or before.
    Done,
    /// There is no such attempt by this outlet.
    Unknown,
    /// The DING expired or was recalled before it was answered.
    Over,
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
    /// The session may watch the DING, which stands so.
    Watching {
        /// The request.
        request: u32,
        /// How it stands.
        progress: DingProgress,
    },
    /// What became of an outlet's report.
    Reported(Reported),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_one_text() {
        let key = CallKey { ding: DingId(0x0001_0000_0000_002a), user: UserId(7), attempt: 2 };
        assert_eq!(key.to_string(), "ding-000100000000002a-7-2");
        assert_eq!("ding-000100000000002a-7-2".parse::<CallKey>().unwrap(), key);
        for other in [
            "",
            "ding-",
            "ding-000100000000002a-7",
            "ding-2a-7-2",
            "ding-000100000000002A-7-2",
            "ding-000100000000002a-07-2",
            "ding-000100000000002a-7-+2",
            "ding-000100000000002a-7-65536",
            "ding-000100000000002a-7-2-start",
            "dong-000100000000002a-7-2",
        ] {
            assert!(other.parse::<CallKey>().is_err(), "{other}");
        }
    }
}
