//! Watermarks, who has read a message, and what a user has not.
//!
//! How many have read follows from the order of the stints, whatever their number. Of each stint `joined ≤ watermark ≤ left`
//! in seq, so of a message s
//!
//! - those entitled to it are the stints with `joined < s`, less those with `left < s`;
//! - those who have read it are the stints with `watermark ≥ s`, less those with `joined ≥ s`.
//!
//! A user's stints do not overlap, so that each is counted once. A conversation with few stints looks at them all; one with
//! more keeps three ordered multisets in step with them: O(log n) a count and a change, at most 17 MB each for a million
//! stints at different seqs.
//!
//! Who has read is found by looking at the members, a bounded number of them a page.

use alloc::boxed::Box;
use alloc::vec::Vec;
use carillon_protocol::ids::{ConversationId, Position, Seq, Timestamp, UserId};
use carillon_protocol::kinds::{ReadState, ReceiptPolicy, StatusList};
use carillon_protocol::receipt::{ReadCountsEntry, ReadEntry};

use crate::conversation::Conversation;
use crate::effect::{Counted, Moment, Signal};
use crate::error::{Applied, Contradiction};
use crate::limits::{MEMBERS_A_PAGE_SCANNED_MAX, NAMED_STINTS_MAX, STINTS_SCANNED_MAX};
use crate::members::{MemberMut, Members};
use crate::membership::Stint;
use crate::moved::MarkOrder;
use crate::ranks::Ranks;
use crate::record::ReadMarked;
use crate::shard::Shard;

/// Which members of a read status are wanted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Page {
    pub(crate) list: StatusList,
    pub(crate) from: UserId,
    pub(crate) limit: usize,
}

/// Of those entitled to a message but its author, how many have read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ReadCounts {
    pub(crate) read: u32,
    pub(crate) unread: u32,
}

/// Every kept stint of a conversation, in three orders.
#[derive(Debug)]
pub(crate) struct StintRanks {
    pub(crate) joined: Ranks,
    pub(crate) watermarks: Ranks,
    /// Of those that have ended.
    pub(crate) left: Ranks,
    /// Who marked last, while the stints are `NAMED_STINTS_MAX` at most.
    pub(crate) marks: Option<MarkOrder>,
}

impl StintRanks {
    /// Of these members; `None` if they have so few stints that they are better looked at. O(n log n).
    pub(crate) fn of(members: &Members) -> Option<Box<Self>> {
        let stints = || members.iter().flat_map(|(_, member)| member.stints());
        stints().nth(STINTS_SCANNED_MAX)?;
        let ranks = |seqs: &mut dyn Iterator<Item = Seq>| {
            let mut seqs: Vec<_> = seqs.collect();
            seqs.sort_unstable();
            Ranks::from_sorted(&seqs)
        };
        Some(Box::new(Self {
            joined: ranks(&mut stints().map(|stint| stint.joined.seq)),
            watermarks: ranks(&mut stints().map(|stint| stint.read_up_to)),
            left: ranks(&mut stints().filter_map(|stint| stint.left()).map(|left| left.seq)),
            marks: MarkOrder::of(members, stints().count() as u64),
        }))
    }

    fn insert(&mut self, stint: &Stint) {
        self.joined.insert(stint.joined.seq);
        self.watermarks.insert(stint.read_up_to);
        if let Some(left) = stint.left() {
            self.left.insert(left.seq);
        }
    }

    fn remove(&mut self, stint: &Stint) {
        if let Some(marks) = &mut self.marks {
            marks.forget(stint.marked_at);
        }
        self.joined.remove(stint.joined.seq);
        self.watermarks.remove(stint.read_up_to);
        if let Some(left) = stint.left() {
            self.left.remove(left.seq);
        }
    }

    /// How many stints cover the message, and how many of them have read it.
    fn count(&self, seq: Seq) -> (u64, u64) {
        let joined_later = self.joined.count_from(seq);
        let left_before = self.left.len() - self.left.count_from(seq);
        (self.joined.len() - joined_later - left_before, self.watermarks.count_from(seq) - joined_later)
    }
}

