//! Records of DINGs, applied.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use carillon_protocol::ding::DingPush;
use carillon_protocol::ding_status::{DingUpdate, STEP_REMINDER, USER_NONE};
use carillon_protocol::frame::Body;
use carillon_protocol::ids::{DingId, Position, TenantId, Timestamp, UserId};
use carillon_protocol::kinds::{AttemptState, CancelState, DingState, Outlet};
use carillon_protocol::limits::{DING_ATTEMPTS_MAX, DING_RECIPIENTS_MAX, DING_STEPS_MAX};

use super::{Attempt, Calls, Confirmation, Ding, Plan, Reach, Recipient};
use crate::effect::{CallKey, Signal, Verb};
use crate::error::{Applied, Contradiction};
use crate::input::QuietWindow;
use crate::limits::DING_NAMED_MAX;
use crate::record::{
    DingAdded, DingAttempted, DingConfirmed, DingDeferred, DingEnded, DingForgotten, DingOutcome, DingOutcomes,
    DingsDelivered,
};
use crate::shard::Shard;
use crate::user::UserDings;

impl Ding {
    fn update(&self, ding: DingId, user: UserId, state: DingState, time: Timestamp) -> DingUpdate {
        DingUpdate { ding, user, state, time, confirmed: self.confirmed, recipients: self.recipient_count() }
    }

    fn moved(&self, id: DingId, position: Position, time: Timestamp) -> Signal {
        Signal::Ding { tenant: self.tenant, sender: self.sender, progress: self.progress(id, position, time) }
    }

    /// Begins an attempt for all who have not confirmed.
    fn attempt(&mut self, id: DingId, attempt: Attempt, calls: &mut Calls) -> Applied {
        let full = Contradiction::Range { what: "attempts of DING", id: id.0 };
        let number = u16::try_from(self.attempts.len()).ok().filter(|nth| usize::from(*nth) < DING_ATTEMPTS_MAX);
        let number = number.ok_or(full)?;
        self.attempts.push(attempt);
        self.plan.begin(attempt.step, attempt.time);
        if attempt.outlet == Outlet::APP {
            return Ok(());
        }
        for recipient in self.recipients.iter_mut().filter(|recipient| recipient.confirmed.is_none()) {
            recipient.reaches.push(Reach::begun(number, attempt.time));
            let key = CallKey { ding: id, user: recipient.user, attempt: number };
            calls.start(attempt.outlet, key, attempt.time);
        }
        Ok(())
    }
}

impl Ding {
    /// Nobody who has not confirmed will: what is under way is moot, and what never worked has failed.
    fn give_up(&mut self, id: DingId, state: DingState, calls: &mut Calls) {
        let attempts = &self.attempts;
        for recipient in self.recipients.iter_mut().filter(|recipient| recipient.confirmed.is_none()) {
            recipient.cancel(id, attempts, calls);
            recipient.failed = state == DingState::EXPIRED && !recipient.was_reached();
            self.failed += u32::from(recipient.failed);
        }
    }
}

impl Recipient {
    /// What is under way towards the recipient is moot: its gateways are to be told.
    fn cancel(&mut self, ding: DingId, attempts: &[Attempt], calls: &mut Calls) {
        let user = self.user;
        for reach in self.reaches.iter_mut().filter(|reach| reach.is_under_way()) {
            let Attempt { outlet, time, .. } = attempts[usize::from(reach.attempt)];
            reach.cancel = CancelState::DUE;
            calls.cancel(outlet, CallKey { ding, user, attempt: reach.attempt }, time);
        }
    }
}

impl Shard {
    fn dings_of(&mut self, tenant: TenantId, user: UserId) -> Result<&mut UserDings, Contradiction> {
        self.directory.known_user(tenant, user).map(|user| &mut user.rest_mut().dings)
    }

