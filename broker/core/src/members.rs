//! Members of one conversation, ascending by user: a sorted list in chunks, so that a large conversation moves a chunk's worth of
//! bytes to take in a member, and a small one is a chunk and nothing else.
//!
//! A chunk is packed: a large group has a million members, and nearly all of them joined once, are members and no more than that, and
//! have written nothing. A member takes the bytes that tell how it differs from those beside it (`rows`), and is unpacked when it is
//! looked at, a column at a time (`columns`). How tight the packing is follows from what was done and in what order; it is no part of the state's bytes.

use alloc::vec::Vec;
use carillon_protocol::ids::{Seq, UserId};

use crate::effect::Moment;
use crate::membership::{Member, Membership};
use chunk::Chunk;

mod chunk;
mod columns;
mod rows;

pub(crate) use columns::Latest;
pub(crate) use rows::Row;

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct Members {
    /// None empty, but for the only one; all of them ascend, and a chunk's least user, who need not be there, is beyond all of the chunk
    /// before it. Who is lower than all belongs into the first.
    chunks: Chunks,
}

/// One chunk needs no list.
#[derive(Clone, Debug)]
enum Chunks {
    One(Chunk),
    Many(Vec<Chunk>),
}

impl Default for Chunks {
    fn default() -> Self {
        Self::One(Chunk::default())
    }
}

/// A full chunk is split in two, or the last one followed by a new one. 512 rows are 2 to 9 KB, moved in a tenth of a microsecond, and
/// what a chunk takes beside them is an eighth of a byte a member.
const CHUNK_MEMBERS_MAX: usize = 512;

impl Members {
    fn chunks(&self) -> &[Chunk] {
        match &self.chunks {
            Chunks::One(chunk) => core::slice::from_ref(chunk),
            Chunks::Many(chunks) => chunks,
        }
    }

    fn chunk_mut(&mut self, at: usize) -> &mut Chunk {
        match &mut self.chunks {
            Chunks::One(chunk) => chunk,
            Chunks::Many(chunks) => &mut chunks[at],
        }
    }

    /// The chunk that holds the user, or would.
    fn chunk_of(&self, user: UserId) -> usize {
        match &self.chunks {
            Chunks::One(_) => 0,
            Chunks::Many(chunks) => among(chunks, user),
        }
    }

    pub(crate) fn get(&self, user: UserId) -> Option<Member<'_>> {
        let chunk = match &self.chunks {
            Chunks::One(chunk) => chunk,
            Chunks::Many(chunks) => &chunks[among(chunks, user)],
        };
        chunk.find(user).ok().map(|at| chunk.get(at))
    }

    /// A user who is there, to change.
    pub(crate) fn get_mut(&mut self, user: UserId) -> Option<MemberMut<'_>> {
        let chunk = match &mut self.chunks {
            Chunks::One(chunk) => chunk,
            Chunks::Many(chunks) => {
                let at = among(chunks, user);
                &mut chunks[at]
            }
        };
        let at = chunk.find(user).ok()?;
        Some(MemberMut { chunk, at, user })
    }

    /// Changes anything of a user who is there: it is unpacked for that, and packed anew.
    pub(crate) fn update<R>(&mut self, user: UserId, change: impl FnOnce(&mut Membership) -> R) -> Option<R> {
        let MemberMut { chunk, at, .. } = self.get_mut(user)?;
        Some(chunk.update(at, user, change))
    }

    /// Takes in a user who is not there; false if it is there.
    pub(crate) fn insert(&mut self, user: UserId, member: Membership) -> bool {
        let at_chunk = self.chunk_of(user);
        let is_last = at_chunk + 1 == self.chunks().len();
        let chunk = self.chunk_mut(at_chunk);
        let Err(at) = chunk.find(user) else { return false };
        if chunk.len() < CHUNK_MEMBERS_MAX {
            chunk.insert(at, user, member);
            return true;
        }
        let mut next = Chunk::default();
        if at == chunk.len() && is_last {
            // Users that come in ascending order fill their chunks instead of leaving halves behind.
            chunk.shrink();
            next.insert(0, user, member);
        } else {
            next = chunk.split_off(CHUNK_MEMBERS_MAX / 2);
            // Between the two it is the lower one's, so that nobody is below the least of the upper one.
            match at.checked_sub(chunk.len()) {
                None | Some(0) => chunk.insert(at, user, member),
                Some(at) => next.insert(at, user, member),
            }
        }
        self.insert_chunk(at_chunk + 1, next);
        true
    }

    fn insert_chunk(&mut self, at: usize, chunk: Chunk) {
        match &mut self.chunks {
            Chunks::One(only) => self.chunks = Chunks::Many(Vec::from([core::mem::take(only), chunk])),
            Chunks::Many(chunks) => chunks.insert(at, chunk),
        }
    }

    pub(crate) fn remove(&mut self, user: UserId) -> Option<Membership> {
        let at_chunk = self.chunk_of(user);
        let chunk = self.chunk_mut(at_chunk);
        let at = chunk.find(user).ok()?;
        let member = chunk.remove(at, user);
        if let Chunks::Many(chunks) = &mut self.chunks
            && chunks[at_chunk].len() == 0
        {
            chunks.remove(at_chunk);
            if let [only] = &mut chunks[..] {
                self.chunks = Chunks::One(core::mem::take(only));
            }
        }
        Some(member)
    }

    /// Present and past members, ascending.
    pub(crate) fn iter(&self) -> Iter<'_> {
        self.iter_from(UserId(0))
    }

    /// As [`Members::iter`], from this user on.
    pub(crate) fn iter_from(&self, from: UserId) -> Iter<'_> {
        let (first, others) = self.chunks()[self.chunk_of(from)..].split_first().expect("there is one at least");
        let at = first.find(from).unwrap_or_else(|at| at);
        Iter { of_chunk: first.iter_from(at), chunks: others.iter() }
    }
}

