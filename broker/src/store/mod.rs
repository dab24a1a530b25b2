//! Opening a data directory: from files to a shard that stands at the journal's head.
//!
//! Owns the order of things at a start. The journal is the only truth; whatever else can be had from it (the shard's state,
//! the index) says up to which position it has it, one replay brings all of them to the head, and each skips what
//! it has. Nothing is deleted here because it looked bad. Damage before the snapshot costs nobody but who asks for what is
//! damaged: the state needs nothing of it, and a follower goes on without.

mod pipeline;
#[cfg(test)]
pub(crate) mod tests;

use std::error::Error;
use std::io;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use carillon_core::Shard;
use carillon_core::record::Record;
use carillon_protocol::ids::{Incarnation, Position, ShardId};
use thiserror::Error;

use crate::clock::Clock;
use crate::journal::{
    Batch, JournalOptions, Lost, OpenError, Opened, Piece, ReadError, Reader, Replay, Storage, Survey,
};
use crate::snapshot::{self, SnapshotError};
use pipeline::Refused;

/// How often a long replay says how far it is.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// Of a run of lost positions each so many is looked at by a start, 16, and the last: a batch that can be read again mostly has more records.
const LOOKED_AT_EVERY: usize = 16;

/// Lost positions that a start looks at, 16,384: some 20 us each.
const LOOKED_AT_MAX: usize = 16_384;

/// How a data directory is opened.
pub struct StoreOptions {
    /// The journal's.
    pub journal: JournalOptions,
    /// Tells when to say how far the replay is.
    pub clock: Arc<dyn Clock>,
    /// Who is shown how far it is, instead of the log.
    pub progress: Option<ShowReplay>,
}

/// Is told after each batch how many bytes of the journal were read, and of how many.
pub type ShowReplay = Arc<dyn Fn(u64, u64) + Send + Sync>;

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

/// A follower cannot write what it keeps beside the journal.
#[derive(Debug, Error)]
#[error(
    "cannot write the index to {path}: {source}; see that its disk has room and that this user may write there, then start \
     again: the journal is whole"
)]
pub struct Unwritable {
    /// Where.
    pub path: PathBuf,
    /// Why.
    pub source: Box<dyn Error + Send + Sync>,
}

/// What is brought up to the journal's head beside the shard, by the same replay: the index.
pub trait Follow {
    /// How far it was brought in an earlier life, of whatever journal, if it was: asked before anything is begun, when no journal is
    /// there.
    fn known(&self) -> Option<Position> {
        None
    }

    /// Called first. Returns the position up to which it has everything already; it is given the records after it.
    fn begin(&mut self, journal: Begin) -> Position;

    /// The next record. Where damage was met, records that it has may come again.
    fn follow(&mut self, position: Position, record: &Record);

    /// The next record cannot be read: it goes on without.
    fn lose(&mut self, position: Position);

    /// What it went on without, in this life and in earlier ones.
    fn lost(&self) -> Lost {
        Lost::default()
    }

    /// Called at the head, with the shard as it is there.
    ///
    /// # Errors
    /// [`Unwritable`]: giving it the records again would not help.
    fn end(&mut self, shard: &Shard) -> Result<Verdict, Unwritable>;

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
    /// The position of the snapshot that the shard began with; 0: none.
    pub snapshot: Position,
    /// Bytes of the journal after it.
    pub uncovered_bytes: u64,
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
    /// The files cannot be listed, or a damaged snapshot cannot be set aside.
    #[error("the snapshots cannot be looked at: {0}")]
    Snapshots(#[source] io::Error),
    /// The journal does not go back to its begin, and no snapshot reaches it. Needs an operator.
    #[error(
        "the journal begins at position {first} and no usable snapshot reaches it{}; start the carillon that reads one of \
         them, if one is named, or else restore the data directory from a backup",
        .tried.iter().map(|why| format!("; {why}")).collect::<String>()
    )]
    NoSnapshot {
        /// The first position there is.
        first: Position,
        /// Why each snapshot cannot be used.
        tried: Vec<String>,
    },
    /// There are snapshots and no journal: its segments were lost or moved away. Needs an operator.
    #[error("the journal's segments are missing, but {snapshot} is there; put them back, or restore from a backup")]
    Missing {
        /// A snapshot's file.
        snapshot: String,
    },
    /// There is an index and no journal. Needs an operator.
    #[error(
        "there is no journal, but the index beside it knows one up to position {known}: the journal was moved, or its file system is \
         not mounted; bring it back, or restore from a backup; who gives up all of it removes the index as well"
    )]
    Orphaned {
        /// How far the index was brought.
        known: Position,
    },
    /// The index cannot be written. Needs an operator: room, or rights.
    #[error(transparent)]
    Unwritable(#[from] Unwritable),
    /// The index contradicts the journal it was just built from. A defect of the program.
    #[error("the index contradicts the journal that it was built from")]
    Contradiction,
}

