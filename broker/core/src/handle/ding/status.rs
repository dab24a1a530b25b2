//! How DINGs stand, asked by their sender or by who manages the tenant.

use alloc::vec::Vec;
use carillon_protocol::Frame;
use carillon_protocol::ding::DingStep;
use carillon_protocol::ding_status::{
    DingAttempt, DingAttemptList, DingAttempts, DingEntry, DingList, DingStatus, DingStatusReply, DingSummary,
    DingWatch, Dings, state_bit,
};
use carillon_protocol::ids::{DingId, Timestamp, UserId};
use carillon_protocol::kinds::{AttemptState, CancelState, Outlet};

use super::NOT_FOUND;
use crate::ding::{Ding, Recipient};
use crate::effect::Reply;
use crate::error::Refusal;
use crate::handle::{Answer, page_limit};
use crate::input::Principal;
use crate::shard::Shard;

impl Shard {
    pub(in crate::handle) fn handle_ding_status(&self, who: Principal, status: &DingStatus) -> Answer {
        let ding = self.sent_ding(who, status.ding)?;
        let (mut entries, mut next) = (Vec::new(), UserId(u32::MAX));
        let start = ding.recipients.partition_point(|recipient| recipient.user < status.from);
        let wanted = |recipient: &&Recipient| state_bit(ding.state_of(recipient)) & status.states != 0;
        for recipient in ding.recipients[start..].iter().filter(wanted) {
            if entries.len() == page_limit(status.limit) {
                next = recipient.user;
                break;
            }
            entries.push(entry(ding, recipient));
        }
        let next_step_at = if ding.ended.is_some() { None } else { ding.plan.next_at(ding.starts_at) };
        let none = Timestamp(0);
        Ok(Frame::from(DingStatusReply {
            request: status.request,
            state: ding.state(),
            sender: ding.sender,
            time: ding.time,
            starts_at: ding.starts_at,
            sent_at: ding.attempts.first().map_or(none, |first| first.time),
            expires_at: ding.expires_at,
            ended_at: ding.ended.map_or(none, |ended| ended.time),
            next_step_at: next_step_at.filter(|next| *next < ding.expires_at).unwrap_or(none),
            recipients: ding.recipient_count(),
            delivered: ding.delivered,
            confirmed: ding.confirmed,
            failed: ding.failed,
            attempts: u16::try_from(ding.attempts.len()).expect("DING_ATTEMPTS_MAX is under u16::MAX"),
            next,
            steps: steps(ding),
            entries,
        }))
    }

    pub(in crate::handle) fn handle_ding_attempts(&self, who: Principal, list: &DingAttemptList) -> Answer {
        let ding = self.sent_ding(who, list.ding)?;
        let not_found = Refusal { text: "the DING does not go to this user: ask for its status", ..NOT_FOUND };
        let recipient = ding.recipient(list.user).ok_or(not_found)?;
        let entries = ding.attempts.iter().zip(0u16..).filter_map(|(begun, attempt)| {
            let (state, cancel, detail, time) = if begun.outlet == Outlet::APP {
                // It went to who had not confirmed then.
                let before = recipient.confirmed.is_none_or(|confirmed| attempt < confirmed.attempts);
                before.then_some((AttemptState::STARTED, CancelState::NONE, 0, begun.time))?
            } else {
                let reach = recipient.reach(attempt)?;
                (reach.state, reach.cancel, reach.detail, reach.time)
            };
            let (step, outlet, started_at) = (begun.step, begun.outlet, begun.time);
            Some(DingAttempt { attempt, step, outlet, started_at, state, cancel, detail, time })
        });
        Ok(DingAttempts { request: list.request, entries: entries.collect() }.into())
    }

    pub(in crate::handle) fn handle_ding_list(&self, who: Principal, list: &DingList) -> Answer {
        let sender = self.directory.user(who.tenant, who.user).ok_or(Refusal::unknown_principal())?;
        let before = if list.before == DingId(0) { DingId(u64::MAX) } else { list.before };
        let limit = page_limit(list.limit);
        let sent = sender.dings().sent.range(..before).rev();
        let mut entries: Vec<_> = sent.take(limit + 1).map(|id| summary(*id, &self.dings.by_id[id])).collect();
        let more = entries.len() > limit;
        entries.truncate(limit);
        let next = entries.last().filter(|_| more).map_or(DingId(0), |last| last.ding);
        Ok(Dings { request: list.request, next, entries }.into())
    }

    pub(in crate::handle) fn handle_ding_watch(&self, who: Principal, watch: &DingWatch) -> Result<Reply, Refusal> {
        let ding = self.sent_ding(who, watch.ding)?;
        Ok(Reply::Watching { request: watch.request, progress: ding.progress(watch.ding, self.head, self.last_time) })
    }
}

fn entry(ding: &Ding, recipient: &Recipient) -> DingEntry {
    let confirmed = recipient.confirmed;
    DingEntry {
        user: recipient.user,
        state: ding.state_of(recipient),
        attempts: u16::try_from(recipient.reaches.len()).expect("DING_ATTEMPTS_MAX is under u16::MAX"),
        via: confirmed.map_or(Outlet(0), |confirmed| confirmed.via),
        delivered_at: recipient.delivered_at.unwrap_or(Timestamp(0)),
        confirmed_at: confirmed.map_or(Timestamp(0), |confirmed| confirmed.time),
    }
}

fn steps(ding: &Ding) -> Vec<DingStep> {
    let planned = ding.plan.steps.iter().map(|step| step.planned);
    let step = |step: crate::record::PlannedStep| DingStep {
        outlet: step.outlet,
        times: step.times,
        after_ms: step.after_ms,
        repeat_every_ms: step.repeat_every_ms,
    };
    planned.map(step).collect()
}

fn summary(id: DingId, ding: &Ding) -> DingSummary {
    DingSummary {
        ding: id,
        state: ding.state(),
        starts_at: ding.starts_at,
        expires_at: ding.expires_at,
        recipients: ding.recipient_count(),
        delivered: ding.delivered,
        confirmed: ding.confirmed,
        failed: ding.failed,
    }
}
