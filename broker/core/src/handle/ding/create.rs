//! A DING is made: to whom, with which content, by which plan.

use alloc::format;
use alloc::vec::Vec;
use carillon_protocol::ding::{DingCreate, DingCreated};
use carillon_protocol::error::{Error, ErrorCode};
use carillon_protocol::ids::{ConversationId, DingId, Seq, Timestamp, UserId};
use carillon_protocol::kinds::{ConversationKind, HistoryPolicy, Outlet, Target};
use carillon_protocol::limits::{DING_RECIPIENTS_MAX, DING_STEPS_MAX};

use crate::conversation::Conversation;
use crate::ding::fingerprint;
use crate::directory::Tenant;
use crate::effect::Effects;
use crate::error::Refusal;
use crate::handle::Answer;
use crate::handle::publish::check_content;
use crate::input::{Audience, DingTerms, Principal, Refused};
use crate::limits::{
    DING_ACQUAINTED_LOOKUPS_MAX, DING_EXPIRES_AFTER_MS_MAX, DING_RECIPIENTS_A_SENDER_MAX, DING_RECIPIENTS_A_TENANT_MAX,
    DING_REPEAT_EVERY_MS_MIN, DING_STARTS_WITHIN_MS_MAX, DING_STEP_TIMES_MAX, DINGS_KEPT_A_SENDER_MAX,
    DINGS_OPEN_A_USER_MAX,
};
use crate::record::{DingAdded, DingForgotten, PlannedStep};
use crate::shard::Shard;
use crate::user::User;

impl Shard {
    /// Whether the principal has a DING under this key: a repeat then gets the first answer, whatever configuration says now.
    pub fn knows_ding_key(&self, who: Principal, key: u64) -> bool {
        self.directory.user(who.tenant, who.user).is_some_and(|sender| sender.dings().sent_by_key.contains_key(&key))
    }

    pub(in crate::handle) fn handle_ding_create(
        &mut self,
        time: Timestamp,
        who: Principal,
        (create, terms): (&DingCreate, &Result<DingTerms, Refused>),
        effects: &mut Effects,
    ) -> Answer {
        let request = create.request;
        let fingerprint = fingerprint(create);
        let sender = self.directory.user(who.tenant, who.user).ok_or(Refusal::unknown_principal())?;
        if let Some(&ding) = sender.dings().sent_by_key.get(&create.key) {
            if self.dings.by_id[&ding].fingerprint != fingerprint {
                return Err(Refusal::invalid("the key was used for another DING: choose a new one at random"));
            }
            return Ok(self.ding_created(request, ding));
        }
        let terms = match terms {
            Ok(terms) => terms,
            Err(Refused { code, text }) => return Ok(Error { request, code: *code, text: text.clone() }.into()),
        };
        check_content(create.kind, create.payload.len())?;
        let starts_at = create.starts_at.max(time);
        check_times(starts_at.0 - time.0, terms)?;
        if sender.dings().sent_open >= DINGS_OPEN_A_USER_MAX {
            return Err(Refusal::limit("you have sent 1000 DINGs that are open: recall some, or wait"));
        }
        let recipients = self.recipients(who, create, terms.audience)?;
        self.check_reference(who, create, &recipients)?;
        if let Some(full) = self.full_recipient(who, &recipients) {
            let text = format!("1000 DINGs wait for {full}: leave them out, or have them confirm some first");
            return Ok(Error { request, code: ErrorCode::LIMIT_REACHED, text: text.as_str().into() }.into());
        }
        for ding in self.surplus(who, recipients.len())? {
            self.commit(DingForgotten { time, ding }, effects);
        }
        let ding = self.dings.next_id();
        let record = DingAdded {
            time,
            tenant: who.tenant,
            ding,
            sender: who.user,
            key: create.key,
            fingerprint,
            starts_at,
            expires_at: Timestamp(starts_at.0.saturating_add(terms.expires_after_ms)),
            kind: create.kind,
            conversation: create.conversation,
            seq: create.seq,
            quiet_from_min: terms.quiet.from_min,
            quiet_to_min: terms.quiet.to_min,
            recipients,
            steps: terms.steps.clone(),
            payload: create.payload.clone(),
        };
        self.commit(record, effects);
        // What is due at once begins with it, in the same batch.
        while self.begin_due(time, ding, effects) {}
        Ok(self.ding_created(request, ding))
    }

