//! Every conversation of the shard, by ordinal, in chunks with a lock each.
//!
//! Ordinals are dense, so the table is a vector that never moves: its chunks lie in levels of doubling size, each made when
//! an ordinal first reaches it. A lock is held for one lookup or one append, or for a bounded amount of work on one chunk,
//! and never while anything waits for a file.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{OnceLock, RwLock, RwLockReadGuard, RwLockWriteGuard};

use carillon_protocol::ids::{ConversationId, ShardId};

use super::tail::Entry;

/// Conversations a chunk: so few that the writer's visit to a chunk is short, so many that a lock for each costs nothing.
const CHUNK_ENTRIES: usize = 256;

/// Enough for 2^40 conversations, which no memory holds.
const LEVELS: usize = 32;

const LOCK: &str = "no thread panics while it holds a chunk of the index";

type Chunk = RwLock<Vec<Entry>>;

/// See the module.
#[derive(Debug)]
pub(super) struct Table {
    shard: ShardId,
    levels: [OnceLock<Box<[Chunk]>>; LEVELS],
    /// Bytes held for messages.
    messages_bytes: AtomicUsize,
    /// Bytes of the entries.
    entries_bytes: AtomicUsize,
}

impl Table {
    pub(super) fn new(shard: ShardId) -> Self {
        let levels = std::array::from_fn(|_| OnceLock::new());
        Self { shard, levels, messages_bytes: AtomicUsize::new(0), entries_bytes: AtomicUsize::new(0) }
    }

    /// Bytes held for messages.
    pub(super) fn messages_bytes(&self) -> usize {
        self.messages_bytes.load(Ordering::Relaxed)
    }

    /// Bytes held for conversations, whether messages of theirs are in memory or not.
    pub(super) fn entries_bytes(&self) -> usize {
        self.entries_bytes.load(Ordering::Relaxed)
    }

    /// Looks at a conversation; at an empty one if there is none.
    pub(super) fn read<R>(&self, conversation: ConversationId, look: impl FnOnce(&Entry) -> R) -> R {
        // Clients ask for whatever they like.
        let place = place(conversation);
        let chunks = place.and_then(|(level, chunk, _)| Some((self.levels[level].get()?, chunk)));
        let chunk = chunks.map(|(chunks, chunk)| chunks[chunk].read().expect(LOCK));
        let entry = chunk.as_ref().zip(place).and_then(|(entries, (_, _, at))| entries.get(at));
        match entry {
            Some(entry) => look(entry),
            None => look(&Entry::default()),
        }
    }

    /// Changes a conversation.
    pub(super) fn update<R>(&self, conversation: ConversationId, change: impl FnOnce(&mut Entry) -> R) -> R {
        let (level, chunk, at) = place(conversation).expect("a shard gives out no such ordinal");
        let chunks = self.levels[level].get_or_init(|| (0..1usize << level).map(|_| Chunk::default()).collect());
        let mut entries = chunks[chunk].write().expect(LOCK);
        if entries.len() <= at {
            let before = entries.capacity();
            let more = CHUNK_ENTRIES - entries.len();
            entries.reserve_exact(more);
            entries.resize_with(at + 1, Entry::default);
            self.entries_bytes.fetch_add((entries.capacity() - before) * size_of::<Entry>(), Ordering::Relaxed);
        }
        let entry = &mut entries[at];
        let before = entry.held();
        let result = change(entry);
        self.account(before, entry.held());
        result
    }

    /// The chunks that are there, in order.
    pub(super) fn chunks(&self) -> impl Iterator<Item = ChunkOf<'_>> {
        let levels = self.levels.iter().enumerate().filter_map(|(level, chunks)| Some((level, chunks.get()?)));
        levels.flat_map(|(level, chunks)| {
            let first = (1usize << level) - 1;
            (first..).zip(chunks.iter()).map(|(number, chunk)| ChunkOf { table: self, number, chunk })
        })
    }

    /// Forgets everything.
    pub(super) fn clear(&self) {
        for chunk in self.chunks() {
            *chunk.write() = Vec::new();
        }
        self.messages_bytes.store(0, Ordering::Relaxed);
        self.entries_bytes.store(0, Ordering::Relaxed);
    }

    fn account(&self, before: usize, after: usize) {
        if after > before {
            self.messages_bytes.fetch_add(after - before, Ordering::Relaxed);
        } else if after < before {
            self.messages_bytes.fetch_sub(before - after, Ordering::Relaxed);
        }
    }
}

/// A chunk with its place in the table.
pub(super) struct ChunkOf<'a> {
    table: &'a Table,
    number: usize,
    chunk: &'a Chunk,
}

