//! A DING is confirmed, recalled, received, reminded of; its timers fire.

use alloc::vec::Vec;
use carillon_protocol::ding::{DingConfirm, DingConfirmed as Confirmed, DingRecall, DingRemind, DingReminded};
use carillon_protocol::ding_status::STEP_REMINDER;
use carillon_protocol::error::{Error, ErrorCode};
use carillon_protocol::ids::{DingId, Timestamp};
use carillon_protocol::kinds::{DingState, Outlet};

use super::NOT_FOUND;
use crate::ding::Due;
use crate::effect::Effects;
use crate::error::Refusal;
use crate::handle::{Answer, done};
use crate::input::{DingReceipt, Principal, Refused};
use crate::limits::{DING_DELIVERIES_A_RECORD_MAX, RECIPIENTS_A_TICK_MAX, TIMERS_A_TICK_MAX};
use crate::record::{
    DingAttempted, DingConfirmed, DingDeferred, DingDelivery, DingEnded, DingForgotten, DingsDelivered,
};
use crate::shard::Shard;

/// What is left to confirm or to remind of.
const OVER: Refusal =
    Refusal::new(ErrorCode::DING_OVER, "the DING expired or was recalled: nothing is left to confirm");

impl Shard {
    pub(in crate::handle) fn handle_ding_confirm(
        &mut self,
        now: Timestamp,
        who: Principal,
        confirm: &DingConfirm,
        effects: &mut Effects,
    ) -> Answer {
        let DingConfirm { request, ding } = *confirm;
        let found = self.ding_of(who, ding)?;
        let recipient = found.recipient(who.user).ok_or(NOT_FOUND)?;
        if let Some(confirmed) = recipient.confirmed {
            return Ok(Confirmed { request, ding, time: confirmed.time }.into());
        }
        if found.ended.is_some() {
            return Err(OVER);
        }
        if !found.has_started() {
            return Err(NOT_FOUND);
        }
        self.commit(DingConfirmed { time: now, ding, user: who.user, via: Outlet::APP }, effects);
        Ok(Confirmed { request, ding, time: now }.into())
    }

    pub(in crate::handle) fn handle_ding_recall(
        &mut self,
        time: Timestamp,
        who: Principal,
        recall: &DingRecall,
        effects: &mut Effects,
    ) -> Answer {
        if self.sent_ding(who, recall.ding)?.ended.is_none() {
            self.commit(DingEnded { time, ding: recall.ding, state: DingState::RECALLED }, effects);
        }
        done(recall.request)
    }

    pub(in crate::handle) fn handle_ding_remind(
        &mut self,
        time: Timestamp,
        who: Principal,
        (remind, allowed): (&DingRemind, &Result<(), Refused>),
        effects: &mut Effects,
    ) -> Answer {
        let DingRemind { request, ding, outlet } = *remind;
        let found = self.sent_ding(who, ding)?;
        if let Err(Refused { code, text }) = allowed {
            return Ok(Error { request, code: *code, text: text.clone() }.into());
        }
        // Its timer may not have fired yet, after a time without a broker.
        if found.ended.is_some() || found.expires_at <= time {
            return Err(OVER);
        }
        if !found.has_started() {
            return Err(Refusal::invalid("the DING has not started: there is nothing to remind of yet"));
        }
        if outlet == Outlet(0) {
            return Err(Refusal::invalid("outlet 0 carries nothing: name the one that the reminder goes by"));
        }
        if found.reminders_left() == 0 {
            return Err(Refusal::limit(
                "256 attempts of this DING are begun or planned: it can be reminded of no more",
            ));
        }
        let recipients = found.recipient_count() - found.confirmed;
        self.commit(DingAttempted { time, ding, step: STEP_REMINDER, outlet }, effects);
        Ok(DingReminded { request, ding, recipients }.into())
    }

    /// Notes which recipients have which DINGs. What does not fit is passed over: a device says it each time it is pushed one.
    pub(crate) fn handle_dings_received(&mut self, time: Timestamp, received: &[DingReceipt], effects: &mut Effects) {
        let mut entries: Vec<_> = received.iter().filter(|receipt| self.is_news(receipt)).collect();
        entries.sort_unstable_by_key(|receipt| (receipt.ding, receipt.user));
        entries.dedup();
        for receipts in entries.chunks(DING_DELIVERIES_A_RECORD_MAX) {
            let entry = |receipt: &&DingReceipt| DingDelivery { ding: receipt.ding, user: receipt.user };
            self.commit(DingsDelivered { time, entries: receipts.iter().map(entry).collect() }, effects);
        }
    }

    fn is_news(&self, receipt: &DingReceipt) -> bool {
        let found = self.dings.by_id.get(&receipt.ding).filter(|ding| ding.tenant == receipt.tenant);
        let shown = found.filter(|ding| ding.ended.is_none() && ding.has_started());
        let recipient = shown.and_then(|ding| ding.recipient(receipt.user));
        recipient.is_some_and(|found| found.delivered_at.is_none() && found.confirmed.is_none())
    }

    /// Fires what is due, `TIMERS_A_TICK_MAX` at most and for so many recipients; the rest stays due, what is only to be forgotten
    /// last. What was missed while the
    /// broker was down fires once, and an expiry that was missed wins over steps before it.
    pub(crate) fn handle_tick(&mut self, time: Timestamp, effects: &mut Effects) {
        let mut recipients = 0;
        for _ in 0..TIMERS_A_TICK_MAX {
            let Some(ding) = self.dings.timers.due(time) else { return };
            let found = &self.dings.by_id[&ding];
            recipients += found.recipients.len();
            if found.ended.is_some() {
                self.commit(DingForgotten { time, ding }, effects);
            } else if found.expires_at <= time {
                self.commit(DingEnded { time, ding, state: DingState::EXPIRED }, effects);
            } else {
                let begun = self.begin_due(time, ding, effects);
                assert!(begun, "a timer of an open DING is its expiry's or that of a step that is due");
            }
            if recipients >= RECIPIENTS_A_TICK_MAX {
                return;
            }
        }
    }

    /// Begins, or defers, the step of a DING that has been due longest; false if none is.
    pub(super) fn begin_due(&mut self, time: Timestamp, ding: DingId, effects: &mut Effects) -> bool {
        let found = &self.dings.by_id[&ding];
        match found.plan.due(found.starts_at, time) {
            None => return false,
            Some(Due::Begin(step)) => {
                let outlet = found.plan.steps[usize::from(step)].planned.outlet;
                self.commit(DingAttempted { time, ding, step, outlet }, effects);
            }
            Some(Due::Defer(step, until)) => self.commit(DingDeferred { time, ding, step, until }, effects),
        }
        true
    }
}
