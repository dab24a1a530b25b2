//! Validation of inputs: each becomes records, or a refusal that changes nothing.
//!
//! A handler checks everything before its first record, so that a refused input leaves no trace.

use carillon_protocol::Frame;
use carillon_protocol::error::{Done, Error};
use carillon_protocol::frame::Text;
use carillon_protocol::ids::{ConversationId, Timestamp};
use carillon_protocol::limits::{HANDLE_BYTES_MAX, PAGE_ENTRIES_MAX};

use crate::conversation::Conversation;
use crate::effect::{Effects, Reply};
use crate::error::Refusal;
use crate::input::{Principal, Request};
use crate::shard::Shard;

mod attach;
mod conversation;
mod cursor;
mod ding;
mod directory;
mod membership;
mod publish;
mod receipt;

/// What a request is answered with.
type Answer = Result<Frame, Refusal>;

impl Shard {
    pub(crate) fn handle_request(&mut self, now: Timestamp, who: Principal, request: Request, effects: &mut Effects) {
        let number = request.number();
        let answered = if self.directory.user(who.tenant, who.user).is_some() {
            self.answer(now, who, &request, effects)
        } else {
            Err(Refusal::unknown_principal())
        };
        let refused =
            |Refusal { code, text }| Reply::Frame(Error { request: number, code, text: Text::from(text) }.into());
        effects.reply = Some(answered.unwrap_or_else(refused));
    }

    fn answer(
        &mut self,
        now: Timestamp,
        who: Principal,
        request: &Request,
        effects: &mut Effects,
    ) -> Result<Reply, Refusal> {
        let frame = match request {
            Request::MarkRead(request) => self.handle_mark_read(now, who, request, effects),
            Request::ReadStatus(request, written) => {
                return self.handle_read_status(who, request, *written).map(Reply::ReadPage);
            }
            Request::DingCreate(request, terms) => self.handle_ding_create(now, who, (request, terms), effects),
            Request::DingRemind(request, allowed) => self.handle_ding_remind(now, who, (request, allowed), effects),
            Request::DingAttemptList(request) => self.handle_ding_attempts(who, request),
            Request::DingList(request) => self.handle_ding_list(who, request),
            Request::DingWatch(request) => return self.handle_ding_watch(who, request),
            Request::DingConfirm(request) => self.handle_ding_confirm(now, who, request, effects),
            Request::DingStatus(request) => self.handle_ding_status(who, request),
            Request::DingRecall(request) => self.handle_ding_recall(now, who, request, effects),
            Request::ConversationCreate(request) => self.handle_conversation_create(now, who, request, effects),
            Request::ConversationFind(request) => self.handle_conversation_find(who, request),
            Request::ConversationList(request) => self.handle_conversation_list(who, request),
            Request::MembersAdd(request) => self.handle_members_add(now, who, request, effects),
            Request::MembersRemove(request) => self.handle_members_remove(now, who, request, effects),
            Request::Leave(request) => self.handle_leave(now, who, request, effects),
            Request::MemberList(request) => self.handle_member_list(who, request),
            Request::UserFind(request) => self.handle_user_find(now, who, request, effects),
            Request::UserLookup(request) => self.handle_user_lookup(who, request),
            Request::Retire(request) => self.handle_retire(now, who, request, effects),
        };
        frame.map(Reply::Frame)
    }

    /// A conversation that the principal may know of: as a present member, or because it manages the tenant.
    fn visible(&self, who: Principal, id: ConversationId) -> Result<&Conversation, Refusal> {
        let found = self.conversations.get(id).filter(|found| found.tenant == who.tenant);
        let visible =
            |found: &&Conversation| who.authority.manages_tenant() || found.present_member(who.user).is_some();
        found.filter(visible).ok_or(Refusal::conversation_not_found())
    }
}

/// Entries of a page: what was asked for, at least one and at most what a frame may hold.
fn page_limit(limit: u16) -> usize {
    usize::from(limit).clamp(1, PAGE_ENTRIES_MAX)
}

fn done(request: u32) -> Answer {
    Ok(Done { request }.into())
}

/// Whether a text can be a tenant's name or a user's handle.
fn is_handle(text: &str) -> bool {
    (1..=HANDLE_BYTES_MAX).contains(&text.len()) && !text.chars().any(char::is_control)
}
