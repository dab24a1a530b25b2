//! Decoded parts → a shard: what one part says of another must hold, and what is derived is built.

use alloc::sync::Arc;
use alloc::vec::Vec;
use carillon_protocol::ding::DingPush;
use carillon_protocol::frame::{Body, RawFrame};
use carillon_protocol::ids::{ConversationId, DingId, Position, TenantId, Timestamp, UserId};
use carillon_protocol::kinds::{AttemptState, CancelState, ConversationKind, DingState, Outlet};
use carillon_protocol::limits::{DING_ATTEMPTS_MAX, DING_RECIPIENTS_MAX, DING_STEPS_MAX};

use super::StateError;
use super::decode::check;
use crate::conversation::Conversation;
use crate::ding::{Attempt, Calls, Ding, Recipient};
use crate::directory::{Tenant, pair};
use crate::effect::CallKey;
use crate::handles::Handles;
use crate::limits::{DEVICES_A_USER_MAX, PRODUCERS_A_USER_MAX};
use crate::shard::Shard;

type Linked = Result<(), StateError>;

pub(super) fn tenant(shard: &mut Shard, mut tenant: Tenant) -> Linked {
    for user in tenant.users.iter() {
        let within = user.devices().len() <= DEVICES_A_USER_MAX && user.producers().len() <= PRODUCERS_A_USER_MAX;
        check(within, "a user has too many devices or producers")?;
        let acknowledged = user.devices().iter().all(|device| device.cursor <= shard.head);
        check(acknowledged, "a cursor is beyond the head")?;
    }
    tenant.by_handle = Handles::of(&tenant.users).ok_or(StateError::Damaged("two users have one handle"))?;
    let id = shard.directory.next_tenant();
    let name = Arc::clone(&tenant.name);
    check(shard.directory.by_name.insert(name, id).is_none(), "two tenants have one name")?;
    shard.directory.tenants.push(tenant);
    Ok(())
}

/// What is to be seen once all conversations are there.
#[derive(Default)]
pub(super) struct Conversations {
    /// Personal conversations, each its only member's own.
    personal: usize,
    /// Who left, and where.
    past: Vec<(Position, TenantId, UserId, ConversationId)>,
}

impl Conversations {
    /// Links the next one.
    pub(super) fn link(&mut self, shard: &mut Shard, conversation: Conversation) -> Linked {
        let id = shard.conversations.next_id();
        check(conversation.last_seq.0 <= conversation.last_position.0, "a last message lies before its seq")?;
        check(conversation.last_position <= shard.head, "a last message is beyond the head")?;
        check(conversation.newest_mark <= shard.head, "a newest mark is beyond the head")?;
        check((conversation.last_seq.0 == 0) == (conversation.last_position.0 == 0), "a last message has no seq")?;
        self.personal += usize::from(conversation.kind == ConversationKind::PERSONAL);
        link_members(shard, id, &conversation, &mut self.past)?;
        link_kind(shard, id, &conversation)?;
        shard.conversations.push(conversation);
        Ok(())
    }

    /// Links what was noted.
    pub(super) fn end(mut self, shard: &mut Shard) -> Linked {
        let users: usize = shard.directory.tenants.iter().map(|tenant| tenant.users.len()).sum();
        // Each was seen to be its only member's own, so that as many as users means one each.
        check(self.personal == users, "a user has no personal conversation")?;
        // In the order of leaving.
        self.past.sort_unstable();
        for (_, tenant, user, id) in self.past {
            if let Ok(user) = shard.directory.known_user(tenant, user) {
                user.rest_mut().past.push(id);
            }
        }
        Ok(())
    }
}