    pub(crate) fn apply_ding_added(&mut self, record: &DingAdded) -> Applied {
        let (tenant, sender, id) = (record.tenant, record.sender, record.ding);
        if id != self.dings.next_id() {
            return Err(Contradiction::NotNext { what: "DING", id: id.0 });
        }
        let ascend = record.recipients.is_sorted_by(|a, b| a < b);
        let fit = (1..=DING_RECIPIENTS_MAX).contains(&record.recipients.len());
        if !ascend || !fit || record.recipients.binary_search(&sender).is_ok() {
            return Err(Contradiction::Range { what: "recipients of DING", id: id.0 });
        }
        let quiet = QuietWindow { from_min: record.quiet_from_min, to_min: record.quiet_to_min };
        let times: usize = record.steps.iter().map(|step| usize::from(step.times)).sum();
        let fits = (1..=DING_STEPS_MAX).contains(&record.steps.len()) && times <= DING_ATTEMPTS_MAX;
        if !fits || !quiet.is_of_a_day() {
            return Err(Contradiction::Range { what: "plan of DING", id: id.0 });
        }
        let sent = self.dings_of(tenant, sender)?;
        if sent.sent_by_key.contains_key(&record.key) {
            return Err(Contradiction::Present { what: "key of DING", id: id.0 });
        }
        sent.sent_by_key.insert(record.key, id);
        sent.sent.insert(id);
        sent.sent_open += 1;
        sent.sent_to += record.recipients.len();
        self.directory.known_tenant(tenant)?.dings_sent_to += record.recipients.len();
        for &user in &record.recipients {
            self.dings_of(tenant, user)?.waiting.insert(id);
        }
        let DingAdded { time, starts_at, expires_at, kind, conversation, seq, .. } = *record;
        let payload = record.payload.clone();
        let push = DingPush { ding: id, sender, time, expires_at, kind, conversation, seq, payload }.to_bytes();
        let ding = Ding {
            tenant,
            sender,
            key: record.key,
            fingerprint: record.fingerprint,
            time,
            starts_at,
            expires_at,
            kind,
            conversation,
            seq,
            push,
            plan: Plan::new(&record.steps, quiet),
            attempts: Vec::new(),
            recipients: record.recipients.iter().map(|&user| Recipient::new(user)).collect(),
            confirmed: 0,
            delivered: 0,
            failed: 0,
            ended: None,
        };
        self.dings.insert(id, ding);
        self.dings.given_out = id.ordinal();
        Ok(())
    }

    pub(crate) fn apply_ding_attempted(
        &mut self,
        position: Position,
        record: &DingAttempted,
        signals: &mut Vec<Signal>,
    ) -> Applied {
        let DingAttempted { time, ding: id, step, outlet } = *record;
        let (ding, first) = self.dings.change_open(id, |ding, calls| {
            let has_room = step != STEP_REMINDER || ding.reminders_left() > 0;
            if !ding.plan.admits(step, outlet) || !has_room {
                return Err(Contradiction::Range { what: "step of DING", id: id.0 });
            }
            let first = !ding.has_started();
            ding.attempt(id, Attempt { step, outlet, time }, calls)?;
            Ok(first)
        })?;
        if outlet == Outlet::APP {
            let (tenant, users, frame) = (ding.tenant, ding.unconfirmed().collect(), ding.push.clone());
            signals.push(Signal::Urgent { position, tenant, users, frame });
        }
        if first {
            signals.push(ding.moved(id, position, time));
        }
        Ok(())
    }

    pub(crate) fn apply_ding_deferred(&mut self, record: &DingDeferred) -> Applied {
        let DingDeferred { ding, step, until, .. } = *record;
        let deferred = self.dings.change_open(ding, |found, _| {
            let unknown = Contradiction::Unknown { what: "step of DING", id: ding.0 };
            found.plan.steps.get_mut(usize::from(step)).ok_or(unknown)?.not_before = until;
            Ok(())
        });
        deferred.map(|_| ())
    }

