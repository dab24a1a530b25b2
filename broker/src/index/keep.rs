//! What keeps memory small and the disk true: flush, eviction, truncation. On the writer's thread, the start's, or that
//! of whoever deletes segments; never on the sequencer's or an edge's.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use carillon_protocol::ids::{ConversationId, Incarnation, Position, Seq};

use super::doubt::{Doubt, RebuildError};
use super::limits::{BLOCKS_A_HOLD, MARKS_SWEPT_A_STEP, MESSAGES_SHARE};
use super::store::{Mark, Row, Store};
use super::table::Table;
use super::tail::{End, Entry, Unflushed};
use super::view::View;
use super::{Index, LookupError};
use crate::journal::Lost;

/// What only those who hold the lock know.
#[derive(Debug, Default)]
pub(super) struct Work {
    /// Which history the index follows.
    pub(super) incarnation: Incarnation,
    /// Every message and mark up to here is on disk.
    pub(super) flushed_through: Position,
    /// Every message beyond this is in memory.
    pub(super) kept_after: Position,
    /// The floors on disk are those of a truncation up to here, if that is not the last one: retention went on when the index was not
    /// there, or when the disk took nothing.
    pub(super) floors_behind: Option<Position>,
    /// Positions that could not be read when the index was built.
    pub(super) lost: Lost,
    /// Those that the mark on disk has.
    pub(super) marked_lost: Lost,
    /// Floors that have risen since: from where to where.
    pub(super) floors_owed: BTreeMap<ConversationId, (Seq, End)>,
    /// What lies on disk is a rebuild that has not ended.
    pub(super) is_half_built: bool,
    /// The floors are raised at its end.
    pub(super) is_replaying: bool,
    /// What the replay found, told at its end.
    pub(super) contradiction: Option<Doubt>,
    /// The store was empty when this start began: what fails in it is the disk, and no damage.
    pub(super) is_fresh: bool,
    /// What is to be written cannot be, told at the end of the replay.
    pub(super) unwritable: Option<RebuildError>,
    /// The marks that retention took up to here are gone from the store.
    pub(super) swept_through: Position,
    /// The pass over the marks that is under way.
    pub(super) sweep: Option<Sweep>,
    /// Whether it was said that memory is over its budget.
    pub(super) over: bool,
}

impl Work {
    /// The floors on disk are those in memory.
    pub(super) fn floors_are_written(&mut self) {
        self.floors_behind = None;
        self.floors_owed.clear();
    }
}

/// A pass over the marks in the store that removes what retention took.
#[derive(Debug)]
pub(super) struct Sweep {
    /// Up to this position.
    through: Position,
    /// It goes on behind this key.
    after: Vec<u8>,
}

/// Writes what is in a table and not on disk up to a position, and perhaps some of what is beyond.
pub(super) fn write_out(table: &Table, store: &Store, through: Position) -> Result<(), Doubt> {
    for chunk in table.chunks() {
        let mut next = Some(0);
        while let Some(place) = next {
            let mut room = BLOCKS_A_HOLD;
            let mut dirty: Vec<(ConversationId, Unflushed)> = Vec::new();
            // A conversation that is appended to meanwhile is not waited for: the bound is the position.
            next = chunk.look_from(place, |conversation, entry| {
                if let Some(unflushed) = entry.unflushed(through, room) {
                    room -= unflushed.blocks.len();
                    dirty.push((conversation, unflushed));
                }
                room > 0
            });
            for (conversation, Unflushed { blocks, last, floor }) in &dirty {
                store.put_blocks(*conversation, *floor, blocks)?;
                store.put_row(*conversation, &Row { last: *last, floor: *floor })?;
                table.update(*conversation, |entry| entry.set_flushed(last.0));
            }
        }
    }
    Ok(())
}

impl Index {
    /// Bytes of memory that messages and marks have.
    pub(super) fn held(&self) -> usize {
        self.table.messages_bytes() + self.marks.bytes()
    }

    /// Bytes of memory that messages and marks may have: what the conversations leave of the budget, and always a share of it.
    pub(super) fn room(&self) -> usize {
        let budget = usize::try_from(self.options.memory_bytes_max).unwrap_or(usize::MAX);
        budget.saturating_sub(self.table.entries_bytes()).max(budget / MESSAGES_SHARE)
    }