/// Opens what is in `storage`, or makes a new journal there, and brings shard and follower to its head.
///
/// # Errors
/// [`StoreError`].
pub fn open(
    storage: Arc<dyn Storage>,
    options: &StoreOptions,
    follower: &mut (dyn Follow + Send),
) -> Result<Store, StoreError> {
    snapshot::remove_unfinished(&*storage).map_err(StoreError::Snapshots)?;
    let survey = Survey::of(storage.clone(), options.journal.clone())?;
    if survey.is_new()
        && let Some(known) = follower.known()
    {
        return Err(StoreError::Orphaned { known });
    }
    let begin = Begin { incarnation: survey.incarnation(), first: survey.first() };
    let shard = newest_state(&*storage, &survey, options.journal.shard)?;
    let snapshot = shard.head();
    let followed = follower.begin(begin).max(Position(begin.first.0 - 1));
    let known_lost = follower.lost();
    let bytes_all = survey.bytes_after(Position(begin.first.0 - 1))?;
    let again = survey.clone();
    let store = match bring_up(survey, options, shard, (follower, followed)) {
        Err(StoreError::Journal(OpenError::Corrupt(damage))) if followed < snapshot => {
            tracing::error!(%damage, "what is older than the snapshot is looked through for what can be read");
            let shard = newest_state(&*storage, &again, options.journal.shard)?;
            let pace = Pace::new(options, again.bytes_after(followed)?);
            // Fails if the damage is not before the snapshot.
            let store = bring_up(again, options, shard, (follower, Position(u64::MAX)))?;
            salvage(&store.opened.reader, followed, follower, pace)?;
            store
        }
        brought => brought?,
    };
    let reader = &store.opened.reader;
    // A follower that is ahead of the journal was not made from it.
    let is_in_step = followed <= reader.head() && follower.end(&store.shard)? == Verdict::InStep;
    if !is_in_step {
        tracing::warn!("the index does not fit the journal; it is built anew");
    } else if is_readable(reader, &known_lost) && can_be_read(reader) {
        tracing::warn!("records that were damaged can be read again; the index is built anew, with them");
    } else {
        reader.leave_out(&follower.lost());
        return Ok(store);
    }
    follower.reset(begin);
    salvage(reader, Position(begin.first.0 - 1), follower, Pace::new(options, bytes_all))?;
    match follower.end(&store.shard)? {
        Verdict::InStep => {
            reader.leave_out(&follower.lost());
            Ok(store)
        }
        Verdict::Again => Err(StoreError::Contradiction),
    }
}

/// Opens the journal and replays it, to the shard from where it is, and to the follower from what it has.
fn bring_up(
    survey: Survey,
    options: &StoreOptions,
    mut shard: Shard,
    (follower, followed): (&mut (dyn Follow + Send), Position),
) -> Result<Store, StoreError> {
    let snapshot = shard.head();
    let from = followed.min(snapshot);
    let mut pace = Pace::new(options, survey.bytes_after(from)?);
    let mut uncovered_bytes = 0;
    let opened = pipeline::replay(Some(&mut shard), (follower, followed), |sink| {
        survey.open(Replay { from, at_least: snapshot }, &mut |batch| {
            pace.pass(batch);
            uncovered_bytes += if batch.last() > snapshot { batch.bytes() as u64 } else { 0 };
            sink.batch(batch)
        })
    });
    let opened = opened.map_err(|Refused { first, source }| OpenError::Replay { first, source })??;
    Ok(Store { shard, opened, snapshot, uncovered_bytes })
}