    pub(crate) fn apply_dings_delivered(
        &mut self,
        position: Position,
        record: &DingsDelivered,
        signals: &mut Vec<Signal>,
    ) -> Applied {
        for entries in record.entries.chunk_by(|a, b| a.ding == b.ding) {
            let id = entries[0].ding;
            let (ding, ()) = self.dings.change_shown(id, |ding, _| {
                for entry in entries {
                    let unknown = Contradiction::Unknown { what: "recipient without it", id: u64::from(entry.user.0) };
                    let without = |found: &&mut Recipient| found.delivered_at.is_none() && found.confirmed.is_none();
                    let recipient = ding.recipient_mut(entry.user).filter(without).ok_or(unknown)?;
                    recipient.delivered_at = Some(record.time);
                    ding.delivered += 1;
                }
                Ok(())
            })?;
            signals.push(ding.moved(id, position, record.time));
        }
        Ok(())
    }

    pub(crate) fn apply_ding_outcomes(
        &mut self,
        position: Position,
        record: &DingOutcomes,
        signals: &mut Vec<Signal>,
    ) -> Applied {
        let time = record.time;
        let mut moved = BTreeSet::new();
        for outcome in &record.entries {
            let (_, delivered) = self.dings.change(outcome.ding, |ding, calls| ding.note(outcome, time, calls))?;
            if delivered {
                moved.insert(outcome.ding);
            }
        }
        let signal = |id: DingId| Some(self.dings.by_id.get(&id)?.moved(id, position, time));
        signals.extend(moved.into_iter().filter_map(signal));
        Ok(())
    }

    pub(crate) fn apply_ding_confirmed(
        &mut self,
        position: Position,
        record: &DingConfirmed,
        signals: &mut Vec<Signal>,
    ) -> Applied {
        let DingConfirmed { time, ding: id, user, via } = *record;
        let (ding, ()) = self.dings.change_shown(id, |ding, calls| {
            let unknown = Contradiction::Unknown { what: "unconfirmed recipient", id: u64::from(user.0) };
            let at = ding.recipient_at(user).ok_or(unknown)?;
            let Ding { attempts, recipients, delivered, confirmed, .. } = ding;
            let recipient = Some(&mut recipients[at]).filter(|found| found.confirmed.is_none()).ok_or(unknown)?;
            let begun = u16::try_from(attempts.len()).expect("DING_ATTEMPTS_MAX is under u16::MAX");
            recipient.confirmed = Some(Confirmation { time, via, attempts: begun });
            recipient.cancel(id, attempts, calls);
            *delivered -= u32::from(recipient.delivered_at.is_some());
            *confirmed += 1;
            if ding.confirmed == ding.recipient_count() {
                ding.end(DingState::CONFIRMED, time);
            }
            Ok(())
        })?;
        let (tenant, sender, over) = (ding.tenant, ding.sender, ding.ended.is_some());
        let mut users = Vec::from([user]);
        if ding.recipients.len() <= DING_NAMED_MAX {
            users.push(sender);
        }
        let frame = ding.update(id, user, DingState::CONFIRMED, time).to_bytes();
        signals.extend([Signal::Urgent { position, tenant, users, frame }, ding.moved(id, position, time)]);
        self.dings_of(tenant, user)?.waiting.remove(&id);
        self.dings_of(tenant, sender)?.sent_open -= usize::from(over);
        Ok(())
    }

