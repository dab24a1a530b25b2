//! Records: the state changes of a shard, as they lie in its journal.
//!
//! A record is a private part (a frame of the kinds below, `0x80` and up) and, for a message, the `Deliver` frame that goes
//! to the members, encoded once and delivered as it lies there. Bodies carry resolved facts and the time; a newer version
//! of a record appends fields to its body, a change of meaning takes a new kind.

use alloc::vec::Vec;
use bytes::{Bytes, BytesMut};
use thiserror::Error;

use carillon_protocol::deliver::Deliver;
use carillon_protocol::frame::{Body, FrameError, RawFrame, Text};
use carillon_protocol::ids::{
    ConversationId, DeviceId, DingId, Position, ProducerId, Seq, TenantId, Timestamp, UserId,
};
use carillon_protocol::kinds::{
    AttemptState, CancelState, Change, ConversationKind, DingState, HistoryPolicy, MessageKind, Outlet, PostPolicy,
    ReceiptPolicy, Role,
};

carillon_protocol::elements! {
    /// A member and its role.
    Grant {
        /// The user.
        user: UserId,
        /// The role.
        role: Role,
    }

    /// One step of a DING's plan, and whether quiet hours hold it up.
    PlannedStep {
        /// What carries it.
        outlet: Outlet,
        /// 1: it waits until quiet hours are over.
        heeds_quiet: u8,
        /// How often it begins.
        times: u16,
        /// From the DING's start.
        after_ms: u32,
        /// From one time to the next.
        repeat_every_ms: u32,
    }

    /// A device of a recipient has a DING.
    DingDelivery {
        /// The DING.
        ding: DingId,
        /// The recipient.
        user: UserId,
    }

    /// What became of one attempt for one recipient.
    DingOutcome {
        /// The DING.
        ding: DingId,
        /// The recipient.
        user: UserId,
        /// The attempt's number.
        attempt: u16,
        /// How far it has come; 0: that is as it was.
        state: AttemptState,
        /// Whether its gateway was told that it is moot; `NONE`: that is as it was.
        cancel: CancelState,
        /// The HTTP status of a failure, or below 100 a reason of the broker's.
        detail: u16,
    }

    /// A device's cursor.
    CursorMoved {
        /// The tenant.
        tenant: TenantId,
        /// The user.
        user: UserId,
        /// The device.
        device: DeviceId,
        /// Up to here.
        position: Position,
    }
}

