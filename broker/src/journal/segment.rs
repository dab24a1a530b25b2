//! Segments: names, creation, and the sparse index from position to offset.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};

use arc_swap::ArcSwap;
use carillon_protocol::ids::Position;

use super::format::{Identity, SEGMENT_HEADER_BYTES, SegmentHeader};
use super::limits::INDEX_STRIDE_BYTES;
use super::lost::Lost;
use super::spare::{Shelf, Spare};
use super::storage::{Storage, StorageFile};

/// A segment is `<first position, 20 digits>.journal`.
const SUFFIX: &str = ".journal";
/// A segment under construction. Never holds anything that matters.
const TEMPORARY_SUFFIX: &str = ".journal.tmp";
/// A last segment whose header is damaged and in which nothing else is. Kept as evidence, never read.
const ASIDE_SUFFIX: &str = ".journal.torn";

/// The file name of the segment with this first position.
pub fn segment_name(first: Position) -> String {
    format!("{:020}{SUFFIX}", first.0)
}

/// The first position in a segment's file name.
pub fn parse_segment_name(name: &str) -> Option<Position> {
    let digits = name.strip_suffix(SUFFIX)?;
    let all_digits = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
    let position = if all_digits { digits.parse().ok().map(Position) } else { None };
    position.filter(|position| *position > Position(0))
}

/// Whether the file was being made when a process ended.
pub(crate) fn is_temporary(name: &str) -> bool {
    name.ends_with(TEMPORARY_SUFFIX)
}

/// The name under which a damaged segment is set aside.
pub(crate) fn aside_name(first: Position) -> String {
    format!("{:020}{ASIDE_SUFFIX}", first.0)
}

/// Makes a file of `bytes` zeroes for a segment, under a temporary name. What could not be made whole is removed, as far as that
/// can be.
pub(crate) fn make(storage: &dyn Storage, first: Position, bytes: u64) -> io::Result<Spare> {
    let name = format!("{:020}{TEMPORARY_SUFFIX}", first.0);
    match storage.create(&name, bytes) {
        Ok(file) => Ok(Spare { name, file, bytes }),
        Err(error) => {
            storage.remove(&name).ok();
            Err(error)
        }
    }
}

/// Makes a segment that holds `content` of a prepared file, or atomically replaces the one of the same first position, and makes
/// file and directory durable. A crash in between leaves a temporary file, a prepared one that is not empty, or a complete
/// segment.
pub(crate) fn create_segment(
    storage: &dyn Storage,
    header: &SegmentHeader,
    content: &[&[u8]],
    prepared: Spare,
) -> io::Result<Made> {
    let Spare { name, file, bytes } = prepared;
    file.write_at(&[&header.encode()], 0)?;
    if !content.is_empty() {
        file.write_at(content, SEGMENT_HEADER_BYTES as u64)?;
    }
    file.sync_data()?;
    storage.rename(&name, &segment_name(header.first))?;
    storage.sync_directory()?;
    Ok(Made { file, bytes })
}

/// A segment that was created, durable.
pub(crate) struct Made {
    pub(crate) file: Arc<dyn StorageFile>,
    pub(crate) bytes: u64,
}

/// A batch's place in a segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark {
    pub(crate) first: Position,
    pub(crate) offset: u64,
}

/// Some of a segment's batches by position, the first always among them.
#[derive(Debug, Default)]
pub(crate) struct Index {
    marks: Vec<Mark>,
}

impl Index {
    /// Takes note of the next batch, unless a recent one is near enough.
    pub(crate) fn note(&mut self, mark: Mark) {
        if self.marks.last().is_none_or(|last| mark.offset - last.offset >= INDEX_STRIDE_BYTES) {
            self.marks.push(mark);
        }
    }

    /// Of these, which ascend: where batches cannot be reached from the ones before them.
    pub(crate) fn of(marks: Vec<Mark>) -> Self {
        Self { marks }
    }

    /// Takes note of these as well, wherever they lie.
    pub(crate) fn add(&mut self, marks: impl Iterator<Item = Mark>) {
        self.marks.extend(marks);
        self.marks.sort_unstable_by_key(|mark| mark.first);
        self.marks.dedup_by_key(|mark| mark.first);
    }

    /// The last noted batch that begins at or before the position.
    pub(crate) fn floor(&self, position: Position) -> Option<Mark> {
        let after = self.marks.partition_point(|mark| mark.first <= position);
        after.checked_sub(1).map(|index| self.marks[index])
    }
}

/// A segment as readers know it.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) first: Position,
    /// `None` until the first read of a segment that open did not scan. A std mutex, because it is held for a look-up
    /// or, once a segment, for a scan that all others who want this segment need as well.
    pub(crate) index: Mutex<Option<Index>>,
    /// Where reads met damage, for each of which every header was looked for, [`SEARCHES_MAX`] at most.
    searched: Mutex<Vec<u64>>,
}

