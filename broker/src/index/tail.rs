//! What is in memory of one conversation: where it ends, its floor, and its newest messages.
//!
//! Invariants: the messages in memory are the newest without a gap; `flushed` is the last seq that is on disk, or that
//! need not be; whatever is not in memory and above the floor is on disk.

use std::collections::VecDeque;
use std::iter;

use carillon_protocol::ids::{Position, Seq, UserId};

use super::Place;
use super::block::Block;

/// What the allocator adds to an allocation, about.
const ALLOCATION_BYTES: usize = 16;

/// A seq with its position; zeros for none.
pub(super) type End = (Seq, Position);

/// A conversation. 40 bytes while nothing of it is in memory.
#[derive(Debug, Default)]
pub(super) struct Entry {
    /// The last message.
    pub(super) last: End,
    /// The last message that retention took.
    pub(super) floor: End,
    tail: Option<Box<Tail>>,
}

/// The newest messages. There is at least one.
#[derive(Debug)]
struct Tail {
    flushed: Seq,
    /// `None` for the many conversations that have had little of late.
    older: Option<Box<Older>>,
    open: Block,
}

/// Full blocks. There is at least one.
#[derive(Debug, Default)]
struct Older {
    /// Oldest first.
    blocks: VecDeque<Block>,
    /// Bytes that they hold.
    bytes: usize,
}

// A million personal conversations with one event each have one of these each.
const _: () = assert!(size_of::<Tail>() == 64);

/// Why a message does not follow the ones before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OutOfStep;

/// Messages that are not on disk yet.
#[derive(Debug)]
pub(super) struct Unflushed {
    /// Ascending, without a gap. The first may hold some that are on disk.
    pub(super) blocks: Vec<Block>,
    /// The last of them.
    pub(super) last: End,
    /// The conversation's floor.
    pub(super) floor: End,
}

impl Entry {
    /// A conversation of which nothing is in memory.
    pub(super) fn on_disk(last: End, floor: End) -> Self {
        Self { last, floor, tail: None }
    }

    /// Bytes that are held for its messages.
    pub(super) fn held(&self) -> usize {
        self.tail.as_ref().map_or(0, |tail| {
            let older = tail.older.as_ref().map_or(0, |older| {
                let blocks = older.blocks.capacity() * size_of::<Block>() + older.blocks.len() * ALLOCATION_BYTES;
                size_of::<Older>() + 2 * ALLOCATION_BYTES + blocks + older.bytes
            });
            let open = tail.open.held();
            let allocations = 1 + usize::from(open > 0);
            size_of::<Tail>() + allocations * ALLOCATION_BYTES + older + open
        })
    }

    /// The first seq in memory; the one after the last if there is none.
    pub(super) fn first_kept(&self) -> Seq {
        self.tail.as_ref().map_or(self.last.0.next(), |tail| tail.first().first())
    }

    /// Every message beyond this position is in memory.
    pub(super) fn kept_after(&self) -> Position {
        self.tail.as_ref().map_or(self.last.1, |tail| tail.first().before())
    }

    /// Whether there are messages above the floor that are not in memory.
    pub(super) fn has_more_on_disk(&self) -> bool {
        self.first_kept() > self.floor.0.next()
    }

    /// Adds the next message.
    ///
    /// # Errors
    /// It is not the next one. Nothing changed.
    pub(super) fn append(&mut self, seq: Seq, position: Position, author: UserId) -> Result<(), OutOfStep> {
        if seq != self.last.0.next() || position <= self.last.1 {
            return Err(OutOfStep);
        }
        let last = self.last;
        let tail = self.tail.get_or_insert_with(|| {
            let open = Block::new(seq, last.1);
            Box::new(Tail { flushed: last.0, older: None, open })
        });
        if tail.open.is_full() {
            let mut full = std::mem::replace(&mut tail.open, Block::new(seq, last.1));
            full.shrink();
            let older = tail.older.get_or_insert_default();
            older.bytes += full.held();
            older.blocks.push_back(full);
        }
        tail.open.push(last.1, position, author);
        self.last = (seq, position);
        Ok(())
    }

    /// As [`append`](Self::append); one that is there already is skipped.
    ///
    /// # Errors
    /// It is not the next one. Nothing changed.
    pub(super) fn append_new(&mut self, seq: Seq, position: Position, author: UserId) -> Result<(), OutOfStep> {
        if seq <= self.last.0 && position <= self.last.1 {
            return Ok(());
        }
        self.append(seq, position, author)
    }

    /// The messages in memory from a seq on.
    pub(super) fn since(&self, seq: Seq) -> impl Iterator<Item = Place> {
        self.starting(move |block| block.first() <= seq).skip_while(move |place| place.seq < seq)
    }

    /// The messages in memory beyond a position.
    pub(super) fn after(&self, position: Position) -> impl Iterator<Item = Place> {
        self.starting(move |block| block.before() <= position).skip_while(move |place| place.position <= position)
    }