carillon_protocol::frames! {
    /// A tenant appeared.
    0x80 TenantAdded {
        /// When.
        time: Timestamp,
        /// Its number, the next free one.
        tenant: TenantId,
    } [
        /// Its name.
        name: Text,
    ]

    /// A user appeared, with a personal conversation.
    0x81 UserAdded {
        /// When.
        time: Timestamp,
        /// The tenant.
        tenant: TenantId,
        /// Its number, the next free one of the tenant.
        user: UserId,
        /// Its personal conversation, the next free ordinal.
        personal: ConversationId,
    } [
        /// Its handle.
        handle: Text,
    ]

    /// A device appeared.
    0x82 DeviceAdded {
        /// When.
        time: Timestamp,
        /// The tenant.
        tenant: TenantId,
        /// The user.
        user: UserId,
        /// The device.
        device: DeviceId,
    }

    /// A device was given up.
    0x83 DeviceRetired {
        /// When.
        time: Timestamp,
        /// The tenant.
        tenant: TenantId,
        /// The user.
        user: UserId,
        /// The device.
        device: DeviceId,
    }

    /// A producer appeared.
    0x84 ProducerAdded {
        /// When.
        time: Timestamp,
        /// The tenant.
        tenant: TenantId,
        /// The user.
        user: UserId,
        /// The producer.
        producer: ProducerId,
    }

    /// A producer was given up.
    0x85 ProducerRetired {
        /// When.
        time: Timestamp,
        /// The tenant.
        tenant: TenantId,
        /// The user.
        user: UserId,
        /// The producer.
        producer: ProducerId,
    }

    /// A conversation was made, with its first members. Their stints begin after this record.
    0x86 ConversationAdded {
        /// When.
        time: Timestamp,
        /// The tenant.
        tenant: TenantId,
        /// Its id, the next free ordinal.
        conversation: ConversationId,
        /// Its kind.
        kind: ConversationKind,
        /// Who may post.
        post_policy: PostPolicy,
        /// What members may have of its history.
        history: HistoryPolicy,
        /// What authors may learn of who has read.
        receipts: ReceiptPolicy,
        /// Who made it.
        by: UserId,
    } [
        /// Unique in the tenant, or empty.
        name: Text,
        /// Its first members.
        grants: Vec<Grant>,
    ]

    /// Members were added, or their roles set. New stints begin after this record.
    0x87 MembersAdded {
        /// When.
        time: Timestamp,
        /// The conversation.
        conversation: ConversationId,
        /// Who did it.
        by: UserId,
    } [
        /// Who, in which role.
        grants: Vec<Grant>,
    ]

    /// Members were removed or left. Their stints end with this record.
    0x88 MembersRemoved {
        /// When.
        time: Timestamp,
        /// The conversation.
        conversation: ConversationId,
        /// `REMOVED` or `LEFT`.
        change: Change,
        /// Who did it.
        by: UserId,
    } [
        /// Who.
        users: Vec<UserId>,
    ]

    /// The private part of a message; what members see is its `Deliver` frame.
    0x89 MessageMeta {
        /// The tenant.
        tenant: TenantId,
        /// The producer, 0 for what the broker writes.
        producer: ProducerId,
        /// The publish's number, 0 likewise.
        number: u64,
        /// The producer's lowest unsettled number.
        low: u64,
        /// Of target, kind and payload, to tell a repeat from a conflict.
        fingerprint: u64,
    }

    /// A watermark moved.
    0x8a ReadMarked {
        /// When.
        time: Timestamp,
        /// The conversation.
        conversation: ConversationId,
        /// Whose.
        user: UserId,
        /// To here.
        up_to: Seq,
    }

    /// Cursors moved, coalesced.
    0x8b CursorsMoved {
        /// When.
        time: Timestamp,
    } [
        /// One a device.
        moves: Vec<CursorMoved>,
    ]

    /// A device's catch-up leaves something out: of these positions it is offered the newest messages of each conversation.
    0x91 CatchUpBounded {
        /// When.
        time: Timestamp,
        /// The tenant.
        tenant: TenantId,
        /// The user.
        user: UserId,
        /// The device.
        device: DeviceId,
        /// The first position.
        from: Position,
        /// The last one, and as of when they are the newest.
        through: Position,
        /// So many of each.
        newest: u32,
    }

    /// A DING was made. Nothing of it has begun.
    0x8c DingAdded {
        /// When.
        time: Timestamp,
        /// The tenant.
        tenant: TenantId,
        /// Its id, the next free ordinal.
        ding: DingId,
        /// Who sends it.
        sender: UserId,
        /// The sender's key.
        key: u64,
        /// Of the request, to tell a repeat under the same key from a conflict.
        fingerprint: u64,
        /// When it starts.
        starts_at: Timestamp,
        /// When it gives up.
        expires_at: Timestamp,
        /// What the payload is.
        kind: MessageKind,
        /// The conversation of the message that it refers to, 0: none.
        conversation: ConversationId,
        /// That message's seq, else 0.
        seq: Seq,
        /// When quiet hours begin, in minutes of the day in UTC.
        quiet_from_min: u16,
        /// When they end; as they begin: there are none.
        quiet_to_min: u16,
    } [
        /// Ascending, each once, never empty.
        recipients: Vec<UserId>,
        /// Its plan.
        steps: Vec<PlannedStep>,
        /// Opaque.
        payload: Bytes,
    ]

    /// An attempt of a DING began, for all who have not confirmed.
    0x8d DingAttempted {
        /// When.
        time: Timestamp,
        /// The DING.
        ding: DingId,
        /// Which step of its plan; 255: a reminder by hand.
        step: u8,
        /// What carries it.
        outlet: Outlet,
    }

    /// A recipient confirmed.
    0x8e DingConfirmed {
        /// When.
        time: Timestamp,
        /// The DING.
        ding: DingId,
        /// Who.
        user: UserId,
        /// By which outlet.
        via: Outlet,
    }

    /// A DING is over.
    0x8f DingEnded {
        /// When.
        time: Timestamp,
        /// The DING.
        ding: DingId,
        /// `EXPIRED` or `RECALLED`.
        state: DingState,
    }

    /// A DING that is over is kept no longer; its key is free again.
    0x90 DingForgotten {
        /// When.
        time: Timestamp,
        /// The DING.
        ding: DingId,
    }

    /// A step that is due late would fall into quiet hours: it waits until they are over.
    0x92 DingDeferred {
        /// When.
        time: Timestamp,
        /// The DING.
        ding: DingId,
        /// Which step of its plan.
        step: u8,
        /// It begins no earlier.
        until: Timestamp,
    }

    /// Devices have DINGs, coalesced.
    0x93 DingsDelivered {
        /// When.
        time: Timestamp,
    } [
        /// By DING, then by user; each once.
        entries: Vec<DingDelivery>,
    ]

    /// What became of attempts, or of their cancels.
    0x94 DingOutcomes {
        /// When.
        time: Timestamp,
    } [
        /// In the order of the news.
        entries: Vec<DingOutcome>,
    ]
}

