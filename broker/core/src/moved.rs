//! What has moved since a device was told last: a user's own watermarks, and how far others have read what the user wrote.
//!
//! A stint knows the position of its last mark and a conversation that of its newest one, so a conversation in which nothing
//! has moved costs one comparison. Readers are found in the order of their marks, from the newest back: one that has few stints
//! looks at them all, one with more keeps them in that order. In still larger ones nothing is kept for it, and what is told is how
//! many have read.
//!
//! An answer goes in the order of positions, and ends where it is as long as it may be: all up to its last update has been told
//! then, so that one position is all that is to be remembered.

use alloc::vec::Vec;
use carillon_protocol::ids::{ConversationId, Position, Seq, TenantId, UserId};
use carillon_protocol::kinds::ReceiptPolicy;

use crate::conversation::Conversation;
use crate::limits::{NAMED_STINTS_MAX, NAMES_A_QUESTION_MAX};
use crate::membership::{Member, Members};
use crate::shard::Shard;

/// What has moved?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MovedQuestion {
    /// The tenant.
    pub tenant: TenantId,
    /// Who asks: a session's user.
    pub user: UserId,
    /// What moved up to here was told.
    pub since: Position,
    /// As many updates are wanted, two or more.
    pub updates_max: usize,
    /// Present members up to which readers are named.
    pub named_members_max: u32,
}

/// The answer, in the order of positions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moved {
    /// The shard's head: if there is no more, this is all up to here.
    pub as_of: Position,
    /// By position, ascending: all that has moved up to the last of them.
    pub updates: Vec<MovedUpdate>,
    /// There is more behind the last of them.
    pub more: bool,
}

/// One thing that has moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MovedUpdate {
    /// Of the mark.
    pub position: Position,
    /// Where.
    pub conversation: ConversationId,
    /// What.
    pub what: MovedWhat,
}

/// What an update tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MovedWhat {
    /// A member has read up to here.
    Read {
        /// Who.
        user: UserId,
        /// The watermark.
        read_up_to: Seq,
    },
    /// Some have read; the user is to be told how many.
    Counts {
        /// The newest message that the user wrote.
        newest_own: Seq,
        /// The conversation's last.
        last_seq: Seq,
    },
}

/// Members by the position of their newest mark, of those that have marked: a sorted list, since it is short.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct MarkOrder(Vec<(Position, UserId)>);

impl MarkOrder {
    /// Of these members; `None` if they have more stints than are kept in order.
    pub(crate) fn of(members: &Members, stints: u64) -> Option<Self> {
        if stints > NAMED_STINTS_MAX {
            return None;
        }
        let marks = members.iter().map(|(user, member)| (member.newest_mark(), user));
        let mut order: Vec<_> = marks.filter(|(position, _)| *position > Position(0)).collect();
        order.sort_unstable();
        Some(Self(order))
    }

    /// A member whose newest mark was at `before`, 0 without one, made another, the newest of all.
    pub(crate) fn mark(&mut self, before: Position, position: Position, user: UserId) {
        self.forget(before);
        self.0.push((position, user));
    }

    /// The mark at this position is kept no longer, if it was the newest of its member.
    pub(crate) fn forget(&mut self, position: Position) {
        if let Ok(at) = self.0.binary_search_by_key(&position, |(position, _)| *position) {
            self.0.remove(at);
        }
    }
}

impl Conversation {
    /// The members whose newest mark lies behind this position, with that mark; `None` if the conversation is too large to keep
    /// them. O(what has moved).
    fn marked_since(&self, since: Position) -> Option<Vec<(Position, UserId)>> {
        let mut marked: Vec<_> = match &self.ranks {
            Some(ranks) => {
                let order = &ranks.marks.as_ref()?.0;
                order[order.partition_point(|(position, _)| *position <= since)..].to_vec()
            }
            None => self.members.iter().map(|(user, member)| (member.newest_mark(), user)).collect(),
        };
        marked.retain(|(position, _)| *position > since);
        Some(marked)
    }

