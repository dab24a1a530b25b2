//! The keeper: the thread that takes snapshots and lets old segments go.
//!
//! The sequencer takes no part in either. A snapshot is made from the one before it and the journal's records since then,
//! by the same `apply`, in a second shard that lives as long as it takes; how much is read a second is bounded, so that
//! serving is not disturbed. Segments leave when retention says so *and* the older of the kept snapshots covers them: where
//! snapshots fall behind what comes, retention would too, so they are taken at full speed then.
//!
//! Nothing here is needed for serving: what fails is logged and tried again later.

use std::collections::BTreeSet;
use std::io;
use std::ops::ControlFlow;
use std::panic::resume_unwind;
use std::sync::{Arc, Once};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use carillon_core::Shard;
use carillon_core::effect::Effects;
use carillon_core::record::Record;
use carillon_protocol::ids::{Position, ShardId, Timestamp};
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded};

use crate::background::give_way;
use crate::clock::Clock;
use crate::index::{Index, TruncateError};
use crate::journal::{Batch, EndOnPanic, Reader, Storage, Upkeep};
use crate::snapshot::{self, Meta, SnapshotError};

mod error;
mod pace;
mod retention;
#[cfg(test)]
mod tests;
mod uncovered;

pub use error::KeepError;
use pace::Pace;
pub use retention::{Dated, Retention};
pub use uncovered::Uncovered;

/// How often the keeper looks whether there is something to do.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// After a failure nothing is tried for so long.
const AGAIN_AFTER: Duration = Duration::from_secs(60);

/// So much is read between two rests.
const READ_BYTES: u64 = 1024 * 1024;

/// When snapshots are taken, and what is kept. Every value stands in `docs/OPERATIONS.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeeperOptions {
    /// A snapshot is taken when the journal has grown by so much.
    pub snapshot_journal_bytes: u64,
    /// And when the newest one is so old, if there is anything new.
    pub snapshot_interval: Duration,
    /// A snapshot reads and writes at most so much a second, unless retention waits for it.
    pub snapshot_bytes_a_second: u64,
    /// What is kept.
    pub retention: Retention,
}

impl Default for KeeperOptions {
    fn default() -> Self {
        Self {
            snapshot_journal_bytes: 256 * 1024 * 1024,
            snapshot_interval: Duration::from_secs(24 * 3_600),
            snapshot_bytes_a_second: 64 * 1024 * 1024,
            retention: Retention::default(),
        }
    }
}

/// Who must know what is gone before it is deleted: the index.
pub trait Floor: Send + Sync {
    /// Everything up to here is about to leave the journal. After a restart the same is said of what lies before the
    /// journal's first position. Whether the disk has room is told, so that nothing is brought there if not.
    ///
    /// # Errors
    /// It cannot do without it now: nothing is deleted, and it is asked again later.
    fn truncate(&self, through: Position, has_room: bool) -> Result<(), TruncateError>;
}

impl Floor for Index {
    fn truncate(&self, through: Position, has_room: bool) -> Result<(), TruncateError> {
        Self::truncate(self, through, has_room)
    }
}

/// What a keeper is made of.
pub struct Parts {
    /// Whose state.
    pub shard: ShardId,
    /// Where journal and snapshots lie.
    pub storage: Arc<dyn Storage>,
    /// Reads the journal.
    pub reader: Reader,
    /// Removes its segments.
    pub upkeep: Upkeep,
    /// Told before they are removed.
    pub floor: Arc<dyn Floor>,
    /// Says when.
    pub clock: Arc<dyn Clock>,
    /// What to keep.
    pub options: KeeperOptions,
    /// Bytes of the journal that the newest snapshot does not cover, now.
    pub uncovered_bytes: u64,
}

/// The keeper.
pub struct Keeper {
    parts: Parts,
    stop: Receiver<()>,
    /// The kept snapshots, ascending, each read whole by this process or written by it.
    generations: Vec<Position>,
    /// Whether they are what lies there: not before they were looked at, nor after a file could not be changed.
    known: bool,
    /// Those that could not be read, once each, since they were all looked at.
    unread: BTreeSet<Position>,
    newest_time: Timestamp,
    uncovered: Arc<Uncovered>,
    dated: Dated,
}

/// What takes its time.
type Work = fn(&mut Keeper) -> Result<(), KeepError>;

/// How a rest ends.
type Rest = Result<(), KeepError>;

