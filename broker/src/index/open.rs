//! The start: what lies on disk is believed or set aside, and the journal's replay brings it up to date.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use carillon_core::Shard;
use carillon_core::record::Record;
use carillon_protocol::deliver::AUTHOR_BROKER;
use carillon_protocol::ids::{ConversationId, Position, Seq, UserId};

use super::doubt::Doubt;
use super::keep::Work;
use super::limits::DOUBTFUL_KEPT;
use super::store::Store;
use super::table::Table;
use super::tail::{End, Entry};
use super::{Index, ReadMark};
use crate::journal::Lost;
use crate::store::{Begin, Follow, Unwritable, Verdict};

impl Follow for &Index {
    fn known(&self) -> Option<Position> {
        let directory = self.options.directory.as_ref().filter(|directory| directory.is_dir())?;
        // One that cannot be read knows nothing; what is wrong with it is told when it is to be believed.
        let (_, mark) = Store::open(directory).ok()?;
        mark.map(|mark| mark.flushed_through).filter(|through| *through > Position(0))
    }

    fn begin(&mut self, journal: Begin) -> Position {
        let mut work = self.lock();
        (work.incarnation, work.is_replaying) = (journal.incarnation, true);
        if let Some(directory) = &self.options.directory
            && let Err(doubt) = self.believe(&mut work, directory, journal)
        {
            if doubt.is_of_disk() {
                // What lies there is as good as before: it is not set aside for want of room or rights.
                work.unwritable = Some(doubt.into());
                return Position(journal.first.0 - 1);
            }
            tracing::warn!(%doubt, "the index on disk is not believed; it is set aside and built anew from the journal");
            self.begin_anew(&mut work, directory);
        }
        let truncated = Position(journal.first.0 - 1);
        let before = self.truncated_through.fetch_max(truncated.0, Ordering::AcqRel);
        if before < truncated.0 {
            work.floors_behind.get_or_insert(Position(before));
        }
        self.reach(work.flushed_through);
        self.show_lost(&work);
        work.flushed_through
    }

    fn follow(&mut self, position: Position, record: &Record) {
        let mut work = self.lock();
        if work.contradiction.is_some() || work.unwritable.is_some() || self.has_reached(position) {
            return;
        }
        if let Record::ReadMarked(mark) = record {
            self.marks.append(&ReadMark::of(position, mark));
            self.unflushed.fetch_add(1, Ordering::Relaxed);
        }
        if let Record::Message(message) = record {
            let deliver = &message.deliver;
            let place = (deliver.conversation, deliver.seq, position, deliver.author);
            if let Err(doubt) = append(&self.table, (self.truncated_through(), &work.lost), place) {
                work.contradiction = Some(doubt);
                return;
            }
            self.unflushed.fetch_add(1, Ordering::Relaxed);
        }
        self.reach(position);
        // Nobody is served yet, so the replay may wait for the disk; but it need not bring there what the writer can later.
        if self.held() > self.high_water()
            && let Err(doubt) = self.tidy(&mut work)
        {
            work.unwritable = (work.is_fresh || doubt.is_of_disk()).then(|| doubt.into());
        }
    }

    fn lose(&mut self, position: Position) {
        let mut work = self.lock();
        if !self.has_reached(position) {
            work.lost.push(position);
            self.reach(position);
        }
    }

    fn lost(&self) -> Lost {
        self.lock().lost.clone()
    }

    fn end(&mut self, shard: &Shard) -> Result<Verdict, Unwritable> {
        let mut work = self.lock();
        if let Some(error) = work.unwritable.take() {
            let path = self.options.directory.clone().unwrap_or_default();
            return Err(Unwritable { path, source: error.into() });
        }
        let judged = match work.contradiction.take() {
            Some(doubt) => Err(doubt),
            None => self.compare(shard, &work.lost),
        };
        if let Err(doubt) = judged {
            tracing::warn!(%doubt, "the index does not fit the journal");
            return Ok(Verdict::Again);
        }
        let through = self.truncated_through();
        // In memory alone: a start does not rest on what the disk takes.
        let is_behind = work.floors_behind.is_some();
        if self.is_rebuilding() || is_behind && self.raise_floors(&mut work, through, false).is_err() {
            return Ok(Verdict::Again);
        }
        work.is_replaying = false;
        self.show_lost(&work);
        Ok(Verdict::InStep)
    }

    fn reset(&mut self, journal: Begin) {
        let mut work = self.lock();
        *work = Work { incarnation: journal.incarnation, is_replaying: true, ..Work::default() };
        self.truncated_through.store(journal.first.0 - 1, Ordering::Release);
        self.reached.store(0, Ordering::Release);
        self.table.clear();
        self.marks.begin(Position(0));
        if let Some(directory) = &self.options.directory {
            self.begin_anew(&mut work, directory);
        }
    }
}

/// Adds the next message to a table. One that is there already is skipped; the first of a conversation may have a later
/// seq than 1 when retention has taken the earlier ones.
///
/// Seqs before it that are missing lie at lost positions: which, if there are more of these, nobody can tell. They get the last ones, each its own
/// or a later one, so that whoever has not come as far as such a message has not come as far as its place. Other conversations may get the
/// same ones. Where retention took the beginning, how many of the missing are lost cannot be told either: one place stands for all of them.
pub(super) fn append(
    table: &Table,
    known: (Position, &Lost),
    (conversation, seq, position, author): (ConversationId, Seq, Position, UserId),
) -> Result<(), Doubt> {
    table.update(conversation, |entry| {
        if entry.last.0.next() < seq {
            make_up(entry, known, (seq, position));
        }
        let (last_seq, last) = entry.last;
        let out_of_step = |_| Doubt::OutOfStep { conversation, seq, position, last_seq, last };
        entry.append_new(seq, position, author).map_err(out_of_step)
    })
}