    /// The messages from the last block on that begins early enough, or else all.
    fn starting(&self, early: impl Fn(&Block) -> bool) -> impl Iterator<Item = Place> {
        self.blocks_from(early).flat_map(Block::places)
    }

    fn blocks_from(&self, early: impl Fn(&Block) -> bool) -> impl Iterator<Item = &Block> {
        self.tail.iter().flat_map(move |tail| {
            let older = tail.older();
            let skipped = if early(&tail.open) { older.len() } else { older.partition_point(&early).max(1) - 1 };
            older.range(skipped..).chain(iter::once(&tail.open))
        })
    }

    /// The last message in memory at or before a position.
    pub(super) fn kept_at_or_before(&self, position: Position) -> Option<End> {
        if position >= self.last.1 {
            return self.tail.as_ref().map(|_| self.last);
        }
        let block = self.blocks_from(|block| block.before() < position).next()?;
        let found = block.places().take_while(|place| place.position <= position).last();
        // Between two blocks it is the last one of the first.
        let before = (block.first() > self.first_kept()).then(|| (Seq(block.first().0 - 1), block.before()));
        found.map(|place| (place.seq, place.position)).or(before)
    }

    /// Whether it has messages that are not on disk.
    pub(super) fn is_dirty(&self) -> bool {
        self.tail.as_ref().is_some_and(|tail| tail.flushed < self.last.0)
    }

    /// The last seq that is on disk or need not be.
    pub(super) fn flushed(&self) -> Seq {
        self.tail.as_ref().map_or(self.last.0, |tail| tail.flushed)
    }

    /// Copies of the blocks with the next messages that have to go to disk: of those up to a position, at most `blocks_max`.
    pub(super) fn unflushed(&self, through: Position, blocks_max: usize) -> Option<Unflushed> {
        let tail = self.tail.as_ref().filter(|_| self.is_dirty())?;
        let skip = tail.older().partition_point(|block| block.next_seq() <= tail.flushed.next());
        let blocks = tail.blocks().skip(skip).take_while(|block| block.before() < through);
        let blocks: Vec<_> = blocks.take(blocks_max).cloned().collect();
        let end = blocks.last()?;
        let last = (Seq(end.next_seq().0 - 1), end.last_position());
        Some(Unflushed { blocks, last, floor: self.floor })
    }

    /// Notes that everything up to a seq is on disk.
    pub(super) fn set_flushed(&mut self, seq: Seq) {
        if let Some(tail) = &mut self.tail {
            tail.flushed = tail.flushed.max(seq);
        }
    }

    /// Notes that the disk has been emptied and holds everything up to a seq again.
    pub(super) fn reset_flushed(&mut self, seq: Seq) {
        if let Some(tail) = &mut self.tail {
            tail.flushed = seq;
        }
    }

    /// Forgets the messages up to a position that are on disk.
    pub(super) fn drop_through(&mut self, position: Position) {
        let through = self.kept_at_or_before(position).map_or(Seq(0), |(seq, _)| seq);
        self.drop_seqs(through.min(self.flushed()));
    }

    /// Raises the floor and forgets what is below it.
    pub(super) fn raise_floor(&mut self, floor: End) {
        if floor.0 >= self.floor.0 {
            self.floor = floor;
            self.set_flushed(floor.0);
            self.drop_seqs(floor.0);
        }
    }

    fn drop_seqs(&mut self, through: Seq) {
        let Some(tail) = &mut self.tail else { return };
        if through >= self.last.0 {
            self.tail = None;
            return;
        }
        if tail.older.as_mut().is_some_and(|older| older.drop_through(through)) {
            return;
        }
        tail.older = None;
        tail.open.drop_through(through);
    }
}

impl Tail {
    fn older(&self) -> &VecDeque<Block> {
        static NONE: VecDeque<Block> = VecDeque::new();
        self.older.as_ref().map_or(&NONE, |older| &older.blocks)
    }

    fn first(&self) -> &Block {
        self.older().front().unwrap_or(&self.open)
    }

    fn blocks(&self) -> impl Iterator<Item = &Block> {
        self.older().iter().chain(iter::once(&self.open))
    }
}