impl Conversation {
    /// A stint began, and another may have been one too many.
    pub(crate) fn rank_begun(&mut self, begun: &Stint, forgotten: Option<&Stint>) {
        match &mut self.ranks {
            Some(ranks) => {
                ranks.insert(begun);
                if let Some(forgotten) = forgotten {
                    ranks.remove(forgotten);
                }
                if ranks.joined.len() > NAMED_STINTS_MAX {
                    ranks.marks = None;
                }
            }
            // There were few: to see whether there still are takes a look at each.
            None => self.ranks = StintRanks::of(&self.members),
        }
    }

    /// A stint ended at this seq.
    pub(crate) fn rank_ended(&mut self, left: Seq) {
        if let Some(ranks) = &mut self.ranks {
            ranks.left.insert(left);
        }
    }

    /// These stints are kept no longer.
    pub(crate) fn rank_forgotten(&mut self, stints: impl Iterator<Item = Stint>) {
        if let Some(ranks) = &mut self.ranks {
            stints.for_each(|stint| ranks.remove(&stint));
            if ranks.joined.len() <= STINTS_SCANNED_MAX as u64 {
                self.ranks = None;
            } else if ranks.marks.is_none() {
                ranks.marks = MarkOrder::of(&self.members, ranks.joined.len());
            }
        }
    }

    /// How many of those entitled to the message, its author apart, have read it: O(log n) in the number of stints.
    pub(crate) fn read_counts(&self, seq: Seq, author: UserId) -> ReadCounts {
        let Some(ranks) = &self.ranks else { return self.read_counts_scanned(seq, author) };
        let (mut entitled, mut read) = ranks.count(seq);
        if let Some(own) = self.members.get(author).and_then(|member| member.covering(seq)) {
            entitled -= 1;
            read -= u64::from(own >= seq);
        }
        let number = |count| u32::try_from(count).expect("each user is counted once");
        ReadCounts { read: number(read), unread: number(entitled - read) }
    }

    /// As [`Conversation::read_counts`], by a look at every member.
    pub(crate) fn read_counts_scanned(&self, seq: Seq, author: UserId) -> ReadCounts {
        let mut counts = ReadCounts { read: 0, unread: 0 };
        for (_, read_up_to) in self.entitled_from(UserId(0), seq, author) {
            let has_read = read_up_to.is_some_and(|read_up_to| read_up_to >= seq);
            counts.read += u32::from(has_read);
            counts.unread += u32::from(read_up_to.is_some() && !has_read);
        }
        counts
    }

    /// One page of those who have read the message or have not, and where the next one starts, `u32::MAX` after the last.
    ///
    /// Looks at `MEMBERS_A_PAGE_SCANNED_MAX` members at most, so that a page may hold few or none and not be the last.
    pub(crate) fn read_page(&self, seq: Seq, author: UserId, page: Page) -> (Vec<ReadEntry>, UserId) {
        let (mut entries, last) = (Vec::new(), UserId(u32::MAX));
        let wants_readers = match page.list {
            StatusList::DONE => true,
            StatusList::OPEN => false,
            _ => return (entries, last),
        };
        for (looked_at, (user, read_up_to)) in self.entitled_from(page.from, seq, author).enumerate() {
            if looked_at == MEMBERS_A_PAGE_SCANNED_MAX {
                return (entries, user);
            }
            let Some(read_up_to) = read_up_to.filter(|read_up_to| (*read_up_to >= seq) == wants_readers) else {
                continue;
            };
            if entries.len() == page.limit {
                return (entries, user);
            }
            let state = if wants_readers { ReadState::READ } else { ReadState::NOT_DELIVERED };
            entries.push(ReadEntry { user, read_up_to, read_at: Timestamp(0), state });
        }
        (entries, last)
    }