/// A message: its private part and what members see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The private part.
    pub meta: MessageMeta,
    /// What members see.
    pub deliver: Deliver,
}

macro_rules! records {
    ($($name:ident,)*) => {
        /// One state change.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum Record {
            /// A message.
            Message(Message),
            $(#[doc = concat!("[`", stringify!($name), "`]")] $name($name),)*
        }

        impl Record {
            /// When it was made: the shard's time.
            pub const fn time(&self) -> Timestamp {
                match self {
                    Self::Message(message) => message.deliver.time,
                    $(Self::$name(record) => record.time,)*
                }
            }

            /// Appends the private part and, for a message, the frame.
            pub fn encode(&self, private: &mut BytesMut, frame: &mut BytesMut) {
                match self {
                    Self::Message(message) => {
                        message.meta.encode(private);
                        message.deliver.encode(frame);
                    }
                    $(Self::$name(record) => record.encode(private),)*
                }
            }

            /// Reads a record back.
            ///
            /// # Errors
            /// [`RecordError`]: the bytes are not a record this version knows.
            pub fn decode(private: Bytes, frame: Bytes) -> Result<Self, RecordError> {
                let raw = RawFrame::new(private)?;
                if raw.kind == MessageMeta::KIND {
                    let meta = MessageMeta::decode(&raw)?;
                    let raw = RawFrame::new(frame)?;
                    if raw.kind != Deliver::KIND {
                        return Err(RecordError::NotDeliver(raw.kind));
                    }
                    return Ok(Self::Message(Message { meta, deliver: Deliver::decode(&raw)? }));
                }
                match raw.kind {
                    $(<$name as Body>::KIND => Ok(Self::$name(<$name as Body>::decode(&raw)?)),)*
                    other => Err(FrameError::UnknownKind(other).into()),
                }
            }
        }

        $(impl From<$name> for Record {
            fn from(record: $name) -> Self {
                Self::$name(record)
            }
        })*
    };
}

records! {
    TenantAdded, UserAdded, DeviceAdded, DeviceRetired, ProducerAdded, ProducerRetired, ConversationAdded, MembersAdded,
    MembersRemoved, ReadMarked, CursorsMoved, CatchUpBounded, DingAdded, DingAttempted, DingDeferred,
    DingsDelivered, DingOutcomes, DingConfirmed, DingEnded, DingForgotten,
}

/// Why bytes are not a record: the journal was written by a newer version, or by something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RecordError {
    /// The private part or the frame is damaged or unknown.
    #[error("not a record: {0}")]
    Frame(#[from] FrameError),
    /// A message's frame is of another kind.
    #[error("the frame of a message has kind {0:#04x}")]
    NotDeliver(u8),
}
