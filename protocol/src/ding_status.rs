//! How a DING stands: asked for by its sender and by admins, and told to them live.

use alloc::vec::Vec;

use crate::ding::DingStep;
use crate::ids::{DingId, Position, Timestamp, UserId};
use crate::kinds::{AttemptState, CancelState, DingState, Outlet};

/// Stands for "nobody" or "all" where a frame has a user field.
pub const USER_NONE: UserId = UserId(u32::MAX);

/// Stands for a reminder by hand where a frame has the number of a step.
pub const STEP_REMINDER: u8 = u8::MAX;

/// The bit of a state in a set of states.
pub const fn state_bit(state: DingState) -> u16 {
    if state.0 < 16 { 1 << state.0 } else { 0 }
}

/// Every state of a recipient.
pub const STATES_ALL: u16 = u16::MAX;

/// Those of a recipient that has not confirmed.
pub const STATES_UNCONFIRMED: u16 = STATES_ALL & !state_bit(DingState::CONFIRMED);

crate::elements! {
    /// One recipient in a DING's status.
    DingEntry {
        /// The recipient.
        user: UserId,
        /// Where it stands.
        state: DingState,
        /// How many attempts by outlets other than `APP` there were.
        attempts: u16,
        /// By which outlet it was confirmed; 0: it was not.
        via: Outlet,
        /// When it was known that the recipient has it; 0: it is not.
        delivered_at: Timestamp,
        /// When it was confirmed; 0: it was not.
        confirmed_at: Timestamp,
    }

    /// One attempt to reach a recipient by an outlet.
    DingAttempt {
        /// Its number within the DING, from 0. Those by `APP` are the same for all recipients.
        attempt: u16,
        /// Which step of the plan, from 0; 255: a reminder by hand.
        step: u8,
        /// What carries it.
        outlet: Outlet,
        /// When it began.
        started_at: Timestamp,
        /// How far it has come; of those by `APP`: `STARTED`.
        state: AttemptState,
        /// Whether the gateway was told that it is moot.
        cancel: CancelState,
        /// Of a failed one, or a failed cancel: the HTTP status, or below 100 a reason of the broker's.
        detail: u16,
        /// When it came there.
        time: Timestamp,
    }

    /// One DING in a list.
    DingSummary {
        /// The DING.
        ding: DingId,
        /// It as a whole.
        state: DingState,
        /// When it starts, or started.
        starts_at: Timestamp,
        /// When it gives up.
        expires_at: Timestamp,
        /// How many it goes to.
        recipients: u32,
        /// How many of them are known to have it and have not confirmed.
        delivered: u32,
        /// How many have confirmed.
        confirmed: u32,
        /// How many could not be reached, once it has expired.
        failed: u32,
    }
}

crate::frames! {
    /// Client → broker, the sender or an admin: where does it stand? Answered by `DingStatusReply`.
    0x35 DingStatus {
        /// Chosen by the client, above 0.
        request: u32,
        /// The DING.
        ding: DingId,
        /// Which recipients are wanted: bit n for those in `DingState` n; 0: counts alone.
        states: u16,
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
        /// When it starts, or started.
        starts_at: Timestamp,
        /// When its first step began: so long its recipients are `SENT`; 0: none has.
        sent_at: Timestamp,
        /// When it gives up.
        expires_at: Timestamp,
        /// When it was over; 0: it is not.
        ended_at: Timestamp,
        /// When the next step is due; 0: none is.
        next_step_at: Timestamp,
        /// How many it goes to.
        recipients: u32,
        /// How many of them are known to have it and have not confirmed.
        delivered: u32,
        /// How many have confirmed.
        confirmed: u32,
        /// How many could not be reached, once it has expired.
        failed: u32,
        /// How many attempts were begun: steps with their repeats, and reminders.
        attempts: u16,
        /// Where the next page starts; `u32::MAX` when this is the last.
        next: UserId,
    } [
        /// Its plan.
        steps: Vec<DingStep>,
        /// By user id, ascending.
        entries: Vec<DingEntry>,
    ]

    /// Broker → client, urgent: a DING has moved. To the devices that show it and, with up to 200 recipients, to its sender.
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
        /// How many it goes to.
        recipients: u32,
    }

    /// Client → broker, the sender or an admin: every attempt to reach one recipient. Answered by `DingAttempts`.
    0x3c DingAttemptList {
        /// Chosen by the client, above 0.
        request: u32,
        /// The DING.
        ding: DingId,
        /// The recipient.
        user: UserId,
    }

    /// Broker → client: every attempt to reach one recipient.
    0x3d DingAttempts {
        /// The request.
        request: u32,
    } [
        /// In the order of their beginning; at most 256.
        entries: Vec<DingAttempt>,
    ]

    /// Client → broker, the sender or an admin: tell this session of the DING's progress, or no longer. Answered by `Done`.
    0x3e DingWatch {
        /// Chosen by the client, above 0.
        request: u32,
        /// The DING.
        ding: DingId,
        /// 1: tell; 0: no longer.
        on: u8,
    }

    /// Broker → client, urgent: how far a DING has come. To its sender, and to who watches it; coalesced.
    0x3f DingProgress {
        /// The DING.
        ding: DingId,
        /// It as a whole.
        state: DingState,
        /// When it moved.
        time: Timestamp,
        /// The position of that: of two, the one with the higher one is newer.
        position: Position,
        /// How many it goes to.
        recipients: u32,
        /// How many of them are known to have it and have not confirmed.
        delivered: u32,
        /// How many have confirmed.
        confirmed: u32,
        /// How many could not be reached, once it has expired.
        failed: u32,
    }

    /// Client → broker: the DINGs that this user sent and that are kept, the newest first. Answered by `Dings`.
    0x58 DingList {
        /// Chosen by the client, above 0.
        request: u32,
        /// The page starts below this one; 0: at the newest.
        before: DingId,
        /// Entries wanted, at most 1,000.
        limit: u16,
    }

    /// Broker → client, urgent: so many pushes follow, those of all DINGs that wait for the user. The broker may have missed what was over.
    0x5a DingsOpen {
        /// The count.
        count: u32,
    }

    /// Broker → client: a page of DINGs.
    0x59 Dings {
        /// The request.
        request: u32,
        /// What the next page starts below; 0 when this is the last.
        next: DingId,
    } [
        /// The newest first.
        entries: Vec<DingSummary>,
    ]
}