impl Older {
    /// Forgets the messages up to a seq; whether any are left.
    fn drop_through(&mut self, through: Seq) -> bool {
        while let Some(block) = self.blocks.front_mut() {
            if block.first() > through {
                return true;
            }
            let held = block.held();
            if block.next_seq() > through.next() {
                block.drop_through(through);
                self.bytes -= held - block.held();
                return true;
            }
            self.bytes -= held;
            self.blocks.pop_front();
            if self.blocks.capacity() > 4 * self.blocks.len().max(4) {
                self.blocks.shrink_to(2 * self.blocks.len());
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use carillon_protocol::deliver::AUTHOR_BROKER;

    /// Messages 1 to `count` at every third position.
    fn entry(count: u64) -> Entry {
        let mut entry = Entry::default();
        for seq in 1..=count {
            entry.append(Seq(seq), Position(3 * seq), UserId(7)).unwrap();
        }
        entry
    }

    fn seqs(places: impl Iterator<Item = Place>) -> Vec<u64> {
        places.map(|place| place.seq.0).collect()
    }

    #[test]
    fn messages_are_found_by_seq_and_by_position() {
        let entry = entry(300);
        for seq in 1..=300 {
            assert_eq!(seqs(entry.since(Seq(seq)).take(2)), (seq..=300).take(2).collect::<Vec<_>>());
            for position in [3 * seq, 3 * seq + 1, 3 * seq + 2].map(Position) {
                assert_eq!(entry.kept_at_or_before(position), Some((Seq(seq), Position(3 * seq))));
                assert_eq!(seqs(entry.after(position).take(2)), (seq + 1..=300).take(2).collect::<Vec<_>>());
            }
        }
        assert_eq!(entry.kept_at_or_before(Position(2)), None);
        assert_eq!(seqs(entry.after(Position(0))).len(), 300);
    }

    #[test]
    fn only_the_next_message_is_appended() {
        let mut entry = entry(3);
        assert_eq!(entry.append(Seq(3), Position(20), UserId(1)), Err(OutOfStep));
        assert_eq!(entry.append(Seq(5), Position(20), UserId(1)), Err(OutOfStep));
        assert_eq!(entry.append(Seq(4), Position(9), UserId(1)), Err(OutOfStep));
        assert_eq!(entry.last, (Seq(3), Position(9)));
    }

    #[test]
    fn nothing_is_forgotten_before_it_is_on_disk() {
        let mut entry = entry(300);
        entry.drop_through(Position(900));
        assert_eq!(entry.first_kept(), Seq(1));
        entry.set_flushed(Seq(200));
        entry.drop_through(Position(900));
        assert_eq!((entry.first_kept(), entry.kept_after()), (Seq(201), Position(600)));
        assert!(entry.is_dirty() && entry.has_more_on_disk());
        entry.set_flushed(Seq(300));
        entry.drop_through(Position(899));
        assert_eq!(entry.first_kept(), Seq(300));
        entry.drop_through(Position(900));
        assert_eq!((entry.first_kept(), entry.held()), (Seq(301), 0));
        entry.append(Seq(301), Position(1000), UserId(1)).unwrap();
        assert_eq!((entry.first_kept(), entry.kept_after()), (Seq(301), Position(900)));
    }

    #[test]
    fn what_is_not_on_disk_is_handed_out_once() {
        let mut entry = entry(300);
        let lasts = |entry: &Entry| {
            entry.unflushed(Position(9_999), 2).map(|unflushed| (unflushed.blocks.len(), unflushed.last))
        };
        assert_eq!(lasts(&entry), Some((2, (Seq(256), Position(768)))));
        entry.set_flushed(Seq(256));
        assert_eq!(lasts(&entry), Some((1, (Seq(300), Position(900)))));
        entry.set_flushed(Seq(300));
        assert_eq!(lasts(&entry), None);
        entry.append(Seq(301), Position(1000), UserId(1)).unwrap();
        assert_eq!(entry.unflushed(Position(1_000), 9).unwrap().blocks[0].first(), Seq(257));
    }

    #[test]
    fn a_floor_takes_what_is_below_it_also_when_it_was_never_flushed() {
        let mut entry = entry(300);
        entry.raise_floor((Seq(130), Position(390)));
        assert_eq!((entry.first_kept(), entry.flushed()), (Seq(131), Seq(130)));
        assert!(!entry.has_more_on_disk());
        entry.raise_floor((Seq(300), Position(900)));
        assert!(!entry.is_dirty() && !entry.has_more_on_disk());
        assert_eq!(entry.held(), 0);
    }

    #[test]
    fn a_message_or_two_take_one_allocation() {
        let mut entry = Entry::default();
        for (seq, position) in [(1, 1_000_000), (2, 2_000_000)] {
            entry.append(Seq(seq), Position(position), AUTHOR_BROKER).unwrap();
            assert_eq!(entry.held(), 64 + ALLOCATION_BYTES);
        }
        for seq in 3..=300 {
            entry.append(Seq(seq), Position(seq * 1_000_000), AUTHOR_BROKER).unwrap();
        }
        entry.set_flushed(Seq(300));
        entry.drop_through(Position(298_000_000));
        assert_eq!(
            (entry.first_kept(), entry.held()),
            (Seq(299), 64 + ALLOCATION_BYTES),
            "nothing stays of what it was"
        );
    }

    #[test]
    fn bytes_held_go_down_to_nothing_step_by_step() {
        let mut entry = entry(1_000);
        entry.set_flushed(Seq(1_000));
        let mut held = entry.held();
        assert!(held > 2 * 1_000);
        for position in 1..=3_000 {
            entry.drop_through(Position(position));
            assert!(entry.held() <= held);
            held = entry.held();
        }
        assert_eq!(held, 0);
    }
}
