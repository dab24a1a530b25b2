//! DING: an urgent push that every recipient must confirm. What it is, and what recipients do; how it stands is in `ding_status`.

use alloc::vec::Vec;
use bytes::Bytes;

use crate::ids::{ConversationId, DingId, Seq, Timestamp, UserId};
use crate::kinds::{MessageKind, Outlet, QuietHours, Target};

crate::elements! {
    /// One step of a DING's plan: by which outlet, when, and how often.
    DingStep {
        /// What carries it.
        outlet: Outlet,
        /// How often it begins; at least once.
        times: u16,
        /// From the DING's start, in milliseconds.
        after_ms: u32,
        /// From one time to the next, in milliseconds; 0 only if it begins once.
        repeat_every_ms: u32,
    }
}

crate::frames! {
    /// Client → broker: a new DING. Answered by `DingCreated`; a repeat under the same key by the same answer.
    0x30 DingCreate {
        /// Chosen by the client, above 0.
        request: u32,
        /// Chosen at random by the client; one DING a sender and key, for as long as the DING is kept.
        key: u64,
        /// `CONVERSATION`: its members as they are now, but the sender; `USERS`: the list.
        target: Target,
        /// The conversation's id, else 0.
        target_id: u64,
        /// When it starts; 0 or past: now.
        starts_at: Timestamp,
        /// From its start, in milliseconds; 0: as the tenant has it.
        expires_after_ms: u64,
        /// What it does about quiet hours.
        quiet: QuietHours,
        /// What the payload is.
        kind: MessageKind,
        /// The conversation of the message that it refers to; 0: none.
        conversation: ConversationId,
        /// That message's seq, else 0.
        seq: Seq,
    } [
        /// 1 to 10,000 users for `USERS`, else empty.
        recipients: Vec<UserId>,
        /// Its plan, at most 8 steps, one of them by `APP`; empty: the tenant's.
        steps: Vec<DingStep>,
        /// Opaque.
        payload: Bytes,
    ]

    /// Broker → client: the DING is durable and on its way, or scheduled.
    0x31 DingCreated {
        /// The request.
        request: u32,
        /// Its id.
        ding: DingId,
        /// How many it goes to.
        recipients: u32,
        /// When it starts, or started.
        starts_at: Timestamp,
        /// When it gives up.
        expires_at: Timestamp,
    }

    /// Broker → client, urgent: confirm this. Comes again until it is confirmed or over.
    0x32 DingPush {
        /// Its id; a device shows a repeat once.
        ding: DingId,
        /// Who sends it.
        sender: UserId,
        /// When it was created.
        time: Timestamp,
        /// When it gives up.
        expires_at: Timestamp,
        /// What the payload is.
        kind: MessageKind,
        /// The conversation of the message that it refers to; 0: none.
        conversation: ConversationId,
        /// That message's seq, else 0.
        seq: Seq,
    } [
        /// Opaque.
        payload: Bytes,
    ]

    /// Client → broker: confirmed. Idempotent. Answered by `DingConfirmed`.
    0x33 DingConfirm {
        /// Chosen by the client, above 0.
        request: u32,
        /// The DING.
        ding: DingId,
    }

    /// Broker → client: the confirmation is durable.
    0x34 DingConfirmed {
        /// The request.
        request: u32,
        /// The DING.
        ding: DingId,
        /// When this user first confirmed it.
        time: Timestamp,
    }

    /// Client → broker, the sender: take it back. Idempotent. Answered by `Done`.
    0x38 DingRecall {
        /// Chosen by the client, above 0.
        request: u32,
        /// The DING.
        ding: DingId,
    }

    /// Client → broker: this device has a DING. Idempotent. Not answered.
    0x39 DingReceived {
        /// The DING.
        ding: DingId,
    }

    /// Client → broker, the sender: remind those who have not confirmed, now. Answered by `DingReminded`.
    0x3a DingRemind {
        /// Chosen by the client, above 0.
        request: u32,
        /// The DING.
        ding: DingId,
        /// What carries the reminder.
        outlet: Outlet,
    }

    /// Broker → client: the reminder is durable and on its way.
    0x3b DingReminded {
        /// The request.
        request: u32,
        /// The DING.
        ding: DingId,
        /// How many are reminded.
        recipients: u32,
    }
}