    pub(crate) fn apply_ding_ended(
        &mut self,
        position: Position,
        record: &DingEnded,
        signals: &mut Vec<Signal>,
    ) -> Applied {
        let DingEnded { time, ding: id, state } = *record;
        if state != DingState::EXPIRED && state != DingState::RECALLED {
            return Err(Contradiction::Range { what: "state of DING", id: u64::from(state.0) });
        }
        let (ding, ()) = self.dings.change_open(id, |ding, calls| {
            ding.give_up(id, state, calls);
            ding.end(state, time);
            Ok(())
        })?;
        let (tenant, sender) = (ding.tenant, ding.sender);
        let unconfirmed: Vec<_> = ding.unconfirmed().collect();
        // Who was never shown it need not be told that it is over.
        let mut users = if ding.has_started() { unconfirmed.clone() } else { Vec::new() };
        users.push(sender);
        let frame = ding.update(id, USER_NONE, state, time).to_bytes();
        signals.extend([Signal::Urgent { position, tenant, users, frame }, ding.moved(id, position, time)]);
        for user in unconfirmed {
            self.dings_of(tenant, user)?.waiting.remove(&id);
        }
        self.dings_of(tenant, sender)?.sent_open -= 1;
        Ok(())
    }

    pub(crate) fn apply_ding_forgotten(&mut self, record: &DingForgotten) -> Applied {
        let id = record.ding;
        let unknown = Contradiction::Unknown { what: "ended DING", id: id.0 };
        self.dings.by_id.get(&id).filter(|ding| ding.ended.is_some()).ok_or(unknown)?;
        let forgotten = self.dings.remove(id).ok_or(unknown)?;
        // A gateway that could not be told for a week is not told.
        for recipient in &forgotten.recipients {
            for reach in recipient.reaches.iter().filter(|reach| reach.cancel == CancelState::DUE) {
                let key = CallKey { ding: id, user: recipient.user, attempt: reach.attempt };
                let outlet = forgotten.attempts[usize::from(reach.attempt)].outlet;
                self.dings.calls.settle(outlet, Verb::Cancel, key);
            }
        }
        let sent = self.dings_of(forgotten.tenant, forgotten.sender)?;
        sent.sent_by_key.remove(&forgotten.key);
        sent.sent.remove(&id);
        sent.sent_to -= forgotten.recipients.len();
        self.directory.known_tenant(forgotten.tenant)?.dings_sent_to -= forgotten.recipients.len();
        Ok(())
    }
}

impl Ding {
    /// Notes what became of an attempt; returns whether the recipient has the DING by it, and had not before.
    fn note(&mut self, outcome: &DingOutcome, time: Timestamp, calls: &mut Calls) -> Result<bool, Contradiction> {
        let DingOutcome { ding, user, attempt, state, cancel, detail } = *outcome;
        let unknown = Contradiction::Unknown { what: "attempt of DING", id: ding.0 };
        let Attempt { outlet, time: began, .. } = *self.attempts.get(usize::from(attempt)).ok_or(unknown)?;
        let open = self.ended.is_none();
        let recipient = self.recipient_mut(user).ok_or(unknown)?;
        let is_moot = recipient.confirmed.is_some() || !open;
        let reach = recipient.reach_mut(attempt).ok_or(unknown)?;
        let key = CallKey { ding, user, attempt };
        if cancel != CancelState::NONE {
            if reach.cancel != CancelState::DUE || !cancel.is_known() || cancel == CancelState::DUE {
                return Err(Contradiction::Range { what: "cancel of DING", id: ding.0 });
            }
            (reach.cancel, reach.detail, reach.time) = (cancel, detail, time);
            calls.settle(outlet, Verb::Cancel, key);
        }
        if state == AttemptState(0) {
            return Ok(false);
        }
        if !reach.is_news(state) {
            return Err(Contradiction::Backwards { what: "attempt of DING", id: ding.0 });
        }
        (reach.state, reach.detail, reach.time) = (state, detail, time);
        calls.settle(outlet, Verb::Start, key);
        // One that had failed may have worked after all.
        if is_moot && reach.is_under_way() {
            reach.cancel = CancelState::DUE;
            calls.cancel(outlet, key, began);
        }
        let has_it = state == AttemptState::DELIVERED || state == AttemptState::ANSWERED;
        let is_news = has_it && !is_moot && recipient.delivered_at.is_none();
        if is_news {
            recipient.delivered_at = Some(time);
            self.delivered += 1;
        }
        Ok(is_news)
    }
}