impl Keeper {
    /// A keeper that ends when the other end of `stop` is dropped.
    pub fn new(parts: Parts, stop: Receiver<()>) -> Self {
        let (generations, newest_time) = (Vec::new(), Timestamp(0));
        let uncovered = Arc::new(Uncovered::new(parts.upkeep.clone(), parts.uncovered_bytes));
        Self {
            parts,
            stop,
            generations,
            known: false,
            unread: BTreeSet::new(),
            newest_time,
            uncovered,
            dated: Dated::default(),
        }
    }

    /// Runs until it is stopped.
    pub fn run(mut self) {
        let mut wait = Duration::ZERO;
        while self.rest(wait).is_ok() {
            wait = match self.turn_by(Self::aside) {
                Ok(()) => LOOK_EVERY,
                Err(KeepError::Stopped) => return,
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "the keeper failed, and tries again later"
                    );
                    AGAIN_AFTER
                }
            };
        }
    }

    /// Sleeps, unless it is to end.
    fn rest(&self, time: Duration) -> Rest {
        match self.stop.recv_timeout(time) {
            Err(RecvTimeoutError::Timeout) => Ok(()),
            Ok(()) | Err(RecvTimeoutError::Disconnected) => Err(KeepError::Stopped),
        }
    }

    /// Does the work on a thread of its own, which gives way to those that serve if there is time: a nice value cannot be taken
    /// back, so that it has to be another thread each time.
    fn aside<T: Send>(&mut self, work: impl FnOnce(&mut Self) -> Result<T, KeepError> + Send) -> Result<T, KeepError> {
        static UNABLE: Once = Once::new();
        let late = self.is_late();
        thread::scope(|scope| {
            let worker = thread::Builder::new().name("snapshot".into()).spawn_scoped(scope, || {
                if !late && let Err(error) = give_way() {
                    UNABLE.call_once(|| tracing::warn!(%error, "snapshots are taken at the priority of serving"));
                }
                work(self)
            });
            worker.map_err(KeepError::Thread)?.join().unwrap_or_else(|panic| resume_unwind(panic))
        })
    }

    /// Work that begins now.
    fn pace(&self) -> Pace {
        Pace::new(self.parts.options.snapshot_bytes_a_second, self.parts.clock.now())
    }

    /// Rests after work on so many bytes for as long as the rate demands, if there is time.
    fn rest_after(&self, pace: &mut Pace, bytes: u64) -> Rest {
        self.rest(self.due_rest(pace, bytes))
    }

    fn due_rest(&self, pace: &mut Pace, bytes: u64) -> Duration {
        let rest = pace.rest_after(bytes, self.parts.clock.now());
        if !self.is_late() {
            return rest;
        }
        if pace.hurry() {
            tracing::warn!("snapshots are late, and retention waits for them: this one goes on at full speed");
        }
        Duration::ZERO
    }

    /// Whether retention waits for snapshots: a second one has become due before the first was done.
    fn is_late(&self) -> bool {
        let KeeperOptions { snapshot_journal_bytes, retention, .. } = self.parts.options;
        retention != Retention::default() && self.uncovered.bytes() >= snapshot_journal_bytes.saturating_mul(2)
    }

    /// Reads the snapshots that are there: only one that is good covers what is deleted.
    ///
    /// # Errors
    /// [`KeepError`].
    pub fn examine(&mut self) -> Result<(), KeepError> {
        self.known = false;
        self.generations.clear();
        let mut pace = self.pace();
        // One whose name is not durable covers nothing.
        self.parts.storage.sync_directory()?;
        for position in snapshot::list(&*self.parts.storage)? {
            match self.read(position, &mut pace, |_| {})? {
                Ok(meta) if meta.incarnation == self.parts.reader.incarnation() => {
                    self.generations.push(position);
                    self.newest_time = meta.time;
                }
                Ok(meta) => tracing::warn!(%position, incarnation = %meta.incarnation, "a snapshot of another history"),
                // It may be the moment: the next time it is left out.
                Err(SnapshotError::Io { source, .. }) if self.unread.insert(position) => return Err(source.into()),
                Err(error) => self.doubt(position, &error)?,
            }
        }
        self.known = true;
        self.unread.clear();
        Ok(())
    }

    /// Reads a snapshot, as fast as it may.
    fn read(
        &self,
        position: Position,
        pace: &mut Pace,
        mut chunk: impl FnMut(&[u8]),
    ) -> Result<Result<Meta, SnapshotError>, KeepError> {
        let mut rested = Ok(());
        let read = snapshot::read(&*self.parts.storage, position, |bytes| {
            chunk(bytes);
            if rested.is_ok() {
                rested = self.rest_after(pace, bytes.len() as u64);
            }
        });
        rested.map(|()| read)
    }

    fn doubt(&self, position: Position, error: &SnapshotError) -> io::Result<()> {
        tracing::warn!(error = error as &dyn std::error::Error, "a snapshot cannot be used");
        if let SnapshotError::Damaged { .. } = error {
            let name = snapshot::set_aside(&*self.parts.storage, position)?;
            tracing::warn!(name, "the damaged snapshot is kept under this name");
        }
        Ok(())
    }

    /// Looks at what lies there if that is not known, takes a snapshot if one is due, and lets segments go that may go.
    ///
    /// # Errors
    /// [`KeepError`].
    pub fn turn(&mut self) -> Result<(), KeepError> {
        self.turn_by(|keeper, work| work(keeper))
    }

    fn turn_by(&mut self, does: fn(&mut Self, Work) -> Result<(), KeepError>) -> Result<(), KeepError> {
        if !self.known {
            does(self, Self::examine)?;
        }
        let taken =
            self.is_due().and_then(|due| if due { does(self, |keeper| keeper.take().map(drop)) } else { Ok(()) });
        // Also when no snapshot could be taken: the older ones cover what they cover, and a full disk needs the room.
        let retained = self.retain().map(drop);
        let turned = taken.and(retained);
        if let Err(KeepError::Files(_) | KeepError::NoBase { .. }) = turned {
            self.known = false;
        }
        turned
    }

    fn is_due(&mut self) -> Result<bool, KeepError> {
        let Parts { reader, clock, options, .. } = &self.parts;
        let newest = self.generations.last().copied().unwrap_or_default();
        if reader.head() <= newest {
            return Ok(false);
        }
        if self.uncovered.bytes() >= options.snapshot_journal_bytes {
            return Ok(true);
        }
        // Without a snapshot, the journal is as old as its first record.
        let since = match newest {
            Position(0) => self.dated.begin(reader, reader.first())?.unwrap_or(clock.wall()),
            _ => self.newest_time,
        };
        Ok(Duration::from_millis(clock.wall().0.saturating_sub(since.0)) >= options.snapshot_interval)
    }

    /// Takes a snapshot at the head. Also without a reason.
    ///
    /// # Errors
    /// [`KeepError`]; there is no new snapshot then.
    pub fn take(&mut self) -> Result<Position, KeepError> {
        let begun = self.uncovered.begin();
        let through = self.parts.reader.head();
        // Before the work: it is tried again and again while there is no room.
        let before = self.generations.last().map_or(Ok(0), |newest| self.length(*newest))?;
        self.look_for(before)?;
        let mut pace = self.pace();
        let mut shard = self.base(&mut pace)?;
        let base = shard.head();
        self.replay(&mut shard, through, &mut pace)?;
        let time = self.parts.clock.wall();
        let incarnation = self.parts.reader.incarnation();
        let meta = Meta { shard: self.parts.shard, incarnation, position: through, time };
        let state = snapshot::encode(&shard);
        drop(shard);
        self.look_for(state.len() as u64)?;
        let storage = &*self.parts.storage;
        let written = snapshot::write(storage, &meta, &state, &mut |bytes| {
            self.rest_after(&mut pace, bytes as u64).map_err(io::Error::other)
        });
        if written.is_err() {
            self.rest(Duration::ZERO)?;
        }
        written?;
        // Taken at the head, so it is the newest; one of the same position was written over.
        self.generations.retain(|position| *position < through);
        self.generations.push(through);
        self.newest_time = time;
        self.uncovered.cover(begun);
        tracing::info!(position = %through, from = %base, bytes = state.len(), "snapshot taken");
        self.generations = snapshot::prune(storage, &self.generations)?;
        Ok(through)
    }

    fn length(&self, position: Position) -> io::Result<u64> {
        self.parts.storage.open(&snapshot::file_name(position))?.length()
    }

    /// Looks whether there is so much free room, as far as the storage tells. A snapshot may take what publishes are refused for:
    /// retention needs it, to make room.
    fn look_for(&self, needed: u64) -> Result<(), KeepError> {
        match self.parts.storage.free_bytes()? {
            Some(free) if free < needed => Err(KeepError::NoRoom { needed, free }),
            Some(_) | None => Ok(()),
        }
    }

    /// The shard as of the newest good snapshot, or without history.
    fn base(&mut self, pace: &mut Pace) -> Result<Shard, KeepError> {
        let first = self.parts.reader.first();
        while let Some(position) = self.generations.last().copied() {
            match self.load(position, pace)? {
                Ok(shard) if position.next() >= first => return Ok(shard),
                Ok(_) => {}
                Err(error) => {
                    // It may lie there all the same.
                    self.known = false;
                    self.doubt(position, &error)?;
                }
            }
            self.generations.pop();
        }
        if first > Position(1) { Err(KeepError::NoBase { first }) } else { Ok(Shard::new(self.parts.shard)) }
    }

    fn load(&self, position: Position, pace: &mut Pace) -> Result<Result<Shard, SnapshotError>, KeepError> {
        let mut state = Vec::new();
        let read = self.read(position, pace, |bytes| state.extend_from_slice(bytes))?;
        let whose = (self.parts.shard, self.parts.reader.incarnation());
        Ok(read.and_then(|meta| snapshot::build(whose, &meta, &state)))
    }

    /// Brings a shard up to a position.
    fn replay(&self, shard: &mut Shard, through: Position, pace: &mut Pace) -> Result<(), KeepError> {
        let mut effects = Effects::default();
        let mut unrested = 0;
        let flow = self.parts.reader.replay(shard.head(), through, |batch| {
            unrested += batch.bytes() as u64;
            let applied = apply(shard, batch, &mut effects).and_then(|()| {
                let due = if unrested >= READ_BYTES { std::mem::take(&mut unrested) } else { 0 };
                if due > 0 { self.rest_after(pace, due) } else { Ok(()) }
            });
            applied.map_or_else(ControlFlow::Break, ControlFlow::Continue)
        })?;
        match flow {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(error) => Err(error),
        }
    }

    /// Lets the segments go that are past retention and covered by the older snapshot; returns how many.
    ///
    /// # Errors
    /// [`KeepError`].
    pub fn retain(&mut self) -> Result<usize, KeepError> {
        let Parts { reader, upkeep, floor, clock, options, .. } = &self.parts;
        // A single one covers nothing: if it were damaged, there would be no way back to the journal's begin.
        let Some(covered) = self.generations.len().checked_sub(2).map(|older| self.generations[older]) else {
            return Ok(0);
        };
        if options.retention == Retention::default() {
            return Ok(0);
        }
        let segments = upkeep.segments()?;
        let dated = &mut self.dated;
        let through =
            options.retention.through(&segments, covered, clock.wall(), |first| dated.begin(reader, first))?;
        let Some(through) = through else { return Ok(0) };
        floor.truncate(through, reader.has_room())?;
        let removed = upkeep.truncate(through.next())?;
        self.dated.forget(through);
        tracing::info!(%through, segments = removed, "old segments removed from the journal");
        Ok(removed)
    }
}

