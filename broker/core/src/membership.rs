//! Who is a member of a conversation, and was: stints, roles, watermarks.
//!
//! Invariants: of a member's stints only the last may be open; `joined ≤ read_up_to ≤ left` in seq; members ascend by user.
//!
//! A large group has a million of these, so that each byte counts: where a stint ended and a member's newest message are kept in
//! what alignment would leave unused, and the position of the last mark takes the place of what was saved by that.

use alloc::vec::Vec;
use carillon_protocol::ids::{Position, Seq, UserId};
use carillon_protocol::kinds::Role;
use core::num::NonZeroU64;
use smallvec::SmallVec;

use crate::effect::Moment;
use crate::limits::STINTS_MAX;
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

// What docs/RECEIPTS.md says of a million members rests on it.
const _: () = assert!(size_of::<Stint>() == 48 && size_of::<(UserId, Member)>() == 88);

impl Stint {
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

/// A seq in six bytes, as the ranks have it: see there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct SmallSeq([u8; 6]);

impl SmallSeq {
    fn seq(self) -> Seq {
        let [a, b, c, d, e, f] = self.0;
        Seq(u64::from_le_bytes([a, b, c, d, e, f, 0, 0]))
    }
}

impl From<Seq> for SmallSeq {
    fn from(seq: Seq) -> Self {
        let [a, b, c, d, e, f, high @ ..] = seq.0.to_le_bytes();
        assert!(high == [0, 0], "seqs are below 2^48");
        Self([a, b, c, d, e, f])
    }
}

/// One user's membership in one conversation, present or past.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    /// The role now, or last.
    pub(crate) role: Role,
    newest_own: SmallSeq,
    /// Ascending in time, never empty.
    pub(crate) stints: SmallVec<[Stint; 1]>,
    /// What the user wrote in the open stint and has not marked as read; empty without one.
    pub(crate) own: OwnMessages,
}

impl Member {
    pub(crate) fn new(role: Role, stint: Stint) -> Self {
        Self::with_stints(role, SmallVec::from_buf([stint]))
    }

    /// A member who has written nothing, with stints as the invariants want them.
    pub(crate) fn with_stints(role: Role, stints: SmallVec<[Stint; 1]>) -> Self {
        Self { role, newest_own: SmallSeq::default(), stints, own: OwnMessages::default() }
    }

    /// The newest message that the user wrote as a member, 0 without one.
    pub(crate) fn newest_own(&self) -> Seq {
        self.newest_own.seq()
    }

    /// The user wrote this message.
    pub(crate) fn set_newest_own(&mut self, seq: Seq) {
        self.newest_own = SmallSeq::from(seq);
    }

    /// The position of the last mark in any of the stints, 0 without one.
    pub(crate) fn newest_mark(&self) -> Position {
        let marked = self.stints.iter().rev().map(|stint| stint.marked_at);
        marked.clone().find(|position| *position > Position(0)).unwrap_or_default()
    }

    /// The open stint, if the user is a member now.
    pub(crate) fn present(&self) -> Option<&Stint> {
        self.stints.last().filter(|stint| stint.left().is_none())
    }

    pub(crate) fn present_mut(&mut self) -> Option<&mut Stint> {
        self.stints.last_mut().filter(|stint| stint.left().is_none())
    }

    /// The stint that covers the message with this seq.
    pub(crate) fn covering(&self, seq: Seq) -> Option<&Stint> {
        let first = self.stints.partition_point(|stint| stint.left().is_some_and(|left| left.seq < seq));
        self.stints.get(first).filter(|stint| stint.covers(seq))
    }

    /// Begins another stint; returns the oldest when there are too many.
    pub(crate) fn rejoin(&mut self, role: Role, stint: Stint) -> Option<Stint> {
        self.role = role;
        let oldest = (self.stints.len() >= STINTS_MAX).then(|| self.stints.remove(0));
        self.stints.push(stint);
        oldest
    }

