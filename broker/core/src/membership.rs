//! Who is a member of a conversation, and was: stints, roles, watermarks.
//!
//! Invariants: of a member's stints only the last may be open; `joined ≤ read_up_to ≤ left` in seq; members ascend by user.

use alloc::vec::Vec;
use carillon_protocol::ids::{Position, Seq, UserId};
use carillon_protocol::kinds::Role;
use smallvec::SmallVec;

use crate::effect::Moment;
use crate::limits::STINTS_MAX;
use crate::own::OwnMessages;

/// One interval of membership: entitled to what lies in `(joined, left]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stint {
    pub(crate) joined: Moment,
    pub(crate) left: Option<Moment>,
    pub(crate) read_up_to: Seq,
}

impl Stint {
    pub(crate) const fn begin(seq: Seq, position: Position) -> Self {
        Self { joined: Moment { seq, position }, left: None, read_up_to: seq }
    }

    /// Whether the message with this seq is the member's to have.
    pub(crate) fn covers(&self, seq: Seq) -> bool {
        seq > self.joined.seq && self.left.is_none_or(|left| seq <= left.seq)
    }
}

/// One user's membership in one conversation, present or past.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    /// The role now, or last.
    pub(crate) role: Role,
    /// Ascending in time, never empty.
    pub(crate) stints: SmallVec<[Stint; 1]>,
    /// What the user wrote in the open stint and has not marked as read; empty without one.
    pub(crate) own: OwnMessages,
}

impl Member {
    pub(crate) fn new(role: Role, stint: Stint) -> Self {
        Self { role, stints: SmallVec::from_buf([stint]), own: OwnMessages::default() }
    }

    /// The open stint, if the user is a member now.
    pub(crate) fn present(&self) -> Option<&Stint> {
        self.stints.last().filter(|stint| stint.left.is_none())
    }

    pub(crate) fn present_mut(&mut self) -> Option<&mut Stint> {
        self.stints.last_mut().filter(|stint| stint.left.is_none())
    }

    /// The stint that covers the message with this seq.
    pub(crate) fn covering(&self, seq: Seq) -> Option<&Stint> {
        let first = self.stints.partition_point(|stint| stint.left.is_some_and(|left| left.seq < seq));
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
        stint.left = Some(left);
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
