//! Bits that rot: a copy of the directory has one flipped, and is opened. It is refused and the place is named, if the state needs
//! what is damaged; or nothing of what is served has changed; the last batch alone may pass for a torn tail, and is then reported as cut. An index that
//! is built anew of what can be read has every message where it is, and those that cannot be read at positions that are refused.

use std::sync::Arc;

use carillon::index::{Index, Lookup, Place};
use carillon::journal::format::SEGMENT_HEADER_BYTES;
use carillon::journal::{MemoryStorage, ReadError, Reader, segment_file_position};
use carillon::snapshot;
use carillon::store::{self, Begin, Follow, Store, StoreError, Unwritable, Verdict};
use carillon_core::Shard;
use carillon_core::record::Record;
use carillon_protocol::ids::Position;

use super::life::store_options;
use super::world::{Outcome, World};

/// Records that are read one by one after a start that did not look at all of them.
const READS_MAX: usize = 40;

/// Zeroes after what a file has, in which a flip is tried as well.
const BEYOND_BYTES: usize = 600;

/// An index that has everything up to here, so that a start reads no more of the journal than the state needs.
struct Knows(Position);

impl Follow for Knows {
    fn begin(&mut self, _: Begin) -> Position {
        self.0
    }

    fn follow(&mut self, _: Position, _: &Record) {}

    fn lose(&mut self, _: Position) {}

    fn end(&mut self, _: &Shard) -> Result<Verdict, Unwritable> {
        Ok(Verdict::InStep)
    }

    fn reset(&mut self, _: Begin) {}
}

impl World {
    /// Flips a bit somewhere in a copy of what is durable, and opens it.
    pub(super) fn damage(&mut self) -> Outcome {
        let copy = self.outside.storage.durable_copy();
        let names: Vec<String> = copy.names().into_iter().filter(|name| !copy.contents(name).is_empty()).collect();
        if names.is_empty() {
            return Ok(());
        }
        let name = &names[self.rng.below(names.len())];
        let bytes = copy.contents(name);
        let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let offset = self.rng.below(bytes.len().min(used + BEYOND_BYTES));
        copy.flip(name, offset, 1 << self.rng.below(8));
        self.note(|| format!("a bit flips at byte {offset} of {name}, which has {used}"));
        self.covered.flips += 1;
        self.replica.follow(&self.ledger)?;
        let whole = self.rng.percent(50);
        let options = store_options(&self.shape, &self.outside.clock);
        let index = Index::new();
        let opened = match whole {
            true => store::open(Arc::new(copy.clone()), &options, &mut &index),
            false => store::open(Arc::new(copy.clone()), &options, &mut Knows(self.ledger.head)),
        };
        let judged = match opened {
            Ok(store) => self.judge_opened(&copy, name, &store, whole.then_some(&index)),
            Err(error) if offset >= SEGMENT_HEADER_BYTES && !is_needed(&copy, name) => {
                Err(format!("it is refused although the state needs nothing of it: {error}"))
            }
            Err(error) => self.judge_refusal(name, &error),
        };
        judged.map_err(|why| format!("after a flip at byte {offset} of {name}: {why}"))
    }

    fn judge_refusal(&mut self, name: &str, error: &StoreError) -> Outcome {
        self.covered.flips_refused += 1;
        // What a snapshot or a spare has, the journal has as well.
        let named = error.to_string().contains(name) && name.ends_with(".journal");
        if named { Ok(()) } else { Err(format!("it is refused: {error}")) }
    }

    fn judge_opened(&mut self, copy: &MemoryStorage, name: &str, store: &Store, index: Option<&Index>) -> Outcome {
        let (reader, ledger) = (&store.opened.reader, &self.ledger);
        let head = reader.head();
        let is_cut = store.opened.report.cut.as_ref().is_some_and(|cut| cut.segment == name);
        if head != ledger.head && !(is_cut && head.next() == ledger.newest_batch) {
            let report = &store.opened.report;
            return Err(format!("it ends at {head}, {} was committed: {report:?}", ledger.head));
        }
        self.covered.flips_cut += u64::from(head != ledger.head);
        self.covered.flips_in_snapshot += u64::from(copy.names().iter().any(|name| name.ends_with(".damaged")));
        if head == ledger.head {
            self.replica.judge(&store.shard)?;
        }
        let first = reader.first();
        if let Some(index) = index {
            self.covered.flips_gone_around += u64::from(!(&index).lost().is_empty());
            return self.judge_index(name, reader, index);
        }
        for _ in 0..READS_MAX {
            let count = usize::try_from(head.0 + 1 - first.0).expect("few");
            let position = Position(first.0 + self.rng.below(count) as u64);
            if position > head {
                break;
            }
            match reader.read(&[position], usize::MAX) {
                Ok(read) if read.first() == ledger.entry(position) => {}
                Ok(read) => return Err(format!("{read:?} was read at {position}")),
                Err(ReadError::Corrupt { segment, .. }) if segment == name => {
                    self.covered.flips_unread += 1;
                    break;
                }
                Err(error) => return Err(format!("{position} cannot be read: {error}")),
            }
        }
        Ok(())
    }

    /// Every record is what it was, or cannot be read; every message that can is where it was committed.
    fn judge_index(&self, name: &str, reader: &Reader, index: &Index) -> Outcome {
        let lost = (&index).lost();
        for position in (reader.first().0..=reader.head().0).map(Position) {
            match reader.read(&[position], usize::MAX) {
                Ok(read) if read.first() == self.ledger.entry(position) && !lost.contains(position) => {}
                Err(ReadError::LeftOut { .. }) if lost.contains(position) => {}
                read => return Err(format!("{position} of {name}, with {lost:?} lost: {read:?}")),
            }
            let Some(message) = self.ledger.message(position) else { continue };
            let (seq, author) = (message.deliver.seq, message.deliver.author);
            let truth = Place { seq, position, author };
            let mut places = Vec::new();
            let found = index.whole().places(message.deliver.conversation, truth.seq, 1, &mut places);
            let floor = index.floor(message.deliver.conversation).0;
            let fits = |place: &Place| match lost.contains(position) {
                // Retention took the beginning: the lowest that is left stands for all that are lost before it.
                true if seq <= floor => place.seq == floor.next() && lost.contains(place.position),
                true => place.seq == seq && place.position >= position && lost.contains(place.position),
                false => *place == truth,
            };
            if found.is_err() || !places.first().is_some_and(fits) {
                return Err(format!("{truth:?} is at {places:?}, with {lost:?} lost"));
            }
        }
        Ok(())
    }
}

/// Whether a start needs what is in a segment, from its newest snapshot on.
fn is_needed(copy: &MemoryStorage, name: &str) -> bool {
    let Some(first) = segment_file_position(name) else { return true };
    let newest = snapshot::list(copy).ok().and_then(|positions| positions.last().copied()).unwrap_or_default();
    let firsts = copy.names().into_iter().filter_map(|name| segment_file_position(&name));
    !firsts.filter(|other| *other > first).any(|other| other <= newest.next())
}
