//! Some members of a conversation, ascending by user: a row each, and beside the rows what few of them have.
//!
//! Invariants: each of the rest is of a user who has a row, is not empty, and they ascend.

use alloc::boxed::Box;
use alloc::vec::Vec;
use carillon_protocol::ids::{Seq, UserId};

use super::rows::Rows;
use crate::effect::Moment;
use crate::membership::{Member, Membership, Rest};

/// See the module. 64 bytes: of the conversations with one chunk, which are nearly all, it is the greater part.
#[derive(Clone, Debug, Default)]
pub(super) struct Chunk {
    rows: Rows,
    #[expect(clippy::box_collection, reason = "most chunks have none, and pay a pointer")]
    rest: Option<Box<Vec<(UserId, Rest)>>>,
}

const _: () = assert!(size_of::<Chunk>() == 64);

impl Chunk {
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// No user of the chunk is lower: the first one, or one who was here before it.
    pub(super) fn least(&self) -> UserId {
        self.rows.least()
    }

    /// The place of a user, or where it would be.
    pub(super) fn find(&self, user: UserId) -> Result<usize, usize> {
        self.rows.find(user)
    }

    fn rest(&self) -> &[(UserId, Rest)] {
        self.rest.as_ref().map_or(&[], |rest| rest)
    }

    /// The rest of a user, or where it would be.
    fn find_rest(&self, user: UserId) -> Result<usize, usize> {
        self.rest().binary_search_by_key(&user, |(user, _)| *user)
    }

    /// Whether the user at a place is a member now.
    pub(super) fn is_present(&self, at: usize) -> bool {
        self.rows.row(at).is_present()
    }

    pub(super) fn get(&self, at: usize) -> Member<'_> {
        let row = self.rows.row(at);
        let rest = self.rest.as_ref().and_then(|_| self.find_rest(row.user()).ok()).map(|at| &self.rest()[at].1);
        Member { row, rest }
    }

    /// The members from a place on.
    pub(super) fn iter_from(&self, at: usize) -> Iter<'_> {
        Iter { chunk: self, at, rest: self.rest() }
    }

    pub(super) fn insert(&mut self, at: usize, user: UserId, Membership { latest, rest }: Membership) {
        self.rows.insert(at, user, &latest);
        self.put_rest(self.find_rest(user), user, rest);
    }

    /// Lets go of the member at a place, which is this user.
    pub(super) fn remove(&mut self, at: usize, user: UserId) -> Membership {
        let latest = self.rows.row(at).latest();
        let at_rest = self.find_rest(user);
        let rest = self.take_rest(at_rest);
        self.put_rest(at_rest, user, Rest::default());
        self.rows.remove(at);
        Membership { latest, rest }
    }

    /// Changes the member at a place, which is this user.
    pub(super) fn update<R>(&mut self, at: usize, user: UserId, change: impl FnOnce(&mut Membership) -> R) -> R {
        let before = self.rows.row(at).latest();
        let at_rest = self.find_rest(user);
        let mut member = Membership { latest: before, rest: self.take_rest(at_rest) };
        let result = change(&mut member);
        if member.latest != before {
            self.rows.write(at, user, &member.latest);
        }
        self.put_rest(at_rest, user, member.rest);
        result
    }

    /// Notes that the member at a place, which is this user, wrote the newest message.
    pub(super) fn wrote(&mut self, at: usize, user: UserId, seq: Seq) {
        self.rows.set_newest_own(at, seq);
        let at_rest = self.find_rest(user);
        let mut rest = self.take_rest(at_rest);
        rest.own.publish(seq);
        self.put_rest(at_rest, user, rest);
    }

    /// Notes that the member at a place, which is this user, has read up to a seq, and where.
    pub(super) fn mark(&mut self, at: usize, user: UserId, mark: Moment) {
        self.rows.set_mark(at, mark);
        let at_rest = self.find_rest(user);
        if at_rest.is_ok() {
            let mut rest = self.take_rest(at_rest);
            rest.own.mark(mark.seq);
            self.put_rest(at_rest, user, rest);
        }
    }

    /// Keeps the members before this place; returns the others.
    pub(super) fn split_off(&mut self, at: usize) -> Self {
        let rows = self.rows.split_off(at);
        let upper_rest = self.rest.take().map(|mut lower| {
            let upper = lower.split_off(lower.partition_point(|(user, _)| *user < rows.row(0).user()));
            self.rest = Some(lower).filter(|rest| !rest.is_empty());
            upper
        });
        Self { rows, rest: upper_rest.filter(|rest| !rest.is_empty()).map(Box::new) }
    }

    /// Gives back what was kept for more members.
    pub(super) fn shrink(&mut self) {
        self.rows.shrink();
    }

    /// Leaves nothing at the place of a member's rest, for as long as it is looked at.
    fn take_rest(&mut self, at: Result<usize, usize>) -> Rest {
        let (Ok(at), Some(rest)) = (at, &mut self.rest) else { return Rest::default() };
        core::mem::take(&mut rest[at].1)
    }

    /// Keeps what a member has beside its row at its place, or nothing if there is nothing.
    fn put_rest(&mut self, at: Result<usize, usize>, user: UserId, of_user: Rest) {
        match at {
            Ok(at) if of_user.is_empty() => {
                let rest = self.rest.as_mut().expect("it was found there");
                rest.remove(at);
                if rest.is_empty() {
                    self.rest = None;
                }
            }
            Ok(at) => self.rest.as_mut().expect("it was found there")[at].1 = of_user,
            Err(_) if of_user.is_empty() => {}
            Err(at) => {
                let rest = self.rest.get_or_insert_default();
                // A quarter more: a member is in very many small conversations, and has something there in each.
                if rest.len() == rest.capacity() {
                    rest.reserve_exact((rest.len() / 4).max(1));
                }
                rest.insert(at, (user, of_user));
            }
        }
    }
}

/// Members of one chunk, ascending, in one pass over the rows and the rest.
#[derive(Clone, Debug)]
pub(super) struct Iter<'a> {
    chunk: &'a Chunk,
    at: usize,
    /// Of members who have not come yet, and perhaps of some before the first.
    rest: &'a [(UserId, Rest)],
}

impl<'a> Iterator for Iter<'a> {
    type Item = (UserId, Member<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        if self.at == self.chunk.len() {
            return None;
        }
        let row = self.chunk.rows.row(self.at);
        let user = row.user();
        self.at += 1;
        let mut member = Member { row, rest: None };
        while let Some(((of, found), others)) = self.rest.split_first()
            && *of <= user
        {
            self.rest = others;
            member.rest = Some(found).filter(|_| *of == user);
        }
        Some((user, member))
    }
}
