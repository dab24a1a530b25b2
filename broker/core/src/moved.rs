//! What has moved since a device was told last: a user's own watermarks, and how far others have read what the user wrote.
//!
//! A stint knows the position of its last mark and a conversation that of its newest one, so a conversation in which nothing
//! has moved costs one comparison. Readers are found in the order of their marks: one that has few stints looks at them all, one
//! with more keeps them in that order. In still larger ones nothing is kept for it, and what is told is how many have read.
//!
//! An answer goes in the order of positions, and ends where it is as long as it may be: all up to its last update has been told
//! then, so that one position is all that is to be remembered. It is merged from where each conversation goes on, so that a page
//! costs what it holds and not what is left.

use alloc::collections::BinaryHeap;
use alloc::vec::Vec;
use core::cmp::Reverse;

use carillon_protocol::ids::{ConversationId, Position, Seq, TenantId, UserId};
use carillon_protocol::kinds::ReceiptPolicy;

use crate::conversation::Conversation;
use crate::limits::NAMED_STINTS_MAX;
use crate::members::Members;
use crate::membership::Member;
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
    /// What it cost: conversations and marks that were looked at, each 0.1 µs or less.
    pub looks: usize,
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
    /// The oldest of the members' newest marks behind this position, and whose it is; `None` also if the conversation is too large to
    /// keep them in order.
    fn first_marked(&self, since: Position, looks: &mut usize) -> Option<(Position, UserId)> {
        let Some(ranks) = &self.ranks else {
            let marks = self.members.iter().inspect(|_| *looks += 1).map(|(user, member)| (member.newest_mark(), user));
            return marks.filter(|(position, _)| *position > since).min();
        };
        *looks += 1;
        let order = &ranks.marks.as_ref()?.0;
        order.get(order.partition_point(|(position, _)| *position <= since)).copied()
    }

    /// The first of those marks that is another's, made while this member was one.
    fn first_of_others(
        &self,
        (user, member): (UserId, Member<'_>),
        since: Position,
        looks: &mut usize,
    ) -> Option<MarkOf> {
        let mut from = since;
        loop {
            let (position, reader) = self.first_marked(from, looks)?;
            if !member.stints().any(|stint| stint.spans(position)) {
                // On with the next stint, whatever was marked before it.
                from = member.stints().map(|stint| stint.joined.position).find(|joined| *joined >= position)?;
                continue;
            }
            if let Some(read_up_to) = self.read_at(reader, position).filter(|_| reader != user) {
                return Some(MarkOf { position, reader, read_up_to });
            }
            from = position;
        }
    }

    /// The newest mark by somebody else, or by anybody if the conversation is too large to tell.
    fn newest_mark_of_others(&self, user: UserId, looks: &mut usize) -> Position {
        let Some(ranks) = &self.ranks else {
            let others = self.members.iter().inspect(|_| *looks += 1).filter(|(of, _)| *of != user);
            return others.map(|(_, member)| member.newest_mark()).max().unwrap_or_default();
        };
        let Some(MarkOrder(order)) = &ranks.marks else { return self.newest_mark };
        order.iter().rev().find(|(_, of)| *of != user).map_or(Position(0), |(position, _)| *position)
    }

    /// Whether readers can be found in the order of their marks.
    fn keeps_order(&self) -> bool {
        self.ranks.as_ref().is_none_or(|ranks| ranks.marks.is_some())
    }

    fn read_at(&self, user: UserId, position: Position) -> Option<Seq> {
        let member = self.members.get(user)?;
        member.stints().find(|stint| stint.marked_at == position).map(|stint| stint.read_up_to)
    }
}

/// The newest mark of a reader.
struct MarkOf {
    position: Position,
    reader: UserId,
    read_up_to: Seq,
}

/// An update that may be the next one; the oldest is.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    update: MovedUpdate,
    /// Others who have read there may come after it.
    leads_to_others: bool,
}

/// The next of each kind from each conversation: merged, they are the answer.
struct Merge<'a> {
    shard: &'a Shard,
    question: MovedQuestion,
    next: Vec<Reverse<Candidate>>,
    looks: usize,
}

