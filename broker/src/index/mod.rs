//! The conversation index: where in the journal each message of a conversation lies, and who wrote it.
//!
//! Owns nothing that cannot be rebuilt from the journal. Held in memory: 12 bytes a message. The sequencer appends after
//! a batch is durable and before the ring shows it, so an edge that has seen a position finds it here. Readers on the
//! edges hold a shard lock of the map for one lookup, never across anything that waits.

use carillon_protocol::ids::{ConversationId, Position, Seq, UserId};
use dashmap::DashMap;
use rustc_hash::FxBuildHasher;

/// How many messages back a mark looks for the authors to tell: a mark over more tells the newest ones.
pub const AUTHORS_WALK_MAX: usize = 1_024;

/// Positions and authors of one conversation, by seq from 1.
#[derive(Debug, Default)]
struct Entries {
    positions: Vec<Position>,
    authors: Vec<UserId>,
}

/// Conversation → positions and authors.
#[derive(Debug, Default)]
pub struct Index {
    conversations: DashMap<ConversationId, Entries, FxBuildHasher>,
}

impl Index {
    /// An empty index.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the next message of a conversation.
    ///
    /// # Panics
    /// If `seq` is not the next one or `position` not beyond the last: the index would lie.
    pub fn append(&self, conversation: ConversationId, seq: Seq, position: Position, author: UserId) {
        let mut entries = self.conversations.entry(conversation).or_default();
        assert_eq!(entries.positions.len() as u64 + 1, seq.0, "{conversation} is appended to in seq order");
        assert!(entries.positions.last().is_none_or(|last| *last < position), "positions ascend");
        entries.positions.push(position);
        entries.authors.push(author);
    }

    /// Appends to `out` the positions in `(after, through]`, ascending, at most `limit`.
    pub fn positions(
        &self,
        conversation: ConversationId,
        after: Position,
        through: Position,
        limit: usize,
        out: &mut Vec<Position>,
    ) {
        let Some(entries) = self.conversations.get(&conversation) else { return };
        if entries.positions.last().is_none_or(|last| *last <= after) {
            return;
        }
        let start = entries.positions.partition_point(|position| *position <= after);
        let found = entries.positions[start..].iter().take_while(|position| **position <= through).take(limit);
        out.extend(found);
    }

    /// Who wrote a message, if there is one of this seq.
    pub fn author(&self, conversation: ConversationId, seq: Seq) -> Option<UserId> {
        let ordinal = usize::try_from(seq.0.checked_sub(1)?).ok()?;
        self.conversations.get(&conversation)?.authors.get(ordinal).copied()
    }

    /// The distinct authors of the seqs in `(from, through]`, ascending; of the newest [`AUTHORS_WALK_MAX`] of them.
    pub fn authors(&self, conversation: ConversationId, from: Seq, through: Seq) -> Vec<UserId> {
        let Some(entries) = self.conversations.get(&conversation) else { return Vec::new() };
        let end = usize::try_from(through.0).unwrap_or(usize::MAX).min(entries.authors.len());
        let start = usize::try_from(from.0).unwrap_or(usize::MAX).max(end.saturating_sub(AUTHORS_WALK_MAX)).min(end);
        let mut authors = entries.authors[start..end].to_vec();
        authors.sort_unstable();
        authors.dedup();
        authors
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index() -> Index {
        let index = Index::new();
        for (seq, position, author) in [(1, 3, 7), (2, 5, 8), (3, 9, 7)] {
            index.append(ConversationId(1), Seq(seq), Position(position), UserId(author));
        }
        index
    }

    fn check(after: u64, through: u64, limit: usize, expected: &[u64]) {
        let mut out = Vec::new();
        index().positions(ConversationId(1), Position(after), Position(through), limit, &mut out);
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
        assert_eq!(index.author(ConversationId(1), Seq(2)), Some(UserId(8)));
        assert_eq!(index.author(ConversationId(1), Seq(0)), None);
        assert_eq!(index.author(ConversationId(1), Seq(4)), None);
        assert_eq!(index.authors(ConversationId(1), Seq(0), Seq(3)), [UserId(7), UserId(8)]);
        assert_eq!(index.authors(ConversationId(1), Seq(2), Seq(99)), [UserId(7)]);
        assert_eq!(index.authors(ConversationId(2), Seq(0), Seq(9)), []);
    }
}
