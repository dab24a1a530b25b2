//! Marks, and the question who has read.

use alloc::vec::Vec;
use carillon_protocol::error::ErrorCode;
use carillon_protocol::ids::{Position, TenantId, Timestamp, UserId};
use carillon_protocol::kinds::{ReadState, ReceiptPolicy, StatusList};
use carillon_protocol::receipt::{MarkRead, Marked, ReadEntry, ReadStatus, ReadStatusReply};

use super::{Answer, page_limit};
use crate::conversation::Conversation;
use crate::delivery::Delivery;
use crate::effect::{Effects, ReadPage, Unsure};
use crate::error::Refusal;
use crate::input::{Principal, Written};
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
        let member = found.present_member(who.user).ok_or(not_found)?;
        if up_to > found.last_seq {
            return Err(Refusal::invalid("up_to is beyond the last message: mark what was delivered"));
        }
        let before = member.read_up_to();
        let read_up_to = before.max(up_to);
        if up_to > before {
            self.commit(ReadMarked { time, conversation, user: who.user, up_to }, effects);
        }
        Ok(Marked { request, conversation, read_up_to }.into())
    }

    pub(super) fn handle_read_status(
        &self,
        who: Principal,
        request: &ReadStatus,
        written: Option<Written>,
    ) -> Result<ReadPage, Refusal> {
        let not_found = Refusal::new(ErrorCode::NOT_FOUND, "no such message, or not yours: check conversation and seq");
        let found = self.conversations.get(request.conversation).filter(|found| found.tenant == who.tenant);
        let found = found.filter(|found| (1..=found.last_seq.0).contains(&request.seq.0)).ok_or(not_found)?;
        let Written { author, position } = written.ok_or(not_found)?;
        if !may_ask(found, who, author) {
            let covered = found.present_member(who.user).is_some_and(|member| member.covering(request.seq).is_some());
            let forbidden = Refusal::forbidden("only the author, owners and admins may see who has read a message");
            return Err(if covered { forbidden } else { not_found });
        }
        let list = request.list;
        if ![StatusList::COUNTS, StatusList::DONE, StatusList::OPEN].contains(&list) {
            return Err(Refusal::invalid("the list must be counts, done or open"));
        }
        match found.policies.receipts {
            ReceiptPolicy::OFF => {
                return Err(Refusal::forbidden("receipts are off in this conversation: nobody is told who has read"));
            }
            ReceiptPolicy::COUNTS if list != StatusList::COUNTS => {
                return Err(Refusal::forbidden("this conversation tells how many have read, not who: ask for counts"));
            }
            _ => {}
        }
        let page = Page { list, from: request.from, limit: page_limit(request.limit) };
        let ReadCounts { read, unread } = found.read_counts(request.seq, author);
        let (mut entries, next) = found.read_page(request.seq, author, page);
        let unsure = self.deliveries(who.tenant, position, &mut entries);
        let ReadStatus { request, conversation, seq, .. } = *request;
        let reply = ReadStatusReply { request, read, unread, next, entries };
        Ok(ReadPage { reply, conversation, seq, position, unsure })
    }

    /// Notes who of those that have not read the message has it on a device; returns of which devices that is unsure.
    fn deliveries(&self, tenant: TenantId, position: Position, entries: &mut [ReadEntry]) -> Vec<Unsure> {
        let mut unsure = Vec::new();
        for (nth, entry) in entries.iter_mut().enumerate().filter(|(_, entry)| entry.state != ReadState::READ) {
            let devices = self.directory.user(tenant, entry.user).map_or(&[][..], |user| user.devices());
            let begun = unsure.len();
            for device in devices {
                match device.delivery(position) {
                    Delivery::No => {}
                    Delivery::Among { newest, through } => unsure.push(Unsure { entry: nth, newest, through }),
                    Delivery::Yes => {
                        entry.state = ReadState::DELIVERED;
                        unsure.truncate(begun);
                        break;
                    }
                }
            }
        }
        unsure
    }
}

fn may_ask(conversation: &Conversation, who: Principal, author: UserId) -> bool {
    let manages = || conversation.members.get(who.user).is_some_and(|member| member.manages());
    who.user == author || who.authority.manages_tenant() || manages()
}
