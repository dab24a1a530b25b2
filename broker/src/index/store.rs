//! The part of the index that lies on disk: four sled trees.
//!
//! Every call is caught: sled has assertions that fail on damaged files, and nothing but the index may suffer from them. All
//! that is read is checked here, and what fails the check is a [`Doubt`].
//!
//! ```text
//! tree    key                     value, integers little-endian
//! mark    "mark"                  CRC32C u32, version u8 = 3, shard u16, incarnation u64, flushed through u64,
//!                                 truncated through u64; of each run of lost positions the first u64 and the last u64
//! rows    conversation u64 BE     CRC32C u32, last seq u64, its position u64, floor seq u64, its position u64
//! blocks  conversation, seq       see `block`
//! marks   conversation, user, seq see `marks`
//! ```
//!
//! Version 1 had no marks; it is not read, but built anew. Version 2 had no lost positions, and is read. A flush writes a mark that names new
//! lost positions, if there are any; then blocks and rows, then marks, then the mark. So up to the mark everything is there, and what lies
//! beyond it was written by a flush that did not end: it is true, but for places at positions that are named as lost, and written again.

use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use carillon_protocol::ids::{ConversationId, Incarnation, Position, Seq, ShardId, UserId};

use super::block::{Block, BlockFault, aligned, checksum, key};
use super::doubt::Doubt;
use super::tail::End;
use super::{ReadMark, marks};
use crate::journal::Lost;

/// How long a store that was dropped in this process may take to let go of its files, 10 s, and how often that is looked at.
const LOCK_TRIES: usize = 1_000;
const LOCK_PAUSE: Duration = Duration::from_millis(10);

const VERSION: u8 = 3;
const VERSION_WITHOUT_LOST: u8 = 2;

const MARK: &[u8] = b"mark";

/// What sled may keep of its files in memory, beside what it needs to find its pages. Partial blocks are read before they
/// are written anew; those of some 50,000 conversations stay at hand in this.
const CACHE_BYTES: u64 = 32 * 1024 * 1024;

/// Whose index it is, and how far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) shard: ShardId,
    pub(super) incarnation: Incarnation,
    /// Every message and mark up to here is in the store, or at or below its floor.
    pub(super) flushed_through: Position,
    /// What retention took.
    pub(super) truncated_through: Position,
    /// Positions that could not be read when this was built.
    pub(super) lost: Lost,
}

/// What the store knows of a conversation beside its blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) last: End,
    pub(super) floor: End,
}

/// See the module.
pub(super) struct Store {
    trees: Option<Trees>,
    abandoned: AtomicBool,
}

struct Trees {
    db: sled::Db,
    rows: sled::Tree,
    blocks: sled::Tree,
    marks: sled::Tree,
}

impl Store {
    /// Opens what is in a directory, or makes it. The mark is missing from a new one.
    pub(super) fn open(directory: &Path) -> Result<(Self, Option<Mark>), Doubt> {
        caught(|| {
            let config = sled::Config::new().path(directory).cache_capacity(CACHE_BYTES).flush_every_ms(None);
            let db = open_when_free(&config)?;
            // Opening one makes it.
            let has_marks = db.tree_names().iter().any(|name| *name == "marks");
            let (rows, blocks, marks) = (db.open_tree("rows")?, db.open_tree("blocks")?, db.open_tree("marks")?);
            let recovered = db.was_recovered() && !(rows.is_empty() && blocks.is_empty() && marks.is_empty());
            let mark = db.get(MARK)?;
            Ok((Trees { db, rows, blocks, marks }, has_marks, recovered, mark))
        })
        .and_then(|(trees, has_marks, recovered, mark)| {
            let store = Self { trees: Some(trees), abandoned: AtomicBool::new(false) };
            match mark {
                Some(mark) => {
                    let mark = Mark::decode(&mark)?;
                    if has_marks { Ok((store, Some(mark))) } else { Err(Doubt::NoMarks) }
                }
                None if recovered => Err(Doubt::Unmarked),
                None => Ok((store, None)),
            }
        })
    }

    /// Hands every conversation to `take`.
    pub(super) fn rows(&self, mut take: impl FnMut(ConversationId, Row)) -> Result<(), Doubt> {
        let mut rows = self.trees().rows.iter();
        while let Some((key, value)) = caught(|| rows.next().transpose())? {
            let known = <[u8; 8]>::try_from(&*key).map_err(|_| Doubt::Row(ConversationId(0)))?;
            let conversation = ConversationId(u64::from_be_bytes(known));
            take(conversation, Row::decode(conversation, &value).ok_or(Doubt::Row(conversation))?);
        }
        Ok(())
    }