/// Damaged places of a segment for which its headers are looked for.
const SEARCHES_MAX: usize = 64;

impl Segment {
    pub(crate) fn new(first: Position, index: Option<Index>) -> Arc<Self> {
        Arc::new(Self { first, index: Mutex::new(index), searched: Mutex::default() })
    }

    pub(crate) fn name(&self) -> String {
        segment_name(self.first)
    }

    /// Whether headers are to be looked for because of damage at this offset: the first time it is met.
    pub(crate) fn is_to_be_searched(&self, offset: u64) -> bool {
        let mut searched = self.searched.lock().expect(LOCK);
        let is_new = searched.len() < SEARCHES_MAX && !searched.contains(&offset);
        if is_new {
            searched.push(offset);
        }
        is_new
    }
}

/// All segments and the durable head: what writer and readers share.
pub(crate) struct Segments {
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) identity: Identity,
    /// In position order, never empty; the last is written to. Locked for look-ups, rolls and truncation only.
    list: RwLock<Vec<Arc<Segment>>>,
    /// Stored with `Release` after the sync of the batch that ends there, so that who loads it with `Acquire` finds the
    /// bytes and the index of everything up to it.
    head: AtomicU64,
    /// Committed since the journal was opened. Relaxed: it only says when a snapshot is worth its while.
    committed_bytes: AtomicU64,
    pub(crate) shelf: Shelf,
    /// What readers are refused, whatever the bytes say: see [`Reader::leave_out`](super::Reader::leave_out).
    pub(crate) left_out: ArcSwap<Lost>,
}

/// The segment that holds a position, and the first position of the next one.
pub(crate) struct Located {
    pub(crate) segment: Arc<Segment>,
    pub(crate) next_first: Option<Position>,
}

const LOCK: &str = "no thread panics while it holds the journal's locks";

impl Segments {
    pub(crate) fn new(
        storage: Arc<dyn Storage>,
        identity: Identity,
        list: Vec<Arc<Segment>>,
        head: Position,
        shelf: Shelf,
    ) -> Arc<Self> {
        assert!(!list.is_empty(), "a journal has a segment to write to");
        Arc::new(Self {
            storage,
            identity,
            list: RwLock::new(list),
            head: AtomicU64::new(head.0),
            committed_bytes: AtomicU64::new(0),
            shelf,
            left_out: ArcSwap::default(),
        })
    }

    pub(crate) fn head(&self) -> Position {
        Position(self.head.load(Ordering::Acquire))
    }

    /// Takes note of a durable batch in the last segment and lets readers see it.
    pub(crate) fn advance(&self, mark: Mark, last: Position, bytes: usize) {
        let segment = Arc::clone(self.list.read().expect(LOCK).last().expect("never empty"));
        segment.index.lock().expect(LOCK).get_or_insert_default().note(mark);
        self.committed_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.head.store(last.0, Ordering::Release);
    }

    pub(crate) fn committed_bytes(&self) -> u64 {
        self.committed_bytes.load(Ordering::Relaxed)
    }

    /// Adds the segment that is written to from now on. An empty one of the same first position has been replaced by it.
    pub(crate) fn push(&self, segment: Arc<Segment>) {
        let mut list = self.list.write().expect(LOCK);
        list.pop_if(|last| last.first == segment.first);
        list.push(segment);
    }

    /// First positions of all segments, in order.
    pub(crate) fn firsts(&self) -> Vec<Position> {
        self.list.read().expect(LOCK).iter().map(|segment| segment.first).collect()
    }

    /// The first position that is still there, or will be there next.
    pub(crate) fn first(&self) -> Position {
        self.list.read().expect(LOCK).first().expect("never empty").first
    }

    /// The segment that a position belongs to, unless it lies before the first.
    pub(crate) fn locate(&self, position: Position) -> Option<Located> {
        let list = self.list.read().expect(LOCK);
        let index = list.partition_point(|segment| segment.first <= position).checked_sub(1)?;
        Some(Located {
            segment: Arc::clone(&list[index]),
            next_first: list.get(index + 1).map(|segment| segment.first),
        })
    }

    /// Takes the oldest segment off the list if everything in it lies before `keep_from`.
    pub(crate) fn pop_before(&self, keep_from: Position) -> Option<Arc<Segment>> {
        let mut list = self.list.write().expect(LOCK);
        let ended = list.get(1).is_some_and(|second| second.first <= keep_from);
        ended.then(|| list.remove(0))
    }

    /// Puts back what [`Segments::pop_before`] gave.
    pub(crate) fn push_back_oldest(&self, segment: Arc<Segment>) {
        self.list.write().expect(LOCK).insert(0, segment);
    }
}
