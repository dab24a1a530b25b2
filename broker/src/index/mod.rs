//! The conversation index: where in the journal each message of a conversation lies, who wrote it, and when who had read how
//! far.
//!
//! Owns nothing that cannot be rebuilt from the journal. Recent messages and marks are in memory, older ones in sled. The
//! sequencer appends after a batch is durable and before the ring shows it, so an edge that has seen a position finds it
//! here. It waits for no file: a thread of the index's own, the writer, brings messages to disk, and only then does memory let
//! go of them, oldest first. If the writer does not keep up, memory grows beyond its budget, which is counted and logged.
//!
//! Invariants: seqs of a conversation are without a gap above its floor; where a conversation ends and its floor are always
//! in memory; whatever is not in memory and above the floor is on disk, or is being rebuilt from the journal. Any doubt about
//! what is on disk (an error or a panic of sled, a checksum, a gap, another journal's mark, another end than the shard's) makes
//! the index set its directory aside and read the journal again. A disk that takes nothing more is no doubt about what lies on
//! it: the same files are opened again. Sled may lose or damage everything, at any time.
//!
//! Where the journal is damaged as well, the index is built of what can be read. A message that cannot has a place all the same, so that who
//! asks for it is told: a lost position, which readers are refused from then on. Its author is the broker, for want of a better one.
//!
//! # The map
//!
//! `block` the coding of messages · `marks` who read when · `tail` a conversation in memory · `table` all of them · `store` the trees on disk, `doubt` why
//! they are not believed · `view` lookups · `keep` flush, eviction, truncation · `open` the start · `rebuild` while serving ·
//! `writer` the thread.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use arc_swap::{ArcSwap, ArcSwapOption};
use carillon_protocol::ids::{ConversationId, Position, Seq, ShardId, UserId};
use crossbeam::channel::{Receiver, Sender, bounded};

mod block;
mod doubt;
mod keep;
mod limits;
mod lookup;
mod marks;
mod open;
pub mod probe;
mod rebuild;
mod store;
mod table;
mod tail;
#[cfg(test)]
mod tests;
mod view;
mod writer;

use doubt::Doubt;
use keep::Work;
use limits::UNFLUSHED_MAX;
pub use limits::{AUTHORS_WALK_MAX, MEMORY_BYTES_DEFAULT, MEMORY_BYTES_MIN};
pub use lookup::{Lookup, LookupError, MessageAt, Place, TruncateError};
use marks::Marks;
pub use marks::ReadMark;
use store::Store;
use table::Table;
use view::View;
pub use writer::Writer;

use crate::journal::Lost;

/// What an index is opened as.
#[derive(Clone, Debug)]
pub struct IndexOptions {
    /// Where its blocks lie, and nothing else; made when the journal's replay begins. `None`: all of it stays in memory.
    pub directory: Option<PathBuf>,
    /// The shard whose conversations these are.
    pub shard: ShardId,
    /// What it may hold in memory. At least [`MEMORY_BYTES_MIN`] is used.
    pub memory_bytes_max: u64,
}

/// Counters of an index, for the operator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Bytes held for messages in memory.
    pub messages_bytes: usize,
    /// Bytes held for marks in memory.
    pub marks_bytes: usize,
    /// Bytes held for conversations, beside their messages.
    pub conversations_bytes: usize,
    /// Bytes on disk.
    pub disk_bytes: u64,
    /// Times that recent messages were brought to disk.
    pub flushes: u64,
    /// Times that memory went over its budget.
    pub over_budget: u64,
    /// Times that the blocks were rebuilt while the broker served.
    pub rebuilds: u64,
    /// Whether they are being rebuilt.
    pub rebuilding: bool,
    /// Positions of the journal that it was built without, because they are damaged.
    pub lost: u64,
}

/// Conversation → positions and authors. See the module.
pub struct Index {
    options: IndexOptions,
    table: Table,
    marks: Marks,
    /// Every message and mark up to this position is in the table.
    reached: AtomicU64,
    truncated_through: AtomicU64,
    /// Odd while floors rise.
    floors_version: AtomicU64,
    /// What readers know of the positions that could not be read.
    lost: ArcSwap<Lost>,
    /// `None` while it is rebuilt, and for an index in memory alone.
    store: ArcSwapOption<Store>,
    rebuilding: AtomicBool,
    /// The store was given up for want of room or rights alone: what lies on disk is as good as before, and is opened again.
    suspended: AtomicBool,
    /// Messages and marks since the last flush began.
    unflushed: AtomicU64,
    /// The writer has no store to bring anything to: it is not woken for more.
    stuck: AtomicBool,
    /// Nobody has woken the writer yet.
    asleep: AtomicBool,
    woken: (Sender<()>, Receiver<()>),
    stopping: AtomicBool,
    /// Held by whoever writes to the store, for as long as that takes: never by the sequencer or an edge.
    work: Mutex<Work>,
    flushes: AtomicU64,
    over_budget: AtomicU64,
    rebuilds: AtomicU64,
}