impl ChunkOf<'_> {
    /// Looks at the conversations from a place of the chunk on, under one lock, until `look` says that it is enough: `false`
    /// for the one it stopped at, with its place as the result. `None`: it has seen them all.
    pub(super) fn look_from(
        &self,
        place: usize,
        mut look: impl FnMut(ConversationId, &Entry) -> bool,
    ) -> Option<usize> {
        let entries = self.read();
        let rest = entries.iter().enumerate().skip(place);
        rest.map(|(at, entry)| (at, look(self.conversation(at), entry))).find(|(_, go_on)| !go_on).map(|(at, _)| at)
    }

    /// Looks at each conversation in turn, under one lock.
    pub(super) fn for_each(&self, mut look: impl FnMut(ConversationId, &Entry)) {
        for (at, entry) in self.read().iter().enumerate() {
            look(self.conversation(at), entry);
        }
    }

    /// Changes each conversation in turn, under one lock.
    pub(super) fn for_each_mut(&self, mut change: impl FnMut(ConversationId, &mut Entry)) {
        let (mut before, mut after) = (0, 0);
        for (at, entry) in self.write().iter_mut().enumerate() {
            before += entry.held();
            change(self.conversation(at), entry);
            after += entry.held();
        }
        self.table.account(before, after);
    }

    fn read(&self) -> RwLockReadGuard<'_, Vec<Entry>> {
        self.chunk.read().expect(LOCK)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Vec<Entry>> {
        self.chunk.write().expect(LOCK)
    }

    fn conversation(&self, at: usize) -> ConversationId {
        ConversationId::new(self.table.shard, (self.number * CHUNK_ENTRIES + at) as u64)
    }
}

/// Level, chunk of the level, entry of the chunk; `None` for an ordinal that no shard gives out.
fn place(conversation: ConversationId) -> Option<(usize, usize, usize)> {
    let ordinal = usize::try_from(conversation.ordinal()).ok()?;
    let chunk = ordinal / CHUNK_ENTRIES + 1;
    let level = chunk.ilog2() as usize;
    (level < LEVELS).then(|| (level, chunk - (1 << level), ordinal % CHUNK_ENTRIES))
}

#[cfg(test)]
mod tests {
    use super::*;
    use carillon_protocol::ids::{Position, Seq, UserId};

    const SHARD: ShardId = ShardId(5);

    fn id(ordinal: u64) -> ConversationId {
        ConversationId::new(SHARD, ordinal)
    }

    #[test]
    fn every_ordinal_has_its_own_place_and_comes_back_from_it() {
        let table = Table::new(SHARD);
        let ordinals = [1, 2, 255, 256, 257, 767, 768, 100_000, 0];
        for (ordinal, position) in ordinals.into_iter().zip(1..) {
            let append = |entry: &mut Entry| entry.append(Seq(1), Position(position), UserId(0));
            assert_eq!(table.update(id(ordinal), append), Ok(()));
        }
        let mut found = Vec::new();
        for chunk in table.chunks() {
            chunk.for_each(|conversation, entry| {
                if entry.last.0 > Seq(0) {
                    found.push((entry.last.1.0, conversation));
                }
            });
        }
        found.sort_unstable();
        assert_eq!(found, (1..).zip(ordinals.map(id)).collect::<Vec<_>>());
        for nobodys in [70_000_000, (1 << 40) - 256, (1 << 48) - 1] {
            assert_eq!(table.read(id(nobodys), |entry| entry.last), Default::default());
        }
    }

    #[test]
    fn bytes_are_counted_up_and_down() {
        let table = Table::new(SHARD);
        for seq in 1..=1_000 {
            table.update(id(7), |entry| entry.append(Seq(seq), Position(seq), UserId(0))).unwrap();
        }
        assert_eq!(table.messages_bytes(), table.read(id(7), Entry::held));
        assert_eq!(table.entries_bytes(), 256 * size_of::<Entry>());
        for chunk in table.chunks() {
            chunk.for_each_mut(|_, entry| entry.raise_floor((Seq(900), Position(900))));
        }
        assert_eq!(table.messages_bytes(), table.read(id(7), Entry::held));
        table.update(id(7), |entry| entry.raise_floor((Seq(1_000), Position(1_000))));
        assert_eq!(table.messages_bytes(), 0);
        table.clear();
        assert_eq!((table.entries_bytes(), table.read(id(7), |entry| entry.last)), (0, Default::default()));
    }

    #[test]
    fn a_conversation_costs_40_bytes() {
        assert_eq!(size_of::<Entry>(), 40);
    }
}
