//! What it is to be a member of a conversation, or to have been: stints, role, watermark.
//!
//! Invariants: of a member's stints only the last may be open; `joined ≤ read_up_to ≤ left` in seq.
//!
//! How very many members are kept is the business of [`members`](crate::members): here is what one is when it is looked at
//! ([`Member`]) and when it is changed ([`Membership`]).

use alloc::boxed::Box;
use alloc::vec::Vec;
use carillon_protocol::ids::{Position, Seq};
use carillon_protocol::kinds::Role;
use core::num::NonZeroU64;

use crate::effect::Moment;
use crate::limits::STINTS_MAX;
use crate::members::{Latest, Row};
use crate::own::OwnMessages;

/// One interval of membership: entitled to what lies in `(joined, left]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stint {
    pub(crate) joined: Moment,
    end: Option<End>,
    pub(crate) read_up_to: Seq,
    /// The position of the last mark, 0 without one.
    pub(crate) marked_at: Position,
}

/// Where a stint ended. No record has position 0, so an optional one takes no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct End {
    seq: Seq,
    position: NonZeroU64,
}

impl Stint {
    /// A stint that goes on, with all before it read.
    pub(crate) const fn begin(seq: Seq, position: Position) -> Self {
        Self { joined: Moment { seq, position }, end: None, read_up_to: seq, marked_at: Position(0) }
    }

    /// Where it ended, if it has.
    pub(crate) fn left(&self) -> Option<Moment> {
        self.end.map(|end| Moment { seq: end.seq, position: Position(end.position.get()) })
    }

    /// Ends here.
    ///
    /// # Panics
    /// If the position is 0: a stint ends with a record.
    pub(crate) fn end(&mut self, Moment { seq, position }: Moment) {
        let position = NonZeroU64::new(position.0).expect("a stint ends with a record, and positions are from 1");
        self.end = Some(End { seq, position });
    }

    /// Whether the message with this seq is the member's to have.
    pub(crate) fn covers(&self, seq: Seq) -> bool {
        seq > self.joined.seq && self.end.is_none_or(|end| seq <= end.seq)
    }

    /// Whether the user was a member when the record at this position was made.
    pub(crate) fn spans(&self, position: Position) -> bool {
        self.joined.position < position && self.end.is_none_or(|end| position.0 <= end.position.get())
    }
}

/// What few members have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rest {
    /// The stints before the last one, ascending in time. Boxed once more: who has written something has none of them.
    #[expect(clippy::box_collection, reason = "a pointer less for each member who has written and not yet read")]
    earlier: Option<Box<Vec<Stint>>>,
    /// What the user wrote in the open stint and has not marked as read; empty without one.
    pub(crate) own: OwnMessages,
}

impl Rest {
    pub(crate) fn is_empty(&self) -> bool {
        self.earlier.is_none() && self.own.spans().is_empty()
    }

    fn earlier(&self) -> &[Stint] {
        self.earlier.as_ref().map_or(&[], |earlier| earlier)
    }

    /// As [`Member::covering`], among the stints before the last one.
    fn covering(&self, seq: Seq) -> Option<Seq> {
        let earlier = self.earlier();
        let first = earlier.partition_point(|stint| stint.left().is_some_and(|left| left.seq < seq));
        earlier.get(first).filter(|stint| stint.covers(seq)).map(|stint| stint.read_up_to)
    }
}

/// One user's membership in one conversation, present or past, to look at: what is asked for is unpacked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Member<'a> {
    pub(crate) row: Row<'a>,
    pub(crate) rest: Option<&'a Rest>,
}

impl<'a> Member<'a> {
    /// The role now, or last.
    pub(crate) fn role(&self) -> Role {
        self.row.role()
    }

    /// The last stint.
    pub(crate) fn last_stint(&self) -> Stint {
        self.row.stint()
    }

