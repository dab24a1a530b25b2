//! DINGs are made, confirmed, recalled and asked about; what is due fires.

use alloc::vec::Vec;
use carillon_protocol::ding::{
    DingConfirm, DingConfirmed as Confirmed, DingCreate, DingCreated, DingEntry, DingRecall, DingStatus,
    DingStatusReply,
};
use carillon_protocol::error::ErrorCode;
use carillon_protocol::ids::{ConversationId, DingId, Timestamp, UserId};
use carillon_protocol::kinds::{ConversationKind, DingState, StatusList, Target};
use carillon_protocol::limits::DING_RECIPIENTS_MAX;

use super::publish::check_content;
use super::{Answer, done, page_limit};
use crate::ding::{Ding, fingerprint};
use crate::directory::Tenant;
use crate::effect::Effects;
use crate::error::Refusal;
use crate::input::Principal;
use crate::limits::{
    DING_EXPIRES_AFTER_MS_DEFAULT, DING_EXPIRES_AFTER_MS_MAX, DING_REPEAT_EVERY_MS_MIN, DINGS_KEPT_A_SENDER_MAX,
    DINGS_OPEN_A_USER_MAX, TIMERS_A_TICK_MAX,
};
use crate::record::{DingAdded, DingConfirmed, DingEnded, DingForgotten, DingRepeated};
use crate::shard::Shard;

const NOT_FOUND: Refusal = Refusal::new(ErrorCode::NOT_FOUND, "no such DING, or not for you: it may be forgotten");

impl Shard {
    pub(super) fn handle_ding_create(
        &mut self,
        time: Timestamp,
        who: Principal,
        create: &DingCreate,
        effects: &mut Effects,
    ) -> Answer {
        let request = create.request;
        let fingerprint = fingerprint(create);
        let sender = self.directory.user(who.tenant, who.user).ok_or(Refusal::unknown_principal())?;
        if let Some(&ding) = sender.dings.sent_by_key.get(&create.key) {
            let kept = &self.dings.by_id[&ding];
            if kept.fingerprint != fingerprint {
                return Err(Refusal::invalid("the key was used for another DING: choose a new one at random"));
            }
            return Ok(DingCreated { request, ding, recipients: kept.recipient_count() }.into());
        }
        check_content(create.kind, create.payload.len())?;
        check_times(create)?;
        if sender.dings.sent_open >= DINGS_OPEN_A_USER_MAX {
            return Err(Refusal::limit("you have sent 1000 DINGs that are open: recall some, or wait"));
        }
        let recipients = self.recipients(who, create)?;
        let surplus = sender.dings.sent.len() >= DINGS_KEPT_A_SENDER_MAX;
        let is_over = |id: &&DingId| self.dings.by_id[*id].ended.is_some();
        if let Some(&ding) = sender.dings.sent.iter().find(is_over).filter(|_| surplus) {
            self.commit(DingForgotten { time, ding }, effects);
        }
        let ding = self.dings.next_id();
        let expires_after_ms = match create.expires_after_ms {
            0 => DING_EXPIRES_AFTER_MS_DEFAULT,
            given => given,
        };
        let count = u32::try_from(recipients.len()).expect("DING_RECIPIENTS_MAX is under u32::MAX");
        let record = DingAdded {
            time,
            tenant: who.tenant,
            ding,
            sender: who.user,
            key: create.key,
            fingerprint,
            expires_at: Timestamp(time.0.saturating_add(expires_after_ms)),
            repeat_every_ms: create.repeat_every_ms,
            kind: create.kind,
            recipients,
            payload: create.payload.clone(),
        };
        self.commit(record, effects);
        Ok(DingCreated { request, ding, recipients: count }.into())
    }

    /// Whom the DING goes to: ascending, each once, known, never the sender, never none, all with room for one more.
    fn recipients(&self, who: Principal, create: &DingCreate) -> Result<Vec<UserId>, Refusal> {
        let tenant = self.directory.tenant(who.tenant).ok_or(Refusal::unknown_principal())?;
        let mut users = match create.target {
            Target::USERS => known_users(tenant, &create.recipients)?,
            Target::CONVERSATION => self.present_members(who, ConversationId(create.target_id))?,
            _ => return Err(Refusal::invalid("the target must be a conversation or a list of users")),
        };
        users.retain(|user| *user != who.user);
        if users.is_empty() {
            return Err(Refusal::invalid("the DING goes to nobody but its sender: name at least one other user"));
        }
        let is_full =
            |user: &UserId| tenant.user(*user).is_some_and(|user| user.dings.waiting.len() >= DINGS_OPEN_A_USER_MAX);
        if users.iter().any(is_full) {
            return Err(Refusal::limit("1000 DINGs wait for one of the recipients: it must confirm some first"));
        }
        Ok(users)
    }

    fn present_members(&self, who: Principal, id: ConversationId) -> Result<Vec<UserId>, Refusal> {
        let conversation = self.visible(who, id)?;
        if conversation.kind == ConversationKind::PERSONAL {
            return Err(Refusal::conversation_not_found());
        }
        // One more than may be, for the sender, who may be a member.
        if conversation.present as usize > DING_RECIPIENTS_MAX + 1 {
            return Err(too_many());
        }
        let present = conversation.members.iter().filter(|(_, member)| member.present().is_some());
        let users: Vec<_> = present.map(|(user, _)| user).filter(|user| *user != who.user).collect();
        if users.len() > DING_RECIPIENTS_MAX { Err(too_many()) } else { Ok(users) }
    }