impl Merge<'_> {
    fn add(&mut self, conversation: ConversationId, found: &Conversation, member: Member<'_>) {
        let MovedQuestion { user, since, named_members_max, .. } = self.question;
        let mut add = |position, what| {
            let update = MovedUpdate { position, conversation, what };
            self.next.push(Reverse(Candidate { update, leads_to_others: false }));
        };
        let own = member.last_stint();
        if own.marked_at > since {
            add(own.marked_at, MovedWhat::Read { user, read_up_to: own.read_up_to });
        }
        // Who wrote nothing is told of nobody.
        if member.newest_own() == Seq(0) || found.policies.receipts == ReceiptPolicy::OFF {
            return;
        }
        let named = found.policies.receipts == ReceiptPolicy::ON && found.present <= named_members_max;
        if named && found.keeps_order() {
            let next = first_named((conversation, found), (user, member), since, &mut self.looks);
            return self.next.extend(next.map(Reverse));
        }
        // How many of the others have read.
        let position = found.newest_mark_of_others(user, &mut self.looks);
        if position > since && member.present().is_some_and(|stint| stint.spans(position)) {
            add(position, MovedWhat::Counts { newest_own: member.newest_own(), last_seq: found.last_seq });
        }
    }

    /// The first of them, as many as are wanted, and whether there are more.
    fn first(&mut self) -> (Vec<MovedUpdate>, bool) {
        let MovedQuestion { user, updates_max, .. } = self.question;
        assert!(updates_max >= 2, "a user's own mark may be told by name and by counts, at one position");
        let mut next = BinaryHeap::from(core::mem::take(&mut self.next));
        let mut updates: Vec<MovedUpdate> = Vec::new();
        while let Some(Reverse(Candidate { update, leads_to_others })) = next.pop() {
            if updates.len() == updates_max {
                // All of one position, or nothing: who was told of a part would not be told of the rest.
                updates.retain(|told| told.position < update.position);
                return (updates, true);
            }
            updates.push(update);
            let MovedUpdate { position, conversation, .. } = update;
            let found = self.shard.conversations.get(conversation).filter(|_| leads_to_others);
            if let Some((found, member)) = found.and_then(|found| Some((found, found.members.get(user)?))) {
                let other = first_named((conversation, found), (user, member), position, &mut self.looks);
                next.extend(other.map(Reverse));
            }
        }
        (updates, false)
    }
}

/// The first of the others who have read on there since.
fn first_named(
    (conversation, found): (ConversationId, &Conversation),
    member: (UserId, Member<'_>),
    since: Position,
    looks: &mut usize,
) -> Option<Candidate> {
    let MarkOf { position, reader: user, read_up_to } = found.first_of_others(member, since, looks)?;
    let update = MovedUpdate { position, conversation, what: MovedWhat::Read { user, read_up_to } };
    Some(Candidate { update, leads_to_others: true })
}

impl Shard {
    /// What the user's devices and the author of messages would have been told since a position, by what is entitled now.
    ///
    /// A merge: O(the user's conversations) for where each begins, and as much as one of them for each update of the answer, whatever
    /// the number of their members and of what has moved.
    pub fn moved(&self, question: MovedQuestion) -> Moved {
        let MovedQuestion { tenant, user: id, since, .. } = question;
        let mut merge = Merge { shard: self, question, next: Vec::new(), looks: 0 };
        let user = self.directory.user(tenant, id);
        let conversations = user.into_iter().flat_map(|user| user.present.iter().chain(user.past()));
        for conversation in conversations {
            merge.looks += 1;
            let found = self.conversations.get(*conversation).filter(|found| found.newest_mark > since);
            let Some(found) = found else { continue };
            if let Some(member) = found.members.get(id) {
                merge.add(*conversation, found, member);
            }
        }
        let (updates, more) = merge.first();
        Moved { as_of: self.head, updates, more, looks: merge.looks }
    }
}