/// The shard as of the newest good snapshot, or without history. A damaged snapshot is set aside, and the one before it is
/// tried: the journal reaches back to two of them.
fn newest_state(storage: &dyn Storage, survey: &Survey, shard: ShardId) -> Result<Shard, StoreError> {
    let positions = snapshot::list(storage).map_err(StoreError::Snapshots)?;
    if let Some(position) = positions.last().filter(|_| survey.is_new()) {
        return Err(StoreError::Missing { snapshot: snapshot::file_name(*position) });
    }
    let mut tried = Vec::new();
    for position in positions.into_iter().rev() {
        if position.next() < survey.first() {
            tried.push(format!("{} lies before it", snapshot::file_name(position)));
            continue;
        }
        match snapshot::load(storage, shard, survey.incarnation(), position) {
            Ok((_, shard)) => {
                tracing::info!(%position, "the state is taken from a snapshot");
                return Ok(shard);
            }
            Err(error) => {
                tracing::warn!(%error, "a snapshot cannot be used, an older one or the whole journal is");
                if let SnapshotError::Damaged { .. } = error {
                    let aside = snapshot::set_aside(storage, position).map_err(StoreError::Snapshots)?;
                    tracing::warn!(name = aside, "the damaged snapshot is kept under this name");
                }
                tried.push(error.to_string());
            }
        }
    }
    if survey.first() > Position(1) {
        return Err(StoreError::NoSnapshot { first: survey.first(), tried });
    }
    Ok(Shard::new(shard))
}

/// A reading for the follower alone, around damage.
fn salvage(
    reader: &Reader,
    from: Position,
    follower: &mut (dyn Follow + Send),
    mut pace: Pace,
) -> Result<(), StoreError> {
    let head = reader.head();
    let replayed = pipeline::replay(None, (follower, from), |sink| {
        reader.salvage(from, head, |piece| {
            let first = match &piece {
                Piece::Batch(batch) => {
                    pace.pass(batch);
                    batch.first()
                }
                Piece::Record(entry) => entry.position,
                Piece::Lost(position) => *position,
            };
            match sink.piece(&piece) {
                Ok(()) => ControlFlow::Continue(()),
                Err(source) => ControlFlow::Break(OpenError::Replay { first, source }),
            }
        })
    });
    let flow = replayed.map_err(|Refused { first, source }| OpenError::Replay { first, source })??;
    if let ControlFlow::Break(error) = flow {
        return Err(error.into());
    }
    let lost = follower.lost();
    if let Some((first, _)) = lost.runs().first() {
        let (places, records) = (lost.runs().len(), lost.count());
        tracing::error!(%first, places, records, "records are damaged and left out; `verify` names them, a backup has them");
    }
    Ok(())
}

/// Whether some of what was lost can be read: a damaged file was replaced, or it was the reading that failed.
fn is_readable(reader: &Reader, lost: &Lost) -> bool {
    let within =
        lost.runs().iter().flat_map(|(first, last)| (first.0..=last.0).step_by(LOOKED_AT_EVERY).chain([last.0]));
    within.take(LOOKED_AT_MAX).any(|position| reader.read(&[Position(position)], 0).is_ok())
}

/// Whether an index can be built anew of what there is: one that is in step is not given up for one that cannot be.
fn can_be_read(reader: &Reader) -> bool {
    let flow = reader.salvage(Position(reader.first().0 - 1), reader.head(), |_| ControlFlow::<()>::Continue(()));
    let Err(error) = flow else { return true };
    tracing::error!(%error, "records that were damaged can be read again, but not the whole journal: they stay left out");
    false
}

/// Says how far a replay is: in the log about once a second, or to who looks on.
struct Pace {
    clock: Arc<dyn Clock>,
    show: Option<ShowReplay>,
    next: Instant,
    bytes: u64,
    bytes_all: u64,
}

impl Pace {
    fn new(options: &StoreOptions, bytes_all: u64) -> Self {
        let (clock, show) = (options.clock.clone(), options.progress.clone());
        Self { next: clock.now() + PROGRESS_EVERY, clock, show, bytes: 0, bytes_all }
    }

    fn pass(&mut self, batch: &Batch) {
        self.bytes += batch.bytes() as u64;
        if let Some(show) = &self.show {
            return show(self.bytes, self.bytes_all);
        }
        let now = self.clock.now();
        if now >= self.next {
            self.next = now + PROGRESS_EVERY;
            let percent = (self.bytes * 100).checked_div(self.bytes_all).unwrap_or(100).min(100);
            tracing::info!(position = %batch.last(), percent, "replaying the journal");
        }
    }
}