    pub(super) fn handle_ding_confirm(
        &mut self,
        now: Timestamp,
        who: Principal,
        confirm: &DingConfirm,
        effects: &mut Effects,
    ) -> Answer {
        let DingConfirm { request, ding } = *confirm;
        let found = self.ding_of(who, ding)?;
        let recipient = found.recipients[found.recipient_at(who.user).ok_or(NOT_FOUND)?];
        if let Some(time) = recipient.confirmed_at {
            return Ok(Confirmed { request, ding, time }.into());
        }
        if found.ended.is_some() {
            let text = "the DING expired or was recalled: nothing is left to confirm";
            return Err(Refusal::new(ErrorCode::DING_OVER, text));
        }
        self.commit(DingConfirmed { time: now, ding, user: who.user }, effects);
        Ok(Confirmed { request, ding, time: now }.into())
    }

    pub(super) fn handle_ding_recall(
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

    pub(super) fn handle_ding_status(&self, who: Principal, status: &DingStatus) -> Answer {
        let ding = self.sent_ding(who, status.ding)?;
        if ![StatusList::COUNTS, StatusList::DONE, StatusList::OPEN].contains(&status.list) {
            return Err(Refusal::invalid("the list must be counts, done or open"));
        }
        let (mut entries, mut next) = (Vec::new(), UserId(u32::MAX));
        for entry in ding_entries(ding, status.list, status.from) {
            if entries.len() == page_limit(status.limit) {
                next = entry.user;
                break;
            }
            entries.push(entry);
        }
        Ok(DingStatusReply {
            request: status.request,
            state: ding.state(),
            sender: ding.sender,
            time: ding.time,
            expires_at: ding.expires_at,
            recipients: ding.recipient_count(),
            confirmed: ding.confirmed,
            next,
            entries,
        }
        .into())
    }

    /// Fires what is due, `TIMERS_A_TICK_MAX` at most; the rest stays due. What was missed while the broker was down fires
    /// once, and an expiry that was missed wins over repeats before it.
    pub(crate) fn handle_tick(&mut self, time: Timestamp, effects: &mut Effects) {
        for _ in 0..TIMERS_A_TICK_MAX {
            let Some(ding) = self.dings.timers.due(time) else {
                return;
            };
            let found = &self.dings.by_id[&ding];
            if found.ended.is_some() {
                self.commit(DingForgotten { time, ding }, effects);
            } else if found.expires_at <= time {
                self.commit(DingEnded { time, ding, state: DingState::EXPIRED }, effects);
            } else {
                self.commit(DingRepeated { time, ding }, effects);
            }
        }
    }

    fn ding_of(&self, who: Principal, id: DingId) -> Result<&Ding, Refusal> {
        self.dings.by_id.get(&id).filter(|ding| ding.tenant == who.tenant).ok_or(NOT_FOUND)
    }

    /// A DING that the principal sent, or may look after.
    fn sent_ding(&self, who: Principal, id: DingId) -> Result<&Ding, Refusal> {
        let ding = self.ding_of(who, id)?;
        let may = ding.sender == who.user || who.authority.manages_tenant();
        if may { Ok(ding) } else { Err(NOT_FOUND) }
    }
}

fn too_many() -> Refusal {
    Refusal::limit("more than 10000 recipients: send it to parts of them")
}

fn known_users(tenant: &Tenant, asked: &[UserId]) -> Result<Vec<UserId>, Refusal> {
    if asked.len() > DING_RECIPIENTS_MAX {
        return Err(Refusal::too_large("more than 10000 recipients: send it to parts of them"));
    }
    if asked.iter().any(|user| tenant.user(*user).is_none()) {
        return Err(Refusal::unknown_user());
    }
    let mut users = asked.to_vec();
    users.sort_unstable();
    users.dedup();
    Ok(users)
}

fn check_times(create: &DingCreate) -> Result<(), Refusal> {
    if create.expires_after_ms > DING_EXPIRES_AFTER_MS_MAX {
        return Err(Refusal::invalid("expires_after_ms is over 30 days"));
    }
    if create.repeat_every_ms != 0 && create.repeat_every_ms < DING_REPEAT_EVERY_MS_MIN {
        return Err(Refusal::invalid("repeat_every_ms must be 0, for no repeats, or at least 1000"));
    }
    Ok(())
}

/// Recipients on the wanted list, from this one on.
fn ding_entries(ding: &Ding, list: StatusList, from: UserId) -> impl Iterator<Item = DingEntry> {
    let start = ding.recipients.partition_point(|recipient| recipient.user < from);
    let (open_state, open_time) = ding.ended.map_or((DingState::OPEN, ding.time), |ended| (ended.state, ended.time));
    ding.recipients[start..].iter().filter_map(move |recipient| {
        let user = recipient.user;
        match recipient.confirmed_at {
            Some(time) if list == StatusList::DONE => Some(DingEntry { user, state: DingState::CONFIRMED, time }),
            None if list == StatusList::OPEN => Some(DingEntry { user, state: open_state, time: open_time }),
            _ => None,
        }
    })
}