    /// Ends the open stint; false if there is none.
    pub(crate) fn leave(&mut self, left: Moment) -> bool {
        let Some(stint) = self.present_mut() else { return false };
        stint.end(left);
        self.own.leave();
        true
    }

    /// Whether the user may add and remove others.
    pub(crate) fn manages(&self) -> bool {
        self.present().is_some() && (self.role == Role::OWNER || self.role == Role::ADMIN)
    }

    pub(crate) fn owns(&self) -> bool {
        self.present().is_some() && self.role == Role::OWNER
    }
}

/// Members of one conversation, ascending by user: a sorted list in chunks, so that a small conversation costs one allocation
/// a level and a large one moves a chunk's worth of bytes to take in a member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Members {
    /// None empty; all of them ascend.
    chunks: Vec<Vec<(UserId, Member)>>,
}

/// A full chunk is split in two, or followed by a new one: 512 entries are 45 KB.
const CHUNK_ENTRIES_MAX: usize = 512;

impl Members {
    pub(crate) fn with_capacity(entries: usize) -> Self {
        Self { chunks: Vec::from([Vec::with_capacity(entries.min(CHUNK_ENTRIES_MAX))]) }
    }

    /// The chunk that holds the user, or would.
    fn chunk_of(&self, user: UserId) -> usize {
        self.chunks.partition_point(|chunk| chunk.first().is_some_and(|(first, _)| *first <= user)).saturating_sub(1)
    }

    fn find(&self, user: UserId) -> Option<(usize, usize)> {
        let chunk = self.chunk_of(user);
        let at = self.chunks.get(chunk)?.binary_search_by_key(&user, |(user, _)| *user).ok()?;
        Some((chunk, at))
    }

    pub(crate) fn get(&self, user: UserId) -> Option<&Member> {
        self.find(user).map(|(chunk, at)| &self.chunks[chunk][at].1)
    }

    pub(crate) fn get_mut(&mut self, user: UserId) -> Option<&mut Member> {
        self.find(user).map(|(chunk, at)| &mut self.chunks[chunk][at].1)
    }

    /// Takes in a user who is not there; false if it is there.
    pub(crate) fn insert(&mut self, user: UserId, member: Member) -> bool {
        if self.chunks.is_empty() {
            self.chunks.push(Vec::with_capacity(1));
        }
        let at_chunk = self.chunk_of(user);
        let chunk = &mut self.chunks[at_chunk];
        let Err(at) = chunk.binary_search_by_key(&user, |(user, _)| *user) else {
            return false;
        };
        if chunk.len() < CHUNK_ENTRIES_MAX {
            chunk.insert(at, (user, member));
        } else if at == chunk.len() {
            // Users that come in ascending order fill their chunks instead of leaving halves behind.
            self.chunks.insert(at_chunk + 1, Vec::from([(user, member)]));
        } else {
            chunk.insert(at, (user, member));
            let upper = chunk.split_off(CHUNK_ENTRIES_MAX / 2);
            self.chunks.insert(at_chunk + 1, upper);
        }
        true
    }

    pub(crate) fn remove(&mut self, user: UserId) -> Option<Member> {
        let (chunk, at) = self.find(user)?;
        let (_, member) = self.chunks[chunk].remove(at);
        if self.chunks[chunk].is_empty() {
            self.chunks.remove(chunk);
        }
        Some(member)
    }

    /// Present and past members, ascending.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (UserId, &Member)> {
        self.chunks.iter().flatten().map(|(user, member)| (*user, member))
    }

    /// As [`Members::iter`], from this user on.
    pub(crate) fn iter_from(&self, from: UserId) -> impl Iterator<Item = (UserId, &Member)> {
        let chunks = self.chunks.get(self.chunk_of(from)..).unwrap_or_default();
        let skip = chunks.first().map_or(0, |chunk| chunk.partition_point(|(user, _)| *user < from));
        chunks.iter().flatten().skip(skip).map(|(user, member)| (*user, member))
    }
}