    /// Above this many bytes for messages and marks it is time to flush and to evict.
    pub(super) fn high_water(&self) -> usize {
        self.room() / 8 * 7
    }

    /// Flushes, if there is a store, and evicts if memory is about to be short.
    ///
    /// # Errors
    /// Why the store was given up, which was logged.
    pub(super) fn tidy(&self, work: &mut Work) -> Result<(), Doubt> {
        let Some(store) = self.store.load_full() else {
            self.stuck.store(true, Ordering::Relaxed);
            self.note_budget(work);
            return Ok(());
        };
        let flushed = self.flush(work, &store);
        let flushed = flushed.and_then(|()| self.write_floors(work, &store)).and_then(|()| self.sweep(work, &store));
        match &flushed {
            Ok(()) => self.evict(work),
            Err(doubt) => self.doubt(&store, doubt),
        }
        self.note_budget(work);
        flushed
    }

    /// Brings the disk up to what is in memory.
    pub(super) fn flush(&self, work: &mut Work, store: &Store) -> Result<(), Doubt> {
        // Before anything is looked at: what comes meanwhile is flushed the next time.
        let through = Position(self.reached.load(Ordering::Acquire));
        self.unflushed.store(0, Ordering::Relaxed);
        if through == work.flushed_through {
            return Ok(());
        }
        self.mark_lost(work, store)?;
        write_out(&self.table, store, through)?;
        self.marks.write_out(store, work.flushed_through, through)?;
        self.commit(work, store, through)?;
        work.flushed_through = through;
        self.flushes.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Brings to disk what is lost, before any place at it: of a flush that does not end, the places stay.
    pub(super) fn mark_lost(&self, work: &mut Work, store: &Store) -> Result<(), Doubt> {
        if work.lost == work.marked_lost { Ok(()) } else { self.commit(work, store, work.flushed_through) }
    }

    /// Writes out everything, and then the mark.
    pub(super) fn commit(&self, work: &mut Work, store: &Store, flushed_through: Position) -> Result<(), Doubt> {
        store.commit(&self.mark(work, flushed_through))?;
        work.marked_lost.clone_from(&work.lost);
        Ok(())
    }

    /// Goes on removing the marks that retention took, a bounded step a time: nothing asks for them, so there is no hurry.
    fn sweep(&self, work: &mut Work, store: &Store) -> Result<(), Doubt> {
        let truncated = self.truncated_through();
        if work.swept_through >= truncated {
            return Ok(());
        }
        let sweep = work.sweep.take().unwrap_or(Sweep { through: truncated, after: Vec::new() });
        match store.sweep_marks(&sweep.after, sweep.through, MARKS_SWEPT_A_STEP)? {
            Some(after) => work.sweep = Some(Sweep { after, ..sweep }),
            None => work.swept_through = sweep.through,
        }
        Ok(())
    }

    /// Lets readers know what is lost.
    pub(super) fn show_lost(&self, work: &Work) {
        self.lost.store(Arc::new(work.lost.clone()));
    }

    pub(super) fn mark(&self, work: &Work, flushed_through: Position) -> Mark {
        let truncated_through = work.floors_behind.unwrap_or_else(|| self.truncated_through());
        let (shard, incarnation, lost) = (self.options.shard, work.incarnation, work.lost.clone());
        Mark { shard, incarnation, flushed_through, truncated_through, lost }
    }

    /// Forgets the oldest messages and marks, when memory is about to be full, until it is three quarters full.
    fn evict(&self, work: &mut Work) {
        self.stuck.store(false, Ordering::Relaxed);
        if self.held() > self.high_water() {
            self.evict_to(work, self.room() / 4 * 3);
        }
    }

    /// Forgets the oldest messages and marks that are on disk until the rest takes so many bytes.
    pub(super) fn evict_to(&self, work: &mut Work, bytes_max: usize) {
        while self.held() > bytes_max && work.kept_after < work.flushed_through {
            // An eighth of the positions is about an eighth of the messages.
            let step = (work.flushed_through.0 - work.kept_after.0).div_ceil(8);
            work.kept_after.0 += step;
            for chunk in self.table.chunks() {
                chunk.for_each_mut(|_, entry| entry.drop_through(work.kept_after));
            }
            self.marks.drop_through(work.kept_after);
        }
    }

    /// Says once when memory goes over its budget, and once when it is back.
    pub(super) fn note_budget(&self, work: &mut Work) {
        let (bytes, room) = (self.held(), self.room());
        let over = bytes > room;
        if over && !work.over {
            self.over_budget.fetch_add(1, Ordering::Relaxed);
            let rebuilding = self.is_rebuilding();
            tracing::warn!(
                bytes,
                room,
                rebuilding,
                "the index holds more in memory than it may; the disk does not keep up"
            );
        } else if work.over && !over {
            tracing::info!(bytes, room, "the index is within its memory again");
        }
        work.over = over;
    }

    /// See [`Index::truncate`]; in memory alone what is to be written is owed.
    pub(super) fn raise_floors(&self, work: &mut Work, through: Position, may_write: bool) -> Result<(), LookupError> {
        let store = self.store.load_full();
        let before = self.truncated_through();
        if let Some(store) = store.as_ref().filter(|_| may_write) {
            // So that the floors written below are of rows that are there, and the mark is beyond what is deleted.
            self.flush(work, store).map_err(|doubt| self.rebuilding_for(store, &doubt))?;
        }
        // Found before anything is changed: what is damaged is met here, and then nothing has happened.
        let mut raised = Vec::new();
        for chunk in self.table.chunks() {
            let mut affected = Vec::new();
            chunk.for_each(|conversation, entry| {
                if entry.floor.1 < through && entry.floor.0 < entry.last.0 {
                    affected.push(conversation);
                }
            });
            for conversation in affected {
                let floor = View { index: self, whole: true }.at_or_before(conversation, through)?;
                let old = self.table.read(conversation, |entry| entry.floor);
                if floor.0 > old.0 {
                    raised.push((conversation, old.0, floor));
                }
            }
        }
        // All at once for whoever reads: an odd version says that some floors have risen and others not.
        self.floors_version.fetch_add(1, Ordering::AcqRel);
        for (conversation, _, floor) in &raised {
            self.table.update(*conversation, |entry| entry.raise_floor(*floor));
        }
        self.truncated_through.fetch_max(through.0, Ordering::AcqRel);
        self.floors_version.fetch_add(1, Ordering::AcqRel);
        self.marks.drop_through(through);
        if !work.lost.is_empty() {
            work.lost.forget_through(through);
            self.show_lost(work);
        }
        let Some(store) = store else { return Ok(()) };
        work.floors_behind.get_or_insert(before);
        for (conversation, old, floor) in raised {
            work.floors_owed.entry(conversation).or_insert((old, floor)).1 = floor;
        }
        if !may_write {
            return Ok(());
        }
        self.write_floors(work, &store).map_err(|doubt| self.rebuilding_for(&store, &doubt))
    }

    /// Brings to disk the floors that have risen, of what was flushed. Rows first, and only when they are written the blocks go: a
    /// lost block is a doubt, a block too many is none.
    fn write_floors(&self, work: &mut Work, store: &Store) -> Result<(), Doubt> {
        if work.floors_behind.is_none() || work.is_replaying {
            return Ok(());
        }
        for (conversation, (_, floor)) in &work.floors_owed {
            let row = store.row(*conversation)?.ok_or(Doubt::Row(*conversation))?;
            store.put_row(*conversation, &Row { last: row.last, floor: *floor })?;
        }
        store.commit(&Mark { truncated_through: self.truncated_through(), ..self.mark(work, work.flushed_through) })?;
        for (conversation, (old, floor)) in &work.floors_owed {
            store.remove_blocks(*conversation, *old, floor.0)?;
        }
        work.floors_are_written();
        Ok(())
    }

    pub(super) fn rebuilding_for(&self, store: &Arc<Store>, doubt: &Doubt) -> LookupError {
        self.doubt(store, doubt);
        LookupError::Rebuilding
    }

    /// Every conversation of a store, as it lies there; returns the last message's position, and that of the highest floor.
    pub(super) fn load_rows(&self, store: &Store) -> Result<(Position, Position), Doubt> {
        let (mut last, mut floor) = (Position(0), Position(0));
        store.rows(|conversation, row| {
            (last, floor) = (last.max(row.last.1), floor.max(row.floor.1));
            self.table.update(conversation, |entry| *entry = Entry::on_disk(row.last, row.floor));
        })?;
        Ok((last, floor))
    }
}
