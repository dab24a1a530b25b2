//! What a start finds, judged against what was committed and against what can be told from it: all that anybody was shown is there,
//! where it was and as it was; the one batch in doubt is there whole, or not at all; the state is that of a replay from position 1.

use std::ops::ControlFlow;

use carillon::journal::{Batch, Reader};
use carillon::snapshot;
use carillon::store::Store;
use carillon_core::Shard;
use carillon_core::effect::Effects;
use carillon_core::record::Record;
use carillon_protocol::ids::Position;

use super::ledger::Ledger;
use super::life::Doubt;
use super::world::{Outcome, SHARD, World};

/// The state as it follows from all records, the first one included.
pub(super) struct Replica {
    shard: Shard,
    effects: Effects,
}

impl Replica {
    pub(super) fn new() -> Self {
        Self { shard: Shard::new(SHARD), effects: Effects::default() }
    }

    /// Applies what was committed since.
    pub(super) fn follow(&mut self, ledger: &Ledger) -> Outcome {
        while self.shard.head() < ledger.head {
            let next = self.shard.head().next();
            let entry = ledger.entry(next).ok_or("the ledger has every record")?;
            let record = Record::decode(entry.private.clone(), entry.frame.clone());
            let record = record.map_err(|error| format!("record {next}: {error}"))?;
            let applied = self.shard.apply(&record, &mut self.effects);
            applied.map_err(|error| format!("record {next} does not fit the state: {error}"))?;
            self.effects.signals.clear();
        }
        Ok(())
    }

    /// Whether a state that came about in another way is this one.
    pub(super) fn judge(&self, other: &Shard) -> Outcome {
        let due = (self.shard.next_timer(), other.next_timer());
        if due.0 != due.1 {
            return Err(format!("its first timer is due at {:?}, by a replay at {:?}", due.1, due.0));
        }
        let (head, others) = (self.shard.head(), other.head());
        if snapshot::encode(&self.shard) != snapshot::encode(other) {
            return Err(format!("the state at {others} is not that of a replay to {head}"));
        }
        Ok(())
    }
}

/// Every batch of a journal that ends after this position.
pub(super) fn batches(reader: &Reader, after: Position) -> Result<Vec<Batch>, String> {
    let mut batches = Vec::new();
    let flow = reader.replay(after, reader.head(), |batch| {
        batches.push(batch.clone());
        ControlFlow::<()>::Continue(())
    });
    match flow {
        Ok(_) => Ok(batches),
        Err(error) => Err(format!("the journal cannot be read: {error}")),
    }
}

/// Whether the records of a batch are those that were committed there; a batch that begins after the head is another matter.
pub(super) fn judge_batch(batch: &Batch, ledger: &Ledger) -> Outcome {
    for entry in batch.entries() {
        match ledger.entry(entry.position) {
            Some(committed) if *committed == entry => {}
            Some(_) => return Err(format!("another record lies at {}", entry.position)),
            None => return Err(format!("a record lies at {}, the last one was {}", entry.position, ledger.head)),
        }
    }
    Ok(())
}

/// Judges what a start has found, and takes what was in doubt and is there for committed.
pub(super) fn judge_start(world: &mut World, store: &Store) -> Outcome {
    let reader = &store.opened.reader;
    let (first, head) = (reader.first(), reader.head());
    let (report, doubt) = (&store.opened.report, world.outside.doubt.take());
    world.note(|| format!("a start finds {first} to {head}, {doubt:?} in doubt, {report:?}"));
    if head < world.ledger.head {
        return Err(format!("{head} is the last position, {} was committed", world.ledger.head));
    }
    if first.0 > world.ledger.floor.0 + 1 {
        return Err(format!("the journal begins at {first}, retention took all up to {}", world.ledger.floor));
    }
    let mut found = None;
    for batch in batches(reader, Position(first.0 - 1))? {
        if batch.first() <= world.ledger.head {
            judge_batch(&batch, &world.ledger)?;
            continue;
        }
        let is = Doubt { first: batch.first(), last: batch.last(), bytes: batch.bytes() };
        if found.replace(is).is_some() || doubt != Some(is) {
            return Err(format!("{is:?} was found, {doubt:?} was in doubt"));
        }
        world.ledger.take(&batch)?;
    }
    world.covered.doubts_kept += u64::from(found.is_some());
    world.covered.doubts_gone += u64::from(found.is_none() && doubt.is_some());
    world.covered.tails_cut += u64::from(report.cut.is_some());
    world.covered.from_snapshot += u64::from(store.snapshot > Position(0));
    // Floors that had risen when the process died, before segments left, fall back.
    world.ledger.floor = Position(first.0 - 1);
    world.replica.follow(&world.ledger)?;
    let from = store.snapshot;
    world.replica.judge(&store.shard).map_err(|why| format!("started from the snapshot at {from}: {why}"))
}