/// Adds what is missing before a message, if it may be missing.
fn make_up(entry: &mut Entry, (truncated, lost): (Position, &Lost), (seq, position): End) {
    let (last_seq, last) = entry.last;
    let missing = seq.0 - last_seq.0 - 1;
    let is_cut = last_seq == Seq(0) && truncated > Position(0);
    let (after, count_max) = if is_cut { (truncated, 1) } else { (last, missing) };
    let places = if lost.is_empty() { Vec::new() } else { lost.last_between(after, position, count_max) };
    if is_cut && missing > places.len() as u64 {
        let gone = (Seq(seq.0 - 1 - places.len() as u64), truncated);
        *entry = Entry::on_disk(gone, gone);
    }
    for place in places {
        entry.append(entry.last.0.next(), place, AUTHOR_BROKER).expect("they ascend, from beyond the last");
    }
}

/// Moves a directory out of the way, keeping a few of those that were moved before.
pub(super) fn set_aside(directory: &Path) -> io::Result<Option<PathBuf>> {
    if !directory.try_exists()? {
        return Ok(None);
    }
    let name = directory.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let prefix = format!("{name}.doubtful-");
    let parent = directory.parent().unwrap_or(Path::new(""));
    let mut numbers: Vec<u64> = Vec::new();
    for entry in fs::read_dir(if parent.as_os_str().is_empty() { Path::new(".") } else { parent })? {
        let known = entry?.file_name().to_string_lossy().strip_prefix(&prefix).map(str::parse::<u64>);
        numbers.extend(known.and_then(Result::ok));
    }
    numbers.sort_unstable();
    let aside = |number: u64| parent.join(format!("{prefix}{number}"));
    for number in &numbers[..numbers.len().saturating_sub(DOUBTFUL_KEPT - 1)] {
        fs::remove_dir_all(aside(*number))?;
    }
    let next = numbers.last().map_or(Some(1), |last| last.checked_add(1));
    let to = aside(next.ok_or_else(|| io::Error::other("the last number is taken"))?);
    fs::rename(directory, &to)?;
    Ok(Some(to))
}

impl Index {
    /// Opens what is on disk, if it is what it should be.
    fn believe(&self, work: &mut Work, directory: &Path, journal: Begin) -> Result<(), Doubt> {
        let (store, mark) = Store::open(directory)?;
        work.is_fresh = mark.is_none();
        if let Some(mark) = mark {
            if mark.shard != self.options.shard || mark.incarnation != journal.incarnation {
                return Err(Doubt::Foreign { shard: mark.shard, incarnation: mark.incarnation });
            }
            if mark.flushed_through.next() < journal.first {
                return Err(Doubt::Behind { through: mark.flushed_through, first: journal.first });
            }
            let (last, floor) = self.load_rows(&store)?;
            // A truncation that did not end has brought some floors to disk and others not.
            work.floors_behind = (floor > mark.truncated_through).then_some(mark.truncated_through);
            self.truncated_through.fetch_max(mark.truncated_through.max(floor).0, Ordering::AcqRel);
            work.flushed_through = mark.flushed_through;
            work.lost.clone_from(&mark.lost);
            work.marked_lost = mark.lost;
            // A flush that did not end has brought some messages from beyond its mark to disk.
            work.kept_after = mark.flushed_through.max(last);
            self.marks.begin(mark.flushed_through);
        }
        self.store.store(Some(Arc::new(store)));
        Ok(())
    }

    /// Sets aside what is on disk and begins with an empty store. If that cannot be, the end of the replay says so.
    fn begin_anew(&self, work: &mut Work, directory: &Path) {
        self.table.clear();
        self.marks.begin(Position(0));
        (work.flushed_through, work.kept_after) = (Position(0), Position(0));
        (work.lost, work.marked_lost) = (Lost::default(), Lost::default());
        self.rebuilding.store(false, Ordering::Release);
        self.store.store(None);
        work.is_fresh = true;
        match self.fresh_store(work, directory) {
            Ok(store) => {
                work.is_half_built = false;
                self.store.store(Some(Arc::new(store)));
            }
            Err(error) => work.unwritable = Some(error),
        }
    }

    /// Whether the index ends where the shard does. What the shard knows of conversations that have no message left in the
    /// journal, or whose last ones are lost, is taken from it.
    fn compare(&self, shard: &Shard, lost: &Lost) -> Result<(), Doubt> {
        let truncated = self.truncated_through();
        let mut in_shard = 0u64;
        for (conversation, seq, position) in shard.last_messages() {
            in_shard += 1;
            let (last_seq, last) = self.table.read(conversation, |entry| entry.last);
            if last_seq == Seq(0) && position <= truncated {
                let end = (seq, position);
                self.table.update(conversation, |entry| *entry = Entry::on_disk(end, end));
            } else if last < position && lost.contains(position) {
                append(&self.table, (truncated, lost), (conversation, seq, position, AUTHOR_BROKER))?;
            } else if (last_seq, last) != (seq, position) {
                return Err(Doubt::OutOfStep { conversation, seq, position, last_seq, last });
            }
        }
        let mut in_index = 0u64;
        for chunk in self.table.chunks() {
            chunk.for_each(|_, entry| in_index += u64::from(entry.last.0 > Seq(0)));
        }
        if in_index == in_shard { Ok(()) } else { Err(Doubt::Count { index: in_index, shard: in_shard }) }
    }
}
