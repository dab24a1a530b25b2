//! Lookups: from memory, and on reader threads from disk as well.
//!
//! A lookup takes what memory has under the lock, and then reads blocks without it. Meanwhile messages may go from memory
//! to disk, which changes nothing of what was known to lie there; and retention may take some, which is seen by the floor.

use std::sync::Arc;

use carillon_protocol::ids::{ConversationId, Position, Seq, Timestamp, UserId};

use super::block::{BLOCK_MESSAGES, Block, BlockFault};
use super::doubt::Doubt;
use super::store::Store;
use super::tail::{End, Entry};
use super::{Index, Lookup, LookupError, MessageAt, Place, marks};

/// See [`Index::recent`] and [`Index::whole`].
pub(super) struct View<'a> {
    pub(super) index: &'a Index,
    /// Whether it may wait for a disk.
    pub(super) whole: bool,
}

/// What memory says.
enum Found<T> {
    /// Everything.
    All(T),
    /// The rest is on disk.
    Newer(OnDisk, T),
}

/// The messages of a conversation that are on disk: `(floor, end]`.
#[derive(Clone, Copy)]
struct OnDisk {
    conversation: ConversationId,
    floor: Seq,
    end: Seq,
}

impl View<'_> {
    /// Asks memory, and then the disk if need be, again when retention has been there in between.
    fn look<T>(
        &self,
        conversation: ConversationId,
        memory: impl Fn(&Entry, &dyn Fn() -> OnDisk) -> Found<T>,
        disk: impl Fn(&Blocks<'_>, T) -> Result<T, Doubt>,
    ) -> Result<T, LookupError> {
        loop {
            let found = self.index.table.read(conversation, |entry| {
                let on_disk = || OnDisk { conversation, floor: entry.floor.0, end: Seq(entry.first_kept().0 - 1) };
                memory(entry, &on_disk)
            });
            let (on_disk, newer) = match found {
                Found::All(all) => return Ok(all),
                Found::Newer(on_disk, newer) => (on_disk, newer),
            };
            let store = self.store()?;
            match disk(&Blocks { store: &store, on_disk }, newer) {
                Ok(all) => return Ok(all),
                // What was looked for may have been taken by retention since.
                Err(_) if self.index.floor(conversation).0 > on_disk.floor => {}
                Err(doubt) => {
                    self.index.doubt(&store, &doubt);
                    return Err(LookupError::Rebuilding);
                }
            }
        }
    }

    pub(super) fn store(&self) -> Result<Arc<Store>, LookupError> {
        let store = self.index.store.load_full().ok_or(LookupError::Rebuilding)?;
        if self.whole { Ok(store) } else { Err(LookupError::OnDisk) }
    }

    /// The last message at or before a position, or the floor.
    pub(super) fn at_or_before(&self, conversation: ConversationId, position: Position) -> Result<End, LookupError> {
        let memory = |entry: &Entry, on_disk: &dyn Fn() -> OnDisk| {
            if position >= entry.last.1 {
                return Found::All(entry.last);
            }
            if position < entry.kept_after() && entry.has_more_on_disk() && position > entry.floor.1 {
                return Found::Newer(on_disk(), entry.floor);
            }
            let kept = entry.kept_at_or_before(position);
            let before = (Seq(entry.first_kept().0 - 1), entry.kept_after());
            let below = if position >= before.1 && before.0 > entry.floor.0 { before } else { entry.floor };
            Found::All(kept.unwrap_or(below))
        };
        let disk = |blocks: &Blocks<'_>, floor: End| {
            let block = blocks.find(|block| block.before() <= position)?;
            let known = blocks.places(&block).take_while(|place| place.position <= position).last();
            let before = (Seq(block.first().0 - 1), block.before());
            let below = if before.0 > floor.0 && before.1 <= position { before } else { floor };
            Ok(known.map_or(below, |place| (place.seq, place.position)))
        };
        self.look(conversation, memory, disk)
    }
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
        let wanted = |place: &Place| place.position <= through;
        let memory = |entry: &Entry, on_disk: &dyn Fn() -> OnDisk| {
            let after = after.max(entry.floor.1);
            if entry.last.1 <= after || through <= after {
                return Found::All(Vec::new());
            }
            let all = after >= entry.kept_after() || !entry.has_more_on_disk();
            let places = if all || self.whole { entry.after(after) } else { entry.after(entry.last.1) };
            let kept = places.take_while(wanted).take(limit).map(|place| place.position).collect();
            if all { Found::All(kept) } else { Found::Newer(on_disk(), kept) }
        };
        let disk = |blocks: &Blocks<'_>, newer: Vec<Position>| {
            let mut found = Vec::new();
            blocks.walk(blocks.find(|block| block.before() <= after)?, |place| {
                if place.position > after && found.len() < limit && wanted(&place) {
                    found.push(place.position);
                }
                found.len() < limit && wanted(&place)
            })?;
            found.extend(newer.into_iter().take(limit - found.len()));
            Ok(found)
        };
        out.extend(self.look(conversation, memory, disk)?);
        Ok(())
    }

    fn rank(&self, conversation: ConversationId, position: Position) -> Result<Seq, LookupError> {
        Ok(self.at_or_before(conversation, position)?.0)
    }

    fn places(
        &self,
        conversation: ConversationId,
        from: Seq,
        limit: usize,
        out: &mut Vec<Place>,
    ) -> Result<(), LookupError> {
        let memory = |entry: &Entry, on_disk: &dyn Fn() -> OnDisk| {
            let from = from.max(entry.floor.0.next());
            if entry.last.0 < from {
                return Found::All(Vec::new());
            }
            let all = from >= entry.first_kept();
            let room = if all || self.whole { limit } else { 0 };
            let kept = entry.since(from).take(room).collect();
            if all { Found::All(kept) } else { Found::Newer(on_disk(), kept) }
        };
        let disk = |blocks: &Blocks<'_>, newer: Vec<Place>| {
            let from = from.max(blocks.on_disk.floor.next());
            let mut found = Vec::new();
            blocks.walk(blocks.get(from)?, |place| {
                if place.seq >= from && found.len() < limit {
                    found.push(place);
                }
                found.len() < limit
            })?;
            found.extend(newer.into_iter().take(limit - found.len()));
            Ok(found)
        };
        out.extend(self.look(conversation, memory, disk)?);
        Ok(())
    }

    fn read_times(&self, message: &MessageAt, users: &[UserId]) -> Result<Vec<Timestamp>, LookupError> {
        marks::read_times(self, message, users)
    }
}

