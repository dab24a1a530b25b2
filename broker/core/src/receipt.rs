//! Watermarks, and who has read a message.
//!
//! Who has read is found by a scan of the members, present and past: O(members) a question, none a message or mark.

use alloc::vec::Vec;
use carillon_protocol::ids::{Position, Seq, UserId};
use carillon_protocol::kinds::StatusList;
use carillon_protocol::receipt::ReadEntry;

use crate::conversation::Conversation;
use crate::effect::Signal;
use crate::error::{Applied, Contradiction};
use crate::record::ReadMarked;
use crate::shard::Shard;

/// Which members of a read status are wanted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Page {
    pub(crate) list: StatusList,
    pub(crate) from: UserId,
    pub(crate) limit: usize,
}

/// Who has read one message: counts of all, and one page of members.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Readers {
    pub(crate) read: u32,
    pub(crate) unread: u32,
    pub(crate) entries: Vec<ReadEntry>,
    /// Where the next page starts; `u32::MAX` when this is the last.
    pub(crate) next: UserId,
}

/// Those entitled to the message but its author: read if the watermark of the stint that covers it has come so far.
pub(crate) fn readers(conversation: &Conversation, seq: Seq, author: UserId, page: Page) -> Readers {
    let mut readers = Readers { read: 0, unread: 0, entries: Vec::new(), next: UserId(u32::MAX) };
    for (user, member) in conversation.members.iter() {
        let Some(stint) = member.covering(seq).filter(|_| user != author) else {
            continue;
        };
        let has_read = stint.read_up_to >= seq;
        readers.read += u32::from(has_read);
        readers.unread += u32::from(!has_read);
        let wanted = if has_read { StatusList::DONE } else { StatusList::OPEN };
        if page.list != wanted || user < page.from {
            continue;
        }
        if readers.entries.len() < page.limit {
            readers.entries.push(ReadEntry { user, read_up_to: stint.read_up_to });
        } else if readers.next == UserId(u32::MAX) {
            readers.next = user;
        }
    }
    readers
}

impl Shard {
    pub(crate) fn apply_read_marked(
        &mut self,
        position: Position,
        record: &ReadMarked,
        signals: &mut Vec<Signal>,
    ) -> Applied {
        let (user, up_to) = (record.user, record.up_to);
        let found = self.conversations.known(record.conversation)?;
        if up_to > found.last_seq {
            return Err(Contradiction::Range { what: "watermark", id: up_to.0 });
        }
        let stint = found.members.get_mut(user).and_then(|member| member.present_mut());
        let stint = stint.ok_or(Contradiction::Unknown { what: "member", id: u64::from(user.0) })?;
        let from = stint.read_up_to;
        if up_to <= from {
            return Err(Contradiction::Backwards { what: "watermark", id: up_to.0 });
        }
        stint.read_up_to = up_to;
        let (tenant, conversation, members) = (found.tenant, record.conversation, found.present);
        signals.push(Signal::Read { position, tenant, conversation, user, from, up_to, members });
        Ok(())
    }
}