impl Index {
    /// An empty index that stays in memory.
    pub fn new() -> Self {
        Self::open(IndexOptions { directory: None, shard: ShardId(0), memory_bytes_max: MEMORY_BYTES_DEFAULT })
    }

    /// An index as it is before the journal is replayed: the disk is first looked at by [`Follow::begin`].
    ///
    /// [`Follow::begin`]: crate::store::Follow::begin
    pub fn open(mut options: IndexOptions) -> Self {
        options.memory_bytes_max = options.memory_bytes_max.max(MEMORY_BYTES_MIN);
        Self {
            table: Table::new(options.shard),
            marks: Marks::new(),
            options,
            reached: AtomicU64::new(0),
            truncated_through: AtomicU64::new(0),
            floors_version: AtomicU64::new(0),
            lost: ArcSwap::default(),
            store: ArcSwapOption::empty(),
            rebuilding: AtomicBool::new(false),
            suspended: AtomicBool::new(false),
            unflushed: AtomicU64::new(0),
            stuck: AtomicBool::new(false),
            asleep: AtomicBool::new(true),
            woken: bounded(1),
            stopping: AtomicBool::new(false),
            work: Mutex::default(),
            flushes: AtomicU64::new(0),
            over_budget: AtomicU64::new(0),
            rebuilds: AtomicU64::new(0),
        }
    }

    /// Adds the next message of a conversation; what is there already is skipped. Waits for nothing.
    ///
    /// # Panics
    /// If `seq` is not the next one or `position` not beyond the last: the index would lie.
    pub fn append(&self, conversation: ConversationId, seq: Seq, position: Position, author: UserId) {
        // Since the start every conversation ends where the shard's does: nothing is missing before it.
        let appended = self.table.update(conversation, |entry| entry.append_new(seq, position, author));
        appended.expect("the shard numbers the messages of a conversation without a gap");
        self.reach(position);
        self.note_appended();
    }

    /// Adds a mark; what is there already is there once. Waits for nothing.
    ///
    /// The marks of a batch come before its messages, so that whatever is reached has all its marks.
    pub fn append_mark(&self, mark: &ReadMark) {
        self.marks.append(mark);
        self.note_appended();
    }

    fn note_appended(&self) {
        self.unflushed.fetch_add(1, Ordering::Relaxed);
        if self.is_due() {
            self.wake();
        }
    }

    /// Notes that every message and mark up to a position was appended.
    pub fn reach(&self, position: Position) {
        self.reached.store(position.0, Ordering::Release);
    }

    /// Whether what lies at a position could not be read when the index was built: a message that has its place there is lost.
    pub fn is_lost(&self, position: Position) -> bool {
        self.lost.load().contains(position)
    }

    fn has_reached(&self, position: Position) -> bool {
        position.0 <= self.reached.load(Ordering::Acquire)
    }

    /// Reads what is in memory; never waits.
    pub fn recent(&self) -> impl Lookup {
        View { index: self, whole: false }
    }

    /// Reads everything; may wait for a disk, so only on reader threads.
    pub fn whole(&self) -> impl Lookup {
        View { index: self, whole: true }
    }

    /// The last message of a conversation; zeros if there is none. Always in memory.
    pub fn last(&self, conversation: ConversationId) -> (Seq, Position) {
        self.table.read(conversation, |entry| entry.last)
    }

    /// The last message of a conversation that retention has taken; zeros if it has taken none. Always in memory. After
    /// a rebuild the position may be too large, but not larger than [`Index::truncated_through`].
    pub fn floor(&self, conversation: ConversationId) -> (Seq, Position) {
        self.table.read(conversation, |entry| entry.floor)
    }

    /// Raises the floors: everything up to here is about to be deleted from the journal, or was. May wait for a disk, and
    /// for a flush that is under way. Where the disk has no room, in memory: that is brought to disk when there is, or by a start.
    ///
    /// # Errors
    /// The journal is still needed as it is: delete nothing, try again later.
    pub fn truncate(&self, through: Position, has_room: bool) -> Result<(), TruncateError> {
        if self.is_rebuilding() {
            // Without the lock, which a rebuild holds for long.
            return Err(LookupError::Rebuilding.into());
        }
        let mut work = self.lock();
        if self.is_rebuilding() {
            return Err(LookupError::Rebuilding.into());
        }
        if through <= self.truncated_through() {
            return Ok(());
        }
        if !has_room && self.store.load().is_some() && work.flushed_through < through {
            // A start would find an index that ends before the journal begins.
            return Err(TruncateError::Unwritten);
        }
        Ok(self.raise_floors(&mut work, through, has_room)?)
    }

    /// What the last [`Index::truncate`] said; 0 without one.
    pub fn truncated_through(&self) -> Position {
        Position(self.truncated_through.load(Ordering::Acquire))
    }

    /// Which floors these are: what was read of several conversations belongs together only if this was even and the same
    /// before and after. `None` while they rise.
    pub fn floors_version(&self) -> Option<u64> {
        Some(self.floors_version.load(Ordering::Acquire)).filter(|version| version.is_multiple_of(2))
    }