    fn read_at(&self, user: UserId, position: Position) -> Option<Seq> {
        let member = self.members.get(user)?;
        member.stints.iter().find(|stint| stint.marked_at == position).map(|stint| stint.read_up_to)
    }
}

/// What is gathered for an answer.
struct Gathered {
    question: MovedQuestion,
    updates: Vec<MovedUpdate>,
    /// How many readers may still be looked at.
    names_left: usize,
}

impl Gathered {
    fn add(&mut self, conversation: ConversationId, found: &Conversation, member: &Member) {
        let MovedQuestion { user, since, .. } = self.question;
        if let Some(own) = member.stints.last().filter(|stint| stint.marked_at > since) {
            let what = MovedWhat::Read { user, read_up_to: own.read_up_to };
            self.updates.push(MovedUpdate { position: own.marked_at, conversation, what });
        }
        // Who wrote nothing is told of nobody.
        if member.newest_own() == Seq(0) || found.policies.receipts == ReceiptPolicy::OFF {
            return;
        }
        if self.add_readers(conversation, found, member) {
            return;
        }
        if member.present().is_some_and(|stint| stint.spans(found.newest_mark)) {
            let what = MovedWhat::Counts { newest_own: member.newest_own(), last_seq: found.last_seq };
            self.updates.push(MovedUpdate { position: found.newest_mark, conversation, what });
        }
    }

    /// Those who have read on, by name; false if they are not named here, or too many were already.
    fn add_readers(&mut self, conversation: ConversationId, found: &Conversation, member: &Member) -> bool {
        let MovedQuestion { user, since, named_members_max, .. } = self.question;
        if found.policies.receipts != ReceiptPolicy::ON || found.present > named_members_max {
            return false;
        }
        let Some(marked) = found.marked_since(since).filter(|marked| marked.len() <= self.names_left) else {
            return false;
        };
        self.names_left -= marked.len();
        let told = marked
            .into_iter()
            .filter(|(position, reader)| *reader != user && member.stints.iter().any(|stint| stint.spans(*position)));
        self.updates.extend(told.filter_map(|(position, reader)| {
            let what = MovedWhat::Read { user: reader, read_up_to: found.read_at(reader, position)? };
            Some(MovedUpdate { position, conversation, what })
        }));
        true
    }

    /// The first of them, as many as are wanted, and whether there are more.
    fn first(self) -> (Vec<MovedUpdate>, bool) {
        let Self { question: MovedQuestion { updates_max, .. }, mut updates, .. } = self;
        assert!(updates_max >= 2, "a user's own mark may be told by name and by counts, at one position");
        if updates.len() <= updates_max {
            updates.sort_unstable();
            return (updates, false);
        }
        updates.select_nth_unstable(updates_max);
        let beyond = updates[updates_max].position;
        updates.truncate(updates_max);
        // All of one position, or nothing: who was told of a part would not be told of the rest.
        updates.retain(|update| update.position < beyond);
        updates.sort_unstable();
        (updates, true)
    }
}

impl Shard {
    /// What the user's devices and the author of messages would have been told since a position, by what is entitled now.
    ///
    /// O(the user's conversations, and what has moved in them), whatever the number of their members.
    pub fn moved(&self, question: MovedQuestion) -> Moved {
        let MovedQuestion { tenant, user: id, since, .. } = question;
        let mut gathered = Gathered { question, updates: Vec::new(), names_left: NAMES_A_QUESTION_MAX };
        let user = self.directory.user(tenant, id);
        let conversations = user.into_iter().flat_map(|user| user.present.iter().chain(&user.past));
        for conversation in conversations {
            let found = self.conversations.get(*conversation).filter(|found| found.newest_mark > since);
            let Some(found) = found else { continue };
            if let Some(member) = found.members.get(id) {
                gathered.add(*conversation, found, member);
            }
        }
        let (updates, more) = gathered.first();
        Moved { as_of: self.head, updates, more }
    }
}
