//! Bits that rot: a copy of the directory has one flipped, and is opened. It is refused and the place is named, or nothing of what
//! is served has changed; the last batch alone may pass for a torn tail, and is then reported as cut.

use std::sync::Arc;

use carillon::index::Index;
use carillon::journal::{MemoryStorage, ReadError};
use carillon::store::{self, Begin, Follow, Store, StoreError, Unwritable, Verdict};
use carillon_core::Shard;
use carillon_core::record::Record;
use carillon_protocol::ids::Position;

use super::life::store_options;
use super::recovered::{batches, judge_batch};
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
        let opened = match whole {
            true => store::open(Arc::new(copy.clone()), &options, &mut &Index::new()),
            false => store::open(Arc::new(copy.clone()), &options, &mut Knows(self.ledger.head)),
        };
        let judged = match opened {
            Ok(store) => self.judge_opened(&copy, name, &store, whole),
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

    fn judge_opened(&mut self, copy: &MemoryStorage, name: &str, store: &Store, whole: bool) -> Outcome {
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
        if whole {
            return batches(reader, Position(first.0 - 1))?.iter().try_for_each(|batch| judge_batch(batch, ledger));
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
}
