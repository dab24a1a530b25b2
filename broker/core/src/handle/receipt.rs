//! Marks, and the question who has read.

use carillon_protocol::error::ErrorCode;
use carillon_protocol::ids::{Timestamp, UserId};
use carillon_protocol::kinds::StatusList;
use carillon_protocol::receipt::{MarkRead, Marked, ReadStatus, ReadStatusReply};

use super::{Answer, page_limit};
use crate::conversation::Conversation;
use crate::effect::Effects;
use crate::error::Refusal;
use crate::input::Principal;
use crate::receipt::{Page, ReadCounts};
use crate::record::ReadMarked;
use crate::shard::Shard;

impl Shard {
    pub(super) fn handle_mark_read(
        &mut self,
        time: Timestamp,
        who: Principal,
        request: &MarkRead,
        effects: &mut Effects,
    ) -> Answer {
        let MarkRead { request, conversation, up_to } = *request;
        let not_found = Refusal::conversation_not_found();
        let found = self.conversations.get(conversation).filter(|found| found.tenant == who.tenant).ok_or(not_found)?;
        let (_, stint) = found.present_member(who.user).ok_or(not_found)?;
        if up_to > found.last_seq {
            return Err(Refusal::invalid("up_to is beyond the last message: mark what was delivered"));
        }
        let read_up_to = stint.read_up_to.max(up_to);
        if up_to > stint.read_up_to {
            self.commit(ReadMarked { time, conversation, user: who.user, up_to }, effects);
        }
        Ok(Marked { request, conversation, read_up_to }.into())
    }

    pub(super) fn handle_read_status(&self, who: Principal, request: &ReadStatus, author: Option<UserId>) -> Answer {
        let not_found = Refusal::new(ErrorCode::NOT_FOUND, "no such message, or not yours: check conversation and seq");
        let found = self.conversations.get(request.conversation).filter(|found| found.tenant == who.tenant);
        let found = found.filter(|found| (1..=found.last_seq.0).contains(&request.seq.0)).ok_or(not_found)?;
        let author = author.ok_or(not_found)?;
        if !may_ask(found, who, author) {
            let covered =
                found.present_member(who.user).is_some_and(|(member, _)| member.covering(request.seq).is_some());
            let forbidden = Refusal::forbidden("only the author, owners and admins may see who has read a message");
            return Err(if covered { forbidden } else { not_found });
        }
        let list = request.list;
        if ![StatusList::COUNTS, StatusList::DONE, StatusList::OPEN].contains(&list) {
            return Err(Refusal::invalid("the list must be counts, done or open"));
        }
        let page = Page { list, from: request.from, limit: page_limit(request.limit) };
        let ReadCounts { read, unread } = found.read_counts(request.seq, author);
        let (entries, next) = found.read_page(request.seq, author, page);
        Ok(ReadStatusReply { request: request.request, read, unread, next, entries }.into())
    }
}

fn may_ask(conversation: &Conversation, who: Principal, author: UserId) -> bool {
    let manages = || conversation.members.get(who.user).is_some_and(|member| member.manages());
    who.user == author || who.authority.manages_tenant() || manages()
}
