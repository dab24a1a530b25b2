//! Doors for fuzzing: a value of the store on disk, handed straight to what judges it. Nothing in the broker calls this.

use carillon_protocol::ids::{ConversationId, Seq};

use super::block::{Block, aligned};
use super::marks::ReadMark;
use super::store::{Mark, Row};

/// Which tree a value lies in. Its key is the one that the value is read with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tree {
    /// How far the store is.
    Mark,
    /// Ends and floors of conversations.
    Rows,
    /// Blocks of messages.
    Blocks,
    /// Who read how far.
    Marks,
}

/// Judges a value. What is believed is written again, and `None` says that it is not believed.
pub fn judge(tree: Tree, key: &[u8], value: &[u8]) -> Option<Vec<u8>> {
    match tree {
        Tree::Mark => Mark::decode(value).ok().map(|mark| mark.encode()),
        Tree::Rows => {
            let conversation = ConversationId(u64::from_be_bytes(key.try_into().ok()?));
            Row::decode(conversation, value).map(|row| row.encode(conversation))
        }
        Tree::Blocks => {
            let (conversation, seq) = key.split_first_chunk::<8>()?;
            let conversation = ConversationId(u64::from_be_bytes(*conversation));
            let seq = aligned(Seq(u64::from_be_bytes(seq.try_into().ok()?)));
            let block = Block::decode(conversation, seq, value).ok()?;
            walk(&block);
            Some(block.encode(conversation))
        }
        Tree::Marks => {
            let (mark, before) = ReadMark::decode(key, value).ok()?;
            Some(mark.encode(before).to_vec())
        }
    }
}

/// What lookups and the writer do with a block.
fn walk(block: &Block) {
    let places: Vec<_> = block.places().collect();
    assert!(places.is_sorted_by(|a, b| a.seq < b.seq && a.position < b.position), "messages ascend");
    assert_eq!(places.last().map(|place| place.position), Some(block.last_position()));
    let half = places[places.len() / 2].seq;
    let mut rest = block.clone();
    rest.drop_through(half);
    assert_eq!(rest.places().count(), places.iter().filter(|place| place.seq > half).count());
    assert_eq!(block.clone().joined(&rest).places().count(), places.len());
}
