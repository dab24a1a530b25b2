//! DING: an urgent push that every recipient must confirm.

use alloc::vec::Vec;
use bytes::Bytes;

use crate::ids::{DingId, Timestamp, UserId};
use crate::kinds::{DingState, MessageKind, StatusList, Target};

/// Stands for "nobody" or "all" where a frame has a user field.
pub const USER_NONE: UserId = UserId(u32::MAX);

crate::elements! {
    /// One recipient in a DING's status.
    DingEntry {
        /// The recipient.
        user: UserId,
        /// Where it stands.
        state: DingState,
        /// When it came there.
        time: Timestamp,
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
        /// Gives up after this long, in milliseconds.
        expires_after_ms: u64,
        /// Pushes again to who has not confirmed, in milliseconds; 0: only when they connect.
        repeat_every_ms: u32,
        /// What the payload is.
        kind: MessageKind,
    } [
        /// 1 to 10,000 users for `USERS`, else empty.
        recipients: Vec<UserId>,
        /// Opaque.
        payload: Bytes,
    ]

    /// Broker → client: the DING is durable and on its way.
    0x31 DingCreated {
        /// The request.
        request: u32,
        /// Its id.
        ding: DingId,
        /// How many it goes to.
        recipients: u32,
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

    /// Client → broker, the sender or an admin: where does it stand? Answered by `DingStatusReply`.
    0x35 DingStatus {
        /// Chosen by the client, above 0.
        request: u32,
        /// The DING.
        ding: DingId,
        /// Counts alone, who has confirmed, who has not.
        list: StatusList,
        /// The page starts at this user.
        from: UserId,
        /// Entries wanted, at most 1,000.
        limit: u16,
    }

    /// Broker → client: one page of a DING's status.
    0x36 DingStatusReply {
        /// The request.
        request: u32,
        /// The DING as a whole.
        state: DingState,
        /// Who sent it.
        sender: UserId,
        /// When it was created.
        time: Timestamp,
        /// When it gives up.
        expires_at: Timestamp,
        /// How many it went to.
        recipients: u32,
        /// How many have confirmed.
        confirmed: u32,
        /// Where the next page starts; `u32::MAX` when this is the last.
        next: UserId,
    } [
        /// By user id, ascending.
        entries: Vec<DingEntry>,
    ]

    /// Broker → client, urgent: a DING has moved. To its sender, and to the devices that show it.
    0x37 DingUpdate {
        /// The DING.
        ding: DingId,
        /// Who confirmed; [`USER_NONE`] when the DING as a whole is over.
        user: UserId,
        /// Where it stands now: the user's state, or the whole's.
        state: DingState,
        /// When.
        time: Timestamp,
        /// How many have confirmed.
        confirmed: u32,
        /// How many it went to.
        recipients: u32,
    }

    /// Client → broker, the sender: take it back. Idempotent. Answered by `Done`.
    0x38 DingRecall {
        /// Chosen by the client, above 0.
        request: u32,
        /// The DING.
        ding: DingId,
    }
}
