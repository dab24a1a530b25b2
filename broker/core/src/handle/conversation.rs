//! Conversations are made, found and listed.

use alloc::string::String;
use alloc::vec::Vec;
use carillon_protocol::control::{
    ConversationCreate, ConversationCreated, ConversationEntry, ConversationFind, ConversationList, Conversations,
    MembershipChanged,
};
use carillon_protocol::error::ErrorCode;
use carillon_protocol::ids::{ConversationId, Timestamp, UserId};
use carillon_protocol::kinds::{Change, ConversationKind, HistoryPolicy, PostPolicy, ReceiptPolicy, Role};
use carillon_protocol::limits::{MEMBERS_A_REQUEST_MAX, NAME_BYTES_MAX};

use super::{Answer, page_limit};
use crate::conversation::{Conversation, Policies};
use crate::effect::Effects;
use crate::error::Refusal;
use crate::input::Principal;
use crate::limits::{CONVERSATIONS_A_USER_MAX, CONVERSATIONS_MAX};
use crate::record::{ConversationAdded, Grant};
use crate::shard::Shard;

impl Shard {
    pub(super) fn handle_conversation_create(
        &mut self,
        time: Timestamp,
        who: Principal,
        create: &ConversationCreate,
        effects: &mut Effects,
    ) -> Answer {
        let request = create.request;
        let Policies { post: post_policy, history, receipts } = policies(create)?;
        if let Some(conversation) = self.own_of_name(who, create)? {
            return Ok(ConversationCreated { request, conversation, existed: 1 }.into());
        }
        let users = self.first_members(who, create)?;
        let conversation = self.conversations.next_id();
        let (kind, tenant, by) = (create.kind, who.tenant, who.user);
        let owner = Grant { user: who.user, role: Role::OWNER };
        let others = users.iter().map(|&user| Grant { user, role: Role::MEMBER });
        let grants: Vec<_> = core::iter::once(owner).chain(others).collect();
        let name = create.name.clone();
        let told = grants.clone();
        let added =
            ConversationAdded { time, tenant, conversation, kind, post_policy, history, receipts, by, name, grants };
        self.commit(added, effects);
        for Grant { user, role } in told {
            let event = MembershipChanged { conversation, kind, change: Change::ADDED, role, by };
            self.tell(time, tenant, user, &event, effects);
        }
        Ok(ConversationCreated { request, conversation, existed: 0 }.into())
    }

    /// The asker's own conversation of that name, if it is there.
    fn own_of_name(&self, who: Principal, create: &ConversationCreate) -> Result<Option<ConversationId>, Refusal> {
        let name = create.name.as_str();
        if name.is_empty() {
            return Ok(None);
        }
        if !who.authority.manages_tenant() {
            return Err(Refusal::forbidden("only services and administrators may name a conversation: leave it empty"));
        }
        if name.len() > NAME_BYTES_MAX {
            return Err(Refusal::too_large("the name is over 128 bytes"));
        }
        if name.chars().any(char::is_control) {
            return Err(Refusal::invalid("the name has control characters"));
        }
        let taken = self.directory.tenant(who.tenant).and_then(|tenant| tenant.by_name.get(name));
        let Some(&id) = taken else {
            return Ok(None);
        };
        let owner = self.conversations.get(id).and_then(|found| found.members.get(who.user));
        if owner.is_some_and(|member| member.owns()) {
            return Ok(Some(id));
        }
        let text = "another conversation of the tenant has this name, and you do not own it: choose another";
        Err(Refusal::new(ErrorCode::NAME_TAKEN, text))
    }

    /// The members beside the creator: ascending, each once, known, all with room for one conversation more.
    fn first_members(&self, who: Principal, create: &ConversationCreate) -> Result<Vec<UserId>, Refusal> {
        if create.members.len() > MEMBERS_A_REQUEST_MAX {
            return Err(Refusal::too_large("more than 1000 first members: add the others afterwards"));
        }
        if self.conversations.len() >= CONVERSATIONS_MAX {
            return Err(Refusal::limit("the broker holds as many conversations as it may: ask its operator"));
        }
        let mut users = create.members.clone();
        users.retain(|user| *user != who.user);
        users.sort_unstable();
        users.dedup();
        for user in users.iter().chain([&who.user]) {
            self.check_may_join(who, *user)?;
        }
        Ok(users)
    }

