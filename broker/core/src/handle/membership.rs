//! Members are added, removed and listed, and leave.

use alloc::vec::Vec;
use carillon_protocol::control::{
    Leave, MemberEntry, MemberList, Members, MembersAdd, MembersRemove, MembershipChanged,
};
use carillon_protocol::ids::{ConversationId, Seq, Timestamp, UserId};
use carillon_protocol::kinds::{Change, ConversationKind, ReceiptPolicy, Role};
use carillon_protocol::limits::MEMBERS_A_REQUEST_MAX;

use super::{Answer, done, page_limit};
use crate::conversation::Conversation;
use crate::effect::Effects;
use crate::error::Refusal;
use crate::input::Principal;
use crate::limits::GROUP_MEMBERS_MAX;
use crate::record::{Grant, MembersAdded, MembersRemoved};
use crate::shard::Shard;

const OWNER_NEEDED: Refusal = Refusal::forbidden("only an owner or a service may make, change or remove an owner");
const LAST_OWNER: Refusal = Refusal::forbidden("this is the last owner: make another member an owner first");
const FIXED: Refusal = Refusal::forbidden("the members of a direct or personal conversation are fixed");

impl Shard {
    pub(super) fn handle_members_add(
        &mut self,
        time: Timestamp,
        who: Principal,
        add: &MembersAdd,
        effects: &mut Effects,
    ) -> Answer {
        let conversation = self.managed(who, add.conversation)?;
        if ![Role::MEMBER, Role::ADMIN, Role::OWNER].contains(&add.role) {
            return Err(Refusal::invalid("the role must be member, admin or owner"));
        }
        let users = distinct(&add.members)?;
        check_roles(conversation, who, add.role, &users)?;
        let mut grants = Vec::new();
        let mut events = Vec::new();
        let mut joining = 0;
        for user in users {
            let change = match conversation.present_member(user) {
                Some(member) if member.role() == add.role => continue,
                Some(_) => Change::ROLE,
                None => {
                    self.check_may_join(who, user)?;
                    joining += 1;
                    Change::ADDED
                }
            };
            grants.push(Grant { user, role: add.role });
            events.push((user, change));
        }
        let present = conversation.present as usize;
        if conversation.kind == ConversationKind::GROUP && present + joining > GROUP_MEMBERS_MAX {
            return Err(Refusal::limit("a group has at most 1000000 members: make a channel"));
        }
        if grants.is_empty() {
            return done(add.request);
        }
        let (kind, id, role, by) = (conversation.kind, add.conversation, add.role, who.user);
        self.commit(MembersAdded { time, conversation: id, by, grants }, effects);
        for (user, change) in events {
            let event = MembershipChanged { conversation: id, kind, change, role, by };
            self.tell(time, who.tenant, user, &event, effects);
        }
        done(add.request)
    }

    pub(super) fn handle_members_remove(
        &mut self,
        time: Timestamp,
        who: Principal,
        remove: &MembersRemove,
        effects: &mut Effects,
    ) -> Answer {
        let conversation = self.managed(who, remove.conversation)?;
        let mut users = distinct(&remove.members)?;
        users.retain(|user| conversation.present_member(*user).is_some());
        check_owners(conversation, who, &users)?;
        if !users.is_empty() {
            self.end_stints(time, who, remove.conversation, Change::REMOVED, users, effects);
        }
        done(remove.request)
    }

    pub(super) fn handle_leave(
        &mut self,
        time: Timestamp,
        who: Principal,
        leave: &Leave,
        effects: &mut Effects,
    ) -> Answer {
        let not_found = Refusal::conversation_not_found();
        let conversation = self.visible(who, leave.conversation)?;
        let member = conversation.present_member(who.user).ok_or(not_found)?;
        if !conversation.is_managed() {
            return Err(FIXED);
        }
        // Who is alone may leave: nobody is left without an owner.
        let is_last_owner = member.owns() && conversation.owners == 1 && conversation.present > 1;
        if is_last_owner && !who.authority.manages_tenant() {
            return Err(LAST_OWNER);
        }
        self.end_stints(time, who, leave.conversation, Change::LEFT, [who.user].into(), effects);
        done(leave.request)
    }

