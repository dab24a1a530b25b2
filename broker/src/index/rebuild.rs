//! Building the blocks anew from the journal while the broker serves.
//!
//! What is in memory stays and grows meanwhile. Only what lies before it is read again, into a table and a store of its
//! own, with the same code that writes blocks otherwise; then the new store takes the place of the old one.

use std::fs;
use std::io;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use carillon_core::record::Record;
use carillon_protocol::deliver::AUTHOR_BROKER;
use carillon_protocol::ids::{ConversationId, Position, Seq};

use super::doubt::{Doubt, RebuildError};
use super::keep::{Work, write_out};
use super::marks::Marks;
use super::open::{append, set_aside};
use super::store::{Row, Store};
use super::table::Table;
use super::tail::Entry;
use super::{Index, ReadMark};
use crate::journal::{self, Lost, Piece, Reader};

/// The part of the memory for messages that a rebuild may have beside them: an eighth.
const REBUILD_SHARE: usize = 8;

impl Index {
    /// An empty store where the doubtful one was, or one that a rebuild began and did not end: nobody wants to know of that.
    pub(super) fn fresh_store(&self, work: &mut Work, directory: &Path) -> Result<Store, RebuildError> {
        let failed = |source| RebuildError::Directory { path: directory.to_owned(), source };
        if work.is_half_built {
            match fs::remove_dir_all(directory) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
                Ok(()) | Err(_) => {}
            }
        } else if let Some(aside) = set_aside(directory).map_err(failed)? {
            tracing::warn!(directory = %aside.display(), "the doubtful index was set aside");
        }
        work.is_half_built = true;
        Ok(Store::open(directory)?.0)
    }

    /// Builds what is not in memory anew.
    ///
    /// # Errors
    /// [`RebuildError`]; it can be tried again.
    pub(super) fn rebuild(&self, work: &mut Work, reader: &Reader) -> Result<(), RebuildError> {
        let Some(directory) = &self.options.directory else { return Ok(()) };
        let store = self.fresh_store(work, directory)?;
        let (after, through) = (Position(reader.first().0 - 1), work.kept_after);
        tracing::info!(%through, "building the index anew from the journal");
        let (table, marks) = (Table::new(self.options.shard), Marks::new());
        let (index, known_lost, lost) = (self, work.lost.clone(), Lost::default());
        let mut build =
            Build { index, table: &table, marks: &marks, store: &store, after, through, known_lost, lost, told: 0 };
        self.seed(&table);
        let mut failed = Ok(());
        let flow = reader.salvage(after, through, |piece| match build.piece(&piece) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                failed = Err(error);
                ControlFlow::Break(())
            }
        });
        // Retention does not go on while the index is rebuilt, so the journal is all there.
        let _ = flow?;
        failed?;
        let lost = build.lost;
        if let Some((first, _)) = lost.runs().first() {
            let (places, records) = (lost.runs().len(), lost.count());
            tracing::error!(%first, places, records, "records are damaged and left out; `verify` names them, a backup has them");
            self.bridge(&table, &lost)?;
            work.lost = work.lost.union(&lost);
            reader.leave_out(&work.lost);
            self.show_lost(work);
        }
        write_out(&table, &store, through)?;
        marks.write_out(&store, Position(0), through)?;
        self.take_over(&table, &store)?;
        work.floors_are_written();
        self.commit(work, &store, through)?;
        work.is_half_built = false;
        work.flushed_through = through;
        (work.swept_through, work.sweep) = (after, None);
        self.store.store(Some(Arc::new(store)));
        self.rebuilding.store(false, Ordering::Release);
        self.rebuilds.fetch_add(1, Ordering::Relaxed);
        tracing::info!(%through, "the index is built anew");
        Ok(())
    }

    /// Opens the files again that were given up because the disk took nothing more, and joins memory to what lies there. What was
    /// being written then is written again by the next flush.
    ///
    /// # Errors
    /// [`RebuildError`]; it can be tried again. Unless it is of the disk again, the next try is a [`rebuild`](Self::rebuild).
    pub(super) fn reopen(&self, work: &mut Work) -> Result<(), RebuildError> {
        let Some(directory) = &self.options.directory else { return Ok(()) };
        let joined = Store::open(directory).and_then(|(store, mark)| {
            let mark = mark.ok_or(Doubt::Unmarked)?;
            if mark.shard != self.options.shard || mark.incarnation != work.incarnation {
                return Err(Doubt::Foreign { shard: mark.shard, incarnation: mark.incarnation });
            }
            if mark.flushed_through < work.kept_after {
                return Err(Doubt::Behind { through: mark.flushed_through, first: work.kept_after.next() });
            }
            self.join(&store)?;
            Ok((store, mark.flushed_through))
        });
        let (store, through) = joined.inspect_err(|doubt| {
            self.suspended.store(doubt.is_of_disk(), Ordering::Relaxed);
        })?;
        work.flushed_through = through;
        self.store.store(Some(Arc::new(store)));
        self.suspended.store(false, Ordering::Relaxed);
        self.rebuilding.store(false, Ordering::Release);
        tracing::info!(%through, "the index is open again");
        Ok(())
    }

    /// Where each conversation goes on in the files, as they are.
    fn join(&self, store: &Store) -> Result<(), Doubt> {
        for chunk in self.table.chunks() {
            let mut conversations = Vec::new();
            chunk.for_each(|conversation, entry| {
                if entry.last.0 > Seq(0) {
                    conversations.push(conversation);
                }
            });
            for conversation in conversations {
                let row = store.row(conversation)?;
                let floor = self.table.update(conversation, |entry| {
                    let known = row.map_or(entry.floor, |row| row.last).max(entry.floor);
                    if entry.has_more_on_disk() && known.0.next() < entry.first_kept() {
                        let ((last_seq, last), (seq, position)) = (known, entry.last);
                        return Err(Doubt::OutOfStep { conversation, seq, position, last_seq, last });
                    }
                    entry.reset_flushed(known.0);
                    Ok(entry.floor)
                })?;
                if let Some(row) = row.filter(|row| row.floor.0 < floor.0) {
                    store.put_row(conversation, &Row { last: row.last.max(floor), floor })?;
                }
            }
        }
        Ok(())
    }

    /// Memory knows the floors: what is built begins there.
    fn seed(&self, built: &Table) {
        for chunk in self.table.chunks() {
            chunk.for_each(|conversation, entry| {
                if entry.floor.0 > Seq(0) {
                    built.update(conversation, |built| *built = Entry::on_disk(entry.floor, entry.floor));
                }
            });
        }
    }

    /// Adds the messages before those in memory, where the last of them are lost: memory knows where they ended.
    fn bridge(&self, built: &Table, lost: &Lost) -> Result<(), Doubt> {
        for chunk in self.table.chunks() {
            let mut judged = Ok(());
            chunk.for_each(|conversation, entry| {
                let (seq, position) = (Seq(entry.first_kept().0 - 1), entry.kept_after());
                if entry.has_more_on_disk() && lost.contains(position) && judged.is_ok() {
                    judged = append(built, (Position(0), lost), (conversation, seq, position, AUTHOR_BROKER));
                }
            });
            judged?;
        }
        Ok(())
    }

    /// Joins what is in memory to what was built: where each conversation goes on, and the floors, which memory knows best.
    fn take_over(&self, built: &Table, store: &Store) -> Result<(), Doubt> {
        for chunk in self.table.chunks() {
            let mut rows: Vec<(ConversationId, Row)> = Vec::new();
            let mut judged = Ok(());
            chunk.for_each_mut(|conversation, entry| {
                let known = built.read(conversation, |entry| entry.last);
                let missing = entry.has_more_on_disk() && known.0.next() < entry.first_kept();
                if missing && judged.is_ok() {
                    let ((last_seq, last), (seq, position)) = (known, entry.last);
                    judged = Err(Doubt::OutOfStep { conversation, seq, position, last_seq, last });
                }
                let last = if known.0 > entry.floor.0 { known } else { entry.floor };
                entry.reset_flushed(last.0);
                if last.0 > Seq(0) {
                    rows.push((conversation, Row { last, floor: entry.floor }));
                }
            });
            judged?;
            rows.iter().try_for_each(|(conversation, row)| store.put_row(*conversation, row))?;
        }
        Ok(())
    }
}