    /// Whether the user exists and may be in one conversation more.
    pub(super) fn check_may_join(&self, who: Principal, user: UserId) -> Result<(), Refusal> {
        let user = self.directory.user(who.tenant, user).ok_or(Refusal::unknown_user())?;
        if user.present.len() >= CONVERSATIONS_A_USER_MAX {
            return Err(Refusal::limit("one of the users is in 10000 conversations: it must leave one first"));
        }
        Ok(())
    }

    pub(super) fn handle_conversation_find(&self, who: Principal, find: &ConversationFind) -> Answer {
        let tenant = self.directory.tenant(who.tenant).ok_or(Refusal::unknown_principal())?;
        let not_found = Refusal::new(ErrorCode::NOT_FOUND, "no conversation of this name, or not yours");
        let conversation = *tenant.by_name.get(find.name.as_str()).ok_or(not_found)?;
        self.visible(who, conversation).map_err(|_| not_found)?;
        Ok(ConversationCreated { request: find.request, conversation, existed: 1 }.into())
    }

    pub(super) fn handle_conversation_list(&self, who: Principal, list: &ConversationList) -> Answer {
        let user = self.directory.user(who.tenant, who.user).ok_or(Refusal::unknown_principal())?;
        let start = user.present.partition_point(|id| *id < list.from);
        let (mut entries, mut names) = (Vec::new(), String::new());
        let mut next = ConversationId(u64::MAX);
        for &id in &user.present[start..] {
            let conversation = self.conversations.get(id).expect("a user's conversations are there");
            let name = conversation.name.as_deref().unwrap_or_default();
            if entries.len() == page_limit(list.limit) {
                next = id;
                break;
            }
            entries.push(entry(id, conversation, who.user));
            names.push_str(name);
        }
        Ok(Conversations { request: list.request, next, entries, names: names.as_str().into() }.into())
    }
}

/// What was asked for, or else the kind's own.
fn policies(create: &ConversationCreate) -> Result<Policies, Refusal> {
    if ![ConversationKind::GROUP, ConversationKind::CHANNEL].contains(&create.kind) {
        return Err(Refusal::invalid("only a group or a channel can be made; a direct conversation makes itself"));
    }
    let mut policies = Policies::of_kind(create.kind);
    match create.post_policy {
        PostPolicy(0) => {}
        PostPolicy::MEMBERS | PostPolicy::ADMINS => policies.post = create.post_policy,
        _ => return Err(Refusal::invalid("post_policy must be 0 for the default, members or admins")),
    }
    match create.history {
        HistoryPolicy(0) => {}
        HistoryPolicy::JOINED | HistoryPolicy::FULL => policies.history = create.history,
        _ => return Err(Refusal::invalid("history must be 0 for the default, joined or full")),
    }
    match create.receipts {
        ReceiptPolicy(0) => {}
        ReceiptPolicy::ON | ReceiptPolicy::COUNTS | ReceiptPolicy::OFF => policies.receipts = create.receipts,
        _ => return Err(Refusal::invalid("receipts must be 0 for the default, on, counts or off")),
    }
    Ok(policies)
}

fn entry(id: ConversationId, conversation: &Conversation, user: UserId) -> ConversationEntry {
    let member = conversation.present_member(user).expect("the user's list holds present memberships");
    let is_direct = conversation.kind == ConversationKind::DIRECT;
    let other = || conversation.members.iter().map(|(other, _)| other).find(|other| *other != user);
    let name = conversation.name.as_deref().unwrap_or_default();
    ConversationEntry {
        conversation: id,
        kind: conversation.kind,
        role: member.role(),
        post_policy: conversation.policies.post,
        history: conversation.policies.history,
        receipts: conversation.policies.receipts,
        last_seq: conversation.last_seq,
        read_up_to: member.read_up_to(),
        unread: conversation.unread(user).expect("a present member, as above"),
        members: conversation.present,
        peer: is_direct.then(other).flatten().unwrap_or(UserId(u32::MAX)),
        name_bytes: u8::try_from(name.len()).expect("NAME_BYTES_MAX is under 256"),
    }
}