    pub(super) fn put_row(&self, conversation: ConversationId, row: &Row) -> Result<(), Doubt> {
        caught(|| self.trees().rows.insert(conversation.0.to_be_bytes(), row.encode(conversation))).map(drop)
    }

    pub(super) fn row(&self, conversation: ConversationId) -> Result<Option<Row>, Doubt> {
        let value = caught(|| self.trees().rows.get(conversation.0.to_be_bytes()))?;
        let decode = |value: sled::IVec| Row::decode(conversation, &value).ok_or(Doubt::Row(conversation));
        value.map(decode).transpose()
    }

    /// Writes blocks that go on where the store ends; the first may hold what it has already.
    pub(super) fn put_blocks(&self, conversation: ConversationId, floor: End, blocks: &[Block]) -> Result<(), Doubt> {
        for (nth, block) in blocks.iter().enumerate() {
            let first = block.first();
            let partial = nth == 0 && first != aligned(first) && first > floor.0.next();
            let value = if partial {
                let before = Seq(first.0 - 1);
                let known = self.block(conversation, before)?;
                if known.next_seq() < first {
                    return Err(Doubt::Block { conversation, seq: first, fault: BlockFault::Discontinuous });
                }
                known.joined(block).encode(conversation)
            } else {
                block.encode(conversation)
            };
            caught(|| self.trees().blocks.insert(key(conversation, first), value))?;
        }
        Ok(())
    }

    /// The block that holds a seq of which it is known that it is there.
    pub(super) fn block(&self, conversation: ConversationId, seq: Seq) -> Result<Block, Doubt> {
        let doubt = |fault| Doubt::Block { conversation, seq, fault };
        let value = caught(|| self.trees().blocks.get(key(conversation, seq)))?;
        let value = value.ok_or_else(|| doubt(BlockFault::Missing))?;
        let block = Block::decode(conversation, seq, &value).map_err(doubt)?;
        if block.first() > seq || block.next_seq() <= seq {
            return Err(doubt(BlockFault::Discontinuous));
        }
        Ok(block)
    }

    /// Removes the blocks that lie wholly in `(from, through]`, which is above the old floor and up to the new one.
    pub(super) fn remove_blocks(&self, conversation: ConversationId, from: Seq, through: Seq) -> Result<(), Doubt> {
        let (begin, end) = (key(conversation, from.next()), key(conversation, through.next()));
        loop {
            let found = caught(|| self.trees().blocks.range(begin..end).next().transpose())?;
            let Some((key, _)) = found else { return Ok(()) };
            caught(|| self.trees().blocks.remove(key))?;
        }
    }

    /// Writes a mark, which knows the user's mark before it.
    pub(super) fn put_mark(&self, mark: &ReadMark) -> Result<(), Doubt> {
        let key = mark.key();
        let before = match caught(|| self.trees().marks.get_lt(key))? {
            Some((before, value)) if before.starts_with(&key[..12]) => ReadMark::decode(&before, &value)?.0.up_to,
            _ => Seq(0),
        };
        caught(|| self.trees().marks.insert(key, &mark.encode(before))).map(drop)
    }

    /// The user's first mark at or beyond a seq, with the seq of the one before it.
    pub(super) fn first_mark_from(
        &self,
        conversation: ConversationId,
        user: UserId,
        seq: Seq,
    ) -> Result<Option<(ReadMark, Seq)>, Doubt> {
        let [from, to] = [seq, Seq(u64::MAX)].map(|seq| marks::key(conversation, user, seq));
        let found = caught(|| self.trees().marks.range(from..=to).next().transpose())?;
        found.map(|(key, value)| ReadMark::decode(&key, &value)).transpose()
    }

    /// Looks at so many marks behind a key and removes those up to a position; the last key, unless there are no more.
    pub(super) fn sweep_marks(&self, after: &[u8], through: Position, count: usize) -> Result<Option<Vec<u8>>, Doubt> {
        let marks = &self.trees().marks;
        let mut looked_at = marks.range::<&[u8], _>((Bound::Excluded(after), Bound::Unbounded));
        for nth in 1..=count {
            let Some((key, value)) = caught(|| looked_at.next().transpose())? else { return Ok(None) };
            if ReadMark::decode(&key, &value)?.0.position <= through {
                caught(|| marks.remove(&key))?;
            }
            if nth == count {
                return Ok(Some(key.to_vec()));
            }
        }
        Ok(None)
    }

