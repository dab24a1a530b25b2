//! Snapshots held against the journal: each must be, byte for byte, the state that the records up to its position lead to.
//!
//! A snapshot's checksums say that it is what was written; this says that what was written is right. It reads the files as a tool
//! does, changes nothing, and takes the memory of two encoded states beside a shard.

use carillon_core::effect::Effects;
use carillon_core::record::{Record, RecordError};
use carillon_core::{ApplyError, Shard};
use carillon_protocol::ids::Position;
use thiserror::Error;

use super::{SnapshotError, encode, list, load, read_whole};
use crate::journal::{Batch, OpenError, Storage, Walk, WalkError};

/// What a snapshot turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// What the records lead to.
    Same,
    /// Another state than that.
    Other,
    /// The journal begins after its records: the later ones are held against it.
    Base,
    /// It cannot be read, or the journal does not reach it.
    Unknown,
}

/// Why snapshots cannot be held against the records.
#[derive(Debug, Error)]
pub enum HoldError {
    /// The journal cannot be read, or is damaged.
    #[error(transparent)]
    Journal(#[from] OpenError),
    /// The snapshots cannot be listed.
    #[error("the directory cannot be listed: {0}")]
    List(std::io::Error),
    /// No readable snapshot reaches the journal's begin.
    #[error("the journal begins at position {0}, and no usable snapshot reaches it: there is no state to go on from")]
    NoBase(Position),
    /// A record cannot be decoded.
    #[error("position {0}: {1}")]
    Record(Position, RecordError),
    /// A record contradicts the state that those before it lead to.
    #[error("position {0} contradicts the records before it: {1}")]
    Apply(Position, ApplyError),
}

impl From<WalkError<Self>> for HoldError {
    fn from(error: WalkError<Self>) -> Self {
        match error {
            WalkError::Journal(error) => Self::Journal(error),
            WalkError::Sink(error) => error,
        }
    }
}

/// Replays the journal from its begin, or from the oldest usable snapshot that reaches it, and says of each snapshot what it is, by
/// position. `progress` is told how many of all bytes of the segments are done.
///
/// # Errors
/// [`HoldError`].
pub fn hold(storage: &dyn Storage, progress: &mut dyn FnMut(u64, u64)) -> Result<Vec<(Position, Standing)>, HoldError> {
    let mut snapshots = list(storage).map_err(HoldError::List)?;
    snapshots.sort_unstable();
    let Some(walk) = Walk::of(storage)? else {
        return Ok(snapshots.into_iter().map(|position| (position, Standing::Unknown)).collect());
    };
    let mut replay = Replay::begin(storage, &walk, snapshots)?;
    let from = replay.shard.head().next();
    let (mut bytes, bytes_all) = (0, walk.bytes_from(from)?);
    walk.batches(from, |batch| {
        bytes += batch.bytes() as u64;
        progress(bytes, bytes_all);
        replay.batch(batch)
    })?;
    replay.held.extend(replay.next.map(|position| (position, Standing::Unknown)));
    Ok(replay.held)
}

struct Replay<'a> {
    storage: &'a dyn Storage,
    shard: Shard,
    effects: Effects,
    /// Snapshots that the replay has not come to, ascending.
    next: std::iter::Peekable<std::vec::IntoIter<Position>>,
    held: Vec<(Position, Standing)>,
}

impl<'a> Replay<'a> {
    fn begin(storage: &'a dyn Storage, walk: &Walk<'_>, snapshots: Vec<Position>) -> Result<Self, HoldError> {
        let (id, first) = (walk.shard(), walk.segments()[0]);
        let mut held = Vec::new();
        let mut next = snapshots.into_iter().peekable();
        let mut shard = (first == Position(1)).then(|| Shard::new(id));
        while let Some(position) = next.next_if(|_| shard.is_none()) {
            let base = load(storage, id, walk.identity().incarnation, position);
            let base = base.ok().filter(|_| position.next() >= first);
            held.push((position, if base.is_some() { Standing::Base } else { Standing::Unknown }));
            shard = base.map(|(_, shard)| shard);
        }
        let shard = shard.ok_or(HoldError::NoBase(first))?;
        Ok(Self { storage, shard, effects: Effects::default(), next, held })
    }

    fn batch(&mut self, batch: &Batch) -> Result<(), HoldError> {
        for entry in batch.entries() {
            let position = entry.position;
            if position <= self.shard.head() {
                continue;
            }
            let record =
                Record::decode(entry.private, entry.frame).map_err(|error| HoldError::Record(position, error))?;
            self.shard.apply(&record, &mut self.effects).map_err(|error| HoldError::Apply(position, error))?;
            // Nobody is told of anything.
            self.effects.signals.clear();
            if self.next.next_if_eq(&position).is_some() {
                let standing = self.standing(position);
                self.held.push((position, standing));
            }
        }
        Ok(())
    }

    fn standing(&self, position: Position) -> Standing {
        let read: Result<_, SnapshotError> = read_whole(self.storage, position);
        match read {
            Ok((_, state)) if state == encode(&self.shard) => Standing::Same,
            Ok(_) => Standing::Other,
            Err(_) => Standing::Unknown,
        }
    }
}