/// A rebuild under way.
struct Build<'a> {
    index: &'a Index,
    table: &'a Table,
    marks: &'a Marks,
    store: &'a Store,
    after: Position,
    through: Position,
    /// What could not be read when what is in memory was built: to that it stays lost, whatever is read now.
    known_lost: Lost,
    /// What could not be read, or was lost before.
    lost: Lost,
    /// Tenths that were told.
    told: u64,
}

impl Build<'_> {
    fn piece(&mut self, piece: &Piece<'_>) -> Result<(), RebuildError> {
        if self.index.stopping.load(Ordering::Relaxed) {
            return Err(RebuildError::Interrupted);
        }
        let last = match piece {
            Piece::Batch(batch) => {
                let through = self.through;
                let mut entries = batch.entries().take_while(|entry| entry.position <= through);
                entries.try_for_each(|entry| self.entry(entry))?;
                batch.last()
            }
            Piece::Record(entry) => {
                self.entry((*entry).clone())?;
                entry.position
            }
            Piece::Lost(position) => {
                self.lost.push(*position);
                *position
            }
        };
        if self.table.messages_bytes() + self.marks.bytes() > self.index.room() / REBUILD_SHARE {
            write_out(self.table, self.store, self.through)?;
            self.marks.write_out(self.store, Position(0), self.through)?;
            self.marks.begin(Position(0));
            for chunk in self.table.chunks() {
                chunk.for_each_mut(|_, entry| entry.drop_through(self.through));
            }
        }
        let tenths = (last.0 - self.after.0) * 10 / (self.through.0 - self.after.0).max(1);
        if tenths > self.told {
            self.told = tenths;
            tracing::info!(position = %last, percent = tenths * 10, "building the index anew");
        }
        Ok(())
    }

    fn entry(&mut self, entry: journal::Entry) -> Result<(), RebuildError> {
        let position = entry.position;
        if self.known_lost.contains(position) {
            self.lost.push(position);
            return Ok(());
        }
        let record = Record::decode(entry.private, entry.frame);
        match record.map_err(|source| RebuildError::Record { position, source })? {
            Record::Message(message) => {
                let deliver = &message.deliver;
                let place = (deliver.conversation, deliver.seq, position, deliver.author);
                append(self.table, (Position(0), &self.lost), place)?;
            }
            Record::ReadMarked(mark) => self.marks.append(&ReadMark::of(position, &mark)),
            _ => {}
        }
        Ok(())
    }
}
