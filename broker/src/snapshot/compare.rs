//! Snapshots compared with the journal: each must be, byte for byte, the state that the records up to its position lead to.
//!
//! A snapshot's checksums say that it is what was written; this says that what was written is right. It reads the files as a tool
//! does, also beside a broker, and changes nothing. It takes the memory of a shard and of its state encoded.

use std::io;

use carillon_core::effect::Effects;
use carillon_core::record::{Record, RecordError};
use carillon_core::{ApplyError, Shard};
use carillon_protocol::ids::Position;
use thiserror::Error;

use super::{SnapshotError, encode, list, load, read};
use crate::journal::{Batch, OpenError, Storage, Walk, WalkError};

/// How often it begins anew when a broker beside it has removed what it was about to read.
const TRIES_MAX: usize = 8;

/// What a snapshot turned out to be.
#[derive(Debug)]
pub enum Standing {
    /// What the records lead to.
    Same,
    /// Another state, or of another history.
    Other,
    /// The records before it are gone: it is believed, and those after it are replayed on it.
    Base,
    /// The records before it are gone, and it is older than the base or cannot be one.
    Unreached,
    /// The journal ends before it: records are missing.
    Beyond,
    /// It cannot be read.
    Unreadable(SnapshotError),
}

/// Why snapshots cannot be compared with the records.
#[derive(Debug, Error)]
pub enum CompareError {
    /// The journal cannot be read, or is damaged.
    #[error(transparent)]
    Journal(#[from] OpenError),
    /// The snapshots cannot be listed.
    #[error("the directory cannot be listed: {0}")]
    List(io::Error),
    /// No readable snapshot reaches the journal's begin.
    #[error("the journal begins at position {0}, and no usable snapshot reaches it: there is no state to go on from")]
    NoBase(Position),
    /// A record cannot be decoded.
    #[error("position {0}: {1}")]
    Record(Position, RecordError),
    /// A record contradicts the state that those before it lead to.
    #[error("position {0} contradicts the records before it: {1}")]
    Apply(Position, ApplyError),
    /// A broker beside this removes files faster than they are read.
    #[error("a broker removes files faster than they can be read here: compare them in a backup")]
    Outrun,
}

impl From<WalkError<Self>> for CompareError {
    fn from(error: WalkError<Self>) -> Self {
        match error {
            WalkError::Journal(error) => Self::Journal(error),
            WalkError::Sink(error) => error,
        }
    }
}

impl CompareError {
    /// Whether a file was removed that was there before.
    fn is_gone(&self) -> bool {
        match self {
            Self::Journal(OpenError::Io { source, .. }) => source.kind() == io::ErrorKind::NotFound,
            _ => false,
        }
    }
}

/// Replays the journal from its begin, or from the oldest usable snapshot that reaches it, and says of each snapshot what it is, by
/// position. `progress` is told how many of all bytes of the segments are done.
///
/// # Errors
/// [`CompareError`].
pub fn compare(
    storage: &dyn Storage,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Vec<(Position, Standing)>, CompareError> {
    for _ in 0..TRIES_MAX {
        match compare_once(storage, progress) {
            // Retention took it, or snapshots were replaced by newer ones before one of them was read.
            Err(error) if error.is_gone() => {}
            Ok(None) => {}
            Ok(Some(compared)) => return Ok(compared),
            Err(error) => return Err(error),
        }
    }
    Err(CompareError::Outrun)
}

/// `None` if the snapshots are others by now, and none was there to begin with.
fn compare_once(
    storage: &dyn Storage,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Option<Vec<(Position, Standing)>>, CompareError> {
    // In this order: what is listed first is covered by what is read later.
    let mut snapshots = list(storage).map_err(CompareError::List)?;
    snapshots.sort_unstable();
    let Some(walk) = Walk::of(storage)? else {
        return Ok(Some(snapshots.into_iter().map(|position| (position, Standing::Beyond)).collect()));
    };
    let Some(mut replay) = Replay::begin(storage, &walk, snapshots)? else { return Ok(None) };
    let from = replay.shard.head().next();
    let (mut bytes, bytes_all) = (0, walk.bytes_from(from)?);
    walk.batches(from, |batch| {
        bytes += batch.bytes() as u64;
        progress(bytes, bytes_all);
        replay.batch(batch)
    })?;
    let Replay { next, mut compared, .. } = replay;
    compared.extend(next.map(|position| (position, Standing::Beyond)));
    Ok(Some(compared))
}

struct Replay<'a> {
    storage: &'a dyn Storage,
    walk: &'a Walk<'a>,
    shard: Shard,
    effects: Effects,
    /// Snapshots that the replay has not come to, ascending.
    next: std::iter::Peekable<std::vec::IntoIter<Position>>,
    compared: Vec<(Position, Standing)>,
}

impl<'a> Replay<'a> {
    fn begin(
        storage: &'a dyn Storage,
        walk: &'a Walk<'a>,
        snapshots: Vec<Position>,
    ) -> Result<Option<Self>, CompareError> {
        let (id, first) = (walk.shard(), walk.segments()[0]);
        let (mut compared, mut gone) = (Vec::new(), false);
        let mut next = snapshots.into_iter().peekable();
        let mut shard = (first == Position(1)).then(|| Shard::new(id));
        while let Some(position) = next.next_if(|_| shard.is_none()) {
            if position.next() < first {
                compared.push((position, Standing::Unreached));
                continue;
            }
            match load(storage, id, walk.identity().incarnation, position) {
                Ok((_, base)) => {
                    compared.push((position, Standing::Base));
                    shard = Some(base);
                }
                Err(error) if is_gone(&error) => gone = true,
                Err(error) => compared.push((position, Standing::Unreadable(error))),
            }
        }
        match shard {
            Some(shard) => Ok(Some(Self { storage, walk, shard, effects: Effects::default(), next, compared })),
            None if gone => Ok(None),
            None => Err(CompareError::NoBase(first)),
        }
    }

    fn batch(&mut self, batch: &Batch) -> Result<(), CompareError> {
        for entry in batch.entries() {
            let position = entry.position;
            if position <= self.shard.head() {
                continue;
            }
            let record =
                Record::decode(entry.private, entry.frame).map_err(|error| CompareError::Record(position, error))?;
            self.shard.apply(&record, &mut self.effects).map_err(|error| CompareError::Apply(position, error))?;
            // Nobody is told of anything.
            self.effects.signals.clear();
            if self.next.next_if_eq(&position).is_some() {
                // One that is gone was replaced by a newer one.
                let standing = self.standing(position);
                self.compared.extend(standing.map(|standing| (position, standing)));
            }
        }
        Ok(())
    }

    fn standing(&self, position: Position) -> Option<Standing> {
        let state = encode(&self.shard);
        let (mut rest, mut same) = (&state[..], true);
        let read = read(self.storage, position, |chunk| {
            let (expected, after) = rest.split_at(chunk.len().min(rest.len()));
            same &= expected == chunk;
            rest = after;
        });
        let ours = (self.walk.shard(), self.walk.identity().incarnation);
        match read {
            Ok(meta) if same && rest.is_empty() && (meta.shard, meta.incarnation) == ours => Some(Standing::Same),
            Ok(_) => Some(Standing::Other),
            Err(error) if is_gone(&error) => None,
            Err(error) => Some(Standing::Unreadable(error)),
        }
    }
}

fn is_gone(error: &SnapshotError) -> bool {
    matches!(error, SnapshotError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
}