    fn earlier(&self) -> &'a [Stint] {
        self.rest.map_or(&[], Rest::earlier)
    }

    /// Ascending in time, never none.
    pub(crate) fn stints(&self) -> Stints<'a> {
        Stints { earlier: self.earlier(), last: Some(self.last_stint()) }
    }

    /// Where each of the stints began and, if it has, ended; ascending.
    pub(crate) fn for_each_interval(&self, mut look: impl FnMut(Moment, Option<Moment>)) {
        self.earlier().iter().for_each(|stint| look(stint.joined, stint.left()));
        look(self.row.joined(), self.row.left());
    }

    /// What the user wrote in the open stint and has not marked as read.
    pub(crate) fn own(&self) -> Option<&'a OwnMessages> {
        self.rest.map(|rest| &rest.own)
    }

    /// The newest message that the user wrote as a member, 0 without one.
    pub(crate) fn newest_own(&self) -> Seq {
        self.row.newest_own()
    }

    /// The position of the last mark in any of the stints, 0 without one.
    pub(crate) fn newest_mark(&self) -> Position {
        let last = self.row.marked_at();
        if last > Position(0) {
            return last;
        }
        let mut marked = self.earlier().iter().rev().map(|stint| stint.marked_at);
        marked.find(|position| *position > Position(0)).unwrap_or_default()
    }

    /// Whether the user is a member now.
    pub(crate) fn is_present(&self) -> bool {
        self.row.is_present()
    }

    /// The open stint, if the user is a member now.
    pub(crate) fn present(&self) -> Option<Stint> {
        self.is_present().then(|| self.last_stint())
    }

    /// Up to where the user has read in the last stint.
    pub(crate) fn read_up_to(&self) -> Seq {
        self.row.read_up_to()
    }

    /// Up to where the user has read in the stint that covers the message with this seq, if one does.
    pub(crate) fn covering(&self, seq: Seq) -> Option<Seq> {
        if self.row.covers(seq) { Some(self.read_up_to()) } else { self.rest?.covering(seq) }
    }

    /// Whether the user may add and remove others.
    pub(crate) fn manages(&self) -> bool {
        self.is_present() && (self.role() == Role::OWNER || self.role() == Role::ADMIN)
    }

    pub(crate) fn owns(&self) -> bool {
        self.is_present() && self.role() == Role::OWNER
    }
}

/// A member's stints, ascending in time.
#[derive(Clone, Debug)]
pub(crate) struct Stints<'a> {
    earlier: &'a [Stint],
    last: Option<Stint>,
}

impl Iterator for Stints<'_> {
    type Item = Stint;

    fn next(&mut self) -> Option<Stint> {
        let Some((first, others)) = self.earlier.split_first() else { return self.last.take() };
        self.earlier = others;
        Some(*first)
    }
}

/// One user's membership, to change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Membership {
    pub(crate) latest: Latest,
    pub(crate) rest: Rest,
}

impl Membership {
    /// Of a user who was never a member before.
    pub(crate) fn new(role: Role, stint: Stint) -> Self {
        Self { latest: Latest { role, newest_own: Seq(0), stint }, rest: Rest::default() }
    }

    /// Of a user who has written nothing, with stints as the invariants want them; `None` without any.
    pub(crate) fn with_stints(role: Role, mut stints: Vec<Stint>) -> Option<Self> {
        let mut member = Self::new(role, stints.pop()?);
        stints.shrink_to_fit();
        member.rest.earlier = Some(Box::new(stints)).filter(|stints| !stints.is_empty());
        Some(member)
    }

    /// Ascending in time, never none.
    pub(crate) fn stints(&self) -> Stints<'_> {
        Stints { earlier: self.rest.earlier(), last: Some(self.latest.stint) }
    }

    /// The open stint, if there is one.
    pub(crate) fn present(&self) -> Option<Stint> {
        Some(self.latest.stint).filter(|stint| stint.left().is_none())
    }

    /// As [`Membership::present`], to change.
    pub(crate) fn present_mut(&mut self) -> Option<&mut Stint> {
        Some(&mut self.latest.stint).filter(|stint| stint.left().is_none())
    }

    /// Begins another stint; returns the oldest when there are too many.
    pub(crate) fn rejoin(&mut self, role: Role, stint: Stint) -> Option<Stint> {
        self.latest.role = role;
        let earlier = self.rest.earlier.get_or_insert_default();
        earlier.push(core::mem::replace(&mut self.latest.stint, stint));
        (earlier.len() >= STINTS_MAX).then(|| earlier.remove(0))
    }

    /// Ends the open stint; false if there is none.
    pub(crate) fn leave(&mut self, left: Moment) -> bool {
        let Some(stint) = self.present_mut() else { return false };
        stint.end(left);
        self.rest.own.leave();
        true
    }
}
