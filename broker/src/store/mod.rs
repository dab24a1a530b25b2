//! Opening a data directory: from files to a shard that stands at the journal's head.
//!
//! Owns the order of things at a start. The journal is the only truth; whatever else can be had from it (the shard's state,
//! the index) says up to which position it has it, one replay brings all of them to the head, and each skips what
//! it has. Nothing is deleted here because it looked bad.

#[cfg(test)]
mod tests;

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use carillon_core::Shard;
use carillon_core::effect::Effects;
use carillon_core::record::Record;
use carillon_protocol::ids::{Incarnation, Position};
use thiserror::Error;

use crate::clock::Clock;
use crate::index::Index;
use crate::journal::{Batch, JournalOptions, OpenError, Opened, ReadError, Replay, ReplayError, Storage, Survey};

/// How often a long replay says how far it is.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// How a data directory is opened.
pub struct StoreOptions {
    /// The journal's.
    pub journal: JournalOptions,
    /// Tells when to say how far the replay is.
    pub clock: Arc<dyn Clock>,
}

/// The journal that a follower will follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Begin {
    /// Which history.
    pub incarnation: Incarnation,
    /// The first position that is still there, or will be: everything before it was truncated.
    pub first: Position,
}

/// Whether a follower is what the journal says it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is.
    InStep,
    /// It is not, and is to be given all records again.
    Again,
}

/// What is brought up to the journal's head beside the shard, by the same replay: the index.
pub trait Follow {
    /// Called first. Returns the position up to which it has everything already; it is given the records after it.
    fn begin(&mut self, journal: Begin) -> Position;

    /// The next record.
    fn follow(&mut self, position: Position, record: &Record);

    /// Called at the head, with the shard as it is there.
    fn end(&mut self, shard: &Shard) -> Verdict;

    /// Called when it was not in step: it drops what it has and is given all records of the journal. Being out of step
    /// once more is an error.
    fn reset(&mut self, journal: Begin);
}

/// An open data directory.
pub struct Store {
    /// At the journal's head.
    pub shard: Shard,
    /// The journal.
    pub opened: Opened,
}

/// Why a data directory cannot be opened. Nothing that may have been acknowledged was changed.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The journal cannot be opened or replayed.
    #[error(transparent)]
    Journal(#[from] OpenError),
    /// The journal cannot be read a second time, for the index alone.
    #[error("the journal cannot be read again for the index: {0}")]
    Again(#[from] ReadError),
    /// The index contradicts the journal it was just built from. A defect of the program.
    #[error("the index contradicts the journal that it was built from")]
    Contradiction,
}

/// Opens what is in `storage`, or makes a new journal there, and brings shard and follower to its head.
///
/// # Errors
/// [`StoreError`].
pub fn open(storage: Arc<dyn Storage>, options: &StoreOptions, follower: &mut dyn Follow) -> Result<Store, StoreError> {
    let survey = Survey::of(storage, options.journal.clone())?;
    let begin = Begin { incarnation: survey.incarnation(), first: survey.first() };
    let mut shard = Shard::new(options.journal.shard);
    let followed = follower.begin(begin).max(Position(begin.first.0 - 1));
    let from = followed.min(shard.head());
    let mut pace = Pace::new(options.clock.clone(), survey.bytes_after(from)?);
    let mut replayed = Replayed { shard: &mut shard, followed, follower, effects: Effects::default() };
    let opened = survey.open(Replay { from, at_least: Position(0) }, &mut |batch| {
        pace.pass(batch);
        replayed.batch(batch)
    })?;
    // A follower that is ahead of the journal was not made from it.
    if followed > opened.reader.head() || follower.end(&shard) == Verdict::Again {
        again(&opened, begin, &shard, follower)?;
    }
    Ok(Store { shard, opened })
}

/// A second reading, for a follower that was not in step.
fn again(opened: &Opened, begin: Begin, shard: &Shard, follower: &mut dyn Follow) -> Result<(), StoreError> {
    tracing::warn!("the index does not fit the journal; it is built anew");
    follower.reset(begin);
    let from = Position(begin.first.0 - 1);
    let head = opened.reader.head();
    let mut failed = Ok(());
    let flow = opened.reader.replay(from, head, |batch| {
        for entry in batch.entries() {
            match Record::decode(entry.private, entry.frame) {
                Ok(record) => follower.follow(entry.position, &record),
                Err(error) => {
                    let source = ReplayError::new(error);
                    failed = Err(OpenError::Replay { first: batch.first(), source });
                    return ControlFlow::Break(());
                }
            }
        }
        ControlFlow::Continue(())
    });
    let _ = flow?;
    failed?;
    match follower.end(shard) {
        Verdict::InStep => Ok(()),
        Verdict::Again => Err(StoreError::Contradiction),
    }
}

/// Who takes part in a replay.
struct Replayed<'a> {
    shard: &'a mut Shard,
    followed: Position,
    follower: &'a mut dyn Follow,
    effects: Effects,
}

impl Replayed<'_> {
    fn batch(&mut self, batch: &Batch) -> Result<(), ReplayError> {
        for entry in batch.entries() {
            let position = entry.position;
            let (for_shard, for_follower) = (position > self.shard.head(), position > self.followed);
            if !for_shard && !for_follower {
                continue;
            }
            let record = Record::decode(entry.private, entry.frame).map_err(ReplayError::new)?;
            if for_shard {
                self.shard.apply(&record, &mut self.effects).map_err(ReplayError::new)?;
                self.effects.signals.clear();
            }
            if for_follower {
                self.follower.follow(position, &record);
            }
        }
        Ok(())
    }
}

/// Says about once a second how far a replay is.
struct Pace {
    clock: Arc<dyn Clock>,
    next: Instant,
    bytes: u64,
    bytes_all: u64,
}

impl Pace {
    fn new(clock: Arc<dyn Clock>, bytes_all: u64) -> Self {
        Self { next: clock.now() + PROGRESS_EVERY, clock, bytes: 0, bytes_all }
    }

    fn pass(&mut self, batch: &Batch) {
        self.bytes += batch.bytes() as u64;
        let now = self.clock.now();
        if now >= self.next {
            self.next = now + PROGRESS_EVERY;
            let percent = (self.bytes * 100).checked_div(self.bytes_all).unwrap_or(100).min(100);
            tracing::info!(position = %batch.last(), percent, "replaying the journal");
        }
    }
}

impl Follow for &Index {
    fn begin(&mut self, _: Begin) -> Position {
        Position(0)
    }

    fn follow(&mut self, position: Position, record: &Record) {
        if let Record::Message(message) = record {
            let deliver = &message.deliver;
            self.append(deliver.conversation, deliver.seq, position, deliver.author);
        }
    }

    fn end(&mut self, _: &Shard) -> Verdict {
        Verdict::InStep
    }

    fn reset(&mut self, _: Begin) {
        unreachable!("it begins empty, with the journal")
    }
}