    /// Writes everything out, and then the mark.
    pub(super) fn commit(&self, mark: &Mark) -> Result<(), Doubt> {
        caught(|| {
            self.trees().db.flush()?;
            self.trees().db.insert(MARK, mark.encode())?;
            self.trees().db.flush()
        })
        .map(drop)
    }

    /// Bytes on disk, as sled counts them.
    pub(super) fn disk_bytes(&self) -> Result<u64, Doubt> {
        caught(|| self.trees().db.size_on_disk())
    }

    /// A store in which every call fails.
    #[cfg(test)]
    pub(super) fn failing() -> Self {
        Self { trees: None, abandoned: AtomicBool::new(false) }
    }

    /// The blocks, to be damaged.
    #[cfg(test)]
    pub(super) fn raw_blocks(&self) -> &sled::Tree {
        &self.trees().blocks
    }

    /// The conversations, to be damaged.
    #[cfg(test)]
    pub(super) fn raw_rows(&self) -> &sled::Tree {
        &self.trees().rows
    }

    /// The marks, to be damaged.
    #[cfg(test)]
    pub(super) fn raw_marks(&self) -> &sled::Tree {
        &self.trees().marks
    }

    /// Says that sled's state is not trusted any more: no further call is made to it, not even when the last reader lets
    /// go. Its memory is lost, which is bounded by the cache and small beside the budget.
    pub(super) fn abandon(&self) {
        self.abandoned.store(true, Ordering::Relaxed);
    }

    fn trees(&self) -> &Trees {
        self.trees.as_ref().expect("the trees are there until the store is dropped")
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let trees = self.trees.take();
        if self.abandoned.load(Ordering::Relaxed) {
            std::mem::forget(trees);
        } else {
            // A panic while it closes says nothing that the next open will not find.
            catch_unwind(AssertUnwindSafe(|| drop(trees))).ok();
        }
    }
}

/// Opens the files once nobody holds them. The data directory is this process's alone, so whoever does is a store that was
/// dropped here: sled's threads let go of its lock a moment after it.
fn open_when_free(config: &sled::Config) -> sled::Result<sled::Db> {
    for _ in 0..LOCK_TRIES {
        match config.open() {
            Err(sled::Error::Io(error)) if error.to_string().contains("could not acquire lock") => {
                std::thread::sleep(LOCK_PAUSE);
            }
            opened => return opened,
        }
    }
    config.open()
}

/// A call to sled, with its panics as doubts.
fn caught<T>(call: impl FnOnce() -> sled::Result<T>) -> Result<T, Doubt> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(result) => Ok(result?),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
            Err(Doubt::Panicked(text.unwrap_or("without a word").into()))
        }
    }
}

impl Mark {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut value = vec![0; 4];
        value.push(VERSION);
        value.extend_from_slice(&self.shard.0.to_le_bytes());
        let numbers = [self.incarnation.0, self.flushed_through.0, self.truncated_through.0];
        let lost = self.lost.runs().iter().flat_map(|(first, last)| [first.0, last.0]);
        numbers.into_iter().chain(lost).for_each(|number| value.extend_from_slice(&number.to_le_bytes()));
        sealed(MARK, value)
    }

    pub(super) fn decode(value: &[u8]) -> Result<Self, Doubt> {
        let rest = unsealed(MARK, value).ok_or(Doubt::Unmarked)?;
        let (version, rest) = rest.split_first().ok_or(Doubt::Unmarked)?;
        if ![VERSION, VERSION_WITHOUT_LOST].contains(version) {
            return Err(Doubt::Version(*version));
        }
        let (shard, rest) = rest.split_first_chunk::<2>().ok_or(Doubt::Unmarked)?;
        let (numbers, runs) = rest.split_first_chunk::<24>().ok_or(Doubt::Unmarked)?;
        let [incarnation, flushed, truncated] = numbers_of(numbers).ok_or(Doubt::Unmarked)?;
        let (runs, []) = runs.as_chunks::<16>() else { return Err(Doubt::Unmarked) };
        let runs = runs.iter().filter_map(|run| numbers_of(run)).map(|[first, last]| (Position(first), Position(last)));
        let lost = Lost::of_runs(runs.collect()).ok_or(Doubt::Unmarked)?;
        if *version == VERSION_WITHOUT_LOST && !lost.is_empty() {
            return Err(Doubt::Unmarked);
        }
        Ok(Self {
            shard: ShardId(u16::from_le_bytes(*shard)),
            incarnation: Incarnation(incarnation),
            flushed_through: Position(flushed),
            truncated_through: Position(truncated),
            lost,
        })
    }
}