    pub(super) fn handle_member_list(&self, who: Principal, list: &MemberList) -> Answer {
        let conversation = self.visible(who, list.conversation)?;
        let (mut entries, mut next) = (Vec::new(), UserId(u32::MAX));
        let tells_readers = conversation.policies.receipts == ReceiptPolicy::ON;
        for (user, member) in conversation.members.iter_from(list.from) {
            let Some(stint) = member.present() else {
                continue;
            };
            if entries.len() == page_limit(list.limit) {
                next = user;
                break;
            }
            let read_up_to = if tells_readers || user == who.user { stint.read_up_to } else { Seq(0) };
            let (role, joined) = (member.role(), stint.joined.seq);
            entries.push(MemberEntry { user, role, joined, read_up_to });
        }
        Ok(Members { request: list.request, next, entries }.into())
    }

    /// A group or channel whose members the principal may change.
    fn managed(&self, who: Principal, id: ConversationId) -> Result<&Conversation, Refusal> {
        let conversation = self.visible(who, id)?;
        if !conversation.is_managed() {
            return Err(FIXED);
        }
        let manages = conversation.members.get(who.user).is_some_and(|member| member.manages());
        if !manages && !who.authority.manages_tenant() {
            return Err(Refusal::forbidden("only owners and admins may change the members: ask one of them"));
        }
        Ok(conversation)
    }

    /// Records that present members are members no longer, and tells them.
    fn end_stints(
        &mut self,
        time: Timestamp,
        who: Principal,
        id: ConversationId,
        change: Change,
        users: Vec<UserId>,
        effects: &mut Effects,
    ) {
        let by = who.user;
        let conversation = self.conversations.get(id).expect("the caller found it");
        let kind = conversation.kind;
        let role = |user: UserId| conversation.present_member(user).map_or(Role::MEMBER, |member| member.role());
        let events: Vec<_> = users.iter().map(|&user| (user, role(user))).collect();
        self.commit(MembersRemoved { time, conversation: id, change, by, users }, effects);
        for (user, role) in events {
            let event = MembershipChanged { conversation: id, kind, change, role, by };
            self.tell(time, who.tenant, user, &event, effects);
        }
    }
}

/// The users of a request, ascending, each once.
fn distinct(users: &[UserId]) -> Result<Vec<UserId>, Refusal> {
    if users.is_empty() {
        return Err(Refusal::invalid("the list of members is empty"));
    }
    if users.len() > MEMBERS_A_REQUEST_MAX {
        return Err(Refusal::too_large("more than 1000 members in one request: send it in parts"));
    }
    let mut users = users.to_vec();
    users.sort_unstable();
    users.dedup();
    Ok(users)
}

/// Whether the principal may give these users the role.
fn check_roles(conversation: &Conversation, who: Principal, role: Role, users: &[UserId]) -> Result<(), Refusal> {
    if role != Role::OWNER {
        return check_owners(conversation, who, users);
    }
    let owns = conversation.members.get(who.user).is_some_and(|member| member.owns());
    if owns || who.authority.manages_tenant() { Ok(()) } else { Err(OWNER_NEEDED) }
}

/// Whether the principal may make owners no longer of those of the users who are.
fn check_owners(conversation: &Conversation, who: Principal, users: &[UserId]) -> Result<(), Refusal> {
    let owns = |user: UserId| conversation.members.get(user).is_some_and(|member| member.owns());
    let affected = users.iter().filter(|user| owns(**user)).count();
    if affected == 0 || who.authority.manages_tenant() {
        Ok(())
    } else if !owns(who.user) {
        Err(OWNER_NEEDED)
    } else if affected == conversation.owners as usize {
        Err(LAST_OWNER)
    } else {
        Ok(())
    }
}