    fn ding_created(&self, request: u32, id: DingId) -> carillon_protocol::Frame {
        let ding = &self.dings.by_id[&id];
        let (recipients, starts_at, expires_at) = (ding.recipient_count(), ding.starts_at, ding.expires_at);
        DingCreated { request, ding: id, recipients, starts_at, expires_at }.into()
    }

    /// Whom the DING goes to: ascending, each once, known, never the sender, never none, all with room for one more.
    fn recipients(&self, who: Principal, create: &DingCreate, audience: Audience) -> Result<Vec<UserId>, Refusal> {
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
        if create.target == Target::USERS && audience == Audience::Acquainted && !who.authority.manages_tenant() {
            self.check_acquainted(tenant, who.user, &users)?;
        }
        Ok(users)
    }

    /// The handle of a recipient for whom as many DINGs wait as may.
    fn full_recipient(&self, who: Principal, recipients: &[UserId]) -> Option<&str> {
        let tenant = self.directory.tenant(who.tenant)?;
        let mut users = recipients.iter().filter_map(|user| tenant.user(*user));
        users.find(|user| user.dings().waiting.len() >= DINGS_OPEN_A_USER_MAX).map(|user| &*user.handle)
    }

    /// The oldest ended DINGs of the sender that have to be forgotten for one to so many more, if that is enough.
    fn surplus(&self, who: Principal, recipients: usize) -> Result<Vec<DingId>, Refusal> {
        let tenant = self.directory.tenant(who.tenant).ok_or(Refusal::unknown_principal())?;
        let dings = tenant.user(who.user).ok_or(Refusal::unknown_principal())?.dings();
        let (mut kept, mut own, mut all) = (dings.sent.len(), dings.sent_to, tenant.dings_sent_to);
        let fits = |kept: usize, own: usize, all: usize| {
            kept < DINGS_KEPT_A_SENDER_MAX
                && own + recipients <= DING_RECIPIENTS_A_SENDER_MAX
                && all + recipients <= DING_RECIPIENTS_A_TENANT_MAX
        };
        let mut ended =
            dings.sent.iter().map(|id| (*id, &self.dings.by_id[id])).filter(|(_, ding)| ding.ended.is_some());
        let mut surplus = Vec::new();
        while !fits(kept, own, all) {
            let full = "your open DINGs, or your organisation's, go to as many as may be: recall some, or wait";
            let (id, ding) = ended.next().ok_or(Refusal::limit(full))?;
            (kept, own, all) = (kept - 1, own - ding.recipients.len(), all - ding.recipients.len());
            surplus.push(id);
        }
        Ok(surplus)
    }

    fn present_members(&self, who: Principal, id: ConversationId) -> Result<Vec<UserId>, Refusal> {
        let conversation = self.visible(who, id)?;
        if conversation.kind == ConversationKind::PERSONAL {
            return Err(Refusal::conversation_not_found());
        }
        if !who.authority.manages_tenant() {
            // A reader of a channel may not alarm all the others.
            self.check_may_post(who, id)?;
        }
        // One more than may be, for the sender, who may be a member.
        if conversation.present as usize > DING_RECIPIENTS_MAX + 1 {
            return Err(too_many());
        }
        let present = conversation.members.iter().filter(|(_, member)| member.is_present());
        let users: Vec<_> = present.map(|(user, _)| user).filter(|user| *user != who.user).collect();
        if users.len() > DING_RECIPIENTS_MAX { Err(too_many()) } else { Ok(users) }
    }

