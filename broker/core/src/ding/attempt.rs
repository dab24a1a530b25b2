//! Attempts: what was begun to reach a DING's recipients, and what became of it for each.

use carillon_protocol::ids::Timestamp;
use carillon_protocol::kinds::{AttemptState, CancelState, Outlet};

/// A step that began, or a reminder: one for all who had not confirmed then. Its number is its place in the DING's list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attempt {
    /// Which step, or `STEP_REMINDER`.
    pub(crate) step: u8,
    pub(crate) outlet: Outlet,
    pub(crate) time: Timestamp,
}

/// What became of an attempt for one recipient. Those by `APP` have none: the recipient's own state says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reach {
    /// The attempt's number.
    pub(crate) attempt: u16,
    pub(crate) state: AttemptState,
    pub(crate) cancel: CancelState,
    /// The HTTP status of a failure, or below 100 a reason of the broker's.
    pub(crate) detail: u16,
    /// When it came there.
    pub(crate) time: Timestamp,
}

impl Reach {
    pub(crate) const fn begun(attempt: u16, time: Timestamp) -> Self {
        Self { attempt, state: AttemptState::STARTED, cancel: CancelState::NONE, detail: 0, time }
    }

    /// Whether news of this state says more than is known: states only move forward.
    pub(crate) fn is_news(&self, state: AttemptState) -> bool {
        state.is_known() && state > self.state
    }

    /// Whether the gateway is to be told when the attempt becomes moot: it may have been handed it, and it has not ended by itself.
    pub(crate) fn is_under_way(&self) -> bool {
        let ended = self.state == AttemptState::FAILED || self.state == AttemptState::ANSWERED;
        !ended && self.cancel == CancelState::NONE
    }

    /// Whether the recipient may have been reached by it.
    pub(crate) fn has_worked(&self) -> bool {
        [AttemptState::ACCEPTED, AttemptState::DELIVERED, AttemptState::ANSWERED].contains(&self.state)
    }
}
