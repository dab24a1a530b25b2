//! A DING as bytes, and back.

use alloc::vec::Vec;
use bytes::Bytes;
use carillon_protocol::ids::{ConversationId, Seq, TenantId, Timestamp, UserId};
use carillon_protocol::kinds::{AttemptState, CancelState, DingState, MessageKind, Outlet};

use super::decode::{Decoded, Input, check};
use super::{StateError, put_bytes, put_list, put_option, put_u8, put_u16, put_u32, put_u64};
use crate::ding::{Attempt, Confirmation, Ding, Ended, Plan, Reach, Recipient};
use crate::input::QuietWindow;
use crate::record::PlannedStep;

pub(super) fn put(out: &mut Vec<u8>, ding: &Ding) {
    put_u32(out, ding.tenant.0);
    put_u32(out, ding.sender.0);
    put_u64(out, ding.key);
    put_u64(out, ding.fingerprint);
    put_u64(out, ding.time.0);
    put_u64(out, ding.starts_at.0);
    put_u64(out, ding.expires_at.0);
    put_u8(out, ding.kind.0);
    put_u64(out, ding.conversation.0);
    put_u64(out, ding.seq.0);
    put_bytes(out, &ding.push);
    put_u16(out, ding.plan.quiet.from_min);
    put_u16(out, ding.plan.quiet.to_min);
    put_list(out, ding.plan.steps.iter(), |out, step| {
        put_u8(out, step.planned.outlet.0);
        put_u8(out, step.planned.heeds_quiet);
        put_u16(out, step.planned.times);
        put_u32(out, step.planned.after_ms);
        put_u32(out, step.planned.repeat_every_ms);
        put_u64(out, step.not_before.0);
    });
    put_list(out, ding.attempts.iter(), |out, attempt| {
        put_u8(out, attempt.step);
        put_u8(out, attempt.outlet.0);
        put_u64(out, attempt.time.0);
    });
    put_list(out, ding.recipients.iter(), put_recipient);
    put_option(out, ding.ended, |out, ended| {
        put_u8(out, ended.state.0);
        put_u64(out, ended.time.0);
    });
}

fn put_recipient(out: &mut Vec<u8>, recipient: &Recipient) {
    put_u32(out, recipient.user.0);
    put_option(out, recipient.delivered_at, |out, time| put_u64(out, time.0));
    put_option(out, recipient.confirmed, |out, confirmed| {
        put_u64(out, confirmed.time.0);
        put_u8(out, confirmed.via.0);
        put_u16(out, confirmed.attempts);
    });
    put_u8(out, u8::from(recipient.failed));
    put_list(out, recipient.reaches.iter(), |out, reach| {
        put_u16(out, reach.attempt);
        put_u8(out, reach.state.0);
        put_u8(out, reach.cancel.0);
        put_u16(out, reach.detail);
        put_u64(out, reach.time.0);
    });
}

/// Reads what [`put`] wrote; what follows from it is built, and judged by `link`.
pub(super) fn take(input: &mut Input<'_>) -> Decoded<Ding> {
    let mut ding = Ding {
        tenant: TenantId(input.u32()?),
        sender: UserId(input.u32()?),
        key: input.u64()?,
        fingerprint: input.u64()?,
        time: Timestamp(input.u64()?),
        starts_at: Timestamp(input.u64()?),
        expires_at: Timestamp(input.u64()?),
        kind: MessageKind(input.u8()?),
        conversation: ConversationId(input.u64()?),
        seq: Seq(input.u64()?),
        push: Bytes::copy_from_slice(input.byte_string()?),
        plan: take_plan(input)?,
        attempts: Vec::new(),
        recipients: Vec::new(),
        confirmed: 0,
        delivered: 0,
        failed: 0,
        ended: None,
    };
    let attempts = input
        .list(|input| Ok(Attempt { step: input.u8()?, outlet: Outlet(input.u8()?), time: Timestamp(input.u64()?) }))?;
    for attempt in &attempts {
        check(
            ding.plan.admits(attempt.step, attempt.outlet),
            "an attempt is of no step, or of one that began too often",
        )?;
        ding.plan.begin(attempt.step, attempt.time);
    }
    ding.attempts = attempts;
    ding.recipients = input.list(take_recipient)?;
    ding.ended = input.option(|input| Ok(Ended { state: DingState(input.u8()?), time: Timestamp(input.u64()?) }))?;
    let count = |such: fn(&&Recipient) -> bool| {
        let count = ding.recipients.iter().filter(such).count();
        u32::try_from(count).map_err(|_| StateError::Damaged("a DING has too many recipients"))
    };
    let confirmed = count(|recipient| recipient.confirmed.is_some())?;
    let delivered = count(|recipient| recipient.confirmed.is_none() && recipient.delivered_at.is_some())?;
    let failed = count(|recipient| recipient.failed)?;
    (ding.confirmed, ding.delivered, ding.failed) = (confirmed, delivered, failed);
    Ok(ding)
}

fn take_plan(input: &mut Input<'_>) -> Decoded<Plan> {
    let quiet = QuietWindow { from_min: input.u16()?, to_min: input.u16()? };
    let steps = input.list(|input| {
        let planned = PlannedStep {
            outlet: Outlet(input.u8()?),
            heeds_quiet: input.u8()?,
            times: input.u16()?,
            after_ms: input.u32()?,
            repeat_every_ms: input.u32()?,
        };
        Ok((planned, Timestamp(input.u64()?)))
    })?;
    let planned: Vec<_> = steps.iter().map(|(planned, _)| *planned).collect();
    let mut plan = Plan::new(&planned, quiet);
    for (step, (_, not_before)) in plan.steps.iter_mut().zip(steps) {
        step.not_before = not_before;
    }
    Ok(plan)
}

fn take_recipient(input: &mut Input<'_>) -> Decoded<Recipient> {
    Ok(Recipient {
        user: UserId(input.u32()?),
        delivered_at: input.option(|input| input.u64().map(Timestamp))?,
        confirmed: input.option(|input| {
            Ok(Confirmation { time: Timestamp(input.u64()?), via: Outlet(input.u8()?), attempts: input.u16()? })
        })?,
        failed: match input.u8()? {
            0 => false,
            1 => true,
            _ => return Err(StateError::Damaged("a recipient of a DING neither failed nor did not")),
        },
        reaches: input.list(|input| {
            Ok(Reach {
                attempt: input.u16()?,
                state: AttemptState(input.u8()?),
                cancel: CancelState(input.u8()?),
                detail: input.u16()?,
                time: Timestamp(input.u64()?),
            })
        })?,
    })
}