    /// Who wrote a message, if it is in memory.
    pub fn author(&self, conversation: ConversationId, seq: Seq) -> Option<UserId> {
        self.table.read(conversation, |entry| {
            let kept = seq >= entry.first_kept() && seq > entry.floor.0;
            entry.since(seq).next().filter(|_| kept).map(|place| place.author)
        })
    }

    /// The distinct authors of the seqs in `(from, through]` that are in memory, ascending, of the newest [`AUTHORS_WALK_MAX`] of
    /// them; and whether these are all that retention has left.
    pub fn authors(&self, conversation: ConversationId, from: Seq, through: Seq) -> (Vec<UserId>, bool) {
        let (written, all) = self.written(conversation, from, (through, AUTHORS_WALK_MAX as u64));
        let mut authors: Vec<_> = written.into_iter().map(|(_, author)| author).collect();
        authors.sort_unstable();
        authors.dedup();
        (authors, all)
    }

    /// The seqs behind `from` with their authors, ascending, of so many messages up to one: those in memory; and whether these are all
    /// that retention has left behind `from`.
    pub fn written(
        &self,
        conversation: ConversationId,
        from: Seq,
        (through, walk): (Seq, u64),
    ) -> (Vec<(Seq, UserId)>, bool) {
        self.table.read(conversation, |entry| {
            let through = through.min(entry.last.0);
            let wanted = from.max(entry.floor.0);
            let from = wanted.max(Seq(through.0.saturating_sub(walk)));
            let all = wanted >= through || wanted == from && from.next() >= entry.first_kept();
            let places = entry.since(from.next()).take_while(|place| place.seq <= through);
            let lost = self.lost.load();
            let (mut written, mut are_known) = (Vec::new(), true);
            for place in places {
                match lost.contains(place.position) {
                    // The shard may know.
                    true => are_known = false,
                    false => written.push((place.seq, place.author)),
                }
            }
            (written, all && are_known)
        })
    }

    /// The seqs that are the author's, ascending, of so many messages up to one: those in memory.
    pub fn written_by(&self, conversation: ConversationId, author: UserId, (through, walk): (Seq, u64)) -> Vec<Seq> {
        self.table.read(conversation, |entry| {
            let through = through.min(entry.last.0);
            let from = entry.floor.0.max(Seq(through.0.saturating_sub(walk)));
            let places = entry.since(from.next()).take_while(|place| place.seq <= through);
            places.filter(|place| place.author == author).map(|place| place.seq).collect()
        })
    }

    /// The counters. Asks sled for the size of its files, so not on an edge.
    pub fn stats(&self) -> Stats {
        Stats {
            messages_bytes: self.table.messages_bytes(),
            marks_bytes: self.marks.bytes(),
            conversations_bytes: self.table.entries_bytes(),
            disk_bytes: self.store.load_full().and_then(|store| store.disk_bytes().ok()).unwrap_or(0),
            flushes: self.flushes.load(Ordering::Relaxed),
            over_budget: self.over_budget.load(Ordering::Relaxed),
            rebuilds: self.rebuilds.load(Ordering::Relaxed),
            rebuilding: self.is_rebuilding(),
            lost: self.lost.load().count(),
        }
    }

    /// What is not in memory is being rebuilt.
    pub fn is_rebuilding(&self) -> bool {
        self.rebuilding.load(Ordering::Acquire)
    }

    /// Whether there is work for the writer.
    fn is_due(&self) -> bool {
        let much = self.held() > self.high_water();
        (much || self.unflushed.load(Ordering::Relaxed) >= UNFLUSHED_MAX) && !self.stuck.load(Ordering::Relaxed)
    }

    fn wake(&self) {
        if self.asleep.swap(false, Ordering::AcqRel) {
            // Full: it has been told already.
            self.woken.0.try_send(()).ok();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Work> {
        self.work.lock().expect("a thread that panics while it writes the index ends the process")
    }

    /// Gives up a store that is not what it should be.
    fn doubt(&self, store: &Arc<Store>, doubt: &Doubt) {
        let is_it = |current: &Option<Arc<Store>>| current.as_ref().is_some_and(|current| Arc::ptr_eq(current, store));
        // Another thread may have given it up, and the writer may have put a new one in its place.
        if !is_it(&self.store.load()) {
            return;
        }
        self.rebuilding.store(true, Ordering::Release);
        if is_it(&self.store.compare_and_swap(store, None)) {
            if doubt.is_of_disk() {
                self.suspended.store(true, Ordering::Relaxed);
                tracing::error!(%doubt, "the disk takes nothing from the index; it is opened again, and older messages wait");
            } else {
                store.abandon();
                tracing::error!(%doubt, "the index on disk is damaged; it is built anew from the journal");
            }
            self.wake();
        }
    }
}

impl Default for Index {
    fn default() -> Self {
        Self::new()
    }
}