/// Access to the blocks of one conversation.
struct Blocks<'a> {
    store: &'a Store,
    on_disk: OnDisk,
}

impl Blocks<'_> {
    /// The block that holds a seq on disk. It is there with all that it should hold.
    fn get(&self, seq: Seq) -> Result<Block, Doubt> {
        let conversation = self.on_disk.conversation;
        let block = self.store.block(conversation, seq)?;
        let complete = block.is_full() || block.next_seq() > self.on_disk.end;
        let fault = BlockFault::Discontinuous;
        if complete { Ok(block) } else { Err(Doubt::Block { conversation, seq, fault }) }
    }

    /// The last block that begins early enough, or else the first one.
    fn find(&self, early: impl Fn(&Block) -> bool) -> Result<Block, Doubt> {
        let OnDisk { floor, end, .. } = self.on_disk;
        let begin = floor.0 / BLOCK_MESSAGES;
        let mut found = self.get(floor.next())?;
        // The block with number `low` is early enough or the first, the one with number `high` is neither or is not there.
        let (mut low, mut high) = (begin, (end.0 - 1) / BLOCK_MESSAGES + 1);
        while low + 1 < high {
            let middle = low.midpoint(high);
            let block = self.get(Seq(middle * BLOCK_MESSAGES + 1))?;
            if early(&block) {
                (low, found) = (middle, block);
            } else {
                high = middle;
            }
        }
        Ok(found)
    }

    /// The messages of a block that count: not what is below the floor, nor what is in memory.
    fn places<'b>(&self, block: &'b Block) -> impl Iterator<Item = Place> + use<'b> {
        let OnDisk { floor, end, .. } = self.on_disk;
        block.places().skip_while(move |place| place.seq <= floor).take_while(move |place| place.seq <= end)
    }

    /// Hands out messages from a block on, until `take` says that it is enough.
    fn walk(&self, mut block: Block, mut take: impl FnMut(Place) -> bool) -> Result<(), Doubt> {
        loop {
            for place in self.places(&block) {
                if !take(place) {
                    return Ok(());
                }
            }
            let seq = block.next_seq();
            if seq > self.on_disk.end {
                return Ok(());
            }
            let next = self.get(seq)?;
            if next.before() != block.last_position() {
                let fault = BlockFault::Discontinuous;
                return Err(Doubt::Block { conversation: self.on_disk.conversation, seq, fault });
            }
            block = next;
        }
    }
}