    /// The sender is in a conversation with each of these users. A lookup for each conversation of who has fewer.
    fn check_acquainted(&self, tenant: &Tenant, sender: UserId, users: &[UserId]) -> Result<(), Refusal> {
        let own = tenant.user(sender).ok_or(Refusal::unknown_principal())?;
        let mut lookups = 0;
        for user in users {
            let other = tenant.user(*user).ok_or(Refusal::unknown_user())?;
            let (fewer, of) = if own.present.len() < other.present.len() { (own, *user) } else { (other, sender) };
            lookups += fewer.present.len();
            if lookups > DING_ACQUAINTED_LOOKUPS_MAX {
                let text =
                    "too many recipients to see whether you share a conversation with each: send the DING to one";
                return Err(Refusal::limit(text));
            }
            if !self.share_one(fewer, of) {
                let text = "you share no conversation with one of the recipients: in this tenant you may not DING them";
                return Err(Refusal::forbidden(text));
            }
        }
        Ok(())
    }

    fn share_one(&self, fewer: &User, other: UserId) -> bool {
        let has_other = |found: &Conversation| found.present_member(other).is_some();
        fewer.present.iter().any(|id| self.conversations.get(*id).is_some_and(has_other))
    }

    /// The message that the DING refers to, if it does, is the sender's and every recipient's to have.
    fn check_reference(&self, who: Principal, create: &DingCreate, recipients: &[UserId]) -> Result<(), Refusal> {
        if create.conversation == ConversationId(0) {
            let none = create.seq == Seq(0);
            return if none {
                Ok(())
            } else {
                Err(Refusal::invalid("a seq without a conversation: name both or none"))
            };
        }
        let found = self.visible(who, create.conversation)?;
        if found.kind == ConversationKind::PERSONAL {
            return Err(Refusal::conversation_not_found());
        }
        if !(1..=found.last_seq.0).contains(&create.seq.0) {
            return Err(Refusal::invalid("there is no such message in that conversation: check the seq"));
        }
        if !who.authority.manages_tenant() && !may_have(found, who.user, create.seq) {
            return Err(Refusal::conversation_not_found());
        }
        if recipients.iter().any(|user| !may_have(found, *user, create.seq)) {
            return Err(Refusal::invalid(
                "one of the recipients may not have the message: DING those who may, or its text",
            ));
        }
        Ok(())
    }
}

/// Whether a user may have a message: by a stint, or because members may have the whole history.
fn may_have(conversation: &Conversation, user: UserId, seq: Seq) -> bool {
    let Some(member) = conversation.members.get(user) else { return false };
    let full = conversation.policies.history == HistoryPolicy::FULL && member.is_present();
    full || member.covering(seq).is_some()
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

/// What holds for every plan, whatever a tenant allows.
fn check_times(starts_in_ms: u64, terms: &DingTerms) -> Result<(), Refusal> {
    if starts_in_ms > DING_STARTS_WITHIN_MS_MAX {
        return Err(Refusal::invalid("starts_at is more than 90 days ahead"));
    }
    if !(1..=DING_EXPIRES_AFTER_MS_MAX).contains(&terms.expires_after_ms) {
        return Err(Refusal::invalid("expires_after_ms must be at most 30 days"));
    }
    let steps = &terms.steps;
    if !(1..=DING_STEPS_MAX).contains(&steps.len()) || !steps.iter().any(|step| step.outlet == Outlet::APP) {
        return Err(Refusal::invalid(
            "a plan has 1 to 8 steps, and one of them is by the app: devices show it in any case",
        ));
    }
    if steps.iter().map(|step| usize::from(step.times)).sum::<usize>() > DING_STEP_TIMES_MAX {
        return Err(Refusal::invalid("the steps of a plan may begin 192 times in all: repeat less often"));
    }
    if !steps.iter().all(is_possible) {
        let text = "a step has an outlet, begins at least once, and again after 1000 ms at the earliest";
        return Err(Refusal::invalid(text));
    }
    if !terms.quiet.is_of_a_day() {
        return Err(Refusal::invalid("quiet hours are given in minutes of the day, 0 to 1439"));
    }
    Ok(())
}

const fn is_possible(step: &PlannedStep) -> bool {
    let repeats = step.times > 1 && step.repeat_every_ms >= DING_REPEAT_EVERY_MS_MIN;
    // Outlet 0 stands for "not confirmed" where a status has an outlet.
    step.outlet.0 != 0 && (step.times == 1 || repeats)
}