/// The conversation's members exist; notes it with them.
fn link_members(
    shard: &mut Shard,
    id: ConversationId,
    conversation: &Conversation,
    past: &mut Vec<(Position, TenantId, UserId, ConversationId)>,
) -> Linked {
    let head = shard.head;
    for (number, member) in conversation.members.iter() {
        let user = shard.directory.known_user(conversation.tenant, number);
        let user = user.map_err(|_| StateError::Damaged("a member is of no user"))?;
        let newest = member.last_stint();
        let latest = newest.left().map_or(newest.joined.position, |left| left.position);
        check((1..=head.0).contains(&latest.0), "a stint is beyond the head")?;
        check(member.newest_mark() <= conversation.newest_mark, "a mark is beyond the conversation's newest")?;
        match newest.left() {
            None => user.present.push(id),
            Some(left) => past.push((left.position, conversation.tenant, number, id)),
        }
    }
    Ok(())
}

/// What the kind and the name of a conversation say of its tenant.
fn link_kind(shard: &mut Shard, id: ConversationId, conversation: &Conversation) -> Linked {
    let tenant = shard.directory.known_tenant(conversation.tenant);
    let tenant = tenant.map_err(|_| StateError::Damaged("a conversation is of no tenant"))?;
    if let Some(name) = &conversation.name {
        check(tenant.by_name.insert(Arc::clone(name), id).is_none(), "two conversations have one name")?;
    }
    let members: Vec<UserId> = conversation.members.iter().take(3).map(|(user, _)| user).collect();
    let all_present = conversation.present as usize == members.len();
    if conversation.kind == ConversationKind::PERSONAL {
        let own = matches!(members[..], [user] if tenant.user(user).is_some_and(|user| user.personal == id));
        check(own && all_present, "a personal conversation is not its member's own")?;
    }
    if conversation.kind == ConversationKind::DIRECT {
        let [a, b] = members[..] else {
            return Err(StateError::Damaged("a direct conversation is not of two users"));
        };
        check(all_present, "a direct conversation was left")?;
        check(tenant.direct.insert(pair(a, b), id).is_none(), "two users have two direct conversations")?;
    }
    Ok(())
}

pub(super) fn ding(shard: &mut Shard, id: DingId, ding: Ding) -> Linked {
    let given_out = (1..=shard.dings.given_out).contains(&id.ordinal());
    check(id.shard() == shard.id && given_out, "a DING's id was never given out")?;
    check_ding(id, &ding)?;
    let newest = ding.attempts.last().map_or(Timestamp(0), |attempt| attempt.time);
    check(newest <= shard.last_time, "an attempt is later than the last record")?;
    let unknown = |_| StateError::Damaged("a DING is of no user");
    let sent = &mut shard.directory.known_user(ding.tenant, ding.sender).map_err(unknown)?.rest_mut().dings;
    check(sent.sent_by_key.insert(ding.key, id).is_none(), "two DINGs have one key")?;
    sent.sent.insert(id);
    sent.sent_open += usize::from(ding.ended.is_none());
    sent.sent_to += ding.recipients.len();
    shard.directory.known_tenant(ding.tenant).map_err(unknown)?.dings_sent_to += ding.recipients.len();
    for recipient in &ding.recipients {
        let user = shard.directory.known_user(ding.tenant, recipient.user).map_err(unknown)?;
        if ding.ended.is_none() && recipient.confirmed.is_none() {
            user.rest_mut().dings.waiting.insert(id);
        }
    }
    link_calls(&mut shard.dings.calls, id, &ding);
    shard.dings.insert(id, ding);
    Ok(())
}

/// What has no recorded outcome is to be handed out again.
fn link_calls(calls: &mut Calls, id: DingId, ding: &Ding) {
    for recipient in &ding.recipients {
        for reach in &recipient.reaches {
            let key = CallKey { ding: id, user: recipient.user, attempt: reach.attempt };
            let Attempt { outlet, time, .. } = ding.attempts[usize::from(reach.attempt)];
            match reach.cancel {
                CancelState::DUE => calls.cancel(outlet, key, time),
                CancelState::NONE if reach.state == AttemptState::STARTED => calls.start(outlet, key, time),
                _ => {}
            }
        }
    }
}

