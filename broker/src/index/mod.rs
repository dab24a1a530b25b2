//! The conversation index: where in the journal each message of a conversation lies, and who wrote it.
//!
//! Owns nothing that cannot be rebuilt from the journal. Held in memory: 12 bytes a message. The sequencer appends after
//! a batch is durable and before the ring shows it, so an edge that has seen a position finds it here. Readers on the
//! edges hold a shard lock of the map for one lookup, never across anything that waits.

use std::sync::atomic::{AtomicU64, Ordering};

use carillon_protocol::ids::{ConversationId, Position, Seq, UserId};
use dashmap::DashMap;
use rustc_hash::FxBuildHasher;

mod lookup;

pub use lookup::{Lookup, LookupError, Place};

/// How many messages back a mark looks for the authors to tell: a mark over more tells the newest ones.
pub const AUTHORS_WALK_MAX: usize = 1_024;

/// Positions and authors of one conversation, by seq from the one after the floor.
#[derive(Debug, Default)]
struct Entries {
    /// The last message that is gone.
    floor: (Seq, Position),
    positions: Vec<Position>,
    authors: Vec<UserId>,
}

impl Entries {
    fn last(&self) -> (Seq, Position) {
        let last = self.positions.last().copied().unwrap_or(self.floor.1);
        (Seq(self.floor.0.0 + self.positions.len() as u64), last)
    }

    /// How many entries lie below a seq.
    fn ordinal(&self, seq: Seq) -> usize {
        let ordinal = seq.0.saturating_sub(self.floor.0.0 + 1);
        usize::try_from(ordinal).unwrap_or(usize::MAX).min(self.positions.len())
    }

    fn truncate(&mut self, through: Position) {
        let gone = self.positions.partition_point(|position| *position <= through);
        if let Some(last) = gone.checked_sub(1) {
            self.floor = (Seq(self.floor.0.0 + gone as u64), self.positions[last]);
            self.positions.drain(..gone);
            self.authors.drain(..gone);
        }
    }
}

/// Conversation → positions and authors.
#[derive(Debug, Default)]
pub struct Index {
    conversations: DashMap<ConversationId, Entries, FxBuildHasher>,
    truncated_through: AtomicU64,
}

impl Index {
    /// An empty index.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the next message of a conversation; what is there already is skipped.
    ///
    /// # Panics
    /// If `seq` is not the next one or `position` not beyond the last: the index would lie.
    pub fn append(&self, conversation: ConversationId, seq: Seq, position: Position, author: UserId) {
        let mut entries = self.conversations.entry(conversation).or_default();
        let (last_seq, last_position) = entries.last();
        if seq <= last_seq && position <= last_position {
            return;
        }
        let truncated = self.truncated_through();
        if last_seq == Seq(0) && truncated > Position(0) {
            entries.floor = (Seq(seq.0 - 1), if seq.0 > 1 { truncated } else { Position(0) });
        } else {
            assert_eq!(last_seq.0 + 1, seq.0, "{conversation} is appended to in seq order");
        }
        assert!(last_position < position, "positions ascend");
        entries.positions.push(position);
        entries.authors.push(author);
    }

    /// Reads what is in memory; never waits.
    pub fn recent(&self) -> impl Lookup {
        View { index: self }
    }

    /// Reads everything; may wait for a disk, so only on reader threads.
    pub fn whole(&self) -> impl Lookup {
        View { index: self }
    }

    /// The last message of a conversation; zeros if there is none. Always in memory.
    pub fn last(&self, conversation: ConversationId) -> (Seq, Position) {
        self.conversations.get(&conversation).map_or_else(Default::default, |entries| entries.last())
    }

    /// The last message of a conversation that retention has taken; zeros if it has taken none. Always in memory. After
    /// a rebuild the position may be too large, but not larger than [`Index::truncated_through`].
    pub fn floor(&self, conversation: ConversationId) -> (Seq, Position) {
        self.conversations.get(&conversation).map_or_else(Default::default, |entries| entries.floor)
    }

    /// Raises the floors: everything up to here is about to be deleted from the journal, or was. May wait for a disk.
    ///
    /// # Errors
    /// [`LookupError::Rebuilding`]: the journal is still needed as it is. Delete nothing, try again later.
    pub fn truncate(&self, through: Position) -> Result<(), LookupError> {
        self.truncated_through.fetch_max(through.0, Ordering::AcqRel);
        for mut entries in self.conversations.iter_mut() {
            entries.truncate(through);
        }
        Ok(())
    }

    /// What the last [`Index::truncate`] said; 0 without one.
    pub fn truncated_through(&self) -> Position {
        Position(self.truncated_through.load(Ordering::Acquire))
    }

    /// Who wrote a message, if it is in memory.
    pub fn author(&self, conversation: ConversationId, seq: Seq) -> Option<UserId> {
        let entries = self.conversations.get(&conversation)?;
        let ordinal = usize::try_from(seq.0.checked_sub(entries.floor.0.0 + 1)?).ok()?;
        entries.authors.get(ordinal).copied()
    }