impl Row {
    pub(super) fn encode(&self, conversation: ConversationId) -> Vec<u8> {
        let mut value = vec![0; 4];
        for number in [self.last.0.0, self.last.1.0, self.floor.0.0, self.floor.1.0] {
            value.extend_from_slice(&number.to_le_bytes());
        }
        sealed(&conversation.0.to_be_bytes(), value)
    }

    pub(super) fn decode(conversation: ConversationId, value: &[u8]) -> Option<Self> {
        let [last, last_position, floor, floor_position] = numbers_of(unsealed(&conversation.0.to_be_bytes(), value)?)?;
        let row = Self { last: (Seq(last), Position(last_position)), floor: (Seq(floor), Position(floor_position)) };
        (row.floor.0 <= row.last.0).then_some(row)
    }
}

/// A value whose first four bytes are left for its checksum, with it.
fn sealed(key: &[u8], mut value: Vec<u8>) -> Vec<u8> {
    let crc = checksum(key, &value[4..]);
    value[..4].copy_from_slice(&crc.to_le_bytes());
    value
}

/// What a sealed value holds.
fn unsealed<'a>(key: &[u8], value: &'a [u8]) -> Option<&'a [u8]> {
    let (crc, rest) = value.split_first_chunk::<4>()?;
    (checksum(key, rest) == u32::from_le_bytes(*crc)).then_some(rest)
}

/// Exactly these numbers.
fn numbers_of<const COUNT: usize>(bytes: &[u8]) -> Option<[u64; COUNT]> {
    let (chunks, rest) = bytes.as_chunks::<8>();
    let numbers: Vec<_> = chunks.iter().map(|chunk| u64::from_le_bytes(*chunk)).collect();
    numbers.try_into().ok().filter(|_| rest.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONVERSATION: ConversationId = ConversationId(9);

    #[test]
    fn marks_and_rows_come_back_and_nothing_else_does() {
        let lost = Lost::of_runs(vec![(Position(7), Position(9)), (Position(12), Position(12))]).unwrap();
        let mark = Mark {
            shard: ShardId(3),
            incarnation: Incarnation(u64::MAX - 5),
            flushed_through: Position(77),
            truncated_through: Position(5),
            lost: lost.clone(),
        };
        let row = Row { last: (Seq(9), Position(70)), floor: (Seq(2), Position(4)) };
        let (marked, rowed) = (mark.encode(), row.encode(CONVERSATION));
        assert_eq!(Mark::decode(&marked).unwrap(), mark);
        assert_eq!(Row::decode(CONVERSATION, &rowed), Some(row));
        assert_eq!(Row::decode(ConversationId(8), &rowed), None);
        for at in 0..marked.len() {
            let mut flipped = marked.clone();
            flipped[at] ^= 4;
            assert!(Mark::decode(&flipped).is_err() && Mark::decode(&marked[..at]).is_err());
        }
        for at in 0..rowed.len() {
            let mut flipped = rowed.clone();
            flipped[at] ^= 4;
            assert_eq!((Row::decode(CONVERSATION, &flipped), Row::decode(CONVERSATION, &rowed[..at])), (None, None));
        }
        let upside_down = Row { last: row.floor, floor: row.last }.encode(CONVERSATION);
        assert_eq!(Row::decode(CONVERSATION, &upside_down), None);
    }

    #[test]
    fn another_version_says_so() {
        let mark = Mark {
            shard: ShardId(0),
            incarnation: Incarnation(0),
            flushed_through: Position(0),
            truncated_through: Position(0),
            lost: Lost::default(),
        };
        let with_version = |version| {
            let mut value = mark.encode();
            value[4] = version;
            Mark::decode(&sealed(MARK, value))
        };
        assert!(matches!(with_version(1), Err(Doubt::Version(1))));
        assert_eq!(with_version(VERSION_WITHOUT_LOST).unwrap(), mark);
    }

    #[test]
    fn a_panic_is_a_doubt() {
        let doubt = caught::<()>(|| panic!("on purpose {}", 1)).unwrap_err();
        assert_eq!(doubt.to_string(), "the store panicked: on purpose 1");
    }
}