    /// The members from this user on, each with how far it has read in the stint that entitles it to the message, if one does. The
    /// author's does not.
    fn entitled_from(&self, from: UserId, seq: Seq, author: UserId) -> impl Iterator<Item = (UserId, Option<Seq>)> {
        let members = self.members.iter_from(from);
        members.map(move |(user, member)| (user, member.covering(seq).filter(|_| user != author)))
    }

    /// How many messages the user has not read, not counting what it wrote itself; `None` if it is no member now.
    ///
    /// A lookup of the member and a look at `OWN_SPANS_MAX` spans at most. Exact, but where `own` says.
    pub(crate) fn unread(&self, user: UserId) -> Option<u64> {
        let member = self.present_member(user)?;
        let read_up_to = member.read_up_to();
        Some(self.last_seq.0 - read_up_to.0 - member.own().map_or(0, |own| own.after(read_up_to)))
    }

    /// As a record would.
    #[cfg(test)]
    pub(crate) fn mark_for_test(&mut self, position: Position, user: UserId, up_to: Seq) {
        self.mark(position, user, up_to).expect("a mark of a member");
    }

    /// Moves the watermark of a present member to this seq; returns where it was.
    fn mark(&mut self, position: Position, user: UserId, up_to: Seq) -> Result<Seq, Contradiction> {
        if up_to > self.last_seq {
            return Err(Contradiction::Range { what: "watermark", id: up_to.0 });
        }
        let unknown = Contradiction::Unknown { what: "member", id: u64::from(user.0) };
        let mut member = self.members.get_mut(user).filter(MemberMut::is_present).ok_or(unknown)?;
        let view = member.view();
        let (before, from) = (view.newest_mark(), view.read_up_to());
        if up_to <= from {
            return Err(Contradiction::Backwards { what: "watermark", id: up_to.0 });
        }
        member.mark(Moment { seq: up_to, position });
        self.newest_mark = position;
        if let Some(ranks) = &mut self.ranks {
            ranks.watermarks.remove(from);
            ranks.watermarks.insert(up_to);
            if let Some(marks) = &mut ranks.marks {
                marks.mark(before, position, user);
            }
        }
        Ok(from)
    }
}

impl Shard {
    /// How many have read these messages of a conversation, of each of which the author is known: none where nobody is to be told.
    ///
    /// O(log n) a message in the number of members.
    pub fn read_counts(&self, conversation: ConversationId, messages: &[(Seq, UserId)]) -> Vec<Counted> {
        let found = self.conversations.get(conversation).filter(|found| found.policies.receipts != ReceiptPolicy::OFF);
        let Some(found) = found else { return Vec::new() };
        let count = |&(seq, author): &(Seq, UserId)| {
            let ReadCounts { read, unread } = found.read_counts(seq, author);
            Counted { author, entry: ReadCountsEntry { seq, read, unread } }
        };
        messages.iter().map(count).collect()
    }

    /// The newest message of each of these users in a conversation, where its seq lies in `(from, up_to]`.
    ///
    /// O(log n) a user in the number of members.
    pub fn newest_written(
        &self,
        conversation: ConversationId,
        users: &[UserId],
        (from, up_to): (Seq, Seq),
    ) -> Vec<(Seq, UserId)> {
        let Some(found) = self.conversations.get(conversation) else { return Vec::new() };
        let newest = |user: &UserId| found.members.get(*user).map(|member| (member.newest_own(), *user));
        users.iter().filter_map(newest).filter(|(seq, _)| from < *seq && *seq <= up_to).collect()
    }

    pub(crate) fn apply_read_marked(
        &mut self,
        position: Position,
        record: &ReadMarked,
        signals: &mut Vec<Signal>,
    ) -> Applied {
        let ReadMarked { conversation, user, up_to, .. } = *record;
        let found = self.conversations.known(conversation)?;
        let from = found.mark(position, user, up_to)?;
        let (tenant, members, receipts) = (found.tenant, found.present, found.policies.receipts);
        signals.push(Signal::Read { position, tenant, conversation, user, from, up_to, members, receipts });
        Ok(())
    }
}