    /// The distinct authors of the seqs in `(from, through]` that are in memory, ascending; of the newest
    /// [`AUTHORS_WALK_MAX`] of them.
    pub fn authors(&self, conversation: ConversationId, from: Seq, through: Seq) -> Vec<UserId> {
        let Some(entries) = self.conversations.get(&conversation) else { return Vec::new() };
        let end = entries.ordinal(Seq(through.0.saturating_add(1)));
        let start = entries.ordinal(Seq(from.0.saturating_add(1))).max(end.saturating_sub(AUTHORS_WALK_MAX)).min(end);
        let mut authors = entries.authors[start..end].to_vec();
        authors.sort_unstable();
        authors.dedup();
        authors
    }
}

struct View<'a> {
    index: &'a Index,
}

impl Lookup for View<'_> {
    fn positions(
        &self,
        conversation: ConversationId,
        after: Position,
        through: Position,
        limit: usize,
        out: &mut Vec<Position>,
    ) -> Result<(), LookupError> {
        let Some(entries) = self.index.conversations.get(&conversation) else { return Ok(()) };
        if entries.last().1 <= after {
            return Ok(());
        }
        let start = entries.positions.partition_point(|position| *position <= after);
        out.extend(entries.positions[start..].iter().take_while(|position| **position <= through).take(limit));
        Ok(())
    }

    fn rank(&self, conversation: ConversationId, position: Position) -> Result<Seq, LookupError> {
        let Some(entries) = self.index.conversations.get(&conversation) else { return Ok(Seq(0)) };
        let count = entries.positions.partition_point(|known| *known <= position);
        Ok(Seq(entries.floor.0.0 + count as u64))
    }

    fn places(
        &self,
        conversation: ConversationId,
        from: Seq,
        limit: usize,
        out: &mut Vec<Place>,
    ) -> Result<(), LookupError> {
        let Some(entries) = self.index.conversations.get(&conversation) else { return Ok(()) };
        let start = entries.ordinal(from);
        let (seqs, positions) = (entries.floor.0.0 + 1.., &entries.positions);
        let places = seqs.zip(positions.iter().zip(&entries.authors));
        let places =
            places.map(|(seq, (position, author))| Place { seq: Seq(seq), position: *position, author: *author });
        out.extend(places.skip(start).take(limit));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONVERSATION: ConversationId = ConversationId(1);

    fn index() -> Index {
        let index = Index::new();
        for (seq, position, author) in [(1, 3, 7), (2, 5, 8), (3, 9, 7)] {
            index.append(CONVERSATION, Seq(seq), Position(position), UserId(author));
        }
        index
    }

    fn check(after: u64, through: u64, limit: usize, expected: &[u64]) {
        let mut out = Vec::new();
        index().recent().positions(CONVERSATION, Position(after), Position(through), limit, &mut out).unwrap();
        assert_eq!(out, expected.iter().map(|p| Position(*p)).collect::<Vec<_>>());
    }

    #[test]
    fn positions_are_those_after_and_through() {
        check(0, 100, 10, &[3, 5, 9]);
        check(3, 8, 10, &[5]);
        check(3, 100, 1, &[5]);
        check(9, 100, 10, &[]);
        check(0, 2, 10, &[]);
    }

    #[test]
    fn authors_are_by_seq_and_distinct() {
        let index = index();
        assert_eq!(index.author(CONVERSATION, Seq(2)), Some(UserId(8)));
        assert_eq!(index.author(CONVERSATION, Seq(0)), None);
        assert_eq!(index.author(CONVERSATION, Seq(4)), None);
        assert_eq!(index.authors(CONVERSATION, Seq(0), Seq(3)), [UserId(7), UserId(8)]);
        assert_eq!(index.authors(CONVERSATION, Seq(2), Seq(99)), [UserId(7)]);
        assert_eq!(index.authors(ConversationId(2), Seq(0), Seq(9)), []);
    }

    #[test]
    fn ranks_and_places_are_above_the_floor() {
        let index = index();
        index.truncate(Position(4)).unwrap();
        assert_eq!(index.floor(CONVERSATION), (Seq(1), Position(3)));
        assert_eq!(index.last(CONVERSATION), (Seq(3), Position(9)));
        let rank = |position| index.recent().rank(CONVERSATION, Position(position)).unwrap();
        assert_eq!([0, 3, 4, 5, 8, 9, 10].map(rank), [1, 1, 1, 2, 2, 3, 3].map(Seq));
        let mut places = Vec::new();
        index.whole().places(CONVERSATION, Seq(0), 9, &mut places).unwrap();
        let place =
            |seq, position, author| Place { seq: Seq(seq), position: Position(position), author: UserId(author) };
        assert_eq!(places, [place(2, 5, 8), place(3, 9, 7)]);
    }

    #[test]
    fn what_is_there_is_skipped_and_what_is_gone_makes_a_floor() {
        let index = index();
        index.append(CONVERSATION, Seq(2), Position(5), UserId(8));
        assert_eq!(index.last(CONVERSATION), (Seq(3), Position(9)));
        index.truncate(Position(20)).unwrap();
        assert_eq!(index.floor(CONVERSATION), (Seq(3), Position(9)));
        index.append(ConversationId(2), Seq(6), Position(21), UserId(1));
        assert_eq!(index.floor(ConversationId(2)), (Seq(5), Position(20)));
    }
}