/// Which of several chunks holds the user, or would: by what lies in the chunks themselves, so that no rows are looked at on the way.
fn among(chunks: &[Chunk], user: UserId) -> usize {
    chunks.partition_point(|chunk| chunk.least() <= user).saturating_sub(1)
}

/// A member, to note what happens most: only what changes is packed.
#[derive(Debug)]
pub(crate) struct MemberMut<'a> {
    chunk: &'a mut Chunk,
    at: usize,
    user: UserId,
}

impl MemberMut<'_> {
    /// Whether the user is a member now.
    pub(crate) fn is_present(&self) -> bool {
        self.chunk.is_present(self.at)
    }

    /// To look at.
    pub(crate) fn view(&self) -> Member<'_> {
        self.chunk.get(self.at)
    }

    /// A present member wrote this message, the newest.
    pub(crate) fn wrote(&mut self, seq: Seq) {
        self.chunk.wrote(self.at, self.user, seq);
    }

    /// A present member has read up to this seq, further than before, by a record at this position.
    pub(crate) fn mark(&mut self, mark: Moment) {
        self.chunk.mark(self.at, self.user, mark);
    }
}

/// Members, ascending. Written out, because a member is large and each adapter would move it once more: that took three times as
/// long as to unpack it.
#[derive(Clone, Debug)]
pub(crate) struct Iter<'a> {
    of_chunk: chunk::Iter<'a>,
    chunks: core::slice::Iter<'a, Chunk>,
}

impl<'a> Iterator for Iter<'a> {
    type Item = (UserId, Member<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let next = self.of_chunk.next();
            if next.is_some() {
                return next;
            }
            self.of_chunk = self.chunks.next()?.iter_from(0);
        }
    }
}

#[cfg(test)]
impl Members {
    pub(crate) fn chunks_for_test(&self) -> usize {
        self.chunks().len()
    }

    /// Panics if an invariant does not hold.
    pub(crate) fn check(&self) {
        let mut below = None;
        for (nth, chunk) in self.chunks().iter().enumerate() {
            assert!(chunk.len() > 0 || self.chunks().len() == 1, "an empty chunk");
            assert!(nth == 0 || below < Some(chunk.least()), "chunk {nth} reaches below the one before it");
            for (user, _) in chunk.iter_from(0) {
                assert!(below < Some(user) && chunk.least() <= user, "{user} is out of order in chunk {nth}");
                below = Some(user);
            }
        }
    }
}