/// What a DING says of itself.
fn check_ding(id: DingId, ding: &Ding) -> Linked {
    let recipients = &ding.recipients;
    check((1..=DING_RECIPIENTS_MAX).contains(&recipients.len()), "a DING has no recipients or too many")?;
    check(recipients.is_sorted_by(|a, b| a.user < b.user), "recipients are out of order")?;
    check(ding.recipient(ding.sender).is_none(), "a DING goes to its sender")?;
    check((1..=DING_STEPS_MAX).contains(&ding.plan.steps.len()), "a DING has no plan, or one of too many steps")?;
    check(ding.plan.quiet.is_of_a_day(), "quiet hours are not of a day")?;
    let attempts = ding.attempts.len() + ding.plan.times_left();
    check(attempts <= DING_ATTEMPTS_MAX, "more attempts of a DING are begun or planned than may be")?;
    check(ding.attempts.is_sorted_by(|a, b| a.time <= b.time), "attempts are out of order")?;
    recipients.iter().try_for_each(|recipient| check_reaches(ding, recipient))?;
    let is_untouched = recipients.iter().all(|found| found.delivered_at.is_none() && found.confirmed.is_none());
    check(ding.has_started() || is_untouched, "a recipient has a DING that has not begun")?;
    let all_confirmed = ding.confirmed == ding.recipient_count();
    match ding.ended {
        None => {
            check(!all_confirmed, "a confirmed DING is open")?;
            check(ding.failed == 0, "a recipient of an open DING has failed")?;
            let push = RawFrame::new(ding.push.clone()).ok().filter(|raw| raw.kind == DingPush::KIND);
            let push = push.and_then(|raw| DingPush::decode(&raw).ok());
            let own = |push: &DingPush| {
                (push.ding, push.sender, push.time, push.expires_at) == (id, ding.sender, ding.time, ding.expires_at)
                    && (push.kind, push.conversation, push.seq) == (ding.kind, ding.conversation, ding.seq)
            };
            check(push.as_ref().is_some_and(own), "a DING's push is not its own")
        }
        Some(ended) => {
            check(ding.push.is_empty(), "an ended DING has a push")?;
            let states = [DingState::CONFIRMED, DingState::EXPIRED, DingState::RECALLED];
            check(states.contains(&ended.state), "an ended DING's state is unknown")?;
            check(
                ding.failed == 0 || ended.state == DingState::EXPIRED,
                "a recipient has failed before the DING expired",
            )?;
            check(all_confirmed == (ended.state == DingState::CONFIRMED), "a DING's confirmations contradict its state")
        }
    }
}

/// What became of attempts is of attempts that were begun, by outlets, and what is moot is cancelled.
fn check_reaches(ding: &Ding, recipient: &Recipient) -> Linked {
    let reaches = &recipient.reaches;
    check(reaches.is_sorted_by(|a, b| a.attempt < b.attempt), "attempts of a recipient are out of order")?;
    check(!(recipient.failed && recipient.confirmed.is_some()), "a recipient has failed and confirmed")?;
    if let Some(confirmed) = recipient.confirmed {
        let before = usize::from(confirmed.attempts);
        check((1..=ding.attempts.len()).contains(&before), "a recipient confirmed before or after all attempts")?;
        let none_after = reaches.last().is_none_or(|reach| reach.attempt < confirmed.attempts);
        check(none_after, "an attempt began for who had confirmed")?;
    }
    let is_moot = recipient.confirmed.is_some() || ding.ended.is_some();
    for reach in reaches {
        let begun = ding.attempts.get(usize::from(reach.attempt));
        check(begun.is_some_and(|begun| begun.outlet != Outlet::APP), "an attempt of a recipient was never begun")?;
        check(reach.state.is_known() && reach.cancel.is_known(), "the state of an attempt is unknown")?;
        check(is_moot || reach.cancel == CancelState::NONE, "an attempt was cancelled that is not moot")?;
        check(!(is_moot && reach.is_under_way()), "a moot attempt is under way")?;
    }
    Ok(())
}