/// A running keeper. Dropping this stops it, in the middle of a snapshot too, and waits until it has ended.
pub struct Keeping {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
    uncovered: Arc<Uncovered>,
}

impl Keeping {
    /// How far its snapshots are behind.
    pub fn uncovered(&self) -> &Arc<Uncovered> {
        &self.uncovered
    }
}

/// Starts the keeper's thread. A panic in it ends the process.
///
/// # Errors
/// The thread cannot be started.
pub fn start(parts: Parts) -> io::Result<Keeping> {
    let (stop, stopped) = bounded(0);
    let keeper = Keeper::new(parts, stopped);
    let uncovered = keeper.uncovered.clone();
    let thread = thread::Builder::new().name("keeper".into()).spawn(move || {
        let _guard = EndOnPanic;
        keeper.run();
    })?;
    Ok(Keeping { stop: Some(stop), thread: Some(thread), uncovered })
}

impl Drop for Keeping {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // A panic has ended the process already, in `EndOnPanic`.
            drop(thread.join());
        }
    }
}

fn apply(shard: &mut Shard, batch: &Batch, effects: &mut Effects) -> Result<(), KeepError> {
    for entry in batch.entries() {
        if entry.position <= shard.head() {
            continue;
        }
        let record = Record::decode(entry.private, entry.frame)?;
        shard.apply(&record, effects)?;
        effects.signals.clear();
    }
    Ok(())
}
